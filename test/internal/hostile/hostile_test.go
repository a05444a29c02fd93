package hostile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/client"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/test/internal/hostile"
)

const secret = "hunter2"

// login returns a transport with a credential for the registry at u.
func login(t *testing.T, u *url.URL, base *http.Transport) *http.Client {
	t.Helper()
	o, err := auth.OriginOf(u)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := auth.NewCredential(o, auth.Secret{Username: "user", Password: secret}, "test")
	if err != nil {
		t.Fatal(err)
	}
	if base == nil {
		base = client.NewTransport()
	}
	t.Cleanup(base.CloseIdleConnections)
	tr, err := auth.NewTransport(auth.Config{Origin: o, Base: base, Other: auth.Guard(o, base.Clone()), Keychain: auth.Static{Credential: cred}})
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Transport: tr}
}

// wantsLogin makes the registry answer 401 to who does not say who he is.
func wantsLogin(r *hostile.Registry) {
	r.On(func(q *http.Request) bool { return q.Header.Get("Authorization") == "" }, 0,
		hostile.Status(http.StatusUnauthorized, "WWW-Authenticate", `Basic realm="here"`))
}

// open returns a repository of the registry, for a client that waits for nothing.
func open(t *testing.T, u *url.URL, change ...func(*client.Options)) *client.Repository {
	t.Helper()
	opt := client.Options{Base: u, Retry: client.Retry{Wait: time.Millisecond, MaxWait: time.Second}}
	for _, f := range change {
		f(&opt)
	}
	c, err := client.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Repository("a/b")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func as(h *http.Client) func(*client.Options) { return func(o *client.Options) { o.HTTP = h } }

func limits(l client.Limits) func(*client.Options) { return func(o *client.Options) { o.Limits = l } }

// image is a manifest and what it refers to.
func image(extra string) (raw []byte, blobs [][]byte) {
	blobs = [][]byte{[]byte(`{"os":"linux"}`), bytes.Repeat([]byte("layer "), 10_000)}
	raw = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]%s}`,
		v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, digest.FromBytes(blobs[0]), len(blobs[0]),
		v1.MediaTypeImageLayer, digest.FromBytes(blobs[1]), len(blobs[1]), extra)
	return raw, blobs
}

func describe(mediaType string, data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// push pushes an image with the tag latest.
func push(ctx context.Context, r *client.Repository, extra string) error {
	raw, blobs := image(extra)
	for _, data := range blobs {
		d := describe(v1.MediaTypeImageLayer, data)
		if ok, err := r.Exists(ctx, d); err != nil || ok {
			if err != nil {
				return err
			}
			continue
		}
		if err := r.Push(ctx, d, bytes.NewReader(data)); err != nil {
			return err
		}
	}
	return r.PushManifest(ctx, describe(v1.MediaTypeImageManifest, raw), raw, "latest")
}

// pull pulls the image that push pushes, and checks it.
func pull(ctx context.Context, r *client.Repository, extra string) error {
	raw, blobs := image(extra)
	d, err := r.Resolve(ctx, "latest")
	if err != nil {
		return err
	}
	got, err := content.ReadAll(ctx, r, d, 1<<20)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, raw) {
		return fmt.Errorf("manifest is %q", got)
	}
	for _, data := range blobs {
		got, err := content.ReadAll(ctx, r, describe(v1.MediaTypeImageLayer, data), 1<<20)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, data) {
			return errors.New("a blob is wrong")
		}
	}
	return nil
}

// has fails the test if err is not one sentence with the text.
func has(t *testing.T, what string, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) || strings.ContainsAny(err.Error(), "\n\x1b") {
		t.Errorf("%s: error %v, want %q", what, err, text)
	}
	if err != nil && strings.Contains(err.Error(), secret) {
		t.Errorf("%s: error tells the secret: %v", what, err)
	}
}

func noCredentials(t *testing.T, r *hostile.Registry) {
	t.Helper()
	for _, line := range r.Credentials() {
		t.Errorf("a credential got to the other origin: %s", line)
	}
}

// TestEachRequest lets every single request of a push and a pull fail.
func TestEachRequest(t *testing.T) {
	for _, c := range []struct {
		name   string
		act    hostile.Act
		passes bool // a second attempt helps
		orphan bool // an upload can be left that the client cannot know
	}{
		{"500", hostile.Status(http.StatusInternalServerError), true, false},
		{"503 with a time", hostile.Status(http.StatusServiceUnavailable, "Retry-After", "0"), true, false},
		{"429", hostile.Status(http.StatusTooManyRequests), true, false},
		{"no answer", hostile.Drop(false), true, false},
		{"the answer is lost", hostile.Drop(true), true, true},
		{"broken in the head", hostile.Truncate(0), true, true},
		{"broken in the body", hostile.Truncate(7), true, true},
		{"broken request", hostile.TakePart(10), true, true},
		{"401", hostile.Status(http.StatusUnauthorized, "WWW-Authenticate", `Basic realm="x"`), false, false},
		{"403", hostile.Status(http.StatusForbidden), false, false},
		{"404", hostile.Status(http.StatusNotFound), false, false},
		{"418", hostile.Status(http.StatusTeapot), false, false},
		{"redirect to nowhere", hostile.Redirect(http.StatusTemporaryRedirect, "http://127.0.0.1:1/"), false, false},
	} {
		for _, chunk := range []int64{0, 20_000} {
			t.Run(fmt.Sprintf("%s, chunks of %d", c.name, chunk), func(t *testing.T) {
				var want []string
				hostile.EachRequest(t, func(*hostile.Registry) {}, c.act, func(r *hostile.Registry) error {
					repo := open(t, r.URL(), func(o *client.Options) { o.ChunkSize = chunk })
					if err := push(t.Context(), repo, ""); err != nil {
						return err
					}
					if want == nil {
						want = r.Visible()
					}
					return pull(t.Context(), open(t, r.URL()), "")
				}, func(r *hostile.Registry, n int, err error) {
					what := fmt.Sprintf("request %d, %s %s", n, r.Log()[n].Method, r.Log()[n].Path)
					if n := r.Uploads(); n > 0 && !c.orphan {
						t.Errorf("%s: %d uploads are left", what, n)
					}
					if err == nil {
						if !slices.Equal(r.Visible(), want) {
							t.Errorf("%s: success, but there are %v", what, r.Visible())
						}
						return
					}
					if c.passes {
						t.Errorf("%s: %v", what, err)
					}
					has(t, what, err, "")
				})
			})
		}
	}
}

// TestEachRequestLoggedIn answers 401 to every request in turn: a client that has a credential or gets a token goes on.
func TestEachRequestLoggedIn(t *testing.T) {
	for _, scheme := range []string{"Basic", "Bearer"} {
		ask := func(w http.ResponseWriter, q *http.Request, honest http.Handler) {
			hostile.Status(http.StatusUnauthorized, "WWW-Authenticate", scheme+` realm="http://`+q.Host+`/token",service="s"`)(w, q, honest)
		}
		tokens := 0
		hostile.EachRequest(t, func(r *hostile.Registry) {
			r.On(hostile.Is("GET", "/token"), 0, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				tokens++
				fmt.Fprintf(w, `{"token":"t%d"}`, tokens)
			})
		}, ask, func(r *hostile.Registry) error {
			h := login(t, r.URL(), nil)
			if err := push(t.Context(), open(t, r.URL(), as(h)), ""); err != nil {
				return err
			}
			return pull(t.Context(), open(t, r.URL(), as(h)), "")
		}, func(r *hostile.Registry, n int, err error) {
			if err != nil || r.Uploads() > 0 {
				t.Errorf("%s, request %d: %v, %d uploads are left", scheme, n, err, r.Uploads())
			}
			if len(r.Credentials()) == 0 {
				t.Errorf("%s, request %d: no credential was sent, so the test shows nothing", scheme, n)
			}
		})
	}
}

// TestHTTP2 breaks each request of a push and a pull once over HTTP/2, whose errors are others.
func TestHTTP2(t *testing.T) {
	for _, act := range []hostile.Act{hostile.Drop(false), hostile.Drop(true), hostile.Truncate(7), hostile.TakePart(10)} {
		for n := range 12 {
			r := hostile.NewTLS(t)
			r.On(hostile.Number(n), 0, act)
			repo := open(t, r.URL(), as(r.Server().Client()))
			if err := push(t.Context(), repo, ""); err != nil {
				t.Errorf("request %d: push: %v", n, err)
			}
			if err := pull(t.Context(), open(t, r.URL(), as(r.Server().Client())), ""); err != nil {
				t.Errorf("request %d: pull: %v", n, err)
			}
			if q := r.Log()[0]; q.Proto != "HTTP/2.0" {
				t.Errorf("%s was used", q.Proto)
			}
		}
	}
}

// TestBetweenRegistries breaks each request of a copy from one registry to another one.
func TestBetweenRegistries(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 300_000)
	copyBlob := func(from, to *hostile.Registry) error {
		d := from.AddBlob("a/b", data)
		body, err := open(t, from.URL()).Fetch(t.Context(), d, 0)
		if err != nil {
			return err
		}
		defer body.Close()
		return open(t, to.URL()).Push(t.Context(), d, body)
	}
	for _, act := range []hostile.Act{hostile.Drop(false), hostile.Drop(true), hostile.TakePart(1_234_567), hostile.Truncate(1_234_567)} {
		for n := range 4 {
			from, to := hostile.New(t), hostile.New(t)
			from.On(hostile.Number(n), 0, act)
			to.On(hostile.Number(n), 0, act)
			if err := copyBlob(from, to); err != nil {
				t.Errorf("request %d: %v", n, err)
			}
			if len(to.Visible()) != 1 {
				t.Errorf("request %d: %v", n, to.Visible())
			}
		}
	}
}

// TestInterrupted cancels a push during each request: nothing of it is left.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	hostile.EachRequest(t, func(*hostile.Registry) { ctx, cancel = context.WithCancel(t.Context()) },
		func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
			cancel()
			hostile.Silence()(w, r, honest)
		},
		func(r *hostile.Registry) error { return push(ctx, open(t, r.URL()), "") },
		func(r *hostile.Registry, n int, err error) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("request %d: %v", n, err)
			}
			if r.Uploads() != 0 || slices.Contains(r.Visible(), "a/b:latest") {
				t.Errorf("request %d: %d uploads, %v are left", n, r.Uploads(), r.Visible())
			}
		})
	cancel()
}

// TestOnceOnly pushes content that cannot be read again: an early fault is survived, a late one is an error and leaves nothing.
func TestOnceOnly(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 100_000)
	d := describe(v1.MediaTypeImageLayer, data)
	hostile.EachRequest(t, func(*hostile.Registry) {}, hostile.Status(http.StatusInternalServerError),
		func(r *hostile.Registry) error {
			return open(t, r.URL()).Push(t.Context(), d, io.MultiReader(bytes.NewReader(data)))
		},
		func(r *hostile.Registry, n int, err error) {
			if method := r.Log()[n].Method; (err == nil) != (method == "POST") {
				t.Errorf("%s: %v", method, err)
			}
			if r.Uploads() != 0 {
				t.Errorf("request %d: %d uploads are left", n, r.Uploads())
			}
		})
}
