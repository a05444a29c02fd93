package store

import (
	"bytes"
	"encoding/json"
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
	pending := roots
	for _, n := range roots {
		g.marked[n] = true
	}
	for len(pending) > 0 {
		n := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
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
				pending = append(pending, to)
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

// document is what the graph needs to know of an index or a manifest. It is read less strictly than by who uses it: what holds
// too much is safe, and it is read often.
type document struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
	Config        *descriptor  `json:"config"`
	Layers        []descriptor `json:"layers"`
	Subject       *descriptor  `json:"subject"`
}

type descriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
	URLs      []string      `json:"urls"`
}

// parseDocument reads an index or a manifest, false for anything else.
func parseDocument(raw []byte) (document, bool) {
	var doc document
	if trimmed := bytes.TrimLeft(raw, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return doc, false
	}
	if json.Unmarshal(raw, &doc) != nil || doc.SchemaVersion != 2 {
		return doc, false
	}
	return doc, doc.kind() != kindUnknown
}

// kind tells what a document is by what it says of itself, kindUnknown if it says something else.
func (doc *document) kind() kind {
	switch {
	case isDocument(doc.MediaType):
		return kindOf(doc.MediaType)
	case doc.MediaType != "":
		return kindUnknown
	case doc.Manifests != nil:
		return kindIndex
	case doc.Config != nil:
		return kindManifest
	}
	return kindUnknown
}

// mediaType returns the media type of a document that nothing describes.
func (doc *document) mediaType() string {
	switch {
	case doc.MediaType != "":
		return doc.MediaType
	case doc.kind() == kindIndex:
		return v1.MediaTypeImageIndex
	}
	return v1.MediaTypeImageManifest
}

// edges returns what a document refers to, its subject excepted.
func (doc *document) edges() []edge {
	list := make([]edge, 0, len(doc.Manifests)+len(doc.Layers)+1)
	add := func(d descriptor) {
		if reference.CheckDigest(d.Digest) == nil {
			list = append(list, edgeTo(v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, URLs: d.URLs}))
		}
	}
	for _, d := range doc.Manifests {
		add(d)
	}
	if doc.Config != nil {
		add(*doc.Config)
	}
	for _, d := range doc.Layers {
		add(d)
	}
	return list
}

// references returns what a document or a configuration refers to, nothing if it is neither.
func references(raw []byte, k kind) []edge {
	if k != kindConfig {
		doc, ok := parseDocument(raw)
		if !ok {
			return nil
		}
		return doc.edges()
	}
	var config struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if json.Unmarshal(raw, &config) != nil {
		return nil
	}
	var list []edge
	for _, d := range config.RootFS.DiffIDs {
		if reference.CheckDigest(d) == nil {
			list = append(list, edge{node{d, kindUnpacked}, v1.Descriptor{Digest: d}})
		}
	}
	return list
}
