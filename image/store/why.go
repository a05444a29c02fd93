package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// Step is one part of a path from what holds content to the content.
type Step struct {
	// Kind is "name", "entry" (of index.json, without a name) or "lease" in the first step, then "index", "manifest",
	// "referrer" (a manifest whose subject the step before is), "config", "layer" (any other blob) or "unpacked layer".
	Kind   string
	Name   string        // of a name, or KIND ID of a lease
	Digest digest.Digest // of a blob or an unpacked layer; empty in the first step
}

// maxPaths is how many paths Why returns.
const maxPaths = 1000

// Why returns for every name, entry and lease that holds d, a blob or the diff ID of an unpacked layer, the shortest path from
// there to d; at most 1000 of them. No path: d is garbage, or not there.
func (s *Store) Why(ctx context.Context, d digest.Digest) ([][]Step, error) {
	if err := reference.CheckDigest(d); err != nil {
		return nil, err
	}
	list, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	leases, err := s.Leases(ctx)
	if err != nil {
		return nil, err
	}
	g := newGraph(s)
	g.configs = true
	w := why{holders: map[node][]node{}, refers: map[[2]node]bool{}}
	g.visit = func(from, to node) { w.holders[to] = append(w.holders[to], from) }
	// Leases hold digests of which it is not known what they are; these are nodes of kindUnknown beside those of names.
	roots := map[node][]Step{}
	add := func(n node, step Step) { roots[n] = append(roots[n], step) }
	for _, n := range list {
		step := Step{Kind: "name", Name: n.Name}
		if n.Name == "" {
			step.Kind = "entry"
		}
		add(node{n.Descriptor.Digest, kindOf(n.Descriptor.MediaType)}, step)
	}
	for _, l := range leases {
		for _, held := range l.Digests {
			add(node{held, kindUnknown}, Step{Kind: "lease", Name: l.Kind + " " + l.ID})
		}
		for _, held := range l.Layers {
			add(node{held, kindUnpacked}, Step{Kind: "lease", Name: l.Kind + " " + l.ID})
		}
	}
	nodes := make([]node, 0, len(roots))
	for n := range roots {
		nodes = append(nodes, n)
	}
	if err := g.mark(nodes...); err != nil {
		return nil, fmt.Errorf("why %s: %w", d, err)
	}
	g.visit = func(from, to node) {
		w.holders[to] = append(w.holders[to], from)
		if slices.Contains(g.referrers[from.digest], to) {
			w.refers[[2]node{from, to}] = true
		}
	}
	if err := g.markReferrers(ctx); err != nil {
		return nil, fmt.Errorf("why %s: %w", d, err)
	}
	return w.paths(g, roots, d), nil
}

type why struct {
	holders map[node][]node
	refers  map[[2]node]bool // edges from a subject to its referrer
}

// paths goes from d up to the roots, breadth first, so that the first path found to a root is a shortest one.
func (w *why) paths(g *graph, roots map[node][]Step, d digest.Digest) [][]Step {
	down := map[node]node{} // the next node on the way to d
	var todo []node
	for _, k := range []kind{kindIndex, kindManifest, kindConfig, kindLayer, kindUnpacked, kindUnknown} {
		if n := (node{d, k}); g.marked[n] {
			todo = append(todo, n)
			down[n] = n
		}
	}
	var paths [][]Step
	for ; len(todo) > 0 && len(paths) < maxPaths; todo = todo[1:] {
		n := todo[0]
		for _, first := range roots[n] {
			path := append([]Step{first}, w.steps(g, down, n)...)
			// A lease that holds several digests on one path holds d by the nearest.
			if !slices.ContainsFunc(paths, func(p []Step) bool { return p[0] == first && first.Name != "" }) {
				paths = append(paths, path)
			}
		}
		for _, up := range w.holders[n] {
			if _, seen := down[up]; !seen {
				down[up] = n
				todo = append(todo, up)
			}
		}
	}
	return paths[:min(len(paths), maxPaths)]
}

// steps writes down the way from n.
func (w *why) steps(g *graph, down map[node]node, n node) []Step {
	var steps []Step
	for from := (node{}); ; from, n = n, down[n] {
		k := n.kind
		if k == kindUnknown {
			k = kindLayer
			if raw, err := g.s.readDoc(n.digest, manifest.MaxManifest); err == nil {
				if doc, ok := parseDocument(raw); ok {
					k = doc.kind()
				}
			}
		}
		step := Step{Kind: string(k), Digest: n.digest}
		if w.refers[[2]node{from, n}] {
			step.Kind = "referrer"
		}
		steps = append(steps, step)
		if down[n] == n {
			return steps
		}
	}
}
