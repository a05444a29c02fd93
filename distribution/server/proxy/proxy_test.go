package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/directory"
)

// origin is an upstream: an honest registry, and what a test puts before it.
type origin struct {
	*httptest.Server
	honest http.Handler

	mu     sync.Mutex
	before func(w http.ResponseWriter, r *http.Request) bool // true: answered
	seen   []*http.Request
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.seen = append(o.seen, r)
	before := o.before
	o.mu.Unlock()
	if before == nil || !before(w, r) {
		o.honest.ServeHTTP(w, r)
	}
}

func (o *origin) answer(before func(w http.ResponseWriter, r *http.Request) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.before = before
}

// count is how many requests had a method and a part of a path since the last look.
func (o *origin) count(method, part string) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.seen {
		if (method == "" || r.Method == method) && strings.Contains(r.URL.Path, part) {
			n++
		}
	}
	return n
}

func open(t *testing.T) *directory.Dir {
	t.Helper()
	dir, err := directory.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newOrigin(t *testing.T) *origin {
	o := &origin{honest: server.New(server.Options{Storage: open(t)})}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

// cache is a proxy with its registry before it.
type cache struct {
	*Store
	http.Handler
	now   time.Time
	mu    sync.Mutex
	warns []string
}

func (c *cache) warned() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.warns, "\n")
}

