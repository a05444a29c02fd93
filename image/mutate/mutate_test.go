package mutate

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/archive"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/diff"
	"github.com/tare-oci/tare/image/internal/imagetest"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// layout is an OCI layout in a temporary directory, to read from and to write to.
type layout struct {
	*archive.Archive
	target archive.Target
	dir    string
}

func (l layout) Exists(ctx context.Context, d v1.Descriptor) (bool, error) {
	return l.target.Exists(ctx, d)
}
func (l layout) Push(ctx context.Context, d v1.Descriptor, r io.Reader) error {
	return l.target.Push(ctx, d, r)
}
func (l layout) Tag(ctx context.Context, d v1.Descriptor, ref string) error {
	return l.target.Tag(ctx, d, ref)
}

func newLayout(t *testing.T, f imagetest.Files) layout {
	t.Helper()
	l := layout{dir: f.WriteDir(t)}
	ref := reference.Reference{Transport: reference.OCI, Path: l.dir, Index: -1}
	var err error
	if l.Archive, err = archive.Open(ref); err == nil {
		l.target, err = archive.Create(ref, archive.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Archive.Close(); l.target.Abort() })
	return l
}

// resolve returns what a name of a layout stands for.
func (l layout) resolve(t *testing.T, name string) v1.Descriptor {
	t.Helper()
	d, err := l.Resolve(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func fileTar(t *testing.T, name, text string) []byte {
	return imagetest.Tar(t, imagetest.Entry{Header: tar.Header{Name: name}, Content: text})
}

func sample(t *testing.T, name string) imagetest.Image {
	img := imagetest.Image{Name: name, Layers: []imagetest.Layer{{Tar: fileTar(t, "f", "one"), Compression: "gzip"}, {Tar: fileTar(t, "g", "two")}}}
	img.Config.Config = v1.ImageConfig{Env: []string{"PATH=/bin", "A=b"}, Cmd: []string{"/x"}}
	return img
}

const (
	odd = `{"created":"2001-02-03T04:05:06Z","x-first":{"z":1.0,"a":"<>"},"os":"linux","architecture":"amd64",` +
		`"config":{"Labels":{"b":"1","a":"2"},"Shell":["/bin/bash","-c"],"Env":["PATH=/bin","A=b"],"Cmd":["x"],"X":null},` +
		`"rootfs":{"diff_ids":["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],"type":"layers"},"x-last":[ ]}`
)

// oddImage has members that nobody knows, in an order of its own.
func oddImage(t *testing.T) *Image {
	t.Helper()
	m := fmt.Sprintf(`{"x":[1, 2],"layers":[{"size":1,"x-l":{},"mediaType":%q,"digest":"sha256:%s","annotations":{"k":"v"},"urls":["https://x.example"]}],`+
		`"config":{"size":%d,"digest":%q,"mediaType":%q,"x-c":"y"},"schemaVersion":2,"mediaType":%q}`,
		v1.MediaTypeImageLayerGzip, strings.Repeat("b", 64), len(odd), digest.FromString(odd), v1.MediaTypeImageConfig, v1.MediaTypeImageManifest)
	img, err := Parse([]byte(m), v1.MediaTypeImageManifest, []byte(odd))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// TestKeeps leaves alone what it was not asked to change.
func TestKeeps(t *testing.T) {
	img := oddImage(t)
	d, err := img.Encode()
	if err != nil || string(d.Config) != odd || !bytes.Contains(d.Manifest, []byte(`"x":[1, 2]`)) || d.Descriptor.Digest != digest.FromBytes(d.Manifest) {
		t.Errorf("unchanged: %s, %s, %v", d.Manifest, d.Config, err)
	}
	created := time.Unix(1, 0)
	l := v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: digest.FromString("l"), Size: 7}
	err = errors.Join(img.AppendLayer(l, digest.FromString("id"), v1.History{Created: &created, CreatedBy: "a <b>"}), img.Change("LABEL c=3 b=4"), img.SetCreated(created))
	if err != nil {
		t.Fatal(err)
	}
	d, err = img.Encode()
	if err != nil {
		t.Fatal(err)
	}
	config := `{"created":"1970-01-01T00:00:01Z","x-first":{"z":1.0,"a":"<>"},"os":"linux","architecture":"amd64",` +
		`"config":{"Labels":{"b":"4","a":"2","c":"3"},"Shell":["/bin/bash","-c"],"Env":["PATH=/bin","A=b"],"Cmd":["x"],"X":null},` +
		`"rootfs":{"diff_ids":["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","` + digest.FromString("id").String() + `"],"type":"layers"},"x-last":[ ],` +
		`"history":[{},{"created":"1970-01-01T00:00:01Z","created_by":"a <b>"}]}`
	if string(d.Config) != config {
		t.Errorf("config\n%s\nwant\n%s", d.Config, config)
	}
	want := fmt.Sprintf(`{"x":[1, 2],"layers":[{"size":1,"x-l":{},"mediaType":%q,"digest":"sha256:%s","annotations":{"k":"v"},"urls":["https://x.example"]},`+
		`{"mediaType":%q,"digest":%q,"size":7}],"config":{"size":%d,"digest":%q,"mediaType":%q,"x-c":"y"},"schemaVersion":2,"mediaType":%q}`,
		v1.MediaTypeImageLayerGzip, strings.Repeat("b", 64), v1.MediaTypeImageLayerGzip, l.Digest, len(config), digest.FromString(config), v1.MediaTypeImageConfig, v1.MediaTypeImageManifest)
	if string(d.Manifest) != want {
		t.Errorf("manifest\n%s\nwant\n%s", d.Manifest, want)
	}
	l.MediaType = v1.MediaTypeImageLayerZstd
	if err := img.ReplaceLayer(0, l); err != nil {
		t.Fatal(err)
	}
	d, err = img.Encode()
	if first := fmt.Sprintf(`{"size":7,"x-l":{},"mediaType":%q,"digest":%q,"annotations":{"k":"v"}}`, l.MediaType, l.Digest); err != nil || !bytes.Contains(d.Manifest, []byte(first)) || string(d.Config) != config {
		t.Errorf("replaced: %s, %v, want %s", d.Manifest, err, first)
	}
}

// TestDockerTypes keeps a manifest of Docker's one, and makes it one of OCI's.
func TestDockerTypes(t *testing.T) {
	config := `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + digest.FromString("a").String() + `"]},"history":[{"created_by":"x"}]}`
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"size":%d,"digest":%q},"layers":[{"mediaType":%q,"size":1,"digest":%q}]}`,
		dockerManifest, dockerConfig, len(config), digest.FromString(config), dockerLayer+".gzip", digest.FromString("b"))
	img, err := Parse([]byte(m), dockerManifest, []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	l := v1.Descriptor{MediaType: v1.MediaTypeImageLayerZstd, Digest: digest.FromString("l"), Size: 7}
	if err := img.AppendLayer(l, digest.FromString("id"), v1.History{}); err == nil || !strings.Contains(err.Error(), "convert the image to OCI's") {
		t.Errorf("zstd in Docker's manifest: %v", err)
	}
	l.MediaType = v1.MediaTypeImageLayerGzip
	if err := img.AppendLayer(l, digest.FromString("id"), v1.History{}); err != nil {
		t.Fatal(err)
	}
	d, err := img.Encode()
	if err != nil || bytes.Contains(d.Manifest, []byte("oci")) || d.Descriptor.MediaType != dockerManifest || d.ConfigDescriptor.MediaType != dockerConfig {
		t.Errorf("%s, %v", d.Manifest, err)
	}
	if err := img.ToOCI(); err != nil {
		t.Fatal(err)
	}
	again, err := img.Encode()
	if err != nil || bytes.Contains(again.Manifest, []byte("docker")) || again.Descriptor.MediaType != v1.MediaTypeImageManifest || !bytes.Equal(again.Config, d.Config) {
		t.Errorf("%s, %v", again.Manifest, err)
	}
	for docker, oci := range map[string]string{dockerLayer: v1.MediaTypeImageLayer, dockerLayer + ".gzip": v1.MediaTypeImageLayerGzip,
		dockerForeign + ".gzip": ociForeign + "+gzip", dockerIndex: v1.MediaTypeImageIndex, "a/b": "a/b"} {
		if got := ociType(docker); got != oci {
			t.Errorf("%s: %s, want %s", docker, got, oci)
		}
	}
}

// TestChange sets every field, and refuses what is none (row E3).
func TestChange(t *testing.T) {
	for _, c := range []struct{ changes, want, err string }{
		{`CMD ["a", "b c"]`, `"Cmd":["a","b c"]`, ""},
		{`cmd echo "$A"  x`, `"Cmd":["/bin/bash","-c","echo \"$A\"  x"]`, ""},
		{`CMD []`, `"Cmd":[]`, ""},
		{`CMD ["a", 1]`, `"Cmd":["/bin/bash","-c","[\"a\", 1]"]`, ""},
		{`ENTRYPOINT ["/e"]`, `"Entrypoint":["/e"]` + " !Cmd", ""},
		{"CMD [\"c\"]|ENTRYPOINT [\"/e\"]", `"Cmd":["c"] "Entrypoint":["/e"]`, ""},
		{"ENTRYPOINT [\"/e\"]|ENTRYPOINT []", `!Entrypoint`, ""},
		{`ENV A=c`, `"Env":["PATH=/bin","A=c"]`, ""},
		{`ENV PATH=$PATH:/x B="${A}-$NONE-\$A" C='$A' D=a\ b`, `"Env":["PATH=/bin:/x","A=b","B=b--$A","C=$A","D=a b"]`, ""},
		{`ENV E ${A:-x} ${N:-y} ${A:+z}${N:+w}`, `"E=b y z"`, ""},
		{`ENV X`, "", "want NAME=VALUE"}, {`ENV =x`, "", "the name is empty"}, {`ENV A=1 B`, "", "want NAME=VALUE"},
		{`ENV A="x`, "", `quote " has no end`}, {`ENV A=${x`, "", "} is missing"}, {`ENV A=${x#y}`, "", "is not supported"}, {`ENV A=${}`, "", "a name is missing"},
		{`EXPOSE 80 53/udp 90-92/TCP $NONE80`, "", "want PORT"},
		{`EXPOSE 80 53/udp 90-92/TCP`, `"ExposedPorts":{"80/tcp":{},"53/udp":{},"90/tcp":{},"91/tcp":{},"92/tcp":{}}`, ""},
		{`EXPOSE 0`, "", "want PORT"}, {`EXPOSE 70000`, "", "want PORT"}, {`EXPOSE 9-8`, "", "want PORT"}, {`EXPOSE 1/x`, "", "want PORT"},
		{`LABEL a=3 "q r"="s \"t" b=`, `"Labels":{"b":"","a":"3","q r":"s \"t"}`, ""},
		{`LABEL multi word value`, `"multi":"word value"`, ""},
		{`VOLUME ["/a b", "/c"]`, `"Volumes":{"/a b":{},"/c":{}}`, ""},
		{`VOLUME /a $A`, `"Volumes":{"/a":{},"b":{}}`, ""}, {`VOLUME [""]`, "", "volume is empty"},
		{`USER ${A}:1`, `"User":"b:1"`, ""},
		{`WORKDIR /a/../b`, `"WorkingDir":"/b"`, ""}, {`WORKDIR a|WORKDIR b`, `"WorkingDir":"/a/b"`, ""},
		{`STOPSIGNAL SIGUSR1`, `"StopSignal":"SIGUSR1"`, ""}, {`STOPSIGNAL a b`, "", "want one signal"},
		{`ONBUILD RUN x "y"|ONBUILD USER 5`, `"OnBuild":["RUN x \"y\"","USER 5"]`, ""}, {`ONBUILD ONBUILD RUN x`, "", "cannot be an instruction"},
		{`HEALTHCHECK NONE`, `"Healthcheck":{"Test":["NONE"]}`, ""},
		{`HEALTHCHECK --interval=5s --timeout=1m --retries=3 --start-period=0s --start-interval=2ms CMD ["a"]`,
			`"Healthcheck":{"Test":["CMD","a"],"Interval":5000000000,"Timeout":60000000000,"StartInterval":2000000,"Retries":3}`, ""},
		{`HEALTHCHECK CMD a b`, `"Test":["CMD-SHELL","a b"]`, ""}, {`HEALTHCHECK CMD`, "", "needs a command"}, {`HEALTHCHECK x`, "", "want NONE or CMD"},
		{`HEALTHCHECK --interval=1us CMD x`, "", "at least 1ms"}, {`HEALTHCHECK --x=1 CMD x`, "", "is unknown"}, {`HEALTHCHECK NONE x`, "", "takes nothing"},
		{`RUN x`, "", `instruction "RUN" is unknown: want one of CMD`}, {`CMD`, "", "CMD needs a value"}, {"CMD a\nUSER b", "", "more than one line"},
		{``, "", "unknown"}, {"CMD a \\\n b", `"a   b"`, ""},
	} {
		img := oddImage(t)
		var err error
		for change := range strings.SplitSeq(c.changes, "|") {
			if err == nil {
				err = img.Change(change)
			}
		}
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", c.changes, err, c.err)
			}
			continue
		}
		d, err2 := img.Encode()
		if err != nil || err2 != nil {
			t.Errorf("%s: %v, %v", c.changes, err, err2)
			continue
		}
		for _, want := range strings.Split(strings.ReplaceAll(c.want, " !", "\x00!"), "\x00") {
			if not, ok := strings.CutPrefix(want, "!"); ok {
				if bytes.Contains(d.Config, []byte(`"`+not+`"`)) {
					t.Errorf("%s: config %s has %s", c.changes, d.Config, not)
				}
				continue
			}
			if c.changes[0] == 'C' && strings.Contains(want, `] "`) {
				want, _, _ = strings.Cut(want, ` "Entry`)
			}
			if !bytes.Contains(d.Config, []byte(want)) {
				t.Errorf("%s: config %s lacks %s", c.changes, d.Config, want)
			}
		}
	}
}

