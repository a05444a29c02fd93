package mutate

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/internal/imagetest"
)

// explain compares two images.
func explain(t *testing.T, a, b imagetest.Image) string {
	t.Helper()
	f := imagetest.Layout(t)
	x, y := f.AddImage(t, a), f.AddImage(t, b)
	return explainIn(t, f, x, y)
}

func explainIn(t *testing.T, f imagetest.Files, x, y v1.Descriptor) string {
	t.Helper()
	store := newLayout(t, f)
	found, err := Explain(context.Background(), Side{store, x}, Side{store, y})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, d := range found {
		fmt.Fprintf(&b, "%s | %s | %.40s | %.40s\n", d.Where, d.What, d.A, d.B)
	}
	return b.String()
}

// TestExplain finds the one thing in which two images differ.
func TestExplain(t *testing.T) {
	file := func(change func(*imagetest.Entry)) []byte {
		e := imagetest.Entry{Header: tar.Header{Name: "etc/f", ModTime: time.Unix(1, 0)}, Content: "text"}
		if change != nil {
			change(&e)
		}
		return imagetest.Tar(t, imagetest.Entry{Header: tar.Header{Name: "etc/"}}, e)
	}
	for name, c := range map[string]struct {
		change func(*imagetest.Image)
		want   string
	}{
		"nothing": {func(*imagetest.Image) {}, ""},
		"config":  {func(i *imagetest.Image) { i.Config.Config.Env = []string{"A=c"} }, `config: config.Env[0] | another value | "A=b" | "A=c"` + "\n"},
		"label":   {func(i *imagetest.Image) { i.Config.Config.Labels = map[string]string{"x": "y"} }, `config: config.Labels | only one has it |  | {"x":"y"}` + "\n"},
		"created": {func(i *imagetest.Image) { now := time.Unix(5, 0).UTC(); i.Config.Created = &now }, `config: created | only one has it |  | "1970-01-01T00:00:05Z"` + "\n"},
		"more env": {func(i *imagetest.Image) { i.Config.Config.Env = []string{"A=b", "C=d"} },
			`config: config.Env | another value | ["A=b"] | ["A=b","C=d"]` + "\n"},
		"compression": {func(i *imagetest.Image) { i.Layers[0].Compression = "zstd" }, "layer 0 | the same content in another compression | gzip, "},
		"layer more": {func(i *imagetest.Image) { i.Layers = append(i.Layers, imagetest.Layer{Tar: file(nil)}) },
			"layer 1 | only one image has this layer |  | sha256:"},
		"mtime": {func(i *imagetest.Image) {
			i.Layers[0].Tar = file(func(e *imagetest.Entry) { e.ModTime = time.Unix(2, 0) })
		}, "layer 0: /etc/f | mtime | 1970-01-01T00:00:01Z | 1970-01-01T00:00:02Z\n"},
		"mode and owner": {func(i *imagetest.Image) {
			i.Layers[0].Tar = file(func(e *imagetest.Entry) { e.Mode, e.Uid, e.Uname = 0o4755, 5, "x" })
		}, "layer 0: /etc/f | mode | 0644 | 04755\nlayer 0: /etc/f | owner | 0:0 | 5:0\nlayer 0: /etc/f | names of owner and group | : | x:\n"},
		"content":  {func(i *imagetest.Image) { i.Layers[0].Tar = file(func(e *imagetest.Entry) { e.Content = "tExt" }) }, "layer 0: /etc/f | content | sha256:"},
		"new file": {func(i *imagetest.Image) { i.Layers[0].Tar = file(func(e *imagetest.Entry) { e.Name = "etc/g" }) }, "layer 0: /etc/f | only one layer has it | file | \nlayer 0: /etc/g | only one layer has it |  | file\n"},
		"link": {func(i *imagetest.Image) {
			i.Layers[0].Tar = file(func(e *imagetest.Entry) {
				e.Typeflag, e.Linkname, e.Content = tar.TypeSymlink, "x", ""
			})
		}, "layer 0: /etc/f | type | file | symbolic link"},
		"xattr": {func(i *imagetest.Image) {
			i.Layers[0].Tar = file(func(e *imagetest.Entry) {
				e.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y"}
			})
		}, `layer 0: /etc/f | extended attributes |  | user.x="y"`},
		"padding": {func(i *imagetest.Image) { i.Layers[0].Tar = append(file(nil), make([]byte, 512)...) }, "layer 0 | the same files, in another form of tar headers or padding"},
		"order": {func(i *imagetest.Image) {
			i.Layers[0].Tar = imagetest.Tar(t, imagetest.Entry{Header: tar.Header{Name: "etc/f", ModTime: time.Unix(1, 0)}, Content: "text"}, imagetest.Entry{Header: tar.Header{Name: "etc/"}})
		}, "layer 0 | the same files in another order | /etc | /etc/f\n"},
	} {
		base := func() imagetest.Image {
			i := imagetest.Image{Layers: []imagetest.Layer{{Tar: file(nil), Compression: "gzip"}}}
			i.Config.Config = v1.ImageConfig{Env: []string{"A=b"}}
			return i
		}
		changed := base()
		c.change(&changed)
		if got := explain(t, base(), changed); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" || strings.HasSuffix(c.want, "\n") && got != c.want {
			t.Errorf("%s: differences\n%swant\n%s", name, got, c.want)
		}
	}
}

