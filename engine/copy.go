package engine

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/image/archive"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/image/store"
)

// CopyOptions says what to copy. The zero value copies everything.
type CopyOptions struct {
	Platforms        []manifest.Platform // of an index only the images for these; the index keeps its bytes
	NoIndex          bool                // copy one image, for Platforms[0] or this machine, without the index that lists it
	Sparse           bool                // leave out what the source does not have
	Referrers        bool
	NonDistributable bool // to registries also layers whose licence forbids handing them on
	Jobs             int
	Report
}

// A Copied image is at its new place.
type Copied struct {
	Source string        `json:"source"`
	Target string        `json:"target"`
	Digest digest.Digest `json:"digest"`
}

// Copy copies an image from any place to any other, without changing a byte. from and to are as reference.Parse reads them.
func (e *Engine) Copy(ctx context.Context, from, to string, o CopyOptions) (*Copied, error) {
	target, err := reference.Parse(to)
	if err != nil {
		return nil, err
	}
	reg, err := newRegistries(o.Warn, o.Trace)
	if err != nil {
		return nil, err
	}
	ctx = reg.observe(ctx)
	src, root, err := e.source(ctx, from, reg)
	if err != nil {
		return nil, err
	}
	defer src.close()
	if o.NoIndex && manifest.IsIndex(root.MediaType) {
		p := manifest.Host()
		if len(o.Platforms) > 0 {
			p = o.Platforms[0]
		}
		img, err := transfer.Choose(ctx, src, root, p)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", from, err)
		}
		root, o.Platforms = img.Path[len(img.Path)-1], nil
	}
	if err := e.copyTo(ctx, src, root, target, reg, &o); err != nil {
		return nil, fmt.Errorf("copy %s to %s: %w", from, target, err)
	}
	return &Copied{Source: from, Target: target.String(), Digest: root.Digest}, nil
}

// A place is where an image comes from.
type place struct {
	content.Source
	close func()
}

// source opens the place that an image comes from, and finds the image there.
func (e *Engine) source(ctx context.Context, text string, reg *registries) (*place, v1.Descriptor, error) {
	ref, err := reference.Parse(text)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	nothing := func() {}
	switch ref.Transport {
	case reference.Docker:
		n, err := reference.ParseName(ref.Name)
		if err != nil {
			return nil, v1.Descriptor{}, err
		}
		src, err := reg.source(n)
		if err != nil {
			return nil, v1.Descriptor{}, err
		}
		root, err := resolveAt(ctx, src, n)
		return &place{src, nothing}, root, err
	case reference.Store:
		found, err := e.lookup(ctx, ref.Name)
		if err != nil {
			return nil, v1.Descriptor{}, err
		}
		st, err := e.imageStore()
		return &place{st, nothing}, found.root, err
	}
	a, err := archive.Open(ref)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	root, err := a.Resolve(ctx, "")
	if err != nil {
		a.Close()
		return nil, v1.Descriptor{}, err
	}
	return &place{a, func() { a.Close() }}, root, nil
}

// copyTo copies what is below root to its place.
func (e *Engine) copyTo(ctx context.Context, src content.Source, root v1.Descriptor, to reference.Reference, reg *registries, o *CopyOptions) error {
	opts := transfer.Options{Limits: e.limits.graph, Platforms: o.Platforms, Sparse: o.Sparse, Referrers: o.Referrers, Jobs: o.Jobs, Progress: o.Progress}
	if !manifest.IsIndex(root.MediaType) {
		opts.Platforms = nil
	}
	switch to.Transport {
	case reference.Docker:
		n, err := reference.ParseName(to.Name)
		if err != nil {
			return err
		}
		if n.Digest != "" && n.Digest != root.Digest {
			return fmt.Errorf("the image has digest %s, which the name %s contradicts", root.Digest, n)
		}
		dst, err := reg.target(n)
		if err != nil {
			return err
		}
		opts.SkipNonDistributable = !o.NonDistributable
		if st, ok := unwrap(src).(*store.Store); ok {
			opts.Elsewhere = e.elsewhere(ctx, st, reg, n)
		}
		return transfer.Copy(ctx, unwrap(src), dst, root, n.Tag, opts)
	case reference.Store:
		return e.copyToStore(ctx, src, root, to.Name, o)
	}
	dst, err := archive.Create(to, archive.CreateOptions{})
	if err != nil {
		return err
	}
	defer dst.Abort()
	if err := transfer.Copy(ctx, unwrap(src), dst, root, "", opts); err != nil {
		return err
	}
	if err := dst.Tag(ctx, root, ""); err != nil {
		return err
	}
	return dst.Close()
}

// unwrap returns the source itself, by which a target knows whether it can take something over.
func unwrap(src content.Source) content.Source {
	if p, ok := src.(*place); ok {
		return p.Source
	}
	return src
}

func (e *Engine) copyToStore(ctx context.Context, src content.Source, root v1.Descriptor, name string, o *CopyOptions) error {
	st, err := e.imageStore()
	if err != nil {
		return err
	}
	opts := transfer.PullOptions{Limits: e.limits.graph, Platforms: o.Platforms, All: len(o.Platforms) == 0, Sparse: o.Sparse, Referrers: o.Referrers, NoUnpack: true,
		Name: name, Jobs: o.Jobs, Progress: o.Progress}
	_, err = transfer.Pull(ctx, unwrap(src), st, e.layers, root, opts)
	return err
}
