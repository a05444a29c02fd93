package mutate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/diff"
	"github.com/tare-oci/tare/image/internal/rawjson"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/manifest"
)

// Limits on the graph of indexes.
const (
	maxDepth     = 8
	maxDocuments = 20000
)

// Convert pushes to dst the image d of src with all layers in another compression: layer.Gzip, layer.Zstd or layer.Plain. The
// configurations stay, and every layer that is converted is verified against its diff ID there. Layers that have that compression
// stay as they are, so does what is no container image. Of an index every image is converted that src has all of; what is missing keeps its entry. For
// layer.Zstd, Docker's documents become OCI's. It returns the new descriptor: d, if nothing was to do.
func Convert(ctx context.Context, src content.Source, dst content.Target, d v1.Descriptor, to layer.Compression) (v1.Descriptor, error) {
	c := converter{ctx: ctx, src: src, dst: dst, to: to, layers: map[[2]digest.Digest]v1.Descriptor{}, documents: map[digest.Digest]v1.Descriptor{}}
	converted, err := c.document(d, 0)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("convert %s: %w", d.Digest, err)
	}
	return converted, nil
}

type converter struct {
	ctx       context.Context
	src       content.Source
	dst       content.Target
	to        layer.Compression
	layers    map[[2]digest.Digest]v1.Descriptor // converted, by digest and diff ID: two images may claim different ones
	documents map[digest.Digest]v1.Descriptor
}

// document converts an index or a manifest.
func (c *converter) document(d v1.Descriptor, depth int) (v1.Descriptor, error) {
	if done, ok := c.documents[d.Digest]; ok {
		return done, nil
	}
	if depth > maxDepth || len(c.documents) > maxDocuments {
		return v1.Descriptor{}, fmt.Errorf("indexes are nested deeper than %d levels, or more than %d documents, the limits", maxDepth, maxDocuments)
	}
	raw, err := content.ReadAll(c.ctx, c.src, d, manifest.MaxManifest)
	if err != nil {
		return v1.Descriptor{}, err
	}
	var converted v1.Descriptor
	switch {
	case manifest.IsIndex(d.MediaType):
		converted, err = c.index(raw, d, depth)
	case manifest.IsManifest(d.MediaType):
		converted, err = c.manifest(raw, d)
	default:
		err = fmt.Errorf("%s is of media type %q, neither an index nor a manifest", d.Digest, d.MediaType)
	}
	if err == nil {
		c.documents[d.Digest] = converted
	}
	return converted, err
}

// index converts an index's entries. Attestations come last: they name the images that they are of.
func (c *converter) index(raw []byte, d v1.Descriptor, depth int) (v1.Descriptor, error) {
	idx, err := manifest.ParseIndex(raw, d.MediaType)
	if err != nil {
		return v1.Descriptor{}, err
	}
	o, err := rawjson.Parse(raw)
	if err != nil {
		return v1.Descriptor{}, err
	}
	entries, err := o.Array("manifests")
	if err != nil {
		return v1.Descriptor{}, err
	}
	changed := map[string]string{}
	for i, e := range idx.Manifests {
		if !manifest.IsDocument(e.MediaType) {
			continue
		}
		converted, err := c.document(e, depth+1)
		if errors.Is(err, content.ErrNotFound) {
			continue
		}
		if err != nil {
			return v1.Descriptor{}, err
		}
		if converted.Digest != e.Digest {
			changed[e.Digest.String()] = converted.Digest.String()
			if entries[i], err = setDescriptor(entries[i], converted); err != nil {
				return v1.Descriptor{}, err
			}
		}
	}
	if len(changed) == 0 {
		return plain(d), c.push(d, raw)
	}
	mediaType := d.MediaType
	if c.to == layer.Zstd {
		mediaType = ociType(mediaType)
		if err := o.Set("mediaType", mediaType); err != nil {
			return v1.Descriptor{}, err
		}
	}
	for i := range entries {
		if entries[i], err = followAttestation(entries[i], changed); err != nil {
			return v1.Descriptor{}, err
		}
	}
	if err := o.Set("manifests", entries); err != nil {
		return v1.Descriptor{}, err
	}
	if raw, err = o.MarshalJSON(); err != nil {
		return v1.Descriptor{}, err
	}
	n := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return n, c.push(n, raw)
}

// setDescriptor makes an entry one of d, with the members that it has beside.
func setDescriptor(entry json.RawMessage, d v1.Descriptor) (json.RawMessage, error) {
	o, err := rawjson.Parse(entry)
	if err != nil {
		return nil, err
	}
	o.Delete("data")
	if err := errors.Join(o.Set("mediaType", d.MediaType), o.Set("digest", d.Digest), o.Set("size", d.Size)); err != nil {
		return nil, err
	}
	return o.MarshalJSON()
}

