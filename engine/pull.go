package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/image/snapshot"
	"github.com/tare-oci/tare/image/store"
)

// A Report is where a command that moves images tells what happens. Fields that are nil tell nobody.
type Report struct {
	Progress func(transfer.Event) // calls do not overlap
	Warn     func(string)         // what a registry wants people to know; printable
	Trace    func(Trace)          // which endpoints are asked, and as whom
}

// PullOptions says what to pull. The zero value pulls what this machine runs, and unpacks it.
type PullOptions struct {
	Platforms []manifest.Platform // none: this machine's
	All       bool                // images for every platform
	Referrers bool                // signatures and whatever else refers to the image
	NoUnpack  bool
	Jobs      int // blobs side by side; 0: transfer.DefaultJobs
	Report
}

// A Pulled image is in the store.
type Pulled struct {
	Name     string        `json:"name"` // full
	Digest   digest.Digest `json:"digest"`
	ID       digest.Digest `json:"id,omitempty"` // of the configuration; empty for an artifact
	Platform string        `json:"platform,omitempty"`
	Changed  bool          `json:"changed"` // the name stood for something else, or nothing, before
}

// Pull brings the image that name (with or without docker://) stands for in its registry into the store.
func (e *Engine) Pull(ctx context.Context, name string, o PullOptions) (*Pulled, error) {
	n, err := reference.ParseName(strings.TrimPrefix(name, "docker://"))
	if err != nil {
		return nil, err
	}
	reg, err := newRegistries(o.Warn, o.Trace)
	if err != nil {
		return nil, err
	}
	src, err := reg.source(n)
	if err != nil {
		return nil, err
	}
	ctx = reg.observe(ctx)
	root, err := resolveAt(ctx, src, n)
	if err != nil {
		return nil, err
	}
	st, err := e.imageStore()
	if err != nil {
		return nil, err
	}
	before, err := st.Resolve(ctx, n.String())
	if err != nil && !errors.Is(err, content.ErrNotFound) {
		return nil, err
	}
	got, err := transfer.Pull(ctx, src, st, e.layers, root, transfer.PullOptions{Limits: e.limits.graph, Platforms: o.Platforms, All: o.All, Referrers: o.Referrers,
		NoUnpack: o.NoUnpack, Jobs: o.Jobs, Name: n.String(), Progress: o.Progress})
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", n, err)
	}
	p := &Pulled{Name: n.String(), Digest: root.Digest, Changed: before.Digest != root.Digest}
	if got.Image != nil {
		p.ID, p.Platform = got.Image.Manifest.Config.Digest, platformOf(got.Image.Config)
	}
	return p, nil
}

// PullPolicy says when Run asks the registry.
type PullPolicy string

// The policies. The empty one is PullMissing.
const (
	PullMissing PullPolicy = "missing" // when the image is not in the store
	PullAlways  PullPolicy = "always"
	PullNever   PullPolicy = "never"
)

// storeImage finds what a container of the image text needs to know, in the store, and pulls it first if policy says so.
func (e *Engine) storeImage(ctx context.Context, text string, o *RunOptions) (*image, error) {
	p := manifest.Host()
	if o.Platform != nil {
		p = *o.Platform
	}
	var img *image
	var err error
	if o.Pull != PullAlways {
		img, err = e.chosen(ctx, text, p)
		if err == nil || !errors.Is(err, content.ErrNotFound) {
			return img, err
		}
		if o.Pull == PullNever {
			return nil, fmt.Errorf("%w (--pull never keeps it from being pulled)", err)
		}
	}
	if err != nil && (strings.HasPrefix(text, "sha256:") || strings.HasPrefix(text, "sha512:")) {
		return nil, err // the ID of an image is no name that a registry knows
	}
	if _, err := e.Pull(ctx, text, PullOptions{Platforms: []manifest.Platform{p}, Report: o.Report}); err != nil {
		return nil, err
	}
	return e.chosen(ctx, text, p)
}

// chosen finds the image for p that text names in the store.
func (e *Engine) chosen(ctx context.Context, text string, p manifest.Platform) (*image, error) {
	found, err := e.lookup(ctx, text)
	if err != nil {
		return nil, err
	}
	st, err := e.imageStore()
	if err != nil {
		return nil, err
	}
	got, err := transfer.Choose(ctx, st, found.root, p)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", text, err)
	}
	img := &image{ID: got.Manifest.Config.Digest.String(), Config: got.Config, DiffIDs: got.Config.RootFS.DiffIDs, name: found.name, root: found.root.Digest}
	img.layers = layersOf(ctx, st, got)
	return img, nil
}

// layersOf returns what unpacks the layers of an image in the store, if they are not.
func layersOf(ctx context.Context, st *store.Store, img *transfer.Image) []snapshot.Layer {
	layers := []snapshot.Layer{}
	for i, d := range img.Manifest.Layers {
		layers = append(layers, snapshot.Layer{DiffID: img.Config.RootFS.DiffIDs[i], Digest: d.Digest,
			Open: func() (io.ReadCloser, error) { return verified(ctx, st, d) }})
	}
	return layers
}

// verified opens a blob whose reader ends only if it is what d says.
func verified(ctx context.Context, src content.Fetcher, d v1.Descriptor) (io.ReadCloser, error) {
	r, err := src.Fetch(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	checked, err := content.Verify(r, d)
	if err != nil {
		r.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{checked, r}, nil
}
