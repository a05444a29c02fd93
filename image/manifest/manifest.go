// Package manifest reads the documents of image-spec: index, manifest, config and the descriptors in them, and chooses by
// platform. Documents come from strangers: size, nesting and grammar are limited, and a document that two readers could
// understand differently is refused. Callers keep the bytes that they read; nothing here writes a document again.
package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/internal/ijson"
)

// Limits on documents. Registries accept manifests of 4 MiB (distribution-spec, "Pushing Manifests"); readers without a limit
// were CVE-2023-25153.
const (
	MaxManifest = 4 << 20  // bytes of an index or a manifest
	MaxConfig   = 16 << 20 // bytes of a config
	MaxLayers   = 1000     // layers of one image; overlayfs stacks 500
)

// Docker's media types, which mean the same as the OCI types that descend from them.
const (
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerSchema1  = "application/vnd.docker.distribution.manifest.v1+"
)

// IsIndex tells whether the media type is that of an image index or Docker's manifest list.
func IsIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == dockerIndex
}

// IsManifest tells whether the media type is that of an image manifest, OCI's or Docker's.
func IsManifest(mediaType string) bool {
	return mediaType == v1.MediaTypeImageManifest || mediaType == dockerManifest
}

// IsConfig tells whether the media type is that of a container image's config, OCI's or Docker's.
func IsConfig(mediaType string) bool {
	return mediaType == v1.MediaTypeImageConfig || mediaType == dockerConfig
}

// IsLayer tells whether the media type is that of a tar layer, plain, gzip or zstd, OCI's or Docker's, with the deprecated
// non-distributable ones. The suffix is a hint: real layers are mislabelled.
func IsLayer(mediaType string) bool {
	_, ok := cutLayer(mediaType)
	return ok
}

// IsNonDistributable tells whether the media type is that of a layer whose bytes need not come with its image.
func IsNonDistributable(mediaType string) bool {
	base, ok := cutLayer(mediaType)
	return ok && (strings.Contains(base, ".nondistributable.") || strings.Contains(base, ".foreign."))
}

// cutLayer cuts the compression from a layer's media type; false for another media type.
func cutLayer(mediaType string) (base string, ok bool) {
	base, compression, plus := strings.Cut(mediaType, "+")
	if !plus {
		for _, suffix := range []string{".gzip", ".zstd"} {
			if docker, found := strings.CutSuffix(base, suffix); found && strings.HasPrefix(base, "application/vnd.docker.") {
				base, compression, plus = docker, suffix[1:], true
			}
		}
	}
	switch base {
	case "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.foreign.diff.tar":
		return base, !plus || compression == "gzip" || compression == "zstd"
	}
	return "", false
}

// CheckDescriptor checks a descriptor's media type, digest and size by their grammar, and embedded data against digest and
// size. A media type or digest algorithm that is unknown but well formed passes.
func CheckDescriptor(d v1.Descriptor) error {
	if err := checkMediaType(d.MediaType); err != nil {
		return fmt.Errorf("descriptor %.80s: %w", d.Digest, err)
	}
	if err := reference.CheckDigest(d.Digest); err != nil {
		return fmt.Errorf("descriptor of %s: %w", d.MediaType, err)
	}
	if d.Size < 0 {
		return fmt.Errorf("descriptor %s: size %d is negative", d.Digest, d.Size)
	}
	if d.Data == nil {
		return nil
	}
	if int64(len(d.Data)) != d.Size {
		return fmt.Errorf("descriptor %s: embedded data has %d bytes, size says %d", d.Digest, len(d.Data), d.Size)
	}
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return fmt.Errorf("embedded data of descriptor: %w", err)
	}
	if found := d.Digest.Algorithm().FromBytes(d.Data); found != d.Digest {
		return fmt.Errorf("descriptor %s: embedded data has digest %s", d.Digest, found)
	}
	return nil
}

// checkMediaType knows the grammar of RFC 6838 section 4.2.
func checkMediaType(s string) error {
	const alnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if s == "" {
		return fmt.Errorf("media type is missing")
	}
	typ, subtype, _ := strings.Cut(s, "/")
	for _, name := range []string{typ, subtype} {
		if name == "" || len(name) > 127 || strings.Trim(name[:1], alnum) != "" || strings.Trim(name, alnum+"!#$&-^_.+") != "" {
			return fmt.Errorf("media type %.260q is malformed", s)
		}
	}
	return nil
}

// document is what every kind of document may wrongly hold besides its own fields.
type document struct {
	Manifests json.RawMessage `json:"manifests"`
	Config    json.RawMessage `json:"config"`
	Layers    json.RawMessage `json:"layers"`
	FSLayers  json.RawMessage `json:"fsLayers"` // schema 1
}

