// Package mutate makes new images from old ones: it appends and replaces layers and sets fields of the configuration. What it does
// not change, fields that it does not know included, keeps its text and its order; an image that is not changed keeps its bytes.
// Layers below are never touched.
package mutate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/internal/rawjson"
	"github.com/tare-oci/tare/image/manifest"
)

// Docker's media types, for manifests of Docker's.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
	dockerForeign  = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	ociForeign     = "application/vnd.oci.image.layer.nondistributable.v1.tar"
)

// Image is an image that can be changed: its manifest and its configuration. It is for one goroutine.
type Image struct {
	mediaType   string // of the manifest
	manifest    *rawjson.Object
	config      *rawjson.Object
	rawManifest []byte // as read; nil once changed
	rawConfig   []byte
	cmdSet      bool // by Change
}

// Documents are an image's documents, encoded.
type Documents struct {
	Manifest, Config             []byte
	Descriptor, ConfigDescriptor v1.Descriptor
}

// Open reads the image whose manifest d is.
func Open(ctx context.Context, f content.Fetcher, d v1.Descriptor) (*Image, error) {
	raw, err := content.ReadAll(ctx, f, d, manifest.MaxManifest)
	if err != nil {
		return nil, err
	}
	m, err := manifest.ParseManifest(raw, d.MediaType)
	if err != nil {
		return nil, err
	}
	if !manifest.IsConfig(m.Config.MediaType) {
		return nil, fmt.Errorf("manifest %s: its config is of media type %q: not a container image", d.Digest, m.Config.MediaType)
	}
	config, err := content.ReadAll(ctx, f, m.Config, manifest.MaxConfig)
	if err != nil {
		return nil, err
	}
	return Parse(raw, d.MediaType, config)
}

