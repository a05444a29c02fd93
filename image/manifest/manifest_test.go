package manifest

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	hex64   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	good    = `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + hex64 + `","size":7}`
	tarGzip = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:` + hex64 + `","size":7}`
)

func expect(t *testing.T, in string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%.120s: error %v, want %q", in, err, want)
	}
}

func TestParseIndex(t *testing.T) {
	descriptor := func(d string) string { return `{"schemaVersion":2,"manifests":[` + d + `]}` }
	for _, c := range []struct{ in, mediaType, err string }{
		{`{"schemaVersion":2,"manifests":[]}`, v1.MediaTypeImageIndex, ""},
		{descriptor(good), v1.MediaTypeImageIndex, ""},
		{descriptor(`{"mediaType":"application/xml","digest":"x+y:z","size":1,"future":{"a":1}}`), v1.MediaTypeImageIndex, ""},
		{` {"schemaVersion":2,"manifests":[],"mediaType":"` + dockerIndex + `"}`, dockerIndex, ""},
		{`{"schemaVersion":2,"manifests":[],"mediaType":"` + dockerIndex + `"}`, v1.MediaTypeImageIndex, "says that its media type is"},
		{`{"schemaVersion":2,"manifests":[]}`, v1.MediaTypeImageManifest, "index expected"},
		{`{"schemaVersion":2}`, v1.MediaTypeImageIndex, "no manifests list"},
		{`{"schemaVersion":1,"manifests":[]}`, v1.MediaTypeImageIndex, "schemaVersion 1"},
		{`{"schemaVersion":2,"manifests":[],"layers":[]}`, v1.MediaTypeImageIndex, "ambiguous"},
		{`{"schemaVersion":2,"manifests":[],"config":` + good + `}`, v1.MediaTypeImageIndex, "ambiguous"},
		{`{"schemaVersion":2,"manifests":[],"Layers":[]}`, v1.MediaTypeImageIndex, "only in case"},
		{`{"schemaVersion":2,"manifests":[],"manifests":[]}`, v1.MediaTypeImageIndex, "twice"},
		{`[]`, v1.MediaTypeImageIndex, "not a JSON object"},
		{`null`, v1.MediaTypeImageIndex, "not a JSON object"},
		{``, v1.MediaTypeImageIndex, "not a JSON object"},
		{`{"manifests":[]`, v1.MediaTypeImageIndex, "unexpected end"},
		{`{"schemaVersion":2,"manifests":[]` + strings.Repeat(" ", MaxManifest) + `}`, v1.MediaTypeImageIndex, "the limit is 4194304"},
		{descriptor(`{}`), v1.MediaTypeImageIndex, "entry 0: descriptor : media type is missing"},
		{descriptor(`{"mediaType":"x","digest":"sha256:` + hex64 + `"}`), v1.MediaTypeImageIndex, `media type "x" is malformed`},
		{descriptor(`{"mediaType":"a/b"}`), v1.MediaTypeImageIndex, "digest is missing"},
		{descriptor(`{"mediaType":"a/b","digest":"sha256:../../x"}`), v1.MediaTypeImageIndex, "malformed"},
		{descriptor(`{"mediaType":"a/b","digest":"sha256:` + hex64 + `","size":-1}`), v1.MediaTypeImageIndex, "size -1 is negative"},
		{descriptor(`{"mediaType":"a/b","digest":"sha256:` + hex64 + `","size":1e3}`), v1.MediaTypeImageIndex, "decode JSON"},
		{descriptor(`{"mediaType":"a/b","digest":"sha256:` + hex64 + `","size":2,"data":"e30="}`), v1.MediaTypeImageIndex, "embedded data has digest sha256:44136fa3"},
		{descriptor(`{"mediaType":"a/b","digest":"sha256:` + hex64 + `","size":3,"data":"e30="}`), v1.MediaTypeImageIndex, "embedded data has 2 bytes"},
		{descriptor(`{"mediaType":"a/b","digest":"x:y","size":2,"data":"e30="}`), v1.MediaTypeImageIndex, "cannot be verified"},
		{descriptor(`{"mediaType":"a/b","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="}`), v1.MediaTypeImageIndex, ""},
	} {
		_, err := ParseIndex([]byte(c.in), c.mediaType)
		expect(t, c.in, err, c.err)
	}
}

