package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/store"
)

// Tag makes name another name of the image that text stands for.
func (e *Engine) Tag(ctx context.Context, text, name string) error {
	found, err := e.lookup(ctx, text)
	if err != nil {
		return err
	}
	st, err := e.imageStore()
	if err != nil {
		return err
	}
	return st.Tag(ctx, found.root, name)
}

// A Removal is what a removal or a prune has done, or would do.
type Removal struct {
	Untagged []string        `json:"untagged"`
	Deleted  []digest.Digest `json:"deleted"` // blobs
	Layers   []digest.Digest `json:"layers"`  // unpacked layers, by diff ID
	Bytes    int64           `json:"bytes"`   // that became free
	// InUse counts unpacked layers that were to go and are in use by somebody whom the store does not know.
	InUse int `json:"inUse,omitempty"`
}

// RemoveImage takes a name away from an image, or all its names if text is an ID or a digest, and removes what nothing else
// holds. An image that a container was made from keeps its last name unless force; what a container needs stays then, too.
func (e *Engine) RemoveImage(ctx context.Context, text string, force bool) (*Removal, error) {
	found, err := e.lookup(ctx, text)
	if err != nil {
		return nil, err
	}
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
		if n.Descriptor.Digest == found.root.Digest {
			names = append(names, n.Name)
		}
	}
	if found.name != "" {
		if len(names) > 1 {
			names = []string{found.name}
			return e.untag(ctx, st, found, names)
		}
	} else if len(names) > 1 && !force {
		return nil, fmt.Errorf("image %s has %d names: remove them by name, or all with --force", text, len(names))
	}
	if err := e.checkUnused(text, found.root.Digest, force); err != nil {
		return nil, err
	}
	return e.untag(ctx, st, found, names)
}

// checkUnused returns an error if a container was made from the image.
func (e *Engine) checkUnused(text string, root digest.Digest, force bool) error {
	if force {
		return nil
	}
	list, err := e.List()
	if err != nil {
		return err
	}
	for _, c := range list {
		if c.ImageDigest == root {
			return fmt.Errorf("image %s is used by container %s, which is %s: remove that first (tare rm), or use --force", text, c.Name, c.State)
		}
	}
	return nil
}

func (e *Engine) untag(ctx context.Context, st *store.Store, found stored, names []string) (*Removal, error) {
	var untagged []string
	for _, name := range names {
		what := name
		if name == "" {
			what = found.root.Digest.String()
		} else {
			untagged = append(untagged, name)
		}
		if _, err := st.Untag(ctx, what); err != nil {
			return nil, err
		}
	}
	r, err := e.PruneImages(ctx, PruneImagesOptions{keepUnnamed: true})
	if err != nil {
		return nil, err
	}
	r.Untagged = untagged
	return r, nil
}

// PruneImagesOptions says what PruneImages removes besides what nothing holds.
type PruneImagesOptions struct {
	All    bool          // images with names, too, that no container was made from
	Unused time.Duration // with All: only those that were not used for so long
	DryRun bool          // remove nothing, and tell exactly what would go

	keepUnnamed bool // entries without a name stay, though they are for nobody
}

// PruneImages removes images without a name, what no image needs, and unpacked layers of neither.
func (e *Engine) PruneImages(ctx context.Context, o PruneImagesOptions) (*Removal, error) {
	st, err := e.imageStore()
	if err != nil {
		return nil, err
	}
	if err := e.dropLeases(ctx); err != nil {
		return nil, err
	}
	var r Removal
	opts := store.PruneOptions{DryRun: o.DryRun, All: o.All, Unnamed: !o.keepUnnamed,
		Layers: func(ctx context.Context, held map[digest.Digest]bool, dryRun bool) error {
			gone, err := e.layers.Prune(ctx, func(d digest.Digest) bool { return held[d] }, dryRun)
			r.Layers, r.InUse = gone.DiffIDs, gone.Kept
			r.Bytes += gone.Bytes
			return err
		}}
	if o.Unused > 0 {
		opts.UnusedSince = time.Now().Add(-o.Unused)
	}
	report, err := st.Prune(ctx, opts)
	if err != nil {
		return nil, err
	}
	for _, n := range report.Untagged {
		r.Untagged = append(r.Untagged, n.Name)
	}
	for _, d := range report.Blobs {
		r.Deleted = append(r.Deleted, d.Digest)
	}
	slices.Sort(r.Untagged)
	r.Bytes += report.Bytes
	return &r, nil
}

// Why says what holds a blob, or an unpacked layer by its diff ID: the shortest path from every name, lease and container. text
// is a digest, or the beginning of one of something that an image in the store has.
func (e *Engine) Why(ctx context.Context, text string) (digest.Digest, [][]store.Step, error) {
	st, err := e.imageStore()
	if err != nil {
		return "", nil, err
	}
	d := digest.Digest(text)
	if d.Validate() != nil {
		found, err := e.lookup(ctx, text)
		if err != nil {
			return "", nil, fmt.Errorf("why %s: want a digest, a name or an ID: %w", text, err)
		}
		d = found.root.Digest
	}
	paths, err := st.Why(ctx, d)
	return d, paths, err
}

// errNoRegistry says that a damaged blob belongs to no name that says where to get it.
var errNoRegistry = errors.New("no name of the image says which registry has it")
