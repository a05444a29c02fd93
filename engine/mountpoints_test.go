package engine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestRemoveMountPoints removes what is empty and nothing else, whatever links the container has left.
func TestRemoveMountPoints(t *testing.T) {
	e := newEngine(t)
	c := mustCreate(t, e, record{})
	defer c.discard()
	outside := t.TempDir()
	for _, dir := range []string{"proc", "etc", "data/inner", "full"} {
		if err := os.MkdirAll(c.path("upper", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{c.path("upper/etc/hosts"): "", c.path("upper/etc/kept"): "x", c.path("upper/full/x"): "", filepath.Join(outside, "victim"): ""} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, c.path("upper/link")); err != nil {
		t.Fatal(err)
	}
	config := `{"mounts":[{"destination":"/proc"},{"destination":"/etc/hosts"},{"destination":"/etc/kept"},{"destination":"/data"},{"destination":"/data/inner"},` +
		`{"destination":"/full"},{"destination":"/link/victim"},{"destination":"../../x"},{"destination":"/"},{"destination":"/none"}]}`
	if err := os.WriteFile(c.path("config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.removeMountPoints(); err != nil {
		t.Fatal(err)
	}
	var left []string
	filepath.Walk(c.path("upper"), func(p string, _ os.FileInfo, err error) error {
		rel, _ := filepath.Rel(c.path("upper"), p)
		left = append(left, rel)
		return err
	})
	if want := []string{".", "etc", "etc/kept", "full", "full/x", "link"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
	if _, err := os.Stat(filepath.Join(outside, "victim")); err != nil {
		t.Error("a link led out of the container:", err)
	}
}
