package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/image/store"
)

// PushOptions says what to push. The zero value pushes everything that belongs to a name, or, of an index of which the store has
// one image only, that image.
type PushOptions struct {
	// Platforms: one is pushed without the index that lists it; of several the index is pushed as well, with its own bytes.
	Platforms        []manifest.Platform
	Sparse           bool // push the index even if images that it lists are missing
	Referrers        bool // push also what refers to the image, after it
	NonDistributable bool // push also layers whose licence forbids handing them on
	Jobs             int
	Report
}

// A Pushed image is in its registry.
type Pushed struct {
	Name   string        `json:"name"` // full
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"` // bytes of the index or manifest, as docker says it
	// Alone says that only the image for this platform was pushed, since the store does not have the others of its index.
	Alone string `json:"alone,omitempty"`
}

// Push sends the image that text names in the store to the registry that its name says.
func (e *Engine) Push(ctx context.Context, text string, o PushOptions) (*Pushed, error) {
	n, err := reference.ParseName(text)
	if err != nil {
		return nil, err
	}
	st, err := e.imageStore()
	if err != nil {
		return nil, err
	}
	lease, err := st.Lease(ctx, "push", "")
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	root, err := st.Resolve(ctx, n.String())
	if err != nil {
		return nil, err
	}
	if err := lease.Hold(ctx, root.Digest); err != nil {
		return nil, err
	}
	p := &Pushed{Name: n.String()}
	if root, p.Alone, err = e.whatToPush(ctx, st, root, &o); err != nil {
		return nil, fmt.Errorf("push %s: %w", n, err)
	}
	p.Digest, p.Size = root.Digest, root.Size
	reg, err := newRegistries(o.Warn, o.Trace)
	if err != nil {
		return nil, err
	}
	dst, err := reg.target(n)
	if err != nil {
		return nil, err
	}
	opts := transfer.Options{Limits: e.limits.graph, Platforms: o.Platforms, Sparse: o.Sparse, Referrers: o.Referrers,
		SkipNonDistributable: !o.NonDistributable, Jobs: o.Jobs, Progress: o.Progress, Elsewhere: e.elsewhere(ctx, st, reg, n)}
	if !manifest.IsIndex(root.MediaType) {
		opts.Platforms = nil
	}
	if err := transfer.Copy(reg.observe(ctx), st, dst, root, n.Tag, opts); err != nil {
		return nil, fmt.Errorf("push %s: %w", n, err)
	}
	return p, nil
}

// whatToPush returns the index or manifest to push. alone is its platform where that is less than the name stands for and
// nobody asked for less.
func (e *Engine) whatToPush(ctx context.Context, st *store.Store, root v1.Descriptor, o *PushOptions) (d v1.Descriptor, alone string, err error) {
	if len(o.Platforms) == 1 {
		img, err := transfer.Choose(ctx, st, root, o.Platforms[0])
		if err != nil {
			return d, "", err
		}
		return img.Path[len(img.Path)-1], "", nil
	}
	if !manifest.IsIndex(root.MediaType) || o.Sparse || len(o.Platforms) > 1 {
		return root, "", nil
	}
	_, _, err = transfer.List(ctx, st, root, transfer.Options{Limits: e.limits.graph})
	if !errors.Is(err, content.ErrNotFound) {
		return root, "", err
	}
	all, _, err := transfer.List(ctx, st, root, transfer.Options{Limits: e.limits.graph, Sparse: true})
	if err != nil {
		return d, "", err
	}
	var images []*transfer.Image
	for _, d := range all {
		if manifest.IsManifest(d.MediaType) && manifest.IsImage(d) {
			if img, err := transfer.Choose(ctx, st, d, anyPlatform(d)); err == nil {
				images = append(images, img)
			}
		}
	}
	if len(images) != 1 {
		return d, "", fmt.Errorf("the store has %d of the images that the index lists: --platform says which to push, --sparse pushes the index without the others, tare pull --all-platforms brings them", len(images))
	}
	return images[0].Path[len(images[0].Path)-1], platformOf(images[0].Config), nil
}
