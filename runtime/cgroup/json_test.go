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
	want := Group{Mode: Hybrid, Dirs: []Dir{full, {Path: "/x"}}}
	var got Group
	if err := json.Unmarshal(want.AppendJSON(nil), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}
