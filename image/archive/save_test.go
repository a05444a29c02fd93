package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/internal/imagetest"
	"github.com/tare-oci/tare/image/manifest"
)

// headers returns the headers of a tar archive by name.
func headers(t *testing.T, data []byte) map[string]*tar.Header {
	t.Helper()
	found := map[string]*tar.Header{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if found[h.Name] != nil {
			t.Errorf("%s is there twice", h.Name)
		}
		found[h.Name] = h
	}
}

// save saves images of the layout f, by their names there, under the same names.
func save(t *testing.T, f imagetest.Files, o SaveOptions, names ...string) ([]byte, error) {
	t.Helper()
	a := open(t, "oci:"+f.WriteDir(t))
	var images []SaveImage
	for _, name := range names {
		d, err := a.Resolve(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		img := SaveImage{Source: a, Descriptor: d}
		if !strings.HasPrefix(name, "@") {
			img.Names = []string{name}
		}
		images = append(images, img)
	}
	var b bytes.Buffer
	err := WriteSave(context.Background(), &b, images, o)
	return b.Bytes(), err
}

func must(t *testing.T, data []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSave saves several images, shared layers once, and reads them back in both ways.
func TestSave(t *testing.T) {
	one, two := sample(t, "localhost/one:1"), sample(t, "busybox:latest")
	two.Layers = append(two.Layers, one.Layers...)
	f := imagetest.Layout(t, one, two)
	for _, format := range []SaveFormat{Combined, Legacy} {
		data, err := save(t, f, SaveOptions{Format: format}, "localhost/one:1", "busybox:latest")
		path := imagetest.WriteFile(t, must(t, data, err))
		again, err := save(t, f, SaveOptions{Format: format}, "localhost/one:1", "busybox:latest")
		if !bytes.Equal(must(t, again, err), data) {
			t.Errorf("%s: the second differs", format)
		}
		for _, name := range []string{"localhost/one:1", "busybox:latest"} {
			transports := []string{"docker-archive:", "oci-archive:"}
			if format == Legacy {
				transports = transports[:1]
			}
			for _, transport := range transports {
				img, layers, err := read(transport+path+":"+name, manifest.Platform{})
				if err != nil {
					t.Errorf("%s %s%s: %v", format, transport, name, err)
					continue
				}
				for i, stored := range layers {
					if format == Legacy && img.Layers[i].DiffID != digest.FromBytes(stored) {
						t.Errorf("%s %s: layer %d is not plain", format, name, i)
					}
				}
				if img.Config.Config.Cmd[0] != "/"+name {
					t.Errorf("%s %s%s: config %s", format, transport, name, img.ConfigRaw)
				}
			}
		}
		h := headers(t, data)
		links, blobs := 0, 0
		for name, header := range h {
			if header.Typeflag == tar.TypeSymlink {
				links++
			} else if strings.HasPrefix(name, "blobs/sha256/") && header.Typeflag == tar.TypeReg {
				blobs++
			}
		}
		if format == Legacy && links != 3 || format == Combined && blobs != 3+2+2+3 {
			t.Errorf("%s: %d links, %d blobs", format, links, blobs)
		}
	}
}

// TestSaveNames writes the names as each reader wants them.
func TestSaveNames(t *testing.T) {
	f := imagetest.Layout(t, sample(t, "x"))
	a := open(t, "oci:"+f.WriteDir(t))
	d, err := a.Resolve(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		names       []string
		tags, index string
	}{
		{nil, "null", "/"},
		{[]string{"busybox", "docker.io/a/b:c", "localhost:5000/x:y"}, `["docker.io/library/busybox:latest","docker.io/a/b:c","localhost:5000/x:y"]`,
			"docker.io/library/busybox:latest/latest docker.io/a/b:c/c localhost:5000/x:y/y"},
		{[]string{"x@" + d.Digest.String()}, "null", "docker.io/library/x@" + d.Digest.String() + "/"},
	} {
		var b bytes.Buffer
		if err := WriteSave(context.Background(), &b, []SaveImage{{Names: c.names, Source: a, Descriptor: d}}, SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		saved := open(t, "docker-archive:"+imagetest.WriteFile(t, b.Bytes()))
		raw, err := saved.readFile("manifest.json", 1<<20)
		if err != nil || !strings.Contains(string(raw), `"RepoTags":`+c.tags+`,`) {
			t.Errorf("%q: manifest.json is %s, %v", c.names, raw, err)
		}
		idx, err := saved.index()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range idx.Manifests {
			names = append(names, e.Annotations[containerdName]+"/"+e.Annotations[v1.AnnotationRefName])
		}
		if got := strings.Join(names, " "); got != c.index {
			t.Errorf("%q: index.json has %s, want %s", c.names, got, c.index)
		}
	}
}

// multi returns a layout with an index, called multi, for several platforms, and the index's bytes.
func multi(t *testing.T) (imagetest.Files, []byte) {
	f := imagetest.Layout(t)
	inner := imagetest.Files{}
	var entries []v1.Descriptor
	for _, arch := range []string{"s390x", "amd64", "arm64"} {
		img := sample(t, arch)
		img.Config.Platform = v1.Platform{OS: "linux", Architecture: arch}
		d := f.AddImage(t, img)
		d.Annotations = nil
		entries = append(entries, d)
	}
	inner.SetIndex(t, entries...)
	d := f.Add(v1.MediaTypeImageIndex, inner["index.json"])
	d.Annotations = map[string]string{v1.AnnotationRefName: "multi"}
	f.SetIndex(t, d)
	return f, inner["index.json"]
}

// TestSaveSparse saves some of an index's platforms; the index keeps its bytes, and readers do not miss the others.
func TestSaveSparse(t *testing.T) {
	f, index := multi(t)
	platform := func(arch string) manifest.Platform { return manifest.Platform{OS: "linux", Architecture: arch} }
	data, err := save(t, f, SaveOptions{Platforms: []manifest.Platform{platform("arm64"), platform("s390x")}}, "multi")
	path := imagetest.WriteFile(t, must(t, data, err))
	a := open(t, "oci-archive:"+path+":multi")
	raw, err := a.documentBytes(digest.FromBytes(index))
	if !bytes.Equal(must(t, raw, err), index) {
		t.Errorf("the index became %s", raw)
	}
	for arch, want := range map[string]string{"arm64": "", "s390x": "", "amd64": "is missing"} {
		_, _, err := read("oci-archive:"+path+":multi", platform(arch))
		expect(t, err, want)
	}
	if img, _, err := read("docker-archive:"+path, platform("arm64")); err != nil || img.Config.Architecture != "arm64" {
		t.Errorf("docker-archive: %+v, %v", img, err)
	}
	sparse := imagetest.Files{}
	for name := range headers(t, data) {
		if body, err := a.readFile(name, 1<<30); err == nil {
			sparse[name] = body
		}
	}
	again, err := save(t, sparse, SaveOptions{}, "multi") // all that is here
	if h := headers(t, must(t, again, err)); len(h) != len(headers(t, data)) {
		t.Errorf("saved again: %d members, want %d", len(h), len(headers(t, data)))
	}
	_, err = save(t, sparse, SaveOptions{Platforms: []manifest.Platform{platform("amd64")}}, "multi")
	expect(t, err, "platform linux/amd64: ")
	_, err = save(t, f, SaveOptions{Platforms: []manifest.Platform{platform("mips")}}, "multi")
	expect(t, err, "no image for platform linux/mips")
	_, err = save(t, f, SaveOptions{Format: "x"}, "multi")
	expect(t, err, `unknown format "x"`)
}

// TestSaveErrors does not save what is damaged.
func TestSaveErrors(t *testing.T) {
	for name, c := range map[string]struct {
		change func(imagetest.Files)
		err    string
	}{
		"no layer":       {func(f imagetest.Files) { delete(f, blob(f, "ustar")) }, "is not here"},
		"no config":      {func(f imagetest.Files) { delete(f, blob(f, "diff_ids")) }, "is not here"},
		"flipped layer":  {func(f imagetest.Files) { flip(f, "ustar") }, "content is sha256:"},
		"flipped config": {func(f imagetest.Files) { flip(f, "diff_ids") }, "content is sha256:"},
	} {
		for _, format := range []SaveFormat{Combined, Legacy} {
			f := imagetest.Layout(t, imagetest.Image{Name: "x", Layers: []imagetest.Layer{{Tar: imagetest.Tar(t, entry("f", "x"))}}})
			c.change(f)
			_, err := save(t, f, SaveOptions{Format: format}, "x")
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s, %s: %v", name, format, err)
			}
		}
	}
}

// TestLegacyTree compares the tree with what Docker 20.10 writes for the same config (row S1).
func TestLegacyTree(t *testing.T) {
	img := sample(t, "busybox:1")
	data, err := save(t, imagetest.Layout(t, img), SaveOptions{Format: Legacy}, "busybox:1")
	a := open(t, "docker-archive:"+imagetest.WriteFile(t, must(t, data, err)))
	entries, err := a.dockerEntries()
	if err != nil || len(entries) != 1 || len(entries[0].Layers) != 3 || entries[0].RepoTags[0] != "docker.io/library/busybox:1" {
		t.Fatalf("manifest.json: %+v, %v", entries, err)
	}
	parent := ""
	for _, name := range entries[0].Layers {
		id := strings.TrimSuffix(name, "/layer.tar")
		version, err := a.readFile(id+"/VERSION", 10)
		if string(must(t, version, err)) != "1.0" {
			t.Errorf("VERSION %q", version)
		}
		raw, err := a.readFile(id+"/json", 1<<20)
		var l struct{ ID, Parent, OS string }
		if err := json.Unmarshal(must(t, raw, err), &l); err != nil || l.ID != id || l.Parent != parent || l.OS != "linux" {
			t.Errorf("json %s: %+v, %v", raw, l, err)
		}
		parent = id
	}
	raw, err := a.readFile("repositories", 1<<20)
	if want := `{"busybox":{"1":"` + parent + `"}}` + "\n"; string(must(t, raw, err)) != want {
		t.Errorf("repositories %s, want %s", raw, want)
	}
}
