package server

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage/directory"
)

// FuzzServe makes any request to a registry that has something of everything. No answer is a 500, whatever is asked.
func FuzzServe(f *testing.F) {
	dir, err := directory.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { dir.Close() })
	d := string(digest.FromString("{}"))
	for _, c := range [][4]string{
		{"POST", "/v2/a/blobs/uploads/?digest=" + d, "", "{}"},
		{"PUT", "/v2/a/manifests/t", "", imageOf(subject(digest.Digest(d)))},
		{"PUT", "/v2/a/manifests/" + d + "?tag=x&tag=y", image, "{}"},
		{"POST", "/v2/b/blobs/uploads/?from=a&mount=" + d, "", ""},
		{"POST", "/v2/b/blobs/uploads/?digest-algorithm=sha512", "", ""},
		{"PATCH", "/v2/b/blobs/uploads/00000000-0000-0000-0000-000000000000", "0-1", "{}"},
		{"PUT", "/v2/b/blobs/uploads/00000000-0000-0000-0000-000000000000?digest=" + d, "0-1", "{}"},
		{"GET", "/v2/a/blobs/" + d, "bytes=0-1", ""},
		{"GET", "/v2/a/tags/list?n=1&last=a", "", ""},
		{"GET", "/v2/_catalog?n=1&last=a", "", ""},
		{"GET", "/v2/a/referrers/" + d + "?n=1&last=a&artifactType=b", "", ""},
		{"HEAD", "/v2/a/manifests/t", `"x"`, ""},
		{"DELETE", "/v2/a/manifests/" + d, "", ""},
		{"DELETE", "/v2/a/blobs/" + d, "", ""},
	} {
		f.Add(c[0], c[1], c[2], c[3])
	}
	f.Fuzz(func(t *testing.T, method, target, header, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || strings.ContainsAny(method, " \r\n") || method == "" {
			t.Skip("net/http answers this itself")
		}
		r := httptest.NewRequest("GET", "/", strings.NewReader(body))
		r.Method, r.URL, r.RequestURI = method, u, target
		for _, name := range []string{"Content-Type", "Content-Range", "Range", "If-Match", "If-None-Match", "If-Range"} {
			r.Header.Set(name, header)
		}
		w := httptest.NewRecorder()
		New(Options{Storage: dir, Fault: func(_ *http.Request, err error) { t.Errorf("%s %s: %v", method, target, err) }}).ServeHTTP(w, r)
		if w.Code >= 500 || w.Code < 200 {
			t.Errorf("%s %s: %d", method, target, w.Code)
		}
		if w.Code >= 400 && method != "HEAD" && protocol.DecodeErrors(w.Body.Bytes()) == nil {
			t.Errorf("%s %s: %d without an error document: %q", method, target, w.Code, w.Body)
		}
	})
}
