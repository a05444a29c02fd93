package state

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// fullState has every field of the state and of its hooks, so that one that encode or decode forgets shows.
func fullState(t testing.TB) State {
	seconds := 7
	hook := specs.Hook{Path: "/h", Args: []string{"h", "a\"b"}, Env: []string{"A=é"}, Timeout: &seconds}
	full := State{Version: "1.3.0", ID: "a\"b", Creating: true, Creator: Process{1, 2}, Init: Process{3, 4}, Bundle: "/b", Rootfs: "/r",
		Created: time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC), Owner: 7, Annotations: map[string]string{"k": "v\n"},
		Hooks: &specs.Hooks{Prestart: []specs.Hook{hook}, CreateRuntime: []specs.Hook{hook, {Path: "/i"}}, CreateContainer: []specs.Hook{hook},
			StartContainer: []specs.Hook{hook}, Poststart: []specs.Hook{hook}, Poststop: []specs.Hook{hook}},
		Cgroup: json.RawMessage(`{"mode":"v2"}`), NoPivot: true,
		OwnPidNS: true, Rootless: true, NoProcess: true, NoNewKeyring: true, IntelRdt: json.RawMessage(`{"dir":"x"}`),
		Facts: Facts{IDMapHelpers: true, SameNamespaces: 5, UserNamespace: 6, MountOwner: 7}, Streams: []string{"pipe:[1]"}}
	for _, v := range []reflect.Value{reflect.ValueOf(full), reflect.ValueOf(full.Facts), reflect.ValueOf(*full.Hooks), reflect.ValueOf(hook)} {
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Fatalf("the test leaves %s empty", v.Type().Field(i).Name)
			}
		}
	}
	return full
}

// TestEncode compares encode and decode with encoding/json.
func TestEncode(t *testing.T) {
	full := fullState(t)
	for _, want := range []State{full, {Created: full.Created}, {Created: full.Created, Hooks: &specs.Hooks{}, Annotations: map[string]string{}}} {
		data := want.encode()
		var std, got State
		if err := json.Unmarshal(data, &std); err != nil {
			t.Fatalf("%v in %s", err, data)
		}
		if err := got.decode(data); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if dropNull(&std); !reflect.DeepEqual(std, want) {
			t.Errorf("encoding/json reads %+v, want %+v", std, want)
		}
		theirs, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got = State{}
		if err := got.decode(theirs); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("of encoding/json's text: got %+v, %v, want %+v", got, err, want)
		}
	}
}

// dropNull makes the raw members that are null absent: encoding/json keeps the word.
func dropNull(s *State) {
	for _, raw := range []*json.RawMessage{&s.Cgroup, &s.IntelRdt} {
		if string(*raw) == "null" {
			*raw = nil
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, "want a value, got the end of the text"},
		{`{`, "want a property name"},
		{`{"id":"a"`, "want ',' or '}'"},
		{`{"id":"a"} x`, "want the end of the text"},
		{`{"id":"a","id":"b"}`, "id: duplicate name"},
		{`{"id":1}`, "id: want a string, got 1"},
		{`{"init":{"pid":"1"}}`, "init.pid: want an integer"},
		{`{"init":{"pid":1.5}}`, "init.pid: want an integer"},
		{`{"init":{"pid":9223372036854775808}}`, "init.pid"},
		{`{"init":{"startTime":-1}}`, "init.startTime"},
		{`{"owner":4294967296}`, "owner: want an integer from 0 to 4294967295"},
		{`{"created":"yesterday"}`, "created: want a time of RFC 3339"},
		{`{"creating":"yes"}`, "creating: want true or false"},
		{`{"cgroup":{"mode":}}`, "want a value"},
		{`{"cgroup":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "nested deeper"},
		{"{\"id\":\"\xff\"}", "UTF-8"},
	} {
		var s State
		if err := s.decode([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("decode %s = %v, want %q", c.text, err, c.want)
		}
	}
	var s State // written by a later version, or an earlier one
	if err := s.decode([]byte(`{"id":"a","later":{"x":[1,null]},"hooks":null,"cgroup":null,"facts":{"later":1}}`)); err != nil || s.ID != "a" || s.Cgroup != nil {
		t.Errorf("unknown members: %+v, %v", s, err)
	}
}

// FuzzDecode: what decode accepts is JSON, has the same content for encoding/json, and stays the same when written and
// read again.
func FuzzDecode(f *testing.F) {
	full := fullState(f)
	f.Add(full.encode())
	f.Add((&State{Created: full.Created}).encode())
	f.Add([]byte(`{"id":"a","Id":"b","created":"2026-01-02T03:04:05+01:00","init":null,"hooks":{"poststop":[]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, std State
		if got.decode(data) != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted invalid JSON: %q", data)
		}
		if sameNames(data) {
			if err := json.Unmarshal(data, &std); err != nil {
				t.Fatalf("encoding/json refuses what decode accepts: %v in %q", err, data)
			}
			if dropNull(&std); !std.Created.Equal(got.Created) {
				t.Fatalf("created: %v and %v", got.Created, std.Created)
			}
			if ours, theirs := got.encode(), std.encode(); len(got.Annotations) < 2 && string(ours) != string(theirs) {
				t.Fatalf("decode reads\n%s\nencoding/json\n%s", ours, theirs)
			}
		}
		var again State
		if err := again.decode(got.encode()); err != nil {
			t.Fatalf("own text refused: %v\n%s", err, got.encode())
		}
		if !again.Created.Equal(got.Created) || again.ID != got.ID || again.Init != got.Init || again.Facts != got.Facts ||
			!reflect.DeepEqual(again.Annotations, got.Annotations) || !reflect.DeepEqual(again.Streams, got.Streams) {
			t.Fatalf("changes when written and read: %+v, %+v", got, again)
		}
	})
}

// sameNames tells whether encoding/json, which ignores the case of names and compares them after folding, sees the same
// members: no name has a letter that is of the other case than a known one.
func sameNames(data []byte) bool {
	var top map[string]json.RawMessage
	if json.Unmarshal(data, &top) != nil {
		return false
	}
	known := map[string]bool{}
	for _, t := range []reflect.Type{reflect.TypeFor[State](), reflect.TypeFor[Process](), reflect.TypeFor[Facts](), reflect.TypeFor[specs.Hooks](),
		reflect.TypeFor[specs.Hook]()} {
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			known[name] = true
		}
	}
	same := true
	var walk func(data json.RawMessage)
	walk = func(data json.RawMessage) {
		var object map[string]json.RawMessage
		if json.Unmarshal(data, &object) == nil {
			for name, value := range object {
				for k := range known {
					same = same && (name == k || !strings.EqualFold(name, k))
				}
				walk(value)
			}
		}
		var list []json.RawMessage
		if json.Unmarshal(data, &list) == nil {
			for _, value := range list {
				walk(value)
			}
		}
	}
	walk(data)
	return same
}

func BenchmarkDecode(b *testing.B) {
	full := fullState(b)
	data := full.encode()
	b.Run("tare", func(b *testing.B) {
		for b.Loop() {
			if new(State).decode(data) != nil {
				b.Fatal()
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		for b.Loop() {
			if json.Unmarshal(data, new(State)) != nil {
				b.Fatal()
			}
		}
	})
}
