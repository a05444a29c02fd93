package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
)

// CVE-2025-11395: what lies in the store as a link is not read, and not taken for a blob. CVE-2024-3727: a digest leads nowhere
// else.
func TestLinksAndPathsLeadNowhere(t *testing.T) {
	s := newStore(t)
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	d := blob([]byte("secret"))
	must(t, os.Symlink(secret, s.blobPath(d.Digest)))
	if r, err := s.Fetch(ctx, d, 0); err == nil {
		r.Close()
		t.Error("a link is read")
	}
	if there, err := s.Exists(ctx, d); there || err == nil {
		t.Errorf("a link is a blob: %v, %v", there, err)
	}
	if r := fsck(t, s, FsckOptions{Repair: true}); kinds(r) != "unknown!" || !r.OK() {
		t.Errorf("%+v", r)
	}
	must(t, s.Push(ctx, d, strings.NewReader("secret")))
	for _, bad := range []digest.Digest{"sha256:../../../secret", "sha256:" + digest.Digest(strings.Repeat("A", 64)), "../x:y", "", "sha256:"} {
		d := v1.Descriptor{MediaType: "a/b", Digest: bad, Size: 6}
		_, fetched := s.Fetch(ctx, d, 0)
		_, exists := s.Exists(ctx, d)
		_, ingested := s.Ingest(ctx, d)
		_, why := s.Why(ctx, bad)
		for _, err := range []error{fetched, exists, ingested, why, s.Tag(ctx, d, "x"), s.Push(ctx, d, strings.NewReader("secret"))} {
			if err == nil || errors.Is(err, os.ErrNotExist) {
				t.Errorf("digest %q: error %v", bad, err)
			}
		}
	}
	for _, name := range []string{"../x", "a\nb", "UPPER", strings.Repeat("x", 300)} {
		if err := s.Tag(ctx, d, name); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
	os.Remove(s.path("index.lock"))
	must(t, os.Symlink(secret, s.path("index.lock")))
	if err := s.Tag(ctx, d, "x"); err == nil {
		t.Error("a link is a lock")
	}
}

// CVE-2026-95839: no field of a descriptor in index.json is a reason to panic, or not to see the others.
func TestMalformedEntries(t *testing.T) {
	s := newStore(t)
	good := addImage(t, s, 1, "good")
	list := []string{`null`, `1`, `"x"`, `[]`, `{}`, `{"digest":1}`, `{"mediaType":"a/b","digest":"x","size":1}`,
		`{"mediaType":"a/b","digest":"sha256:00","size":1}`, `{"mediaType":"a/b","digest":"` + good.Digest.String() + `","size":-1}`,
		`{"mediaType":"a/b","digest":"` + good.Digest.String() + `","size":1e30}`, `{"annotations":{"org.opencontainers.image.ref.name":"docker.io/library/good:latest"}}`,
		fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"docker.io\/library\/good:latest"}}`, good.MediaType, good.Digest, good.Size)}
	must(t, os.WriteFile(filepath.Join(s.Dir(), "index.json"), []byte(`{"schemaVersion":2,"manifests":[`+strings.Join(list, ",")+`]}`), 0o600))
	for range 20 { // both ways of looking
		if d, err := s.Resolve(ctx, "good"); err != nil || d.Digest != good.Digest {
			t.Fatal(d, err)
		}
	}
	if got, err := s.List(ctx); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if r := fsck(t, s, FsckOptions{}); !r.OK() || len(r.Problems) != len(list)-1 {
		t.Errorf("%+v", r)
	}
	if r := prune(t, s, PruneOptions{All: true}); len(r.Untagged) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			s, err := Open(filepath.Join(dir, "a", "b"))
			if err == nil {
				_, err = s.List(ctx)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if left, err := os.ReadDir(filepath.Join(dir, "a", "b", private, "ingest")); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "a", "b", "oci-layout"), []byte(`{"imageLayoutVersion":"7.0.0"}`), 0o600))
	if _, err := Open(filepath.Join(dir, "a", "b")); err == nil || !strings.Contains(err.Error(), `version "7.0.0" is not supported`) {
		t.Error(err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	if _, err := Open(filepath.Join(dir, "file")); err == nil {
		t.Error("a file is a store")
	}
}

// The order of what is written is what makes a power cut harmless: content before names, each synced before it is renamed.
func TestOrderOfWrites(t *testing.T) {
	s := newStore(t)
	f, m := testImage(t, 1)
	var log []string
	s.inject = func(op, path string) error {
		log = append(log, op+" "+filepath.Base(filepath.Dir(path))+"/"+filepath.Base(path))
		return nil
	}
	must(t, pushFiles(ctx, s, f, m))
	must(t, s.Tag(ctx, m, "x"))
	at := func(what string) int {
		for i, line := range log {
			if strings.Contains(line, what) {
				return i
			}
		}
		t.Fatalf("%s is not in %q", what, log)
		return 0
	}
	order := []int{}
	for name := range f {
		hex := filepath.Base(name)
		if synced, renamed := at("sync ingest/sha256-"+hex), at("rename sha256/"+hex); synced > renamed || renamed > at("syncdir blobs/sha256") {
			t.Errorf("%s: synced %d, renamed %d", name, synced, renamed)
		}
	}
	for _, what := range []string{"syncdir blobs/sha256", "write .tare/index.json.new", "sync .tare/index.json.new", "backup ", "rename store/index.json", "syncdir store/index.json"} {
		order = append(order, at(what))
	}
	for i := range order[1:] {
		if order[i] > order[i+1] {
			t.Errorf("order %v in %q", order, log)
		}
	}
}

// Goroutines pull, remove and prune images that share blobs, each under a lease, and prune at the worst moments: nothing that is
// held is ever missing.
func TestPullWhilePruning(t *testing.T) {
	s := newStore(t)
	shared := blob(noise(99, 5000))
	pull := func(worker, round int) error {
		l, err := s.Lease(ctx, "pull", "")
		if err != nil {
			return err
		}
		defer l.Release()
		held := WithLease(ctx, l)
		if there, err := s.Exists(held, shared); err != nil {
			return err
		} else if !there {
			if err := s.Push(held, shared, bytes.NewReader(noise(99, 5000))); err != nil {
				return err
			}
		}
		if _, err := s.Prune(ctx, PruneOptions{}); err != nil {
			return err
		}
		f, m := testImage(t, worker*2+round%2)
		if err := pushFiles(held, s, f, m); err != nil {
			return err
		}
		if _, err := s.Prune(ctx, PruneOptions{}); err != nil {
			return err
		}
		if there, err := s.has(shared); err != nil || !there {
			return fmt.Errorf("a blob that is held was removed: %v, %w", there, err)
		}
		if err := s.Tag(held, m, fmt.Sprint("x", worker)); err != nil {
			return err
		}
		l.Release()
		if _, err := s.Prune(ctx, PruneOptions{}); err != nil {
			return err
		}
		for name := range f {
			if _, err := os.Lstat(filepath.Join(s.Dir(), name)); err != nil {
				return err
			}
		}
		_, err = s.Untag(ctx, fmt.Sprint("x", worker))
		return err
	}
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for round := range 8 {
				if err := pull(worker, round); err != nil {
					t.Errorf("worker %d: %v", worker, err)
					return
				}
			}
		})
	}
	group.Wait()
	if r := fsck(t, s, FsckOptions{}); len(r.Problems) != 0 {
		t.Errorf("%+v", r)
	}
	if r := prune(t, s, PruneOptions{}); r.Bytes == 0 {
		t.Error("nothing was left that nothing holds")
	}
}

// Who waits for a lock stops when its context ends.
func TestWaitingEnds(t *testing.T) {
	s := newStore(t)
	lock, err := s.alone(ctx)
	must(t, err)
	defer lock.Close()
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	d := blob([]byte("x"))
	_, exists := s.Exists(short, d)
	_, ingest := s.Ingest(short, d)
	_, prune := s.Prune(short, PruneOptions{})
	_, fsck := s.Fsck(short, FsckOptions{})
	_, lease := s.Lease(short, "pull", "")
	_, untag := s.Untag(short, "x")
	for i, err := range []error{exists, ingest, prune, fsck, lease, untag, s.Tag(short, d, "x"), s.SaveLease(short, LeaseInfo{Kind: "x", ID: "y"})} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if _, err := s.Fetch(ctx, d, 0); !errors.Is(err, content.ErrNotFound) {
		t.Errorf("reading waits: %v", err)
	}
}

// Several readers follow a blob that is written in pieces of all sizes.
func TestManyReaders(t *testing.T) {
	s := newStore(t)
	data := noise(5, 300_000)
	in, err := s.Ingest(ctx, blob(data))
	must(t, err)
	defer in.Close()
	var group sync.WaitGroup
	for i := range 5 {
		r, err := in.Reader()
		must(t, err)
		group.Go(func() {
			defer r.Close()
			got, err := io.ReadAll(io.MultiReader(io.LimitReader(r, int64(i)*1000), r))
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("reader %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	for n, rest := 1, data; len(rest) > 0; n *= 3 {
		k := min(n, len(rest))
		_, err := in.Write(rest[:k])
		must(t, err)
		rest = rest[k:]
	}
	must(t, in.Commit())
	group.Wait()
}
