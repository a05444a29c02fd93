package rows

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// layout is an OCI layout in a directory.
type layout struct {
	*testing.T
	dir string
	alg digest.Algorithm
}

func newLayout(t *testing.T) *layout {
	t.Helper()
	l := &layout{t, t.TempDir(), digest.SHA256}
	l.write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return l
}

func (l *layout) write(name string, data []byte) {
	l.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		l.Fatal(err)
	}
}

// blob adds a blob and returns its descriptor.
func (l *layout) blob(mediaType string, data []byte) v1.Descriptor {
	l.Helper()
	d := l.alg.FromBytes(data)
	l.write("blobs/"+d.Algorithm().String()+"/"+d.Encoded(), data)
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (l *layout) json(mediaType string, v any) v1.Descriptor {
	l.Helper()
	return l.blob(mediaType, encode(l.T, v))
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// entry makes d an entry of index.json, with a name.
func (l *layout) entry(d v1.Descriptor, name string) {
	l.Helper()
	d.Annotations = map[string]string{v1.AnnotationRefName: name}
	l.write("index.json", encode(l.T, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{d}}))
}

// ref is how tare is told of an image of the layout.
func (l *layout) ref(name string) string { return "oci:" + l.dir + ":" + name }

// has reads a blob from the layout's files.
func (l *layout) has(d digest.Digest) []byte {
	l.Helper()
	data, err := os.ReadFile(filepath.Join(l.dir, "blobs", d.Algorithm().String(), d.Encoded()))
	if err != nil {
		l.Error(err)
	}
	return data
}

// config is a configuration for this machine with layers of these diff IDs.
func config(diffIDs ...digest.Digest) v1.Image {
	c := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	c.RootFS = v1.RootFS{Type: "layers", DiffIDs: append([]digest.Digest{}, diffIDs...)}
	return c
}

// manifest adds a manifest of OCI's form.
func (l *layout) manifest(config v1.Descriptor, layers ...v1.Descriptor) v1.Descriptor {
	l.Helper()
	return l.json(v1.MediaTypeImageManifest, v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: config, Layers: append([]v1.Descriptor{}, layers...)})
}

// tarOf is an archive of files: name, content, name, content, …
func tarOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o755, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstded(t *testing.T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(data, nil)
}

// simple adds an image of one layer with one file.
func (l *layout) simple(name, content string) v1.Descriptor {
	l.Helper()
	layer := tarOf(l.T, name, content)
	return l.manifest(l.json(v1.MediaTypeImageConfig, config(digest.FromBytes(layer))), l.blob(v1.MediaTypeImageLayerGzip, gzipped(l.T, layer)))
}

// busybox adds an image that runs.
func (l *layout) busybox() v1.Descriptor {
	l.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		l.Skipf("busybox-static is not installed: %v", err)
	}
	layer := tarOf(l.T, "bin/busybox", string(program), "bin/sh", string(program), "etc/passwd", "root:x:0:0::/root:/bin/sh\n", "gone", "x")
	c := config(digest.FromBytes(layer))
	c.Config.Cmd = []string{"/bin/busybox", "echo", "default"}
	return l.manifest(l.json(v1.MediaTypeImageConfig, c), l.blob(v1.MediaTypeImageLayerGzip, gzipped(l.T, layer)))
}

const odd = `{
	"x-unknown" : [ 1.0, {"b":1,"a":2} ],
	"schemaVersion": 2,   "layers": [%s ],
	"config":%s , "annotations":{"":"","é":"\u00e9"} }` + "\n\n"

