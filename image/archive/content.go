package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

var _ content.Source = (*Archive)(nil)

// notFound makes the error of a missing file one of a missing blob.
type notFound struct{ error }

func (e notFound) Is(target error) bool { return target == content.ErrNotFound }
func (e notFound) Unwrap() error        { return e.error }

func mapNotFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return notFound{err}
	}
	return err
}

// Resolve returns the descriptor of what ref names: a name, @POSITION, or a digest; the empty ref is what the Reference that
// the archive was opened with says. Artifacts that are not images are found by name, and where there is nothing else. Several
// entries of one name for different platforms are found as an index that lists them, and an image of a docker-archive as a
// manifest: if the archive has no such document, it is made, the same bytes every time, and Fetch gives it.
func (a *Archive) Resolve(ctx context.Context, ref string) (v1.Descriptor, error) {
	at := a.ref
	if ref != "" {
		var err error
		if at, err = with(at, ref); err != nil {
			return v1.Descriptor{}, fmt.Errorf("resolve %.300q: %w", ref, err)
		}
	}
	d, err := a.resolve(ctx, at)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("image %s: %w", at, mapNotFound(err))
	}
	return d, nil
}

func (a *Archive) resolve(ctx context.Context, at reference.Reference) (v1.Descriptor, error) {
	if d := digest.Digest(at.Name); reference.CheckVerifiable(d) == nil {
		return a.resolveDigest(d)
	}
	switch a.ref.Transport {
	case reference.DockerArchive:
		return a.resolveDocker(ctx, at)
	case reference.Dir:
		if at.Name != "" || at.Index > 0 {
			return v1.Descriptor{}, fmt.Errorf("a dir: has one image, without a name: %w", content.ErrNotFound)
		}
		return *a.top, nil
	}
	idx, err := a.index()
	if err != nil {
		return v1.Descriptor{}, err
	}
	entries, err := named(at, idx.Manifests)
	if err != nil {
		if other := otherContent(at, idx.Manifests); other != nil {
			return *other, nil
		}
		return v1.Descriptor{}, err
	}
	return a.one(entries)
}

// otherContent returns the one entry of an index that a reference can mean and that is not an image, nil if there is none.
func otherContent(at reference.Reference, all []v1.Descriptor) *v1.Descriptor {
	found := all
	if at.Name != "" {
		found = matching(all, func(name string) bool { return name == at.Name })
	}
	for i := range found {
		if manifest.IsImage(found[i]) || found[i].Digest != found[0].Digest {
			return nil
		}
	}
	if len(found) == 0 || at.Index >= 0 {
		return nil
	}
	return &found[0]
}

// one returns entries as one descriptor: itself, or an index made of several.
func (a *Archive) one(entries []v1.Descriptor) (v1.Descriptor, error) {
	same := true
	for _, d := range entries {
		same = same && d.Digest == entries[0].Digest
	}
	if same {
		return entries[0], nil
	}
	idx := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	for _, d := range entries {
		idx.Manifests = append(idx.Manifests, v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform})
	}
	return a.make(v1.MediaTypeImageIndex, idx)
}

// make keeps a document that the archive does not have.
func (a *Archive) make(mediaType string, v any) (v1.Descriptor, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.made[d.Digest] = raw
	return d, nil
}

// resolveDigest finds an index or a manifest by its digest.
func (a *Archive) resolveDigest(want digest.Digest) (v1.Descriptor, error) {
	if a.top != nil && a.top.Digest == want {
		return *a.top, nil
	}
	if a.ref.Transport != reference.Dir && a.exists(v1.ImageIndexFile) == nil {
		idx, err := a.index()
		if err != nil {
			return v1.Descriptor{}, err
		}
		for _, d := range idx.Manifests {
			if d.Digest == want {
				return d, nil
			}
		}
	}
	raw, err := a.documentBytes(want)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if found := want.Algorithm().FromBytes(raw); found != want {
		return v1.Descriptor{}, fmt.Errorf("blob has digest %s, expected is %s", found, want)
	}
	mediaType, err := documentType(raw)
	return v1.Descriptor{MediaType: mediaType, Digest: want, Size: int64(len(raw))}, err
}

