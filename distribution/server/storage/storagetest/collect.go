package storagetest

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
)

func sweep(w *world) {
	kept, gone := w.push("a", random(10)), w.push("a", random(20))
	m, old := made("kept"), made("old")
	m.Blobs, old.Subject = []digest.Digest{kept}, m.Descriptor.Digest
	w.put("a", m, storage.PutOptions{Tags: []string{"t"}})
	w.put("a", old, storage.PutOptions{Tags: []string{"o", "p"}})
	err := w.s.Sweep(w.ctx, "a", func(has storage.Contents) (storage.Removal, error) {
		if len(has.Manifests) != 2 || len(has.Blobs) != 2 || len(has.Tags) != 3 {
			w.Errorf("contents %+v", has)
		}
		for _, found := range has.Manifests {
			if found.Descriptor.Size == 0 || found.Pushed.IsZero() {
				w.Errorf("manifest %+v", found)
			}
			if found.Descriptor.Digest == m.Descriptor.Digest && !slices.Equal(found.Blobs, m.Blobs) {
				w.Errorf("blobs %v of a manifest", found.Blobs)
			}
		}
		for _, b := range has.Blobs {
			if b.Used.IsZero() || b.Size != 10 && b.Size != 20 {
				w.Errorf("blob %+v", b)
			}
		}
		if info := has.Tags["o"]; info.Digest != old.Descriptor.Digest || info.Changed.IsZero() {
			w.Errorf("tag %+v", info)
		}
		return storage.Removal{
			Tags: []string{"o"}, Manifests: []digest.Digest{old.Descriptor.Digest}, Blobs: []digest.Digest{gone},
		}, nil
	})
	w.ok(err)
	_, err = w.s.StatBlob(w.ctx, "a", gone)
	w.is(err, storage.ErrBlobUnknown)
	_, err = w.s.StatBlob(w.ctx, "a", kept)
	w.ok(err)
	_, err = w.s.GetManifest(w.ctx, "a", old.Descriptor.Digest)
	w.is(err, storage.ErrManifestUnknown)
	tags, _, err := w.s.ListTags(w.ctx, "a", "", 10)
	w.ok(err)
	if !slices.Equal(tags, []string{"t"}) { // p named a manifest that is gone
		w.Fatalf("tags %v", tags)
	}
	if list, _, err := w.s.ListReferrers(w.ctx, "a", m.Descriptor.Digest, "", 10); len(list) > 0 || err != nil {
		w.Fatalf("referrers %v %v", list, err)
	}
}

// sweepUsed uses blobs while a collection decides about them.
func sweepUsed(w *world) {
	touched, linked, pushed, idle := w.push("a", []byte("1")), w.push("a", []byte("2")), w.push("a", []byte("3")), w.push("a", []byte("4"))
	w.push("b", []byte("2"))
	time.Sleep(2 * time.Millisecond) // a storage may know times only that exactly
	decide := func(has storage.Contents) (storage.Removal, error) {
		_, err := w.s.TouchBlob(w.ctx, "a", touched)
		w.ok(err)
		_, err = w.s.LinkBlob(w.ctx, "b", "a", linked)
		w.ok(err)
		w.push("a", []byte("3"))
		var all storage.Removal
		for _, b := range has.Blobs {
			all.Blobs = append(all.Blobs, b.Digest)
		}
		return all, nil
	}
	w.ok(w.s.Sweep(w.ctx, "a", decide))
	for _, d := range []digest.Digest{touched, linked, pushed} {
		_, err := w.s.StatBlob(w.ctx, "a", d)
		w.ok(err)
	}
	_, err := w.s.StatBlob(w.ctx, "a", idle)
	w.is(err, storage.ErrBlobUnknown)
}

func contents(w *world) {
	d := w.push("a", random(10))
	size := int64(0)
	w.ok(w.s.Contents(w.ctx, func(b storage.BlobInfo) error {
		if b.Digest == d {
			size += b.Size
		}
		return nil
	}))
	if size != 10 {
		w.Fatalf("%d bytes of content, want 10", size)
	}
	w.ok(w.s.UnlinkBlob(w.ctx, "a", d))
	removed, err := w.s.RemoveContent(w.ctx, d, time.Now().Add(-time.Hour))
	if removed || err != nil {
		w.Fatalf("content used just now: removed %v, %v", removed, err)
	}
	removed, err = w.s.RemoveContent(w.ctx, d, time.Now().Add(time.Hour))
	if !removed || err != nil {
		w.Fatalf("content: removed %v, %v", removed, err)
	}
	removed, err = w.s.RemoveContent(w.ctx, d, time.Now().Add(time.Hour))
	if removed || err != nil {
		w.Fatalf("content that is gone: removed %v, %v", removed, err)
	}
	if _, err := w.s.LinkBlob(w.ctx, "", "b", d); err == nil {
		w.Fatal("removed content was linked")
	}
	w.push("a", random(10))

	id, err := w.s.StartUpload(w.ctx, "x/y", digest.SHA512)
	w.ok(err)
	var uploads []storage.Upload
	w.ok(w.s.ListUploads(w.ctx, func(u storage.Upload) error {
		uploads = append(uploads, u)
		return nil
	}))
	if len(uploads) != 1 || uploads[0].ID != id || uploads[0].Repository != "x/y" {
		w.Fatalf("uploads %+v", uploads)
	}
}