// TestBytes moves an index and a manifest in an odd form, without media types of their own, to every place and back: J3, D9, and
// the digests of index, manifest and configuration stay apart.
func TestBytes(t *testing.T) {
	l, r, x := newLayout(t), newRegistry(t), newTare(t)
	layer := tarOf(t, "f", "content")
	raw := strings.Replace(string(encode(t, config(digest.FromBytes(layer)))), "{", `{ "x-own":{"z":null,"a":1e2},`, 1)
	c, b := l.blob(v1.MediaTypeImageConfig, []byte(raw)), l.blob(v1.MediaTypeImageLayerGzip, gzipped(t, layer))
	m := l.blob(v1.MediaTypeImageManifest, fmt.Appendf(nil, odd, encode(t, b), encode(t, c)))
	m.Platform = &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	i := l.blob(v1.MediaTypeImageIndex, fmt.Appendf(nil, "{ \"manifests\":[%s], \"y\":{},\n\"schemaVersion\":2 }\n", encode(t, m)))
	l.entry(i, "odd")
	all := []v1.Descriptor{i, m, c, b}

	x.do("copy", l.ref("odd"), "docker://"+r.addr+"/a/b:1")
	for _, d := range all[:2] {
		if _, h, body := r.get("a/b/manifests/" + d.Digest.String()); digest.FromBytes(body) != d.Digest || h.Get("Content-Type") != d.MediaType {
			t.Errorf("the registry has %v %s", h, body)
		}
	}
	x.do("pull", r.addr+"/a/b:1")
	if got := x.do("inspect", "--raw", r.addr+"/a/b:1"); digest.FromString(got) != i.Digest {
		t.Errorf("inspect --raw: %s", got)
	}
	if got := x.do("inspect", "--config", r.addr+"/a/b:1"); got != raw {
		t.Errorf("inspect --config: %s, want %s", got, raw)
	}
	if got := x.do("images", "-q", "--no-trunc"); strings.TrimSpace(got) != c.Digest.String() {
		t.Errorf("ID %s, want %s", got, c.Digest)
	}
	if got := x.do("images", "--digests", "--no-trunc"); !strings.Contains(got, i.Digest.String()) {
		t.Errorf("images --digests: %s, want %s", got, i.Digest)
	}
	x.do("tag", r.addr+"/a/b:1", r.addr+"/c/d:2")
	x.do("push", r.addr+"/c/d:2")
	dir := t.TempDir()
	from := "docker://" + r.addr + "/c/d:2"
	for n, to := range []string{"oci-archive:" + dir + "/a.tar:x", "dir:" + dir + "/d", "oci:" + dir + "/l:x"} {
		x.do("copy", from, to)
		if from = to; n == 1 {
			from = "dir:" + dir + "/d"
		}
	}
	for _, d := range all {
		if data := (&layout{t, dir + "/l", digest.SHA256}).has(d.Digest); digest.FromBytes(data) != d.Digest {
			t.Errorf("%s became %s", d.MediaType, data)
		}
	}
}

// TestDockerTypes: MT0, the types of Docker are taken, and are what they were in every place.
func TestDockerTypes(t *testing.T) {
	const kind = "application/vnd.docker."
	l, r, x := newLayout(t), newRegistry(t), newTare(t)
	layer := tarOf(t, "f", "docker's")
	c := l.json(kind+"container.image.v1+json", config(digest.FromBytes(layer)))
	b := l.blob(kind+"image.rootfs.diff.tar.gzip", gzipped(t, layer))
	m := l.json(kind+"distribution.manifest.v2+json", v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: kind + "distribution.manifest.v2+json", Config: c, Layers: []v1.Descriptor{b}})
	m.Platform = &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	i := l.json(kind+"distribution.manifest.list.v2+json", v1.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: kind + "distribution.manifest.list.v2+json", Manifests: []v1.Descriptor{m}})
	l.entry(i, "x")
	x.do("copy", l.ref("x"), "docker://"+r.addr+"/a:1")
	x.do("pull", r.addr+"/a:1")
	if got := x.do("mount", r.addr+"/a:1", "--", "cat", "f"); got != "docker's" {
		t.Errorf("the file has %q", got)
	}
	x.do("tag", r.addr+"/a:1", r.addr+"/b:1")
	x.do("push", r.addr+"/b:1")
	for _, repo := range []string{"a", "b"} {
		for ref, want := range map[string]v1.Descriptor{"1": i, m.Digest.String(): m} {
			if _, h, body := r.get(repo + "/manifests/" + ref); h.Get("Content-Type") != want.MediaType || digest.FromBytes(body) != want.Digest {
				t.Errorf("%s:%s is %s, %s", repo, ref, h.Get("Content-Type"), body)
			}
		}
	}
}

