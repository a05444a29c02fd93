package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/image/archive"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/image/store"
)

// Save writes images of the store to w as one tar file, as archive.WriteSave does. An image that is given by a name is loaded by
// that name again.
func (e *Engine) Save(ctx context.Context, w io.Writer, images []string, o archive.SaveOptions) error {
	st, err := e.imageStore()
	if err != nil {
		return err
	}
	lease, err := st.Lease(ctx, "save", "")
	if err != nil {
		return err
	}
	defer lease.Release()
	var list []archive.SaveImage
	for _, text := range images {
		found, err := e.lookup(ctx, text)
		if err != nil {
			return err
		}
		if err := lease.Hold(ctx, found.root.Digest); err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(s archive.SaveImage) bool { return s.Descriptor.Digest == found.root.Digest })
		if i < 0 {
			i = len(list)
			list = append(list, archive.SaveImage{Source: st, Descriptor: found.root})
		}
		if found.name != "" && !slices.Contains(list[i].Names, found.name) {
			list[i].Names = append(list[i].Names, found.name)
		}
	}
	return archive.WriteSave(ctx, w, list, o)
}

// LoadOptions says how to load. The zero value loads everything and unpacks what this machine runs.
type LoadOptions struct {
	Platforms []manifest.Platform // of an index only the images for these; none: all that the file has
	NoUnpack  bool
	Report
}

// A Loaded image is in the store.
type Loaded struct {
	Name   string        `json:"name,omitempty"` // full; empty if it has none
	Digest digest.Digest `json:"digest"`
	ID     digest.Digest `json:"id,omitempty"` // of the configuration
}

// Load stores the images of a file: what docker save, podman save, tare save and ctr images export write, and OCI layouts in a
// tar file, compressed or not. Each image is stored whole or not at all, and verified.
func (e *Engine) Load(ctx context.Context, file string, o LoadOptions) ([]Loaded, error) {
	st, err := e.imageStore()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(file) // a path with a colon has no place in a Reference: a number has
	if err != nil {
		return nil, err
	}
	defer f.Close()
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	list, err := e.loadAll(ctx, st, reference.Reference{Transport: reference.OCIArchive, Path: path, Index: -1}, &o)
	if err == nil || ctx.Err() != nil {
		return list, err
	}
	// Not a layout, or one that some version of Docker has written with manifests that leave out layers.
	again, err2 := e.loadAll(ctx, st, reference.Reference{Transport: reference.DockerArchive, Path: path, Index: -1}, &o)
	if err2 == nil {
		return again, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = err2
	}
	if errors.Is(err2, fs.ErrNotExist) && errors.Is(err, fs.ErrNotExist) {
		err = errors.New("it is neither what docker save writes nor an OCI layout")
	}
	return nil, fmt.Errorf("load %s: %s", file, strings.ReplaceAll(err.Error(), path, file))
}

// loadAll loads all images of an archive.
func (e *Engine) loadAll(ctx context.Context, st *store.Store, ref reference.Reference, o *LoadOptions) ([]Loaded, error) {
	a, err := archive.Open(ref)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	entries, err := a.Entries()
	if err != nil {
		return nil, err
	}
	loaded := []Loaded{}
	seen := map[string]bool{}
	for _, entry := range entries {
		refs := [][2]string{} // the names that it gets, with what to resolve for each
		for _, unsafe := range entry.Names {
			if n, err := reference.ParseName(unsafe); err == nil && (strings.ContainsAny(unsafe, "/:") || ref.Transport == reference.DockerArchive) {
				refs = append(refs, [2]string{n.String(), unsafe})
			}
		}
		if len(refs) == 0 {
			refs = append(refs, [2]string{"", entry.Ref})
		}
		for _, r := range refs {
			name, at := r[0], r[1]
			if name != "" && seen[name] {
				continue
			}
			seen[name] = true
			one, err := e.loadOne(ctx, st, a, at, name, o)
			if err != nil {
				return nil, err
			}
			loaded = append(loaded, *one)
		}
	}
	return loaded, nil
}

func (e *Engine) loadOne(ctx context.Context, st *store.Store, a *archive.Archive, at, name string, o *LoadOptions) (*Loaded, error) {
	root, err := a.Resolve(ctx, at)
	if err != nil {
		return nil, err
	}
	root.Annotations = nil // those of index.json say how it is called there
	got, err := transfer.Pull(ctx, a, st, e.layers, root, transfer.PullOptions{Limits: e.limits.graph, Platforms: o.Platforms, All: len(o.Platforms) == 0, Sparse: true,
		NoUnpack: o.NoUnpack, Name: name, Progress: o.Progress})
	if err != nil {
		return nil, err
	}
	l := &Loaded{Name: name, Digest: root.Digest}
	if got.Image != nil {
		l.ID = got.Image.Manifest.Config.Digest
	} else if id := e.describe(ctx, st, v1.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size}).ID; id != "" {
		l.ID = id
	}
	return l, nil
}
