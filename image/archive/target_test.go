package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/internal/imagetest"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

func parse(t *testing.T, text string) reference.Reference {
	t.Helper()
	ref, err := reference.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// open opens the source text until the test ends.
func open(t *testing.T, text string) *Archive {
	t.Helper()
	a, err := Open(parse(t, text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// move copies d and what it refers to, what is missing left out, children side by side.
func move(t *testing.T, from content.Source, to content.Target, d v1.Descriptor) {
	t.Helper()
	ctx := context.Background()
	if manifest.IsDocument(d.MediaType) {
		raw, err := content.ReadAll(ctx, from, d, manifest.MaxManifest)
		if errors.Is(err, content.ErrNotFound) {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		refs, err := manifest.Refer(raw, d.MediaType)
		if err != nil {
			t.Error(err)
			return
		}
		var wait sync.WaitGroup
		for _, child := range refs.Children {
			wait.Go(func() { move(t, from, to, child) })
		}
		wait.Wait()
	}
	r, err := from.Fetch(ctx, d, 0)
	if errors.Is(err, content.ErrNotFound) {
		return
	}
	if err == nil {
		err = to.Push(ctx, d, r)
		r.Close()
	}
	if err != nil {
		t.Error(err)
	}
}

// copyImage copies what from names to the reference to, and returns its descriptor.
func copyImage(t *testing.T, from, to string) v1.Descriptor {
	t.Helper()
	src := open(t, from)
	d, err := src.Resolve(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	dst, err := Create(parse(t, to), CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Abort()
	move(t, src, dst, d)
	if err := dst.Tag(context.Background(), d, ""); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

// everything reads all that d leads to, by digest.
func everything(t *testing.T, from content.Source, d v1.Descriptor, into map[digest.Digest]string) {
	t.Helper()
	data, err := content.ReadAll(context.Background(), from, d, 64<<20)
	if err != nil {
		t.Error(err)
		return
	}
	into[d.Digest] = string(data)
	refs, err := manifest.Refer(data, d.MediaType)
	if err != nil {
		t.Error(err)
	}
	for _, child := range refs.Children {
		everything(t, from, child, into)
	}
}

// TestCopies copies an image through every form into every form; manifest and layers stay what they are to the byte.
func TestCopies(t *testing.T) {
	layout := imagetest.Layout(t, sample(t, "busybox:1"))
	first := "oci:" + layout.WriteDir(t)
	want := map[digest.Digest]string{}
	d, err := open(t, first).Resolve(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	everything(t, open(t, first), d, want)
	dir := t.TempDir()
	forms := []string{"oci:" + dir + "/o:x", "oci-archive:" + dir + "/oa:docker.io/library/busybox:1", "dir:" + dir + "/d", "docker-archive:" + dir + "/da:busybox:1"}
	for _, form := range forms {
		if got := copyImage(t, first, form); got.Digest != d.Digest {
			t.Errorf("%s: resolved %s, want %s", form, got.Digest, d.Digest)
		}
	}
	for _, from := range forms {
		for i, to := range forms {
			to = strings.Replace(to, dir, dir+"/to"+string(rune('a'+i)), 1)
			if err := os.MkdirAll(filepath.Dir(parse(t, to).Path), 0o755); err != nil {
				t.Fatal(err)
			}
			copyImage(t, from, to)
			a := open(t, to)
			got, err := a.Resolve(context.Background(), "")
			if err != nil {
				t.Errorf("%s to %s: %v", from, to, err)
				continue
			}
			found := map[digest.Digest]string{}
			everything(t, a, got, found)
			if got.Digest != d.Digest || got.MediaType != d.MediaType || !sameContent(found, want) {
				t.Errorf("%s to %s: %+v, %d blobs", from, to, got, len(found))
			}
			img, layers, err := read(to, manifest.Platform{})
			if err != nil || len(layers) != 3 || img.Config.Config.Cmd[0] != "/busybox:1" {
				t.Errorf("%s to %s: image %+v, %v", from, to, img, err)
			}
			if byDigest, err := a.Resolve(context.Background(), d.Digest.String()); err != nil || byDigest.MediaType != d.MediaType || byDigest.Size != d.Size {
				t.Errorf("%s: by digest %+v, %v", to, byDigest, err)
			}
		}
	}
}

func sameContent(a, b map[digest.Digest]string) bool {
	for d, data := range a {
		if b[d] != data {
			return false
		}
	}
	return len(a) == len(b)
}

// TestDockerManifest makes the same manifest of an old docker-archive every time, with the layers as they lie there.
func TestDockerManifest(t *testing.T) {
	src := sample(t, "busybox:1")
	f := imagetest.DockerArchive(t, src)
	var first v1.Descriptor
	for i, ref := range []string{"docker-archive:" + f.WriteTar(t), "docker-archive:" + imagetest.WriteFile(t, dockerWithLinks(t, f))} {
		a := open(t, ref)
		d, err := a.Resolve(context.Background(), "busybox:1")
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = d
		}
		found := map[digest.Digest]string{}
		everything(t, a, d, found)
		for _, l := range src.Layers {
			stored, _, _ := l.Bytes(t)
			if found[digest.FromBytes(stored)] != string(stored) {
				t.Errorf("%s: a layer is missing", ref)
			}
		}
		if d.Digest != first.Digest || len(found) != 5 || d.Platform == nil || d.Platform.OS != "linux" {
			t.Errorf("%s: %+v, %d blobs", ref, d, len(found))
		}
	}
	one, two := sample(t, "x:1"), sample(t, "x:1")
	two.Config.Platform = v1.Platform{OS: "linux", Architecture: "s390x"}
	a := open(t, "docker-archive:"+imagetest.DockerArchive(t, one, two).WriteTar(t)+":x:1")
	d, err := a.Resolve(context.Background(), "")
	if err != nil || d.MediaType != v1.MediaTypeImageIndex {
		t.Fatalf("one name for two platforms: %+v, %v", d, err)
	}
	found := map[digest.Digest]string{}
	if everything(t, a, d, found); len(found) != 8 {
		t.Errorf("one name for two platforms: %d blobs", len(found))
	}
	if _, err := a.Resolve(context.Background(), "y:1"); err == nil {
		t.Error("found y:1")
	}
}

// TestTag names images of a layout, keeping what others wrote there.
func TestTag(t *testing.T) {
	ctx := context.Background()
	dir := imagetest.Layout(t, sample(t, "old:1")).WriteDir(t)
	index := filepath.Join(dir, "index.json")
	raw, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	raw = bytes.Replace(raw, []byte(`"manifests":[{`), []byte(`"x-unknown": [1.0], "manifests":[{"x": {"z":1,"a":2},`), 1)
	if err := os.WriteFile(index, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	from := "oci:" + imagetest.Layout(t, sample(t, "new:1")).WriteDir(t)
	d := copyImage(t, from, "oci:"+dir+":one")
	copyImage(t, from, "oci:"+dir+":two")
	copyImage(t, from, "oci:"+dir+":two")
	copyImage(t, from, "oci:"+dir)
	copyImage(t, from, "oci:"+dir)
	raw, err = os.ReadFile(index)
	if err != nil || !bytes.Contains(raw, []byte(`"x-unknown":[1.0]`)) || !bytes.Contains(raw, []byte(`{"x":{"z":1,"a":2},`)) {
		t.Errorf("index.json is %s, %v", raw, err)
	}
	idx, err := manifest.ParseIndex(raw, v1.MediaTypeImageIndex)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range idx.Manifests {
		names = append(names, e.Annotations[v1.AnnotationRefName])
	}
	if want := []string{"old:1", "one", "two", ""}; !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
	target, err := Create(parse(t, "oci:"+dir), CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Abort()
	absent := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}
	if err := target.Tag(ctx, absent, "x"); !errors.Is(err, content.ErrNotFound) {
		t.Errorf("tag of what is not there: %v", err)
	}
	if ok, err := target.Exists(ctx, d); !ok || err != nil {
		t.Errorf("exists: %v, %v", ok, err)
	}
}

// TestPushErrors refuses what is not what its descriptor says, and leaves nothing of it.
func TestPushErrors(t *testing.T) {
	ctx := context.Background()
	good := v1.Descriptor{MediaType: "a/b", Digest: digest.FromString("hello"), Size: 5}
	for _, form := range []string{"oci:", "dir:", "oci-archive:", "docker-archive:"} {
		path := filepath.Join(t.TempDir(), "x")
		target, err := Create(parse(t, form+path), CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"hell", "jello", "hello!"} {
			if err := target.Push(ctx, good, strings.NewReader(text)); err == nil {
				t.Errorf("%s: pushed %q", form, text)
			}
		}
		bad := good
		bad.Digest = "sha256:../../x"
		if err := target.Push(ctx, bad, strings.NewReader("hello")); err == nil {
			t.Errorf("%s: pushed to %s", form, bad.Digest)
		}
		if ok, err := target.Exists(ctx, good); ok || err != nil {
			t.Errorf("%s: after errors it exists: %v, %v", form, ok, err)
		}
		if err := target.Push(ctx, good, strings.NewReader("hello")); err != nil {
			t.Errorf("%s: %v", form, err)
		}
		if ok, err := target.Exists(ctx, good); !ok || err != nil {
			t.Errorf("%s: exists: %v, %v", form, ok, err)
		}
		target.Abort()
		left, _ := filepath.Glob(filepath.Dir(path) + "/.tare*")
		inside, _ := filepath.Glob(path + "/.tare*")
		if len(left)+len(inside) > 0 {
			t.Errorf("%s: left %v %v", form, left, inside)
		}
		if _, err := os.Lstat(path); strings.HasSuffix(form, "archive:") && err == nil {
			t.Errorf("%s: Abort left a file", form)
		}
	}
}

// TestHostileTargets writes into directories that somebody has prepared with links (CVE-2026-50162): nothing outside changes.
func TestHostileTargets(t *testing.T) {
	src := "oci:" + imagetest.Layout(t, sample(t, "x")).WriteDir(t)
	for _, c := range []struct{ form, link string }{{"oci:", "blobs"}, {"oci:", "blobs/sha256"}, {"oci:", "index.json"}, {"dir:", "manifest.json"}, {"dir:", "version"}} {
		dir, outside := t.TempDir(), t.TempDir()
		canary := filepath.Join(outside, "canary")
		if err := os.WriteFile(canary, []byte("canary"), 0o600); err != nil {
			t.Fatal(err)
		}
		target := outside
		if !strings.HasPrefix(c.link, "blobs") {
			target = canary
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, c.link)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, c.link)); err != nil {
			t.Fatal(err)
		}
		a := open(t, src)
		d, err := a.Resolve(context.Background(), "")
		if err != nil {
			t.Fatal(err)
		}
		if dst, err := Create(parse(t, c.form+dir), CreateOptions{}); err == nil {
			raw, err := content.ReadAll(context.Background(), a, d, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := dst.Push(context.Background(), d, bytes.NewReader(raw)); err == nil {
				dst.Tag(context.Background(), d, "x")
			}
			dst.Close()
		}
		names, err := os.ReadDir(outside)
		data, err2 := os.ReadFile(canary)
		if err != nil || err2 != nil || len(names) != 1 || string(data) != "canary" {
			t.Errorf("%s%s: outside are %v, canary %q", c.form, c.link, names, data)
		}
	}
}

// TestDirReplace replaces the image of a dir: and removes only its files.
func TestDirReplace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	one, two := sample(t, "one"), sample(t, "other")
	copyImage(t, "oci:"+imagetest.Layout(t, one).WriteDir(t), "dir:"+dir)
	own := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(own, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	copyImage(t, "oci:"+imagetest.Layout(t, two).WriteDir(t), "dir:"+dir)
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 7 { // version, manifest.json, config, three layers, notes
		t.Errorf("left %v, %v", names, err)
	}
	if img, _, err := read("dir:"+dir, manifest.Platform{}); err != nil || img.Config.Config.Cmd[0] != "/other" {
		t.Errorf("image %+v, %v", img, err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = Create(parse(t, "dir:"+other), CreateOptions{})
	expect(t, err, "the directory is not empty")
}

// TestFetch reads from an offset, and says what is not there.
func TestFetch(t *testing.T) {
	ctx := context.Background()
	layer := imagetest.Tar(t, entry("f", "content"))
	f := imagetest.Layout(t, imagetest.Image{Name: "x", Layers: []imagetest.Layer{{Tar: layer}}})
	d := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))}
	for _, text := range []string{"oci:" + f.WriteDir(t), "oci-archive:" + f.WriteTar(t)} {
		a := open(t, text)
		for _, offset := range []int64{0, 500, d.Size} {
			r, err := a.Fetch(ctx, d, offset)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, layer[offset:]) {
				t.Errorf("%s from %d: %d bytes, %v", text, offset, len(got), err)
			}
			r.Close()
		}
		for _, c := range []struct {
			d      v1.Descriptor
			offset int64
			err    string
		}{
			{d, d.Size + 1, "offset"}, {d, -1, "offset"},
			{v1.Descriptor{MediaType: "a/b", Digest: d.Digest, Size: 1}, 0, "expected are 1"},
			{v1.Descriptor{MediaType: "a/b", Digest: "sha256:../../x", Size: 1}, 0, "malformed"},
		} {
			_, err := a.Fetch(ctx, c.d, c.offset)
			expect(t, err, c.err)
		}
		lying := v1.Descriptor{Digest: d.Digest, Size: d.Size, Data: []byte("other")}
		if got, err := content.ReadAll(ctx, a, lying, 1<<20); err != nil || !bytes.Equal(got, layer) {
			t.Errorf("%s: with wrong embedded data and no media type: %d bytes, %v", text, len(got), err)
		}
		absent := v1.Descriptor{MediaType: "a/b", Digest: digest.FromString("none"), Size: 4}
		if _, err := a.Fetch(ctx, absent, 0); !errors.Is(err, content.ErrNotFound) {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := a.Resolve(ctx, absent.Digest.String()); !errors.Is(err, content.ErrNotFound) {
			t.Errorf("%s: resolve: %v", text, err)
		}
	}
}

// TestArtifact finds what is no image by its name.
func TestArtifact(t *testing.T) {
	f := imagetest.Layout(t)
	d := f.Add(v1.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"`+digest.FromString("{}").String()+`","size":2},"layers":[]}`))
	f.Add("a/b", []byte("{}"))
	d.ArtifactType = "a/b"
	d.Annotations = map[string]string{v1.AnnotationRefName: "artifact"}
	f.SetIndex(t, d)
	dir := f.WriteDir(t)
	for _, ref := range []string{"oci:" + dir, "oci:" + dir + ":artifact"} {
		if got, err := open(t, ref).Resolve(context.Background(), ""); err != nil || got.Digest != d.Digest {
			t.Errorf("%s: %+v, %v", ref, got, err)
		}
	}
	_, err := open(t, "oci:"+dir).Resolve(context.Background(), "none")
	expect(t, err, "none")
	out := filepath.Join(t.TempDir(), "a.tar")
	copyImage(t, "oci:"+dir+":artifact", "oci-archive:"+out+":artifact")
	if _, err := open(t, "oci-archive:"+out).Resolve(context.Background(), "artifact"); err != nil {
		t.Error(err)
	}
	docker, err := Create(parse(t, "docker-archive:"+out+".docker"), CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	move(t, open(t, "oci:"+dir), docker, d)
	if err := docker.Tag(context.Background(), d, ""); err != nil {
		t.Error(err)
	}
	expect(t, docker.Close(), "is for container images only")
	empty, err := Create(parse(t, "oci-archive:"+out+".empty"), CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, empty.Close(), "nothing was tagged")
	if left, err := filepath.Glob(filepath.Dir(out) + "/*"); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestReproducible writes the same bytes twice, whatever the order, with the time that was asked for.
func TestReproducible(t *testing.T) {
	from := "oci:" + imagetest.Layout(t, sample(t, "x:1")).WriteDir(t)
	for _, form := range []string{"oci-archive:", "docker-archive:"} {
		var first []byte
		for range 5 {
			path := filepath.Join(t.TempDir(), "a.tar")
			copyImage(t, from, form+path+":x:1")
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = data
			}
			if !bytes.Equal(data, first) {
				t.Errorf("%s: differs from the first", form)
			}
		}
	}
	a := open(t, from)
	d, err := a.Resolve(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	when := time.Unix(1234567890, 5)
	if err := WriteSave(context.Background(), &b, []SaveImage{{Names: []string{"x:1"}, Source: a, Descriptor: d}}, SaveOptions{Time: when}); err != nil {
		t.Fatal(err)
	}
	for name, h := range headers(t, b.Bytes()) {
		if h.ModTime.Unix() != when.Unix() || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

// TestTagTogether gives names from several writers at once; none is lost.
func TestTagTogether(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "l")
	from := "oci:" + imagetest.Layout(t, sample(t, "x")).WriteDir(t)
	d := copyImage(t, from, "oci:"+dir+":first")
	var wait sync.WaitGroup
	for i := range 4 {
		target, err := Create(parse(t, "oci:"+dir), CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer target.Abort()
		wait.Go(func() {
			for j := range 10 {
				if err := target.Tag(ctx, d, string(rune('a'+i))+string(rune('0'+j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	idx, err := open(t, "oci:"+dir).index()
	if err != nil || len(idx.Manifests) != 41 {
		t.Errorf("%d names, %v", len(idx.Manifests), err)
	}
}

// TestWriteToPipe writes an archive where nothing can be renamed.
func TestWriteToPipe(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	run(t, "mkfifo", fifo)
	got := make(chan []byte, 1)
	go func() {
		data, err := os.ReadFile(fifo)
		if err != nil {
			t.Error(err)
		}
		got <- data
	}()
	from := "oci:" + imagetest.Layout(t, sample(t, "x:1")).WriteDir(t)
	copyImage(t, from, "docker-archive:"+fifo+":x:1")
	if img, _, err := read("docker-archive:"+imagetest.WriteFile(t, <-got), manifest.Platform{}); err != nil || img.Name != "docker.io/library/x:1" {
		t.Errorf("%+v, %v", img, err)
	}
	if info, err := os.Lstat(fifo); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe became %v, %v", info, err)
	}
}

// TestReferrers keeps what refers to an image findable in layouts.
func TestReferrers(t *testing.T) {
	ctx := context.Background()
	f := imagetest.Layout(t, sample(t, "x:1"))
	src := open(t, "oci:"+f.WriteDir(t))
	image, err := src.Resolve(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	subject := v1.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
	blob := f.Add("application/vnd.oci.empty.v1+json", []byte("{}"))
	raw := imagetest.JSON(t, map[string]any{"schemaVersion": 2, "mediaType": v1.MediaTypeImageManifest, "artifactType": "a/signature",
		"config": blob, "layers": []v1.Descriptor{blob}, "subject": subject, "annotations": map[string]string{"k": "v"}})
	about := f.Add(v1.MediaTypeImageManifest, raw)
	dir := t.TempDir()
	for _, form := range []string{"oci:" + dir + "/o:x:1", "oci-archive:" + dir + "/oa:x:1", "dir:" + dir + "/d"} {
		dst, err := Create(parse(t, form), CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		move(t, src, dst, image)
		for range 2 {
			if err := dst.Push(ctx, blob, strings.NewReader("{}")); err != nil {
				t.Error(err)
			}
			if err := dst.Push(ctx, about, bytes.NewReader(raw)); err != nil {
				t.Error(err)
			}
		}
		if err := dst.Tag(ctx, image, ""); err != nil {
			t.Error(err)
		}
		if err := dst.Close(); err != nil {
			t.Fatal(err)
		}
		form = strings.TrimSuffix(form, ":x:1")
		a := open(t, form)
		if d, err := a.Resolve(ctx, ""); err != nil || d.Digest != image.Digest {
			t.Errorf("%s: the only image is %+v, %v", form, d, err)
		}
		for artifactType, want := range map[string]int{"": 1, "a/signature": 1, "a/other": 0} {
			if strings.HasPrefix(form, "dir:") {
				want = 0
			}
			found, err := a.Referrers(ctx, image, artifactType)
			if err != nil || len(found) != want || want > 0 && (found[0].Digest != about.Digest || found[0].ArtifactType != "a/signature" || found[0].Annotations["k"] != "v") {
				t.Errorf("%s: of type %q %+v, %v", form, artifactType, found, err)
			}
		}
	}
}
