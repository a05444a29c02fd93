package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/directory"
)

// registry is a registry under test. A fault of its own fails the test.
type registry struct {
	*testing.T
	*Server
	dir *directory.Dir
}

func newRegistry(t *testing.T, opts Options) *registry {
	t.Helper()
	dir, err := directory.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	r := &registry{T: t, dir: dir}
	r.reopen(opts)
	return r
}

// reopen serves the same storage with other options.
func (x *registry) reopen(opts Options) {
	if opts.Storage == nil {
		opts.Storage = x.dir
	}
	if opts.Fault == nil {
		opts.Fault = func(r *http.Request, err error) { x.Errorf("%s %s: %v", r.Method, r.URL, err) }
	}
	x.Server = New(opts)
}

// do makes a request; headers are NAME: VALUE.
func (x *registry) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	x.ServeHTTP(w, r)
	return w
}

// want makes a request and checks the status and, with an error, its code.
func (x *registry) want(status int, code protocol.Code, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	x.Helper()
	w := x.do(method, target, body, headers...)
	if w.Code != status {
		x.Fatalf("%s %.200s: %d %s, want %d", method, target, w.Code, w.Body, status)
	}
	if code != "" && method != "HEAD" {
		errs := protocol.DecodeErrors(w.Body.Bytes())
		if len(errs) != 1 || errs[0].Code != code || errs[0].Message == "" {
			x.Fatalf("%s %.200s: %s, want %s with a message", method, target, w.Body, code)
		}
	}
	return w
}

func (x *registry) blob(repo, content string) digest.Digest {
	x.Helper()
	d := digest.FromString(content)
	x.want(201, "", "POST", protocol.WithQuery(protocol.UploadsPath(repo), "digest", string(d)), content)
	return d
}

const (
	image = v1.MediaTypeImageManifest
	index = v1.MediaTypeImageIndex
)

// image returns an image manifest; more is more fields of it.
func imageOf(more string) string {
	return `{"schemaVersion":2,"mediaType":"` + image + `","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` +
		string(digest.FromString("{}")) + `","size":2},"layers":[]` + more + `}`
}

func indexOf(more string) string {
	return `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[]` + more + `}`
}

func subject(d digest.Digest) string {
	return `,"subject":{"mediaType":"` + image + `","digest":"` + string(d) + `","size":3}`
}

func (x *registry) push(repo, ref, mediaType, raw string) digest.Digest {
	x.Helper()
	x.want(201, "", "PUT", protocol.ManifestPath(repo, ref), raw, "Content-Type: "+mediaType)
	return digest.FromString(raw)
}

// TestErrorCodes provokes each code of the specification that the handler has, and bad input of every kind: none is a 500.
func TestErrorCodes(t *testing.T) {
	x := newRegistry(t, Options{MaxBlob: 100, RequireBlobs: true})
	d := x.blob("a", "content")
	none := string(digest.FromString("none"))
	upload := x.want(202, "", "POST", "/v2/a/blobs/uploads/", "").Header().Get("Location")
	for _, c := range []struct {
		method, target, body string
		status               int
		code                 protocol.Code
		header               string
	}{
		{"GET", "/", "", 404, protocol.CodeNameUnknown, ""},
		{"GET", "/v2/x", "", 404, protocol.CodeNameUnknown, ""},
		{"GET", "/v2/A/tags/list", "", 400, protocol.CodeNameInvalid, ""},
		{"GET", "/v2/..%2f..%2fetc/tags/list", "", 400, protocol.CodeNameInvalid, ""},
		{"GET", "/v2/a%00/manifests/x", "", 400, protocol.CodeNameInvalid, ""},
		{"GET", "/v2/none/tags/list", "", 404, protocol.CodeNameUnknown, ""},
		{"GET", "/v2/none/blobs/" + none, "", 404, protocol.CodeNameUnknown, ""},
		{"GET", "/v2/none/manifests/x", "", 404, protocol.CodeNameUnknown, ""},
		{"GET", "/v2/a/blobs/" + none, "", 404, protocol.CodeBlobUnknown, ""},
		{"HEAD", "/v2/a/blobs/" + none, "", 404, "", ""},
		{"GET", "/v2/a/blobs/sha256:x", "", 400, protocol.CodeDigestInvalid, ""},
		{"GET", "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", "", 400, protocol.CodeDigestInvalid, ""},
		{"GET", "/v2/a/blobs/" + string(d), "", 416, protocol.CodeSizeInvalid, "Range: bytes=7-"},
		{"GET", "/v2/a/blobs/" + string(d), "", 416, protocol.CodeSizeInvalid, "Range: bytes=5-2"},
		{"GET", "/v2/a/manifests/none", "", 404, protocol.CodeManifestUnknown, ""},
		{"GET", "/v2/a/manifests/" + none, "", 404, protocol.CodeManifestUnknown, ""},
		{"GET", "/v2/a/manifests/.bad", "", 404, protocol.CodeManifestUnknown, ""},
		{"GET", "/v2/a/manifests/sha256:..", "", 400, protocol.CodeDigestInvalid, ""},
		{"DELETE", "/v2/a/manifests/none", "", 404, protocol.CodeManifestUnknown, ""},
		{"DELETE", "/v2/a/manifests/.bad", "", 404, protocol.CodeManifestUnknown, ""},
		{"DELETE", "/v2/a/manifests/" + none, "", 404, protocol.CodeManifestUnknown, ""},
		{"DELETE", "/v2/none/manifests/" + none, "", 404, protocol.CodeNameUnknown, ""},
		{"DELETE", "/v2/a/blobs/" + none, "", 404, protocol.CodeBlobUnknown, ""},
		{"DELETE", "/v2/a/blobs/x", "", 400, protocol.CodeDigestInvalid, ""},
		{"POST", "/v2/a/blobs/uploads/?digest=x", "", 400, protocol.CodeDigestInvalid, ""},
		{"POST", "/v2/a/blobs/uploads/?digest=" + none, "other", 400, protocol.CodeDigestInvalid, ""},
		{"POST", "/v2/a/blobs/uploads/?digest=" + none, strings.Repeat("x", 101), 413, protocol.CodeSizeInvalid, ""},
		{"POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", "", 400, protocol.CodeDigestInvalid, ""},
		{"POST", "/v2/a/blobs/uploads/?mount=x", "", 400, protocol.CodeDigestInvalid, ""},
		{"POST", "/v2/a/blobs/uploads/?from=..&mount=" + none, "", 400, protocol.CodeNameInvalid, ""},
		{"PATCH", upload, "x", 416, protocol.CodeBlobUploadInvalid, "Content-Range: 1-1"},
		{"PATCH", upload, "x", 400, protocol.CodeBlobUploadInvalid, "Content-Range: bytes 0-0/1"},
		{"PATCH", upload, "x", 400, protocol.CodeSizeInvalid, "Content-Range: 0-1"},
		{"PATCH", upload, strings.Repeat("x", 101), 413, protocol.CodeSizeInvalid, ""},
		{"PATCH", "/v2/a/blobs/uploads/x", "x", 404, protocol.CodeBlobUploadUnknown, ""},
		{"PATCH", "/v2/a/blobs/uploads/..", "x", 404, protocol.CodeBlobUploadUnknown, ""},
		{"PUT", upload, "", 400, protocol.CodeDigestInvalid, ""},
		{"PUT", upload + "?digest=" + none, "x", 416, protocol.CodeBlobUploadInvalid, "Content-Range: 5-5"},
		{"GET", "/v2/a/blobs/uploads/x", "", 404, protocol.CodeBlobUploadUnknown, ""},
		{"DELETE", "/v2/a/blobs/uploads/x", "", 404, protocol.CodeBlobUploadUnknown, ""},
		{"PUT", "/v2/a/manifests/.bad", imageOf(""), 400, protocol.CodeManifestInvalid, ""},
		{"PUT", "/v2/a/manifests/t", "", 400, protocol.CodeManifestInvalid, "Content-Type: " + image},
		{"PUT", "/v2/a/manifests/t", "{", 400, protocol.CodeManifestInvalid, ""},
		{"PUT", "/v2/a/manifests/t", "{}", 400, protocol.CodeManifestInvalid, ""},
		{"PUT", "/v2/a/manifests/t", imageOf(""), 400, protocol.CodeManifestInvalid, "Content-Type: " + index},
		{"PUT", "/v2/a/manifests/t", imageOf(""), 400, protocol.CodeManifestInvalid, "Content-Type: text/html"},
		{"PUT", "/v2/a/manifests/t", imageOf(`,"subject":{"mediaType":"a/b","digest":"x","size":1}`), 400, protocol.CodeManifestInvalid, ""},
		{"PUT", "/v2/a/manifests/t", imageOf(`,"config":{}`), 400, protocol.CodeManifestInvalid, ""},
		{"PUT", "/v2/a/manifests/" + none, imageOf(""), 400, protocol.CodeDigestInvalid, "Content-Type: " + image},
		{"PUT", "/v2/a/manifests/t", imageOf(""), 404, protocol.CodeManifestBlobUnknown, "Content-Type: " + image},
		{"PUT", "/v2/a/manifests/" + none + "?tag=-", imageOf(""), 400, protocol.CodeManifestInvalid, ""},
		{"PUT", "/v2/a/manifests/" + none + "?" + strings.Repeat("tag=x&", 101), imageOf(""), 414, protocol.CodeUnsupported, ""},
		{"GET", "/v2/a/tags/list?n=-1", "", 400, protocol.CodeUnsupported, ""},
		{"GET", "/v2/a/tags/list?n=x", "", 400, protocol.CodeUnsupported, ""},
		{"GET", "/v2/a/referrers/x", "", 400, protocol.CodeDigestInvalid, ""},
		{"POST", "/v2/a/manifests/t", "", 405, protocol.CodeUnsupported, ""},
		{"DELETE", "/v2/a/tags/list", "", 405, protocol.CodeUnsupported, ""},
		{"BREW", "/v2/", "", 405, protocol.CodeUnsupported, ""},
	} {
		var headers []string
		if c.header != "" {
			headers = append(headers, c.header)
		}
		w := x.want(c.status, c.code, c.method, c.target, c.body, headers...)
		if c.status == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.target)
		}
	}
}

// TestUpload takes every way to upload a blob.
func TestUpload(t *testing.T) {
	x := newRegistry(t, Options{})
	content := strings.Repeat("0123456789", 10)
	put := func(location string, d digest.Digest, body string, headers ...string) {
		t.Helper()
		w := x.want(201, "", "PUT", protocol.WithQuery(location, "digest", string(d)), body, headers...)
		if w.Header().Get("Location") != protocol.BlobPath("a/b", d) || w.Header().Get(protocol.HeaderContentDigest) != string(d) {
			t.Errorf("headers %v", w.Header())
		}
		if got := x.want(200, "", "GET", protocol.BlobPath("a/b", d), "").Body.String(); got != content {
			t.Errorf("%s came back changed", d)
		}
		x.want(404, protocol.CodeBlobUploadUnknown, "GET", location, "")
		x.want(202, "", "DELETE", protocol.BlobPath("a/b", d), "")
	}
	start := func(query string) string {
		t.Helper()
		w := x.want(202, "", "POST", protocol.UploadsPath("a/b")+query, "")
		if w.Header().Get("Range") != "0-0" || w.Header().Get(protocol.HeaderUploadUUID) == "" {
			t.Errorf("headers %v", w.Header())
		}
		return w.Header().Get("Location")
	}
	patch := func(location, body, wantRange string, headers ...string) string {
		t.Helper()
		w := x.want(202, "", "PATCH", location, body, headers...)
		if got := w.Header().Get("Range"); got != wantRange {
			t.Errorf("Range %s, want %s", got, wantRange)
		}
		return w.Header().Get("Location")
	}
	d256, d512 := digest.FromString(content), digest.SHA512.FromString(content)
	put(start(""), d256, content)
	put(start(""), d512, content)
	put(start("?digest-algorithm=sha512"), d512, content)
	put(patch(start(""), content, "0-99"), d256, "")
	put(patch(patch(start("?digest-algorithm=sha512"), content[:10], "0-9"), content[10:], "0-99"), d512, "")
	at := patch(start(""), content[:50], "0-49", "Content-Range: 0-49")
	w := x.want(416, protocol.CodeBlobUploadInvalid, "PATCH", at, content[:10], "Content-Range: 0-9")
	if w.Header().Get("Range") != "0-49" || w.Header().Get("Location") != at {
		t.Errorf("out of order: headers %v", w.Header())
	}
	if w = x.want(204, "", "GET", at, ""); w.Header().Get("Range") != "0-49" || w.Header().Get("Location") == "" {
		t.Errorf("status: headers %v", w.Header())
	}
	put(at, d256, content[50:], "Content-Range: 50-99")
	for _, d := range []digest.Digest{d256, d512} {
		w := x.want(201, "", "POST", protocol.WithQuery(protocol.UploadsPath("a/b"), "digest", string(d)), content)
		if w.Header().Get("Location") != protocol.BlobPath("a/b", d) {
			t.Errorf("headers %v", w.Header())
		}
	}
	at = start("")
	x.want(204, "", "DELETE", at, "")
	x.want(404, protocol.CodeBlobUploadUnknown, "PATCH", at, "x")
	at = start("")
	x.want(400, protocol.CodeDigestInvalid, "PUT", protocol.WithQuery(at, "digest", string(d256)), "x")
	x.want(404, protocol.CodeBlobUploadUnknown, "GET", at, "")
	at = start("")
	x.want(404, protocol.CodeBlobUploadUnknown, "GET", strings.Replace(at, "a/b", "other", 1), "")
}

func TestGetBlob(t *testing.T) {
	x := newRegistry(t, Options{})
	d := x.blob("a", "0123456789")
	path := protocol.BlobPath("a", d)
	for _, c := range []struct {
		headers []string
		status  int
		body    string
		rang    string
	}{
		{nil, 200, "0123456789", ""},
		{[]string{"Range: bytes=2-4"}, 206, "234", "bytes 2-4/10"},
		{[]string{"Range: bytes=-1"}, 206, "9", "bytes 9-9/10"},
		{[]string{"Range: bytes=0-1,3-4"}, 200, "0123456789", ""},
		{[]string{"Range: bytes=2-4", `If-Range: "x"`}, 200, "0123456789", ""},
		{[]string{"Range: bytes=2-4", "If-Range: " + etag(d)}, 206, "234", "bytes 2-4/10"},
		{[]string{"If-None-Match: " + etag(d)}, 304, "", ""},
		{[]string{`If-None-Match: "x", W/` + etag(d)}, 304, "", ""},
		{[]string{`If-None-Match: "x"`}, 200, "0123456789", ""},
	} {
		w := x.want(c.status, "", "GET", path, "", c.headers...)
		h := w.Header()
		if w.Body.String() != c.body || h.Get("Content-Range") != c.rang || h.Get(protocol.HeaderContentDigest) != string(d) ||
			h.Get("Etag") != etag(d) || h.Get("Accept-Ranges") != "bytes" {
			t.Errorf("%v: %q %v", c.headers, w.Body, h)
		}
	}
	w := x.want(200, "", "HEAD", path, "")
	if h := w.Header(); w.Body.Len() > 0 || h.Get("Content-Length") != "10" || h.Get(protocol.HeaderContentDigest) != string(d) {
		t.Errorf("HEAD: %q %v", w.Body, h)
	}
	if got := x.want(416, "", "GET", path, "", "Range: bytes=10-").Header().Get("Content-Range"); got != "bytes */10" {
		t.Errorf("416 with %s", got)
	}
}

func TestManifest(t *testing.T) {
	x := newRegistry(t, Options{})
	raw := imageOf(`,"x": "odd   spacing"`)
	d := digest.FromString(raw)
	w := x.want(201, "", "PUT", "/v2/a/manifests/latest", raw, "Content-Type: "+image+"; charset=utf-8")
	if h := w.Header(); h.Get("Location") != protocol.ManifestPath("a", string(d)) || h.Get(protocol.HeaderContentDigest) != string(d) {
		t.Errorf("headers %v", h)
	}
	for _, ref := range []string{"latest", string(d)} {
		for _, method := range []string{"GET", "HEAD"} {
			w := x.want(200, "", method, "/v2/a/manifests/"+ref, "", "Accept: text/html")
			h := w.Header()
			if method == "GET" && w.Body.String() != raw || method == "HEAD" && w.Body.Len() > 0 || h.Get("Content-Type") != image ||
				h.Get("Content-Length") != fmt.Sprint(len(raw)) || h.Get(protocol.HeaderContentDigest) != string(d) {
				t.Errorf("%s %s: %v %q", method, ref, h, w.Body)
			}
		}
		x.want(304, "", "GET", "/v2/a/manifests/"+ref, "", "If-None-Match: "+etag(d))
	}
	// Without a Content-Type the manifest's own counts. By sha512 the digest is of sha512.
	d512 := digest.SHA512.FromString(raw)
	w = x.want(201, "", "PUT", "/v2/a/manifests/"+string(d512)+"?tag=1&tag=2&tag=1&tag=3", raw)
	if got := w.Header()[protocol.HeaderTag]; !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("OCI-Tag %v", got)
	}
	for _, tag := range []string{"1", "2", "3"} {
		if got := x.want(200, "", "HEAD", "/v2/a/manifests/"+tag, "").Header().Get(protocol.HeaderContentDigest); got != string(d512) {
			t.Errorf("tag %s is %s", tag, got)
		}
	}
	x.want(202, "", "DELETE", "/v2/a/manifests/1", "")
	x.want(200, "", "GET", "/v2/a/manifests/2", "")
	x.want(202, "", "DELETE", "/v2/a/manifests/"+string(d512), "")
	x.want(404, protocol.CodeManifestUnknown, "GET", "/v2/a/manifests/2", "")
	x.want(404, protocol.CodeManifestUnknown, "GET", "/v2/a/manifests/"+string(d512), "")
	x.want(200, "", "GET", "/v2/a/manifests/latest", "")
}

func TestConditions(t *testing.T) {
	x := newRegistry(t, Options{})
	first, second := imageOf(`,"annotations":{"n":"1"}`), imageOf(`,"annotations":{"n":"2"}`)
	put := func(status int, raw, header string) {
		t.Helper()
		x.want(status, "", "PUT", "/v2/a/manifests/t", raw, "Content-Type: "+image, header)
	}
	put(412, first, "If-Match: *")
	put(201, first, "If-None-Match: *")
	put(412, second, "If-None-Match: *")
	put(412, second, "If-Match: "+etag(digest.FromString(second)))
	put(201, second, "If-Match: "+etag(digest.FromString(first)))
	x.want(412, "", "DELETE", "/v2/a/manifests/t", "", "If-Match: "+etag(digest.FromString(first)))
	x.want(202, "", "DELETE", "/v2/a/manifests/t", "", "If-Match: "+etag(digest.FromString(second)))
}

func TestPages(t *testing.T) {
	x := newRegistry(t, Options{})
	for _, tag := range []string{"b", "a", "d", "c"} {
		x.push("r", tag, image, imageOf(""))
	}
	for _, c := range []struct{ query, want, next string }{
		{"", "a b c d", ""},
		{"?n=2", "a b", "/v2/r/tags/list?last=b&n=2"},
		{"?n=2&last=b", "c d", ""},
		{"?n=4", "a b c d", ""},
		{"?n=0", "", ""},
		{"?last=bb", "c d", ""},
		{"?last=zz&n=1", "", ""},
		{"?n=99999999999999999999999", "a b c d", ""},
	} {
		w := x.want(200, "", "GET", "/v2/r/tags/list"+c.query, "")
		var got struct {
			Name string
			Tags []string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Tags == nil {
			t.Fatalf("%s: %v %s", c.query, err, w.Body)
		}
		if next := protocol.ParseNext(w.Header()); strings.Join(got.Tags, " ") != c.want || got.Name != "r" || next != c.next {
			t.Errorf("%s: %v, next %q; want %s, next %q", c.query, got, next, c.want, c.next)
		}
	}
	x.push("s/t", "x", image, imageOf(""))
	w := x.want(200, "", "GET", "/v2/_catalog?n=1", "")
	if w.Body.String() != `{"repositories":["r"]}` || protocol.ParseNext(w.Header()) != "/v2/_catalog?last=r&n=1" {
		t.Errorf("catalog %s %v", w.Body, w.Header())
	}
	if w = x.want(200, "", "GET", "/v2/_catalog?n=0", ""); w.Body.String() != `{"repositories":[]}` {
		t.Errorf("catalog %s", w.Body)
	}
}

// referrers reads all pages of a list.
func (x *registry) referrers(repo string, d digest.Digest, query string) (list []v1.Descriptor, pages int) {
	x.Helper()
	for target := protocol.ReferrersPath(repo, d) + query; target != ""; pages++ {
		w := x.want(200, "", "GET", target, "")
		var idx v1.Index
		if err := json.Unmarshal(w.Body.Bytes(), &idx); err != nil || idx.Manifests == nil || idx.SchemaVersion != 2 || idx.MediaType != index ||
			w.Header().Get("Content-Type") != index {
			x.Fatalf("%v %s %v", err, w.Body, w.Header())
		}
		if filtered := w.Header().Get(protocol.HeaderFiltersApplied); (filtered == "artifactType") != strings.Contains(target, "artifactType") {
			x.Errorf("%s: filters %q", target, filtered)
		}
		list = append(list, idx.Manifests...)
		target = protocol.ParseNext(w.Header())
	}
	return list, pages
}

func TestReferrers(t *testing.T) {
	x := newRegistry(t, Options{})
	d := digest.FromString("subject")
	if list, _ := x.referrers("a", d, ""); len(list) != 0 {
		t.Fatal(list)
	}
	types := map[digest.Digest]string{}
	for i := range 5 {
		note := fmt.Sprintf(`,"annotations":{"i":"%d"}`, i)
		types[x.push("a", fmt.Sprint("i", i), image, imageOf(subject(d)+note))] = "application/vnd.oci.empty.v1+json"
		types[x.push("a", fmt.Sprint("t", i), image, imageOf(subject(d)+note+`,"artifactType":"a/b"`))] = "a/b"
		types[x.push("a", fmt.Sprint("x", i), index, indexOf(subject(d)+note))] = ""
	}
	w := x.want(201, "", "PUT", "/v2/a/manifests/x0", indexOf(subject(d)), "Content-Type: "+index)
	if got := w.Header().Get("OCI-Subject"); got != string(d) {
		t.Errorf("OCI-Subject %q", got)
	}
	types[digest.FromString(indexOf(subject(d)))] = ""
	for _, query := range []string{"", "?n=1", "?n=4", "?n=100000000000"} {
		list, _ := x.referrers("a", d, query)
		if len(list) != len(types) {
			t.Fatalf("%s: %d referrers, want %d", query, len(list), len(types))
		}
		for _, found := range list {
			if want, ok := types[found.Digest]; !ok || found.ArtifactType != want || found.Size == 0 {
				t.Errorf("%+v, want type %q", found, want)
			}
		}
	}
	for _, query := range []string{"?artifactType=a/b", "?n=2&artifactType=a%2Fb"} {
		list, _ := x.referrers("a", d, query)
		if len(list) != 5 || list[0].ArtifactType != "a/b" || list[0].Annotations["i"] == "" {
			t.Errorf("%s: %+v", query, list)
		}
	}
	gone := digest.FromString(indexOf(subject(d)))
	x.want(202, "", "DELETE", protocol.ManifestPath("a", string(gone)), "")
	if list, _ := x.referrers("a", d, ""); len(list) != len(types)-1 {
		t.Errorf("%d referrers after one was deleted", len(list))
	}
}

// TestUnknownSubject pushes a manifest whose subject's digest nobody can compute: it is taken, and not said to be processed.
func TestUnknownSubject(t *testing.T) {
	x := newRegistry(t, Options{})
	for _, d := range []digest.Digest{digest.Digest("blake3:" + digest.FromString("x").Encoded()), digest.Digest("a:" + strings.Repeat("x", 400))} {
		w := x.want(201, "", "PUT", "/v2/a/manifests/t", imageOf(subject(d)), "Content-Type: "+image)
		if got := w.Header().Get("OCI-Subject"); got != "" {
			t.Errorf("OCI-Subject %s", got)
		}
	}
}

// TestReferrersPages has descriptors that do not fit into one page.
func TestReferrersPages(t *testing.T) {
	x := newRegistry(t, Options{})
	d := digest.FromString("subject")
	for i := range 4 {
		x.push("a", fmt.Sprint(i), image, imageOf(subject(d)+`,"annotations":{"a":"`+strings.Repeat(fmt.Sprint(i), 1<<20)+`"}`))
	}
	if list, pages := x.referrers("a", d, ""); len(list) != 4 || pages < 3 {
		t.Errorf("%d referrers in %d pages", len(list), pages)
	}
}

// forgetful is a storage from before there was a list of referrers.
type forgetful struct{ storage.Storage }

func (f forgetful) PutManifest(c ctx, repo string, m storage.Manifest, o storage.PutOptions) error {
	subject := m.Subject
	m.Subject = ""
	if err := f.Storage.PutManifest(c, repo, m, o); err != nil {
		return err
	}
	f.Storage.(*remembers).subjects[m.Descriptor.Digest] = subject
	return nil
}

// TestReferrersOfTag is RG11: what was pushed with the fallback tag before there was a list of referrers is in the list.
func TestReferrersOfTag(t *testing.T) {
	x := newRegistry(t, Options{})
	old := &remembers{Storage: x.dir, subjects: map[digest.Digest]digest.Digest{}}
	x.reopen(Options{Storage: forgetful{old}})
	d := digest.FromString("subject")
	first := x.push("a", "first", image, imageOf(subject(d)+`,"artifactType":"a/b"`))
	other := x.push("a", "other", image, imageOf(subject(digest.FromString("another"))))
	entry := func(d digest.Digest) string {
		return `{"mediaType":"` + image + `","digest":"` + string(d) + `","size":1,"artifactType":"lie/lie"}`
	}
	fallback := `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[` + entry(first) + "," + entry(other) + "," +
		entry(digest.FromString("never pushed")) + `]}`
	x.push("a", protocol.ReferrersTag(d), index, fallback)

	x.reopen(Options{Storage: old})
	second := x.push("a", "second", image, imageOf(subject(d)+`,"artifactType":"a/c"`))
	for _, query := range []string{"", "?n=1"} {
		list, _ := x.referrers("a", d, query)
		if len(list) != 2 || !slices.ContainsFunc(list, func(f v1.Descriptor) bool { return f.Digest == first && f.ArtifactType == "a/b" }) ||
			!slices.ContainsFunc(list, func(f v1.Descriptor) bool { return f.Digest == second }) {
			t.Errorf("%s: %+v, want %s and %s", query, list, first, second)
		}
	}
	if list, _ := x.referrers("a", d, "?artifactType=a/b"); len(list) != 1 {
		t.Errorf("filtered: %+v", list)
	}
}

func TestWarnings(t *testing.T) {
	x := newRegistry(t, Options{Warnings: func(_ *http.Request, p protocol.Path) []string {
		return []string{`no "more"`, strings.Repeat("x", 2100), strings.Repeat("y", 3000), "late"}
	}})
	w := x.want(200, "", "GET", "/v2/", "")
	if got := protocol.ParseWarnings(w.Header()); len(got) != 2 || got[0] != `no "more"` {
		t.Errorf("%q", got)
	}
	if w.Body.String() != "{}" || w.Header().Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Errorf("%s %v", w.Body, w.Header())
	}
}

