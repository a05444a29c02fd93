// Package transfer moves graphs of content, an image with everything that belongs to it, from one place to another without
// changing a byte: pull, push, copy, save and load are this one walk with different ends. What a stranger's documents refer to
// is walked with limits, each thing once, and what refers to something is written after it, names last: so what can be seen is
// whole, also after a failure.
package transfer

import (
	"context"
	"fmt"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
)

// DefaultJobs is how many blobs are moved side by side unless the caller says otherwise.
const DefaultJobs = 6

// Options says what of a graph is copied, and how. The zero value copies all of it.
type Options struct {
	// Platforms chooses images from indexes: of an index only the entries that lead to the best image for one of them are copied,
	// while the index keeps its bytes. None: every entry is copied.
	Platforms []manifest.Platform
	// Sparse leaves out what an index names and the source does not have.
	Sparse bool
	// Referrers copies also what refers to a copied manifest or index as its subject, if the source can list that.
	Referrers bool
	// SkipNonDistributable leaves out layers whose licence forbids handing them on: registries are not to be sent them.
	SkipNonDistributable bool
	// Elsewhere returns places, pointers, from which a Mounter may take a blob over: where it may be already, the likeliest first.
	// One at most is tried for each blob, and none that has only ever refused. Nil: only the source is tried. It is called from
	// several goroutines at once.
	Elsewhere func(d v1.Descriptor) []content.Fetcher

	Jobs     int         // blobs moved side by side; 0: DefaultJobs
	Limits   Limits      // of what the graph may ask for
	Progress func(Event) // told what happens; calls do not overlap; nil: nobody
}

// A Referrer lists the manifests whose subject is d. Sources that can do so have this method.
type Referrer interface {
	Referrers(ctx context.Context, d v1.Descriptor, artifactType string) ([]v1.Descriptor, error)
}

// A Mounter takes a blob over from src without the bytes passing through this process, if it can: false if it cannot, and the
// bytes have to be sent. Targets that can do so have this method.
type Mounter interface {
	MountFrom(ctx context.Context, d v1.Descriptor, src content.Fetcher) (bool, error)
}

// Copy copies the graph below root, a manifest or an index or any single blob, from src to dst, and gives it the name ref there
// unless ref is empty. What dst has already is not sent. If it fails, no name was changed in dst and nothing refers to what was
// written. It returns after everything that it started has ended.
func Copy(ctx context.Context, src content.Source, dst content.Target, root v1.Descriptor, ref string, o Options) error {
	lib := newLibrary(src, o.Limits)
	p, err := lib.plan(ctx, root, &o)
	if err != nil {
		return fmt.Errorf("copy %s: %w", root.Digest, err)
	}
	c := &copier{src: lib, dst: dst, o: &o, progress: newProgress(o.Progress)}
	if err := c.copy(ctx, p); err != nil {
		return err
	}
	if ref == "" {
		return nil
	}
	if err := dst.Tag(ctx, root, ref); err != nil {
		return fmt.Errorf("tag %s: %w", root.Digest, err)
	}
	return nil
}

// Limits of what one graph may ask for. A zero field means the default, a negative one no limit.
type Limits struct {
	Depth         int64 // documents from the root to a leaf; default 16
	Descriptors   int64 // different things in a graph; default 100000
	DocumentBytes int64 // all manifests, indexes and configurations; default 256 MiB
	TotalBytes    int64 // everything that is copied; default 1 TiB
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		value *int64
		def   int64
	}{{&l.Depth, 16}, {&l.Descriptors, 100_000}, {&l.DocumentBytes, 256 << 20}, {&l.TotalBytes, 1 << 40}} {
		if *f.value == 0 {
			*f.value = f.def
		} else if *f.value < 0 {
			*f.value = 1<<63 - 1
		}
	}
	return l
}

// A LimitError says that a graph exceeds a limit. Name is the field of Limits by which a caller who trusts the graph raises it.
type LimitError struct {
	Name string
	Max  int64
}

func (e *LimitError) Error() string {
	what := map[string]string{
		"Depth": "is deeper than %d documents", "Descriptors": "has more than %d parts",
		"DocumentBytes": "has more than %d bytes of manifests, indexes and configurations", "TotalBytes": "has more than %d bytes",
	}[e.Name]
	return fmt.Sprintf("the image "+what+"; to allow it raise the graph limit %s", e.Max, e.Name)
}

// List returns what Copy would copy: blobs, then manifests and indexes, each before what refers to it. Nothing but documents is
// read. sparse tells that an index names what is not in the list.
func List(ctx context.Context, src content.Source, root v1.Descriptor, o Options) (all []v1.Descriptor, sparse bool, err error) {
	p, err := newLibrary(src, o.Limits).plan(ctx, root, &o)
	if err != nil {
		return nil, false, err
	}
	all = p.blobs
	for _, level := range p.levels {
		all = append(all, level...)
	}
	return all, p.sparse, nil
}
