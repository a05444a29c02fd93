package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/internal/imagetest"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// read opens the image that text names, reads all of its layers and returns them with it.
func read(text string, p manifest.Platform) (*Image, [][]byte, error) {
	ref, err := reference.Parse(text)
	if err != nil {
		return nil, nil, err
	}
	a, err := Open(ref)
	if err != nil {
		return nil, nil, err
	}
	defer a.Close()
	img, err := a.Image(context.Background(), p)
	if err != nil {
		return nil, nil, err
	}
	var layers [][]byte
	for i := range img.Layers {
		r, err := img.Layers[i].Open()
		if err != nil {
			return nil, nil, err
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return nil, nil, err
		}
		layers = append(layers, data)
	}
	return img, layers, nil
}

// expect fails unless err holds want, or is nil when want is empty.
func expect(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("error %v, want %q", err, want)
	}
}

func entry(name, content string) imagetest.Entry {
	return imagetest.Entry{Header: tar.Header{Name: name}, Content: content}
}

// sample is an image with a plain, a gzip and a zstd layer.
func sample(t *testing.T, name string) imagetest.Image {
	img := imagetest.Image{Name: name}
	img.Config.Config = v1.ImageConfig{Env: []string{"A=b"}, Cmd: []string{"/" + name}}
	for i, c := range []string{"", "gzip", "zstd"} {
		img.Layers = append(img.Layers, imagetest.Layer{Tar: imagetest.Tar(t, entry("f", strings.Repeat("x", 1000*i+len(name)))), Compression: c})
	}
	return img
}

