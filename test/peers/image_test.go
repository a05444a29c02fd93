package peers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// fixture is an OCI layout with the image "one" of this machine's platform, and the index "many" of two platforms. Their
// documents have odd spacing and fields that nobody knows, so that whoever writes them anew changes their digests.
type fixture struct {
	dir       string
	one, many v1.Descriptor
}

var theFixture = sync.OnceValues(makeFixture)

func images(t *testing.T) fixture {
	t.Helper()
	f, err := theFixture()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func makeFixture() (fixture, error) {
	f := fixture{dir: filepath.Join(suiteDir, "fixture")}
	if err := os.MkdirAll(filepath.Join(f.dir, "blobs/sha256"), 0o755); err != nil {
		return f, err
	}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	var err error
	if f.one, err = f.image(runtime.GOARCH); err != nil {
		return f, err
	}
	second, err := f.image(other)
	if err != nil {
		return f, err
	}
	f.many, err = f.document(v1.MediaTypeImageIndex, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{f.one, second}})
	if err != nil {
		return f, err
	}
	one, many := f.one, f.many
	one.Annotations = map[string]string{v1.AnnotationRefName: "one"}
	many.Annotations = map[string]string{v1.AnnotationRefName: "many"}
	index, err := json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{one, many}})
	if err != nil {
		return f, err
	}
	if err := os.WriteFile(filepath.Join(f.dir, "index.json"), index, 0o644); err != nil {
		return f, err
	}
	return f, os.WriteFile(filepath.Join(f.dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

func (f *fixture) blob(mediaType string, data []byte) (v1.Descriptor, error) {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return d, os.WriteFile(filepath.Join(f.dir, "blobs/sha256", d.Digest.Encoded()), data, 0o644)
}

// document writes v as oddly as JSON allows.
func (f *fixture) document(mediaType string, v any) (v1.Descriptor, error) {
	data, err := json.MarshalIndent(v, "\t", "   ")
	if err != nil {
		return v1.Descriptor{}, err
	}
	data = append(bytes.TrimSuffix(data, []byte("}")), "  ,\n \"x-unknown\" : {\"kept\": [1.0, null] } }\n"...)
	return f.blob(mediaType, data)
}

// image writes an image of two layers: the first is of a few hundred kilobytes, the second removes one file of it.
func (f *fixture) image(arch string) (v1.Descriptor, error) {
	config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: arch}, Config: v1.ImageConfig{Cmd: []string{"/bin/busybox", "true"}}}
	config.RootFS.Type = "layers"
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("the suite needs Debian's busybox-static: %w", err)
	}
	for _, files := range []map[string]string{
		{"bin/busybox": string(box), "etc/arch": arch, "etc/removed": "x"},
		{"etc/.wh.removed": "", "etc/added": strings.Repeat("text\n", 1000)},
	} {
		layer := layerTar(files)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(layer))
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		w.Write(layer)
		w.Close()
		d, err := f.blob(v1.MediaTypeImageLayerGzip, z.Bytes())
		if err != nil {
			return d, err
		}
		manifest.Layers = append(manifest.Layers, d)
	}
	if manifest.Config, err = f.document(v1.MediaTypeImageConfig, config); err != nil {
		return v1.Descriptor{}, err
	}
	d, err := f.document(v1.MediaTypeImageManifest, manifest)
	d.Platform = &v1.Platform{OS: "linux", Architecture: arch}
	return d, err
}

func layerTar(files map[string]string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range []string{"bin/", "etc/"} {
		w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1700000000, 0)})
	}
	for _, name := range []string{"bin/busybox", "etc/.wh.removed", "etc/added", "etc/arch", "etc/removed"} {
		content, ok := files[name]
		if !ok {
			continue
		}
		w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content)), ModTime: time.Unix(1700000000, 0)})
		w.Write([]byte(content))
	}
	w.Close()
	return b.Bytes()
}

// holds checks that the layout in dir has d and all that d refers to, every blob with the content of its name.
func holds(t *testing.T, dir string, d v1.Descriptor) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "blobs/sha256", d.Digest.Encoded()))
	if err != nil {
		t.Error(err)
		return
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != d.Digest.Encoded() || int64(len(data)) != d.Size {
		t.Errorf("%s: blob %s has other bytes", dir, d.Digest)
	}
	var doc struct {
		Config            *v1.Descriptor
		Layers, Manifests []v1.Descriptor
	}
	if !strings.HasSuffix(d.MediaType, "+json") || d.MediaType == v1.MediaTypeImageConfig {
		return
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Error(err)
	}
	if doc.Config != nil {
		holds(t, dir, *doc.Config)
	}
	for _, c := range append(doc.Layers, doc.Manifests...) {
		holds(t, dir, c)
	}
}
