package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/internal/ijson"
)

// Limits on the graph of indexes below index.json (CVE-2026-53493: without them a few kilobytes keep a reader busy for ever).
const (
	maxDepth   = 8     // indexes in indexes
	maxIndexes = 128   // read for one image
	maxEntries = 20000 // of all of these together
	maxTries   = 128   // manifests read because no index tells their platform
)

// containerdName is where containerd and Docker put the full name of an index.json entry.
const containerdName = "io.containerd.image.name"

// checkLayout checks the oci-layout file (image-spec image-layout.md).
func (a *Archive) checkLayout() error {
	raw, err := a.readFile(v1.ImageLayoutFile, manifest.MaxManifest)
	if err != nil {
		return err
	}
	var layout v1.ImageLayout
	if err := ijson.Unmarshal(raw, &layout); err != nil {
		return fmt.Errorf("%s: %w", v1.ImageLayoutFile, err)
	}
	if layout.Version != v1.ImageLayoutVersion {
		return fmt.Errorf("%s: version %.64q is not supported, want %s", v1.ImageLayoutFile, layout.Version, v1.ImageLayoutVersion)
	}
	return nil
}

// ociImage finds an image of a layout.
func (a *Archive) ociImage(ctx context.Context, platform manifest.Platform) (*Image, error) {
	idx, err := a.index()
	if err != nil {
		return nil, err
	}
	entries, err := named(a.ref, idx.Manifests)
	if err != nil {
		return nil, err
	}
	img, err := a.among(ctx, entries, platform)
	if err != nil {
		return nil, err
	}
	img.Name = entryName(entries[0])
	return img, nil
}

// index reads index.json.
func (a *Archive) index() (v1.Index, error) {
	raw, err := a.readFile(v1.ImageIndexFile, manifest.MaxManifest)
	if err != nil {
		return v1.Index{}, err
	}
	idx, err := manifest.ParseIndex(raw, v1.MediaTypeImageIndex)
	if err != nil {
		return v1.Index{}, fmt.Errorf("%s: %w", v1.ImageIndexFile, err)
	}
	return idx, nil
}

// among returns the image for platform in entries or in indexes in entries.
func (a *Archive) among(ctx context.Context, entries []v1.Descriptor, platform manifest.Platform) (*Image, error) {
	w := walk{a: a, platform: platform, seen: map[digest.Digest]bool{}}
	if err := w.flatten(ctx, entries, nil, 0); err != nil {
		return nil, err
	}
	candidates, err := manifest.Select(w.found, platform)
	if err != nil {
		return nil, err
	}
	available := manifest.Available(w.found)
	for i, d := range candidates {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if i >= maxTries {
			return nil, fmt.Errorf("none of %d manifests is for platform %s: this many are the limit", maxTries, platform)
		}
		img, err := a.manifestImage(d, platform)
		var mismatch *platformError
		if errors.As(err, &mismatch) && len(w.found) > 1 {
			available = append(available, mismatch.platform())
			continue
		}
		return img, err
	}
	return nil, manifest.NoPlatform(platform, available)
}

// named returns the entries of index.json that the reference names: one, or several that differ only in platform.
func named(ref reference.Reference, all []v1.Descriptor) ([]v1.Descriptor, error) {
	if n := ref.Index; n >= 0 {
		if n >= len(all) {
			return nil, fmt.Errorf("there is no entry @%d: the layout has %d entries", n, len(all))
		}
		return all[n : n+1], nil
	}
	var images []v1.Descriptor
	for _, d := range all {
		if manifest.IsImage(d) {
			images = append(images, d)
		}
	}
	found := images
	if ref.Name != "" {
		found = matching(images, func(name string) bool { return name == ref.Name })
		if want, err := reference.ParseName(ref.Name); len(found) == 0 && err == nil {
			found = matching(images, func(unsafe string) bool {
				have, err := reference.ParseName(unsafe)
				return err == nil && have == want
			})
		}
	}
	switch {
	case len(found) == 0 && ref.Name != "":
		return nil, fmt.Errorf("there is no image %.300q: there are %s", ref.Name, listNames(images))
	case len(found) == 0:
		return nil, fmt.Errorf("the layout has no image")
	case !sameImage(found) && ref.Name != "":
		return nil, fmt.Errorf("name %.300q is ambiguous: there are %s", ref.Name, listNames(images))
	case !sameImage(found):
		return nil, fmt.Errorf("which image is not said: there are %s", listNames(images))
	}
	return found, nil
}

// matching returns the entries that have a name for which match is true.
func matching(entries []v1.Descriptor, match func(string) bool) []v1.Descriptor {
	var found []v1.Descriptor
	for _, d := range entries {
		if ref, full := d.Annotations[v1.AnnotationRefName], d.Annotations[containerdName]; match(ref) || match(full) {
			found = append(found, d)
		}
	}
	return found
}

// sameImage tells whether all entries are one image: one digest, or one name (or none) and every entry for a platform of its
// own.
func sameImage(entries []v1.Descriptor) bool {
	digests, names, platforms := map[digest.Digest]bool{}, map[string]bool{}, map[string]bool{}
	for _, d := range entries {
		digests[d.Digest] = true
		names[entryName(d)] = true
		if d.Platform != nil {
			platforms[d.Platform.OS+"/"+d.Platform.Architecture+"/"+d.Platform.Variant] = true
		}
	}
	return len(digests) == 1 || len(names) == 1 && len(platforms) == len(entries)
}

