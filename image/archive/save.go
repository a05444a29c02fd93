package archive

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/internal/rawjson"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// SaveFormat is a form of the tar file that WriteSave writes.
type SaveFormat string

// The forms of WriteSave.
const (
	// Combined is an OCI layout with the manifest.json of docker save: docker load and podman load, old and new, skopeo's
	// docker-archive: and oci-archive:, and ctr images import read it. Blobs are kept byte for byte, compressed as they are; of
	// zstd, Docker before version 23 knows nothing: for it there is Legacy.
	Combined SaveFormat = "combined"
	// Legacy is what docker save wrote from 2016 (1.10) to 2023 (24): uncompressed layers in directories with synthetic ids.
	Legacy SaveFormat = "legacy"
)

// SaveImage is an image to save.
type SaveImage struct {
	Names  []string // by reference.ParseName; without one the image can be loaded by its digest only
	Source content.Source
	// Descriptor is of its manifest, or of an index for several platforms.
	Descriptor v1.Descriptor
}

// SaveOptions of WriteSave. The zero value saves every platform that the source has, in the form Combined.
type SaveOptions struct {
	Format SaveFormat
	// Platforms are those of an index that are saved; each has to be there. The index keeps its bytes. If there is none,
	// every entry is saved of which the source has all blobs.
	Platforms []manifest.Platform
	Time      time.Time // of the tar file's members; the zero Time is the epoch
}

// WriteSave writes images to w as one tar file, in one pass, in the order of the members' names; what several images share is
// there once. The same images give the same bytes. For readers that know no indexes, manifest.json has of each index the image
// for the first of o.Platforms, or else for this host, or else the first. After an error w has part of the file.
func WriteSave(ctx context.Context, w io.Writer, images []SaveImage, o SaveOptions) error {
	s := saver{ctx: ctx, options: o, members: tarMembers{}}
	for _, img := range images {
		if err := s.add(img); err != nil {
			return fmt.Errorf("save image %s: %w", imageLabel(img), err)
		}
	}
	var err error
	switch o.Format {
	case Combined, "":
		err = s.finishCombined()
	case Legacy:
		s.members = tarMembers{}
		err = s.finishLegacy()
	default:
		err = fmt.Errorf("unknown format %q: want %s or %s", o.Format, Combined, Legacy)
	}
	if err == nil {
		err = s.members.write(ctx, w, o.Time)
	}
	if err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

func imageLabel(img SaveImage) string {
	if len(img.Names) > 0 {
		return img.Names[0]
	}
	return img.Descriptor.Digest.String()
}

// saver collects the members of one tar file.
type saver struct {
	ctx     context.Context
	options SaveOptions
	members tarMembers
	entries []v1.Descriptor // of index.json
	docker  []*savedImage   // of manifest.json
}

// savedImage is an image for manifest.json.
type savedImage struct {
	tags      []string // full: podman takes docker.io's short names for those of localhost
	source    content.Source
	manifest  v1.Manifest
	configRaw []byte
	config    v1.Image
}

// add collects what belongs to one image.
func (s *saver) add(img SaveImage) error {
	g := gatherer{saver: s, source: img.Source, have: map[digest.Digest]bool{}}
	if err := g.document(img.Descriptor, s.options.Platforms, 0); err != nil {
		return err
	}
	tags := []string{}
	for _, text := range img.Names {
		n, err := reference.ParseName(text)
		if err != nil {
			return err
		}
		annotations := map[string]string{containerdName: n.String()}
		if n.Tag != "" {
			annotations[v1.AnnotationRefName] = n.Tag
			if n.Digest == "" {
				tags = append(tags, n.String())
			}
		}
		s.entry(img.Descriptor, annotations)
	}
	if len(img.Names) == 0 {
		s.entry(img.Descriptor, nil)
	}
	best := s.choose(g.images)
	if best == nil {
		return nil // an artifact, for readers of the layout
	}
	for _, other := range s.docker {
		if other.manifest.Config.Digest == best.manifest.Config.Digest && sameLayers(other.manifest, best.manifest) {
			other.tags = append(other.tags, tags...)
			return nil
		}
	}
	best.tags = tags
	s.docker = append(s.docker, best)
	return nil
}

// entry adds d to index.json.
func (s *saver) entry(d v1.Descriptor, annotations map[string]string) {
	s.entries = append(s.entries, v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size,
		Platform: d.Platform, ArtifactType: d.ArtifactType, Annotations: annotations})
}

