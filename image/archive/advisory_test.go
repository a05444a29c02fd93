package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/internal/imagetest"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// TestAdvisoryHugeDocuments puts documents of 20 GB where small ones are read whole (CVE-2023-25153): in a directory as a sparse
// file, in a tar file as a header that is not followed by so much.
func TestAdvisoryHugeDocuments(t *testing.T) {
	const huge = 20 << 30
	f := imagetest.Layout(t, imagetest.Image{Name: "x", Layers: []imagetest.Layer{{Tar: imagetest.Tar(t, entry("f", "x"))}}})
	docker := imagetest.DockerArchive(t, imagetest.Image{Name: "x", Layers: []imagetest.Layer{{Tar: imagetest.Tar(t, entry("f", "x"))}}})
	for _, c := range []struct {
		form, name string
		files      imagetest.Files
	}{
		{"oci:", "oci-layout", f}, {"oci:", "index.json", f}, {"oci:", blob(f, `"schemaVersion"`), f}, {"oci:", blob(f, "diff_ids"), f},
		{"dir:", "manifest.json", imagetest.Files{"version": []byte(dirVersionText), "manifest.json": nil}},
		{"dir:", "version", imagetest.Files{"version": nil, "manifest.json": nil}},
		{"oci-archive:", "index.json", f}, {"docker-archive:", "manifest.json", docker}, {"docker-archive:", firstName(docker, ".json"), docker},
	} {
		var ref string
		if strings.HasSuffix(c.form, "archive:") {
			ref = c.form + hugeMember(t, c.files, c.name, huge)
		} else {
			dir := c.files.WriteDir(t)
			if err := os.Truncate(filepath.Join(dir, c.name), huge); err != nil {
				t.Fatal(err)
			}
			ref = c.form + dir
		}
		if _, _, err := read(ref, manifest.Platform{}); err == nil || !strings.Contains(err.Error(), "the limit is") && !strings.Contains(err.Error(), "expected are") {
			t.Errorf("%s %s: %v", c.form, c.name, err)
		}
	}
}

// hugeMember returns a sparse tar file of f in which the member name, the last, is size bytes large.
func hugeMember(t *testing.T, f imagetest.Files, name string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.tar")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	rest := imagetest.Files{}
	for n, data := range f {
		if n != name {
			rest[n] = data
		}
	}
	data := rest.Tar(t, "")
	tw := tar.NewWriter(w)
	if _, err = w.Write(data[:len(data)-1024]); err == nil { // without the end marker
		err = tw.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, Format: tar.FormatGNU})
	}
	if err == nil {
		info, e := w.Stat()
		if err = e; err == nil {
			err = w.Truncate(info.Size() + size + 1024)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAdvisoryAnnotations reads names and descriptors that are made to break their readers (CVE-2026-95839): an error or an
// image, and no panic; what an error quotes has no control characters.
func TestAdvisoryAnnotations(t *testing.T) {
	hostile := []string{"", "@", "@0", ":", "a:", "sha256:", "sha256:../../x", "\x1b[2J", "x\x00y", strings.Repeat("a", 1<<16), "../../etc/passwd", "a@sha256:x", "A/B:C"}
	for _, text := range hostile {
		for _, key := range []string{v1.AnnotationRefName, containerdName, v1.AnnotationTitle, "org.opencontainers.image.base.digest"} {
			f := imagetest.Layout(t)
			a, b := f.AddImage(t, sample(t, "one")), f.AddImage(t, sample(t, "two"))
			a.Annotations = map[string]string{key: text}
			f.SetIndex(t, a, b)
			ref := "oci:" + f.WriteDir(t)
			for _, want := range []string{"", ":none", ":@0"} {
				if _, _, err := read(ref+want, manifest.Platform{}); err != nil && strings.ContainsAny(err.Error(), "\x1b\x00") {
					t.Errorf("%q: %q", text, err)
				}
			}
			if _, err := open(t, ref).Resolve(context.Background(), text); err != nil && strings.ContainsAny(err.Error(), "\x1b\x00") {
				t.Errorf("resolve %q: %q", text, err)
			}
		}
	}
}

// memory is a source of files in memory.
type memory imagetest.Files

func (m memory) open(name string) (*file, error) {
	data, ok := m[name]
	if !ok {
		return nil, missing(name)
	}
	return openBytes(data).(*file), nil
}

func (m memory) resolve(name string) (string, error) { return name, nil }
func (m memory) Close() error                        { return nil }

// FuzzResolve finds images by documents of a stranger: what is found can be fetched, or is said to be missing.
func FuzzResolve(f *testing.F) {
	layout := imagetest.DockerLayout(f, imagetest.Image{Name: "x", Layers: []imagetest.Layer{{Tar: imagetest.Tar(f, entry("f", "x"))}}})
	f.Add(layout["index.json"], layout["manifest.json"], "x")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`), []byte(`{"schemaVersion":2,"config":{}}`), "@0")
	f.Fuzz(func(t *testing.T, index, docker []byte, name string) {
		files := memory{}
		for n, data := range layout {
			files[n] = data
		}
		files["index.json"], files["manifest.json"] = index, docker
		for _, transport := range []reference.Transport{reference.OCI, reference.DockerArchive, reference.Dir} {
			a := &Archive{ref: reference.Reference{Transport: transport, Path: "x", Index: -1}, src: files, made: map[digest.Digest][]byte{}, files: map[digest.Digest]string{}}
			if a.checkForm() != nil {
				continue
			}
			d, err := a.Resolve(context.Background(), name)
			if err != nil {
				continue
			}
			_, err = content.ReadAll(context.Background(), a, d, manifest.MaxManifest)
			if err != nil && errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s: %v", transport, err)
			}
			if err := manifest.CheckDescriptor(d); err != nil {
				t.Error(fmt.Errorf("%s: %w", transport, err))
			}
		}
	})
}
