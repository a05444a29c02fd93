package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/storagetest"
)

func open(t *testing.T, root string) *Dir {
	t.Helper()
	d, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return d
}

func push(t *testing.T, s storage.Storage, repo, content string) digest.Digest {
	t.Helper()
	d := digest.FromString(content)
	id, err := s.StartUpload(t.Context(), repo, digest.SHA256)
	if err == nil {
		_, err = s.CommitUpload(t.Context(), repo, id, 0, strings.NewReader(content), d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStorage(t *testing.T) {
	storagetest.Test(t, func(t *testing.T) storage.Storage { return open(t, t.TempDir()) })
}

// TestTwoProcesses has two storages in one directory serve every other call, as two server processes would.
func TestTwoProcesses(t *testing.T) {
	storagetest.Test(t, func(t *testing.T) storage.Storage {
		root := t.TempDir()
		return &turns{one: open(t, root), other: open(t, root)}
	})
}

func TestOpen(t *testing.T) {
	root := t.TempDir()
	open(t, root).Close()
	open(t, root).Close()
	if err := os.WriteFile(root+"/format", []byte("tare-registry 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root); err == nil || !strings.Contains(err.Error(), `"tare-registry 2\n", this version knows`) {
		t.Errorf("another format: %v", err)
	}
	if _, err := Open(filepath.Dir(root)); err == nil || !strings.Contains(err.Error(), "not empty and not a registry") {
		t.Errorf("another directory: %v", err)
	}
}

// TestPowerCut has a blob that was not synced when the machine went down: its bytes are hashed before they are believed.
func TestPowerCut(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	whole, torn := push(t, d, "a", "whole"), push(t, d, "a", "torn")
	id, err := d.StartUpload(t.Context(), "a", digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	// As if this had been another boot, and the blobs not synced in it.
	before := root + "/pending/8c2a0000-0000-0000-0000-000000000000/"
	if err := errors.Join(os.Mkdir(before, 0o700), os.Rename(root+"/uploads/"+d.boot, root+"/uploads/"+filepath.Base(before)),
		os.Rename(d.path(blobFile(whole)), before+string(whole)), os.Rename(d.path(blobFile(torn)), before+string(torn)),
		os.WriteFile(before+string(torn), make([]byte, 4), 0o600), os.WriteFile(before+"junk", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	d = open(t, root)
	if _, err := d.StatBlob(t.Context(), "a", whole); err != nil {
		t.Errorf("blob that was whole: %v", err)
	}
	if _, err := d.StatBlob(t.Context(), "a", torn); !errors.Is(err, storage.ErrBlobUnknown) {
		t.Errorf("blob that lost its bytes: %v", err)
	}
	if _, err := d.StatUpload(t.Context(), "a", id); !errors.Is(err, storage.ErrUploadUnknown) {
		t.Errorf("upload of before: %v", err)
	}
	if _, err := os.Stat(before); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory of before: %v", err)
	}
	push(t, d, "a", "torn")
	if _, err := d.OpenBlob(t.Context(), "a", torn); err != nil {
		t.Error(err)
	}
}

// TestLeftovers has what processes leave behind that die at the wrong moment.
func TestLeftovers(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	push(t, d, "a", "content")
	id, err := d.StartUpload(t.Context(), "a", digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	left := []string{root + "/repositories/.new-1", root + "/repositories/a/tags/.latest.x", root + "/repositories/a/manifests/.y.x", d.uploadDir(id)}
	if err := errors.Join(os.Mkdir(left[0], 0o700), os.WriteFile(left[1], nil, 0o600), os.WriteFile(left[2], nil, 0o600),
		os.Remove(left[3]+"/data")); err != nil {
		t.Fatal(err)
	}
	d = open(t, root)
	if names, _, err := d.ListRepositories(t.Context(), "", 10); err != nil || !slices.Equal(names, []string{"a"}) {
		t.Errorf("repositories %v %v", names, err)
	}
	if err := d.Sweep(t.Context(), "a", func(storage.Contents) (storage.Removal, error) { return storage.Removal{}, nil }); err != nil {
		t.Error(err)
	}
	if err := d.AbortUpload(t.Context(), "a", id); !errors.Is(err, storage.ErrUploadUnknown) {
		t.Error(err)
	}
	for _, path := range left {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", path, err)
		}
	}
}

// TestManifestIsDurable looks that what a manifest refers to is where synced blobs are when the push has returned.
func TestManifestIsDurable(t *testing.T) {
	d := open(t, t.TempDir())
	d.slots <- struct{}{} // nothing is synced behind answers
	d.slots <- struct{}{}
	defer func() { <-d.slots; <-d.slots }()
	blob := push(t, d, "a", "content")
	if _, err := os.Stat(d.path(d.pendingFile(blob))); err != nil {
		t.Fatal(err)
	}
	m := storage.Manifest{Raw: []byte("{}"), Blobs: []digest.Digest{blob, digest.FromString("not there")},
		Descriptor: v1.Descriptor{Digest: digest.FromString("{}"), Size: 2}}
	if err := d.PutManifest(t.Context(), "a", m, storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.path(blobFile(blob))); err != nil {
		t.Error(err)
	}
}

// TestTurns has many pushes of one blob: they wait for each other without a thread each.
func TestTurns(t *testing.T) {
	d := open(t, t.TempDir())
	unlock, err := d.lock("content-ab")
	if err != nil {
		t.Fatal(err)
	}
	threads := func() int {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(tasks)
	}
	before := threads()
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			unlock, err := d.lock("content-ab")
			if err != nil {
				t.Error(err)
				return
			}
			unlock()
		})
	}
	for d.turn.waiting("content-ab") < 201 {
		runtime.Gosched()
	}
	if more := threads() - before; more > 50 {
		t.Errorf("%d threads more", more)
	}
	unlock()
	all.Wait()
	if len(d.turn.names) != 0 {
		t.Errorf("%d names are kept", len(d.turn.names))
	}
}

func (t *turn) waiting(name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.names[name].count
}

// TestManyTags looks that a page of a long list does not read the directory again.
func TestManyTags(t *testing.T) {
	d := open(t, t.TempDir())
	m := storage.Manifest{Raw: []byte("{}"), Descriptor: v1.Descriptor{Digest: digest.FromString("{}"), Size: 2}}
	if err := d.PutManifest(t.Context(), "a", m, storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	const count = 10000
	for i := range count {
		if err := os.WriteFile(fmt.Sprintf("%s/t%05d", d.tagsDir("a"), i), []byte(m.Descriptor.Digest+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen, after := 0, ""
	for more := true; more; {
		var page []string
		var err error
		if page, more, err = d.ListTags(t.Context(), "a", after, 100); err != nil {
			t.Fatal(err)
		}
		seen, after = seen+len(page), page[len(page)-1]
	}
	if seen != count {
		t.Errorf("%d tags in pages, want %d", seen, count)
	}
	if n := testing.AllocsPerRun(10, func() { _, _, _ = d.ListTags(context.Background(), "a", "t05000", 100) }); n > 50 {
		t.Errorf("a page costs %v allocations", n)
	}
	// A tag more does not make the index worthless.
	if err := d.PutManifest(t.Context(), "a", m, storage.PutOptions{Tags: []string{"t05000a"}}); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1, func() { _, _, _ = d.ListTags(context.Background(), "a", "t05000", 100) }); n > 50 {
		t.Errorf("a page after a push costs %v allocations", n)
	}
	page, _, err := d.ListTags(t.Context(), "a", "t05000", 2)
	if err != nil || !slices.Equal(page, []string{"t05000a", "t05001"}) {
		t.Errorf("%v %v", page, err)
	}
}

func TestCache(t *testing.T) {
	c := newCache(10 << 10)
	d := open(t, t.TempDir())
	for i := range 100 {
		raw := bytes.Repeat([]byte{'x'}, 1000)
		m := storage.Manifest{Raw: raw, Descriptor: v1.Descriptor{Digest: digest.FromString(fmt.Sprint(i)), Size: 1000}}
		if err := d.PutManifest(t.Context(), "a", m, storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		found, st, err := d.readManifest(manifestFile("a", m.Descriptor.Digest))
		if err != nil {
			t.Fatal(err)
		}
		key := cacheKey{"a", string(m.Descriptor.Digest)}
		if c.put(key, st, found); c.get(key, st) != nil {
			t.Fatal("a file that was just written is kept")
		}
		st.Mtime = st.Mtime.Add(-settled)
		if c.put(key, st, found); c.get(key, st) == nil {
			t.Fatal("the last one is not kept")
		}
		if st.Size++; i == 0 && c.get(key, st) != nil {
			t.Fatal("kept for another file")
		}
	}
	if c.left < 0 || len(c.entries) > 10 || len(c.entries) < 4 || len(c.entries) != c.recent.Len() {
		t.Errorf("%d entries, %d bytes left", len(c.entries), c.left)
	}
}
