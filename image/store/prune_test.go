package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/internal/imagetest"
)

func prune(t testing.TB, s *Store, opts PruneOptions) PruneReport {
	t.Helper()
	before, err := s.Size(ctx)
	must(t, err)
	dry := opts
	dry.DryRun = true
	said, err := s.Prune(ctx, dry)
	must(t, err)
	if after, err := s.Size(ctx); err != nil || after != before {
		t.Fatalf("a dry run changed %+v to %+v, %v", before, after, err)
	}
	r, err := s.Prune(ctx, opts)
	must(t, err)
	after, err := s.Size(ctx)
	must(t, err)
	if freed := before.Bytes + before.Partial - after.Bytes - after.Partial; freed != r.Bytes || said.Bytes != r.Bytes {
		t.Fatalf("freed %d bytes, reported %d, before %d", freed, r.Bytes, said.Bytes)
	}
	if len(said.Blobs) != len(r.Blobs) || len(said.Untagged) != len(r.Untagged) || len(said.Partial) != len(r.Partial) {
		t.Fatalf("%+v after a dry run with %+v", r, said)
	}
	return r
}

// pushDoc pushes an index or manifest.
func pushDoc(t testing.TB, s *Store, mediaType string, doc any) v1.Descriptor {
	t.Helper()
	data := imagetest.JSON(t, doc)
	d := blob(data)
	d.MediaType = mediaType
	must(t, s.Push(ctx, d, bytes.NewReader(data)))
	return d
}

func pushIndex(t testing.TB, s *Store, entries ...v1.Descriptor) v1.Descriptor {
	t.Helper()
	return pushDoc(t, s, v1.MediaTypeImageIndex, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: append([]v1.Descriptor{}, entries...)})
}

func pushReferrer(t testing.TB, s *Store, subject v1.Descriptor, note string) v1.Descriptor {
	t.Helper()
	layer := blob([]byte(note))
	must(t, s.Push(ctx, layer, strings.NewReader(note)))
	empty := v1.DescriptorEmptyJSON
	must(t, s.Push(ctx, empty, strings.NewReader("{}")))
	return pushDoc(t, s, v1.MediaTypeImageManifest, v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		ArtifactType: "a/b", Config: empty, Layers: []v1.Descriptor{layer}, Subject: &subject})
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	addImage(t, s, 1, "one")
	two := addImage(t, s, 2, "two")
	loose, manifest := testImage(t, 3)
	must(t, pushFiles(ctx, s, loose, manifest))
	if r := prune(t, s, PruneOptions{}); len(r.Blobs) != 0 {
		t.Fatalf("what this process holds was removed: %+v", r)
	}
	must(t, s.Close())
	s = open(t, dir)
	if r := prune(t, s, PruneOptions{}); len(r.Blobs) != 4 {
		t.Fatalf("%+v, want the 4 blobs without a name", r)
	}
	_, err := s.Untag(ctx, "two")
	must(t, err)
	must(t, s.Tag(ctx, two, ""))
	if r := prune(t, s, PruneOptions{}); len(r.Blobs) != 0 {
		t.Fatalf("what is listed without a name was removed: %+v", r)
	}
	if r := prune(t, s, PruneOptions{Unnamed: true, UnusedSince: time.Now().Add(-time.Hour)}); len(r.Untagged) != 0 {
		t.Fatalf("what was used was removed: %+v", r)
	}
	if r := prune(t, s, PruneOptions{Unnamed: true}); len(r.Blobs) != 4 || len(r.Untagged) != 1 || r.Untagged[0].Descriptor.Digest != two.Digest {
		t.Fatalf("%+v", r)
	}
	if r := prune(t, s, PruneOptions{All: true, Keep: func(n Named) bool { return strings.Contains(n.Name, "one") }}); len(r.Untagged) != 0 {
		t.Fatalf("%+v", r)
	}
	if r := prune(t, s, PruneOptions{All: true}); len(r.Blobs) != 4 || len(r.Untagged) != 1 {
		t.Fatalf("%+v", r)
	}
	if u, err := s.Size(ctx); err != nil || u != (Usage{}) {
		t.Errorf("left %+v, %v", u, err)
	}
	if list, err := os.ReadDir(s.path("used")); err != nil || len(list) != 0 {
		t.Errorf("left %v, %v", list, err)
	}
}

