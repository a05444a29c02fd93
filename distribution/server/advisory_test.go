package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/protocol"
)

// endless yields zeros for ever and counts them.
type endless struct{ read int64 }

func (e *endless) Read(p []byte) (int, error) {
	clear(p)
	e.read += int64(len(p))
	return len(p), nil
}

// TestManifestSizeCVE_2017_11468 pushes manifests of 10 GB, with and without saying so.
func TestManifestSizeCVE_2017_11468(t *testing.T) {
	x := newRegistry(t, Options{})
	for _, length := range []int64{10 << 30, -1} {
		body := &endless{}
		r := httptest.NewRequest("PUT", "/v2/a/manifests/t", body)
		r.ContentLength = length
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := httptest.NewRecorder()
		x.ServeHTTP(w, r)
		runtime.ReadMemStats(&after)
		if w.Code != 413 || !protocol.DecodeErrors(w.Body.Bytes()).Has(protocol.CodeSizeInvalid) {
			t.Errorf("length %d: %d %s", length, w.Code, w.Body)
		}
		if body.read > 2*protocol.MaxManifest || after.TotalAlloc-before.TotalAlloc > 64<<20 {
			t.Errorf("length %d: %d bytes read, %d allocated", length, body.read, after.TotalAlloc-before.TotalAlloc)
		}
	}
}

// TestPageSizeCVE_2023_2253 asks for pages of any size.
func TestPageSizeCVE_2023_2253(t *testing.T) {
	x := newRegistry(t, Options{})
	x.push("a", "t", image, imageOf(""))
	lists := []string{"/v2/_catalog", "/v2/a/tags/list", protocol.ReferrersPath("a", digest.FromString("x"))}
	for _, list := range lists {
		for _, n := range []string{"2147483647", "2147483648", "9223372036854775807", "18446744073709551616", strings.Repeat("9", 1000)} {
			if allocated := testing.AllocsPerRun(1, func() { x.want(200, "", "GET", list+"?n="+n, "") }); allocated > 1000 {
				t.Errorf("%s?n=%.30s: %v allocations", list, n, allocated)
			}
		}
		for _, n := range []string{"-1", "-2147483649", "1e9", "", "%00"} {
			x.want(400, protocol.CodeUnsupported, "GET", list+"?n="+n, "")
		}
	}
}

// TestDeletedBlobCVE_2026_35172 deletes a blob and a manifest in one repository that another has too, and that were just read.
func TestDeletedBlobCVE_2026_35172(t *testing.T) {
	x := newRegistry(t, Options{})
	var d, m digest.Digest
	for _, repo := range []string{"a", "b"} {
		d = x.blob(repo, "content")
		m = x.push(repo, "t", image, imageOf(""))
		x.want(200, "", "GET", protocol.BlobPath(repo, d), "")
		x.want(200, "", "GET", protocol.ManifestPath(repo, string(m)), "")
	}
	x.want(202, "", "DELETE", protocol.BlobPath("a", d), "")
	x.want(202, "", "DELETE", protocol.ManifestPath("a", string(m)), "")
	for range 2 {
		for _, method := range []string{"HEAD", "GET"} {
			x.want(200, "", method, protocol.BlobPath("b", d), "")
			x.want(200, "", method, protocol.ManifestPath("b", string(m)), "")
			x.want(404, protocol.CodeBlobUnknown, method, protocol.BlobPath("a", d), "")
			x.want(404, protocol.CodeManifestUnknown, method, protocol.ManifestPath("a", string(m)), "")
			x.want(404, protocol.CodeManifestUnknown, method, protocol.ManifestPath("a", "t"), "")
		}
	}
}

// TestNoDeleteCVE_2026_41888 deletes in every way where nothing may be deleted, and changes in every way where nothing may
// change.
func TestNoDeleteCVE_2026_41888(t *testing.T) {
	x := newRegistry(t, Options{})
	d := x.blob("a", "content")
	m := x.push("a", "t", image, imageOf(""))
	upload := x.want(202, "", "POST", "/v2/a/blobs/uploads/", "").Header().Get("Location")
	for _, opts := range []Options{{NoDelete: true}, {ReadOnly: true}} {
		x.reopen(opts)
		for _, target := range []string{protocol.BlobPath("a", d), protocol.ManifestPath("a", string(m)), protocol.ManifestPath("a", "t")} {
			w := x.want(405, protocol.CodeUnsupported, "DELETE", target, "")
			if strings.Contains(w.Header().Get("Allow"), "DELETE") {
				t.Errorf("%s: Allow %s", target, w.Header().Get("Allow"))
			}
			x.want(200, "", "GET", target, "")
		}
	}
	for _, c := range [][2]string{{"POST", "/v2/a/blobs/uploads/"}, {"POST", "/v2/b/blobs/uploads/?from=a&mount=" + string(d)},
		{"PATCH", upload}, {"PUT", upload + "?digest=" + string(d)}, {"DELETE", upload}, {"PUT", "/v2/a/manifests/u"}} {
		x.want(405, protocol.CodeUnsupported, c[0], c[1], "content")
	}
	x.reopen(Options{NoDelete: true})
	x.want(204, "", "DELETE", upload, "") // an upload is not content
}

// only lets people do what it lists.
type only map[Access]bool