func newCache(t *testing.T, ups ...Upstream) *cache {
	t.Helper()
	c := &cache{now: time.Now()}
	s, err := New(Options{Local: open(t), Upstreams: ups, Temp: t.TempDir(), Warn: func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.warns = append(c.warns, err.Error())
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.now = func() time.Time { return c.now }
	c.Store, c.Handler = s, s.Wrap(server.New(server.Options{Storage: s, Fault: func(_ *http.Request, err error) { s.warn("fault: %w", err) }}))
	return c
}

func send(t *testing.T, h http.Handler, method, target, mediaType, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", mediaType)
	r.Header.Set("Authorization", "Bearer of-the-client")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// push makes an image upstream and returns the digests of its manifest and its layer.
func (o *origin) push(t *testing.T, repo, tag, layer string) (image, blob digest.Digest) {
	t.Helper()
	for _, b := range []string{"{}", layer} {
		if w := send(t, o.honest, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+digest.FromString(b).String(), "application/octet-stream", b); w.Code != 201 {
			t.Fatalf("blob: %d %s", w.Code, w.Body)
		}
	}
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		manifestType, digest.FromString("{}"), digest.FromString(layer), len(layer))
	if w := send(t, o.honest, "PUT", "/v2/"+repo+"/manifests/"+tag, manifestType, m); w.Code != 201 {
		t.Fatalf("manifest: %d %s", w.Code, w.Body)
	}
	return digest.FromString(m), digest.FromString(layer)
}

func down503(w http.ResponseWriter, _ *http.Request) bool {
	w.WriteHeader(http.StatusServiceUnavailable)
	return true
}

func TestPullThrough(t *testing.T) {
	o := newOrigin(t)
	image, blob := o.push(t, "team/app", "v1", "layer")
	c := newCache(t, Upstream{Address: o.URL, TTL: time.Minute})
	get := func(path string, code int, body string) {
		t.Helper()
		for _, method := range []string{"HEAD", "GET"} {
			w := send(t, c, method, path, "", "")
			if w.Code != code || method == "GET" && code == 200 && body != "" && w.Body.String() != body {
				t.Errorf("%s %s: %d %.200s, want %d; warned %s", method, path, w.Code, w.Body, code, c.warned())
			}
		}
	}
	for range 2 {
		get("/v2/team/app/manifests/v1", 200, "")
		get("/v2/team/app/manifests/"+image.String(), 200, "")
		get("/v2/team/app/blobs/"+blob.String(), 200, "layer")
		get("/v2/team/app/tags/list", 200, `{"name":"team/app","tags":["v1"]}`)
		get("/v2/team/app/manifests/none", 404, "")
		get("/v2/team/app/manifests/"+digest.FromString("none").String(), 404, "")
		get("/v2/team/app/blobs/"+digest.FromString("none").String(), 404, "")
		get("/v2/no/such/manifests/v1", 404, "")
	}
	if n := o.count("GET", "/blobs/"+blob.String()); n != 1 {
		t.Errorf("%d fetches of one blob", n)
	}
	if n := o.count("GET", "/manifests/"+image.String()); n != 1 {
		t.Errorf("%d fetches of one manifest", n)
	}
	// What was fetched outlasts upstream: a tag that is believed no longer is served as it was, what is not here is an error.
	o.answer(down503)
	c.now = c.now.Add(time.Hour)
	get("/v2/team/app/manifests/v1", 200, "")
	get("/v2/team/app/blobs/"+blob.String(), 200, "layer")
	get("/v2/team/app/tags/list", 200, `{"name":"team/app","tags":["v1"]}`)
	get("/v2/team/app/manifests/v2", 500, "")
	if !strings.Contains(c.warned(), "serve what is kept of team/app:v1") {
		t.Errorf("warned %s", c.warned())
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.seen {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("%s %s went upstream with %s", r.Method, r.URL, r.Header.Get("Authorization"))
		}
	}
}

func TestTagMoves(t *testing.T) {
	o := newOrigin(t)
	first, _ := o.push(t, "a", "v", "one")
	c := newCache(t, Upstream{Address: o.URL, TTL: time.Minute})
	tag := func() string {
		return send(t, c, "HEAD", "/v2/a/manifests/v", "", "").Header().Get("Docker-Content-Digest")
	}
	if got := tag(); got != first.String() {
		t.Fatalf("at first: %s", got)
	}
	second, _ := o.push(t, "a", "v", "two")
	if got := tag(); got != first.String() {
		t.Errorf("while it is believed: %s", got)
	}
	c.now = c.now.Add(2 * time.Minute)
	if got := tag(); got != second.String() {
		t.Errorf("afterwards: %s", got)
	}
	send(t, o.honest, "DELETE", "/v2/a/manifests/v", "", "")
	c.now = c.now.Add(2 * time.Minute)
	if w := send(t, c, "GET", "/v2/a/manifests/v", "", ""); w.Code != 404 {
		t.Errorf("after it was deleted upstream: %d", w.Code)
	}
	if w := send(t, c, "GET", "/v2/a/manifests/"+second.String(), "", ""); w.Code != 200 {
		t.Errorf("what it named: %d", w.Code)
	}
}

func TestPushIsRefused(t *testing.T) {
	o := newOrigin(t)
	c := newCache(t, Upstream{Address: o.URL})
	d := digest.FromString("x").String()
	for _, q := range [][2]string{{"POST", "/v2/a/blobs/uploads/"}, {"POST", "/v2/a/blobs/uploads/?digest=" + d}, {"PATCH", "/v2/a/blobs/uploads/x"}, {"PUT", "/v2/a/blobs/uploads/x?digest=" + d},
		{"PUT", "/v2/a/manifests/v"}, {"DELETE", "/v2/a/manifests/v"}, {"DELETE", "/v2/a/manifests/" + d}, {"DELETE", "/v2/a/blobs/" + d}, {"POST", "/v2/a/blobs/uploads/?from=b&mount=" + d}} {
		body := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
		if w := send(t, c, q[0], q[1], "application/vnd.oci.image.index.v1+json", body); w.Code != 405 {
			t.Errorf("%s %s: %d %s", q[0], q[1], w.Code, w.Body)
		}
	}
	if n := o.count("", ""); n != 0 {
		t.Errorf("%d requests went upstream", n)
	}
}

func TestNamespaces(t *testing.T) {
	one, two := newOrigin(t), newOrigin(t)
	a, _ := one.push(t, "app", "v", "one")
	b, _ := two.push(t, "app", "v", "two")
	two.push(t, "app", "w", "two")
	c := newCache(t, Upstream{Address: one.URL, Namespace: "one.test"}, Upstream{Address: two.URL, Namespace: "two.test"})
	for _, q := range []struct {
		target string
		code   int
		want   digest.Digest
		ns     string
	}{
		{"/v2/app/manifests/v?ns=one.test", 200, a, "one.test"}, {"/v2/app/manifests/v?ns=two.test", 200, b, "two.test"}, {"/v2/two.test/app/manifests/v", 200, b, ""},
		{"/v2/app/manifests/v", 404, "", ""}, {"/v2/app/manifests/v?ns=three.test", 404, "", ""}, {"/v2/app/manifests/v?ns=..", 404, "", ""},
	} {
		w := send(t, c, "GET", q.target, "", "")
		if w.Code != q.code || q.code == 200 && w.Header().Get("Docker-Content-Digest") != q.want.String() || w.Header().Get("Oci-Namespace") != q.ns {
			t.Errorf("%s: %d %v", q.target, w.Code, w.Header())
		}
	}
	w := send(t, c, "GET", "/v2/app/tags/list?ns=two.test&n=1", "", "")
	if link := w.Header().Get("Link"); link != `</v2/two.test/app/tags/list?last=v&n=1>; rel="next"` {
		t.Errorf("next page: %s", link)
	} else if w = send(t, c, "GET", "/v2/two.test/app/tags/list?last=v&n=1", "", ""); !strings.Contains(w.Body.String(), `["w"]`) {
		t.Errorf("next page: %s", w.Body)
	}
	if _, err := New(Options{Temp: t.TempDir(), Upstreams: []Upstream{{Address: one.URL, Namespace: "Not A Name"}}}); err == nil {
		t.Error("a namespace that is no name is taken")
	}
}

// TestStreams: many clients get a blob while it comes, by one fetch, and none of them its end before it is verified.
func TestStreams(t *testing.T) {
	for _, lie := range []bool{false, true} {
		o := newOrigin(t)
		content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		image, blob := o.push(t, "a", "v", string(content))
		goOn := make(chan bool)
		o.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != "GET" || !strings.Contains(r.URL.Path, "/blobs/"+blob.String()) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = w.Write(content[:len(content)/2])
			_ = http.NewResponseController(w).Flush()
			<-goOn
			rest := bytes.Clone(content[len(content)/2:])
			if lie {
				rest[0] ^= 1
			}
			_, _ = w.Write(rest)
			return true
		})
		c := newCache(t, Upstream{Address: o.URL})
		front := httptest.NewServer(c)
		defer front.Close()
		if _, err := c.GetManifest(t.Context(), "a", image); err != nil {
			t.Fatal(err)
		}
		var half, end sync.WaitGroup
		for range 10 {
			half.Add(1)
			end.Go(func() {
				r, err := http.Get(front.URL + "/v2/a/blobs/" + blob.String())
				if err != nil {
					t.Error(err)
					half.Done()
					return
				}
				defer r.Body.Close()
				got := make([]byte, len(content)/2)
				if _, err := io.ReadFull(r.Body, got); err != nil || !bytes.Equal(got, content[:len(got)]) {
					t.Errorf("the first half: %v", err)
				}
				half.Done()
				rest, err := io.ReadAll(r.Body)
				if lie && (err == nil || len(rest) >= len(content)/2) {
					t.Errorf("a lie was served as a whole: %d bytes, %v", len(rest), err)
				}
				if !lie && (err != nil || !bytes.Equal(rest, content[len(content)/2:])) {
					t.Errorf("the second half: %d bytes, %v", len(rest), err)
				}
			})
		}
		half.Wait() // before the second one was sent
		close(goOn)
		end.Wait()
		if n := o.count("GET", "/blobs/"+blob.String()); n != 1 && !lie {
			t.Errorf("%d fetches for 10 clients", n)
		}
		if _, err := c.local.StatBlob(t.Context(), "a", blob); (err == nil) == lie {
			t.Errorf("lie %v: kept: %v", lie, err)
		}
		for end := time.Now().Add(time.Minute); c.loading("a@"+string(blob)) != nil; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("a download never ends")
			}
		}
	}
}

