package engine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// testImage is an image in the making.
type testImage struct {
	layers [][]tar.Header // Linkname of a regular file is its content
	config v1.ImageConfig
	big    map[string][]byte // content of files that has no place in a header
}

// applets are the links of busybox in the base image.
const applets = "cat chmod cp date dd echo env false grep hostname id ip kill ln ls mkdir mount ping ps pwd rm sh sleep stat stty " +
	"tail test touch trap true tty umount usleep wc whoami yes head tr sort awk sed df nproc mkfifo"

func busyboxImage() *testImage {
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		panic("the suite needs Debian's busybox-static: " + err.Error())
	}
	i := &testImage{big: map[string][]byte{"bin/busybox": box}}
	i.config.Cmd = []string{"echo", "default command"}
	i.config.Env = []string{"PATH=/bin", "FROM=image"}
	layer := []tar.Header{dir("./"), dir("bin/"), dir("etc/"), dir("proc/"), dir("sys/"), dir("dev/"), dir("root/"),
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755},
		file("etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"),
		file("etc/group", "root:x:0:\nalice:x:1000:\nwheel:x:10:alice\n"),
		file("etc/noexec", "text\n"),
	}
	for _, a := range strings.Fields(applets) {
		layer = append(layer, tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
	}
	i.layers = [][]tar.Header{layer}
	return i
}

func dir(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }

func file(name, content string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Linkname: content}
}

func (i *testImage) add(entries ...tar.Header) *testImage {
	i.layers = append(i.layers, entries)
	return i
}

func (i *testImage) layerTar(entries []tar.Header) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		var content []byte
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = []byte(h.Linkname), ""
			if big, ok := i.big[h.Name]; ok {
				content = big
			}
			h.Size = int64(len(content))
		}
		h.ModTime = time.Unix(1700000000, 0)
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// parts returns the layers' archives and the image's configuration.
func (i *testImage) parts() (layers [][]byte, config []byte, err error) {
	img := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, Config: i.config}
	img.RootFS.Type = "layers"
	img.RootFS.DiffIDs = []digest.Digest{}
	for _, entries := range i.layers {
		data, err := i.layerTar(entries)
		if err != nil {
			return nil, nil, err
		}
		layers = append(layers, data)
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(data))
	}
	config, err = json.Marshal(img)
	return layers, config, err
}

// dockerArchive writes the image as docker save does.
func (i *testImage) dockerArchive(path string) error {
	layers, config, err := i.parts()
	if err != nil {
		return err
	}
	files := [][2]string{{"config.json", string(config)}}
	names := []string{}
	for n, l := range layers {
		names = append(names, "layer"+strconv.Itoa(n)+".tar")
		files = append(files, [2]string{names[n], string(l)})
	}
	list, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{"test:latest"}, "Layers": names}})
	if err != nil {
		return err
	}
	return writeTar(path, append(files, [2]string{"manifest.json", string(list)}))
}

// ociFiles returns the files of an OCI layout with gzip layers.
func (i *testImage) ociFiles() ([][2]string, error) {
	layers, config, err := i.parts()
	if err != nil {
		return nil, err
	}
	var files [][2]string
	blob := func(mediaType string, data []byte) v1.Descriptor {
		d := digest.FromBytes(data)
		files = append(files, [2]string{"blobs/sha256/" + d.Encoded(), string(data)})
		return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: blob(v1.MediaTypeImageConfig, config), Layers: []v1.Descriptor{}}
	for _, l := range layers {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		w.Write(l)
		w.Close()
		m.Layers = append(m.Layers, blob(v1.MediaTypeImageLayerGzip, z.Bytes()))
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	d := blob(v1.MediaTypeImageManifest, data)
	d.Annotations = map[string]string{v1.AnnotationRefName: "latest"}
	index, err := json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{d}})
	return append(files, [2]string{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`}, [2]string{"index.json", string(index)}), err
}

func (i *testImage) ociArchive(path string) error {
	files, err := i.ociFiles()
	if err != nil {
		return err
	}
	return writeTar(path, files)
}

func (i *testImage) ociDir(path string) error {
	files, err := i.ociFiles()
	for _, f := range files {
		name := filepath.Join(path, f[0])
		if err == nil {
			err = os.MkdirAll(filepath.Dir(name), 0o755)
		}
		if err == nil {
			err = os.WriteFile(name, []byte(f[1]), 0o644)
		}
	}
	return err
}

func writeTar(path string, files [][2]string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, e := range files {
		if err := w.WriteHeader(&tar.Header{Name: e[0], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(e[1]))}); err != nil {
			return err
		}
		if _, err := io.WriteString(w, e[1]); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}
