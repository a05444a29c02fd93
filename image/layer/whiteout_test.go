package layer

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// privately runs test in a mount namespace of its own, on a thread that ends with it.
func privately(t *testing.T, test func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		err := syscall.Unshare(syscall.CLONE_NEWNS)
		if err == nil {
			err = syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
		}
		if err != nil {
			t.Errorf("make a private mount namespace: %v", err)
			return
		}
		test()
	}()
	<-done
}

// unpackBoth applies layers in place, and as overlay layers that are then mounted, and returns both trees.
func unpackBoth(t *testing.T, layers [][]byte) (inPlace, overlay []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "layer") // the test's name may have what mount options cannot
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	flat := filepath.Join(dir, "flat")
	os.Mkdir(flat, 0o755)
	var lower []string
	var open []*os.File
	for i, archive := range layers {
		mustUnpack(t, flat, archive, Options{Whiteouts: InPlace})
		own := filepath.Join(dir, string(rune('a'+i)))
		os.Mkdir(own, 0o755)
		o := Options{Lower: slices.Clone(open)}
		slices.Reverse(o.Lower)
		if o.Lower == nil {
			o.Lower = []*os.File{}
		}
		mustUnpack(t, own, archive, o)
		f, err := os.Open(own)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		open = append(open, f)
		lower = append([]string{own}, lower...)
	}
	empty := filepath.Join(dir, "empty") // overlayfs wants two lower directories when it has no upper one
	os.Mkdir(empty, 0o755)
	privately(t, func() {
		merged := filepath.Join(dir, "merged")
		os.Mkdir(merged, 0o755)
		options := "lowerdir=" + strings.Join(append(lower, empty), ":")
		if err := syscall.Mount("overlay", merged, "overlay", syscall.MS_RDONLY, options); err != nil {
			t.Errorf("mount overlay %s: %v", options, err)
			return
		}
		overlay = listing(t, merged, false)
	})
	inPlace = listing(t, flat, false)
	if t.Failed() {
		t.FailNow()
	}
	// The root has its attributes from the topmost root entry, which is the engine's to copy; link counts differ in overlayfs.
	return inPlace[1:], overlay[1:]
}

func treeNames(lines []string) string {
	var found []string
	for _, l := range lines {
		f := strings.Fields(l)
		if strings.HasPrefix(f[1], "d") {
			f[0] += "/"
		}
		found = append(found, f[0])
	}
	slices.Sort(found)
	return strings.Join(found, " ")
}

