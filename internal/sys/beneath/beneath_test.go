package beneath

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOpenFile(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "d")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "sub"), 0o755),
		os.WriteFile(filepath.Join(top, "secret"), []byte("secret"), 0o600),
		os.WriteFile(filepath.Join(dir, "sub/file"), []byte("hello"), 0o600),
		os.Symlink("../secret", filepath.Join(dir, "out")),
		os.Symlink("sub/file", filepath.Join(dir, "in")),
		os.Symlink("sub", filepath.Join(dir, "dirlink")),
		os.Symlink("/proc/self/exe", filepath.Join(dir, "magic")),
		syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f, size, err := d.OpenFile("sub/file")
	if err != nil || size != 5 {
		t.Fatalf("size %d, error %v", size, err)
	}
	defer f.Close()
	if data, err := io.ReadAll(f); err != nil || string(data) != "hello" {
		t.Fatalf("read %q, %v", data, err)
	}
	for name, want := range map[string]error{
		"out": syscall.ELOOP, "in": syscall.ELOOP, "dirlink/file": syscall.ELOOP, "magic": syscall.ELOOP,
		"../secret": syscall.EXDEV, "sub/../../secret": syscall.EXDEV, filepath.Join(top, "secret"): syscall.EXDEV,
		"none": os.ErrNotExist, "sub/file/x": syscall.ENOTDIR,
	} {
		if f, _, err := d.OpenFile(name); !errors.Is(err, want) {
			t.Errorf("%s: opened %v, error %v, want %v", name, f, err, want)
		}
	}
	for _, name := range []string{"fifo", "sub"} {
		if _, _, err := d.OpenFile(name); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(top, "secret")); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("open a file as directory: %v", err)
	}
}
