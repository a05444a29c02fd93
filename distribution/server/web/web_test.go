package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/directory"
)

// evil is what strangers write into names, labels and annotations.
const evil = `</td></code><script>alert(1)</script>"onmouseover=alert(2) 'x' javascript:alert(3) {{.}} ` + "\u202egpj.exe\x1b[31m"

// site is a registry with pages.
type site struct {
	http.Handler
	registry http.Handler
	t        *testing.T
}

func newSite(t *testing.T, change func(*Options)) *site {
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
	o := Options{Storage: dir, Title: "Test & registry", Fault: func(_ *http.Request, err error) { t.Errorf("fault: %v", err) }}
	if change != nil {
		change(&o)
	}
	return &site{New(o), server.New(server.Options{Storage: dir}), t}
}

func (s *site) send(method, target, mediaType, body string) {
	s.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", mediaType)
	w := httptest.NewRecorder()
	if s.registry.ServeHTTP(w, r); w.Code != 201 {
		s.t.Fatalf("%s %s: %d %s", method, target, w.Code, w.Body)
	}
}

// blob pushes a blob and returns its descriptor.
func (s *site) blob(repo, mediaType, body string) string {
	s.t.Helper()
	d := digest.FromString(body)
	s.send("POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), "application/octet-stream", body)
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, d, len(body))
}

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// manifest pushes a document and returns its digest.
func (s *site) manifest(repo, ref, mediaType, body string) digest.Digest {
	s.t.Helper()
	d := digest.FromString(body)
	if ref == "" {
		ref = d.String()
	}
	s.send("PUT", "/v2/"+repo+"/manifests/"+ref, mediaType, body)
	return d
}

// image pushes an image whose texts are hostile, an index of it and an artifact that refers to it.
func (s *site) image(repo string) (image, index, artifact digest.Digest) {
	s.t.Helper()
	quoted := strings.NewReplacer(`"`, `\"`, "\x1b", `\u001b`).Replace(evil)
	config := s.blob(repo, configType, `{"os":"linux","architecture":"amd64","created":"2026-01-02T03:04:05Z","config":{"Labels":{"`+quoted+`":"`+quoted+`"},"Cmd":["/bin/sh","`+quoted+`"],"User":"7:8"},
		"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"`+quoted+`","comment":"`+quoted+`"},{"created_by":"ENV a=b","empty_layer":true}]}`)
	layer := s.blob(repo, layerType, strings.Repeat("layer", 1000))
	image = s.manifest(repo, "v1.0", manifestType, `{"schemaVersion":2,"mediaType":"`+manifestType+`","config":`+config+`,"layers":[`+layer+`],"annotations":{"k":"`+quoted+`"}}`)
	index = s.manifest(repo, "latest", indexType, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":600,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}}]}`, indexType, manifestType, image))
	empty := s.blob(repo, "application/vnd.oci.empty.v1+json", "{}")
	artifact = s.manifest(repo, "", manifestType, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/x-signature","config":%s,"layers":[%s],"subject":{"mediaType":%q,"digest":%q,"size":1},"annotations":{"by":"%s"}}`,
		manifestType, empty, empty, manifestType, image, quoted))
	return image, index, artifact
}

func (s *site) get(target string) (int, string, http.Header) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "http://registry.test"+target, nil))
	return w.Code, w.Body.String(), w.Header()
}

