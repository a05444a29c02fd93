package archive

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// resolveDocker finds an image of a docker-archive as a manifest: the archive's own, if it is an OCI layout too and has all of
// the image's layers (some versions of Docker wrote manifests that leave layers out), else one that is made.
func (a *Archive) resolveDocker(ctx context.Context, at reference.Reference) (v1.Descriptor, error) {
	entries, err := a.dockerEntries()
	if err != nil {
		return v1.Descriptor{}, err
	}
	found, _, err := tagged(at, entries)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if len(found) > maxTries {
		return v1.Descriptor{}, fmt.Errorf("more than %d images have this name, the limit", maxTries)
	}
	var manifests []v1.Descriptor
	for _, e := range found {
		if err := ctx.Err(); err != nil {
			return v1.Descriptor{}, err
		}
		d, err := a.entryManifest(ctx, e)
		if err != nil {
			return v1.Descriptor{}, err
		}
		if !slices.ContainsFunc(manifests, func(m v1.Descriptor) bool { return m.Digest == d.Digest }) {
			manifests = append(manifests, d)
		}
	}
	return a.one(manifests)
}

// entryManifest returns the descriptor, with platform, of the manifest of an entry of manifest.json.
func (a *Archive) entryManifest(ctx context.Context, e dockerEntry) (v1.Descriptor, error) {
	img, err := a.entryImage(e, manifest.Platform{})
	if err != nil {
		return v1.Descriptor{}, err
	}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Layers: []v1.Descriptor{}}
	m.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: img.ID, Size: int64(len(img.ConfigRaw))}
	name, _ := inside(e.Config)
	a.keep(img.ID, name)
	for i := range img.Layers {
		d, err := a.layerDescriptor(ctx, &img.Layers[i], e.Layers[i])
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("layer %d: %w", i, err)
		}
		m.Layers = append(m.Layers, d)
	}
	d, err := a.ownManifest(ctx, m)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if d.Digest == "" {
		if d, err = a.make(v1.MediaTypeImageManifest, m); err != nil {
			return v1.Descriptor{}, err
		}
	}
	p := img.Config.Platform
	d.Platform = &v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
	return d, nil
}

func (a *Archive) keep(d digest.Digest, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.files[d] = name
}

// layerDescriptor returns the descriptor of a layer in a file of the archive, which is read if nothing else tells its digest.
func (a *Archive) layerDescriptor(ctx context.Context, l *Layer, unsafe string) (v1.Descriptor, error) {
	name, _ := inside(unsafe)
	name, err := a.src.resolve(name)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if l.Digest == "" {
		r, err := l.Open()
		if err != nil {
			return v1.Descriptor{}, err
		}
		defer r.Close()
		hash := digest.Canonical.Digester()
		if _, err := io.Copy(hash.Hash(), contextReader{ctx, r}); err != nil {
			return v1.Descriptor{}, fmt.Errorf("read %q: %w", name, err)
		}
		l.Digest = hash.Digest()
	}
	a.keep(l.Digest, name)
	return v1.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size}, nil
}

// contextReader is at an end when its context is.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// ownManifest finds the manifest of the archive that has the config and the layers of m, among those that its index.json leads
// to. The zero Descriptor says that there is none.
func (a *Archive) ownManifest(ctx context.Context, m v1.Manifest) (v1.Descriptor, error) {
	if a.exists(v1.ImageIndexFile) != nil {
		return v1.Descriptor{}, nil
	}
	idx, err := a.index()
	if err != nil {
		return v1.Descriptor{}, err
	}
	seen, entries := map[digest.Digest]bool{}, idx.Manifests
	for n := 0; len(entries) > 0; n++ {
		if n >= maxEntries || len(seen) > maxIndexes+maxTries {
			break // an image of its own will do
		}
		d := entries[0]
		entries = entries[1:]
		if seen[d.Digest] || !manifest.IsDocument(d.MediaType) {
			continue
		}
		seen[d.Digest] = true
		if ok, err := a.Exists(ctx, d); err != nil || !ok {
			continue
		}
		raw, err := a.document(d, manifest.MaxManifest)
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("read manifest: %w", err)
		}
		refs, err := manifest.Refer(raw, d.MediaType)
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		if manifest.IsIndex(d.MediaType) {
			entries = append(entries, refs.Children[:max(0, min(len(refs.Children), maxEntries-len(entries)))]...)
		} else if sameBlobs(refs.Children, m) {
			return v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, nil
		}
	}
	return v1.Descriptor{}, nil
}

// sameBlobs tells whether children, a config and layers, are those of m.
func sameBlobs(children []v1.Descriptor, m v1.Manifest) bool {
	same := func(a, b v1.Descriptor) bool { return a.Digest == b.Digest && a.Size == b.Size }
	return len(children) == len(m.Layers)+1 && same(children[0], m.Config) && slices.EqualFunc(children[1:], m.Layers, same)
}
