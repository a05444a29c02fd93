// Package archive reads and writes container images in directories and files: OCI image layouts, as a directory or in a tar
// file, what docker save writes, in its old and new forms, and skopeo's dir:. Everything in them is a stranger's: documents are
// limited and checked, bytes are verified against size and digest while they are read, and no link leads out of the directory
// or file.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// Archive is an open directory or file with images, and a content.Source of them. Its methods and those of its images' layers
// may be called from several goroutines at once.
type Archive struct {
	ref reference.Reference
	src source

	mu    sync.Mutex
	made  map[digest.Digest][]byte // documents that the archive does not have, by what it has
	files map[digest.Digest]string // what a docker-archive keeps under names that are not digests
	top   *v1.Descriptor           // of a dir:, its manifest.json
}

// Image is one image of an archive. It can be used until the archive is closed.
type Image struct {
	Name           string        // in the archive; empty if it has none there
	ManifestDigest digest.Digest // empty for a docker-archive, which has no manifests
	ConfigRaw      []byte        // the config's bytes as they are stored
	Config         v1.Image      // the config, parsed and checked
	ID             digest.Digest // sha256 of ConfigRaw
	Layers         []Layer       // the lowest first; as many as Config.RootFS.DiffIDs
}

// Layer is one layer of an image.
type Layer struct {
	MediaType string        // OCI or Docker type; a hint only, real layers are mislabelled
	Digest    digest.Digest // of the stored bytes; empty where a docker-archive does not tell it
	Size      int64         // of the stored bytes
	DiffID    digest.Digest // of the uncompressed tar, which the reader has to verify unless it equals Digest

	open func() (io.ReadCloser, error)
}

// Open opens the stored bytes, compressed as they are. The reader never returns more than Size bytes. Where Digest is known,
// reaching the end verifies it: the read that would have returned io.EOF, or one before it, returns an error that names
// the digest expected and the digest found. So a caller that stops before io.EOF has verified nothing. The caller closes
// the reader.
func (l *Layer) Open() (io.ReadCloser, error) { return l.open() }

// Open opens the archive that ref names and checks that it is one of ref's transport. A tar file that is compressed or cannot
// be seeked is first written to a temporary file of at most 16 GiB, which has no name. The caller closes the archive.
func Open(ref reference.Reference) (*Archive, error) {
	a := &Archive{ref: ref, made: map[digest.Digest][]byte{}, files: map[digest.Digest]string{}}
	var err error
	switch ref.Transport {
	case reference.OCI, reference.Dir:
		a.src, err = openDir(ref.Path)
	case reference.OCIArchive, reference.DockerArchive:
		a.src, err = openTar(ref.Path)
	default:
		err = fmt.Errorf("transport %q is not of a directory or file", ref.Transport)
	}
	if err != nil {
		return nil, fmt.Errorf("open image %s: %w", ref, err)
	}
	if err := a.checkForm(); err != nil {
		a.Close()
		return nil, fmt.Errorf("open image %s: %w", ref, err)
	}
	return a, nil
}

// Close frees what the archive holds. Layer readers that are open fail afterwards.
func (a *Archive) Close() error { return a.src.Close() }

// Image finds the image that the reference names, for platform; the zero Platform is manifest.Host(). The config's os and
// architecture decide, whatever an index says. The layers' bytes are not read yet, but that they are there is checked.
func (a *Archive) Image(ctx context.Context, platform manifest.Platform) (*Image, error) {
	if platform == (manifest.Platform{}) {
		platform = manifest.Host()
	}
	find := a.ociImage
	switch a.ref.Transport {
	case reference.DockerArchive:
		find = a.dockerImage
	case reference.Dir:
		find = a.dirImage
	}
	img, err := find(ctx, platform)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", a.ref, err)
	}
	return img, nil
}

// checkForm tells early, and with a hint, that the archive is of another kind.
func (a *Archive) checkForm() error {
	const layout, docker = "oci-layout", "manifest.json"
	switch a.ref.Transport {
	case reference.Dir:
		return a.checkDir()
	case reference.DockerArchive:
		err := a.exists(docker)
		if errors.Is(err, fs.ErrNotExist) && a.exists(layout) == nil {
			return fmt.Errorf("%w; it holds an OCI layout: try oci-archive:%s", err, a.ref.Path)
		}
		return err
	}
	err := a.checkLayout()
	if errors.Is(err, fs.ErrNotExist) && a.ref.Transport == reference.OCIArchive && a.exists(docker) == nil {
		return fmt.Errorf("%w; it was written by docker save: try docker-archive:%s", err, a.ref.Path)
	}
	return err
}

func (a *Archive) exists(name string) error {
	f, err := a.src.open(name)
	if err == nil {
		f.Close()
	}
	return err
}

// readFile reads a small file whole.
func (a *Archive) readFile(name string, limit int64) ([]byte, error) {
	f, err := a.src.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.size > limit {
		return nil, fmt.Errorf("read %s: it has %d bytes, the limit is %d", name, f.size, limit)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	if err == nil && int64(len(data)) != f.size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// newImage puts an image together from its config, checking the number of layers and, unless it is the zero Platform, the
// platform.
func newImage(raw []byte, platform manifest.Platform, layers []Layer) (*Image, error) {
	config, err := manifest.ParseConfig(raw)
	if err != nil {
		return nil, err
	}
	if platform != (manifest.Platform{}) && platform.Rank(config.OS, config.Architecture, config.Variant) < 0 {
		return nil, &platformError{config: config.Platform, want: platform}
	}
	if len(layers) != len(config.RootFS.DiffIDs) {
		return nil, fmt.Errorf("image has %d layers, its config has %d diff_ids", len(layers), len(config.RootFS.DiffIDs))
	}
	return &Image{ConfigRaw: raw, Config: config, ID: manifest.ID(raw), Layers: layers}, nil
}

// platformError is an image's config that is for another platform than wanted.
type platformError struct {
	config v1.Platform
	want   manifest.Platform
}

func (e *platformError) platform() string {
	p := e.config.OS + "/" + e.config.Architecture
	if e.config.Variant != "" {
		p += "/" + e.config.Variant
	}
	return p
}

func (e *platformError) Error() string {
	return fmt.Sprintf("image is for platform %.200q, wanted is %s; ask for its platform to take it all the same", e.platform(), e.want)
}
