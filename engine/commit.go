package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/image/diff"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/image/snapshot"
	"github.com/tare-oci/tare/image/store"
	"github.com/tare-oci/tare/internal/sys/mount"
)

// container finds a container and the root file system below what it has written. The caller closes the latter.
func (e *Engine) container(ctx context.Context, text string) (*Container, *snapshot.Rootfs, error) {
	id, err := e.find(text)
	if err != nil {
		return nil, nil, err
	}
	c, err := e.load(id)
	if err != nil {
		return nil, nil, err
	}
	layers := make([]snapshot.Layer, len(c.record.Layers))
	for i, d := range c.record.Layers {
		layers[i].DiffID = d
	}
	if c.record.ImageDigest != "" {
		st, d, err := e.manifestOf(ctx, c)
		if err != nil {
			return nil, nil, err
		}
		img, err := transfer.Choose(ctx, st, d, anyPlatform(d))
		if err != nil {
			return nil, nil, err
		}
		layers = layersOf(ctx, st, img)
	}
	rootfs, err := e.layers.Image(ctx, layers)
	return c, rootfs, err
}

// manifestOf returns the manifest of the image that a container was made from.
func (e *Engine) manifestOf(ctx context.Context, c *Container) (*store.Store, v1.Descriptor, error) {
	st, err := e.imageStore()
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	if c.record.ImageDigest == "" {
		return nil, v1.Descriptor{}, fmt.Errorf("container %.12s was made from an image in a file: copy that into the store (tare copy), and make the container from there", c.record.ID)
	}
	root, err := st.Resolve(ctx, c.record.ImageDigest.String())
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	all, _, err := transfer.List(ctx, st, root, transfer.Options{Limits: e.limits.graph, Sparse: true})
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	for _, d := range all {
		if !manifest.IsManifest(d.MediaType) {
			continue
		}
		if img, err := transfer.Choose(ctx, st, d, anyPlatform(d)); err == nil && img.Manifest.Config.Digest.String() == c.record.ImageID {
			if d.Platform == nil {
				p := img.Config.Platform
				d.Platform = &p
			}
			return st, d, nil
		}
	}
	return nil, v1.Descriptor{}, fmt.Errorf("container %.12s: its image %.19s is not in the store any more", c.record.ID, c.record.ImageID)
}

// copies reports whether a container's files are a copy of its image's, for want of overlayfs.
func (e *Engine) copies() bool { return e.layers.Driver() == snapshot.Copy }

// input opens what a container has written, and what is below it.
func (c *Container) input(rootfs *snapshot.Rootfs) (diff.Input, func(), error) {
	mounts, err := c.mountPoints()
	if err != nil {
		return diff.Input{}, nil, err
	}
	in := diff.Input{Overlay: true, UserXattr: os.Geteuid() != 0, MountPoints: mounts}
	if c.engine.copies() {
		return in, nil, errors.New("tell what a container has changed: not supported yet where there is no overlayfs")
	}
	closeAll := func() {
		for _, f := range append(in.Lower, in.Upper) {
			f.Close()
		}
	}
	if in.Upper, err = os.Open(c.path("upper")); err != nil {
		return in, func() {}, err
	}
	in.Lower = []*os.File{}
	for _, dir := range rootfs.Lower {
		f, err := os.Open(dir)
		if err != nil {
			closeAll()
			return in, func() {}, err
		}
		in.Lower = append(in.Lower, f)
	}
	return in, closeAll, nil
}

