package cgroup

import (
	"encoding/json"
	"reflect"
	"testing"
)

// TestAppendJSON fills every field, so that one that AppendJSON forgets shows.
func TestAppendJSON(t *testing.T) {
	full := Dir{Hierarchy: Hierarchy{Controllers: []string{"cpu", "cpuacct"}, Name: "n", Unified: true, MountPoint: "/m", OwnPath: "/o"},
		Path: "/p\"", Made: []string{"/p"}}
	for _, v := range []reflect.Value{reflect.ValueOf(full), reflect.ValueOf(full.Hierarchy)} {
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Fatalf("the test leaves %s empty", v.Type().Field(i).Name)
			}
		}
	}
	for _, want := range []Group{{Mode: Hybrid, Dirs: []Dir{full, {Path: "/x"}}, Unit: &Unit{Name: "u.scope", User: true, ID: 9}}, {}} {
		var std Group
		text := want.AppendJSON(nil)
		if err := json.Unmarshal(text, &std); err != nil || !reflect.DeepEqual(std, want) && len(want.Dirs) > 0 {
			t.Errorf("encoding/json reads %+v, %v, want %+v", std, err, want)
		}
		if got, err := DecodeGroup(text); err != nil || !reflect.DeepEqual(*got, std) {
			t.Errorf("got %+v, %v, want %+v", got, err, std)
		}
		theirs, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeGroup(theirs); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("of encoding/json's text: got %+v, %v, want %+v", got, err, want)
		}
	}
	for _, text := range []string{"", "[]", `{"mode":1}`, `{"dirs":[{"path":"a\u0000"}]}`, `{"mode":"v1","mode":"v2"}`, `{"unit":{"id":-1}}`, `{} {}`} {
		if _, err := DecodeGroup([]byte(text)); err == nil {
			t.Errorf("DecodeGroup of %s: no error", text)
		}
	}
}
