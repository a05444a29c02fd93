package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// dirTarget is a directory with the files of one image.
type dirTarget struct {
	folder
	ref reference.Reference

	mu     sync.Mutex
	known  map[string]bool // files that belong to the image that is being written
	top    digest.Digest   // what manifest.json holds, once it is written
	closed bool
}

func createDir(ref reference.Reference) (Target, error) {
	f, err := openFolder(ref.Path)
	if err != nil {
		return nil, err
	}
	t := &dirTarget{folder: f, ref: ref, known: map[string]bool{dirVersion: true, dirManifest: true}}
	if err := t.prepare(); err != nil {
		f.root.Close()
		return nil, err
	}
	return t, nil
}

// prepare refuses a directory with something else in it.
func (t *dirTarget) prepare() error {
	dir, err := openDir(t.ref.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	raw, err := (&Archive{ref: t.ref, src: dir}).readFile(dirVersion, 1<<10)
	if err == nil && strings.HasPrefix(string(raw), dirVersionHead) {
		return nil
	}
	names, readErr := t.names()
	switch {
	case readErr != nil:
		return readErr
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case len(names) > 0:
		return fmt.Errorf("the directory is not empty, and has no image in the form of dir: that could be replaced")
	}
	return t.write(dirVersion, strings.NewReader(dirVersionText))
}

func (t *dirTarget) names() ([]string, error) {
	d, err := t.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (t *dirTarget) Exists(_ context.Context, d v1.Descriptor) (bool, error) {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.top == d.Digest {
		return true, nil
	}
	ok, err := t.has(dirName(d), d.Size)
	if ok {
		t.known[dirName(d)] = true
	}
	return ok, err
}

func (t *dirTarget) Push(ctx context.Context, d v1.Descriptor, r io.Reader) error {
	ok, err := t.Exists(ctx, d)
	if err == nil && !ok {
		err = t.push(ctx, dirName(d), d, r)
	}
	if err != nil {
		return fmt.Errorf("write blob %s: %w", d.Digest, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[dirName(d)] = true
	return nil
}

// Tag makes d the directory's manifest.json. A name has no place in a dir:.
func (t *dirTarget) Tag(ctx context.Context, d v1.Descriptor, _ string) error {
	if !manifest.IsDocument(d.MediaType) {
		return fmt.Errorf("%s is of media type %q: manifest.json is an index or a manifest", d.Digest, d.MediaType)
	}
	if err := checkTagged(ctx, t, d); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.top {
	case d.Digest:
		return nil
	case "":
	default:
		return fmt.Errorf("dir: holds one image: %s is there already", t.top)
	}
	dir, err := openDir(t.ref.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	raw, err := (&Archive{ref: t.ref, src: dir}).readFile(dirName(d), manifest.MaxManifest)
	if err == nil && d.Digest.Algorithm().FromBytes(raw) != d.Digest {
		err = fmt.Errorf("%s is not what it was", dirName(d))
	}
	if err == nil {
		err = t.write(dirManifest, bytes.NewReader(raw))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", dirManifest, err)
	}
	t.top = d.Digest
	delete(t.known, dirName(d)) // the document at the top has no other name
	return nil
}

// Close removes the files of the image that was there before.
func (t *dirTarget) Close() error {
	if t.closed {
		return nil
	}
	t.closed = true
	err := t.sweep()
	if err == nil {
		err = t.sync()
	}
	if e := t.root.Close(); err == nil {
		err = e
	}
	return err
}

func (t *dirTarget) sweep() error {
	if t.top == "" {
		return nil
	}
	names, err := t.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if t.known[name] || !isDirFile(name) {
			continue
		}
		if err := t.root.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// isDirFile tells whether a name is one that a dir: gives its files, so that it may be removed.
func isDirFile(name string) bool {
	if strings.HasPrefix(name, "signature-") {
		return true // signatures of the image that was there
	}
	hex := strings.TrimSuffix(name, dirSuffix)
	return (len(hex) == 64 || len(hex) == 128) && strings.Trim(hex, "0123456789abcdef") == ""
}

func (t *dirTarget) Abort() {
	if !t.closed {
		t.closed = true
		t.root.Close()
	}
}
