package state

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestEncode fills every field, so that one that encode forgets shows.
func TestEncode(t *testing.T) {
	full := State{Version: "1.3.0", ID: "a\"b", Creating: true, Creator: Process{1, 2}, Init: Process{3, 4}, Bundle: "/b", Rootfs: "/r",
		Created: time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC), Owner: 7, Annotations: map[string]string{"k": "v\n"},
		Hooks: &specs.Hooks{Poststop: []specs.Hook{{Path: "/h"}}}, Cgroup: json.RawMessage(`{"mode":"v2"}`), NoPivot: true,
		OwnPidNS: true, Rootless: true, NoProcess: true, NoNewKeyring: true, IntelRdt: json.RawMessage(`{"dir":"x"}`),
		Facts: Facts{IDMapHelpers: true, SameNamespaces: 5}, Streams: []string{"pipe:[1]"}}
	v := reflect.ValueOf(full)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Fatalf("the test leaves %s empty", v.Type().Field(i).Name)
		}
	}
	for _, want := range []State{full, {Cgroup: json.RawMessage("null"), IntelRdt: json.RawMessage("null"), Created: full.Created}} {
		data, err := want.encode()
		if err != nil {
			t.Fatal(err)
		}
		var got State
		if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}
