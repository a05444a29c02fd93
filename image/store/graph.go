package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// Limits on the graph of the whole store. Every document is read once, however many paths lead to it and however deep it is
// (CVE-2026-53493), so that these only bound memory.
const (
	maxDocuments = 1 << 20 // indexes, manifests and configurations
	maxEdges     = 1 << 23 // references in them
)

// kind is as what something refers to a blob. A blob may be referred to as several: strangers write descriptors.
type kind string

const (
	kindIndex    kind = "index"
	kindManifest kind = "manifest"
	kindConfig   kind = "config"
	kindLayer    kind = "layer" // or any other blob
	kindUnpacked kind = "unpacked layer"
	kindUnknown  kind = "" // an index, a manifest or neither: its bytes tell
)

func kindOf(mediaType string) kind {
	switch {
	case manifest.IsIndex(mediaType):
		return kindIndex
	case manifest.IsManifest(mediaType):
		return kindManifest
	case manifest.IsConfig(mediaType):
		return kindConfig
	}
	return kindLayer
}

// node is a blob as something refers to it.
type node struct {
	digest digest.Digest
	kind   kind
}

// graph finds what refers to what. It is built by marking roots.
type graph struct {
	s      *Store
	marked map[node]bool
	edges  int
	docs   int

	configs   bool                     // follow configurations to the unpacked layers that they list
	referrers map[digest.Digest][]node // manifests by the subject that keeps them; nil: not looked for
	visit     func(from node, to node) // is called for every edge; may be nil
}

func newGraph(s *Store) *graph {
	return &graph{s: s, marked: map[node]bool{}}
}

// digests returns the blobs that are marked.
func (g *graph) digests() []digest.Digest {
	set := map[digest.Digest]bool{}
	for n := range g.marked {
		if n.kind != kindUnpacked {
			set[n.digest] = true
		}
	}
	return slices.Collect(maps.Keys(set))
}

// mark marks roots and all that they hold, directly or not. A document that is not there or is none holds nothing; one whose
// file is damaged is an error, since what it holds is not known.
func (g *graph) mark(roots ...node) error {
	todo := roots
	for _, n := range roots {
		g.marked[n] = true
	}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		refs, err := g.holds(n)
		if err != nil {
			return err
		}
		held := make([]node, 0, len(refs))
		for _, r := range refs {
			held = append(held, r.to)
		}
		if n.kind != kindUnpacked {
			held = append(held, g.referrers[n.digest]...)
		}
		if g.edges += len(held); g.edges > maxEdges {
			return fmt.Errorf("the manifests in the store have more than %d references, the limit", maxEdges)
		}
		for _, to := range held {
			if g.visit != nil {
				g.visit(n, to)
			}
			if !g.marked[to] {
				g.marked[to] = true
				todo = append(todo, to)
			}
		}
	}
	return nil
}

// holds returns what a blob refers to.
func (g *graph) holds(n node) ([]edge, error) {
	limit := int64(manifest.MaxManifest)
	switch {
	case n.kind == kindLayer || n.kind == kindUnpacked || n.kind == kindConfig && !g.configs:
		return nil, nil
	case n.kind == kindConfig:
		limit = manifest.MaxConfig
	}
	if g.docs++; g.docs > maxDocuments {
		return nil, fmt.Errorf("the store has more than %d manifests, the limit", maxDocuments)
	}
	if reference.CheckVerifiable(n.digest) != nil {
		return nil, nil // nobody can know what belongs there
	}
	if size, err := g.s.stat(n.digest); errors.Is(err, fs.ErrNotExist) || err == nil && size > limit {
		return nil, nil // not here: images are not always whole; or not a document
	} else if err != nil {
		return nil, err
	}
	raw, err := g.s.readDoc(n.digest, limit)
	if errors.Is(err, content.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return references(raw, n.kind), nil
}

// edge is what a document refers to.
type edge struct {
	to   node
	desc v1.Descriptor // of a blob; only the digest of an unpacked layer
}

func edgeTo(d v1.Descriptor) edge { return edge{node{d.Digest, kindOf(d.MediaType)}, d} }

// references returns what a document refers to, nothing if it is not what kind says.
func references(raw []byte, k kind) []edge {
	mediaType := sniff(raw)
	switch {
	case k == kindUnknown:
		k = kindOf(mediaType)
	case mediaType == "" && k == kindIndex:
		mediaType = v1.MediaTypeImageIndex
	case mediaType == "" && k == kindManifest:
		mediaType = v1.MediaTypeImageManifest
	}
	var held []edge
	switch k {
	case kindIndex:
		idx, err := manifest.ParseIndex(raw, mediaType)
		if err != nil {
			return nil
		}
		for _, d := range idx.Manifests {
			held = append(held, edgeTo(d))
		}
	case kindManifest:
		m, err := manifest.ParseManifest(raw, mediaType)
		if err != nil {
			return nil
		}
		held = append(held, edgeTo(m.Config))
		for _, d := range m.Layers {
			held = append(held, edgeTo(d))
		}
	case kindConfig:
		img, err := manifest.ParseConfig(raw)
		if err != nil {
			return nil
		}
		for _, d := range img.RootFS.DiffIDs {
			held = append(held, edge{node{d, kindUnpacked}, v1.Descriptor{Digest: d}})
		}
	}
	return held
}