// TestExplainForm finds that documents differ in their form only, and in indexes the platform.
func TestExplainForm(t *testing.T) {
	f := imagetest.Layout(t)
	a := f.AddImage(t, sample(t, ""))
	raw := f["blobs/sha256/"+a.Digest.Encoded()]
	spaced := f.Add(a.MediaType, bytes.Replace(raw, []byte(`"schemaVersion":2`), []byte(`"schemaVersion": 2`), 1))
	if got := explainIn(t, f, a, spaced); got != "manifest | the same values with other white space |  | \n" {
		t.Errorf("white space: %s", got)
	}
	annotated := f.Add(a.MediaType, append(bytes.TrimSuffix(bytes.Clone(raw), []byte("}")), `,"annotations":{"k":"v"}}`...))
	if got := explainIn(t, f, a, annotated); got != `manifest: annotations | only one has it |  | {"k":"v"}`+"\n" {
		t.Errorf("annotations: %s", got)
	}
	other := sample(t, "")
	other.Config.Author = "me"
	b := f.AddImage(t, other)
	attestation := a
	attestation.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	index := func(entries ...v1.Descriptor) v1.Descriptor {
		g := imagetest.Files{}
		g.SetIndex(t, entries...)
		return f.Add(v1.MediaTypeImageIndex, g["index.json"])
	}
	platform := a.Platform.OS + "/" + a.Platform.Architecture
	got := explainIn(t, f, index(a), index(b, attestation))
	if want := platform + `: config: author | only one has it |  | "me"` + "\nattestation 1 | only one index has this entry |  | sha256:"; !strings.HasPrefix(got, want) {
		t.Errorf("index: %s, want %s", got, want)
	}
	if got := explainIn(t, f, index(a), a); !strings.HasPrefix(got, "image | one is an index, the other a manifest") {
		t.Errorf("index and manifest: %s", got)
	}
}

// TestExplainMissing says of what is not here that it differs, and compares the rest.
func TestExplainMissing(t *testing.T) {
	f := imagetest.Layout(t)
	index := func(author string, absent v1.Descriptor) v1.Descriptor {
		img := sample(t, "")
		img.Config.Author = author
		g := imagetest.Files{}
		g.SetIndex(t, f.AddImage(t, img), absent)
		return f.Add(v1.MediaTypeImageIndex, g["index.json"])
	}
	absent := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Size: 6, Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}
	one, two := absent, absent
	one.Digest, two.Digest = digest.FromString("one"), digest.FromString("two")
	got := explainIn(t, f, index("a", one), index("b", two))
	for _, want := range []string{`config: author | another value | "a" | "b"` + "\n", "linux/s390x: entry | another digest, and not both are here to be compared | sha256:"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %s", got, want)
		}
	}
	a, b := sample(t, ""), sample(t, "")
	b.Layers[0].Tar = fileTar(t, "f", "other")
	x, y := f.AddImage(t, a), f.AddImage(t, b)
	stored, _, _ := b.Layers[0].Bytes(t)
	delete(f, "blobs/sha256/"+digest.FromBytes(stored).Encoded())
	if got := explainIn(t, f, x, y); !strings.Contains(got, "layer 0 | another digest, and not both are here") {
		t.Errorf("without a layer: %s", got)
	}
}

// FuzzFiles reads any bytes as a layer's files.
func FuzzFiles(f *testing.F) {
	f.Add(imagetest.Tar(f, imagetest.Entry{Header: tar.Header{Name: "a/b", PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}}, Content: "c"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := readFiles(bytes.NewReader(data))
		if err != nil {
			return
		}
		e := explainer{ctx: context.Background()}
		if err := e.compareFiles("layer", files, files, true); err != nil || len(e.found) != 1 || !strings.HasPrefix(e.found[0].What, "the same content") {
			t.Errorf("a layer and itself: %+v, %v", e.found, err)
		}
	})
}

// TestExplainLimit ends a list that is too long.
func TestExplainLimit(t *testing.T) {
	var a, b []imagetest.Entry
	for i := range maxDifferences + 10 {
		a = append(a, imagetest.Entry{Header: tar.Header{Name: fmt.Sprint("a", i)}})
		b = append(b, imagetest.Entry{Header: tar.Header{Name: fmt.Sprint("b", i)}})
	}
	got := explain(t, imagetest.Image{Layers: []imagetest.Layer{{Tar: imagetest.Tar(t, a...)}}}, imagetest.Image{Layers: []imagetest.Layer{{Tar: imagetest.Tar(t, b...)}}})
	if lines := strings.Split(strings.TrimSpace(got), "\n"); len(lines) != maxDifferences+1 || !strings.Contains(lines[maxDifferences], "more than 1000 differences") {
		t.Errorf("%d lines, the last is %s", len(lines), lines[len(lines)-1])
	}
}
