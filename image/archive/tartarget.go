package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/internal/spool"
	"github.com/tare-oci/tare/image/reference"
)

// tarTarget is a tar file that is written when all is known. Until then its blobs are one after the other in a file without a
// name, so that nothing is left behind whenever the process ends.
type tarTarget struct {
	ref     reference.Reference
	options CreateOptions
	path    string   // of the file, links resolved
	out     *os.File // what is there already, if it is no regular file: a pipe, say
	spool   *os.File

	mu     sync.Mutex
	end    int64 // of what is reserved in spool
	blobs  map[digest.Digest]region
	tagged []taggedContent
	about  []v1.Descriptor // what has a subject
	closed bool
}

// region is a blob's place in the spool.
type region struct{ offset, size int64 }

type taggedContent struct {
	d    v1.Descriptor
	name string
}

func createTar(ref reference.Reference, o CreateOptions) (Target, error) {
	t := &tarTarget{ref: ref, options: o, path: ref.Path, blobs: map[digest.Digest]region{}}
	if real, err := filepath.EvalSymlinks(ref.Path); err == nil {
		t.path = real
	}
	info, err := os.Stat(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular():
		t.spool, err = spool.In(filepath.Dir(t.path))
	case err == nil && info.IsDir():
		err = fmt.Errorf("%s is a directory", t.path)
	case err == nil:
		if t.out, err = os.OpenFile(t.path, os.O_WRONLY, 0); err == nil {
			t.spool, err = spool.New()
		}
	}
	if err != nil {
		t.Abort()
		return nil, err
	}
	return t, nil
}

func (t *tarTarget) find(d v1.Descriptor) (region, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.blobs[d.Digest]
	return r, ok && r.size == d.Size
}

func (t *tarTarget) Exists(_ context.Context, d v1.Descriptor) (bool, error) {
	_, ok := t.find(d)
	return ok, nil
}

func (t *tarTarget) Push(ctx context.Context, d v1.Descriptor, r io.Reader) error {
	if _, ok := t.find(d); ok {
		return nil
	}
	kept := keepDocument(d, r)
	checked, err := content.Verify(contextReader{ctx, kept}, d)
	if err != nil {
		return fmt.Errorf("write blob: %w", err)
	}
	t.mu.Lock()
	at := region{t.end, d.Size}
	t.end += d.Size
	t.mu.Unlock()
	if at.offset+at.size < at.offset {
		return fmt.Errorf("write blob %s: its size of %d bytes is too large", d.Digest, d.Size)
	}
	if _, err := io.Copy(io.NewOffsetWriter(t.spool, at.offset), checked); err != nil {
		return fmt.Errorf("write blob %s: %w", d.Digest, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blobs[d.Digest] = at
	if about := kept.referrer(d); about != nil {
		t.about = append(t.about, about.Descriptor)
	}
	return nil
}

// Tag gives d a name: for a docker-archive one by reference.ParseName, for an OCI layout any.
func (t *tarTarget) Tag(ctx context.Context, d v1.Descriptor, ref string) error {
	if ref == "" {
		ref = t.ref.Name
	}
	if err := checkTagged(ctx, t, d); err != nil {
		return fmt.Errorf("name %s: %w", d.Digest, err)
	}
	if t.ref.Transport == reference.DockerArchive && ref != "" {
		if _, err := reference.ParseName(ref); err != nil {
			return fmt.Errorf("name %s: %w", d.Digest, err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, other := range t.tagged {
		if other.name == ref && (ref != "" || other.d.Digest == d.Digest) {
			t.tagged[i].d = d
			return nil
		}
	}
	t.tagged = append(t.tagged, taggedContent{d, ref})
	return nil
}

// Fetch and Resolve make what was pushed a content.Source for WriteSave.
func (t *tarTarget) Fetch(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	at, ok := t.find(d)
	if !ok {
		return nil, notFound{fmt.Errorf("blob %s was not pushed", d.Digest)}
	}
	return io.NopCloser(io.NewSectionReader(t.spool, at.offset+offset, at.size-offset)), nil
}

func (t *tarTarget) Resolve(_ context.Context, ref string) (v1.Descriptor, error) {
	return v1.Descriptor{}, notFound{fmt.Errorf("name %.300q cannot be asked for while the file is written", ref)}
}

// Close writes the file.
func (t *tarTarget) Close() error {
	if t.closed {
		return nil
	}
	defer t.Abort()
	if t.out != nil {
		return t.write(t.out)
	}
	tmp, err := os.CreateTemp(filepath.Dir(t.path), ".tare-")
	if err != nil {
		return fmt.Errorf("write image %s: %w", t.ref, err)
	}
	err = t.write(tmp)
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), t.path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("write image %s: %w", t.ref, err)
	}
	return nil
}

func (t *tarTarget) write(w io.Writer) error {
	s := saver{ctx: context.Background(), members: tarMembers{}}
	if len(t.tagged) == 0 {
		return errors.New("nothing was tagged, so that nothing could be found in it")
	}
	fill := t.fillLayout
	if t.ref.Transport == reference.DockerArchive {
		fill = t.fillDocker
	}
	if err := fill(&s); err != nil {
		return err
	}
	return s.members.write(s.ctx, w, t.options.Time)
}

// fillDocker adds what WriteSave writes of the images that are tagged.
func (t *tarTarget) fillDocker(s *saver) error {
	for _, tag := range t.tagged {
		img := SaveImage{Source: t, Descriptor: tag.d}
		if tag.name != "" {
			img.Names = []string{tag.name}
		}
		if err := s.add(img); err != nil {
			return err
		}
	}
	if len(s.docker) == 0 {
		return errors.New("a docker-archive is for container images only, and there is none: try oci-archive:")
	}
	return s.finishCombined()
}

// fillLayout adds everything that was pushed, also what no tag leads to: what refers to an image, for one.
func (t *tarTarget) fillLayout(s *saver) error {
	for _, tag := range t.tagged {
		var annotations map[string]string
		if tag.name != "" {
			annotations = map[string]string{v1.AnnotationRefName: tag.name}
		}
		s.entry(tag.d, annotations)
		t.about = slices.DeleteFunc(t.about, func(d v1.Descriptor) bool { return d.Digest == tag.d.Digest })
	}
	slices.SortFunc(t.about, func(a, b v1.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	for _, d := range t.about {
		s.entry(d, nil)
	}
	for d, at := range t.blobs {
		s.members.blob(t, v1.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: at.size})
	}
	return s.layout()
}

func (t *tarTarget) Abort() {
	if t.closed {
		return
	}
	t.closed = true
	for _, f := range []*os.File{t.spool, t.out} {
		if f != nil {
			f.Close()
		}
	}
}

var _ content.Source = (*tarTarget)(nil)
