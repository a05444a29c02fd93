package mount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOverlay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := filepath.Join(t.TempDir(), "a:b,c\\d") // characters that overlay options give a meaning to
	for _, d := range []string{"one", "two", "upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "one", "file"), "one")
	write(t, filepath.Join(dir, "two", "file"), "two")
	at := func(d string) string { return filepath.Join(dir, d) }
	root := at("root")

	result := make(chan error)
	go func() { // the thread's namespace goes with the goroutine
		result <- func() error {
			if err := Private(); err != nil {
				return err
			}
			o := Overlay{Lower: []string{at("two"), at("one")}, Upper: at("upper"), Work: at("work"), Volatile: true}
			if err := o.Mount(root); err != nil {
				return err
			}
			if got, _ := os.ReadFile(filepath.Join(root, "file")); string(got) != "two" {
				t.Errorf("the uppermost layer's file: %q", got)
			}
			write(t, filepath.Join(root, "file"), "new")
			return Detach(root)
		}()
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(at("upper/file")); string(got) != "new" {
		t.Errorf("upper/file: %q", got)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), filepath.Base(filepath.Dir(dir))) {
		t.Error("the host's mount table shows the overlay")
	}
}

func TestOverlayNeedsLower(t *testing.T) {
	if err := (Overlay{}).Mount(t.TempDir()); err == nil {
		t.Error("an overlay without lower directories mounts")
	}
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Error(err)
	}
}