// TestClientLeaves: who leaves does not end the fetch, and is not waited for.
func TestClientLeaves(t *testing.T) {
	o := newOrigin(t)
	_, blob := o.push(t, "a", "v", "content of the layer")
	goOn := make(chan bool)
	o.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == "GET" && strings.Contains(r.URL.Path, "/blobs/") {
			<-goOn
		}
		return false
	})
	c := newCache(t, Upstream{Address: o.URL})
	ctx, cancel := context.WithCancel(t.Context())
	b, err := c.OpenBlob(ctx, "a", blob)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(b.Content); err == nil {
		t.Error("the reader of a client that has left goes on")
	}
	b.Content.Close()
	close(goOn)
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := c.local.StatBlob(t.Context(), "a", blob); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the blob was not kept")
		}
	}
}

// TestCredentialCVE_2026_33540: the credential for an upstream goes to that upstream, not to a realm that it names elsewhere.
func TestCredentialCVE_2026_33540(t *testing.T) {
	var mu sync.Mutex
	var got []string
	thief := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Method+" "+r.URL.String()+" "+r.Header.Get("Authorization"))
	}))
	defer thief.Close()
	plain := httptest.NewServer(thief.Config.Handler)
	defer plain.Close()
	for _, realm := range []string{strings.Replace(plain.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1) + "/token", "http://evil.test/token", "https://169.254.169.254/token", thief.URL + "/redirected"} {
		o := newOrigin(t)
		o.push(t, "a", "v", "layer")
		o.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/v2/") && strings.Contains(realm, "redirected") {
				http.Redirect(w, r, realm, http.StatusTemporaryRedirect)
				return true
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=\"x\"", realm))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
		c := newCache(t, Upstream{Address: o.URL, Username: "user", Password: "TOPSECRET"})
		if w := send(t, c, "GET", "/v2/a/manifests/v", "", ""); w.Code < 400 || strings.Contains(w.Body.String(), "TOPSECRET") {
			t.Errorf("%s: %d %s", realm, w.Code, w.Body)
		}
		if strings.Contains(c.warned(), "TOPSECRET") {
			t.Errorf("%s: the secret is in %s", realm, c.warned())
		}
	}
	for _, g := range got {
		if strings.Contains(g, "Basic") || strings.Contains(g, "Bearer") || strings.Contains(g, "TOPSECRET") {
			t.Errorf("somebody else got %s", g)
		}
	}
	// The same credential does open the upstream that it is for.
	o := newOrigin(t)
	o.push(t, "a", "v", "layer")
	o.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user != "user" || password != "TOPSECRET" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	c := newCache(t, Upstream{Address: o.URL, Username: "user", Password: "TOPSECRET"})
	if w := send(t, c, "GET", "/v2/a/manifests/v", "", ""); w.Code != 200 {
		t.Errorf("with the right upstream: %d %s", w.Code, c.warned())
	}
	c = newCache(t, Upstream{Address: o.URL, Username: "user", Password: "wrong"})
	if w := send(t, c, "GET", "/v2/a/manifests/v", "", ""); w.Code != 404 || !strings.Contains(c.warned(), "401") {
		t.Errorf("with a wrong password: %d %s", w.Code, c.warned())
	}
}

