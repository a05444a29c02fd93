package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/internal/ijson"
)

// maxReferrers bounds the bytes of the manifests that Referrers reads for one answer, whose annotations it returns.
const maxReferrers = 64 << 20

// subjects is what is known of the subjects of blobs. A digest always names the same bytes, so it never grows old.
type subjects map[digest.Digest]digest.Digest // empty: the blob has none

// Referrers returns the manifests and indexes in the store whose subject is d, ordered by digest, as a registry lists them
// (distribution-spec, "Listing Referrers"): each with its type, that of its configuration if it says none of its own, and its
// annotations. With artifactType only what is of that type. None is no error. Nothing points to them, so the first call looks
// into every blob, later ones only into new blobs. What is damaged (see Fsck), or not a valid document though it looks like one, is
// left out: any layer may look like a manifest.
func (s *Store) Referrers(ctx context.Context, d v1.Descriptor, artifactType string) ([]v1.Descriptor, error) {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return nil, fmt.Errorf("list referrers: %w", err)
	}
	found, err := s.referring(ctx, d.Digest)
	if err != nil {
		return nil, fmt.Errorf("list referrers of %s: %w", d.Digest, err)
	}
	var list []v1.Descriptor
	size := int64(0)
	for _, one := range found {
		desc, ok, err := s.asReferrer(one)
		var broken *brokenError
		if errors.Is(err, content.ErrNotFound) || errors.As(err, &broken) { // removed or damaged meanwhile
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list referrers of %s: %w", d.Digest, err)
		}
		if !ok {
			continue
		}
		if size += desc.Size; size > maxReferrers {
			return nil, fmt.Errorf("list referrers of %s: their manifests have more than %d bytes, the limit: remove some", d.Digest, int64(maxReferrers))
		}
		if artifactType == "" || desc.ArtifactType == artifactType {
			list = append(list, desc)
		}
	}
	slices.SortFunc(list, func(a, b v1.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	return list, nil
}

// referring returns the blobs whose subject is d.
func (s *Store) referring(ctx context.Context, d digest.Digest) ([]digest.Digest, error) {
	s.subjectsMu.Lock()
	defer s.subjectsMu.Unlock()
	now := subjects{} // of what is there
	var found []digest.Digest
	err := s.eachBlob(ctx, func(one digest.Digest, info os.FileInfo) error {
		if info.Size() > manifest.MaxManifest || reference.CheckVerifiable(one) != nil {
			return nil
		}
		subject, known := s.subjects[one]
		if !known {
			subject, _ = s.subject(one)
		}
		if len(now) < maxDocuments {
			now[one] = subject
		}
		if subject == d {
			found = append(found, one)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.subjects = now
	return found, nil
}

// asReferrer describes a manifest or index as a list of referrers does; false if it is none.
func (s *Store) asReferrer(d digest.Digest) (desc v1.Descriptor, ok bool, err error) {
	raw, err := s.readDoc(d, manifest.MaxManifest)
	if err != nil {
		return desc, false, err
	}
	doc, ok := parseDocument(raw)
	if !ok {
		return desc, false, nil
	}
	if _, err := manifest.Refer(raw, doc.mediaType()); err != nil {
		return desc, false, nil //nolint:nilerr // nobody could have stored it as a manifest
	}
	var head struct {
		ArtifactType string            `json:"artifactType"`
		Annotations  map[string]string `json:"annotations"`
	}
	if ijson.Unmarshal(raw, &head) != nil {
		return desc, false, nil
	}
	desc = v1.Descriptor{MediaType: doc.mediaType(), Digest: d, Size: int64(len(raw)), ArtifactType: head.ArtifactType, Annotations: head.Annotations}
	if desc.ArtifactType == "" && doc.Config != nil {
		desc.ArtifactType = doc.Config.MediaType
	}
	return desc, true, nil
}
