package mutate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/manifest"
)

// maxDifferences are how many differences Explain lists.
const maxDifferences = 1000

// Difference is one reason why two images do not have the same digest.
type Difference struct {
	Where string // "manifest: annotations.x", "config: config.Env", "layer 2", "layer 2: /etc/passwd"; for an index with the platform before it
	What  string // a sentence, or the name of an attribute: "mode", "mtime", "content"
	A, B  string // the two values; empty where a side has none. They are a stranger's text.
}

// Side is an image that Explain reads.
type Side struct {
	Source     content.Source
	Descriptor v1.Descriptor
}

// Explain tells why two images differ: which fields of their documents, which layers, and, where layers have other content, which
// files and which attributes of them. Indexes are compared platform by platform. Images of one digest have no differences. The list
// ends after 1000 with one that says so. Layers are only read if their diff IDs differ, and take about 500 bytes of memory for each
// file in them.
func Explain(ctx context.Context, a, b Side) ([]Difference, error) {
	e := explainer{ctx: ctx}
	err := e.documents("", a, b, 0)
	if errors.Is(err, errEnough) {
		err = nil
		e.found = append(e.found, Difference{Where: "…", What: fmt.Sprintf("there are more than %d differences", maxDifferences)})
	}
	if err != nil {
		return nil, fmt.Errorf("explain the difference: %w", err)
	}
	return e.found, nil
}

var errEnough = errors.New("there are enough differences")

type explainer struct {
	ctx   context.Context
	found []Difference
}

func (e *explainer) add(d Difference) error {
	if len(e.found) >= maxDifferences {
		return errEnough
	}
	e.found = append(e.found, d)
	return nil
}

// documents compares two indexes or manifests. prefix says where they are.
func (e *explainer) documents(prefix string, a, b Side, depth int) error {
	if a.Descriptor.Digest == b.Descriptor.Digest {
		return nil
	}
	if depth > maxDepth {
		return fmt.Errorf("indexes are nested deeper than %d levels, the limit", maxDepth)
	}
	if manifest.IsIndex(a.Descriptor.MediaType) != manifest.IsIndex(b.Descriptor.MediaType) {
		return e.add(Difference{prefix + "image", "one is an index, the other a manifest", a.Descriptor.MediaType, b.Descriptor.MediaType})
	}
	rawA, err := content.ReadAll(e.ctx, a.Source, a.Descriptor, manifest.MaxManifest)
	if err != nil {
		return err
	}
	rawB, err := content.ReadAll(e.ctx, b.Source, b.Descriptor, manifest.MaxManifest)
	if err != nil {
		return err
	}
	if manifest.IsIndex(a.Descriptor.MediaType) {
		return e.indexes(prefix, a, b, rawA, rawB, depth)
	}
	return e.manifests(prefix, a, b, rawA, rawB)
}

// indexes compares the entries that are for the same platform.
func (e *explainer) indexes(prefix string, a, b Side, rawA, rawB []byte, depth int) error {
	if err := e.json(prefix+"index", rawA, rawB, "manifests"); err != nil {
		return err
	}
	idxA, err := manifest.ParseIndex(rawA, a.Descriptor.MediaType)
	if err != nil {
		return err
	}
	idxB, err := manifest.ParseIndex(rawB, b.Descriptor.MediaType)
	if err != nil {
		return err
	}
	var namesA, namesB []string
	byName := map[string]v1.Descriptor{}
	for i, d := range idxB.Manifests {
		name := entryName(d, i)
		namesB = append(namesB, name)
		byName[name] = d
	}
	for i, d := range idxA.Manifests {
		name := entryName(d, i)
		namesA = append(namesA, name)
		other, ok := byName[name]
		if !ok {
			if err := e.add(Difference{prefix + name, "only one index has this entry", d.Digest.String(), ""}); err != nil {
				return err
			}
			continue
		}
		if err := e.entry(prefix+name+": ", Side{a.Source, d}, Side{b.Source, other}, depth); err != nil {
			return err
		}
	}
	for _, name := range namesB {
		if !slices.Contains(namesA, name) {
			if err := e.add(Difference{prefix + name, "only one index has this entry", "", byName[name].Digest.String()}); err != nil {
				return err
			}
		}
	}
	if slices.Equal(slices.Sorted(slices.Values(namesA)), slices.Sorted(slices.Values(namesB))) && !slices.Equal(namesA, namesB) {
		return e.add(Difference{prefix + "index", "the entries have another order", strings.Join(namesA, " "), strings.Join(namesB, " ")})
	}
	return nil
}

// entry compares two entries of indexes: what they lead to, and what the indexes say of them.
func (e *explainer) entry(prefix string, a, b Side, depth int) error {
	for name, v := range b.Descriptor.Annotations {
		if old := a.Descriptor.Annotations[name]; old != v && name != "vnd.docker.reference.digest" {
			if err := e.add(Difference{prefix + "entry", "annotations." + name, old, v}); err != nil {
				return err
			}
		}
	}
	if !manifest.IsDocument(a.Descriptor.MediaType) || !manifest.IsDocument(b.Descriptor.MediaType) {
		if a.Descriptor.Digest == b.Descriptor.Digest {
			return nil
		}
		return e.add(Difference{prefix + "entry", "another digest", a.Descriptor.Digest.String(), b.Descriptor.Digest.String()})
	}
	err := e.documents(prefix, a, b, depth+1)
	if errors.Is(err, content.ErrNotFound) {
		return e.add(Difference{prefix + "entry", "another digest, and not both are here to be compared", a.Descriptor.Digest.String(), b.Descriptor.Digest.String()})
	}
	return err
}