// followAttestation lets an entry of BuildKit's that says something about another entry name that one's new digest.
func followAttestation(entry json.RawMessage, changed map[string]string) (json.RawMessage, error) {
	const about = "vnd.docker.reference.digest"
	o, err := rawjson.Parse(entry)
	if err != nil {
		return nil, err
	}
	annotations, err := o.Object("annotations")
	if err != nil {
		return nil, err
	}
	var old string
	if raw := annotations.Get(about); raw == nil || json.Unmarshal(raw, &old) != nil || changed[old] == "" {
		return entry, nil
	}
	if err := errors.Join(annotations.Set(about, changed[old]), o.Set("annotations", annotations)); err != nil {
		return nil, err
	}
	return o.MarshalJSON()
}

// plain returns what identifies d.
func plain(d v1.Descriptor) v1.Descriptor {
	return v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

func (c *converter) push(d v1.Descriptor, raw []byte) error {
	return c.dst.Push(c.ctx, plain(d), bytes.NewReader(raw))
}

// manifest converts an image's layers, and copies what is no image.
func (c *converter) manifest(raw []byte, d v1.Descriptor) (v1.Descriptor, error) {
	m, err := manifest.ParseManifest(raw, d.MediaType)
	if err != nil {
		return v1.Descriptor{}, err
	}
	isImage := manifest.IsConfig(m.Config.MediaType)
	for _, l := range m.Layers {
		isImage = isImage && manifest.IsLayer(l.MediaType)
	}
	if err := c.copy(m.Config); err != nil {
		return v1.Descriptor{}, err
	}
	if !isImage {
		for _, l := range m.Layers {
			if err := c.copy(l); err != nil {
				return v1.Descriptor{}, err
			}
		}
		return plain(d), c.push(d, raw)
	}
	config, err := content.ReadAll(c.ctx, c.src, m.Config, manifest.MaxConfig)
	if err != nil {
		return v1.Descriptor{}, err
	}
	img, err := Parse(raw, d.MediaType, config)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := c.convertLayers(img, m); err != nil {
		return v1.Descriptor{}, err
	}
	return img.Push(c.ctx, c.dst)
}

// convertLayers converts those layers of an image whose media type or content says that they need it.
func (c *converter) convertLayers(img *Image, m v1.Manifest) error {
	config, err := img.Config()
	if err != nil {
		return err
	}
	for i, l := range m.Layers {
		converted, err := c.layer(l, config.RootFS.DiffIDs[i])
		if err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		if converted.Digest == l.Digest {
			continue
		}
		if c.to == layer.Zstd {
			if err := img.ToOCI(); err != nil {
				return err
			}
		}
		if err := img.ReplaceLayer(i, converted); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return nil
}

// layer converts a layer and pushes it.
func (c *converter) layer(l v1.Descriptor, diffID digest.Digest) (v1.Descriptor, error) {
	key := [2]digest.Digest{l.Digest, diffID}
	if done, ok := c.layers[key]; ok {
		return done, nil
	}
	r, err := c.src.Fetch(c.ctx, l, 0)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer r.Close()
	checked, err := content.Verify(contextReader{c.ctx, r}, l)
	if err != nil {
		return v1.Descriptor{}, err
	}
	stream, has, err := layer.Decompress(checked)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer stream.Close()
	if has == c.to {
		c.layers[key] = plain(l)
		return plain(l), c.copy(l)
	}
	written, err := PushLayer(c.ctx, c.dst, func(w io.Writer) (diff.Layer, error) { return recompress(w, stream, c.to, diffID) })
	if err != nil {
		return v1.Descriptor{}, err
	}
	c.layers[key] = written.Descriptor
	return written.Descriptor, nil
}

// recompress compresses stream anew, whose digest must be diffID.
func recompress(w io.Writer, stream io.Reader, to layer.Compression, diffID digest.Digest) (diff.Layer, error) {
	out, err := diff.NewCompressor(w, diff.CompressOptions{Compression: to})
	if err != nil {
		return diff.Layer{}, err
	}
	defer out.Abort()
	hash := diffID.Algorithm().Hash()
	n, err := io.Copy(io.MultiWriter(out, hash), io.LimitReader(stream, maxImport+1))
	if err == nil && n > maxImport {
		err = fmt.Errorf("it has more than %d bytes, the limit", int64(maxImport))
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		return diff.Layer{}, err
	}
	if found := digest.NewDigest(diffID.Algorithm(), hash); found != diffID {
		return diff.Layer{}, fmt.Errorf("content is %s, not %s as the image says", found, diffID)
	}
	return diff.Layer{Descriptor: out.Descriptor(), DiffID: diffID, Size: out.Size()}, nil
}

// copy copies a blob that is not in the target yet.
func (c *converter) copy(d v1.Descriptor) error {
	if ok, err := c.dst.Exists(c.ctx, d); ok || err != nil {
		return err
	}
	r, err := c.src.Fetch(c.ctx, d, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	return c.dst.Push(c.ctx, d, r)
}
