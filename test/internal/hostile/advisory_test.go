package hostile_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/client"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/test/internal/hostile"
)

// The tests of published holes in the registry clients of others; docs/security/advisories.md lists them.

// CVE-2014-5277: docker fell back to http when TLS failed.
func TestAdvisoryCVE2014_5277(t *testing.T) {
	r := hostile.New(t) // speaks no TLS
	u := r.URL()
	u.Scheme = "https"
	repo := open(t, u, as(login(t, u, nil)))
	_, err := repo.Resolve(t.Context(), "latest")
	has(t, "resolve", err, "HTTP response to HTTPS client")
	if err := push(t.Context(), repo, ""); err == nil {
		t.Error("push worked")
	}
	if log := r.Log(); len(log) > 0 {
		t.Errorf("plain requests: %v", log)
	}
}

// CVE-2020-15157: containerd sent the registry's credential to the host of a foreign layer that asked for one.
func TestAdvisoryCVE2020_15157(t *testing.T) {
	r, evil := hostile.New(t), hostile.New(t)
	wantsLogin(r)
	layer := bytes.Repeat([]byte("foreign "), 1000)
	d := describe("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", layer)
	repo := open(t, r.URL(), as(login(t, r.URL(), nil)))

	d.URLs = []string{"ftp://" + evil.URL().Host, evil.URL().String() + "/v2/a/b/blobs/" + d.Digest.String()}
	for _, challenge := range []string{`Basic realm="x"`, fmt.Sprintf(`Bearer realm="%s/token",service="s"`, evil.URL()),
		fmt.Sprintf(`Bearer realm="%s/token",service="s"`, r.URL())} {
		evil.On(hostile.Is("", "/"), 1, hostile.Status(http.StatusUnauthorized, "WWW-Authenticate", challenge))
		_, err := content.ReadAll(t.Context(), repo, d, 1<<20)
		has(t, challenge, err, "401")
	}
	evil.AddBlob("a/b", layer)
	got, err := content.ReadAll(t.Context(), repo, d, 1<<20)
	if err != nil || !bytes.Equal(got, layer) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	noCredentials(t, evil)
	if len(r.Credentials()) == 0 {
		t.Error("the registry got no credential, so the test shows nothing")
	}
	if evil.Count("", "/token") > 0 {
		t.Error("the foreign host's token server was asked")
	}
}

// CVE-2022-23538, GHSA-vh4v-2xq2-g5cg: scs and oras sent Authorization along with redirects to other origins.
func TestAdvisoryCVE2022_23538(t *testing.T) {
	for _, code := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		r, evil := hostile.New(t), hostile.New(t)
		ctx := t.Context()
		if err := push(ctx, open(t, evil.URL()), ""); err != nil {
			t.Fatal(err)
		}
		elsewhere := func(w http.ResponseWriter, q *http.Request, _ http.Handler) {
			http.Redirect(w, q, evil.URL().String()+q.URL.RequestURI(), code)
		}
		r.On(hostile.Is("", "/v2/"), 0, elsewhere)
		wantsLogin(r)
		repo := open(t, r.URL(), as(login(t, r.URL(), nil)))
		if err := pull(ctx, repo, ""); err != nil {
			t.Errorf("%d: %v", code, err)
		}
		err := push(ctx, repo, `,"annotations":{}`)
		if keeps := code >= 307; keeps != (err == nil) {
			t.Errorf("%d: push %v", code, err)
		}
		noCredentials(t, evil)
		if len(r.Credentials()) == 0 {
			t.Error("the registry got no credential, so the test shows nothing")
		}
	}
}

// The same for a redirect from https to http, which is refused.
func TestAdvisoryCVE2022_23538Scheme(t *testing.T) {
	r, evil := hostile.NewTLS(t), hostile.New(t)
	if err := push(t.Context(), open(t, evil.URL()), ""); err != nil {
		t.Fatal(err)
	}
	before := len(evil.Log())
	r.On(hostile.Is("", "/v2/"), 0, func(w http.ResponseWriter, q *http.Request, _ http.Handler) {
		http.Redirect(w, q, evil.URL().String()+q.URL.RequestURI(), http.StatusTemporaryRedirect)
	})
	wantsLogin(r)
	trusting, ok := r.Server().Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("no transport")
	}
	repo := open(t, r.URL(), as(login(t, r.URL(), trusting)))
	has(t, "pull", pull(t.Context(), repo, ""), "not encrypted")
	has(t, "push", push(t.Context(), repo, ""), "not encrypted")
	if n := len(evil.Log()) - before; n > 0 {
		t.Errorf("%d requests to the other host", n)
	}
}

