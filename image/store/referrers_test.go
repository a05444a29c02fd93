package store

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

func TestReferrers(t *testing.T) {
	s := newStore(t)
	image := addImage(t, s, 1, "image")
	if list, err := s.Referrers(ctx, image, ""); err != nil || len(list) > 0 {
		t.Fatalf("%v %v, want none", list, err)
	}
	note := pushReferrer(t, s, image, "note") // after the first look
	note.ArtifactType = "a/b"
	pushReferrer(t, s, note, "of the note")
	version := specs.Versioned{SchemaVersion: 2}
	empty := v1.DescriptorEmptyJSON
	older := pushDoc(t, s, v1.MediaTypeImageManifest, v1.Manifest{Versioned: version, MediaType: v1.MediaTypeImageManifest,
		Config: v1.Descriptor{MediaType: "c/d", Digest: empty.Digest, Size: 2}, Layers: []v1.Descriptor{empty}, Subject: &image,
		Annotations: map[string]string{"k": "v"}})
	older.ArtifactType, older.Annotations = "c/d", map[string]string{"k": "v"}
	index := pushDoc(t, s, v1.MediaTypeImageIndex, v1.Index{Versioned: version, MediaType: v1.MediaTypeImageIndex, ArtifactType: "e/f",
		Manifests: []v1.Descriptor{}, Subject: &image})
	index.ArtifactType = "e/f"
	for _, no := range []string{
		fmt.Sprintf(`{"schemaVersion":2,"subject":{"mediaType":"a/b","digest":"%s","size":1}}`, image.Digest),
		fmt.Sprintf(`{"schemaVersion":2,"manifests":[],"layers":[],"config":{},"subject":{"digest":"%s"}}`, image.Digest),
		fmt.Sprintf(`{"schemaVersion":2,"mediaType":"%s","artifactType":"x","artifactType":"y","manifests":[],"subject":{"digest":"%s"}}`,
			v1.MediaTypeImageIndex, image.Digest),
	} {
		must(t, s.Push(ctx, blob([]byte(no)), strings.NewReader(no))) // a layer that wants to be a referrer
	}
	want := []v1.Descriptor{note, older, index}
	slices.SortFunc(want, func(a, b v1.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	if got, err := s.Referrers(ctx, image, ""); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v %v, want %v", got, err, want)
	}
	if got, err := s.Referrers(ctx, image, "c/d"); err != nil || !reflect.DeepEqual(got, []v1.Descriptor{older}) {
		t.Fatalf("of one type: %v %v", got, err)
	}
	flip(t, s.blobPath(note.Digest))
	if got, err := s.Referrers(ctx, image, "a/b"); err != nil || len(got) > 0 {
		t.Fatalf("damaged: %v %v", got, err)
	}
	if _, err := s.Referrers(ctx, v1.Descriptor{Digest: "../x"}, ""); err == nil {
		t.Fatal("a digest that is none is taken")
	}
}