// mountPoints returns where things were mounted in the container's root, as its bundle says.
func (c *Container) mountPoints() ([]string, error) {
	data, err := os.ReadFile(c.path("config.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // it never got so far
	}
	if err != nil {
		return nil, err
	}
	var spec struct {
		Mounts []struct {
			Destination string `json:"destination"`
		} `json:"mounts"`
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("read config.json of container %.12s: %w", c.record.ID, err)
	}
	var points []string
	for _, m := range spec.Mounts {
		points = append(points, strings.TrimPrefix(filepath.Clean("/"+m.Destination), "/"))
	}
	return points, nil
}

// Diff tells what a container has changed in its files.
func (e *Engine) Diff(ctx context.Context, text string) ([]diff.Change, error) {
	c, rootfs, err := e.container(ctx, text)
	if err != nil {
		return nil, err
	}
	defer rootfs.Close()
	in, done, err := c.input(rootfs)
	if err != nil {
		return nil, err
	}
	defer done()
	return diff.Changes(ctx, in)
}

// DiffImages tells why two images, in the store or at places, differ.
func (e *Engine) DiffImages(ctx context.Context, a, b string, r Report) ([]mutate.Difference, error) {
	var sides [2]mutate.Side
	for i, text := range []string{a, b} {
		src, root, err := e.open(ctx, text, r)
		if err != nil {
			return nil, err
		}
		defer src.close()
		sides[i] = mutate.Side{Source: src, Descriptor: root}
	}
	return mutate.Explain(ctx, sides[0], sides[1])
}

// Commit makes an image of a container: its image's layers and a new one with what it has changed. name may be empty. It returns
// the digest of the new manifest and the ID of the image. A container that runs goes on: a file that changes while it is read is
// an error, or has what it had at some moment.
func (e *Engine) Commit(ctx context.Context, text, name string, o mutate.Options) (d, id digest.Digest, err error) {
	if name != "" {
		if _, err := reference.ParseName(name); err != nil {
			return "", "", err
		}
	}
	c, rootfs, err := e.container(ctx, text)
	if err != nil {
		return "", "", err
	}
	defer rootfs.Close()
	st, base, err := e.manifestOf(ctx, c)
	if err != nil {
		return "", "", err
	}
	img, err := mutate.Open(ctx, st, base)
	if err != nil {
		return "", "", err
	}
	in, done, err := c.input(rootfs)
	if err != nil {
		return "", "", err
	}
	defer done()
	if o.CreatedBy == "" && len(c.record.Args) > 0 {
		o.CreatedBy = fmt.Sprint(c.record.Args)
	}
	return e.make(ctx, st, name, func(ctx context.Context) (made v1.Descriptor, err error) {
		made, _, err = mutate.Commit(ctx, st, img, in, o)
		return made, err
	})
}

// make stores a new image and gives it a name; what do stores is held until then.
func (e *Engine) make(ctx context.Context, st *store.Store, name string, do func(context.Context) (v1.Descriptor, error)) (d, id digest.Digest, err error) {
	lease, err := st.Lease(ctx, "make", "")
	if err != nil {
		return "", "", err
	}
	defer lease.Release()
	ctx = store.WithLease(ctx, lease)
	made, err := do(ctx)
	if err != nil {
		return "", "", err
	}
	if err := st.Tag(ctx, made, name); err != nil {
		return "", "", err
	}
	return made.Digest, e.describe(ctx, st, made).ID, nil
}

// Import makes an image of a tar file with the files of a root file system, compressed or not.
func (e *Engine) Import(ctx context.Context, r io.Reader, name string, p manifest.Platform, o mutate.Options) (d, id digest.Digest, err error) {
	if name != "" {
		if _, err := reference.ParseName(name); err != nil {
			return "", "", err
		}
	}
	st, err := e.imageStore()
	if err != nil {
		return "", "", err
	}
	return e.make(ctx, st, name, func(ctx context.Context) (v1.Descriptor, error) {
		return mutate.Import(ctx, st, r, v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}, o)
	})
}

// Export writes the files of a container as they are now to w, as one tar file. The calling goroutine stays locked to its thread.
func (e *Engine) Export(ctx context.Context, text string, w io.Writer, o diff.ExportOptions) (diff.Layer, error) {
	if os.Geteuid() != 0 {
		return diff.Layer{}, errors.New("export containers as another user than root: not supported yet; use sudo")
	}
	c, rootfs, err := e.container(ctx, text)
	if err != nil {
		return diff.Layer{}, err
	}
	defer rootfs.Close()
	runtime.LockOSThread()
	if err := mount.Private(); err != nil {
		return diff.Layer{}, err
	}
	target, err := os.MkdirTemp("", "tare-export-")
	if err != nil {
		return diff.Layer{}, err
	}
	defer os.Remove(target)
	lower := append([]string{c.path("upper")}, rootfs.Lower...)
	if e.copies() {
		lower = lower[:1] // which is everything
	}
	if err := mount.ReadOnly(lower, target, false); err != nil {
		return diff.Layer{}, err
	}
	defer mount.Detach(target) //nolint:errcheck // the thread's mounts end with it
	root, err := os.Open(target)
	if err != nil {
		return diff.Layer{}, err
	}
	defer root.Close()
	return diff.Export(ctx, w, root, o)
}
