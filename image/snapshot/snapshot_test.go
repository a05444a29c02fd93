package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/internal/imagetest"
)

// file is a tar entry: a directory if its name ends with a slash.
func file(name, text string) imagetest.Entry {
	return imagetest.Entry{Header: tar.Header{Name: name}, Content: text}
}

// layerOf makes a layer of entries. opened counts the calls of Open.
func layerOf(t *testing.T, opened *atomic.Int32, entries ...imagetest.Entry) Layer {
	t.Helper()
	return layerOfTar(imagetest.Tar(t, entries...), opened)
}

func layerOfTar(data []byte, opened *atomic.Int32) Layer {
	return Layer{DiffID: digest.FromBytes(data), Open: func() (io.ReadCloser, error) {
		if opened != nil {
			opened.Add(1)
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "layers"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { onlyWhole(t, s) })
	return s
}

// onlyWhole checks that nothing half done and no lock is in the store.
func onlyWhole(t *testing.T, s *Store) {
	t.Helper()
	for _, suffix := range []string{lockSuffix, partSuffix, goneSuffix} {
		for _, pattern := range []string{"*/*", "chain/*/*"} {
			if left, _ := filepath.Glob(s.path(pattern + suffix)); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		}
	}
}

func image(t *testing.T, s *Store, layers ...Layer) *Rootfs {
	t.Helper()
	r, err := s.Image(context.Background(), layers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestOnce(t *testing.T) {
	var opened atomic.Int32
	s := open(t)
	l := layerOf(t, &opened, file("a", "x"))
	var wg sync.WaitGroup
	for range 20 {
		other, err := Open(s.dir, Options{}) // as another process would
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			info, err := other.Layer(context.Background(), l.DiffID, l.Open)
			if err != nil || info.DiffID != l.DiffID || info.Entries != 1 {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
	wg.Wait()
	if n := opened.Load(); n != 1 {
		t.Errorf("opened %d times", n)
	}
	if !s.Has(l.DiffID) || s.Has(digest.FromString("other")) || s.Has("sha256:../..") {
		t.Error("Has is wrong")
	}
}

// TestRefused has what must never become visible.
func TestRefused(t *testing.T) {
	good := imagetest.Tar(t, file("a", "x"))
	id := digest.FromBytes(good)
	broken := errors.New("connection lost")
	for _, c := range []struct {
		name string
		id   digest.Digest
		r    io.Reader
		want string
	}{
		{"another layer's diff ID (CVE-2026-93318)", digest.FromString("victim"), bytes.NewReader(good), "content is " + id.String()},
		{"stream that breaks off", id, io.MultiReader(bytes.NewReader(good[:700]), errReader{broken}), broken.Error()},
		{"stream that fails at its end", id, io.MultiReader(bytes.NewReader(good), errReader{broken}), broken.Error()},
		{"bytes behind", id, io.MultiReader(bytes.NewReader(good), strings.NewReader("x")), "content is"},
		{"cut short", id, bytes.NewReader(good[:300]), "unexpected EOF"},
		{"path as diff ID", "sha256:../../../../etc", bytes.NewReader(good), "malformed"},
		{"unknown algorithm", "blake3:" + digest.Digest(id.Encoded()), bytes.NewReader(good), "cannot be verified"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			_, err := s.Layer(context.Background(), c.id, func() (io.ReadCloser, error) { return io.NopCloser(c.r), nil })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, not %q", err, c.want)
			}
			if list, err := s.List(context.Background()); err != nil || len(list) != 0 {
				t.Errorf("%v, %v", list, err)
			}
		})
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestCancel(t *testing.T) {
	s := open(t)
	l := layerOf(t, nil, file("a", "x"))
	ctx, cancel := context.WithCancel(context.Background())
	started, stop := make(chan struct{}), make(chan struct{})
	slow := make(chan error)
	go func() {
		_, err := s.Layer(context.Background(), l.DiffID, func() (io.ReadCloser, error) {
			close(started)
			<-stop
			return l.Open()
		})
		slow <- err
	}()
	<-started
	waits := make(chan error)
	go func() {
		_, err := s.Layer(ctx, l.DiffID, func() (io.ReadCloser, error) { panic("somebody else is at it") })
		waits <- err
	}()
	cancel()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	close(stop)
	if err := <-slow; err != nil {
		t.Error(err)
	}
	if _, err := s.Layer(ctx, digest.FromString("x"), l.Open); !errors.Is(err, context.Canceled) {
		t.Errorf("work: %v", err)
	}
}

// dirNames are the diff IDs of the directories, shortened, for comparison.
func lowerOf(r *Rootfs) (names []string) {
	for _, d := range r.Lower {
		data, err := os.ReadFile(filepath.Join(d, "name"))
		if err != nil {
			data = []byte("?")
		}
		if strings.Contains(d, "/chain/") {
			data = append(data, '*')
		}
		names = append(names, string(data))
	}
	return names
}

func TestImage(t *testing.T) {
	named := func(name string, more ...imagetest.Entry) Layer {
		return layerOf(t, nil, append([]imagetest.Entry{file("name", name)}, more...)...)
	}
	a, b, c := named("a", file("./", "")), named("b"), named("c", file("d/x", "needs the layers below"))
	opaque := named("o", file(".wh..wh..opq", ""))
	hard := named("h", imagetest.Entry{Header: tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "f"}})
	f := named("f", file("f", "x"))
	for _, tc := range []struct {
		name   string
		layers []Layer
		want   []string
	}{
		{"none", nil, nil},
		{"order", []Layer{a, b}, []string{"b", "a"}},
		{"lowest needs nothing", []Layer{c, b}, []string{"b", "c"}},
		{"above others", []Layer{a, b, c}, []string{"c*", "b", "a"}},
		{"twice the same", []Layer{a, b, a, b}, []string{"b", "a"}},
		{"opaque root", []Layer{a, b, opaque, c}, []string{"c*", "o"}},
		{"hard link into a lower layer", []Layer{f, hard}, []string{"h*", "f"}},
	} {
		s := open(t)
		for range 2 { // the second time from what is there
			r := image(t, s, tc.layers...)
			if got := lowerOf(r); !slices.Equal(got, tc.want) || len(r.Layers) != len(tc.layers) {
				t.Errorf("%s: %v", tc.name, got)
			}
			if (r.RootFrom != "") != slices.ContainsFunc(tc.layers, func(l Layer) bool { return l.DiffID == a.DiffID }) {
				t.Errorf("%s: root from %q", tc.name, r.RootFrom)
			}
			for i := range tc.layers {
				tc.layers[i].Open = nil
			}
		}
	}
	if _, err := open(t).Image(context.Background(), []Layer{hard}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("hard link to nothing: %v", err)
	}
	if _, err := open(t).Image(context.Background(), []Layer{{DiffID: a.DiffID}}); !errors.Is(err, content.ErrNotFound) {
		t.Errorf("nothing to unpack from: %v", err)
	}
	if _, err := open(t).Image(context.Background(), []Layer{b, {DiffID: a.DiffID, Open: b.Open}, b}); err == nil {
		t.Error("a layer under another's diff ID")
	}
}

func TestPrune(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	a := layerOf(t, nil, file("a", strings.Repeat("x", 100_000)))
	b := layerOf(t, nil, file("b", "x"))
	c := layerOf(t, nil, file("d/x", "needs the layers below"))
	used := image(t, s, b)
	image(t, s, a, c).Close() // c, and c above a
	list, err := s.List(ctx)
	if err != nil || len(list) != 4 {
		t.Fatalf("%v, %v", list, err)
	}
	total := int64(0)
	for _, e := range list {
		total += e.Usage
	}
	if n, err := s.Size(ctx, a.DiffID); err != nil || n < 100_000 || n > 200_000 {
		t.Errorf("size %d, %v", n, err)
	}
	var expect int64
	for _, dry := range []bool{true, false} {
		got, err := s.Prune(ctx, func(d digest.Digest) bool { return d == c.DiffID }, dry)
		if err != nil || got.Kept != 1 || len(got.DiffIDs) != 2 || !slices.Contains(got.DiffIDs, a.DiffID) {
			t.Errorf("dry run %v: %+v, %v", dry, got, err)
		}
		if dry {
			expect = got.Bytes
		} else if got.Bytes != expect || s.Has(a.DiffID) || !s.Has(b.DiffID) || !s.Has(c.DiffID) {
			t.Errorf("%+v, after a dry run of %d bytes", got, expect)
		}
	}
	used.Close()
	left, err := s.Remove(ctx, b.DiffID, c.DiffID, a.DiffID)
	if err != nil || len(left.DiffIDs) != 2 || left.Bytes+expect != total {
		t.Errorf("%+v, %v; %d bytes in all, %d removed before", left, err, total, expect)
	}
	if _, err := s.Layer(ctx, a.DiffID, a.Open); err != nil {
		t.Error(err)
	}
}

// TestPruneWhileUsed removes everything again and again while others use it.
func TestPruneWhileUsed(t *testing.T) {
	s := open(t)
	var layers []Layer
	for i := range 4 {
		layers = append(layers, layerOf(t, nil, file("d/", ""), file(fmt.Sprintf("d/%d", i), "x")))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var users, pruner sync.WaitGroup
	pruner.Go(func() {
		for ctx.Err() == nil {
			if _, err := s.Prune(context.Background(), func(digest.Digest) bool { return false }, false); err != nil {
				t.Error(err)
			}
		}
	})
	for n := range 4 {
		users.Go(func() {
			for i := range 50 {
				mine := layers[(n+i)%3:]
				r, err := s.Image(context.Background(), mine)
				if err != nil && strings.Contains(err.Error(), "removed as soon as") {
					continue // the pruner won three times
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, d := range r.Lower {
					if found, err := filepath.Glob(d + "/d/?"); err != nil || len(found) != 1 {
						t.Errorf("%s has %v", d, found)
					}
				}
				r.Close()
			}
		})
	}
	users.Wait()
	cancel()
	pruner.Wait()
}

// TestPowerCut unpacks again what may not have been on disk when the system stopped.
func TestPowerCut(t *testing.T) {
	var opened atomic.Int32
	s := open(t)
	l := layerOf(t, &opened, file("a", "x"))
	image(t, s, l).Close()
	next := *s
	next.boot = "another boot"
	if err := os.WriteFile(s.path(layerDir(l.DiffID), infoFile), nil, 0o600); err != nil { // as delayed allocation leaves it
		t.Fatal(err)
	}
	if next.Has(l.DiffID) {
		t.Error("trusted")
	}
	if got, err := next.Prune(context.Background(), func(digest.Digest) bool { return true }, true); err != nil || got.Bytes == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	r := image(t, &next, l)
	if opened.Load() != 2 {
		t.Errorf("opened %d times", opened.Load())
	}
	if err := r.Sync(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if !s.Has(l.DiffID) {
		t.Error("not remembered as synced")
	}
	unknown := *s
	unknown.boot = "" // no /proc: everything is synced at once
	m := layerOf(t, &opened, file("b", "x"))
	image(t, &unknown, m).Close()
	if !s.Has(m.DiffID) || !next.Has(m.DiffID) {
		t.Error("not synced")
	}
}
