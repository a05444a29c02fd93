package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tare-oci/tare/internal/sys/flock"
)

func newEngine(t *testing.T) *Engine {
	t.Helper()
	e, err := Open(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func mustCreate(t *testing.T, e *Engine, r record) *Container {
	t.Helper()
	c, err := e.create(r)
	if err == nil {
		err = c.save()
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// abandon does to a container what the death of its process does.
func abandon(c *Container) string {
	c.own.Release()
	return c.record.ID
}

func TestNames(t *testing.T) {
	e := newEngine(t)
	a := mustCreate(t, e, record{Name: "a"})
	if _, err := e.create(record{Name: "a"}); err == nil || !strings.Contains(err.Error(), "name a is in use by container "+a.record.ID[:12]) {
		t.Errorf("a name that is taken: %v", err)
	}
	if list, err := e.List(); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
	for _, ref := range []string{"a", a.record.ID, a.record.ID[:4], a.record.ID[:12]} {
		if id, err := e.find(ref); err != nil || id != a.record.ID {
			t.Errorf("find %s: %s %v", ref, id, err)
		}
	}
	for _, ref := range []string{"", "y", "../names/a", ".", "zz"} {
		if _, err := e.find(ref); !errors.Is(err, ErrNotFound) {
			t.Errorf("find %q: %v", ref, err)
		}
	}
	if err := a.end(Outcome{Code: 3}); err != nil {
		t.Fatal(err)
	}
	list, err := e.List()
	if err != nil || len(list) != 1 || list[0].State != "exited" || *list[0].ExitCode != 3 || list[0].Finished == nil {
		t.Errorf("%+v %v", list, err)
	}
	if err := e.Remove("a", false); err != nil {
		t.Error(err)
	}
	// A name whose container has gone without it is free.
	if err := os.Symlink(strings.Repeat("0", 64), e.path("names/a")); err != nil {
		t.Fatal(err)
	}
	again := mustCreate(t, e, record{Name: "a", AutoRemove: true})
	if err := again.end(Outcome{}); err != nil {
		t.Error(err)
	}
	isEmpty(t, e)
}

func isEmpty(t *testing.T, e *Engine) {
	t.Helper()
	for _, d := range []string{"names", "running", "containers"} {
		entries, err := os.ReadDir(e.path(d))
		if err != nil || len(entries) > 0 {
			t.Errorf("%s: %v %v", d, entries, err)
		}
	}
}

func TestSweep(t *testing.T) {
	e := newEngine(t)
	live := mustCreate(t, e, record{Name: "live", AutoRemove: true})
	gone := abandon(mustCreate(t, e, record{Name: "gone", AutoRemove: true}))
	kept := abandon(mustCreate(t, e, record{Name: "kept"}))
	half := abandon(mustCreate(t, e, record{Name: "half"})) // removal had begun
	if err := os.Rename(e.path("containers", half), e.path("containers", "."+half)); err != nil {
		t.Fatal(err)
	}
	torn := abandon(mustCreate(t, e, record{Name: "torn"})) // a power cut emptied its record
	if err := os.WriteFile(e.path("containers", torn, "container.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unborn, err := flock.Acquire(e.path("running", strings.Repeat("f", 64)))
	if err != nil {
		t.Fatal(err)
	}
	unborn.Release()
	for range 2 {
		if err := e.Sweep(); err != nil {
			t.Fatal(err)
		}
	}
	list, err := e.List()
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, s := range list {
		states[s.ID] = s.State
	}
	if len(states) != 3 || states[live.record.ID] != "running" || states[kept] != "exited" || states[torn] != "exited" || states[gone] != "" {
		t.Errorf("after the sweep: %v", states)
	}
	if err := live.end(Outcome{}); err != nil {
		t.Error(err)
	}
	for _, ref := range []string{"kept", torn} {
		if err := e.Remove(ref, false); err != nil {
			t.Error(err)
		}
	}
	os.Remove(e.path("names/half")) // free for whoever wants it, as TestNames shows
	os.Remove(e.path("names/torn"))
	isEmpty(t, e)
}

func TestFindRuntime(t *testing.T) {
	d := t.TempDir()
	path := filepath.Join(d, "my-runtime")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", d)
	for _, name := range []string{"my-runtime", path} {
		if got, err := FindRuntime(name); err != nil || got != path {
			t.Errorf("%s: %s %v", name, got, err)
		}
	}
	for _, name := range []string{"", "other", d, d + "/other"} {
		if got, err := FindRuntime(name); err == nil {
			t.Errorf("%q: %s", name, got)
		}
	}
}