// FuzzChange sets fields by any text: what is accepted is an image still.
func FuzzChange(f *testing.F) {
	for _, s := range []string{`ENV A="${B:-x}" C='d'`, `HEALTHCHECK --interval=5s CMD ["a"]`, `EXPOSE 1-3/udp`, "LABEL a b \\\n c", `VOLUME ["a"]`} {
		f.Add(s)
	}
	config := []byte(`{"os":"linux","architecture":"amd64","config":{"Env":["A=b"]},"rootfs":{"type":"layers","diff_ids":[]}}`)
	m := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`, v1.MediaTypeImageConfig, digest.FromBytes(config), len(config))
	f.Fuzz(func(t *testing.T, change string) {
		img, err := Parse(m, v1.MediaTypeImageManifest, config)
		if err != nil {
			t.Fatal(err)
		}
		if img.Change(change) != nil {
			return
		}
		if _, err := img.Encode(); err != nil {
			t.Errorf("%q: %v", change, err)
		}
	})
}

// TestCommit makes an image of changes, the same one twice, that others unpack.
func TestCommit(t *testing.T) {
	ctx := context.Background()
	store := newLayout(t, imagetest.Layout(t, sample(t, "x")))
	upper := t.TempDir()
	if err := os.WriteFile(filepath.Join(upper, "new"), []byte("new"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(upper, "new"), 0o640); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(upper)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	base := store.resolve(t, "x")
	o := Options{Author: "me", Message: "why", CreatedBy: "sh", Changes: []string{"CMD [\"/new\"]"}, Created: time.Unix(1000, 0), Clamp: true}
	var first v1.Descriptor
	for _, c := range []layer.Compression{"", layer.Gzip, layer.Zstd} {
		o.Compression = c
		img, err := Open(ctx, store, base)
		if err != nil {
			t.Fatal(err)
		}
		d, l, err := Commit(ctx, store, img, diff.Input{Upper: dir, Overlay: true}, o)
		if err != nil {
			t.Fatal(err)
		}
		if first.Digest == "" {
			first = d
		}
		if l.Entries != 1 || c != layer.Zstd && d.Digest != first.Digest {
			t.Errorf("%s: %+v, %+v, first %+v", c, d, l, first)
		}
		got, err := Open(ctx, store, d)
		if err != nil {
			t.Fatal(err)
		}
		config, err := got.Config()
		if err != nil {
			t.Fatal(err)
		}
		h := config.History[len(config.History)-1]
		if len(config.RootFS.DiffIDs) != 3 || config.RootFS.DiffIDs[2] != l.DiffID || config.Author != "me" || config.Config.Cmd[0] != "/new" || h.Comment != "why" || h.CreatedBy != "sh" || !h.Created.Equal(o.Created) || len(config.History) != 3 {
			t.Errorf("config %+v", config)
		}
	}
	img, err := Open(ctx, store, base)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	d, l, err := Commit(ctx, store, img, diff.Input{Upper: empty, Overlay: true}, Options{})
	if err != nil || l.Entries != 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	if img, err := Open(ctx, store, d); err != nil {
		t.Error(err)
	} else if layers, err := img.Layers(); err != nil || len(layers) != 2 {
		t.Errorf("without a change: %d layers, %v", len(layers), err)
	}
	if err := store.Tag(ctx, first, "new"); err != nil {
		t.Fatal(err)
	}
	for _, tool := range [][]string{{"skopeo", "inspect", "oci:" + store.dir + ":new"}, {"umoci", "unpack", "--rootless", "--image", store.dir + ":new", t.TempDir() + "/b"}} {
		if _, err := exec.LookPath(tool[0]); err != nil {
			t.Skipf("peer is not installed: %v", err)
		}
		if out, err := exec.Command(tool[0], tool[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", tool[0], err, out)
		}
	}
}

// TestImport makes an image of a tar file in every compression, with the same diff ID.
func TestImport(t *testing.T) {
	ctx := context.Background()
	store := newLayout(t, imagetest.Layout(t))
	data := fileTar(t, "bin/sh", "text")
	data = append(data, make([]byte, 3072)...) // padding belongs to it
	platform := v1.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}
	for _, c := range []string{"", "gzip", "zstd"} {
		stored, _, _ := imagetest.Layer{Tar: data, Compression: c}.Bytes(t)
		d, err := Import(ctx, store, bytes.NewReader(stored), platform, Options{Changes: []string{"CMD /bin/sh"}, Created: time.Unix(5, 0)})
		if err != nil {
			t.Fatal(err)
		}
		img, err := Open(ctx, store, d)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.Config()
		if err != nil || config.RootFS.DiffIDs[0] != digest.FromBytes(data) || config.Variant != "v6" || config.Config.Cmd[2] != "/bin/sh" || config.History[0].Comment != "Imported from -" {
			t.Errorf("%s: %+v, %v", c, config, err)
		}
		layers, err := img.Layers()
		if err != nil || layers[0].MediaType != v1.MediaTypeImageLayerGzip {
			t.Errorf("%s: %+v, %v", c, layers, err)
		}
	}
	for name, c := range map[string]struct {
		data []byte
		err  string
	}{"not a tar": {[]byte(strings.Repeat("x", 2000)), "read tar archive"}, "empty": {nil, "empty"}, "cut": {data[:600], "read tar archive"}} {
		if _, err := Import(ctx, store, bytes.NewReader(c.data), platform, Options{}); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Import(ctx, store, bytes.NewReader(data), v1.Platform{}, Options{}); err == nil {
		t.Error("imported for no platform")
	}
}

// TestConvert changes the compression of an index's images: configs and diff IDs stay.
func TestConvert(t *testing.T) {
	ctx := context.Background()
	f := imagetest.Layout(t)
	inner := imagetest.Files{}
	amd, arm := sample(t, ""), sample(t, "")
	amd.Config.Platform, arm.Config.Platform = v1.Platform{OS: "linux", Architecture: "amd64"}, v1.Platform{OS: "linux", Architecture: "arm64"}
	absent := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 6, Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}
	one := f.AddImage(t, amd)
	about := f.Add(v1.MediaTypeImageManifest, imagetest.JSON(t, map[string]any{"schemaVersion": 2, "config": f.Add(v1.MediaTypeImageConfig, []byte("{}")), "layers": []v1.Descriptor{f.Add("application/vnd.in-toto+json", []byte("{}"))}}))
	about.Annotations = map[string]string{"vnd.docker.reference.digest": one.Digest.String(), "vnd.docker.reference.type": "attestation-manifest"}
	inner.SetIndex(t, one, f.AddImage(t, arm), absent, about)
	d := f.Add(v1.MediaTypeImageIndex, inner["index.json"])
	store := newLayout(t, f)
	for _, to := range []layer.Compression{layer.Zstd, layer.Gzip, layer.Plain} {
		dst := newLayout(t, imagetest.Layout(t))
		got, err := Convert(ctx, store, dst, d, to)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := content.ReadAll(ctx, dst, got, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		idx, err := manifest.ParseIndex(raw, got.MediaType)
		if err != nil || len(idx.Manifests) != 4 || idx.Manifests[2].Digest != absent.Digest || idx.Manifests[3].Annotations["vnd.docker.reference.digest"] != idx.Manifests[0].Digest.String() {
			t.Fatalf("%s: %s, %v", to, raw, err)
		}
		if ok, err := dst.Exists(ctx, about); !ok || err != nil {
			t.Errorf("%s: the attestation was not copied: %v", to, err)
		}
		for i, old := range []imagetest.Image{amd, arm} {
			img, err := Open(ctx, dst, idx.Manifests[i])
			if err != nil {
				t.Fatal(err)
			}
			config, err := img.Config()
			if err != nil || config.Architecture != old.Config.Architecture {
				t.Errorf("%s: %+v, %v", to, config, err)
			}
			layers, err := img.Layers()
			if err != nil {
				t.Fatal(err)
			}
			for j, l := range layers {
				stored, err := content.ReadAll(ctx, dst, l, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				stream, is, err := layer.Decompress(bytes.NewReader(stored))
				if err != nil {
					t.Fatal(err)
				}
				plain, err := io.ReadAll(stream)
				if err != nil || is != to || !bytes.Equal(plain, old.Layers[j].Tar) || !strings.HasSuffix(l.MediaType, map[layer.Compression]string{layer.Plain: "tar", layer.Gzip: "+gzip", layer.Zstd: "+zstd"}[to]) {
					t.Errorf("%s: layer %d is %s of type %s, %v", to, j, is, l.MediaType, err)
				}
			}
		}
		again, err := Convert(ctx, dst, dst, got, to)
		if err != nil || again.Digest != got.Digest {
			t.Errorf("%s: the second conversion gives %s after %s, %v", to, again.Digest, got.Digest, err)
		}
	}
	lie := imagetest.Layout(t)
	img := sample(t, "lie")
	e := lie.AddImage(t, img)
	config := lie["blobs/sha256/"+digestOf(t, lie, e).Encoded()]
	bad := bytes.Replace(config, []byte(digest.FromBytes(img.Layers[0].Tar)), []byte(digest.FromString("other")), 1)
	m := bytes.Replace(lie["blobs/sha256/"+e.Digest.Encoded()], []byte(digest.FromBytes(config)), []byte(digest.FromBytes(bad)), 1)
	lie.Add("", bad)
	n := lie.Add(v1.MediaTypeImageManifest, m)
	src := newLayout(t, lie)
	if _, err := Convert(ctx, src, src, n, layer.Zstd); err == nil || !strings.Contains(err.Error(), "as the image says") {
		t.Errorf("a wrong diff ID: %v", err)
	}
}

// digestOf returns the digest of the configuration of an image in f.
func digestOf(t *testing.T, f imagetest.Files, d v1.Descriptor) digest.Digest {
	t.Helper()
	var m v1.Manifest
	if err := json.Unmarshal(f["blobs/sha256/"+d.Digest.Encoded()], &m); err != nil {
		t.Fatal(err)
	}
	return m.Config.Digest
}
