package mount

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread() // the thread ends with the test, and its mounts with it
	if err := Private(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, d := range []string{"a", "b", "on"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"a/x", "b/y"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	on := filepath.Join(dir, "on")
	for _, lower := range [][]string{{"a"}, {"a", "b"}} {
		paths := make([]string, len(lower))
		for i, l := range lower {
			paths[i] = filepath.Join(dir, l)
		}
		if is, err := On(on); err != nil || is {
			t.Errorf("mounted before: %v %v", is, err)
		}
		if err := ReadOnly(paths, on, false); err != nil {
			t.Fatal(err)
		}
		if is, err := On(on); err != nil || !is {
			t.Errorf("not mounted: %v %v", is, err)
		}
		if names, err := os.ReadDir(on); err != nil || len(names) != len(lower) {
			t.Errorf("%v: shows %v, %v", lower, names, err)
		}
		if err := os.WriteFile(filepath.Join(on, "new"), nil, 0o644); err == nil {
			t.Errorf("%v: can be written", lower)
		}
		if err := Unmount(on); err != nil {
			t.Error(err)
		}
	}
	if err := ReadOnly(nil, on, false); err == nil {
		t.Error("nothing can be mounted")
	}
	if err := Unmount(on); err == nil {
		t.Error("what is not mounted is unmounted")
	}
}
