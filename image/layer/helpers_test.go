package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tare-oci/tare/image/internal/imagetest"
)

var stamp = imagetest.Stamp

// pack is imagetest.Pack.
func pack(t testing.TB, entries ...string) []byte {
	t.Helper()
	return imagetest.Pack(t, entries...)
}

func writeEntry(t testing.TB, w *tar.Writer, h *tar.Header, content string) {
	t.Helper()
	if err := w.WriteHeader(h); err != nil {
		t.Fatalf("%s: %v", h.Name, err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
}

func unpack(t testing.TB, dir string, archive []byte, o Options) (Result, error) {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return Unpack(context.Background(), root, bytes.NewReader(archive), o)
}

func mustUnpack(t testing.TB, dir string, archive []byte, o Options) Result {
	t.Helper()
	r, err := unpack(t, dir, archive, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// listing is imagetest.Listing.
func listing(t testing.TB, dir string, inode bool) []string {
	t.Helper()
	return imagetest.Listing(t, dir, inode)
}

// names lists a tree's paths, directories with a slash, without the root.
func names(t testing.TB, dir string) string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if e.IsDir() {
			name += "/"
		}
		found = append(found, name)
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	slices.Sort(found)
	return strings.Join(found, " ")
}

// canary is a directory with a root directory to unpack into and things beside it that must never change.
type canary struct {
	dir, root string
	before    []string
}

func newCanary(t testing.TB, dir string) *canary {
	t.Helper()
	c := &canary{dir: dir, root: filepath.Join(dir, "root")}
	for _, d := range []string{"root", "root-evil", "outside/sub"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"file", "root-evil/file", "outside/file", "outside/sub/file"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("canary"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"outside/sub", "outside", "root-evil", "."} {
		if err := os.Chtimes(filepath.Join(dir, d), stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	c.before = c.outside(t)
	return c
}

func (c *canary) outside(t testing.TB) []string {
	t.Helper()
	return slices.DeleteFunc(listing(t, c.dir, true), func(line string) bool {
		return strings.HasPrefix(line, "root ") || strings.HasPrefix(line, "root/")
	})
}

func (c *canary) check(t testing.TB) {
	t.Helper()
	if after := c.outside(t); !slices.Equal(after, c.before) {
		t.Errorf("changed outside the root:\nbefore %s\nafter  %s", strings.Join(c.before, "\n       "), strings.Join(after, "\n       "))
	}
}