func TestReferrers(t *testing.T) {
	o := newOrigin(t)
	image, _ := o.push(t, "a", "v", "layer")
	var want []string
	for i := range 3 {
		m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","artifactType":"x/%d","manifests":[],"subject":{"mediaType":%q,"digest":%q,"size":9}}`, i, manifestType, image)
		d := digest.FromString(m).String()
		if w := send(t, o.honest, "PUT", "/v2/a/manifests/"+d, "application/vnd.oci.image.index.v1+json", m); w.Code != 201 {
			t.Fatal(w.Code)
		}
		want = append(want, d)
	}
	c := newCache(t, Upstream{Address: o.URL})
	w := send(t, c, "GET", "/v2/a/referrers/"+image.String(), "", "")
	for _, d := range want {
		if w.Code != 200 || !strings.Contains(w.Body.String(), d) {
			t.Errorf("%d %s has no %s", w.Code, w.Body, d)
		}
	}
	list, more, err := c.ListReferrers(t.Context(), "a", image, "", 2)
	if err != nil || !more || len(list) != 2 {
		t.Fatalf("%v %v %v", list, more, err)
	}
	if list, more, err = c.ListReferrers(t.Context(), "a", image, list[1].Digest.String(), 2); err != nil || more || len(list) != 1 {
		t.Errorf("%v %v %v", list, more, err)
	}
	var s storage.Storage = c.Store
	if err := s.Sweep(t.Context(), "none", nil); err == nil {
		t.Error("a collection of what is not there")
	}
}

func TestMaxBlob(t *testing.T) {
	o := newOrigin(t)
	_, blob := o.push(t, "a", "v", "large")
	c := newCache(t, Upstream{Address: o.URL})
	c.opts.MaxBlob = 4
	if _, err := c.OpenBlob(t.Context(), "a", blob); err == nil || !strings.Contains(err.Error(), "limits: blob") {
		t.Errorf("a blob above the limit: %v", err)
	}
}