// CVE-2024-3727: c/image used digests of registries in paths without a look at them.
func TestAdvisoryCVE2024_3727(t *testing.T) {
	ctx := t.Context()
	raw, _ := image("")
	for _, unsafe := range []string{"sha256:../../x", "sha256:abc", "../x", "sha256:" + strings.Repeat("A", 64), "sha256:" + strings.Repeat("0", 65)} {
		r := hostile.New(t)
		d := r.AddManifest("a/b", "latest", v1.MediaTypeImageManifest, raw)
		repo := open(t, r.URL())
		before := len(r.Log())
		if _, err := repo.Fetch(ctx, v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.Digest(unsafe), Size: 1}, 0); err == nil {
			t.Errorf("%s was fetched", unsafe)
		}
		if err := repo.Push(ctx, v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.Digest(unsafe), Size: 1}, strings.NewReader("x")); err == nil {
			t.Errorf("%s was pushed", unsafe)
		}
		if n := len(r.Log()) - before; n > 0 {
			t.Errorf("%s: %d requests", unsafe, n)
		}
		r.On(hostile.Is("", "/manifests/"), 0, hostile.Header("Docker-Content-Digest", unsafe))
		_, err := repo.Resolve(ctx, "latest")
		has(t, unsafe, err, "is not one digest")
		_, err = repo.Fetch(ctx, d, 0)
		has(t, unsafe, err, "is not one digest")
		has(t, unsafe, push(ctx, repo, ""), "is not one digest")
		r.On(hostile.Is("", "/tags/list"), 0, hostile.Body(fmt.Appendf(nil, `{"name":"a/b","tags":["ok",%q]}`, unsafe)))
		has(t, unsafe, repo.Tags(ctx, "", func(string) error { return nil }), "malformed")
		r.On(hostile.Is("", "/referrers/"), 0, hostile.Body(fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"size":1,"digest":%q}]}`,
			v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, unsafe)))
		_, err = repo.Referrers(ctx, d, "")
		has(t, unsafe, err, "digest")
	}
}

// CVE-2026-50151: oras sent Authorization to the upload's Location on another host.
func TestAdvisoryCVE2026_50151(t *testing.T) {
	for _, chunk := range []int64{0, 20_000} {
		r, evil := hostile.New(t), hostile.New(t)
		wantsLogin(r)
		repo := open(t, r.URL(), as(login(t, r.URL(), nil)), func(o *client.Options) { o.ChunkSize = chunk })
		_, blobs := image("")
		d := describe(v1.MediaTypeImageLayer, blobs[1])
		moved := func(w http.ResponseWriter, q *http.Request, _ http.Handler) {
			resp, err := http.Post(evil.URL().String()+"/v2/a/b/blobs/uploads/", "", nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			w.Header().Set("Location", evil.URL().String()+resp.Header.Get("Location"))
			w.WriteHeader(http.StatusAccepted)
		}
		r.On(func(q *http.Request) bool { return q.Method == http.MethodPost && q.Header.Get("Authorization") != "" }, 0, moved)
		if err := repo.Push(t.Context(), d, bytes.NewReader(blobs[1])); err != nil {
			t.Error(err)
		}
		if evil.Count("PUT", "/blobs/uploads/") == 0 {
			t.Error("the upload did not go to the other host, so the test shows nothing")
		}
		noCredentials(t, evil)
	}
}

// CVE-2026-33990: a registry made clients ask addresses inside of their network.
func TestAdvisoryCVE2026_33990(t *testing.T) {
	proxy := hostile.New(t) // every request goes there, whatever host it names
	base := client.NewTransport()
	base.Proxy = http.ProxyURL(proxy.URL())
	registry := &url.URL{Scheme: "http", Host: "203.0.113.1"}
	data := []byte("blob")
	d := proxy.AddBlob("a/b", data)
	for _, inside := range []string{"169.254.169.254", "127.0.0.1", "localhost", "[::1]", "10.0.0.1", "[fe80::1]"} {
		repo := open(t, registry, as(login(t, registry, base)))
		if got, err := content.ReadAll(t.Context(), repo, d, 100); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("through the proxy: %v", err)
		}
		proxy.On(hostile.Is("GET", "/blobs/"), 1, hostile.Redirect(http.StatusTemporaryRedirect, "http://"+inside+"/secret"))
		_, err := repo.Fetch(t.Context(), d, 0)
		has(t, inside, err, "leads to")
		foreign := describe(v1.MediaTypeImageLayer, []byte("foreign"))
		foreign.URLs = []string{"http://" + inside + "/secret"}
		_, err = repo.Fetch(t.Context(), foreign, 0)
		has(t, inside, err, "leads to")
		proxy.On(hostile.Is("POST", "/blobs/uploads/"), 1, hostile.Status(http.StatusAccepted, "Location", "http://"+inside+"/secret"))
		has(t, inside, repo.Push(t.Context(), foreign, strings.NewReader("foreign")), "leads to")
	}
	for _, q := range proxy.Log() {
		if q.Host != registry.Host {
			t.Errorf("%s %s%s was asked", q.Method, q.Host, q.Path)
		}
	}
}

// CVE-2025-6032: podman machine pulled without verifying TLS.
func TestAdvisoryCVE2025_6032(t *testing.T) {
	r, plain := hostile.NewTLS(t), hostile.New(t)
	ctx := t.Context()
	repo := open(t, r.URL(), as(login(t, r.URL(), nil)))
	has(t, "push", push(ctx, repo, ""), "certificate")
	has(t, "pull", pull(ctx, repo, ""), "certificate")
	has(t, "tags", repo.Tags(ctx, "", func(string) error { return nil }), "certificate")
	_, err := repo.Referrers(ctx, describe(v1.MediaTypeImageManifest, nil), "")
	has(t, "referrers", err, "certificate")
	has(t, "delete", repo.DeleteTag(ctx, "x"), "certificate")

	foreign := describe(v1.MediaTypeImageLayer, []byte("foreign"))
	foreign.URLs = []string{r.URL().String() + "/x"}
	other := open(t, plain.URL())
	_, err = other.Fetch(ctx, foreign, 0)
	has(t, "foreign layer", err, "certificate")
	plain.On(hostile.Is("GET", "/manifests/"), 0, hostile.Redirect(http.StatusTemporaryRedirect, r.URL().String()+"/x"))
	_, _, err = other.Manifest(ctx, "latest")
	has(t, "redirect", err, "certificate")
	if log := r.Log(); len(log) > 0 {
		t.Errorf("requests: %v", log)
	}
}

// CVE-2023-25656, CVE-2023-33957, CVE-2023-33958: notation read lists of signatures without an end.
func TestAdvisoryCVE2023_25656(t *testing.T) {
	r := hostile.New(t)
	subject := describe(v1.MediaTypeImageManifest, []byte("subject"))
	one := fmt.Sprintf(`{"mediaType":%q,"size":1,"digest":%q}`, v1.MediaTypeImageManifest, digest.FromString("x"))
	head := `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `","manifests":[` + one
	index := []string{"Content-Type", v1.MediaTypeImageIndex}

	r.On(hostile.Is("", "/referrers/"), 1, hostile.Endless(head, ","+one, index...))
	_, err := open(t, r.URL(), limits(client.Limits{List: 100_000})).Referrers(t.Context(), subject, "")
	has(t, "endless page", err, "limit of 100000 bytes")

	pages := 0
	r.On(hostile.Is("", "/referrers/"), 0, func(w http.ResponseWriter, q *http.Request, _ http.Handler) {
		pages++
		w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
		w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, q.URL.Path, pages))
		fmt.Fprint(w, head, "]}")
	})
	_, err = open(t, r.URL(), limits(client.Limits{Pages: 50})).Referrers(t.Context(), subject, "")
	has(t, "endless pages", err, "limit of 50 pages")
	_, err = open(t, r.URL(), limits(client.Limits{Entries: 20})).Referrers(t.Context(), subject, "not/this")
	has(t, "endless entries", err, "limit of 20 entries")

	r.NoReferrers = true
	r.On(hostile.Is("", "/referrers/"), 0, hostile.Status(http.StatusNotFound))
	r.On(hostile.Is("", "/manifests/sha256-"), 0, hostile.Endless(head, ","+one, index...))
	_, err = open(t, r.URL()).Referrers(t.Context(), subject, "")
	has(t, "endless tag", err, "limit of 4194304 bytes")
}