func gzipped(t *testing.T, data []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstded(t *testing.T, data []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// TestForms reads one image in each form in which it can be stored.
func TestForms(t *testing.T) {
	src := sample(t, "busybox:latest")
	layout, oldDocker, newDocker := imagetest.Layout(t, src), imagetest.DockerArchive(t, src), imagetest.DockerLayout(t, src)
	config := bytes.Clone(oldDocker[firstName(oldDocker, ".json")])
	tarred := layout.Tar(t, "")
	for _, c := range []struct{ name, ref string }{
		{"directory", "oci:" + layout.WriteDir(t)},
		{"by name", "oci:" + layout.WriteDir(t) + ":busybox:latest"},
		{"by full name", "oci:" + layout.WriteDir(t) + ":docker.io/library/busybox:latest"},
		{"by position", "oci:" + layout.WriteDir(t) + ":@0"},
		{"tar", "oci-archive:" + layout.WriteTar(t)},
		{"tar with ./", "oci-archive:" + imagetest.WriteFile(t, layout.Tar(t, "./"))},
		{"gzip around tar", "oci-archive:" + imagetest.WriteFile(t, gzipped(t, tarred))},
		{"zstd around tar", "oci-archive:" + imagetest.WriteFile(t, zstded(t, tarred)) + ":busybox:latest"},
		{"old docker", "docker-archive:" + oldDocker.WriteTar(t)},
		{"old docker by tag", "docker-archive:" + oldDocker.WriteTar(t) + ":busybox"},
		{"old docker by position", "docker-archive:" + oldDocker.WriteTar(t) + ":@0"},
		{"new docker", "docker-archive:" + newDocker.WriteTar(t)},
		{"new docker as OCI", "oci-archive:" + newDocker.WriteTar(t)},
		{"docker with links", "docker-archive:" + imagetest.WriteFile(t, dockerWithLinks(t, oldDocker))},
	} {
		t.Run(c.name, func(t *testing.T) {
			img, layers, err := read(c.ref, manifest.Platform{})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(img.ConfigRaw, config) || img.ID != digest.FromBytes(config) || img.Name != "busybox:latest" {
				t.Errorf("name %q, ID %s, config %s", img.Name, img.ID, img.ConfigRaw)
			}
			if oci := strings.HasPrefix(c.ref, "oci"); oci == (img.ManifestDigest == "") {
				t.Errorf("manifest digest %q", img.ManifestDigest)
			}
			for i, l := range src.Layers {
				stored, mediaType, diffID := l.Bytes(t)
				got := img.Layers[i]
				known := got.Digest == digest.FromBytes(stored) || got.Digest == "" && strings.Contains(c.name, "docker") && i > 0
				if !bytes.Equal(layers[i], stored) || got.MediaType != mediaType || got.DiffID != diffID || got.Size != int64(len(stored)) || !known {
					t.Errorf("layer %d: %+v, %d bytes", i, got, len(layers[i]))
				}
			}
		})
	}
}

func firstName(f imagetest.Files, suffix string) string {
	for name := range f {
		if strings.HasSuffix(name, suffix) && name != "manifest.json" {
			return name
		}
	}
	return ""
}

// dockerWithLinks returns a docker-archive whose layers are at the end of chains of links, with the manifest last.
func dockerWithLinks(t *testing.T, f imagetest.Files) []byte {
	var entries []imagetest.Entry
	n := byte('a')
	for name, data := range f {
		if id, ok := strings.CutSuffix(name, "/layer.tar"); ok {
			store := "store-" + string(n)
			entries = append(entries,
				imagetest.Entry{Header: tar.Header{Name: "./" + name, Typeflag: tar.TypeSymlink, Linkname: "../hard/" + id}},
				imagetest.Entry{Header: tar.Header{Name: store}, Content: string(data)},
				imagetest.Entry{Header: tar.Header{Name: "hard/" + id, Typeflag: tar.TypeLink, Linkname: "./" + store}})
			n++
		} else if name != "manifest.json" {
			entries = append(entries, entry(name, string(data)))
		}
	}
	return imagetest.Tar(t, append(entries, entry("./manifest.json", string(f["manifest.json"])))...)
}

// TestPipe reads an archive that cannot be seeked.
func TestPipe(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if out, err := exec.Command("mkfifo", fifo).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data := imagetest.DockerArchive(t, sample(t, "a:b")).Tar(t, "")
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(fifo, data, 0) }()
	img, _, err := read("docker-archive:"+fifo, manifest.Platform{})
	if err != nil || img.Name != "a:b" || len(img.Layers) != 3 {
		t.Errorf("image %+v, error %v", img, err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}

// TestSelect chooses among several images by name and position.
func TestSelect(t *testing.T) {
	a, b, none := sample(t, "a:1"), sample(t, "localhost/b:2"), sample(t, "")
	oci := "oci:" + imagetest.Layout(t, a, b, none).WriteDir(t)
	docker := "docker-archive:" + imagetest.DockerArchive(t, a, b, none).WriteTar(t)
	twins := imagetest.Image{Name: "a:1", Layers: b.Layers}
	same := imagetest.Layout(t, a)
	d := same.AddImage(t, a)
	d.Annotations = map[string]string{v1.AnnotationRefName: "latest", containerdName: "docker.io/library/x:latest"}
	same.SetIndex(t, same.AddImage(t, a), d)
	shared := "oci:" + same.WriteDir(t)
	for _, c := range []struct{ ref, name, err string }{
		{oci, "", `which image is not said: there are "a:1", "localhost/b:2", one without a name (sha256:`},
		{oci + ":a:1", "a:1", ""},
		{oci + ":b", "", `no image "b": there are "a:1", "localhost/b:2"`},
		{oci + ":@1", "localhost/b:2", ""},
		{oci + ":@2", "", ""},
		{oci + ":@3", "", "no entry @3: the layout has 3"},
		{docker, "", `which image is not said: there are "a:1" @0, "localhost/b:2" @1, @2`},
		{docker + ":a:1", "a:1", ""},
		{docker + ":docker.io/library/a:1", "a:1", ""},
		{docker + ":@1", "localhost/b:2", ""},
		{docker + ":@2", "", ""},
		{docker + ":@3", "", "no image @3: the archive has 3"},
		{docker + ":a", "", `no image "a"`},
		{shared, "a:1", ""},
		{shared + ":latest", "docker.io/library/x:latest", ""},
		{shared + ":x", "docker.io/library/x:latest", ""},
		{"oci:" + imagetest.Layout(t, a, twins).WriteDir(t) + ":a:1", "", `"a:1" is ambiguous`},
		{"docker-archive:" + imagetest.DockerArchive(t, a, twins).WriteTar(t) + ":a:1", "", "name is ambiguous: images sha256:"},
		{"docker-archive:" + imagetest.DockerArchive(t, a, a).WriteTar(t), "a:1", ""},
		{"oci:" + imagetest.Layout(t).WriteDir(t), "", "the layout has no image"},
		{"docker-archive:" + imagetest.DockerArchive(t).WriteTar(t), "", "lists no image"},
	} {
		img, _, err := read(c.ref, manifest.Platform{})
		expect(t, err, c.err)
		if err == nil && img.Name != c.name {
			t.Errorf("%s: name %q, want %q", c.ref, img.Name, c.name)
		}
	}
}

// TestPlatform chooses by platform, through nested indexes, past attestations and foreign media types.
func TestPlatform(t *testing.T) {
	f := imagetest.Layout(t)
	image := func(arch, variant, name string) v1.Descriptor {
		img := sample(t, name)
		img.Config.Platform = v1.Platform{OS: "linux", Architecture: arch, Variant: variant}
		return f.AddImage(t, img)
	}
	platformless := image("s390x", "", "s390x")
	platformless.Platform = nil
	unknown := image("amd64", "", "attestation")
	unknown.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	lying := image("riscv64", "", "lying")
	lying.Platform = &v1.Platform{OS: "linux", Architecture: "ppc64le"}
	inner := imagetest.Files{}
	inner.SetIndex(t, unknown, image("arm", "v6", "v6"), image("arm", "v7", "v7"), image("arm64", "v8", "arm64"), platformless, lying,
		f.Add("application/xml", []byte("<x/>")))
	nested := f.Add(v1.MediaTypeImageIndex, inner["index.json"])
	absent := nested
	absent.Digest, absent.Platform = digest.FromString("x"), &v1.Platform{OS: "windows", Architecture: "amd64"}
	outer := imagetest.Files{}
	outer.SetIndex(t, absent, nested, nested, image("amd64", "", "amd64"))
	d := f.Add(v1.MediaTypeImageIndex, outer["index.json"])
	f.SetIndex(t, f.Add("application/xml", []byte("<x/>")), d)
	oci := "oci:" + f.WriteDir(t)
	for _, c := range []struct{ platform, cmd, err string }{
		{"linux/amd64", "/amd64", ""},
		{"linux/arm/v6", "/v6", ""},
		{"linux/arm", "/v7", ""},
		{"linux/aarch64", "/arm64", ""},
		{"linux/s390x", "/s390x", ""},
		{"linux/ppc64le", "", "linux/ppc64le: available are linux/arm/v6, linux/arm/v7, linux/arm64, linux/ppc64le, linux/amd64, linux/riscv64, linux/s390x"},
		{"linux/mips", "", "no image for platform linux/mips: available are linux/arm/v6, "},
		{"windows/amd64", "", "is missing"},
	} {
		p, err := manifest.ParsePlatform(c.platform)
		if err != nil {
			t.Fatal(err)
		}
		img, _, err := read(oci, p)
		expect(t, err, c.err)
		if err == nil && !slices.Equal(img.Config.Config.Cmd, []string{c.cmd}) {
			t.Errorf("%s: chose %s, want %s", c.platform, img.Config.Config.Cmd, c.cmd)
		}
	}
	foreign := sample(t, "x")
	foreign.Config.Platform = v1.Platform{OS: "linux", Architecture: "mips64"}
	foreignFile := "docker-archive:" + imagetest.DockerArchive(t, foreign).WriteTar(t)
	_, _, err := read(foreignFile, manifest.Platform{})
	expect(t, err, `image is for platform "linux/mips64", wanted is linux/`)
	_, _, err = read(foreignFile, manifest.Platform{OS: "linux", Architecture: "mips64"})
	expect(t, err, "")
}