func entryName(d v1.Descriptor) string {
	if name := d.Annotations[containerdName]; name != "" {
		return name
	}
	return d.Annotations[v1.AnnotationRefName]
}

// listNames lists the names of entries for an error, with positions for those without.
func listNames(entries []v1.Descriptor) string {
	var names []string
	for i, d := range entries {
		name := entryName(d)
		if name == "" {
			names = append(names, "one without a name ("+d.Digest.String()+")")
		} else {
			names = append(names, strconv.Quote(name))
		}
		if i == 19 && len(entries) > 20 {
			names = append(names, fmt.Sprintf("%d more", len(entries)-20))
			break
		}
	}
	return strings.Join(names, ", ")
}

// walk collects the manifests below an entry of index.json.
type walk struct {
	a        *Archive
	platform manifest.Platform
	seen     map[digest.Digest]bool
	found    []v1.Descriptor
	indexes  int
	entries  int
}

// flatten appends the manifests in entries, and in indexes in entries, to w.found. An entry without a platform has that of
// the index which it is in. Indexes for other platforms are not read: they may be missing.
func (w *walk) flatten(ctx context.Context, entries []v1.Descriptor, inherited *v1.Platform, depth int) error {
	if w.entries += len(entries); w.entries > maxEntries {
		return fmt.Errorf("the indexes have more than %d entries, the limit", maxEntries)
	}
	for _, d := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.Platform == nil {
			d.Platform = inherited
		}
		if !manifest.IsIndex(d.MediaType) {
			w.found = append(w.found, d)
			continue
		}
		p := d.Platform
		if !manifest.IsImage(d) || w.seen[d.Digest] || p != nil && w.platform.Rank(p.OS, p.Architecture, p.Variant) < 0 {
			continue
		}
		w.seen[d.Digest] = true
		if depth >= maxDepth {
			return fmt.Errorf("indexes are nested deeper than %d levels, the limit", maxDepth)
		}
		if w.indexes++; w.indexes > maxIndexes {
			return fmt.Errorf("there are more than %d indexes, the limit", maxIndexes)
		}
		raw, err := w.a.document(d, manifest.MaxManifest)
		if err != nil {
			return fmt.Errorf("read index: %w", err)
		}
		idx, err := manifest.ParseIndex(raw, d.MediaType)
		if err != nil {
			return fmt.Errorf("index %s: %w", d.Digest, err)
		}
		if err := w.flatten(ctx, idx.Manifests, d.Platform, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// manifestImage reads the image of a manifest.
func (a *Archive) manifestImage(d v1.Descriptor, platform manifest.Platform) (*Image, error) {
	raw, err := a.document(d, manifest.MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	m, err := manifest.ParseManifest(raw, d.MediaType)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if !manifest.IsConfig(m.Config.MediaType) {
		return nil, fmt.Errorf("manifest %s: its config is of media type %q: not a container image", d.Digest, m.Config.MediaType)
	}
	config, err := a.document(m.Config, manifest.MaxConfig)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	layers := make([]Layer, len(m.Layers))
	img, err := newImage(config, platform, layers)
	if err != nil {
		return nil, err
	}
	for i, d := range m.Layers {
		layers[i], err = a.blobLayer(d)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		layers[i].DiffID = img.Config.RootFS.DiffIDs[i]
	}
	img.ManifestDigest = d.Digest
	return img, nil
}

// blobLayer returns the layer of a descriptor, having checked that its blob is there with the right size.
func (a *Archive) blobLayer(d v1.Descriptor) (Layer, error) {
	if !manifest.IsLayer(d.MediaType) {
		return Layer{}, fmt.Errorf("media type %q is not of a layer that tare can read", d.MediaType)
	}
	l := Layer{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	l.open = func() (io.ReadCloser, error) {
		if d.Data != nil { // CheckDescriptor verified it
			return io.NopCloser(bytes.NewReader(d.Data)), nil
		}
		return a.openBlob(a.fileName(d), d.Size, d.Digest)
	}
	r, err := l.open()
	if errors.Is(err, fs.ErrNotExist) && manifest.IsNonDistributable(d.MediaType) {
		return Layer{}, fmt.Errorf("%w (its licence lets it be had only from %.500q)", err, d.URLs)
	}
	if err != nil {
		return Layer{}, err
	}
	return l, r.Close()
}

// document reads and verifies a small blob: the data embedded in its descriptor, which CheckDescriptor verified, or its file.
func (a *Archive) document(d v1.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("blob %s has %d bytes, the limit is %d", d.Digest, d.Size, limit)
	}
	if d.Data != nil {
		return d.Data, nil
	}
	r, err := a.openBlob(a.fileName(d), d.Size, d.Digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// blobPath returns where a layout keeps a blob. The digest passed CheckDigest, so no part of it leads elsewhere.
func blobPath(d digest.Digest) string {
	return v1.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}
