package hostile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/client"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/test/internal/hostile"
)

const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"

// TestManifestLies: K1 K2 K3 K4 MT1.
func TestManifestLies(t *testing.T) {
	raw, _ := image("")
	other := digest.FromString("other").String()
	for _, c := range []struct {
		name         string
		method       string
		act          hostile.Act
		resolve, get string // errors of Resolve and then of Fetch; "": none
	}{
		{"honest", "PATCH", nil, "", ""},
		{"HEAD without digest", "HEAD", hostile.Header("Docker-Content-Digest", ""), "", ""},
		{"HEAD without type", "HEAD", hostile.Header("Content-Type", ""), "", ""},
		{"HEAD refused", "HEAD", hostile.Status(http.StatusMethodNotAllowed), "", ""},
		{"HEAD unknown", "HEAD", hostile.Status(http.StatusNotImplemented), "", ""},
		{"parameters in the type", "", hostile.Header("Content-Type", v1.MediaTypeImageManifest+"; charset=utf-8"), "", ""},
		{"no header at all", "", hostile.Header("Content-Type", "", "Docker-Content-Digest", ""), "", ""},
		{"generic type", "", hostile.Header("Content-Type", "application/json"), "", ""},
		{"another type by HEAD", "HEAD", hostile.Header("Content-Type", v1.MediaTypeImageIndex), "", "expected is"},
		{"another type by GET", "GET", hostile.Header("Content-Type", v1.MediaTypeImageIndex), "", ""},
		{"another type by both", "", hostile.Header("Content-Type", dockerManifest), "", "expected is"},
		{"HTML", "", hostile.Header("Content-Type", "text/html"), "the registry that it is", ""},
		{"schema 1", "", hostile.Header("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws"), "schema 1", ""},
		{"another digest by HEAD", "HEAD", hostile.Header("Docker-Content-Digest", other), "", "404"},
		{"another digest by GET", "GET", hostile.Header("Docker-Content-Digest", other), "", "was announced"},
		{"another body", "GET", hostile.Body([]byte(`{"schemaVersion":2}`)), "", "bytes, "},
		{"changed body", "GET", hostile.Body(bytes.Replace(raw, []byte("layer.v1"), []byte("layer.v2"), 1)), "", "was announced"},
		{"endless body", "GET", hostile.Endless(string(raw), strings.Repeat(" ", 4096), "Content-Type", v1.MediaTypeImageManifest), "", "limit of 4194304 bytes"},
		{"huge by HEAD", "HEAD", hostile.Header("Content-Length", "5000000"), "the limit is 4194304", ""},
		{"another size by HEAD", "HEAD", hostile.Header("Content-Length", "50"), "", "were announced"},
		{"redirects for ever", "", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, r.URL.Path+"?x", http.StatusTemporaryRedirect)
		}, "more than 10 redirects", ""},
		{"compressed", "GET", hostile.Header("Content-Encoding", "gzip"), "", ""},
	} {
		r := hostile.New(t)
		r.AddManifest("a/b", "latest", v1.MediaTypeImageManifest, raw)
		if c.act != nil {
			r.On(hostile.Is(c.method, "/manifests/"), 0, c.act)
		}
		repo := open(t, r.URL(), limits(client.Limits{Stall: 10 * time.Second}))
		d, err := repo.Resolve(t.Context(), "latest")
		if c.resolve != "" {
			has(t, c.name, err, c.resolve)
			continue
		}
		if err != nil {
			t.Errorf("%s: resolve: %v", c.name, err)
			continue
		}
		got, err := content.ReadAll(t.Context(), repo, d, 10<<20)
		if c.get != "" {
			has(t, c.name, err, c.get)
		} else if err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

// TestUnknownManifest: MT4: a document of a type that nobody knows can be copied.
func TestUnknownManifest(t *testing.T) {
	r := hostile.New(t)
	raw := []byte(`{"mediaType":"application/vnd.example.v1+json","anything":[]}`)
	want := r.AddManifest("a/b", "latest", "application/vnd.example.v1+json", raw)
	repo := open(t, r.URL())
	d, err := repo.Resolve(t.Context(), "latest")
	if err != nil || d.Digest != want.Digest || d.MediaType != want.MediaType {
		t.Fatalf("%v, %v", d, err)
	}
	if got, err := content.ReadAll(t.Context(), repo, d, 1000); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestBlobLies: D4 K5.
func TestBlobLies(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	half := int64(len(data) / 2)
	d := describe(v1.MediaTypeImageLayer, data)
	for _, c := range []struct {
		name   string
		offset int64
		times  int
		act    hostile.Act
		err    string // "": all is well in the end
	}{
		{"honest", 0, 1, hostile.Header(), ""},
		{"broken at once", 0, 1, hostile.Truncate(0), ""},
		{"broken later", 0, 1, hostile.Truncate(300_001), ""},
		{"broken each time, a bit further", 0, 5, hostile.Truncate(100_000), ""},
		{"broken each time for ever", 0, 0, hostile.Truncate(0), "unexpected EOF"},
		{"stalled", 0, 1, hostile.Stall(300_001), ""},
		{"silent", 0, 1, hostile.Silence(), ""},
		{"stalled for ever", 0, 0, hostile.Stall(0), "transfer stalled"},
		{"a byte now and then", 0, 0, hostile.Drip(20 * time.Millisecond), "transfer stalled"},
		{"no length", 0, 0, hostile.Header("Content-Length", ""), ""},
		{"too short", 0, 0, hostile.Body(data[:half]), "has 500000 bytes, expected are 1000000"},
		{"too long", 0, 0, hostile.Body(append(bytes.Clone(data), 'x')), "has 1000001 bytes, expected are 1000000"},
		{"too long, unannounced", 0, 0, hostile.Body(append(bytes.Clone(data), 'x'), "Content-Length", ""), "goes on after"},
		{"never ends", 0, 0, hostile.Endless(string(data), string(data)), "goes on after"},
		{"wrong bytes", 0, 0, hostile.Body(bytes.Repeat([]byte("x"), len(data))), "content is"},
		{"range ignored", half, 0, hostile.Body(data, "Content-Range", ""), "206"},
		{"range honoured", half, 0, hostile.Header(), ""},
		{"200 for a range", half, 0, func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
			r.Header.Del("Range")
			honest.ServeHTTP(w, r)
		}, ""},
		{"200 for a range, short", half, 0, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Length", "1000000")
			w.Write(data[:half-1])
			panic(http.ErrAbortHandler)
		}, "unexpected EOF"},
		{"another range", half, 0, hostile.Header("Content-Range", "bytes 0-499999/1000000"), "asked for bytes from 500000 on"},
		{"beyond the end", half, 0, hostile.Header("Content-Range", "bytes 500000-1000000/1000001"), "asked for bytes from 500000 on"},
		{"another total", half, 0, hostile.Header("Content-Range", "bytes 500000-999999/1000001"), "asked for bytes from 500000 on"},
		{"unknown total", half, 0, hostile.Header("Content-Range", "bytes 500000-999999/*"), ""},
		{"malformed range", half, 0, hostile.Header("Content-Range", "bytes 1000000"), "malformed"},
		{"not satisfiable", half, 0, hostile.Status(http.StatusRequestedRangeNotSatisfiable, "Content-Range", "bytes */1000000"), "416"},
		{"part of the range", half, 1, func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
			r.Header.Set("Range", "bytes=500000-599999")
			honest.ServeHTTP(w, r)
		}, ""},
		{"parts of one byte", half, 0, func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
			var at int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at)
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", at, at))
			honest.ServeHTTP(w, r)
		}, "parts that are too small"},
		{"500 and then well", half, 3, hostile.Status(http.StatusInternalServerError), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := hostile.New(t)
			r.AddBlob("a/b", data)
			r.On(hostile.Is("GET", "/blobs/"), c.times, c.act)
			repo := open(t, r.URL(), limits(client.Limits{Stall: 500 * time.Millisecond}))
			got, err := fetch(t.Context(), repo, d, c.offset)
			if c.err == "206" { // a body that is not what its status says
				c.err = "malformed"
			}
			if c.err != "" {
				has(t, c.name, err, c.err)
			} else if err != nil || !bytes.Equal(got, data[c.offset:]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// fetch reads a blob from offset on, and verifies it if that is the beginning.
func fetch(ctx context.Context, repo *client.Repository, d v1.Descriptor, offset int64) ([]byte, error) {
	body, err := repo.Fetch(ctx, d, offset)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var r io.Reader = body
	if offset == 0 {
		if r, err = content.Verify(body, d); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(r)
}

// TestEmbeddedData: D8.
func TestEmbeddedData(t *testing.T) {
	r := hostile.New(t)
	d := r.AddBlob("a/b", []byte("{}"))
	repo := open(t, r.URL())
	for _, c := range []struct {
		data     string
		requests int
	}{{"{}", 0}, {"[]", 1}, {"{} ", 1}} {
		before := len(r.Log())
		d.Data = []byte(c.data)
		if got, err := fetch(t.Context(), repo, d, 0); err != nil || string(got) != "{}" {
			t.Errorf("%q: %q, %v", c.data, got, err)
		}
		if n := len(r.Log()) - before; n != c.requests {
			t.Errorf("%q: %d requests", c.data, n)
		}
	}
}

// TestUploadLies: K8 K9.
func TestUploadLies(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	d := describe(v1.MediaTypeImageLayer, data)
	other := digest.FromString("other").String()
	for _, c := range []struct {
		name  string
		on    func(*http.Request) bool
		times int
		act   hostile.Act
		err   string
	}{
		{"no Location", hostile.Is("POST", ""), 1, hostile.Header("Location", ""), "no Location"},
		{"another scheme", hostile.Is("POST", ""), 1, hostile.Header("Location", "ftp://x/y"), "scheme"},
		{"user information", hostile.Is("POST", ""), 1, hostile.Header("Location", "http://u:p@127.0.0.1/"), "user information"},
		{"endless Location", hostile.Is("POST", ""), 1, hostile.Header("Location", "/"+strings.Repeat("x", 10_000)), "limit of 8192 bytes"},
		{"not a URL", hostile.Is("POST", ""), 1, hostile.Header("Location", "http://[/"), "Location"},
		{"another digest stored", hostile.Is("PUT", ""), 1, hostile.Header("Docker-Content-Digest", other), "has stored"},
		{"digest refused", hostile.Is("PUT", ""), 1, hostile.Status(http.StatusBadRequest), "400"},
		{"more than was sent", hostile.Is("PATCH", ""), 1, hostile.Header("Range", "0-99999999"), "the registry says"},
		{"malformed range", hostile.Is("PATCH", ""), 0, hostile.Header("Range", "x"), ""},
		{"range with a unit", hostile.Is("PATCH", ""), 1, hostile.Header("Range", "bytes=0-29999"), ""},
		{"takes nothing", hostile.Is("PATCH", ""), 0, hostile.Header("Range", "0-0"), "took nothing"},
		{"no Location after a chunk", hostile.Is("PATCH", ""), 1, hostile.Header("Location", "", "Range", ""), ""},
		{"out of order", hostile.Is("PATCH", ""), 1, hostile.Status(http.StatusRequestedRangeNotSatisfiable), ""},
		{"out of order for ever", hostile.Is("PATCH", ""), 0, hostile.Status(http.StatusRequestedRangeNotSatisfiable), "416"},
		{"half of a chunk", hostile.Is("PATCH", ""), 1, hostile.TakePart(12_345), ""},
		{"half of the body", hostile.Is("PUT", ""), 1, hostile.TakePart(3), ""},
		{"too large", hostile.Is("", "/blobs/"), 0, hostile.Status(http.StatusRequestEntityTooLarge), "413"},
		{"silent", hostile.Is("PUT", ""), 1, hostile.Silence(), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := hostile.New(t)
			r.On(c.on, c.times, c.act)
			repo := open(t, r.URL(), limits(client.Limits{Answer: time.Second}), func(o *client.Options) { o.ChunkSize = 30_000 })
			err := repo.Push(t.Context(), d, bytes.NewReader(data))
			visible := r.Visible()
			if c.err == "" && (err != nil || !slices.Equal(visible, []string{"a/b@" + d.Digest.String()})) {
				t.Errorf("%v, visible is %v", err, visible)
			}
			if c.err != "" {
				has(t, c.name, err, c.err)
			}
			if strings.HasPrefix(c.name, "half") && r.Count("GET", "/uploads/") == 0 {
				t.Error("the upload was not continued")
			}
		})
	}
}

// TestUploadResumes counts the bytes of an upload that breaks: what arrived is not sent again.
func TestUploadResumes(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 3<<20)
	d := describe(v1.MediaTypeImageLayer, data)
	r := hostile.New(t)
	r.On(hostile.Is("PUT", "/uploads/"), 1, hostile.TakePart(2<<20))
	if err := open(t, r.URL()).Push(t.Context(), d, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	var ranges []string
	for _, q := range r.Log() {
		if q.Method == http.MethodPut {
			ranges = append(ranges, q.Header.Get("Content-Range"))
		}
	}
	if want := []string{"", "2097152-3145727"}; !slices.Equal(ranges, want) {
		t.Errorf("ranges %q, want %q", ranges, want)
	}
}

// TestLocationOfProxy: a registry behind a proxy that ends TLS gives addresses without it. Those of its own host are asked with TLS.
func TestLocationOfProxy(t *testing.T) {
	data := []byte("blob")
	r := hostile.NewTLS(t)
	r.On(hostile.Is("POST", "/uploads/"), 1, func(w http.ResponseWriter, q *http.Request, honest http.Handler) {
		honest.ServeHTTP(absolute{w, "http://" + q.Host}, q)
	})
	if err := open(t, r.URL(), as(r.Server().Client())).Push(t.Context(), describe(v1.MediaTypeImageLayer, data), bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
}

// absolute puts a scheme and host before a Location.
type absolute struct {
	http.ResponseWriter
	before string
}

func (a absolute) WriteHeader(code int) {
	a.Header().Set("Location", a.before+a.Header().Get("Location"))
	a.ResponseWriter.WriteHeader(code)
}

// TestManifestSize: M7.
func TestManifestSize(t *testing.T) {
	r := hostile.New(t)
	repo := open(t, r.URL())
	for _, c := range []struct {
		size int
		err  string
	}{{4 << 20, ""}, {4<<20 + 1, "the limit is 4194304"}} {
		raw := []byte(`{"schemaVersion":2,"manifests":[]` + strings.Repeat(" ", c.size-34) + `}`)
		d := describe(v1.MediaTypeImageIndex, raw)
		err := repo.Push(t.Context(), d, bytes.NewReader(raw))
		r.AddManifest("a/b", "latest", d.MediaType, raw)
		_, _, err2 := open(t, r.URL()).Manifest(t.Context(), "latest")
		if c.err == "" && (err != nil || err2 != nil) {
			t.Errorf("%d bytes: %v, %v", c.size, err, err2)
		}
		if c.err != "" {
			has(t, "push", err, c.err)
			has(t, "pull", err2, c.err)
		}
	}
}

// TestChunkMinimum: K9.
func TestChunkMinimum(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 100_000)
	r := hostile.New(t)
	r.ChunkMin = 40_000
	repo := open(t, r.URL(), func(o *client.Options) { o.ChunkSize = 1000 })
	if err := repo.Push(t.Context(), describe(v1.MediaTypeImageLayer, data), bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
	if n := r.Count("PATCH", ""); n != 2 {
		t.Errorf("%d chunks, want 2 and the last one", n)
	}
}

// TestRedirectedPut: a redirect that would make a GET of a PUT is no success though the GET would be.
func TestRedirectedPut(t *testing.T) {
	for _, code := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther} {
		r := hostile.New(t)
		r.AddManifest("a/b", "old", v1.MediaTypeImageManifest, []byte("{}"))
		r.On(hostile.Is("PUT", "/manifests/"), 0, hostile.Redirect(code, "/v2/a/b/manifests/old"))
		has(t, http.StatusText(code), push(t.Context(), open(t, r.URL()), ""), "does not keep the method")
	}
}

// TestProxyLimit pushes through what refuses large bodies.
func TestProxyLimit(t *testing.T) {
	data := make([]byte, 70<<20)
	r := hostile.New(t)
	r.On(func(q *http.Request) bool { return q.ContentLength > 50<<20 }, 0, hostile.Status(http.StatusRequestEntityTooLarge))
	if err := open(t, r.URL()).Push(t.Context(), describe(v1.MediaTypeImageLayer, data), bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
}

// TestWrongContent pushes what is not what it says: the registry never gets all of it.
func TestWrongContent(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 100_000)
	d := describe(v1.MediaTypeImageLayer, data)
	short, long, changed := data[1:], append(bytes.Clone(data), 'x'), bytes.Replace(data, []byte("x"), []byte("y"), 1)
	empty := describe(v1.MediaTypeImageLayer, nil)
	for _, c := range []struct {
		d    v1.Descriptor
		data []byte
		err  string
	}{{d, short, "ends after"}, {d, long, "goes on after"}, {d, changed, "content is"}, {empty, data, "goes on after"}} {
		for _, chunk := range []int64{0, 30_000} {
			r := hostile.New(t)
			// A registry that takes whatever comes.
			r.On(hostile.Is("PUT", "/uploads/"), 0, func(w http.ResponseWriter, q *http.Request, _ http.Handler) {
				if _, err := io.Copy(io.Discard, q.Body); err == nil {
					t.Errorf("%s: it was sent", c.err)
				}
				w.WriteHeader(http.StatusCreated)
			})
			err := open(t, r.URL(), func(o *client.Options) { o.ChunkSize = chunk }).Push(t.Context(), c.d, bytes.NewReader(c.data))
			has(t, c.err, err, c.err)
			if r.Uploads() > 0 || r.Count("POST", "") > 1 {
				t.Errorf("%s: %d uploads are left of %d", c.err, r.Uploads(), r.Count("POST", ""))
			}
		}
	}
}

func TestRetryAfter(t *testing.T) {
	r := hostile.New(t)
	var mu sync.Mutex
	var waits []time.Duration
	repo := open(t, r.URL(), func(o *client.Options) {
		o.Retry.MaxWait = 2 * time.Second
		o.Retry.Notify = func(_ error, d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			waits = append(waits, d)
		}
	})
	r.On(hostile.Is("", ""), 1, hostile.Status(http.StatusTooManyRequests, "Retry-After", "1"))
	if _, err := repo.Resolve(t.Context(), "latest"); !errors.Is(err, content.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	if len(waits) != 1 || waits[0] != time.Second {
		t.Errorf("waited %v", waits)
	}
	r.On(hostile.Is("", ""), 1, hostile.Status(http.StatusTooManyRequests, "Retry-After", "3600"))
	_, err := repo.Resolve(t.Context(), "latest")
	has(t, "an hour", err, "it asks to wait 1h0m0s, the limit is 2s")
	r.On(hostile.Is("", ""), 0, hostile.Status(http.StatusTooManyRequests, "Retry-After", "1"))
	ctx, cancel := context.WithCancel(t.Context())
	repo = open(t, r.URL(), func(o *client.Options) { o.Retry.Notify = func(error, time.Duration) { cancel() } })
	if _, err := repo.Resolve(ctx, "latest"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestErrors: one sentence, with what to do, and nothing that steers a terminal.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		act  hostile.Act
		want string
	}{
		{hostile.Status(http.StatusUnauthorized), `(run "tare login HOST"; or there is no such repository)`},
		{hostile.Status(http.StatusForbidden), `"tare login HOST" changes it`},
		{hostile.Status(http.StatusTeapot), "resolve latest of HOST/a/b: HOST says 418 i'm a teapot"},
		{hostile.Body([]byte("\x1b[31mred\n\n<b>"), "Content-Type", "text/plain"), "404 not found: [31mred <b>"},
		{hostile.Body([]byte("<html>page</html>"), "Content-Type", "text/html"), "404 not found"},
		{hostile.Body([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"\u001b[2J\u202e` + strings.Repeat("x", 5000) + `"}]}`)), "MANIFEST_UNKNOWN: "},
		{hostile.Endless("x", strings.Repeat("y", 1000)), "neither"},
	} {
		r := hostile.New(t)
		r.On(hostile.Is("", "/manifests/"), 0, c.act)
		r.On(hostile.Is("HEAD", "/manifests/"), 0, hostile.Status(http.StatusMethodNotAllowed))
		_, err := open(t, r.URL()).Resolve(t.Context(), "latest")
		want := strings.ReplaceAll(c.want, "HOST", r.URL().Host)
		if strings.HasPrefix(want, "resolve") {
			want = strings.Replace(want, "resolve", "get manifest", 1)
		}
		if want == "neither" {
			want = "limit of"
		}
		has(t, want, err, want)
		if err != nil && (len(err.Error()) > 700 || strings.ContainsRune(err.Error(), '\u202e')) {
			t.Errorf("error %q", err)
		}
	}
}

// TestWarnings: K16.
func TestWarnings(t *testing.T) {
	r := hostile.New(t)
	var got []string
	repo := open(t, r.URL(), func(o *client.Options) { o.Warn = func(text string) { got = append(got, text) } })
	r.On(hostile.Is("", ""), 0, hostile.Header("Warning", `299 - "the \"end\" is nigh`+"\t"+`"`))
	for range 3 {
		if err := push(t.Context(), repo, ""); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, []string{`the "end" is nigh`}) {
		t.Errorf("warnings %q", got)
	}
}