// TestMislabelled: MT2, layers whose media type says another compression than they have.
func TestMislabelled(t *testing.T) {
	l, r, x := newLayout(t), newRegistry(t), newTare(t)
	a, b, c := tarOf(t, "a", "gzip as tar "), tarOf(t, "b", "zstd as gzip "), tarOf(t, "c", "tar as zstd")
	d := l.manifest(l.json(v1.MediaTypeImageConfig, config(digest.FromBytes(a), digest.FromBytes(b), digest.FromBytes(c))),
		l.blob(v1.MediaTypeImageLayer, gzipped(t, a)), l.blob(v1.MediaTypeImageLayerGzip, zstded(t, b)), l.blob(v1.MediaTypeImageLayerZstd, c))
	l.entry(d, "x")
	x.do("copy", l.ref("x"), "docker://"+r.addr+"/a:1")
	x.do("pull", r.addr+"/a:1")
	if got := x.do("mount", r.addr+"/a:1", "--", "cat", "a", "b", "c"); got != "gzip as tar zstd as gzip tar as zstd" {
		t.Errorf("the files have %q", got)
	}
}

// TestSwappedLayers: M5, as many layers as diff IDs, in another order.
func TestSwappedLayers(t *testing.T) {
	l, r, x := newLayout(t), newRegistry(t), newTare(t)
	a, b := tarOf(t, "a", "1"), tarOf(t, "a", "2")
	d := l.manifest(l.json(v1.MediaTypeImageConfig, config(digest.FromBytes(a), digest.FromBytes(b))),
		l.blob(v1.MediaTypeImageLayer, b), l.blob(v1.MediaTypeImageLayer, a))
	l.entry(d, "x")
	x.do("copy", l.ref("x"), "docker://"+r.addr+"/a:1") // a copy is bytes
	x.refused("sha256:", "pull", r.addr+"/a:1")
	if got := x.do("images", "-q"); got != "" {
		t.Errorf("there is %q", got)
	}
}

// TestArtifact: MT4, M2: an artifact, and kinds that nobody knows, are moved as they are.
func TestArtifact(t *testing.T) {
	l, r, x := newLayout(t), newRegistry(t), newTare(t)
	a := l.json(v1.MediaTypeImageManifest, v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		ArtifactType: "application/x.unknown", Config: l.blob(v1.MediaTypeEmptyJSON, []byte("{}")),
		Layers: []v1.Descriptor{l.blob("text/x-unknown+future", []byte("not a layer"))}})
	unknown := l.blob("application/xml", []byte("<x/>"))
	i := l.json(v1.MediaTypeImageIndex, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{a, unknown}})
	l.entry(i, "x")
	to := &layout{t, t.TempDir(), digest.SHA256}
	x.do("copy", l.ref("x"), "docker://"+r.addr+"/a:1")
	x.do("copy", "docker://"+r.addr+"/a:1", "store:artifact:1")
	x.do("copy", "store:artifact:1", to.ref("x"))
	for _, d := range []digest.Digest{i.Digest, a.Digest, unknown.Digest, digest.FromString("not a layer")} {
		if data := to.has(d); !bytes.Equal(data, l.has(d)) {
			t.Errorf("%s became %q", d, data)
		}
	}
}