func (o only) Authorize(_ *http.Request, a Access) error {
	if o[a] {
		return nil
	}
	return &AccessError{Status: 403, Message: fmt.Sprintf("no %v", a)}
}

// TestMountCVE_2024_39897 mounts a blob of a repository that the sender may not read.
func TestMountCVE_2024_39897(t *testing.T) {
	x := newRegistry(t, Options{})
	d := x.blob("secret", "content")
	x.blob("shared", "content")
	may := only{{Push, "mine"}: true, {Pull, "mine"}: true, {Pull, "shared"}: true}
	x.reopen(Options{Authorizer: may})
	missing := digest.FromString("nobody has it")
	for _, query := range []string{"?from=secret&mount=" + string(d), "?mount=" + string(d), "?from=secret&mount=" + string(missing),
		"?from=shared&mount=" + string(missing), "?from=none&mount=" + string(d)} {
		w := x.want(202, "", "POST", "/v2/mine/blobs/uploads/"+query, "") // the answers do not differ
		if w.Header().Get("Location") == "" || w.Body.Len() > 0 {
			t.Errorf("%s: %v %s", query, w.Header(), w.Body)
		}
	}
	x.want(403, protocol.CodeDenied, "GET", protocol.BlobPath("secret", d), "")
	x.want(404, "", "GET", protocol.BlobPath("mine", d), "")
	x.want(201, "", "POST", "/v2/mine/blobs/uploads/?from=shared&mount="+string(d), "")
	x.want(200, "", "GET", protocol.BlobPath("mine", d), "")
	x.want(403, protocol.CodeDenied, "POST", "/v2/shared/blobs/uploads/?from=mine&mount="+string(d), "")
}

// TestOverwriteCVE_2026_31801 pushes over a tag with the right to push new ones only.
func TestOverwriteCVE_2026_31801(t *testing.T) {
	x := newRegistry(t, Options{Authorizer: only{{Push, "a"}: true}})
	first, second := imageOf(""), imageOf(`,"annotations":{}`)
	x.push("a", "t", image, first)
	x.push("a", "t", image, first) // changes nothing
	x.want(403, protocol.CodeDenied, "PUT", "/v2/a/manifests/t", second, "Content-Type: "+image)
	by := protocol.ManifestPath("a", string(digest.FromString(second)))
	x.want(403, protocol.CodeDenied, "PUT", by+"?tag=new&tag=t", second, "Content-Type: "+image)
	x.push("a", "other", image, second)
	x.reopen(Options{})
	x.want(404, protocol.CodeManifestUnknown, "GET", "/v2/a/manifests/new", "")
	if got := x.want(200, "", "GET", "/v2/a/manifests/t", "").Body.String(); got != first {
		t.Errorf("tag names %s", got)
	}
}

// TestAccess is which right every request asks for (CVE-2026-61833: a right to push must not delete).
func TestAccess(t *testing.T) {
	var asked []Access
	x := newRegistry(t, Options{Authorizer: askedFor(func(a Access) { asked = append(asked, a) })})
	d := string(digest.FromString("x"))
	for _, c := range []struct {
		method, target string
		want           Access
	}{
		{"GET", "/v2/", Access{Action: Enter}},
		{"GET", "/v2/_catalog", Access{Action: List}},
		{"GET", "/v2/a/b/blobs/" + d, Access{Pull, "a/b"}},
		{"HEAD", "/v2/a/b/manifests/t", Access{Pull, "a/b"}},
		{"GET", "/v2/a/b/tags/list", Access{Pull, "a/b"}},
		{"GET", "/v2/a/b/referrers/" + d, Access{Pull, "a/b"}},
		{"POST", "/v2/a/b/blobs/uploads/", Access{Push, "a/b"}},
		{"GET", "/v2/a/b/blobs/uploads/x", Access{Push, "a/b"}},
		{"HEAD", "/v2/a/b/blobs/uploads/x", Access{Push, "a/b"}},
		{"PATCH", "/v2/a/b/blobs/uploads/x", Access{Push, "a/b"}},
		{"PUT", "/v2/a/b/blobs/uploads/x", Access{Push, "a/b"}},
		{"DELETE", "/v2/a/b/blobs/uploads/x", Access{Push, "a/b"}},
		{"PUT", "/v2/a/b/manifests/t", Access{Push, "a/b"}},
		{"DELETE", "/v2/a/b/manifests/t", Access{Delete, "a/b"}},
		{"DELETE", "/v2/a/b/manifests/" + d, Access{Delete, "a/b"}},
		{"DELETE", "/v2/a/b/blobs/" + d, Access{Delete, "a/b"}},
	} {
		asked = nil
		w := x.do(c.method, c.target, "")
		if len(asked) != 1 || asked[0] != c.want || w.Code != 401 {
			t.Errorf("%s %s: asked for %v, answered %d", c.method, c.target, asked, w.Code)
		}
		if got := w.Header().Get("WWW-Authenticate"); got != "Basic" {
			t.Errorf("%s %s: challenge %q", c.method, c.target, got)
		}
	}
	for _, method := range []string{"OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"} {
		asked = nil
		if w := x.do(method, "/v2/a/b/blobs/"+d, ""); w.Code != 405 || len(asked) > 0 {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
}

type askedFor func(Access)

func (f askedFor) Authorize(_ *http.Request, a Access) error {
	f(a)
	return &AccessError{Status: 401, Challenges: []string{"Basic"}, Message: "log in"}
}