// ParseIndex parses and checks an image index or manifest list. mediaType is what its descriptor says it is. An index that
// could be taken for a manifest too is refused (CVE-2021-41190).
func ParseIndex(raw []byte, mediaType string) (v1.Index, error) {
	var idx v1.Index
	var doc document
	if err := decode(raw, "index", MaxManifest, &idx, &doc); err != nil {
		return v1.Index{}, err
	}
	if err := checkHead("index", idx.SchemaVersion, idx.MediaType, mediaType, IsIndex); err != nil {
		return v1.Index{}, err
	}
	if has(doc.Config) || has(doc.Layers) || has(doc.FSLayers) {
		return v1.Index{}, fmt.Errorf("index is ambiguous: it has a manifest's config or layers too")
	}
	if idx.Manifests == nil {
		return v1.Index{}, fmt.Errorf("index has no manifests list")
	}
	for i, d := range idx.Manifests {
		if err := CheckDescriptor(d); err != nil {
			return v1.Index{}, fmt.Errorf("index, entry %d: %w", i, err)
		}
	}
	if idx.Subject != nil {
		if err := CheckDescriptor(*idx.Subject); err != nil {
			return v1.Index{}, fmt.Errorf("index's subject: %w", err)
		}
	}
	return idx, nil
}

// ParseManifest parses and checks an image manifest. mediaType is what its descriptor says it is. A manifest that could be
// taken for an index too is refused (CVE-2021-41190). Its config and layers may be of any media type.
func ParseManifest(raw []byte, mediaType string) (v1.Manifest, error) {
	var m v1.Manifest
	var doc document
	if err := decode(raw, "manifest", MaxManifest, &m, &doc); err != nil {
		return v1.Manifest{}, err
	}
	if err := checkHead("manifest", m.SchemaVersion, m.MediaType, mediaType, IsManifest); err != nil {
		return v1.Manifest{}, err
	}
	switch {
	case has(doc.Manifests) || has(doc.FSLayers):
		return v1.Manifest{}, fmt.Errorf("manifest is ambiguous: it has an index's manifests or a schema 1 manifest's layers too")
	case !has(doc.Config):
		return v1.Manifest{}, fmt.Errorf("manifest has no config")
	case len(m.Layers) > MaxLayers:
		return v1.Manifest{}, fmt.Errorf("manifest has %d layers, the limit is %d", len(m.Layers), MaxLayers)
	}
	if err := CheckDescriptor(m.Config); err != nil {
		return v1.Manifest{}, fmt.Errorf("manifest's config: %w", err)
	}
	for i, d := range m.Layers {
		if err := CheckDescriptor(d); err != nil {
			return v1.Manifest{}, fmt.Errorf("manifest's layer %d: %w", i, err)
		}
	}
	if m.Subject != nil {
		if err := CheckDescriptor(*m.Subject); err != nil {
			return v1.Manifest{}, fmt.Errorf("manifest's subject: %w", err)
		}
	}
	return m, nil
}

// ParseConfig parses and checks a container image's config: os and architecture are set, the root filesystem is of layers
// whose digests can be verified.
func ParseConfig(raw []byte) (v1.Image, error) {
	var img v1.Image
	if err := decode(raw, "config", MaxConfig, &img); err != nil {
		return v1.Image{}, err
	}
	switch {
	case img.OS == "":
		return v1.Image{}, fmt.Errorf("config has no os")
	case img.Architecture == "":
		return v1.Image{}, fmt.Errorf("config has no architecture")
	case img.RootFS.Type != "layers":
		return v1.Image{}, fmt.Errorf("config has a rootfs of type %.64q, want layers", img.RootFS.Type)
	case len(img.RootFS.DiffIDs) > MaxLayers:
		return v1.Image{}, fmt.Errorf("config has %d layers, the limit is %d", len(img.RootFS.DiffIDs), MaxLayers)
	}
	for i, d := range img.RootFS.DiffIDs {
		if err := reference.CheckVerifiable(d); err != nil {
			return v1.Image{}, fmt.Errorf("config's diff_id %d: %w", i, err)
		}
	}
	return img, nil
}

// decode decodes raw into each of targets.
func decode(raw []byte, what string, limit int, targets ...any) error {
	if len(raw) > limit {
		return fmt.Errorf("%s has %d bytes, the limit is %d", what, len(raw), limit)
	}
	if trimmed := bytes.TrimLeft(raw, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return fmt.Errorf("%s is not a JSON object", what)
	}
	for _, v := range targets {
		if err := ijson.Unmarshal(raw, v); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// checkHead checks schemaVersion and that the document, where it names its media type, agrees with its descriptor.
func checkHead(what string, schema int, own, described string, is func(string) bool) error {
	for _, mediaType := range []string{own, described} {
		if strings.HasPrefix(mediaType, dockerSchema1) {
			return fmt.Errorf("%s is of Docker's schema 1, which is not supported: save or push it again with a current tool", what)
		}
	}
	switch {
	case !is(described):
		return fmt.Errorf("%s expected, its descriptor has media type %.260q", what, described)
	case own != "" && own != described:
		return fmt.Errorf("%s says that its media type is %.260q, its descriptor says %q", what, own, described)
	case schema != 2:
		return fmt.Errorf("%s has schemaVersion %d, want 2", what, schema)
	}
	return nil
}

func has(field json.RawMessage) bool { return len(field) > 0 && string(field) != "null" }

// ID returns the image ID: the sha256 digest of the config's bytes (image-spec config.md).
func ID(config []byte) digest.Digest { return digest.SHA256.FromBytes(config) }