func TestParseManifest(t *testing.T) {
	const oci = v1.MediaTypeImageManifest
	for _, c := range []struct{ in, mediaType, err string }{
		{`{"schemaVersion":2,"config":` + good + `,"layers":[` + tarGzip + `],"annotations":{"a":"","A":""},"x":1}`, oci, ""},
		{`{"schemaVersion":2,"config":` + good + `,"layers":[],"subject":` + good + `}`, oci, ""},
		{`{"schemaVersion":2,"config":` + good + `,"layers":null,"manifests":null}`, dockerManifest, ""},
		{`{"schemaVersion":2,"layers":[]}`, oci, "no config"},
		{`{"schemaVersion":2,"config":` + good + `,"config":` + good + `}`, oci, `"config" twice`},
		{`{"schemaVersion":2,"config":` + good + `,"manifests":[]}`, oci, "ambiguous"},
		{`{"schemaVersion":2,"config":` + good + `,"fsLayers":[]}`, oci, "ambiguous"},
		{`{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `","config":` + good + `}`, oci, "says that its media type is"},
		{`{"schemaVersion":1,"config":` + good + `}`, dockerSchema1 + "prettyjws", "schema 1, which is not supported"},
		{`{"schemaVersion":2,"config":` + good + `,"layers":[{"mediaType":"a/b"}]}`, oci, "layer 0: descriptor of a/b: digest is missing"},
		{`{"schemaVersion":2,"config":{"mediaType":""}}`, oci, "config: descriptor : media type is missing"},
		{`{"schemaVersion":2,"config":` + good + `,"subject":{}}`, oci, "subject: descriptor"},
		{`{"schemaVersion":2,"config":` + good + `,"layers":[` + strings.Repeat(tarGzip+",", MaxLayers) + tarGzip + `]}`, oci, "1001 layers, the limit is 1000"},
	} {
		_, err := ParseManifest([]byte(c.in), c.mediaType)
		expect(t, c.in, err, c.err)
	}
}

func TestParseConfig(t *testing.T) {
	const head = `{"architecture":"amd64","os":"linux",`
	for _, c := range []struct{ in, err string }{
		{head + `"rootfs":{"type":"layers","diff_ids":["sha256:` + hex64 + `"]},"config":null,"history":null,"created":null,"Size":3}`, ""},
		{head + `"rootfs":{"type":"layers"},"config":{"Labels":{"a":"1","A":"2"},"Hostname":"","Healthcheck":{"Test":[]}}}`, ""},
		{head + `"rootfs":{"type":"x"}}`, `rootfs of type "x"`},
		{head + `"rootfs":{"type":"layers","diff_ids":["sha256:ab"]}}`, "diff_id 0: digest"},
		{head + `"rootfs":{"type":"layers","diff_ids":["blake3:` + hex64 + `"]}}`, "cannot be verified"},
		{head + `"rootfs":{"type":"layers"},"config":{"user":"root"}}`, `"user" differs from "User"`},
		{head + `"rootfs":{"type":"layers"},"OS":"x"}`, `"OS" differs from "os"`},
		{`{"os":"linux","rootfs":{"type":"layers"}}`, "no architecture"},
		{`{"architecture":"arm","rootfs":{"type":"layers"}}`, "no os"},
		{`{` + strings.Repeat(" ", MaxConfig) + `}`, "the limit is 16777216"},
	} {
		_, err := ParseConfig([]byte(c.in))
		expect(t, c.in, err, c.err)
	}
}

func TestMediaTypes(t *testing.T) {
	const oci, docker = "application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."
	for mediaType, want := range map[string]string{
		oci + "v1.tar": "layer", oci + "v1.tar+gzip": "layer", oci + "v1.tar+zstd": "layer",
		oci + "nondistributable.v1.tar+gzip": "foreign", oci + "nondistributable.v1.tar": "foreign",
		docker + "diff.tar": "layer", docker + "diff.tar.gzip": "layer", docker + "diff.tar.zstd": "layer",
		docker + "foreign.diff.tar.gzip": "foreign",
		oci + "v1.tar+encrypted":         "", oci + "v1.tar.gzip": "", oci + "v1.tar+gzip+encrypted": "", "application/x-tar": "", "": "",
	} {
		got := ""
		switch {
		case IsNonDistributable(mediaType):
			got = "foreign"
		case IsLayer(mediaType):
			got = "layer"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", mediaType, got, want)
		}
	}
}

func FuzzDocuments(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[` + good + `]}`))
	f.Add([]byte(`{"schemaVersion":2,"config":` + good + `,"layers":[` + tarGzip + `]}`))
	f.Add([]byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:` + hex64 + `"]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		idx, err := ParseIndex(raw, v1.MediaTypeImageIndex)
		if err == nil {
			if _, err := ParseManifest(raw, v1.MediaTypeImageManifest); err == nil {
				t.Error("document is an index and a manifest")
			}
			if chosen, err := Select(idx.Manifests, Host()); (err == nil) != (len(chosen) > 0) {
				t.Errorf("chose %v, error %v", chosen, err)
			}
		}
		m, err := ParseManifest(raw, v1.MediaTypeImageManifest)
		if err == nil {
			for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
				if strings.Contains(string(d.Digest), "/") || d.Digest.Encoded() == "" || d.Size < 0 {
					t.Errorf("descriptor %+v was accepted", d)
				}
			}
			again, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseManifest(again, v1.MediaTypeImageManifest); err != nil {
				t.Errorf("written again as %s: %v", again, err)
			}
		}
		if img, err := ParseConfig(raw); err == nil {
			for _, d := range img.RootFS.DiffIDs {
				if d.Validate() != nil {
					t.Errorf("diff ID %q was accepted", d)
				}
			}
		}
	})
}

func TestID(t *testing.T) {
	if got := ID([]byte("{}")); got != digest.Digest("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a") {
		t.Error(got)
	}
}
