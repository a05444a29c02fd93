package manifest

import (
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

func TestRefer(t *testing.T) {
	for _, c := range []struct{ in, mediaType, children, subject, artifactType, err string }{
		{`{"schemaVersion":2,"manifests":[` + tarGzip + `,` + good + `,` + good + `],"subject":` + tarGzip + `}`, v1.MediaTypeImageIndex, "tar+gzip v1+json v1+json", "tar+gzip", "", ""},
		{`{"schemaVersion":2,"manifests":[],"artifactType":"a/b"}`, dockerIndex, "", "", "a/b", ""},
		{`{"schemaVersion":2,"config":` + good + `,"layers":[` + tarGzip + `,` + tarGzip + `]}`, dockerManifest, "v1+json tar+gzip tar+gzip", "", "application/vnd.oci.image.config.v1+json", ""},
		{`{"schemaVersion":2,"config":` + good + `,"layers":[],"artifactType":"a/b","subject":` + good + `}`, v1.MediaTypeImageManifest, "v1+json", "v1+json", "a/b", ""},
		{`{"schemaVersion":2,"config":` + good + `,"manifests":[]}`, v1.MediaTypeImageManifest, "", "", "", "ambiguous"},
		{`{"schemaVersion":2,"manifests":[],"subject":{"mediaType":"a/b","digest":"sha256:../x","size":1}}`, v1.MediaTypeImageIndex, "", "", "", "subject"},
		{`<xml/>`, "application/xml", "", "", "", ""},
		{`{}`, "application/vnd.docker.distribution.manifest.v1+prettyjws", "", "", "", "schema 1"},
	} {
		r, err := Refer([]byte(c.in), c.mediaType)
		expect(t, c.in, err, c.err)
		if err != nil {
			continue
		}
		var children []string
		for _, d := range r.Children {
			children = append(children, d.MediaType[strings.LastIndexByte(d.MediaType, '.')+1:])
		}
		subject := ""
		if r.Subject != nil {
			subject = r.Subject.MediaType[strings.LastIndexByte(r.Subject.MediaType, '.')+1:]
		}
		if got := strings.Join(children, " "); got != c.children || subject != c.subject || r.ArtifactType != c.artifactType {
			t.Errorf("%s: children %s, subject %s, artifact type %s", c.in, got, subject, r.ArtifactType)
		}
	}
}
