// Package imagetest builds images for tests: OCI layouts and docker archives, in memory, as a directory or as a tar file.
// The same description always gives the same bytes.
package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// Image describes an image.
type Image struct {
	Name   string   // with tag, for example busybox:latest; may be empty
	Config v1.Image // RootFS is filled in, OS and Architecture are the host's if empty
	Layers []Layer  // the lowest first
}

// Layer describes a layer.
type Layer struct {
	Tar         []byte
	Compression string // "", gzip or zstd
}

// Entry describes a tar entry. The mode of a header without one is 0755 for directories and 0644 for files; a header with
// content and without a type is a file.
type Entry struct {
	tar.Header
	Content string
}

// Tar returns a tar archive of entries, in their order.
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.Content))
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(h.Name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.Mode == 0 && h.Typeflag != tar.TypeXGlobalHeader {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		check(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(e.Content))
		check(t, err)
	}
	check(t, w.Close())
	return buf.Bytes()
}

// Busybox returns the tar of a small root filesystem that runs: /bin/busybox with sh and true, /etc/passwd, /tmp. The test is
// skipped where there is no static busybox to make it from.
func Busybox(t testing.TB) []byte {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("busybox-static is not installed: %v", err)
	}
	link := func(name, to string) Entry {
		return Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}}
	}
	return Tar(t,
		Entry{Header: tar.Header{Name: "bin/"}},
		Entry{Header: tar.Header{Name: "bin/busybox", Mode: 0o755}, Content: string(program)},
		link("bin/sh", "busybox"), link("bin/true", "busybox"),
		Entry{Header: tar.Header{Name: "etc/"}},
		Entry{Header: tar.Header{Name: "etc/passwd"}, Content: "root:x:0:0:root:/root:/bin/sh\n"},
		Entry{Header: tar.Header{Name: "tmp/", Mode: 0o1777}},
	)
}

// Bytes returns the layer as it is stored, its media type and its diff ID.
func (l Layer) Bytes(t testing.TB) (stored []byte, mediaType string, diffID digest.Digest) {
	t.Helper()
	diffID = digest.FromBytes(l.Tar)
	var buf bytes.Buffer
	switch l.Compression {
	case "":
		return l.Tar, v1.MediaTypeImageLayer, diffID
	case "gzip":
		w := gzip.NewWriter(&buf)
		_, err := w.Write(l.Tar)
		check(t, err)
		check(t, w.Close())
		return buf.Bytes(), v1.MediaTypeImageLayerGzip, diffID
	case "zstd":
		w, err := zstd.NewWriter(&buf)
		check(t, err)
		_, err = w.Write(l.Tar)
		check(t, err)
		check(t, w.Close())
		return buf.Bytes(), v1.MediaTypeImageLayerZstd, diffID
	}
	t.Fatalf("unknown compression %q", l.Compression)
	return nil, "", ""
}

// JSON returns v's JSON text.
func JSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	check(t, err)
	return data
}

// Files are the files of a layout or archive by their names, for tests to change before they are written.
type Files map[string][]byte

// Add adds a blob and returns its descriptor.
func (f Files) Add(mediaType string, data []byte) v1.Descriptor {
	d := digest.FromBytes(data)
	f["blobs/sha256/"+d.Encoded()] = data
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// SetIndex makes entries the layout's index.json.
func (f Files) SetIndex(t testing.TB, entries ...v1.Descriptor) {
	t.Helper()
	f[v1.ImageIndexFile] = JSON(t, v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: append([]v1.Descriptor{}, entries...)})
}

// AddImage adds an image's blobs and returns the descriptor of its manifest, with platform and name.
func (f Files) AddImage(t testing.TB, img Image) v1.Descriptor {
	t.Helper()
	layers := []v1.Descriptor{}
	for _, l := range img.Layers {
		stored, mediaType, _ := l.Bytes(t)
		layers = append(layers, f.Add(mediaType, stored))
	}
	config := img.config(t)
	d := f.Add(v1.MediaTypeImageManifest, JSON(t, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: f.Add(v1.MediaTypeImageConfig, JSON(t, config)), Layers: layers,
	}))
	d.Platform = &v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}
	if img.Name != "" {
		d.Annotations = map[string]string{v1.AnnotationRefName: img.Name}
	}
	return d
}

// config returns the image's config with its defaults and its layers' diff IDs.
func (img Image) config(t testing.TB) v1.Image {
	t.Helper()
	c := img.Config
	if c.OS == "" {
		c.OS = runtime.GOOS
	}
	if c.Architecture == "" {
		c.Architecture = runtime.GOARCH
	}
	c.RootFS = v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for _, l := range img.Layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l.Tar))
	}
	return c
}

// Layout returns an OCI image layout with images.
func Layout(t testing.TB, images ...Image) Files {
	t.Helper()
	f := Files{v1.ImageLayoutFile: []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	var entries []v1.Descriptor
	for _, img := range images {
		entries = append(entries, f.AddImage(t, img))
	}
	f.SetIndex(t, entries...)
	return f
}

// DockerEntry is an image in manifest.json.
type DockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// DockerArchive returns what docker save wrote until version 24: ID.json and ID/layer.tar.
func DockerArchive(t testing.TB, images ...Image) Files {
	t.Helper()
	f := Files{}
	var entries []DockerEntry
	for _, img := range images {
		config := JSON(t, img.config(t))
		e := DockerEntry{Config: digest.FromBytes(config).Encoded() + ".json"}
		f[e.Config] = config
		if img.Name != "" {
			e.RepoTags = []string{img.Name}
		}
		for _, l := range img.Layers {
			stored, _, diffID := l.Bytes(t)
			name := diffID.Encoded() + "/layer.tar"
			f[name] = stored
			e.Layers = append(e.Layers, name)
		}
		entries = append(entries, e)
	}
	f["manifest.json"] = JSON(t, entries)
	return f
}

// DockerLayout returns what docker save writes since version 25: an OCI layout with a manifest.json that names its blobs.
func DockerLayout(t testing.TB, images ...Image) Files {
	t.Helper()
	f := Layout(t, images...)
	var entries []DockerEntry
	for _, img := range images {
		e := DockerEntry{Config: "blobs/sha256/" + digest.FromBytes(JSON(t, img.config(t))).Encoded()}
		if img.Name != "" {
			e.RepoTags = []string{img.Name}
		}
		for _, l := range img.Layers {
			stored, _, _ := l.Bytes(t)
			e.Layers = append(e.Layers, "blobs/sha256/"+digest.FromBytes(stored).Encoded())
		}
		entries = append(entries, e)
	}
	f["manifest.json"] = JSON(t, entries)
	return f
}

// Tar returns the files as a tar archive, in the order of their names, each with prefix before it.
func (f Files) Tar(t testing.TB, prefix string) []byte {
	t.Helper()
	var entries []Entry
	for _, name := range slices.Sorted(maps.Keys(f)) {
		entries = append(entries, Entry{Header: tar.Header{Name: prefix + name}, Content: string(f[name])})
	}
	return Tar(t, entries...)
}

// WriteTar writes the files as a tar archive into the test's temporary directory and returns its path.
func (f Files) WriteTar(t testing.TB) string {
	t.Helper()
	return WriteFile(t, f.Tar(t, ""))
}

// WriteDir writes the files into a new temporary directory of the test and returns its path.
func (f Files) WriteDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range f {
		path := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, data, 0o644))
	}
	return dir
}

// WriteFile writes data to a new file in a temporary directory of the test and returns its path.
func WriteFile(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	check(t, os.WriteFile(path, data, 0o644))
	return path
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
