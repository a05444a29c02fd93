package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// A maker writes an OCI layout.
type maker struct {
	dir   string
	index v1.Index
	err   error
}

// makeLayout writes the images one (for this machine) and multi (an index for this machine, and for two others).
func makeLayout(dir string) error {
	m := &maker{dir: dir, index: v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}}}
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return err
	}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	base := []entry{{"bin/", nil, ""}, {"etc/", nil, ""}, {"proc/", nil, ""}, {"sys/", nil, ""}, {"dev/", nil, ""},
		{"bin/busybox", box, ""}, {"etc/passwd", []byte("root:x:0:0::/:/bin/sh\n"), ""}}
	for a := range strings.FieldsSeq("sh cat echo id ls rm sleep true false touch mkdir ln") {
		base = append(base, entry{"bin/" + a, nil, "busybox"})
	}
	noise := rand.NewChaCha8([32]byte{7})
	random := make([]byte, 6<<20)
	noise.Read(random)
	var many []entry
	for i := range 2000 {
		many = append(many, entry{"srv/" + string(rune('a'+i%26)) + "/" + strings.Repeat("x", i%200+1), bytes.Repeat([]byte{byte(i)}, i), ""})
	}
	layers := [][]entry{base, {{"opt/", nil, ""}, {"opt/random", random, ""}}, many, {{"etc/.wh.passwd", []byte{}, ""}, {"etc/release", []byte("one\n"), ""}}}
	one := m.image(runtime.GOARCH, layers)
	m.name(one, "one")
	others := []v1.Descriptor{one, m.image("s390x", [][]entry{{{"etc/release", []byte("s390x\n"), ""}}}), m.image("mips", [][]entry{{{"etc/release", []byte("mips\n"), ""}}})}
	m.name(m.json(v1.MediaTypeImageIndex, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: others}), "multi")
	m.write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	index, err := json.Marshal(m.index)
	if err != nil {
		return err
	}
	m.write("index.json", index)
	return m.err
}

type entry struct {
	name    string
	content []byte
	link    string
}

func (m *maker) write(name string, data []byte) {
	if m.err == nil {
		m.err = os.WriteFile(filepath.Join(m.dir, name), data, 0o644)
	}
}

func (m *maker) blob(mediaType string, data []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	m.write("blobs/sha256/"+d.Digest.Encoded(), data)
	return d
}

// json writes a document with spaces and order that no program would give it again.
func (m *maker) json(mediaType string, v any) v1.Descriptor {
	data, err := json.MarshalIndent(v, " ", "     ")
	if err != nil && m.err == nil {
		m.err = err
	}
	return m.blob(mediaType, append(data, "\n\n"...))
}

func (m *maker) name(d v1.Descriptor, name string) {
	d.Annotations = map[string]string{v1.AnnotationRefName: name}
	m.index.Manifests = append(m.index.Manifests, d)
}

func (m *maker) image(arch string, layers [][]entry) v1.Descriptor {
	created := time.Unix(1700000000, 0).UTC()
	cfg := v1.Image{Created: &created, Platform: v1.Platform{OS: "linux", Architecture: arch}, RootFS: v1.RootFS{Type: "layers"}}
	cfg.Config.Cmd, cfg.Config.Env = []string{"echo", "default command"}, []string{"PATH=/bin"}
	doc := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for _, l := range layers {
		plain := m.tar(l)
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(plain); err != nil {
			m.err = err
		}
		z.Close()
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, digest.FromBytes(plain))
		cfg.History = append(cfg.History, v1.History{Created: &created, CreatedBy: "the suite"})
		doc.Layers = append(doc.Layers, m.blob(v1.MediaTypeImageLayerGzip, b.Bytes()))
	}
	doc.Config = m.json(v1.MediaTypeImageConfig, cfg)
	d := m.json(v1.MediaTypeImageManifest, doc)
	d.Platform = &v1.Platform{OS: "linux", Architecture: arch}
	return d
}

func (m *maker) tar(entries []entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o755, ModTime: time.Unix(1700000000, 0), Typeflag: tar.TypeReg, Size: int64(len(e.content)), Linkname: e.link}
		switch {
		case e.link != "":
			h.Typeflag = tar.TypeSymlink
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil && m.err == nil {
			m.err = err
		}
		if _, err := w.Write(e.content); err != nil && m.err == nil {
			m.err = err
		}
	}
	if err := w.Close(); err != nil && m.err == nil {
		m.err = err
	}
	return b.Bytes()
}