// documentBytes returns the unverified bytes of an index or a manifest of which only the digest is known.
func (a *Archive) documentBytes(d digest.Digest) ([]byte, error) {
	a.mu.Lock()
	raw, ok := a.made[d]
	a.mu.Unlock()
	if ok {
		return raw, nil
	}
	name := a.fileName(v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: d})
	return a.readFile(name, manifest.MaxManifest)
}

// documentType tells the media type of an index or a manifest without a descriptor: what it says itself, or what it looks like.
func documentType(raw []byte) (string, error) {
	var doc struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return "", fmt.Errorf("neither an index nor a manifest: decode JSON: %w", err)
	}
	mediaType := doc.MediaType
	switch {
	case mediaType != "":
	case doc.Manifests != nil:
		mediaType = v1.MediaTypeImageIndex
	case doc.Config != nil:
		mediaType = v1.MediaTypeImageManifest
	}
	if !manifest.IsDocument(mediaType) {
		return "", fmt.Errorf("neither an index nor a manifest: media type %.260q", mediaType)
	}
	_, err := manifest.Refer(raw, mediaType)
	return mediaType, err
}

// Fetch opens the bytes of d from offset on; they are not verified but for their size. Error and reader are as content.Fetcher
// says.
func (a *Archive) Fetch(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := reference.CheckDigest(d.Digest); err != nil {
		return nil, err
	}
	if offset < 0 || offset > d.Size {
		return nil, fmt.Errorf("fetch %s: offset %d is not in its %d bytes", d.Digest, offset, d.Size)
	}
	f, err := a.openContent(d)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", d.Digest, mapNotFound(err))
	}
	if f.size != d.Size {
		f.Close()
		return nil, fmt.Errorf("fetch %s: it has %d bytes, expected are %d", d.Digest, f.size, d.Size)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, fmt.Errorf("fetch %s: %w", d.Digest, err)
	}
	return f, nil
}

// openContent opens what d names. Embedded data counts if it is what the digest says.
func (a *Archive) openContent(d v1.Descriptor) (*file, error) {
	a.mu.Lock()
	raw := a.made[d.Digest]
	a.mu.Unlock()
	if d.Data != nil && int64(len(d.Data)) == d.Size && reference.CheckVerifiable(d.Digest) == nil && d.Digest.Algorithm().FromBytes(d.Data) == d.Digest {
		raw = d.Data
	}
	if raw != nil {
		return &file{bytes.NewReader(raw), io.NopCloser(nil), int64(len(raw))}, nil
	}
	f, err := a.src.open(a.fileName(d))
	if a.ref.Transport == reference.Dir && d.MediaType == "" && errors.Is(err, fs.ErrNotExist) {
		return a.src.open(d.Digest.Encoded() + dirSuffix) // a document, although the descriptor does not say so
	}
	return f, err
}

// Exists reports whether the archive has a blob of d's digest and size.
func (a *Archive) Exists(ctx context.Context, d v1.Descriptor) (bool, error) {
	r, err := a.Fetch(ctx, d, 0)
	if errors.Is(err, content.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, r.Close()
}

// fileName returns the name of the file with the bytes of d, whose digest passed CheckDigest, so no part of it leads elsewhere.
func (a *Archive) fileName(d v1.Descriptor) string {
	switch a.ref.Transport {
	case reference.Dir:
		if a.top != nil && a.top.Digest == d.Digest {
			return dirManifest
		}
		return dirName(d)
	case reference.DockerArchive:
		a.mu.Lock()
		defer a.mu.Unlock()
		if name, ok := a.files[d.Digest]; ok {
			return name
		}
	}
	return blobPath(d.Digest)
}

// with returns the reference to what text names in r's place.
func with(r reference.Reference, text string) (reference.Reference, error) {
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return r, errors.New("control characters")
	}
	r.Name, r.Index = text, -1
	if at, ok := strings.CutPrefix(text, "@"); ok {
		n, err := strconv.ParseUint(at, 10, 31)
		if err != nil {
			return r, errors.New("want a position from 0 after @")
		}
		r.Name, r.Index = "", int(n)
	}
	return r, nil
}
