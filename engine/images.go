package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/image/store"
)

// A stored image is what a name or an ID stands for in the store.
type stored struct {
	text string        // as the user wrote it
	name string        // full name; empty if it was found by a digest
	root v1.Descriptor // index or manifest
}

// lookup finds an image in the store by its name, the digest of its index or manifest, or its ID (the digest of its
// configuration); of the last two the beginning is enough if only one image's begins so. The error wraps content.ErrNotFound.
func (e *Engine) lookup(ctx context.Context, text string) (stored, error) {
	text = strings.TrimPrefix(text, string(reference.Store)+":")
	st, err := e.imageStore()
	if err != nil {
		return stored{}, err
	}
	list, err := st.List(ctx)
	if err != nil {
		return stored{}, err
	}
	if n, err := reference.ParseName(text); err == nil {
		for _, have := range list {
			if have.Name == n.String() {
				return stored{text, have.Name, have.Descriptor}, nil
			}
		}
	}
	root, err := st.Resolve(ctx, text)
	if err == nil {
		return stored{text: text, root: root}, nil
	}
	if !errors.Is(err, content.ErrNotFound) {
		return stored{}, err
	}
	root, err = e.byPrefix(ctx, st, list, text)
	if err != nil {
		return stored{}, err
	}
	return stored{text: text, root: root}, nil
}

// shortest is how many characters of a digest name an image at least.
const shortest = 2

// byPrefix finds the image of which a digest begins with prefix.
func (e *Engine) byPrefix(ctx context.Context, st *store.Store, list []store.Named, prefix string) (v1.Descriptor, error) {
	none := fmt.Errorf("image %s: %w in the store", prefix, content.ErrNotFound)
	hex := strings.TrimPrefix(prefix, "sha256:")
	if len(hex) < shortest || strings.Trim(hex, "0123456789abcdef") != "" {
		return v1.Descriptor{}, none
	}
	begins := func(d digest.Digest) bool { return strings.HasPrefix(d.Encoded(), hex) }
	var found []v1.Descriptor
	for _, n := range list {
		all, _, err := transfer.List(ctx, st, n.Descriptor, transfer.Options{Limits: e.limits.graph, Sparse: true})
		if err != nil {
			continue // a damaged image has no ID; fsck tells about it
		}
		hit := begins(n.Descriptor.Digest) || slices.ContainsFunc(all, func(d v1.Descriptor) bool {
			return (manifest.IsDocument(d.MediaType) || manifest.IsConfig(d.MediaType)) && begins(d.Digest)
		})
		if hit && !slices.ContainsFunc(found, func(d v1.Descriptor) bool { return d.Digest == n.Descriptor.Digest }) {
			found = append(found, n.Descriptor)
		}
	}
	switch len(found) {
	case 0:
		return v1.Descriptor{}, none
	case 1:
		return found[0], nil
	}
	return v1.Descriptor{}, fmt.Errorf("image %s is ambiguous: %d images have such an ID", prefix, len(found))
}

// ImageInfo tells about one name in the store, or one image without a name.
type ImageInfo struct {
	Name       string        `json:"name,omitempty"` // full; empty: none
	Repository string        `json:"repository,omitempty"`
	Tag        string        `json:"tag,omitempty"`
	ID         digest.Digest `json:"id,omitempty"` // of the configuration for this machine; empty for an artifact
	Digest     digest.Digest `json:"digest"`       // of the index or manifest
	MediaType  string        `json:"mediaType"`
	Platform   string        `json:"platform,omitempty"`
	Platforms  []string      `json:"platforms,omitempty"` // for which there are images in the store
	Created    *time.Time    `json:"created,omitempty"`
	Size       int64         `json:"size"` // bytes of all that is stored for it, compressed as it is
	Used       *time.Time    `json:"used,omitempty"`
	Containers []string      `json:"containers,omitempty"` // IDs of those made from it
	Error      string        `json:"error,omitempty"`      // why it cannot be read
}

