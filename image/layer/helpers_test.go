package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

var stamp = time.Unix(1_600_000_000, 123_456_789)

// pack makes an archive of headers written in short: "d name", "f name content", "l name target", "h name target", "p name",
// "c name major:minor". A name may be quoted with %q's rules left out: it ends at the first blank.
func pack(t testing.TB, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		kind, rest, _ := strings.Cut(e, " ")
		name, arg, _ := strings.Cut(rest, " ")
		h := &tar.Header{Name: name, Mode: 0o644, ModTime: stamp, Format: tar.FormatPAX}
		content := ""
		switch kind {
		case "d":
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case "f":
			h.Typeflag, content = tar.TypeReg, arg
		case "l":
			h.Typeflag, h.Linkname = tar.TypeSymlink, arg
		case "h":
			h.Typeflag, h.Linkname = tar.TypeLink, arg
		case "p":
			h.Typeflag = tar.TypeFifo
		case "c":
			h.Typeflag = tar.TypeChar
			fmt.Sscanf(arg, "%d:%d", &h.Devmajor, &h.Devminor)
		default:
			t.Fatalf("kind %q", kind)
		}
		h.Size = int64(len(content))
		writeEntry(t, w, h, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
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

// listing describes a tree: kind, mode, owner, mtime, extended attributes, content or target, and link groups.
func listing(t testing.TB, dir string, inode bool) []string {
	t.Helper()
	var lines []string
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %v %d:%d %s", name, info.Mode(), st.Uid, st.Gid, info.ModTime().UTC().Format(time.RFC3339Nano))
		parent, err := os.Open(filepath.Dir(path))
		if err != nil {
			return err
		}
		defer parent.Close()
		fd, _ := fsat.Fd(parent)
		x, err := fsat.XattrsAt(fd, filepath.Base(path))
		if err != nil {
			return err
		}
		if len(x) > 0 {
			line += fmt.Sprintf(" %q", x)
		}
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %.40q", len(content), content)
		case info.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			line += " -> " + target
		case info.Mode()&fs.ModeDevice != 0:
			line += fmt.Sprintf(" rdev %x", st.Rdev)
		}
		if st.Nlink > 1 && !info.IsDir() {
			if first[st.Ino] == "" {
				first[st.Ino] = name
			}
			line += " linked to " + first[st.Ino]
		}
		if inode {
			line += fmt.Sprintf(" inode %d", st.Ino)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
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