// Parse checks an image's documents. mediaType is the manifest's, as its descriptor says.
func Parse(rawManifest []byte, mediaType string, rawConfig []byte) (*Image, error) {
	m, err := manifest.ParseManifest(rawManifest, mediaType)
	if err != nil {
		return nil, err
	}
	c, err := manifest.ParseConfig(rawConfig)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) != len(c.RootFS.DiffIDs) {
		return nil, fmt.Errorf("image has %d layers, its config has %d diff_ids", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	if found := m.Config.Digest.Algorithm().FromBytes(rawConfig); found != m.Config.Digest {
		return nil, fmt.Errorf("config has digest %s, the manifest says %s", found, m.Config.Digest)
	}
	img := &Image{mediaType: mediaType, rawManifest: rawManifest, rawConfig: rawConfig}
	if img.manifest, err = rawjson.Parse(rawManifest); err == nil {
		img.config, err = rawjson.Parse(rawConfig)
	}
	if err != nil {
		return nil, err
	}
	return img, nil
}

// New returns an image without layers for a platform.
func New(p v1.Platform) (*Image, error) {
	if p.OS == "" || p.Architecture == "" {
		return nil, errors.New("an image needs an operating system and an architecture")
	}
	config := fmt.Sprintf(`{"architecture":%q,"os":%q,"config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}`, p.Architecture, p.OS)
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`,
		v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, digest.FromString(config), len(config))
	img, err := Parse([]byte(m), v1.MediaTypeImageManifest, []byte(config))
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"variant": p.Variant, "os.version": p.OSVersion} {
		if value != "" {
			err = errors.Join(err, img.set(name, value))
		}
	}
	if len(p.OSFeatures) > 0 {
		err = errors.Join(err, img.set("os.features", p.OSFeatures))
	}
	return img, err
}

// set sets a member of the configuration.
func (img *Image) set(name string, v any) error {
	img.rawConfig = nil
	return img.config.Set(name, v)
}

// Config returns the configuration as it is now. Members that the specification does not know are not in it.
func (img *Image) Config() (v1.Image, error) {
	raw, err := img.config.MarshalJSON()
	if err != nil {
		return v1.Image{}, err
	}
	return manifest.ParseConfig(raw)
}

// Layers returns the layers' descriptors, the lowest first.
func (img *Image) Layers() ([]v1.Descriptor, error) {
	raw, err := img.manifest.MarshalJSON()
	if err != nil {
		return nil, err
	}
	m, err := manifest.ParseManifest(raw, img.mediaType)
	return m.Layers, err
}

// isDocker tells whether the manifest is Docker's.
func (img *Image) isDocker() bool { return img.mediaType == dockerManifest }

// SetCreated sets when the image was made: now, or SOURCE_DATE_EPOCH for an image that comes out the same every time.
func (img *Image) SetCreated(t time.Time) error { return img.set("created", t.UTC()) }

// SetAuthor sets who made the image.
func (img *Image) SetAuthor(author string) error { return img.set("author", author) }

// AppendLayer puts a layer on top, whose blob is d and whose uncompressed content is diffID, with its entry of the history. d has
// one of OCI's media types, or the one of the manifest's family; it becomes that. Only media type, digest and size of d are taken.
func (img *Image) AppendLayer(d v1.Descriptor, diffID digest.Digest, h v1.History) error {
	if err := manifest.CheckDescriptor(d); err != nil {
		return err
	}
	mediaType, err := img.layerType(d.MediaType)
	if err != nil {
		return err
	}
	layers, err := img.manifest.Array("layers")
	if err != nil {
		return err
	}
	if len(layers) >= manifest.MaxLayers {
		return fmt.Errorf("image has %d layers, the limit", len(layers))
	}
	rootfs, err := img.config.Object("rootfs")
	if err != nil {
		return err
	}
	ids, err := rootfs.Array("diff_ids")
	if err != nil {
		return err
	}
	if err := img.appendHistory(h, len(layers), false); err != nil {
		return err
	}
	entry, err := rawjson.Marshal(v1.Descriptor{MediaType: mediaType, Digest: d.Digest, Size: d.Size})
	if err != nil {
		return err
	}
	id, err := rawjson.Marshal(diffID)
	if err != nil {
		return err
	}
	img.rawManifest = nil
	if err := img.manifest.Set("layers", append(slices.Clone(layers), entry)); err != nil {
		return err
	}
	if err := rootfs.Set("diff_ids", append(slices.Clone(ids), id)); err != nil {
		return err
	}
	return img.set("rootfs", rootfs)
}

// AppendHistory adds an entry of something that made no layer.
func (img *Image) AppendHistory(h v1.History) error {
	layers, err := img.manifest.Array("layers")
	if err != nil {
		return err
	}
	return img.appendHistory(h, len(layers), true)
}

// appendHistory adds an entry; n layers are there already. Readers count the entries that are of layers, so if there are fewer
// than layers, empty ones come first.
func (img *Image) appendHistory(h v1.History, n int, emptyLayer bool) error {
	old, err := img.config.Array("history")
	if err != nil {
		return err
	}
	history := slices.Clone(old)
	for _, raw := range old {
		var e v1.History
		if err := json.Unmarshal(raw, &e); err != nil {
			return fmt.Errorf("history: decode JSON: %w", err)
		}
		if !e.EmptyLayer {
			n--
		}
	}
	for range max(0, n) {
		history = append(history, json.RawMessage(`{}`))
	}
	h.EmptyLayer = emptyLayer
	raw, err := rawjson.Marshal(h)
	if err != nil {
		return err
	}
	return img.set("history", append(history, raw))
}

// ReplaceLayer gives layer n, the lowest is 0, another blob with the same uncompressed content: one that is compressed otherwise.
// Its annotations stay; what else its descriptor had (addresses, embedded data) was of the old blob.
func (img *Image) ReplaceLayer(n int, d v1.Descriptor) error {
	if err := manifest.CheckDescriptor(d); err != nil {
		return err
	}
	layers, err := img.manifest.Array("layers")
	if err != nil {
		return err
	}
	if n < 0 || n >= len(layers) {
		return fmt.Errorf("image has %d layers: there is no layer %d", len(layers), n)
	}
	o, err := rawjson.Parse(layers[n])
	if err != nil {
		return err
	}
	mediaType, err := img.layerType(d.MediaType)
	if err != nil {
		return err
	}
	for _, name := range []string{"urls", "data"} {
		o.Delete(name)
	}
	if err := errors.Join(o.Set("mediaType", mediaType), o.Set("digest", d.Digest), o.Set("size", d.Size)); err != nil {
		return err
	}
	return img.setLayer(layers, n, o)
}

func (img *Image) setLayer(layers []json.RawMessage, n int, o *rawjson.Object) error {
	raw, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	layers = slices.Clone(layers)
	layers[n] = raw
	img.rawManifest = nil
	return img.manifest.Set("layers", layers)
}

// layerType returns the media type of a layer in the manifest's family.
func (img *Image) layerType(t string) (string, error) {
	if !manifest.IsLayer(t) {
		return "", fmt.Errorf("media type %q is not of a layer", t)
	}
	if !img.isDocker() {
		return ociType(t), nil
	}
	switch t {
	case v1.MediaTypeImageLayer:
		return dockerLayer, nil
	case v1.MediaTypeImageLayerGzip:
		return dockerLayer + ".gzip", nil
	}
	if !strings.HasPrefix(t, dockerLayer) || strings.HasSuffix(t, "zstd") {
		return "", fmt.Errorf("a manifest of Docker's cannot have a layer of media type %q: convert the image to OCI's", t)
	}
	return t, nil
}

// ociType returns OCI's media type for one of Docker's; another one stays.
func ociType(t string) string {
	switch t {
	case dockerManifest:
		return v1.MediaTypeImageManifest
	case dockerIndex:
		return v1.MediaTypeImageIndex
	case dockerConfig:
		return v1.MediaTypeImageConfig
	}
	for docker, oci := range map[string]string{dockerLayer: v1.MediaTypeImageLayer, dockerForeign: ociForeign} {
		if rest, ok := strings.CutPrefix(t, docker); ok {
			return oci + strings.Replace(rest, ".", "+", 1)
		}
	}
	return t
}

// ToOCI gives manifest, config and layers OCI's media types in place of Docker's. Their content stays.
func (img *Image) ToOCI() error {
	if !img.isDocker() {
		return nil
	}
	layers, err := img.manifest.Array("layers")
	if err != nil {
		return err
	}
	for n := range layers {
		o, err := rawjson.Parse(layers[n])
		if err != nil {
			return err
		}
		var t string
		if err := json.Unmarshal(o.Get("mediaType"), &t); err != nil {
			return err
		}
		if err := o.Set("mediaType", ociType(t)); err != nil {
			return err
		}
		if layers[n], err = o.MarshalJSON(); err != nil {
			return err
		}
	}
	img.rawManifest = nil
	img.mediaType = v1.MediaTypeImageManifest
	return errors.Join(img.manifest.Set("layers", layers), img.manifest.Set("mediaType", img.mediaType))
}

// Encode returns the documents as they are now. They are checked as everything that is read.
func (img *Image) Encode() (Documents, error) {
	d := Documents{Manifest: img.rawManifest, Config: img.rawConfig}
	var err error
	if d.Config == nil {
		if d.Config, err = img.config.MarshalJSON(); err != nil {
			return Documents{}, err
		}
		img.rawManifest, d.Manifest = nil, nil
	}
	config, err := img.manifest.Object("config")
	if err != nil {
		return Documents{}, err
	}
	if d.Manifest == nil {
		if err := img.setConfig(config, d.Config); err != nil {
			return Documents{}, err
		}
		if d.Manifest, err = img.manifest.MarshalJSON(); err != nil {
			return Documents{}, err
		}
	}
	if _, err := Parse(d.Manifest, img.mediaType, d.Config); err != nil {
		return Documents{}, err
	}
	img.rawManifest, img.rawConfig = d.Manifest, d.Config
	var c v1.Descriptor
	raw, err := config.MarshalJSON()
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	d.ConfigDescriptor = v1.Descriptor{MediaType: c.MediaType, Digest: c.Digest, Size: c.Size}
	d.Descriptor = v1.Descriptor{MediaType: img.mediaType, Digest: digest.FromBytes(d.Manifest), Size: int64(len(d.Manifest))}
	return d, err
}

// setConfig makes the manifest's descriptor of the configuration one of raw.
func (img *Image) setConfig(config *rawjson.Object, raw []byte) error {
	mediaType := v1.MediaTypeImageConfig
	if img.isDocker() {
		mediaType = dockerConfig
	}
	for _, name := range []string{"urls", "data"} {
		config.Delete(name)
	}
	return errors.Join(config.Set("mediaType", mediaType), config.Set("digest", digest.FromBytes(raw)),
		config.Set("size", len(raw)), img.manifest.Set("config", config))
}
