package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
)

// A library reads the documents of a graph, each once however often it is named, keeps them, and watches the limits. It may
// be used from several goroutines at once.
type library struct {
	src    content.Fetcher
	limits Limits
	// early, if it is set, is called before a configuration is read.
	early func(ctx context.Context, d v1.Descriptor) error

	mu    sync.Mutex
	known map[digest.Digest]v1.Descriptor // everything that was named
	raw   map[digest.Digest][]byte        // what was read
	bytes int64                           // of raw
	total int64                           // sizes in known
}

func newLibrary(src content.Fetcher, l Limits) *library {
	return &library{src: src, limits: l.withDefaults(), known: map[digest.Digest]v1.Descriptor{}, raw: map[digest.Digest][]byte{}}
}

// meet notes that d was named. first tells whether it was not before. A digest stands for one thing: who names it another size,
// or a document as something else, lies to one of its readers.
func (l *library) meet(d v1.Descriptor) (first bool, err error) {
	if err := manifest.CheckDescriptor(d); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old, ok := l.known[d.Digest]
	switch {
	case !ok:
		l.known[d.Digest] = d
		if int64(len(l.known)) > l.limits.Descriptors {
			return false, &LimitError{"Descriptors", l.limits.Descriptors}
		}
		return true, nil
	case old.Size != d.Size:
		return false, fmt.Errorf("%s is said to have %d bytes, and elsewhere %d", d.Digest, d.Size, old.Size)
	case old.MediaType != d.MediaType && (manifest.IsDocument(old.MediaType) || manifest.IsDocument(d.MediaType)):
		return false, fmt.Errorf("%s is ambiguous: it is said to be %.100q, and elsewhere %.100q", d.Digest, d.MediaType, old.MediaType)
	}
	return false, nil
}

// charge counts the bytes of something that will be copied.
func (l *library) charge(d v1.Descriptor) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.Size > l.limits.TotalBytes-l.total {
		return &LimitError{"TotalBytes", l.limits.TotalBytes}
	}
	l.total += d.Size
	return nil
}

// read returns the verified bytes of a document or a configuration.
func (l *library) read(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
	l.mu.Lock()
	raw, ok := l.raw[d.Digest]
	if !ok {
		l.bytes += d.Size
	}
	over := l.bytes > l.limits.DocumentBytes || d.Size < 0
	l.mu.Unlock()
	if ok {
		return raw, nil
	}
	if over {
		return nil, &LimitError{"DocumentBytes", l.limits.DocumentBytes}
	}
	raw, err := content.ReadAll(ctx, l.src, d, limit)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.raw[d.Digest] = raw
	l.mu.Unlock()
	return raw, nil
}

// refer reads the document that d names and returns what it refers to.
func (l *library) refer(ctx context.Context, d v1.Descriptor) (manifest.References, error) {
	if !manifest.IsDocument(d.MediaType) {
		return manifest.Refer(nil, d.MediaType)
	}
	raw, err := l.read(ctx, d, manifest.MaxManifest)
	if err != nil {
		return manifest.References{}, err
	}
	refs, err := manifest.Refer(raw, d.MediaType)
	if err != nil {
		return manifest.References{}, fmt.Errorf("%s: %w", d.Digest, err)
	}
	return refs, nil
}

// Fetch gives what was read from memory, and data that a descriptor has with it, which CheckDescriptor has verified. The rest
// comes from the source.
func (l *library) Fetch(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	l.mu.Lock()
	raw, ok := l.raw[d.Digest]
	l.mu.Unlock()
	if !ok && d.Data != nil {
		raw, ok = d.Data, true
	}
	if ok {
		if offset < 0 || offset > int64(len(raw)) {
			return nil, fmt.Errorf("read %s from byte %d of %d: out of range", d.Digest, offset, len(raw))
		}
		return readCloser(raw[offset:]), nil
	}
	return l.src.Fetch(ctx, d, offset)
}

func readCloser(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }
