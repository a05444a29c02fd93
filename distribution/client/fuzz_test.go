package client

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// FuzzDocument feeds what a registry may answer to a request for a manifest.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{},"layers":[]}`), v1.MediaTypeImageManifest, "", "")
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`), "text/plain", v1.MediaTypeImageIndex, "sha256:x")
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`), "application/json; charset=utf-8", "", "")
	f.Add([]byte(`{"manifests":[],"layers":[]}`), "", "", "")
	f.Fuzz(func(t *testing.T, raw []byte, sent, expected, announced string) {
		doc := document{raw: raw, desc: v1.Descriptor{MediaType: expected, Size: -1}}
		resp := &http.Response{Header: http.Header{"Content-Type": {sent}}}
		if announced != "" {
			resp.Header["Docker-Content-Digest"] = []string{announced}
		}
		if doc.check(resp, func(string) {}) != nil {
			return
		}
		d := doc.desc
		if d.MediaType == "" || d.Size != int64(len(raw)) || d.Digest.Algorithm().FromBytes(raw) != d.Digest || expected != "" && d.MediaType != expected {
			t.Errorf("accepted as %v", d)
		}
		if manifest.IsIndex(d.MediaType) {
			if _, err := manifest.ParseManifest(raw, v1.MediaTypeImageManifest); err == nil {
				t.Error("accepted as an index, but it is a manifest to others")
			}
		}
	})
}

// FuzzReferrersTag changes an index of referrers that another client has written.
func FuzzReferrersTag(f *testing.F) {
	d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("new"), Size: 3}
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`))
	f.Add([]byte(`{"manifests":null,"subject":{},"x":[1e400]}`))
	f.Add([]byte(`{"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[{"mediaType":"a/b","digest":"sha256:` +
		strings.Repeat("a", 64) + `","size":1}]}`))
	f.Fuzz(func(t *testing.T, old []byte) {
		idx, err := decodeIndex(old)
		if err != nil {
			return
		}
		raw, changed, err := withReferrer(idx, old, d, true)
		if err != nil || !changed {
			return
		}
		more, err := decodeIndex(raw)
		if err != nil || len(more.Manifests) != len(idx.Manifests)+1 {
			t.Fatalf("%q became %q: %v", old, raw, err)
		}
		raw, changed, err = withReferrer(more, raw, d, false)
		if err != nil || !changed {
			t.Fatalf("%q cannot be taken back: %v", raw, err)
		}
		if less, err := decodeIndex(raw); err != nil || len(less.Manifests) != len(idx.Manifests) {
			t.Fatalf("%q became %q: %v", old, raw, err)
		}
	})
}

// FuzzLocation takes the address of an upload, and of a next page, from a registry.
func FuzzLocation(f *testing.F) {
	for _, s := range []string{"/v2/x?y=z", "http://h/p", "https://u:p@h/", "//h", "?", "ftp://x", "http://[::1]:5/#f", "\x00"} {
		f.Add(s)
	}
	base := &url.URL{Scheme: "https", Host: "registry.example"}
	c, err := New(Options{Base: base})
	if err != nil {
		f.Fatal(err)
	}
	r, err := c.Repository("a")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, unsafe string) {
		resp := &http.Response{Request: &http.Request{URL: c.url("/v2/a/blobs/uploads/")}, Header: http.Header{"Location": {unsafe}}}
		u := &upload{r: r}
		if u.moved(resp) == nil && (u.location.Scheme != "https" || u.location.User != nil || u.location.Hostname() == "") {
			t.Errorf("%q leads to %s", unsafe, u.location)
		}
		resp.Header = http.Header{"Link": {"<" + unsafe + `>; rel="next"`}}
		if next, err := c.nextPage(resp); err == nil && next != nil && !strings.EqualFold(next.Hostname(), base.Hostname()) {
			t.Errorf("%q leads to %s", unsafe, next)
		}
	})
}

// FuzzHeaders reads the small headers of a registry.
func FuzzHeaders(f *testing.F) {
	for _, s := range []string{"5", "-1", "99999999999999999999", "Wed, 21 Oct 2099 07:28:00 GMT", "sha256:abc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, unsafe string) {
		h := http.Header{"Retry-After": {unsafe}, "Docker-Content-Digest": {unsafe}}
		if d, ok := retryAfter(h, time.Unix(0, 0)); ok && d < 0 {
			t.Errorf("%q is %s", unsafe, d)
		}
		if d, err := contentDigest(&http.Response{Header: h}); err == nil && d != "" && reference.CheckVerifiable(d) != nil {
			t.Errorf("%q is digest %s", unsafe, d)
		}
		if s := shorten(unsafe, 50); len(s) > 50+len("…") || strings.ContainsAny(s, "\x1b\n\r") {
			t.Errorf("%q is %q", unsafe, s)
		}
	})
}