// Images tells about everything that the store lists, by name.
func (e *Engine) Images(ctx context.Context) ([]ImageInfo, error) {
	st, err := e.imageStore()
	if err != nil {
		return nil, err
	}
	list, err := st.List(ctx)
	if err != nil {
		return nil, err
	}
	used, err := e.containersByImage()
	if err != nil {
		return nil, err
	}
	infos := make([]ImageInfo, 0, len(list))
	for _, n := range list {
		info := e.describe(ctx, st, n.Descriptor)
		info.setName(n.Name)
		if !n.Used.IsZero() {
			info.Used = &n.Used
		}
		info.Containers = used[n.Descriptor.Digest]
		infos = append(infos, info)
	}
	slices.SortStableFunc(infos, func(a, b ImageInfo) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

// setName takes a full name apart.
func (i *ImageInfo) setName(name string) {
	i.Name = name
	n, err := reference.ParseName(name)
	if err != nil {
		i.Repository = name // another tool's
		return
	}
	i.Repository, i.Tag = FamiliarName(n), n.Tag
}

// FamiliarName returns the repository as people write it: without docker.io and library.
func FamiliarName(n reference.Name) string {
	if n.Domain != "docker.io" {
		return n.Domain + "/" + n.Path
	}
	return strings.TrimPrefix(n.Path, "library/")
}

// Familiar returns a full name as people write it.
func Familiar(name string) string {
	n, err := reference.ParseName(name)
	if err != nil {
		return name
	}
	s := FamiliarName(n)
	if n.Tag != "" {
		s += ":" + n.Tag
	}
	if n.Digest != "" {
		s += "@" + n.Digest.String()
	}
	return s
}

// describe tells about the image below root, as far as it can be read.
func (e *Engine) describe(ctx context.Context, st *store.Store, root v1.Descriptor) ImageInfo {
	info := ImageInfo{Digest: root.Digest, MediaType: root.MediaType}
	all, _, err := transfer.List(ctx, st, root, transfer.Options{Limits: e.limits.graph, Sparse: true})
	if err != nil {
		info.Error = err.Error()
		return info
	}
	for _, d := range all {
		if f, err := st.Fetch(ctx, d, 0); err == nil {
			f.Close()
			info.Size += d.Size
		}
	}
	img, err := transfer.Choose(ctx, st, root, manifest.Host())
	if err != nil {
		img = firstImage(ctx, st, all)
	}
	if img != nil {
		info.ID, info.Created = img.Manifest.Config.Digest, img.Config.Created
		info.Platform = platformOf(img.Config)
	}
	for _, d := range all {
		if manifest.IsManifest(d.MediaType) && manifest.IsImage(d) {
			if one, err := transfer.Choose(ctx, st, d, anyPlatform(d)); err == nil {
				info.Platforms = append(info.Platforms, platformOf(one.Config))
			}
		}
	}
	slices.Sort(info.Platforms)
	info.Platforms = slices.Compact(info.Platforms)
	return info
}

// firstImage returns the first manifest's image in all, of whatever platform; nil if there is none.
func firstImage(ctx context.Context, src content.Fetcher, all []v1.Descriptor) *transfer.Image {
	for _, d := range all {
		if manifest.IsManifest(d.MediaType) && manifest.IsImage(d) {
			if img, err := transfer.Choose(ctx, src, d, anyPlatform(d)); err == nil {
				return img
			}
		}
	}
	return nil
}

// anyPlatform returns the platform that a descriptor says it is for, or this machine's.
func anyPlatform(d v1.Descriptor) manifest.Platform {
	if d.Platform != nil {
		if p, err := manifest.ParsePlatform(strings.TrimSuffix(d.Platform.OS+"/"+d.Platform.Architecture+"/"+d.Platform.Variant, "/")); err == nil {
			return p
		}
	}
	return manifest.Host()
}

// platformOf returns the platform that a configuration is for.
func platformOf(c v1.Image) string {
	return strings.TrimSuffix(c.OS+"/"+c.Architecture+"/"+c.Variant, "/")
}

// containersByImage returns the IDs of containers by the digest of what their image's name stood for.
func (e *Engine) containersByImage() (map[digest.Digest][]string, error) {
	list, err := e.List()
	if err != nil {
		return nil, err
	}
	by := map[digest.Digest][]string{}
	for _, c := range list {
		if c.ImageDigest != "" {
			by[c.ImageDigest] = append(by[c.ImageDigest], c.ID)
		}
	}
	return by, nil
}

// ImageNames returns the full names in the store.
func (e *Engine) ImageNames(ctx context.Context) ([]string, error) {
	st, err := e.imageStore()
	if err != nil {
		return nil, err
	}
	list, err := st.List(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range list {
		if n.Name != "" {
			names = append(names, n.Name)
		}
	}
	return names, nil
}
