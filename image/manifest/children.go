package manifest

import (
	"fmt"
	"strings"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// References is what a document refers to.
type References struct {
	// Children are an index's entries, or a manifest's config and then its layers, in the document's order, each as often as it
	// is named. What they name belongs to the document.
	Children []v1.Descriptor
	// Subject is what the document says something about, nil if about nothing. It is a weak reference: it may be missing
	// wherever the document is (image-spec manifest.md).
	Subject *v1.Descriptor
	// ArtifactType is what the document says it is, by the rule of distribution-spec for lists of referrers: its own
	// artifactType, else, of a manifest, its config's media type.
	ArtifactType string
	// Annotations are the document's own. Nobody has checked them.
	Annotations map[string]string
}

// IsDocument tells whether what has the media type refers to something else, and is small: an index or a manifest.
func IsDocument(mediaType string) bool { return IsIndex(mediaType) || IsManifest(mediaType) }

// Refer parses the index or the manifest raw, as ParseIndex and ParseManifest do, and returns what it refers to. A document of
// another media type is a blob like any other, which refers to nothing, but for Docker's schema 1, whose layers would be
// forgotten: that is an error.
func Refer(raw []byte, mediaType string) (References, error) {
	switch {
	case IsIndex(mediaType):
		idx, err := ParseIndex(raw, mediaType)
		return References{Children: idx.Manifests, Subject: idx.Subject, ArtifactType: idx.ArtifactType, Annotations: idx.Annotations}, err
	case IsManifest(mediaType):
		m, err := ParseManifest(raw, mediaType)
		if err != nil {
			return References{}, err
		}
		r := References{Children: append([]v1.Descriptor{m.Config}, m.Layers...), Subject: m.Subject, ArtifactType: m.ArtifactType, Annotations: m.Annotations}
		if r.ArtifactType == "" {
			r.ArtifactType = m.Config.MediaType
		}
		return r, nil
	case strings.HasPrefix(mediaType, dockerSchema1):
		return References{}, fmt.Errorf("manifest is of Docker's schema 1, which is not supported: save or push it again with a current tool")
	}
	return References{}, nil
}