// failing is a storage whose disk is full or broken.
type failing struct {
	storage.Storage
	err error
}

func (f failing) StartUpload(ctx, string, digest.Algorithm) (string, error) { return "", f.err }

func TestFaults(t *testing.T) {
	x := newRegistry(t, Options{})
	for _, c := range []struct {
		err    error
		status int
	}{{fmt.Errorf("write /secret/path: %w", storage.ErrNoSpace), 507}, {errors.New("read /secret/path: input/output error"), 500}} {
		var told error
		x.reopen(Options{Storage: failing{x.dir, c.err}, Fault: func(_ *http.Request, err error) { told = err }})
		w := x.want(c.status, "", "POST", "/v2/a/blobs/uploads/", "")
		if strings.Contains(w.Body.String(), "secret") || !errors.Is(told, c.err) {
			t.Errorf("%v: answer %s, told %v", c.err, w.Body, told)
		}
	}
}

// TestBrokenBody cuts the connection within a chunk: what came is kept, and the client can go on.
func TestBrokenBody(t *testing.T) {
	x := newRegistry(t, Options{})
	at := x.want(202, "", "POST", "/v2/a/blobs/uploads/", "").Header().Get("Location")
	r := httptest.NewRequest("PATCH", at, io.MultiReader(strings.NewReader("01234"), &cut{}))
	w := httptest.NewRecorder()
	x.ServeHTTP(w, r)
	if w.Code != 400 || !protocol.DecodeErrors(w.Body.Bytes()).Has(protocol.CodeBlobUploadInvalid) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if got := x.want(204, "", "GET", at, "").Header().Get("Range"); got != "0-4" {
		t.Errorf("range %s", got)
	}
	x.want(201, "", "PUT", protocol.WithQuery(at, "digest", string(digest.FromString("0123456789"))), "56789", "Content-Range: 5-9")
}

type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func FuzzPutManifest(f *testing.F) {
	f.Add([]byte(imageOf(subject(digest.FromString("x")))), image)
	f.Add([]byte(indexOf("")), "")
	f.Fuzz(func(t *testing.T, raw []byte, mediaType string) {
		m, require, err := parse(raw, mediaType, digest.FromBytes(raw))
		if err == nil && (!bytes.Equal(m.Raw, raw) || len(require) > len(m.Blobs)) {
			t.Errorf("%+v, %v", m, require)
		}
	})
}
