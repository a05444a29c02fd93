package cgroup

import (
	"context"
	"errors"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A group is not made where its processes would be frozen from their birth.
func TestCreateRefusesFrozen(t *testing.T) {
	parent := testGroup(t, nil)
	inner, err := testHost(t).Plan(parent.Dirs[0].Path+"/a/b", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Freeze(context.Background()); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func() error{
		"itself": func() error { same, _ := testHost(t).Plan(parent.Dirs[0].Path, ""); return same.Create(nil) },
		"below":  func() error { return inner.Create(nil) },
	} {
		err := make()
		if !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "container's cgroup unexpectedly frozen") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, d := range inner.Dirs {
		if isThere(path.Dir(d.dir())) {
			t.Errorf("%s is left", path.Dir(d.dir()))
		}
	}
	if err := parent.Thaw(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := inner.Create(nil); err != nil {
		t.Fatal(err)
	}
	if err := inner.Destroy(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// Who is above a frozen group is told at once; what is frozen below goes with the group.
func TestFrozenAboveAndBelow(t *testing.T) {
	parent := testGroup(t, nil)
	inner, _ := testHost(t).Plan(parent.Dirs[0].Path+"/b", "")
	if err := inner.Create(nil); err != nil {
		t.Fatal(err)
	}
	cmd, _ := spawn(t, inner, "")
	if err := parent.Freeze(context.Background()); err != nil {
		t.Fatal(err)
	}
	d, _ := parent.freezerDir()
	if at := inner.FrozenAbove(); at != d.dir() || parent.FrozenAbove() != "" {
		t.Errorf("frozen above: %q, %q", at, parent.FrozenAbove())
	}
	begin := time.Now()
	if err := inner.Thaw(context.Background()); err == nil || !strings.Contains(err.Error(), d.dir()+" above it is frozen") || time.Since(begin) > time.Second {
		t.Errorf("thaw below a frozen group: %v after %v", err, time.Since(begin))
	}
	want := d.dir()
	if d.Unified {
		want = "" // SIGKILL ends it
	}
	if at := testHost(t).FrozenElsewhere(cmd.Process.Pid, inner); at != want {
		t.Errorf("frozen elsewhere: %q, want %q", at, want)
	}
	if at := testHost(t).FrozenElsewhere(cmd.Process.Pid, parent); at != "" {
		t.Errorf("frozen elsewhere: %q, want nothing", at)
	}
	if err := parent.Thaw(context.Background()); err != nil {
		t.Fatal(err)
	}
	if d.Unified {
		if err := inner.Destroy(context.Background()); err != nil {
			t.Fatal(err)
		}
		return
	}
	sub := inner.find("freezer").dir() + "/own"
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, v := range map[string]string{"cgroup.procs": strconv.Itoa(cmd.Process.Pid), "freezer.state": "FROZEN"} {
		if err := os.WriteFile(sub+"/"+file, []byte(v), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := inner.Destroy(context.Background()); err != nil {
		t.Fatal(err)
	}
}