// CVE-2021-41190: a document that is an index to one reader and a manifest to the next.
func TestAdvisoryCVE2021_41190(t *testing.T) {
	raw, _ := image(`,"manifests":[]`)
	for _, mediaType := range []string{v1.MediaTypeImageManifest, v1.MediaTypeImageIndex, "application/json"} {
		r := hostile.New(t)
		d := r.AddManifest("a/b", "latest", mediaType, raw)
		_, _, err := open(t, r.URL()).Manifest(t.Context(), "latest")
		has(t, mediaType, err, "ambiguous")
		d.MediaType = v1.MediaTypeImageManifest
		_, err = open(t, r.URL()).Fetch(t.Context(), d, 0)
		has(t, mediaType, err, "ambiguous")
	}
}

// moby#42022: what one endpoint may see is not shown to another one.
func TestAdvisoryMoby42022(t *testing.T) {
	upstream, mirror := hostile.New(t), hostile.New(t)
	wantsLogin(mirror)
	repo := open(t, mirror.URL(), as(login(t, upstream.URL(), nil)))
	_, err := repo.Resolve(t.Context(), "latest")
	var answer *client.Error
	if !errors.As(err, &answer) || answer.Status != http.StatusUnauthorized {
		t.Errorf("mirror: %v", err)
	}
	noCredentials(t, mirror)
	if o, err := auth.OriginOf(upstream.URL()); err != nil || len(upstream.Log()) > 0 {
		t.Errorf("%v was asked: %v, %v", o, upstream.Log(), err)
	}
}