// familiar returns a full name as Docker shows it, and its tag.
func familiar(full string) (name, tag string) {
	i := strings.LastIndexByte(full, ':')
	name, tag = full[:i], full[i+1:]
	if path, ok := strings.CutPrefix(name, "docker.io/"); ok {
		name = strings.TrimPrefix(path, "library/")
	}
	return name, tag
}

func sameLayers(a, b v1.Manifest) bool {
	return slices.EqualFunc(a.Layers, b.Layers, func(x, y v1.Descriptor) bool { return x.Digest == y.Digest })
}

// choose returns the image for readers that know no indexes, nil if there is none.
func (s *saver) choose(images []*savedImage) *savedImage {
	want := manifest.Host()
	if len(s.options.Platforms) > 0 {
		want = s.options.Platforms[0]
	}
	var best *savedImage
	bestRank := -1
	for _, img := range images {
		rank := want.Rank(img.config.OS, img.config.Architecture, img.config.Variant)
		if best == nil || rank >= 0 && (bestRank < 0 || rank < bestRank) {
			best, bestRank = img, rank
		}
	}
	return best
}

// dockerRecord is an image in manifest.json as Docker writes it.
type dockerRecord struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// finishCombined adds index.json and what belongs to docker save.
func (s *saver) finishCombined() error {
	if err := s.layout(); err != nil || len(s.docker) == 0 {
		return err
	}
	records := make([]dockerRecord, len(s.docker))
	for i, img := range s.docker {
		records[i] = dockerRecord{Config: blobPath(img.manifest.Config.Digest), RepoTags: orNil(img.tags), Layers: []string{}}
		for _, d := range img.manifest.Layers {
			records[i].Layers = append(records[i].Layers, blobPath(d.Digest))
		}
	}
	top := func(img *savedImage) string { return img.manifest.Layers[len(img.manifest.Layers)-1].Digest.Encoded() }
	return s.dockerFiles(records, top)
}

// dockerFiles adds manifest.json and repositories. top tells the id of the topmost layer of an image that has one.
func (s *saver) dockerFiles(records []dockerRecord, top func(*savedImage) string) error {
	raw, err := rawjson.Marshal(records)
	if err != nil {
		return err
	}
	s.members.bytes("manifest.json", append(raw, '\n'))
	repositories := map[string]map[string]string{}
	for _, img := range s.docker {
		if len(img.manifest.Layers) == 0 {
			continue
		}
		for _, text := range img.tags {
			name, tag := familiar(text)
			if repositories[name] == nil {
				repositories[name] = map[string]string{}
			}
			repositories[name][tag] = top(img)
		}
	}
	if len(repositories) == 0 {
		return nil
	}
	if raw, err = rawjson.Marshal(repositories); err == nil {
		s.members.bytes("repositories", append(raw, '\n'))
	}
	return err
}

// layout adds the files that make an OCI layout.
func (s *saver) layout() error {
	raw, err := rawjson.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex,
		Manifests: append([]v1.Descriptor{}, s.entries...)})
	if err == nil && len(raw) > manifest.MaxManifest {
		err = fmt.Errorf("%s would have %d bytes, the limit is %d", v1.ImageIndexFile, len(raw), manifest.MaxManifest)
	}
	s.members.bytes(v1.ImageIndexFile, raw)
	s.members.bytes(v1.ImageLayoutFile, []byte(layoutText))
	return err
}

// orNil returns nil for an empty list, which Docker writes as null.
func orNil(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}
