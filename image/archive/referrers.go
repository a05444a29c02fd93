package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// maxReferrerScan bounds the documents that are read to find what refers to something.
const maxReferrerScan = 10000

// Referrers lists the manifests and indexes that have d as their subject, of artifactType unless it is empty: in a layout, those
// that index.json has an entry of. Other forms have no place for them.
func (a *Archive) Referrers(ctx context.Context, d v1.Descriptor, artifactType string) ([]v1.Descriptor, error) {
	if a.ref.Transport != reference.OCI && a.ref.Transport != reference.OCIArchive {
		return nil, nil
	}
	idx, err := a.index()
	if err != nil {
		return nil, err
	}
	var found []v1.Descriptor
	seen := map[string]bool{}
	for _, e := range idx.Manifests {
		if !manifest.IsDocument(e.MediaType) || seen[e.Digest.String()] {
			continue
		}
		if seen[e.Digest.String()] = true; len(seen) > maxReferrerScan {
			return nil, fmt.Errorf("list referrers of %s: index.json has more than %d entries, the limit", d.Digest, maxReferrerScan)
		}
		if ok, err := a.Exists(ctx, e); err != nil || !ok {
			continue // somebody else's entry, which nobody asked for
		}
		raw, err := content.ReadAll(ctx, a, e, manifest.MaxManifest)
		if err != nil {
			return nil, fmt.Errorf("list referrers of %s: %w", d.Digest, err)
		}
		r, err := referrer(raw, e)
		if err != nil {
			return nil, fmt.Errorf("list referrers of %s: %w", d.Digest, err)
		}
		if r != nil && r.subject == d.Digest.String() && (artifactType == "" || artifactType == r.ArtifactType) {
			found = append(found, r.Descriptor)
		}
	}
	return found, nil
}

// aboutSomething is a document with a subject.
type aboutSomething struct {
	v1.Descriptor
	subject string
}

// referrer returns the document d as something that refers to a subject, nil if it does not.
func referrer(raw []byte, d v1.Descriptor) (*aboutSomething, error) {
	refs, err := manifest.Refer(raw, d.MediaType)
	if err != nil || refs.Subject == nil {
		return nil, err
	}
	return &aboutSomething{v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: refs.ArtifactType,
		Annotations: refs.Annotations}, refs.Subject.Digest.String()}, nil
}

// documentReader keeps the beginning of what is pushed, to be looked at afterwards if it is a document.
type documentReader struct {
	io.Reader
	seen bytes.Buffer
}

func keepDocument(d v1.Descriptor, r io.Reader) *documentReader {
	k := &documentReader{Reader: r}
	if manifest.IsDocument(d.MediaType) && d.Size <= manifest.MaxManifest {
		k.Reader = io.TeeReader(r, &k.seen)
	}
	return k
}

// referrer returns what was pushed as d, if it has a subject. What cannot be parsed has none: it is stored all the same.
func (k *documentReader) referrer(d v1.Descriptor) *aboutSomething {
	if int64(k.seen.Len()) != d.Size || d.Size == 0 {
		return nil
	}
	r, err := referrer(k.seen.Bytes(), d)
	if err != nil {
		return nil
	}
	return r
}