func TestPages(t *testing.T) {
	s := newSite(t, nil)
	image, index, artifact := s.image("team/app")
	for _, c := range []struct {
		target string
		code   int
		want   []string
	}{
		{"/", 200, []string{`<a href="/r/team/app">team/app</a>`, "Test &amp; registry"}},
		{"/r/team/app", 200, []string{`<a href="/r/team/app:latest">latest</a>`, "linux/amd64", "linux/arm64/v8", "index", "image", "5.", "KiB", image.String()}},
		{"/r/team/app:v1.0", 200, []string{image.String(), "linux/amd64", "2026-01-02 03:04", "in 1 layer<", "7:8", "ENV a=b", "(no layer)", "application/x-signature", artifact.String()[:19],
			"tare pull registry.test/team/app:v1.0", `<dt><code>k</code></dt>`, "&lt;script&gt;alert(1)", `\u202egpj`, `\u001b[31m`}},
		{"/r/team/app@" + image.String(), 200, []string{"team/app@" + image.String()[:19]}},
		{"/r/team/app:latest", 200, []string{index.String(), `<a href="/r/team/app@` + image.String(), "linux/arm64/v8"}},
		{"/r/team/app@" + artifact.String(), 200, []string{"Artifact type", `<a href="/r/team/app@` + image.String()}},
		{"/style.css", 200, []string{"prefers-color-scheme: dark"}},
		{"/?name=team/app:v1.0", 303, nil},
		{"/?name=../x", 404, nil}, {"/?name=%2f%2fevil.test", 404, nil}, {"/?name=http://evil.test", 404, nil},
		{"/r/none", 404, []string{"or you may not see it"}},
		{"/r/team/app:none", 404, nil}, {"/r/team/app:", 404, nil}, {"/r/team/app@", 404, nil}, {"/r/team/app@sha256:x", 404, nil}, {"/r/team/app@md5:d41d8cd98f00b204e9800998ecf8427e", 404, nil},
		{"/r/team/app:%3Cscript%3E", 404, nil}, {"/r/UPPER", 404, nil}, {"/r/", 404, nil}, {"/r/a/../b", 404, nil}, {"/nonsense", 404, nil},
		{"/r/team/app@" + index.String() + "x", 404, nil},
	} {
		code, body, header := s.get(c.target)
		if code != c.code {
			t.Errorf("%s: %d, want %d", c.target, code, c.code)
		}
		for _, want := range c.want {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q in\n%s", c.target, want, body)
			}
		}
		for _, bad := range []string{"<script", "onmouseover=alert(2)\"", "\u202e", "\x1b", `href="javascript`, "{{", "ZgotmplZ"} {
			if strings.Contains(strings.ReplaceAll(body, "{{.}}", ""), bad) {
				t.Errorf("%s: %q in\n%s", c.target, bad, body)
			}
		}
		if header.Get("Content-Security-Policy") != policy || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", c.target, header)
		}
	}
	if _, _, header := s.get("/?name=team/app:v1.0"); header.Get("Location") != "/r/team/app:v1.0" {
		t.Errorf("Location: %s", header.Get("Location"))
	}
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, httptest.NewRequest("POST", "/", nil)); w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestLists(t *testing.T) {
	s := newSite(t, nil)
	const empty = `{"schemaVersion":2,"mediaType":"` + indexType + `","manifests":[]}`
	for i := range pageSize + 3 {
		s.manifest("many/"+fmt.Sprintf("r%03d", i), "t", indexType, empty)
		s.manifest("tags", fmt.Sprintf("t%03d", i), indexType, empty)
	}
	for first, next := range map[string]string{"/": "/?after=many%2Fr049", "/r/tags": "/r/tags?after=t049"} {
		_, body, _ := s.get(first)
		if !strings.Contains(body, `<a href="`+next+`" rel="next">`) || strings.Contains(body, "First page") || strings.Count(body, `<th scope="row"`) != pageSize {
			t.Errorf("%s: %s", first, body)
		}
		_, body, _ = s.get(next)
		if !strings.Contains(body, `<a href="`+first+`">First page`) || strings.Contains(body, "Next page") || strings.Count(body, `<th scope="row"`) < 3 {
			t.Errorf("%s: %s", next, body)
		}
	}
}

func TestOnlyWhatMayBeSeen(t *testing.T) {
	user := ""
	s := newSite(t, func(o *Options) {
		o.CanPull = func(_ *http.Request, repo string) bool { return user != "" || strings.HasPrefix(repo, "open/") }
		o.User = func(*http.Request) string { return user }
	})
	image, _, _ := s.image("secret/app")
	s.image("open/app")
	_, body, _ := s.get("/")
	if strings.Contains(body, "secret") || !strings.Contains(body, "open/app") || !strings.Contains(body, `href="/login"`) {
		t.Errorf("for nobody: %s", body)
	}
	_, none, _ := s.get("/r/no-such-thing")
	for _, target := range []string{"/r/secret/app", "/r/secret/app:v1.0", "/r/secret/app@" + image.String()} {
		if code, body, _ := s.get(target); code != 404 || body != none {
			t.Errorf("%s: %d, and another page than for what is not there", target, code)
		}
	}
	user = "alice<b>"
	if _, body, _ = s.get("/"); !strings.Contains(body, "secret/app") || !strings.Contains(body, "alice&lt;b&gt;") || strings.Contains(body, "/login") {
		t.Errorf("for alice: %s", body)
	}
}

// failing is a storage that does.
type failing struct{ storage.Storage }

func (failing) ListTags(context.Context, string, string, int) ([]string, bool, error) {
	return nil, false, errors.New("read /var/secret: input/output error")
}

func TestFaults(t *testing.T) {
	var told error
	s := New(Options{Storage: failing{}, Fault: func(_ *http.Request, err error) { told = err }})
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, httptest.NewRequest("GET", "/r/a", nil)); w.Code != 500 || strings.Contains(w.Body.String(), "/var/secret") || told == nil {
		t.Errorf("%d %s, told %v", w.Code, w.Body, told)
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{"a\tb\n": "a\tb\n", "a\u200bb": `a\u200bb`, "\u2066x\u2069": `\u2066x\u2069`, "\xff": "\ufffd", strings.Repeat("x", maxText+1): strings.Repeat("x", maxText) + " …", "ü€": "ü€"} {
		if got := text(in); got != want {
			t.Errorf("%.40q: %.40q, want %.40q", in, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1 << 20: "1 MiB", 1000 << 20: "0.977 GiB", 1<<63 - 1: "8 EiB"} {
		if got := formatSize(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	if got := because(errors.New("read /var/secret")); got != "it cannot be read." {
		t.Error(got)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("a/b:c")
	f.Fuzz(func(t *testing.T, s string) {
		name, ref, byDigest := split(s)
		if name != "" && ref != "" && name+map[bool]string{true: "@", false: ":"}[byDigest]+ref != s || name != "" && ref == "" && name != s {
			t.Errorf("%q: %q %q", s, name, ref)
		}
	})
}
