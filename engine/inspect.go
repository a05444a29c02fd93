package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// Inspection is what docker inspect tells about an image, by docker's names, and what an image is in a registry.
type Inspection struct {
	ID           digest.Digest   `json:"Id"` // of the configuration
	RepoTags     []string        `json:"RepoTags"`
	RepoDigests  []string        `json:"RepoDigests"`
	Digest       digest.Digest   `json:"Digest"` // of the index or manifest
	Manifest     digest.Digest   `json:"Manifest"`
	MediaType    string          `json:"MediaType"` // of Digest
	Created      *time.Time      `json:"Created,omitempty"`
	Author       string          `json:"Author"`
	Architecture string          `json:"Architecture"`
	Variant      string          `json:"Variant,omitempty"`
	OS           string          `json:"Os"`
	Size         int64           `json:"Size"` // of the layers as they are stored
	Config       v1.ImageConfig  `json:"Config"`
	RootFS       InspectedRootFS `json:"RootFS"`
	Layers       []v1.Descriptor `json:"LayersData"`
	Platforms    []string        `json:"Platforms,omitempty"` // that the index names
	Annotations  any             `json:"Annotations,omitempty"`
}

// InspectedRootFS is RootFS by docker's names.
type InspectedRootFS struct {
	Type   string          `json:"Type"`
	Layers []digest.Digest `json:"Layers"` // diff IDs
}

// Raw says what InspectRaw returns.
type Raw string

// The documents of an image.
const (
	RawDocument Raw = "manifest" // what the name stands for: an index or a manifest
	RawConfig   Raw = "config"   // the configuration of the image for the platform
)

// open finds an image in the store, or at the place that text names with a transport.
func (e *Engine) open(ctx context.Context, text string, r Report) (*place, v1.Descriptor, error) {
	ref, err := reference.ParseImage(text)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	reg, err := newRegistries(r.Warn, r.Trace)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	return e.source(reg.observe(ctx), ref.String(), reg)
}

// Inspect tells about an image in the store or, if text names a transport, elsewhere, for the platform p.
func (e *Engine) Inspect(ctx context.Context, text string, p manifest.Platform, r Report) (*Inspection, error) {
	src, root, err := e.open(ctx, text, r)
	if err != nil {
		return nil, err
	}
	defer src.close()
	img, err := transfer.Choose(ctx, src, root, p)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", text, err)
	}
	i := &Inspection{ID: img.Manifest.Config.Digest, Digest: root.Digest, Manifest: img.Path[len(img.Path)-1].Digest, MediaType: root.MediaType,
		Created: img.Config.Created, Author: img.Config.Author, Architecture: img.Config.Architecture, Variant: img.Config.Variant,
		OS: img.Config.OS, Config: img.Config.Config, RootFS: InspectedRootFS{"layers", img.Config.RootFS.DiffIDs}, Layers: img.Manifest.Layers,
		RepoTags: []string{}, RepoDigests: []string{}}
	if a := img.Manifest.Annotations; len(a) > 0 {
		i.Annotations = a
	}
	for _, l := range img.Manifest.Layers {
		i.Size += l.Size
	}
	if manifest.IsIndex(root.MediaType) {
		raw, err := content.ReadAll(ctx, src, root, manifest.MaxManifest)
		if err != nil {
			return nil, err
		}
		refs, err := manifest.Refer(raw, root.MediaType)
		if err != nil {
			return nil, err
		}
		i.Platforms = manifest.Available(refs.Children)
	}
	return i, e.addNames(ctx, i, text)
}

// addNames fills in the names that the image has in the store, or the one that was asked for.
func (e *Engine) addNames(ctx context.Context, i *Inspection, text string) error {
	add := func(name string, d digest.Digest) {
		n, err := reference.ParseName(name)
		if err != nil {
			return
		}
		if n.Tag != "" {
			i.RepoTags = append(i.RepoTags, FamiliarName(n)+":"+n.Tag)
		}
		if at := FamiliarName(n) + "@" + d.String(); !slices.Contains(i.RepoDigests, at) {
			i.RepoDigests = append(i.RepoDigests, at)
		}
	}
	if name, ok := strings.CutPrefix(text, "docker://"); ok {
		add(name, i.Digest)
		return nil
	}
	st, err := e.imageStore()
	if err != nil {
		return err
	}
	list, err := st.List(ctx)
	if err != nil {
		return err
	}
	for _, n := range list {
		if n.Descriptor.Digest == i.Digest {
			add(n.Name, i.Digest)
		}
	}
	return nil
}

// InspectRaw returns a document of an image, byte for byte.
func (e *Engine) InspectRaw(ctx context.Context, text string, what Raw, p manifest.Platform, r Report) ([]byte, error) {
	src, root, err := e.open(ctx, text, r)
	if err != nil {
		return nil, err
	}
	defer src.close()
	if what == RawDocument {
		raw, err := content.ReadAll(ctx, src, root, manifest.MaxManifest)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", text, err)
		}
		return raw, nil
	}
	img, err := transfer.Choose(ctx, src, root, p)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", text, err)
	}
	return img.ConfigRaw, nil
}

// A HistoryStep is how one layer, or none, came about.
type HistoryStep struct {
	Created   *time.Time    `json:"created,omitempty"`
	CreatedBy string        `json:"createdBy"`
	Comment   string        `json:"comment,omitempty"`
	Empty     bool          `json:"empty"` // made no layer
	Size      int64         `json:"size"`  // of the layer as it is stored
	Layer     digest.Digest `json:"layer,omitempty"`
}

// History tells how an image was made, the newest step first, by its configuration. Layers that it says nothing of come with
// empty steps at the beginning; a history of more layers than there are names none of them.
func (e *Engine) History(ctx context.Context, text string, p manifest.Platform, r Report) ([]HistoryStep, error) {
	src, root, err := e.open(ctx, text, r)
	if err != nil {
		return nil, err
	}
	defer src.close()
	img, err := transfer.Choose(ctx, src, root, p)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", text, err)
	}
	layers := img.Manifest.Layers
	made := 0
	for _, h := range img.Config.History {
		if !h.EmptyLayer {
			made++
		}
	}
	steps := []HistoryStep{}
	if made > len(layers) { // which layer is whose cannot be told, and the specification does not forbid it
		layers = nil
	} else {
		for _, l := range layers[:len(layers)-made] {
			steps = append(steps, HistoryStep{Layer: l.Digest, Size: l.Size})
		}
		layers = layers[len(layers)-made:]
	}
	for _, h := range img.Config.History {
		s := HistoryStep{Created: h.Created, CreatedBy: h.CreatedBy, Comment: h.Comment, Empty: h.EmptyLayer}
		if !h.EmptyLayer && len(layers) > 0 {
			s.Layer, s.Size, layers = layers[0].Digest, layers[0].Size, layers[1:]
		}
		steps = append(steps, s)
	}
	slices.Reverse(steps)
	return steps, nil
}

// Tags calls each with the tags of a repository in its registry, in the registry's order.
func (e *Engine) Tags(ctx context.Context, repository string, r Report, each func(tag string) error) error {
	n, err := reference.ParseName(strings.TrimPrefix(repository, "docker://"))
	if err != nil {
		return err
	}
	reg, err := newRegistries(r.Warn, r.Trace)
	if err != nil {
		return err
	}
	src, err := reg.source(n)
	if err != nil {
		return err
	}
	type lister interface {
		Tags(ctx context.Context, last string, each func(tag string) error) error
	}
	var all []error
	for _, one := range src.List {
		l, ok := one.Source.(lister)
		if _, mirror := one.Source.(digestOnly); !ok || mirror {
			continue
		}
		told := false
		err := l.Tags(reg.observe(ctx), "", func(tag string) error { told = true; return each(tag) })
		if err == nil || told {
			return err
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}