func TestWhiteouts(t *testing.T) {
	base := []string{"d a", "d a/b", "f a/b/1 one", "f a/b/2 two", "f a/f file", "d e", "f e/x x", "f e/y y", "l l a"}
	for _, c := range []struct {
		name  string
		upper []string
		want  string
	}{
		{"nothing", nil, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
		{"file", []string{"f a/.wh.f"}, "a/ a/b/ a/b/1 a/b/2 e/ e/x e/y l"},
		{"directory", []string{"f a/.wh.b"}, "a/ a/f e/ e/x e/y l"},
		{"link", []string{"f .wh.l"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y"},
		{"missing name and parent", []string{"f .wh.no", "f no/.wh.no"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
		{"parent is a file", []string{"f a/f/.wh.no"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
		{"same layer, file first", []string{"f a/f new", "f a/.wh.f"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
		{"same layer, whiteout first", []string{"f a/.wh.f", "f a/f new"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
		{"same layer, directory first", []string{"d a/b", "f a/b/3 x", "f a/.wh.b"}, "a/ a/b/ a/b/3 a/f e/ e/x e/y l"},
		{"same layer, whiteout before directory", []string{"f a/.wh.b", "d a/b", "f a/b/3 x"}, "a/ a/b/ a/b/3 a/f e/ e/x e/y l"},
		{"same layer, only the child has an entry", []string{"f a/b/3 x", "f a/.wh.b"}, "a/ a/b/ a/b/3 a/f e/ e/x e/y l"},
		{"opaque first", []string{"d e", "f e/.wh..wh..opq", "f e/z z"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/z l"},
		{"opaque last", []string{"d e", "f e/z z", "f e/.wh..wh..opq"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/z l"},
		{"opaque before its directory", []string{"f e/.wh..wh..opq", "d e", "f e/z z"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/z l"},
		{"opaque above a kept directory", []string{"f a/b/3 x", "f a/.wh..wh..opq"}, "a/ a/b/ a/b/3 e/ e/x e/y l"},
		{"opaque and a new lower name", []string{"f e/.wh..wh..opq", "f e/x new"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x l"},
		{"opaque of a missing directory", []string{"d n", "f n/.wh..wh..opq", "f n/f x"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l n/ n/f"},
		{"aufs's own files", []string{"d .wh..wh.plnk", "f .wh..wh.plnk/1.2 x", "f .wh..wh.aufs ", "f e/.wh..wh.orph "}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
		{"through a lower link", []string{"f l/.wh.f", "f l/g x"}, "a/ a/b/ a/b/1 a/b/2 a/g e/ e/x e/y l"},
		{"file over directory", []string{"f a/b x"}, "a/ a/b a/f e/ e/x e/y l"},
		{"directory over file", []string{"d a/f", "f a/f/in x"}, "a/ a/b/ a/b/1 a/b/2 a/f/ a/f/in e/ e/x e/y l"},
		{"directory over link", []string{"d l", "f l/in x"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l/ l/in"},
		{"link over directory", []string{"l a e"}, "a e/ e/x e/y l"},
		{"directory over directory", []string{"d a/b"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
		{"file and then directory", []string{"f a/b x", "d a/b", "f a/b/3 x"}, "a/ a/b/ a/b/3 a/f e/ e/x e/y l"},
		{"hard link to a lower file", []string{"h e/h a/f"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/h e/x e/y l"},
		{"hard link to a lower link", []string{"h e/h l"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/h e/x e/y l"},
		{"hard link over its target", []string{"h a/f a/f"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
		{"hard link through a lower link", []string{"h h l/b/1"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y h l"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inPlace, overlay := unpackBoth(t, [][]byte{pack(t, base...), pack(t, c.upper...)})
			if got := treeNames(inPlace); got != c.want {
				t.Errorf("in place %s\nnot      %s", got, c.want)
			}
			if !slices.Equal(inPlace, overlay) {
				t.Errorf("in place\n%s\noverlay\n%s", strings.Join(inPlace, "\n"), strings.Join(overlay, "\n"))
			}
		})
	}
}

// TestNeedsLower checks that a layer which cannot be unpacked rightly on its own says so.
func TestNeedsLower(t *testing.T) {
	for _, c := range []struct {
		entries []string
		needs   bool
		err     error
	}{
		{[]string{"d a", "f a/b x"}, false, nil},
		{[]string{"f a/b x"}, true, nil},
		{[]string{"f a/.wh.b"}, true, nil},
		{[]string{"h a b"}, false, ErrNeedsLower},
		{[]string{"h a b/c"}, false, ErrNeedsLower},
	} {
		r, err := unpack(t, t.TempDir(), pack(t, c.entries...), Options{})
		if !errors.Is(err, c.err) || err == nil && r.NeedsLower != c.needs {
			t.Errorf("%q: %v, %v", c.entries, r.NeedsLower, err)
		}
		if r, err = unpack(t, t.TempDir(), pack(t, c.entries...), Options{Lower: []*os.File{}}); errors.Is(err, ErrNeedsLower) || r.NeedsLower {
			t.Errorf("%q with nothing below: %v, %v", c.entries, r.NeedsLower, err)
		}
	}
}

// TestManyOpaqueMarkers is CVE-2026-95838: work must not grow with markers times files.
func TestManyOpaqueMarkers(t *testing.T) {
	const files, markers = 2000, 100_000
	var b bytes.Buffer
	for i := range files {
		b.Write(pack(t, "f d/"+string(rune('a'+i%26))+strings.Repeat("x", i/26)+" x")[:1024+1024])
	}
	marker := pack(t, "f d/.wh..wh..opq")
	marker = marker[:len(marker)-1024]
	for range markers {
		b.Write(marker)
	}
	for _, w := range []Whiteouts{Overlay, InPlace} {
		root, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // 4e8 steps would take longer
		defer cancel()
		if _, err := Unpack(ctx, root, bytes.NewReader(b.Bytes()), Options{Whiteouts: w}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRootMarks checks what a layer says about the root directory itself, which overlayfs cannot keep in the layer.
func TestRootMarks(t *testing.T) {
	for _, c := range []struct {
		entries       []string
		entry, opaque bool
	}{
		{[]string{"f a x"}, false, false},
		{[]string{"d ./", "f a x"}, true, false},
		{[]string{"d /"}, true, false},
		{[]string{"f .wh..wh..opq", "f a x"}, false, true},
		{[]string{"f ./.wh..wh..opq"}, false, true},
	} {
		r := mustUnpack(t, t.TempDir(), pack(t, c.entries...), Options{})
		if r.RootEntry != c.entry || r.RootOpaque != c.opaque {
			t.Errorf("%q: %+v", c.entries, r)
		}
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "old"), nil, 0o644)
		mustUnpack(t, dir, pack(t, c.entries...), Options{Whiteouts: InPlace})
		if _, err := os.Lstat(filepath.Join(dir, "old")); (err != nil) != c.opaque {
			t.Errorf("%q in place: %v", c.entries, err)
		}
	}
}
