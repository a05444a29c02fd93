package server

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/internal/ijson"
)

// parse checks a pushed manifest or index and finds what the storage has to know of it. require are the blobs without which
// an image is not whole: all but layers that need not come with it.
func parse(raw []byte, mediaType string, d digest.Digest) (m storage.Manifest, require []digest.Digest, err error) {
	if mediaType == "" {
		if mediaType, err = ownMediaType(raw); err != nil {
			return m, nil, err
		}
	}
	m = storage.Manifest{Raw: raw, Descriptor: v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}}
	var subject *v1.Descriptor
	switch {
	case manifest.IsIndex(mediaType):
		idx, err := manifest.ParseIndex(raw, mediaType)
		if err != nil {
			return m, nil, err
		}
		for _, child := range idx.Manifests {
			m.Manifests = append(m.Manifests, child.Digest)
		}
		subject, m.Descriptor.ArtifactType, m.Descriptor.Annotations = idx.Subject, idx.ArtifactType, idx.Annotations
	case manifest.IsManifest(mediaType):
		img, err := manifest.ParseManifest(raw, mediaType)
		if err != nil {
			return m, nil, err
		}
		m.Blobs, require = blobs(img)
		subject, m.Descriptor.ArtifactType, m.Descriptor.Annotations = img.Subject, img.ArtifactType, img.Annotations
		if m.Descriptor.ArtifactType == "" {
			m.Descriptor.ArtifactType = img.Config.MediaType
		}
	default:
		return m, nil, fmt.Errorf("media type %s is neither that of an image manifest nor of an index", printable(mediaType))
	}
	if subject != nil {
		if err := manifest.CheckDescriptor(*subject); err != nil {
			return m, nil, fmt.Errorf("subject: %w", err)
		}
		// The list of referrers of what cannot be verified cannot be asked for. Without an answer that it was processed, the client
		// keeps a list of its own under a tag.
		if reference.CheckVerifiable(subject.Digest) == nil {
			m.Subject = subject.Digest
		}
	}
	m.Manifests = unique(m.Manifests)
	return m, require, nil
}

// blobs are the blobs of a manifest, and those of them that have to be there.
func blobs(img v1.Manifest) (all, require []digest.Digest) {
	all = append(all, img.Config.Digest)
	require = append(require, img.Config.Digest)
	for _, layer := range img.Layers {
		all = append(all, layer.Digest)
		if !manifest.IsNonDistributable(layer.MediaType) {
			require = append(require, layer.Digest)
		}
	}
	return unique(all), unique(require)
}

// unique keeps the first of equal digests. What cannot be verified cannot be in a storage: it is left out.
func unique(list []digest.Digest) []digest.Digest {
	seen := make(map[digest.Digest]bool, len(list))
	kept := list[:0]
	for _, d := range list {
		if !seen[d] && reference.CheckVerifiable(d) == nil {
			kept = append(kept, d)
		}
		seen[d] = true
	}
	return kept
}

// ownMediaType is what a manifest says that it is, for a push without a Content-Type.
func ownMediaType(raw []byte) (string, error) {
	var doc struct {
		MediaType string `json:"mediaType"`
	}
	if err := ijson.Unmarshal(raw, &doc); err != nil {
		return "", err
	}
	if doc.MediaType == "" {
		return "", fmt.Errorf("neither the request nor the manifest says a media type")
	}
	return doc.MediaType, nil
}