func TestPruneKeepsWhatLeasesHold(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	pulled, running := addImage(t, s, 1, "pulled"), addImage(t, s, 2, "running")
	layer := digest.FromString("a diff ID")
	must(t, s.SaveLease(ctx, LeaseInfo{Kind: "container", ID: "c1", Digests: []digest.Digest{running.Digest}, Layers: []digest.Digest{layer}}))
	var layers map[digest.Digest]bool
	note := func(_ context.Context, held map[digest.Digest]bool, _ bool) error { layers = held; return nil }
	if r := prune(t, s, PruneOptions{All: true, Layers: note}); len(r.Untagged) != 1 || r.Untagged[0].Descriptor.Digest != pulled.Digest {
		t.Fatalf("%+v", r)
	}
	if len(layers) != 3 || !layers[layer] {
		t.Errorf("held layers: %v, want two of the image and the one of the lease", layers)
	}
	_, err := s.Untag(ctx, "running")
	must(t, err)
	if r := prune(t, s, PruneOptions{All: true}); len(r.Blobs) != 0 {
		t.Fatalf("a container's image was removed: %+v", r)
	}
	if d, err := s.Resolve(ctx, running.Digest.String()); err != nil || d.Digest != running.Digest || d.MediaType != running.MediaType {
		t.Errorf("%v, %v", d, err)
	}
	must(t, s.DeleteLease(ctx, "container", "c1"))
	must(t, s.DeleteLease(ctx, "container", "c1"))
	l, err := s.Lease(ctx, "push", "")
	must(t, err)
	must(t, l.Hold(ctx, running.Digest))
	if r := prune(t, s, PruneOptions{}); len(r.Blobs) != 0 {
		t.Fatalf("what is being pushed was removed: %+v", r)
	}
	l.Release()
	l.Release()
	must(t, s.SaveLease(ctx, LeaseInfo{Kind: "container", ID: "c2", Digests: []digest.Digest{running.Digest}, Expires: time.Now().Add(-time.Second)}))
	if r := prune(t, s, PruneOptions{}); len(r.Blobs) != 4 {
		t.Fatalf("%+v", r)
	}
	if list, err := os.ReadDir(s.path("leases")); err != nil || len(list) > 1 { // the process's own
		t.Errorf("left %v, %v", list, err)
	}
	for _, bad := range []LeaseInfo{{Kind: "../x", ID: "a"}, {Kind: "x", ID: "a/b"}, {Kind: "x", ID: ""}, {Kind: "x", ID: "y", Layers: []digest.Digest{"z"}}} {
		if s.SaveLease(ctx, bad) == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func TestPruneReferrers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	image := addImage(t, s, 1, "image")
	signature := pushReferrer(t, s, image, "signature")
	onSignature := pushReferrer(t, s, signature, "signature of the signature")
	other := pushReferrer(t, s, blob([]byte("something else")), "of nothing")
	must(t, s.Close())
	s = open(t, dir)
	r := prune(t, s, PruneOptions{})
	if len(r.Blobs) != 2 || !slices.ContainsFunc(r.Blobs, func(d v1.Descriptor) bool { return d.Digest == other.Digest }) {
		t.Fatalf("%+v, want the referrer without a subject and its layer", r)
	}
	paths, err := s.Why(ctx, digest.FromString("signature of the signature"))
	must(t, err)
	if got := show(paths); got != "name docker.io/library/image:latest, manifest, referrer, referrer, layer" {
		t.Error(got)
	}
	if paths[0][3].Digest != onSignature.Digest {
		t.Error(paths)
	}
	_, err = s.Untag(ctx, "image")
	must(t, err)
	if r := prune(t, s, PruneOptions{}); len(r.Blobs) != 4+2+2+1 {
		t.Fatalf("%+v", r)
	}
}

func show(paths [][]Step) string {
	var lines []string
	for _, p := range paths {
		var words []string
		for _, s := range p {
			words = append(words, strings.TrimSpace(s.Kind+" "+s.Name))
		}
		lines = append(lines, strings.Join(words, ", "))
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

func TestWhy(t *testing.T) {
	s := newStore(t)
	f, m := testImage(t, 1)
	must(t, pushFiles(ctx, s, f, m))
	idx := pushIndex(t, s, m)
	must(t, s.Tag(ctx, pushIndex(t, s, idx), "deep"))
	must(t, s.Tag(ctx, m, "flat"))
	must(t, s.Tag(ctx, idx, ""))
	must(t, s.SaveLease(ctx, LeaseInfo{Kind: "container", ID: "c1", Digests: []digest.Digest{m.Digest}}))
	g := newGraph(s)
	g.configs = true
	must(t, g.mark(node{m.Digest, kindManifest}))
	for n := range g.marked {
		tail := map[kind]string{kindManifest: "", kindConfig: ", config", kindLayer: ", layer", kindUnpacked: ", config, unpacked layer"}[n.kind]
		paths, err := s.Why(ctx, n.digest)
		must(t, err)
		want := "entry, index, manifest" + tail + "; lease container c1, manifest" + tail +
			"; name docker.io/library/deep:latest, index, index, manifest" + tail + "; name docker.io/library/flat:latest, manifest" + tail
		if got := show(paths); got != want {
			t.Errorf("%v:\n%s\nwant\n%s", n, got, want)
		}
		for _, p := range paths {
			if p[len(p)-1].Digest != n.digest {
				t.Errorf("%v is not where %v ends", n, p)
			}
		}
	}
	if paths, err := s.Why(ctx, digest.FromString("nothing")); err != nil || len(paths) != 0 {
		t.Errorf("%v, %v", paths, err)
	}
}

// CVE-2026-53493: indexes that refer to the same few again and again have 40^40 paths; deep ones need no deep stack.
func TestHostileGraphs(t *testing.T) {
	s := newStore(t)
	f, m := testImage(t, 1)
	must(t, pushFiles(ctx, s, f, m))
	wide := m
	for level := range 40 {
		var entries []v1.Descriptor
		for i := range 40 {
			e := wide
			e.Annotations = map[string]string{"i": fmt.Sprint(level, i)}
			entries = append(entries, e)
		}
		wide = pushIndex(t, s, entries...)
	}
	must(t, s.Tag(ctx, wide, "wide"))
	start := time.Now()
	if r := prune(t, s, PruneOptions{}); len(r.Blobs) != 0 {
		t.Errorf("%+v", r)
	}
	if paths, err := s.Why(ctx, m.Digest); err != nil || len(paths) != 1 || len(paths[0]) != 42 {
		t.Errorf("%v, %v", paths, err)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}

// An index may say of a manifest that it is a layer: that holds the blob, and takes nothing from who says what it is.
func TestContradictingDescriptors(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	f, m := testImage(t, 1)
	must(t, pushFiles(ctx, s, f, m))
	lie := m
	lie.MediaType = v1.MediaTypeImageLayerGzip
	must(t, s.Tag(ctx, pushIndex(t, s, lie, m), "x"))
	lie.MediaType = v1.MediaTypeImageIndex
	must(t, s.Tag(ctx, pushIndex(t, s, lie), "y"))
	must(t, s.Close())
	if r := prune(t, open(t, dir), PruneOptions{}); len(r.Blobs) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestPruneStopsAtDamage(t *testing.T) {
	s := newStore(t)
	m := addImage(t, s, 1, "x")
	data := read(t, s, m)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(s.blobPath(m.Digest), data, 0o600))
	before, err := s.Size(ctx)
	must(t, err)
	_, err = s.Prune(ctx, PruneOptions{})
	if err == nil || !strings.Contains(err.Error(), "fsck --repair") {
		t.Errorf("error %v", err)
	}
	if after, err := s.Size(ctx); err != nil || after != before {
		t.Errorf("%+v became %+v, %v", before, after, err)
	}
}

func TestPrunePartial(t *testing.T) {
	s := newStore(t)
	old, young, busy := []byte("old one"), []byte("young one"), []byte("busy one")
	for _, data := range [][]byte{old, young, busy} {
		in, err := s.Ingest(ctx, blob(data))
		must(t, err)
		in.Write(data[:3])
		if !bytes.Equal(data, busy) {
			must(t, in.Close())
		}
		if !bytes.Equal(data, young) {
			past := time.Now().Add(-48 * time.Hour)
			must(t, os.Chtimes(in.path, past, past))
		}
		defer in.Close()
	}
	if r := prune(t, s, PruneOptions{}); len(r.Partial) != 1 || r.Bytes != 3 || !strings.Contains(r.Partial[0].Name, blob(old).Digest.Encoded()) {
		t.Errorf("%+v", r)
	}
}

func TestLeaseOfContext(t *testing.T) {
	s := newStore(t)
	l, err := s.Lease(ctx, "pull", "x")
	must(t, err)
	held := WithLease(ctx, l)
	f, m := testImage(t, 1)
	must(t, pushFiles(held, s, f, m))
	if s.session != nil {
		t.Error("the process holds too")
	}
	if r := prune(t, s, PruneOptions{}); len(r.Blobs) != 0 {
		t.Errorf("%+v", r)
	}
	leases, err := s.Leases(ctx)
	if err != nil || len(leases) != 1 || leases[0].Kind != "pull" || !leases[0].Live || len(leases[0].Digests) != 4 {
		t.Errorf("%+v, %v", leases, err)
	}
	l.Release()
	if err := l.Hold(ctx, digest.FromString("x")); err == nil {
		t.Error("a released lease holds")
	}
	if r := prune(t, s, PruneOptions{}); len(r.Blobs) != 4 {
		t.Errorf("%+v", r)
	}
	if _, err := s.Resolve(ctx, m.Digest.String()); !errors.Is(err, content.ErrNotFound) {
		t.Error(err)
	}
}
