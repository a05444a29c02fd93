package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
)

// gatherer collects the blobs of one image's graph.
type gatherer struct {
	*saver
	source  content.Source
	have    map[digest.Digest]bool
	entries int
	images  []*savedImage
}

// document adds an index or a manifest and what it refers to, of an index only what is for platforms if there are any. If the
// source does not have all of a manifest, the error wraps content.ErrNotFound and nothing of it was added.
func (g *gatherer) document(d v1.Descriptor, platforms []manifest.Platform, depth int) error {
	if g.have[d.Digest] {
		return nil
	}
	if !manifest.IsDocument(d.MediaType) {
		return fmt.Errorf("%s is of media type %q, neither an index nor a manifest", d.Digest, d.MediaType)
	}
	if g.entries++; g.entries > maxEntries || depth > maxDepth {
		return fmt.Errorf("more than %d manifests, or indexes nested deeper than %d levels, the limits", maxEntries, maxDepth)
	}
	raw, err := content.ReadAll(g.ctx, g.source, d, manifest.MaxManifest)
	if err != nil {
		return err
	}
	if manifest.IsIndex(d.MediaType) {
		err = g.index(raw, d, platforms, depth)
	} else {
		err = g.manifest(raw, d)
		g.have[d.Digest] = err == nil
	}
	if err != nil {
		return err
	}
	g.members.bytes(blobPath(d.Digest), raw)
	return nil
}

// index adds the entries of an index that are wanted.
func (g *gatherer) index(raw []byte, d v1.Descriptor, platforms []manifest.Platform, depth int) error {
	idx, err := manifest.ParseIndex(raw, d.MediaType)
	if err != nil {
		return fmt.Errorf("index %s: %w", d.Digest, err)
	}
	if len(platforms) > 0 {
		return g.chosen(idx.Manifests, platforms, depth)
	}
	added := 0
	var missing error
	for _, entry := range idx.Manifests {
		if !manifest.IsDocument(entry.MediaType) {
			continue
		}
		switch err := g.document(entry, nil, depth+1); {
		case errors.Is(err, content.ErrNotFound):
			missing = err
		case err != nil:
			return err
		default:
			added++
		}
	}
	if added == 0 && missing != nil {
		return fmt.Errorf("index %s: nothing of it is here: %w", d.Digest, missing)
	}
	return nil
}

// chosen adds the entries for the platforms that were asked for.
func (g *gatherer) chosen(entries []v1.Descriptor, platforms []manifest.Platform, depth int) error {
	for _, p := range platforms {
		best, err := manifest.Select(entries, p)
		if err != nil {
			return err
		}
		if err := g.document(best[0], []manifest.Platform{p}, depth+1); err != nil {
			return fmt.Errorf("platform %s: %w", p, err)
		}
	}
	return nil
}

// manifest adds a manifest's blobs.
func (g *gatherer) manifest(raw []byte, d v1.Descriptor) error {
	m, err := manifest.ParseManifest(raw, d.MediaType)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	blobs := []v1.Descriptor{m.Config}
	complete := true
	for _, l := range m.Layers {
		ok, err := exists(g.ctx, g.source, l)
		if err != nil {
			return err
		}
		if !ok && !manifest.IsNonDistributable(l.MediaType) {
			return notFound{fmt.Errorf("manifest %s: layer %s is not here", d.Digest, l.Digest)}
		}
		if complete = complete && ok; ok {
			blobs = append(blobs, l)
		}
	}
	if ok, err := exists(g.ctx, g.source, m.Config); err != nil || !ok {
		if err == nil {
			err = notFound{fmt.Errorf("manifest %s: config %s is not here", d.Digest, m.Config.Digest)}
		}
		return err
	}
	for _, b := range blobs {
		g.members.blob(g.source, b)
	}
	if !complete || !manifest.IsConfig(m.Config.MediaType) {
		return nil
	}
	return g.image(m)
}

// image remembers a container image for manifest.json. What has an image's config and other blobs than layers is none.
func (g *gatherer) image(m v1.Manifest) error {
	for _, l := range m.Layers {
		if !manifest.IsLayer(l.MediaType) {
			return nil
		}
	}
	raw, err := content.ReadAll(g.ctx, g.source, m.Config, manifest.MaxConfig)
	if err != nil {
		return err
	}
	config, err := manifest.ParseConfig(raw)
	if err != nil {
		return err
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return fmt.Errorf("image has %d layers, its config has %d diff_ids", len(m.Layers), len(config.RootFS.DiffIDs))
	}
	g.images = append(g.images, &savedImage{source: g.source, manifest: m, configRaw: raw, config: config})
	return nil
}

// exists asks a source whether it has d, by the cheapest way that it knows.
func exists(ctx context.Context, s content.Source, d v1.Descriptor) (bool, error) {
	if t, ok := s.(interface {
		Exists(context.Context, v1.Descriptor) (bool, error)
	}); ok {
		ok, err := t.Exists(ctx, d)
		if ok || err != nil || d.Data == nil {
			return ok, err
		}
	}
	r, err := s.Fetch(ctx, d, 0)
	if errors.Is(err, content.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, r.Close()
}

// openBytes returns data as something to be closed.
func openBytes(data []byte) io.ReadCloser {
	return &file{bytes.NewReader(data), io.NopCloser(nil), int64(len(data))}
}