// TestSHA512: a whole image by sha512, from a layout over registry and store to a layout.
func TestSHA512(t *testing.T) {
	l, r, x := newLayout(t), newRegistry(t), newTare(t)
	l.alg = digest.SHA512
	d := l.simple("f", "by sha512")
	l.entry(d, "x")
	x.do("copy", l.ref("x"), "docker://"+r.addr+"/a:1")
	if _, h, body := r.get("a/manifests/1"); h.Get("Docker-Content-Digest") != d.Digest.String() || digest.SHA512.FromBytes(body) != d.Digest {
		t.Errorf("the registry has %v", h)
	}
	x.do("pull", r.addr+"/a@"+d.Digest.String())
	x.do("pull", r.addr+"/a:1")
	if got := x.do("mount", r.addr+"/a:1", "--", "cat", "f"); got != "by sha512" {
		t.Errorf("the file has %q", got)
	}
	to := &layout{t, t.TempDir(), digest.SHA512}
	x.do("copy", "store:"+r.addr+"/a:1", to.ref("x"))
	var m v1.Manifest
	if err := json.Unmarshal(to.has(d.Digest), &m); err != nil {
		t.Fatal(err)
	}
	for _, b := range append(m.Layers, m.Config) {
		if data := to.has(b.Digest); b.Digest.Algorithm() != digest.SHA512 || digest.SHA512.FromBytes(data) != b.Digest {
			t.Errorf("%s became %d bytes", b.Digest, len(data))
		}
	}
	x.do("fsck")
}

// TestNulls: C1, null is what is not there, from the registry to a container.
func TestNulls(t *testing.T) {
	l, x := newLayout(t), newTare(t)
	layer := tarOf(t, "f", "x")
	c := l.blob(v1.MediaTypeImageConfig, fmt.Appendf(nil, `{"created":null,"author":null,"variant":null,"architecture":%q,"os":"linux","config":null,"history":null,`+
		`"rootfs":{"type":"layers","diff_ids":[%q]}}`, runtime.GOARCH, digest.FromBytes(layer)))
	l.entry(l.manifest(c, l.blob(v1.MediaTypeImageLayer, layer)), "x")
	x.do("copy", l.ref("x"), "store:n:1")
	for _, command := range []string{"inspect", "history"} {
		x.do(command, "n:1")
	}
	if got := x.do("mount", "n:1", "--", "cat", "f"); got != "x" {
		t.Errorf("the file has %q", got)
	}
	x.refused("no command: neither the image nor the command line names one", "run", "--rm", "n:1")
	if got := x.do("run", "--rm", "-v", "/bin/busybox:/busybox", "n:1", "/busybox", "pwd"); got != "/\n" {
		t.Errorf("the working directory is %q", got)
	}
}

// TestUnknownAlgorithm: D3, a digest that nobody here can compute is kept where it is only a reference, and what is stored under
// it is not copied unverified.
func TestUnknownAlgorithm(t *testing.T) {
	l, x, r := newLayout(t), newTare(t), newRegistry(t)
	unknown := v1.Descriptor{MediaType: "application/x.y", Digest: "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8", Size: 3}
	var m v1.Manifest
	if err := json.Unmarshal(l.has(l.simple("f", "x").Digest), &m); err != nil {
		t.Fatal(err)
	}
	m.Subject = &unknown
	d := l.json(v1.MediaTypeImageManifest, m)
	l.entry(d, "x")
	to := &layout{t, t.TempDir(), digest.SHA256}
	x.do("copy", l.ref("x"), "docker://"+r.addr+"/a:1")
	x.do("copy", "docker://"+r.addr+"/a:1", to.ref("x"))
	if data := to.has(d.Digest); !bytes.Contains(data, []byte(unknown.Digest)) {
		t.Errorf("the manifest became %s", data)
	}
	m.Subject, m.Layers = nil, append(m.Layers, unknown)
	l.entry(l.json(v1.MediaTypeImageManifest, m), "y")
	l.write("blobs/multihash+base58/"+unknown.Digest.Encoded(), []byte("abc"))
	for _, target := range []string{"docker://" + r.addr + "/b:1", "store:b:1", to.ref("y")} {
		x.refused("cannot be verified", "copy", l.ref("y"), target)
	}
	if status, _, _ := r.get("b/manifests/1"); status != 404 {
		t.Errorf("the registry has it: %d", status)
	}
}
