package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/internal/imagetest"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// TestHostileLayout breaks one thing of a good layout at a time and reads it as a directory and as a tar file.
func TestHostileLayout(t *testing.T) {
	for name, c := range map[string]struct {
		change func(imagetest.Files)
		err    string
	}{
		"good":                {func(f imagetest.Files) { f["unknown"] = nil }, ""},
		"no oci-layout":       {func(f imagetest.Files) { delete(f, "oci-layout") }, `"oci-layout" is missing`},
		"extra field":         {func(f imagetest.Files) { f["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0","x":1}`) }, ""},
		"version":             {func(f imagetest.Files) { f["oci-layout"] = []byte(`{"imageLayoutVersion":"2.0.0"}`) }, `version "2.0.0" is not supported`},
		"layout not JSON":     {func(f imagetest.Files) { f["oci-layout"] = nil }, "decode JSON"},
		"no index.json":       {func(f imagetest.Files) { delete(f, "index.json") }, `"index.json" is missing`},
		"big index.json":      {func(f imagetest.Files) { f["index.json"] = make([]byte, 5<<20) }, "it has 5242880 bytes, the limit is 4194304"},
		"index is a manifest": {func(f imagetest.Files) { f["index.json"] = f[blob(f, `"schemaVersion"`)] }, "index"},
		"no manifest":         {func(f imagetest.Files) { delete(f, blob(f, `"schemaVersion"`)) }, "read manifest: "},
		"no config":           {func(f imagetest.Files) { delete(f, blob(f, "diff_ids")) }, "is missing"},
		"no layer":            {func(f imagetest.Files) { delete(f, blob(f, "ustar")) }, "layer 0: "},
		"flipped manifest":    {func(f imagetest.Files) { flip(f, `"schemaVersion"`) }, "expected is sha256:"},
		"flipped config":      {func(f imagetest.Files) { flip(f, "diff_ids") }, "expected is sha256:"},
		"flipped layer":       {func(f imagetest.Files) { flip(f, "ustar") }, "blob has digest sha256:"},
		"short layer":         {func(f imagetest.Files) { n := blob(f, "ustar"); f[n] = f[n][1:] }, "bytes, expected are"},
		"long layer":          {func(f imagetest.Files) { n := blob(f, "ustar"); f[n] = append(f[n], 0) }, "bytes, expected are"},
	} {
		t.Run(name, func(t *testing.T) {
			f := imagetest.Layout(t, imagetest.Image{Name: "x", Layers: []imagetest.Layer{{Tar: imagetest.Tar(t, entry("f", "x"))}}})
			c.change(f)
			_, _, err := read("oci:"+f.WriteDir(t), manifest.Platform{})
			expect(t, err, c.err)
			_, _, err = read("oci-archive:"+f.WriteTar(t), manifest.Platform{})
			expect(t, err, c.err)
		})
	}
}

// blob returns the name of the blob that contains text.
func blob(f imagetest.Files, text string) string {
	for name, data := range f {
		if strings.HasPrefix(name, "blobs/") && bytes.Contains(data, []byte(text)) {
			return name
		}
	}
	return ""
}

func flip(f imagetest.Files, text string) {
	name := blob(f, text)
	f[name] = bytes.Clone(f[name])
	f[name][len(f[name])/2] ^= 1
}

// TestHostileManifest makes manifests and configs that are well stored and not to be run.
func TestHostileManifest(t *testing.T) {
	layer := imagetest.Tar(t, entry("f", "x"))
	for name, c := range map[string]struct {
		change func(imagetest.Files, *v1.Manifest, *v1.Image)
		err    string
	}{
		"good":           {func(imagetest.Files, *v1.Manifest, *v1.Image) {}, ""},
		"no layers":      {func(_ imagetest.Files, m *v1.Manifest, c *v1.Image) { m.Layers, c.RootFS.DiffIDs = nil, nil }, ""},
		"docker types":   {func(_ imagetest.Files, m *v1.Manifest, _ *v1.Image) { m.Layers[0].MediaType = dockerLayer }, ""},
		"embedded layer": {func(_ imagetest.Files, m *v1.Manifest, _ *v1.Image) { m.Layers[0].Data = layer }, ""},
		"embedded layer without a blob": {func(f imagetest.Files, m *v1.Manifest, _ *v1.Image) {
			m.Layers[0].Data = layer
			delete(f, blobPath(m.Layers[0].Digest))
		}, ""},
		"fewer diff IDs": {func(_ imagetest.Files, _ *v1.Manifest, c *v1.Image) { c.RootFS.DiffIDs = nil }, "image has 1 layers, its config has 0 diff_ids"},
		"rootfs type":    {func(_ imagetest.Files, _ *v1.Manifest, c *v1.Image) { c.RootFS.Type = "x" }, `rootfs of type "x"`},
		"layer type":     {func(_ imagetest.Files, m *v1.Manifest, _ *v1.Image) { m.Layers[0].MediaType = "a/b" }, `layer 0: media type "a/b" is not of a layer`},
		"layer digest": {func(_ imagetest.Files, m *v1.Manifest, _ *v1.Image) {
			m.Layers[0].Digest = "sha256:../../../etc/passwd"
		},
			"is malformed"},
		"layer algorithm": {func(_ imagetest.Files, m *v1.Manifest, _ *v1.Image) { m.Layers[0].Digest = "multihash+base58:Qm" }, "cannot be verified"},
		"layer size":      {func(_ imagetest.Files, m *v1.Manifest, _ *v1.Image) { m.Layers[0].Size++ }, "expected are"},
		"huge config":     {func(_ imagetest.Files, m *v1.Manifest, _ *v1.Image) { m.Config.Size = 17 << 20 }, "17825792 bytes, the limit is 16777216"},
		"artifact":        {func(_ imagetest.Files, m *v1.Manifest, _ *v1.Image) { m.Config.MediaType = "a/b" }, "not a container image"},
		"foreign layer": {func(_ imagetest.Files, m *v1.Manifest, _ *v1.Image) {
			m.Layers[0].MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar"
			m.Layers[0].Digest, m.Layers[0].URLs = digest.FromString("y"), []string{"https://x.example/y"}
		}, `its licence lets it be had only from ["https://x.example/y"]`},
		"foreign layer that is here": {func(_ imagetest.Files, m *v1.Manifest, _ *v1.Image) {
			m.Layers[0].MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar"
		}, ""},
		"sha512": {func(f imagetest.Files, m *v1.Manifest, _ *v1.Image) {
			m.Layers[0].Digest = digest.SHA512.FromBytes(layer)
			f[blobPath(m.Layers[0].Digest)] = layer
		}, ""},
		"flipped sha512": {func(f imagetest.Files, m *v1.Manifest, _ *v1.Image) {
			m.Layers[0].Digest = digest.SHA512.FromString("other")
			f[blobPath(m.Layers[0].Digest)] = layer
		}, "expected is sha512:"},
	} {
		t.Run(name, func(t *testing.T) {
			f := imagetest.Layout(t)
			host := manifest.Host()
			config := v1.Image{Platform: v1.Platform{OS: host.OS, Architecture: host.Architecture}}
			config.RootFS = v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}}
			m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, Layers: []v1.Descriptor{f.Add(v1.MediaTypeImageLayer, layer)}}
			m.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig}
			c.change(f, &m, &config)
			changed := m.Config
			m.Config = f.Add(changed.MediaType, imagetest.JSON(t, config))
			m.Config.Size = max(m.Config.Size, changed.Size)
			f.SetIndex(t, f.Add(v1.MediaTypeImageManifest, imagetest.JSON(t, m)))
			_, _, err := read("oci:"+f.WriteDir(t), manifest.Platform{})
			expect(t, err, c.err)
		})
	}
}

const dockerLayer = "application/vnd.docker.image.rootfs.diff.tar"

// TestHostileIndexes makes graphs of indexes that would keep a reader without limits busy (CVE-2026-53493).
func TestHostileIndexes(t *testing.T) {
	f := imagetest.Layout(t)
	index := func(entries ...v1.Descriptor) v1.Descriptor {
		g := imagetest.Files{}
		g.SetIndex(t, entries...)
		return f.Add(v1.MediaTypeImageIndex, g["index.json"])
	}
	check := func(want string, entries ...v1.Descriptor) {
		t.Helper()
		f.SetIndex(t, entries...)
		ref := "oci:" + f.WriteDir(t)
		if len(entries) > 1 {
			ref += ":@0"
		}
		_, _, err := read(ref, manifest.Platform{})
		expect(t, err, want)
	}
	leaf := f.AddImage(t, sample(t, "x"))
	deep := leaf
	for range maxDepth {
		deep = index(deep, deep)
	}
	check("", deep)
	check("nested deeper than 8", index(deep))

	shared := leaf // 30 entries on each of 8 levels, all of them shared: 30^8 paths
	for range maxDepth {
		entries := make([]v1.Descriptor, 30)
		for i := range entries {
			entries[i] = shared
		}
		shared = index(entries...)
	}
	check("", shared)

	var wide []v1.Descriptor
	for i := range maxIndexes {
		d := leaf
		d.Annotations = map[string]string{"n": fmt.Sprint(i)}
		wide = append(wide, index(d))
	}
	check("more than 128 indexes", index(wide...))
	many := make([]v1.Descriptor, 9000)
	for i := range many {
		many[i] = v1.Descriptor{MediaType: "a/b", Digest: "a:b"}
	}
	a, b, c := index(many...), index(many[1:]...), index(many[2:]...)
	check("more than 20000 entries", index(a, b, c))

	liars := make([]v1.Descriptor, maxTries+1)
	for i := range liars {
		img := sample(t, fmt.Sprint(i))
		img.Config.OS = "plan9"
		liars[i] = f.AddImage(t, img)
		liars[i].Platform = nil
	}
	check("none of 128 manifests is for platform", index(liars...))
}

// TestHostileLinks puts links where files are expected (CVE-2025-11395).
func TestHostileLinks(t *testing.T) {
	img := imagetest.Image{Name: "x", Layers: []imagetest.Layer{{Tar: imagetest.Tar(t, entry("f", "x"))}}}
	layout := imagetest.Layout(t, img)
	layer := blob(layout, "ustar")
	for _, name := range []string{"oci-layout", "index.json", layer} {
		dir := layout.WriteDir(t)
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, "moved")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(dir, "moved"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		_, _, err := read("oci:"+dir, manifest.Platform{})
		expect(t, err, "symbolic link, which is not followed")
		for _, typ := range []byte{tar.TypeSymlink, tar.TypeLink} {
			_, _, err := read("oci-archive:"+imagetest.WriteFile(t, replace(t, layout, name, typ, "moved")), manifest.Platform{})
			expect(t, err, "it is a link to")
		}
	}
	dir := layout.WriteDir(t)
	if err := os.Rename(filepath.Join(dir, "blobs"), filepath.Join(dir, "x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("x", filepath.Join(dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	_, _, err := read("oci:"+dir, manifest.Platform{})
	expect(t, err, "symbolic link, which is not followed")

	docker := imagetest.DockerArchive(t, img)
	name := digest.FromBytes(img.Layers[0].Tar).Encoded() + "/layer.tar"
	for _, c := range []struct {
		typ         byte
		target, err string
	}{
		{tar.TypeSymlink, "../moved", ""},
		{tar.TypeLink, "moved", ""},
		{tar.TypeSymlink, "/etc/passwd", "leads out of the archive"},
		{tar.TypeSymlink, "../../etc/passwd", "leads out of the archive"},
		{tar.TypeLink, "/etc/passwd", "leads out of the archive"},
		{tar.TypeLink, "../x", "leads out of the archive"},
		{tar.TypeSymlink, "layer.tar", "more than 16 links"},
		{tar.TypeSymlink, "../none", `"none" is missing`},
		{tar.TypeSymlink, "../manifest.json", "digest"},
		{tar.TypeFifo, "", "not a regular file"},
		{tar.TypeChar, "", "not a regular file"},
	} {
		_, _, err := read("docker-archive:"+imagetest.WriteFile(t, replace(t, docker, name, c.typ, c.target)), manifest.Platform{})
		expect(t, err, c.err)
	}
	_, _, err = read("docker-archive:"+imagetest.WriteFile(t, replace(t, docker, "manifest.json", tar.TypeSymlink, "moved")), manifest.Platform{})
	expect(t, err, "it is a link to")
}

// replace returns f as a tar archive with a link called name and its content in the file moved.
func replace(t *testing.T, f imagetest.Files, name string, typ byte, target string) []byte {
	entries := []imagetest.Entry{
		{Header: tar.Header{Name: name, Typeflag: typ, Linkname: target}},
		entry("moved", string(f[name])),
	}
	for other, data := range f {
		if other != name {
			entries = append(entries, entry(other, string(data)))
		}
	}
	return imagetest.Tar(t, entries...)
}

// TestHostileDocker breaks one thing of a good docker-archive at a time.
func TestHostileDocker(t *testing.T) {
	docker := func(config, layers string) func(imagetest.Files) {
		return func(f imagetest.Files) {
			f["manifest.json"] = fmt.Appendf(nil, `[{"Config":%q,"RepoTags":null,"Layers":%s}]`, config, layers)
			f["c.json"] = f[firstName(f, ".json")]
		}
	}
	for name, c := range map[string]struct {
		change func(imagetest.Files)
		err    string
	}{
		"good":             {func(imagetest.Files) {}, ""},
		"no manifest.json": {func(f imagetest.Files) { delete(f, "manifest.json") }, `"manifest.json" is missing`},
		"not a list":       {func(f imagetest.Files) { f["manifest.json"] = []byte(`{}`) }, "manifest.json: decode JSON"},
		"names in case":    {func(f imagetest.Files) { f["manifest.json"] = []byte(`[{"config":"x"}]`) }, "only in case"},
		"big manifest":     {func(f imagetest.Files) { f["manifest.json"] = make([]byte, 4<<20+1) }, "the limit is 4194304"},
		"config outside":   {docker("../../etc/passwd", `[]`), "is not a name inside the archive"},
		"config absolute":  {docker("/etc/passwd", `[]`), "is not a name inside the archive"},
		"config missing":   {docker("none", `[]`), `"none" is missing`},
		"layer outside":    {docker("c.json", `["/etc/passwd"]`), "is not a name inside the archive"},
		"layer missing":    {docker("c.json", `["none"]`), `layer 0: "none" is missing`},
		"fewer layers":     {docker("c.json", `[]`), "image has 0 layers, its config has 1 diff_ids"},
		"too many layers":  {docker("c.json", `[`+strings.Repeat(`"x",`, 1000)+`"x"]`), "1001 layers, the limit is 1000"},
		"other layer":      {docker("c.json", `["manifest.json"]`), "blob has digest sha256:"},
		"flipped config":   {func(f imagetest.Files) { n := firstName(f, ".json"); f[n] = append([]byte(" "), f[n]...) }, "expected is sha256:"},
		"flipped layer":    {func(f imagetest.Files) { n := firstName(f, "/layer.tar"); f[n] = append(f[n], 0) }, "blob has digest sha256:"},
		"OCI layout":       {func(f imagetest.Files) { f["oci-layout"] = nil; delete(f, "manifest.json") }, "try oci-archive:"},
	} {
		t.Run(name, func(t *testing.T) {
			f := imagetest.DockerArchive(t, imagetest.Image{Name: "x", Layers: []imagetest.Layer{{Tar: imagetest.Tar(t, entry("f", "x"))}}})
			c.change(f)
			_, _, err := read("docker-archive:"+f.WriteTar(t), manifest.Platform{})
			expect(t, err, c.err)
		})
	}
}

// TestHostileFiles opens files that are not archives, or only a part of one.
func TestHostileFiles(t *testing.T) {
	layout := imagetest.Layout(t, sample(t, "x"))
	whole := layout.Tar(t, "")
	first := slices.Min(slices.Collect(maps.Keys(layout)))
	cut := len(imagetest.Files{first: layout[first]}.Tar(t, "")) - 1024 // the end marker
	dir := t.TempDir()
	twice := imagetest.Tar(t, entry("oci-layout", `{}`), entry("./oci-layout", `{"imageLayoutVersion":"1.0.0"}`))
	sparse := imagetest.Tar(t, entry("a", ""))
	copy(sparse[156:], "S") // GNU sparse type
	refit(sparse)
	for name, c := range map[string]struct {
		data []byte
		err  string
	}{
		"empty":                {nil, "is empty"},
		"zeros":                {make([]byte, 4096), "tar archive is empty"},
		"text":                 {bytes.Repeat([]byte("hello "), 200), "not a tar archive"},
		"cut in a header":      {whole[:cut+100], fmt.Sprintf("truncated after %d bytes", cut+100)},
		"cut between files":    {whole[:cut], "is missing: file does not exist (the tar archive has no end marker: it seems truncated)"},
		"cut in the last file": {whole[:len(whole)-1024-600], "truncated"},
		"cut gzip":             {gzipped(t, whole)[:200], "gzip stream is truncated"},
		"cut zstd":             {zstded(t, whole)[:200], "zstd stream is truncated"},
		"damaged gzip":         {append([]byte("\x1f\x8b"), whole...), "gzip: invalid header"},
		"xz":                   {[]byte("\xfd7zXZ\x00 and so on"), "xz is not supported around a tar archive"},
		"bzip2":                {[]byte("BZh9 and so on"), "bzip2 is not supported"},
		"damaged checksum":     {append(bytes.Clone(whole[:len(whole)-1024]), bytes.Repeat([]byte("x"), 1024)...), "tar archive is damaged"},
		"name twice":           {twice, "several entries of this name"},
		"sparse":               {sparse, "sparse"},
		"docker":               {imagetest.DockerArchive(t, sample(t, "x")).Tar(t, ""), "try docker-archive:"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := read("oci-archive:"+imagetest.WriteFile(t, c.data), manifest.Platform{})
			expect(t, err, c.err)
		})
	}
	for ref, want := range map[string]string{
		"oci:" + layout.WriteTar(t):        "not a directory; for a tar file use oci-archive:",
		"oci-archive:" + dir:               "is a directory; for an OCI layout use oci:",
		"oci:" + dir + "/none":             "no such file or directory",
		"docker-archive:" + dir + "/none":  "no such file or directory",
		"oci-archive:" + "/proc/self/mem":  "input/output error",
		"docker-archive:" + "/dev/null:@1": "is empty",
	} {
		_, _, err := read(ref, manifest.Platform{})
		expect(t, err, want)
	}
}

// refit writes a tar header's checksum again.
func refit(header []byte) {
	copy(header[148:156], "        ")
	sum := 0
	for _, b := range header[:512] {
		sum += int(b)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// TestSpoolLimit stops a decompression bomb and leaves no temporary file.
func TestSpoolLimit(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, c := range []struct {
		size int
		err  string
	}{{1000, ""}, {1001, "more than 1000 bytes, the limit"}} {
		f, size, err := spoolTar(bytes.NewReader(gzipped(t, make([]byte, c.size))), "gzip", 1000)
		expect(t, err, c.err)
		if err == nil {
			if size != int64(c.size) {
				t.Errorf("size %d", size)
			}
			f.Close()
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	t.Setenv("TMPDIR", dir+"/none")
	_, _, err := spoolTar(strings.NewReader("x"), "", 1000)
	expect(t, err, "make temporary file: open "+dir+"/none/")
}

// reader returns its data in one read, and then its error.
type reader struct {
	data string
	err  error
}

func (r *reader) Read(p []byte) (int, error) {
	n := copy(p, r.data)
	r.data = r.data[n:]
	if n == 0 {
		return 0, r.err
	}
	return n, nil
}

func (r *reader) Close() error { return nil }

// TestVerifier reads files that change after they were opened.
func TestVerifier(t *testing.T) {
	broken := errors.New("broken disk")
	for _, c := range []struct {
		data string
		size int64
		err  error
		want string
	}{
		{"hello", 5, io.EOF, ""},
		{"", 0, io.EOF, "blob has digest sha256:e3b0c442"},
		{"hellO", 5, io.EOF, "blob has digest sha256:"},
		{"hell", 5, io.EOF, "ends 1 bytes early"},
		{"hello!", 5, io.EOF, "longer than its size"},
		{"hel", 5, broken, "broken disk"},
		{"hello", 5, broken, "broken disk"},
	} {
		want := digest.FromString("hello")
		v := &verifier{f: &reader{c.data, c.err}, want: want, hash: want.Algorithm().Hash(), left: c.size}
		data, err := io.ReadAll(v)
		expect(t, err, c.want)
		if int64(len(data)) > c.size {
			t.Errorf("%q: %d bytes of %d", c.data, len(data), c.size)
		}
		if _, again := v.Read(make([]byte, 1)); err != nil && again != err {
			t.Errorf("%q: error %v, then %v", c.data, err, again)
		}
	}
}

// TestCancel stops when the context is cancelled.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	img := sample(t, "x")
	for _, text := range []string{"oci:" + imagetest.Layout(t, img).WriteDir(t), "docker-archive:" + imagetest.DockerArchive(t, img).WriteTar(t)} {
		ref, err := reference.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		a, err := Open(ref)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if _, err := a.Image(ctx, manifest.Platform{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// FuzzTar opens arbitrary bytes as both kinds of tar file.
func FuzzTar(f *testing.F) {
	img := imagetest.Image{Name: "x", Layers: []imagetest.Layer{{Tar: imagetest.Tar(f, entry("f", "x"))}}}
	f.Add(imagetest.Layout(f, img).Tar(f, ""))
	f.Add(imagetest.DockerArchive(f, img).Tar(f, "./"))
	f.Fuzz(func(t *testing.T, data []byte) {
		switch sniff(data) {
		case "gzip", "zstd": // covered by TestSpoolLimit; a bomb would only fill the disk here
			return
		}
		path := imagetest.WriteFile(t, data)
		for _, transport := range []string{"oci-archive:", "docker-archive:"} {
			img, layers, err := read(transport+path, manifest.Platform{OS: "linux", Architecture: "amd64"})
			if err == nil && (manifest.ID(img.ConfigRaw) != img.ID || len(layers) != len(img.Config.RootFS.DiffIDs)) {
				t.Errorf("%s: %+v", transport, img)
			}
		}
	})
}
