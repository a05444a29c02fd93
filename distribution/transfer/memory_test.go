package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
)

// memory is a place that keeps content in memory and notes what is done to it.
type memory struct {
	t *testing.T

	mu      sync.Mutex
	blobs   map[digest.Digest][]byte
	tags    map[string]v1.Descriptor
	log     []string // "fetch X", "push X", "tag X", X a name that was given by add
	names   map[digest.Digest]string
	subject map[digest.Digest][]v1.Descriptor
	strict  bool                          // a document is taken only when all that it refers to is there
	refuse  func(d v1.Descriptor) error   // called by Push
	read    func(io.Reader) io.ReadCloser // wraps what Fetch returns
	active  int
	most    int // of active
}

func newMemory(t *testing.T) *memory {
	return &memory{t: t, blobs: map[digest.Digest][]byte{}, tags: map[string]v1.Descriptor{}, names: map[digest.Digest]string{}, subject: map[digest.Digest][]v1.Descriptor{}}
}

// add puts content in, under a name for the log.
func (m *memory) add(name, mediaType string, data []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	m.blobs[d.Digest], m.names[d.Digest] = data, name
	return d
}

func (m *memory) addJSON(name, mediaType string, v any) v1.Descriptor {
	data, err := json.MarshalIndent(v, " ", "   ") // odd on purpose: bytes have to stay
	if err != nil {
		m.t.Fatal(err)
	}
	return m.add(name, mediaType, data)
}

// image adds an image with layers of its own for a platform.
func (m *memory) image(name, arch string, layers ...string) v1.Descriptor {
	cfg := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: arch}, RootFS: v1.RootFS{Type: "layers"}}
	var ds []v1.Descriptor
	for _, l := range layers {
		ds = append(ds, m.add(l, v1.MediaTypeImageLayer, []byte(l)))
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, digest.FromString(l))
	}
	d := m.manifest(name, v1.Manifest{Config: m.addJSON(name+".config", v1.MediaTypeImageConfig, cfg), Layers: ds})
	d.Platform = &v1.Platform{OS: "linux", Architecture: arch}
	return d
}

func (m *memory) manifest(name string, doc v1.Manifest) v1.Descriptor {
	doc.SchemaVersion, doc.MediaType = 2, v1.MediaTypeImageManifest
	d := m.addJSON(name, doc.MediaType, doc)
	if doc.Subject != nil {
		m.subject[doc.Subject.Digest] = append(m.subject[doc.Subject.Digest], d)
	}
	return d
}

func (m *memory) index(name string, entries ...v1.Descriptor) v1.Descriptor {
	doc := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: entries}
	doc.SchemaVersion = 2
	return m.addJSON(name, doc.MediaType, doc)
}

func (m *memory) note(verb string, d v1.Descriptor) {
	m.log = append(m.log, verb+" "+m.names[d.Digest])
}

func (m *memory) Fetch(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.blobs[d.Digest]
	if !ok {
		return nil, fmt.Errorf("%s: %w", d.Digest, content.ErrNotFound)
	}
	m.note("fetch", d)
	if m.read != nil {
		return m.read(bytes.NewReader(data[offset:])), nil
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), nil
}

func (m *memory) Resolve(_ context.Context, ref string) (v1.Descriptor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d, ok := m.tags[ref]; ok {
		return d, nil
	}
	return v1.Descriptor{}, content.ErrNotFound
}

func (m *memory) Exists(_ context.Context, d v1.Descriptor) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.blobs[d.Digest]
	return ok, nil
}

func (m *memory) Push(_ context.Context, d v1.Descriptor, r io.Reader) error {
	m.mu.Lock()
	m.active++
	m.most = max(m.most, m.active)
	m.mu.Unlock()
	v, err := content.Verify(r, d)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(v)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active--
	if err != nil {
		return err
	}
	if m.refuse != nil {
		if err := m.refuse(d); err != nil {
			return err
		}
	}
	refs, err := manifest.Refer(data, d.MediaType)
	if err != nil {
		return err
	}
	for _, child := range refs.Children {
		if _, ok := m.blobs[child.Digest]; !ok && m.strict {
			return errors.New("MANIFEST_BLOB_UNKNOWN")
		}
	}
	if _, ok := m.blobs[d.Digest]; ok {
		m.t.Errorf("%s is pushed twice", d.Digest)
	}
	m.note("push", d)
	m.blobs[d.Digest] = data
	return nil
}

func (m *memory) Tag(_ context.Context, d v1.Descriptor, ref string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("tag", d)
	m.tags[ref] = d
	return nil
}

func (m *memory) Referrers(_ context.Context, d v1.Descriptor, _ string) ([]v1.Descriptor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.subject[d.Digest], nil
}

// target returns an empty place that knows m's names for things.
func (m *memory) target() *memory {
	dst := newMemory(m.t)
	dst.names, dst.strict = m.names, true
	return dst
}

// pushed returns the names of what was pushed, sorted.
func (m *memory) pushed() []string {
	var names []string
	for _, l := range m.log {
		var verb, name string
		if _, err := fmt.Sscan(l, &verb, &name); err == nil && verb == "push" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