// entryName tells an index's entry by what it is for.
func entryName(d v1.Descriptor, i int) string {
	name := fmt.Sprintf("entry %d", i)
	if p := d.Platform; p != nil {
		name = p.OS + "/" + p.Architecture
		if p.Variant != "" {
			name += "/" + p.Variant
		}
		if p.OSVersion != "" {
			name += " " + p.OSVersion
		}
		if p.OS == "unknown" {
			name = fmt.Sprintf("attestation %d", i)
		}
	}
	return name
}

// manifests compares two manifests, their configurations and their layers.
func (e *explainer) manifests(prefix string, a, b Side, rawA, rawB []byte) error {
	mA, err := manifest.ParseManifest(rawA, a.Descriptor.MediaType)
	if err != nil {
		return err
	}
	mB, err := manifest.ParseManifest(rawB, b.Descriptor.MediaType)
	if err != nil {
		return err
	}
	before := len(e.found)
	if err := e.json(prefix+"manifest", rawA, rawB, "config", "layers"); err != nil {
		return err
	}
	same := len(e.found) == before && mA.Config.Digest == mB.Config.Digest && slices.EqualFunc(mA.Layers, mB.Layers, func(x, y v1.Descriptor) bool { return x.Digest == y.Digest })
	if same { // only what descriptors say beside digests
		return e.json(prefix+"manifest", rawA, rawB)
	}
	idsA, err := e.diffIDs(a.Source, mA)
	if err != nil {
		return err
	}
	idsB, err := e.diffIDs(b.Source, mB)
	if err != nil {
		return err
	}
	if mA.Config.Digest != mB.Config.Digest {
		rawA, err := content.ReadAll(e.ctx, a.Source, mA.Config, manifest.MaxConfig)
		if err != nil {
			return err
		}
		rawB, err := content.ReadAll(e.ctx, b.Source, mB.Config, manifest.MaxConfig)
		if err != nil {
			return err
		}
		if err := e.json(prefix+"config", rawA, rawB, "rootfs"); err != nil {
			return err
		}
	}
	return e.layers(prefix, a.Source, b.Source, mA.Layers, mB.Layers, idsA, idsB)
}

// diffIDs returns the diff IDs of an image, none if it has no container's configuration.
func (e *explainer) diffIDs(s content.Source, m v1.Manifest) ([]digest.Digest, error) {
	if !manifest.IsConfig(m.Config.MediaType) {
		return nil, nil
	}
	raw, err := content.ReadAll(e.ctx, s, m.Config, manifest.MaxConfig)
	if err != nil {
		return nil, err
	}
	config, err := manifest.ParseConfig(raw)
	return config.RootFS.DiffIDs, err
}

// layers compares layers from the lowest on.
func (e *explainer) layers(prefix string, sa, sb content.Source, a, b []v1.Descriptor, idsA, idsB []digest.Digest) error {
	id := func(ids []digest.Digest, i int) digest.Digest {
		if i < len(ids) {
			return ids[i]
		}
		return ""
	}
	for i := range max(len(a), len(b)) {
		where := fmt.Sprintf("%slayer %d", prefix, i)
		var err error
		switch {
		case i >= len(b):
			err = e.add(Difference{where, "only one image has this layer", a[i].Digest.String(), ""})
		case i >= len(a):
			err = e.add(Difference{where, "only one image has this layer", "", b[i].Digest.String()})
		case a[i].Digest == b[i].Digest:
			if a[i].MediaType != b[i].MediaType {
				err = e.add(Difference{where, "another media type of the same blob", a[i].MediaType, b[i].MediaType})
			}
		case id(idsA, i) != "" && id(idsA, i) == id(idsB, i):
			err = e.compression(where, Side{sa, a[i]}, Side{sb, b[i]})
		case manifest.IsLayer(a[i].MediaType) && manifest.IsLayer(b[i].MediaType):
			err = e.contents(where, Side{sa, a[i]}, Side{sb, b[i]})
		default:
			err = e.add(Difference{where, "another digest", a[i].Digest.String(), b[i].Digest.String()})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compression tells how two layers of the same content are compressed.
func (e *explainer) compression(where string, a, b Side) error {
	var names [2]string
	for i, s := range []Side{a, b} {
		r, err := s.Source.Fetch(e.ctx, s.Descriptor, 0)
		if errors.Is(err, content.ErrNotFound) {
			return e.add(Difference{where, "the same content, another blob", a.Descriptor.Digest.String(), b.Descriptor.Digest.String()})
		}
		if err != nil {
			return err
		}
		stream, c, err := layer.Decompress(r)
		if err == nil {
			err = stream.Close()
		}
		r.Close()
		if err != nil {
			return err
		}
		names[i] = string(c)
	}
	what := "the same content in another compression"
	if names[0] == names[1] {
		what = "the same content, compressed by another program or with other settings"
	}
	return e.add(Difference{where, what, fmt.Sprintf("%s, %d bytes", names[0], a.Descriptor.Size), fmt.Sprintf("%s, %d bytes", names[1], b.Descriptor.Size)})
}
