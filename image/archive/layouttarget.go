package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/internal/rawjson"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/internal/sys/filelock"
)

const layoutText = `{"imageLayoutVersion":"1.0.0"}`

// layoutTarget is an OCI layout in a directory.
type layoutTarget struct {
	folder
	ref reference.Reference

	mu     sync.Mutex // held while index.json is changed
	closed bool
}

func createLayout(ref reference.Reference) (Target, error) {
	f, err := openFolder(ref.Path)
	if err != nil {
		return nil, err
	}
	t := &layoutTarget{folder: f, ref: ref}
	if err := t.prepare(); err != nil {
		f.root.Close()
		return nil, err
	}
	return t, nil
}

// prepare makes what a layout must have, or checks it.
func (t *layoutTarget) prepare() error {
	dir, err := openDir(t.ref.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	a := &Archive{ref: t.ref, src: dir}
	err = a.checkLayout()
	if errors.Is(err, fs.ErrNotExist) {
		err = t.write(v1.ImageLayoutFile, bytes.NewReader([]byte(layoutText)))
	}
	if err != nil {
		return err
	}
	if err := t.root.MkdirAll(v1.ImageBlobsDir+"/sha256", 0o755); err != nil {
		return err
	}
	_, err = a.index()
	if errors.Is(err, fs.ErrNotExist) {
		err = t.write(v1.ImageIndexFile, bytes.NewReader([]byte(`{"schemaVersion":2,"mediaType":"`+v1.MediaTypeImageIndex+`","manifests":[]}`)))
	}
	return err
}

func (t *layoutTarget) Exists(_ context.Context, d v1.Descriptor) (bool, error) {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return false, err
	}
	return t.has(blobPath(d.Digest), d.Size)
}

// Push gives what has a subject an entry without a name in index.json, by which readers find it.
func (t *layoutTarget) Push(ctx context.Context, d v1.Descriptor, r io.Reader) error {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return fmt.Errorf("write blob: %w", err)
	}
	name := blobPath(d.Digest)
	kept := keepDocument(d, r)
	err := t.root.MkdirAll(path.Dir(name), 0o755)
	if err == nil {
		err = t.push(ctx, name, d, kept)
	}
	if err != nil {
		return fmt.Errorf("write blob %s: %w", d.Digest, err)
	}
	if about := kept.referrer(d); about != nil {
		return t.enter(ctx, about.Descriptor, "")
	}
	return nil
}

// Tag makes ref the org.opencontainers.image.ref.name of d in index.json, whose other entries stay as they are.
func (t *layoutTarget) Tag(ctx context.Context, d v1.Descriptor, ref string) error {
	if ref == "" {
		ref = t.ref.Name
	}
	if err := checkTagged(ctx, t, d); err != nil {
		return fmt.Errorf("name %s: %w", d.Digest, err)
	}
	return t.enter(ctx, d, ref)
}

// enter gives d an entry in index.json.
func (t *layoutTarget) enter(ctx context.Context, d v1.Descriptor, ref string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	lock, err := t.lock(ctx)
	if err != nil {
		return fmt.Errorf("name %s %.300q: %w", d.Digest, ref, err)
	}
	defer lock.Close()
	dir, err := openDir(t.ref.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	raw, err := (&Archive{ref: t.ref, src: dir}).readFile(v1.ImageIndexFile, manifest.MaxManifest)
	if err == nil {
		raw, err = tagIndex(raw, d, ref)
	}
	if err == nil {
		err = t.write(v1.ImageIndexFile, bytes.NewReader(raw))
	}
	if err != nil {
		return fmt.Errorf("name %s %.300q: %w", d.Digest, ref, err)
	}
	return nil
}

// lock waits until no other process of tare changes index.json. Closing the file gives the lock up.
func (t *layoutTarget) lock(ctx context.Context) (*os.File, error) {
	f, err := t.root.Open(".")
	if err != nil {
		return nil, err
	}
	for {
		err := filelock.Try(f)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// tagIndex returns the index raw with an entry for d of the name ref, which no other entry has then. An entry of d without a name
// gives way to one with a name.
func tagIndex(raw []byte, d v1.Descriptor, ref string) ([]byte, error) {
	idx, err := rawjson.Parse(raw)
	if err != nil {
		return nil, err
	}
	old, err := idx.Array("manifests")
	if err != nil {
		return nil, err
	}
	entries := []json.RawMessage{}
	for _, entry := range old {
		var e v1.Descriptor
		if err := json.Unmarshal(entry, &e); err != nil {
			return nil, fmt.Errorf("decode JSON: %w", err)
		}
		name := e.Annotations[v1.AnnotationRefName]
		if name != "" && name != ref || name == "" && e.Digest != d.Digest {
			entries = append(entries, entry)
		}
	}
	own := v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform, ArtifactType: d.ArtifactType}
	if ref != "" {
		own.Annotations = map[string]string{v1.AnnotationRefName: ref}
	}
	entry, err := rawjson.Marshal(own)
	if err != nil {
		return nil, err
	}
	if err := idx.Set("manifests", append(entries, entry)); err != nil {
		return nil, err
	}
	out, err := idx.MarshalJSON()
	if err == nil && len(out) > manifest.MaxManifest {
		err = fmt.Errorf("%s would have %d bytes, the limit is %d", v1.ImageIndexFile, len(out), manifest.MaxManifest)
	}
	return out, err
}

func (t *layoutTarget) Close() error {
	if t.closed {
		return nil
	}
	t.closed = true
	err := t.sync()
	if e := t.root.Close(); err == nil {
		err = e
	}
	return err
}

func (t *layoutTarget) Abort() { t.Close() }
