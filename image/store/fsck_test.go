package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/internal/imagetest"
)

func fsck(t testing.TB, s *Store, opts FsckOptions) FsckReport {
	t.Helper()
	r, err := s.Fsck(ctx, opts)
	must(t, err)
	return r
}

// kinds returns the kinds of problems, with ! behind those that hurt.
func kinds(r FsckReport) string {
	var list []string
	for _, p := range r.Problems {
		k := p.Kind
		if !p.Harmless {
			k += "!"
		}
		list = append(list, k)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// fetcher fetches from files and notes for which names.
func fetcher(f imagetest.Files, names *[]string) func(context.Context, v1.Descriptor, []string) (io.ReadCloser, error) {
	return func(_ context.Context, d v1.Descriptor, n []string) (io.ReadCloser, error) {
		*names = append(*names, n...)
		data, ok := f[blobName(d.Digest)]
		if !ok {
			return nil, fmt.Errorf("%w", content.ErrNotFound)
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}
}

func flip(t testing.TB, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(path, data, 0o600))
}

// Every blob of an image is damaged in each way in turn: found, repaired, and the image is whole again.
func TestFsckBlobs(t *testing.T) {
	f, m := testImage(t, 1)
	for name := range f {
		for how, damage := range map[string]func(path string) error{
			"corrupt!": func(path string) error { flip(t, path); return nil },
			"missing!": os.Remove,
			"cut":      func(path string) error { return os.Truncate(path, 10) },
			"empty":    func(path string) error { return os.Truncate(path, 0) },
		} {
			s := newStore(t)
			addImage(t, s, 1, "x")
			must(t, s.Tag(ctx, pushIndex(t, s, m), "y"))
			if r := fsck(t, s, FsckOptions{}); len(r.Problems) != 0 || r.Blobs != 5 || !r.OK() {
				t.Fatalf("a good store: %+v", r)
			}
			must(t, damage(filepath.Join(s.Dir(), name)))
			want := how
			if how == "cut" || how == "empty" {
				want = "corrupt!"
			}
			if r := fsck(t, s, FsckOptions{}); kinds(r) != want || r.Problems[0].Path != name || r.OK() {
				t.Fatalf("%s %s: %+v", how, name, r.Problems)
			}
			if r := fsck(t, s, FsckOptions{Quick: true}); how != "corrupt!" && (kinds(r) != want || r.OK()) {
				t.Fatalf("quickly, %s %s: %+v", how, name, r.Problems)
			}
			var names []string
			r := fsck(t, s, FsckOptions{Repair: true, Fetch: fetcher(f, &names)})
			if kinds(r) != want || !r.OK() || !r.Problems[0].Repaired {
				t.Fatalf("repair, %s %s: %+v", how, name, r.Problems)
			}
			if strings.Join(names, " ") != "docker.io/library/x:latest docker.io/library/y:latest" {
				t.Fatalf("fetched for %v", names)
			}
			if r := fsck(t, s, FsckOptions{}); len(r.Problems) != 0 {
				t.Fatalf("after repair, %s %s: %+v", how, name, r.Problems)
			}
			for n, data := range f {
				if got, err := os.ReadFile(filepath.Join(s.Dir(), n)); err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%s is not as before, %v", n, err)
				}
			}
		}
	}
}

// What cannot be fetched is put away, not thrown away, and the next pull brings it.
func TestFsckWithoutSource(t *testing.T) {
	f, m := testImage(t, 1)
	for _, fetch := range []func(context.Context, v1.Descriptor, []string) (io.ReadCloser, error){nil, fetcher(nil, new([]string))} {
		s := newStore(t)
		addImage(t, s, 1, "x")
		flip(t, s.blobPath(m.Digest))
		r := fsck(t, s, FsckOptions{Repair: true, Fetch: fetch})
		if r.OK() || len(r.Problems) != 1 || r.Problems[0].Err == nil {
			t.Fatalf("%+v", r)
		}
		if _, err := os.Stat(s.brokenPath(m.Digest)); err != nil {
			t.Error(err)
		}
		if r := fsck(t, s, FsckOptions{}); kinds(r) != "missing!" {
			t.Errorf("%+v", r)
		}
		must(t, pushFiles(ctx, s, f, m))
		if r := fsck(t, s, FsckOptions{}); len(r.Problems) != 0 {
			t.Errorf("%+v", r)
		}
		past := time.Now().Add(-48 * time.Hour)
		must(t, os.Chtimes(s.brokenPath(m.Digest), past, past))
		if r := prune(t, s, PruneOptions{}); len(r.Partial) != 1 || len(r.Blobs) != 0 {
			t.Errorf("%+v", r)
		}
	}
}

// A fetched manifest is followed: what it refers to may be missing too. A platform that was not pulled is no problem.
func TestFsckFollowsWhatItFetched(t *testing.T) {
	s := newStore(t)
	f, m := testImage(t, 1)
	must(t, pushFiles(ctx, s, f, m))
	_, other := testImage(t, 2)
	must(t, s.Tag(ctx, pushIndex(t, s, m, other), "x"))
	if r := fsck(t, s, FsckOptions{}); len(r.Problems) != 0 {
		t.Fatalf("%+v", r)
	}
	for name := range f {
		flip(t, filepath.Join(s.Dir(), name))
	}
	r := fsck(t, s, FsckOptions{Repair: true, Fetch: fetcher(f, new([]string))})
	if kinds(r) != "corrupt! corrupt! corrupt! corrupt!" || !r.OK() {
		t.Errorf("%+v", r)
	}
	if r := fsck(t, s, FsckOptions{}); len(r.Problems) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestFsckIndex(t *testing.T) {
	for _, how := range []string{"garbage", "empty", "removed", "removed with its backup", "cut"} {
		dir := filepath.Join(t.TempDir(), "store")
		s := open(t, dir)
		a, b := addImage(t, s, 1, "a"), addImage(t, s, 2, "b")
		idx := pushIndex(t, s, b)
		must(t, s.Tag(ctx, idx, "c"))
		pushReferrer(t, s, a, "signature")
		path := filepath.Join(s.Dir(), "index.json")
		switch how {
		case "garbage":
			must(t, os.WriteFile(path, bytes.Repeat([]byte{0}, 500), 0o600))
		case "empty":
			must(t, os.Truncate(path, 0))
		case "cut":
			must(t, os.Truncate(path, 100))
		case "removed with its backup":
			must(t, os.Remove(s.path("index.json.bak")))
			fallthrough
		case "removed":
			must(t, os.Remove(path))
		}
		s.Close()
		s = open(t, dir) // does not make a new one
		_, err := s.List(ctx)
		want(t, err, ErrIndex)
		want(t, s.Tag(ctx, a, "x"), ErrIndex)
		_, err = s.Prune(ctx, PruneOptions{})
		want(t, err, ErrIndex)
		if r := fsck(t, s, FsckOptions{}); kinds(r) != "index!" || r.OK() {
			t.Fatalf("%s: %+v", how, r)
		}
		if r := fsck(t, s, FsckOptions{Repair: true}); kinds(r) != "index!" || !r.OK() {
			t.Fatalf("%s: %+v", how, r)
		}
		// The backup is from before c was named; without it there are only the tops.
		wanted := map[string]string{"docker.io/library/a:latest": a.Digest.String(), "docker.io/library/b:latest": b.Digest.String(), "": idx.Digest.String()}
		if how == "removed with its backup" {
			wanted = map[string]string{"1": a.Digest.String(), "2": idx.Digest.String()}
		}
		list, err := s.List(ctx)
		must(t, err)
		if len(list) != len(wanted) {
			t.Fatalf("%s: %+v", how, list)
		}
		for _, n := range list {
			ok := wanted[n.Name] == n.Descriptor.Digest.String()
			if how == "removed with its backup" {
				ok = n.Descriptor.Digest == a.Digest || n.Descriptor.Digest == idx.Digest
			}
			if !ok {
				t.Errorf("%s: %+v", how, n)
			}
		}
		if r := prune(t, s, PruneOptions{}); len(r.Blobs) != 0 {
			t.Errorf("%s: lost %+v", how, r)
		}
	}
}

func TestFsckOthers(t *testing.T) {
	s := newStore(t)
	f, m := testImage(t, 1)
	must(t, pushFiles(ctx, s, f, m))
	lie := m
	lie.Size++
	must(t, s.Tag(ctx, pushIndex(t, s, lie), "lies"))
	must(t, os.Chmod(filepath.Join(s.Dir(), "blobs"), 0o755))
	must(t, os.Chmod(s.blobPath(m.Digest), 0o666))
	must(t, os.WriteFile(filepath.Join(s.Dir(), "blobs", "note"), nil, 0o600))
	stray := blob([]byte("a directory has its name"))
	must(t, os.Mkdir(s.blobPath(stray.Digest), 0o700))
	loose := blob([]byte("nobody needs it"))
	must(t, s.Push(ctx, loose, strings.NewReader("nobody needs it")))
	flip(t, s.blobPath(loose.Digest))
	must(t, os.WriteFile(s.path("leases", "container.x.json"), []byte("{"), 0o600))
	must(t, os.WriteFile(s.path("leases", "pull.x.y.live"), []byte("{"), 0o600))
	must(t, os.WriteFile(s.path("index.json.new"), []byte("{"), 0o600))
	must(t, os.WriteFile(s.path("ingest", "new-x"), []byte("{"), 0o600))
	past := time.Now().Add(-48 * time.Hour)
	must(t, os.Chtimes(s.path("ingest", "new-x"), past, past))
	must(t, os.Chtimes(s.path("leases", "pull.x.y.live"), past, past))
	must(t, os.Remove(filepath.Join(s.Dir(), "oci-layout")))
	all := "corrupt layout! lease! leftover leftover leftover mode! mode! size unknown unknown!"
	if r := fsck(t, s, FsckOptions{}); kinds(r) != all {
		t.Fatalf("%s\nwant\n%s\n%+v", kinds(r), all, r)
	}
	if r := fsck(t, s, FsckOptions{Repair: true}); kinds(r) != all || !r.OK() {
		t.Fatalf("%s\nwant\n%s\n%+v", kinds(r), all, r)
	}
	if r := fsck(t, s, FsckOptions{}); kinds(r) != "size unknown" || !r.OK() {
		t.Fatalf("%+v", r)
	}
}

func TestFsckEnds(t *testing.T) {
	s := newStore(t)
	addImage(t, s, 1, "x")
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Fsck(ended, FsckOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	var last, all int64
	fsck(t, s, FsckOptions{Progress: func(done, total int64) { last, all = done, total }})
	if u, err := s.Size(ctx); err != nil || last != u.Bytes || all != u.Bytes {
		t.Errorf("%d of %d, %+v, %v", last, all, u, err)
	}
}
