package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
)

// ErrNotImage is in the error of Choose for a graph that is whole but no container image: an artifact.
var ErrNotImage = errors.New("not a container image")

// An Image is the container image that was chosen from a graph.
type Image struct {
	Path      []v1.Descriptor // from the root over indexes to the manifest, which is last
	Manifest  v1.Manifest
	ConfigRaw []byte   // the configuration as it is stored
	Config    v1.Image // parsed and checked; one diff ID for each of the manifest's layers
}

// Choose returns the image below root that fits p best. Entries of indexes are compared by what they say of themselves, and
// the configuration decides: as in every reader of image-spec's image-index.md, and with what tare's archives do.
func Choose(ctx context.Context, src content.Fetcher, root v1.Descriptor, p manifest.Platform) (*Image, error) {
	return newLibrary(src, Limits{}).choose(ctx, root, p)
}

func (l *library) choose(ctx context.Context, root v1.Descriptor, p manifest.Platform) (*Image, error) {
	w := flattener{lib: l, platform: p, paths: map[digest.Digest][]v1.Descriptor{}}
	if err := w.flatten(ctx, []v1.Descriptor{root}, nil); err != nil {
		return nil, err
	}
	candidates, err := manifest.Select(w.found, p)
	if err != nil {
		if len(w.found) == 1 && !manifest.IsDocument(root.MediaType) {
			return nil, fmt.Errorf("%s is of media type %.200q: %w", root.Digest, root.MediaType, ErrNotImage)
		}
		return nil, err
	}
	available := manifest.Available(w.found)
	var missing error
	for _, d := range candidates {
		img, err := l.image(ctx, d)
		if errors.Is(err, content.ErrNotFound) || errors.Is(err, ErrNotImage) && len(candidates) > 1 {
			if missing == nil {
				missing = err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		img.Path = append(img.Path, w.paths[d.Digest]...)
		if p.Rank(img.Config.OS, img.Config.Architecture, img.Config.Variant) >= 0 {
			return img, nil
		}
		has := manifest.Platform{OS: img.Config.OS, Architecture: img.Config.Architecture, Variant: img.Config.Variant}
		available = append(available, has.String())
	}
	if missing != nil {
		return nil, missing
	}
	return nil, manifest.NoPlatform(p, available)
}

// image reads the image of a manifest.
func (l *library) image(ctx context.Context, d v1.Descriptor) (*Image, error) {
	raw, err := l.read(ctx, d, manifest.MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	img := &Image{}
	if img.Manifest, err = manifest.ParseManifest(raw, d.MediaType); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if !manifest.IsConfig(img.Manifest.Config.MediaType) {
		return nil, fmt.Errorf("manifest %s has a configuration of media type %.200q: %w", d.Digest, img.Manifest.Config.MediaType, ErrNotImage)
	}
	if l.early != nil {
		if err := l.early(ctx, img.Manifest.Config); err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
	}
	if img.ConfigRaw, err = l.read(ctx, img.Manifest.Config, manifest.MaxConfig); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if img.Config, err = manifest.ParseConfig(img.ConfigRaw); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", img.Manifest.Config.Digest, err)
	}
	if have, want := len(img.Manifest.Layers), len(img.Config.RootFS.DiffIDs); have != want {
		return nil, fmt.Errorf("manifest %s has %d layers, its configuration %d", d.Digest, have, want)
	}
	return img, nil
}

// A flattener collects the manifests below a root, with the way to each.
type flattener struct {
	lib      *library
	platform manifest.Platform
	found    []v1.Descriptor
	paths    map[digest.Digest][]v1.Descriptor // the first way to each
}

// flatten looks at entries, which are found at the end of path. An entry without a platform has that of the index which it is
// in. Indexes for other platforms are not read: they may be missing.
func (w *flattener) flatten(ctx context.Context, entries, path []v1.Descriptor) error {
	if int64(len(path)) >= w.lib.limits.Depth {
		return &LimitError{"Depth", w.lib.limits.Depth}
	}
	for _, d := range entries {
		if d.Platform == nil && len(path) > 0 {
			d.Platform = path[len(path)-1].Platform
		}
		if _, again := w.paths[d.Digest]; again {
			continue
		}
		if _, err := w.lib.meet(d); err != nil {
			return err
		}
		here := append(path[:len(path):len(path)], d)
		w.paths[d.Digest] = here
		if !manifest.IsIndex(d.MediaType) {
			w.found = append(w.found, d)
			continue
		}
		p := d.Platform
		if !manifest.IsImage(d) || p != nil && w.platform.Rank(p.OS, p.Architecture, p.Variant) < 0 {
			continue
		}
		refs, err := w.lib.refer(ctx, d)
		if errors.Is(err, content.ErrNotFound) && len(path) > 0 {
			continue // sparse
		}
		if err != nil {
			return fmt.Errorf("index: %w", err)
		}
		if err := w.flatten(ctx, refs.Children, here); err != nil {
			return err
		}
	}
	return nil
}
