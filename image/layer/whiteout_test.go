package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tare-oci/tare/image/internal/imagetest"
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
	for _, c := range imagetest.Whiteouts {
		t.Run(c.Name, func(t *testing.T) {
			inPlace, overlay := unpackBoth(t, [][]byte{pack(t, imagetest.WhiteoutBase...), pack(t, c.Entries...)})
			if got := treeNames(inPlace); got != c.Want {
				t.Errorf("in place %s\nnot      %s", got, c.Want)
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
	const files = 1000
	markers := 200_000
	if os.Getenv("TARE_LONG") != "" {
		markers = 1_000_000
	}
	var entries []string
	for i := range files {
		entries = append(entries, "f d/"+strconv.Itoa(i)+" x")
	}
	head := pack(t, entries...)
	head = head[:len(head)-1024]
	var one bytes.Buffer
	if err := tar.NewWriter(&one).WriteHeader(&tar.Header{Name: "d/" + opaqueMarker, Format: tar.FormatUSTAR}); err != nil {
		t.Fatal(err)
	}
	for _, w := range []Whiteouts{Overlay, Marks, InPlace} {
		root, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute) // 1e9 steps would take longer
		defer cancel()
		archive := io.MultiReader(bytes.NewReader(head), &repeat{p: one.Bytes(), left: markers * one.Len()}, bytes.NewReader(make([]byte, 1024)))
		r, err := Unpack(ctx, root, archive, Options{Whiteouts: w})
		if err != nil || r.Entries != int64(files+markers) {
			t.Fatalf("%d entries, %v", r.Entries, err)
		}
	}
}

// repeat gives the same bytes again and again.
type repeat struct {
	p    []byte
	at   int
	left int // bytes
}

func (r *repeat) Read(dst []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(dst[:min(len(dst), r.left)], r.p[r.at:])
	r.at, r.left = (r.at+n)%len(r.p), r.left-n
	return n, nil
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
