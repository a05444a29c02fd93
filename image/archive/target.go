package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// Target is a directory or file that takes images. Its methods may be called from several goroutines at once, except for Close.
// An empty name in Tag is the one of the Reference that it was opened for.
type Target interface {
	content.Target
	// Close completes what was pushed and tagged; a file appears under its name only now, whole. Only the first call counts.
	Close() error
	// Abort ends without completing, after an error: a file is not made, and one that was there is as it was. After Close it
	// does nothing.
	Abort()
}

// CreateOptions of Create.
type CreateOptions struct {
	Time time.Time // of a tar file's members; the zero Time is the epoch, so that the same content gives the same bytes
}

// Create opens ref for writing. An OCI layout, as a directory, may exist; what it has stays. So may a directory with one image
// (dir:), whose image is replaced. A tar file is replaced on Close; until then what is pushed is in a file without a name beside
// it. A docker-archive is written as WriteSave writes it. The caller calls Close or Abort.
func Create(ref reference.Reference, o CreateOptions) (Target, error) {
	var t Target
	var err error
	switch {
	case ref.Index >= 0:
		err = fmt.Errorf("a position is not a name that an image can be given")
	case ref.Transport == reference.OCI:
		t, err = createLayout(ref)
	case ref.Transport == reference.Dir:
		t, err = createDir(ref)
	case ref.Transport == reference.OCIArchive, ref.Transport == reference.DockerArchive:
		t, err = createTar(ref, o)
	default:
		err = fmt.Errorf("transport %q is not of a directory or file", ref.Transport)
	}
	if err != nil {
		return nil, fmt.Errorf("write image %s: %w", ref, err)
	}
	return t, nil
}

// folder is a directory that images are written to. Nothing is written outside of it, whatever links it has.
type folder struct{ root *os.Root }

func openFolder(path string) (folder, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return folder{}, err
	}
	root, err := os.OpenRoot(path)
	return folder{root}, err
}

// has tells whether the regular file name has size bytes.
func (f folder) has(name string, size int64) (bool, error) {
	info, err := f.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return info.Mode().IsRegular() && info.Size() == size, nil
}

// write puts what r yields into the file name, mode 0644, in place of what has the name. After an error, or a power cut, name is
// as it was.
func (f folder) write(name string, r io.Reader) error {
	tmp := ".tare-" + strconv.FormatUint(rand.Uint64(), 36)
	w, err := f.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	if err == nil {
		err = w.Chmod(0o644)
	}
	if err == nil {
		err = w.Sync()
	}
	if e := w.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = f.root.Rename(tmp, name)
	}
	if err != nil {
		f.root.Remove(tmp)
	}
	return err
}

// push writes the blob d, verified, unless it is there.
func (f folder) push(ctx context.Context, name string, d v1.Descriptor, r io.Reader) error {
	checked, err := content.Verify(contextReader{ctx, r}, d)
	if err != nil {
		return err
	}
	if ok, err := f.has(name, d.Size); ok || err != nil {
		return err
	}
	return f.write(name, checked)
}

// sync makes the directory's names last through a power cut.
func (f folder) sync() error {
	d, err := f.root.Open(".")
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

// checkTagged checks what a target's Tag was asked for.
func checkTagged(ctx context.Context, t content.Target, d v1.Descriptor) error {
	if err := manifest.CheckDescriptor(d); err != nil {
		return err
	}
	ok, err := t.Exists(ctx, d)
	if err == nil && !ok {
		err = notFound{fmt.Errorf("%s was not pushed", d.Digest)}
	}
	return err
}
