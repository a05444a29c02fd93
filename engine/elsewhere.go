package engine

import (
	"context"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/client"
	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/image/store"
)

// Bounds on the search for repositories that have a blob already.
const (
	maxElsewhereNames = 1000 // of the store, the most recently used
	maxElsewhere      = 4    // repositories for one blob
)

// elsewhere knows in which repositories of one registry a blob may be already: in those of the store's other names.
type elsewhere struct {
	e   *Engine
	st  *store.Store
	reg *registries
	n   reference.Name // that is pushed to

	once sync.Once
	has  map[digest.Digest][]content.Fetcher
}

// elsewhere returns what transfer.Options.Elsewhere wants for a push from the store to n. Nothing is read until it is asked.
func (e *Engine) elsewhere(ctx context.Context, st *store.Store, reg *registries, n reference.Name) func(v1.Descriptor) []content.Fetcher {
	w := &elsewhere{e: e, st: st, reg: reg, n: n, has: map[digest.Digest][]content.Fetcher{}}
	return func(d v1.Descriptor) []content.Fetcher {
		w.once.Do(func() { w.find(ctx) })
		return w.has[d.Digest]
	}
}

// find looks at the names of the same registry; those of others are none of its business. What cannot be read is no reason to
// fail: the push only is longer.
func (w *elsewhere) find(ctx context.Context) {
	list, err := w.st.List(ctx)
	if err != nil {
		return
	}
	slices.SortStableFunc(list, func(a, b store.Named) int { return b.Used.Compare(a.Used) })
	repositories := map[string]*client.Repository{}
	looked := 0
	for _, named := range list {
		n, err := reference.ParseName(named.Name)
		if err != nil || n.Domain != w.n.Domain || n.Path == w.n.Path {
			continue
		}
		if looked++; looked > maxElsewhereNames {
			return
		}
		repo, ok := repositories[n.Path]
		if !ok {
			if ep, err := w.reg.targetOf(n); err == nil {
				repo, _ = w.reg.repository(*ep)
			}
			repositories[n.Path] = repo
		}
		if repo != nil {
			w.note(ctx, named.Descriptor, repo)
		}
	}
}

// note notes that repo may have what the image below root consists of.
func (w *elsewhere) note(ctx context.Context, root v1.Descriptor, repo *client.Repository) {
	all, _, err := transfer.List(ctx, w.st, root, transfer.Options{Limits: w.e.limits.graph, Sparse: true})
	if err != nil {
		return
	}
	for _, d := range all {
		if have := w.has[d.Digest]; len(have) < maxElsewhere && !slices.Contains(have, content.Fetcher(repo)) {
			w.has[d.Digest] = append(have, repo)
		}
	}
}
