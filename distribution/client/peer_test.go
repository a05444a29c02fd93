package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage/directory"
	"github.com/tare-oci/tare/image/content"
)

// startPeer starts Debian's docker-registry on a port that the kernel chooses, and returns its address.
func startPeer(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: info}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp:\n  addr: 127.0.0.1:0\n", dir)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", file)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	found := make(chan string, 1)
	go func() {
		listening := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
		close(found)
	}()
	select {
	case addr, ok := <-found:
		if !ok {
			t.Fatal("docker-registry ended without listening")
		}
		return "http://" + addr
	case <-time.After(time.Minute):
		t.Fatal("docker-registry does not listen")
	}
	return ""
}

// newClient returns a client that waits no time before it tries again.
func newClient(t *testing.T, base string, change ...func(*Options)) *Client {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Base: u, Retry: Retry{Wait: time.Millisecond}}
	for _, f := range change {
		f(&opt)
	}
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func repository(t *testing.T, c *Client, name string) *Repository {
	t.Helper()
	r, err := c.Repository(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func blob(alg digest.Algorithm, data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: alg.FromBytes(data), Size: int64(len(data))}
}

func random(n int) []byte {
	data := make([]byte, n)
	rand.Read(data)
	return data
}

// pushImage pushes blobs and returns a manifest of them, not pushed.
func pushImage(t *testing.T, r *Repository, extra string) (v1.Descriptor, []byte) {
	t.Helper()
	config, layer := []byte("{}"), []byte("layer")
	for _, data := range [][]byte{config, layer} {
		if err := r.Push(t.Context(), blob(digest.SHA256, data), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	raw := fmt.Appendf(nil, `{"schemaVersion":2, "mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[{"mediaType":%q,"digest":%q,"size":5}]%s}`,
		v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, digest.FromBytes(config), v1.MediaTypeImageLayer, digest.FromBytes(layer), extra)
	return v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw
}

func readAllOf(ctx context.Context, r *Repository, d v1.Descriptor) ([]byte, error) {
	return content.ReadAll(ctx, r, d, 1<<30)
}

// TestPeer is the client against Debian's docker-registry.
func TestPeer(t *testing.T) { testRegistry(t, startPeer(t), false) }

// TestOwn is the client against our own registry.
func TestOwn(t *testing.T) {
	storage, err := directory.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer storage.Close()
	s := httptest.NewServer(server.New(server.Options{Storage: storage}))
	defer s.Close()
	testRegistry(t, s.URL, true)
}

// testRegistry uses everything that a registry has. current: it has what distribution-spec 1.1 and later have.
func testRegistry(t *testing.T, base string, current bool) {
	c := newClient(t, base)
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Run("blobs", func(t *testing.T) { testBlobs(t, c) })
	t.Run("mounts", func(t *testing.T) { testMounts(t, c) })
	t.Run("chunks", func(t *testing.T) { testChunks(t, newClient(t, base, func(o *Options) { o.ChunkSize = 1 << 20 })) })
	t.Run("breaks", func(t *testing.T) { testBreaks(t, base) })
	t.Run("manifests", func(t *testing.T) { testManifests(t, repository(t, c, "a/manifests"), current) })
	t.Run("referrers", func(t *testing.T) { testReferrers(t, repository(t, c, "a/referrers")) })
	t.Run("lists", func(t *testing.T) { testLists(t, c) })
}

func testBlobs(t *testing.T, c *Client) {
	ctx := t.Context()
	r := repository(t, c, "a/blobs")
	data := random(3<<20 + 17)
	d := blob(digest.SHA256, data)
	if ok, err := r.Exists(ctx, d); ok || err != nil {
		t.Errorf("before: exists %v, %v", ok, err)
	}
	if _, err := r.Fetch(ctx, d, 0); !errors.Is(err, content.ErrNotFound) {
		t.Errorf("before: fetch %v", err)
	}
	if err := r.Push(ctx, d, bytes.NewReader(data[1:])); err == nil {
		t.Error("a wrong blob was pushed")
	}
	if err := r.Push(ctx, d, io.MultiReader(bytes.NewReader(data))); err != nil { // not a Seeker
		t.Fatal(err)
	}
	for _, offset := range []int64{0, 1, 1 << 20, d.Size - 1, d.Size} {
		body, err := r.Fetch(ctx, d, offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if err != nil || !bytes.Equal(got, data[offset:]) {
			t.Errorf("from %d: %d bytes, %v", offset, len(got), err)
		}
		body.Close()
	}
	long := blob(digest.SHA512, data) // of which docker-registry says the sha256
	if err := r.Push(ctx, long, bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
	if got, err := readAllOf(ctx, r, long); err != nil || !bytes.Equal(got, data) {
		t.Errorf("sha512: %d bytes, %v", len(got), err)
	}
}

func testMounts(t *testing.T, c *Client) {
	ctx := t.Context()
	from, to := repository(t, c, "a/from"), repository(t, c, "b/to")
	data := []byte("to be mounted")
	d := blob(digest.SHA256, data)
	if err := from.Push(ctx, d, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if ok, err := to.MountFrom(ctx, d, from); !ok || err != nil {
		t.Errorf("mount: %v, %v", ok, err)
	}
	if ok, err := to.Exists(ctx, d); !ok || err != nil {
		t.Errorf("mounted: exists %v, %v", ok, err)
	}
	if ok, err := to.Mount(ctx, blob(digest.SHA256, []byte("nowhere")), "a/from"); ok || err != nil {
		t.Errorf("mount of nothing: %v, %v", ok, err)
	}
	if err := to.DeleteBlob(ctx, d.Digest); err != nil {
		t.Error(err)
	}
	if err := to.DeleteBlob(ctx, d.Digest); !errors.Is(err, content.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
}

func testChunks(t *testing.T, c *Client) {
	ctx := t.Context()
	r := repository(t, c, "a/chunks")
	for _, size := range []int{0, 1, 1 << 20, 1<<20 + 1, 3 << 20, 3<<20 + 5} {
		data := random(size)
		d := blob(digest.SHA256, data)
		if err := r.Push(ctx, d, bytes.NewReader(data)); err != nil {
			t.Fatalf("%d bytes in chunks: %v", size, err)
		}
		if got, err := readAllOf(ctx, r, d); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes in chunks: %d bytes, %v", size, len(got), err)
		}
	}
}

// cutter breaks the first request with a method after so many bytes of its body.
type cutter struct {
	next   http.RoundTripper
	method string
	after  int64
	cut    atomic.Bool
}

// RoundTrip implements http.RoundTripper.
func (c *cutter) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == c.method && c.cut.CompareAndSwap(false, true) {
		r = r.Clone(r.Context())
		body := io.MultiReader(io.LimitReader(r.Body, c.after), iotest.ErrReader(io.ErrUnexpectedEOF))
		r.Body = struct {
			io.Reader
			io.Closer
		}{body, r.Body}
	}
	return c.next.RoundTrip(r)
}

func testBreaks(t *testing.T, base string) {
	data := random(3 << 20)
	for _, chunk := range []int64{0, 1 << 20} {
		for _, method := range []string{http.MethodPut, http.MethodPatch} {
			cut := &cutter{next: NewTransport(), method: method, after: 700_000}
			c := newClient(t, base, func(o *Options) {
				o.ChunkSize = chunk
				o.HTTP = &http.Client{Transport: cut}
			})
			r := repository(t, c, fmt.Sprintf("breaks/%d/%s", chunk, strings.ToLower(method)))
			d := blob(digest.SHA256, data)
			if err := r.Push(t.Context(), d, bytes.NewReader(data)); err != nil {
				t.Errorf("%s in chunks of %d: %v", method, chunk, err)
			}
			if got, err := readAllOf(t.Context(), r, d); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s in chunks of %d: %d bytes, %v", method, chunk, len(got), err)
			}
		}
	}
}

func testManifests(t *testing.T, r *Repository, current bool) {
	ctx := t.Context()
	d, raw := pushImage(t, r, "")
	if err := r.PushManifest(ctx, d, raw, "one", "two", "three"); err != nil {
		t.Fatal(err)
	}
	if err := r.Push(ctx, d, bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	if err := r.Tag(ctx, d, "four"); err != nil {
		t.Fatal(err)
	}
	fresh := repository(t, r.c, r.name)
	for _, ref := range []string{"one", "two", "three", "four", d.Digest.String()} {
		got, err := fresh.Resolve(ctx, ref)
		if err != nil || got.Digest != d.Digest || got.Size != d.Size || got.MediaType != d.MediaType {
			t.Errorf("resolve %s: %v, %v", ref, got, err)
		}
	}
	if got, err := readAllOf(ctx, fresh, d); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("fetch: %q, %v", got, err)
	}
	for _, ref := range []string{"none", digest.FromString("none").String()} {
		if _, err := fresh.Resolve(ctx, ref); !errors.Is(err, content.ErrNotFound) {
			t.Errorf("resolve %s: %v", ref, err)
		}
	}
	if err := fresh.DeleteTag(ctx, "one"); (err == nil) != current {
		t.Errorf("delete of a tag: %v", err)
	}
	if _, err := fresh.Resolve(ctx, "one"); errors.Is(err, content.ErrNotFound) != current {
		t.Errorf("resolve a deleted tag: %v", err)
	}
	if err := fresh.DeleteManifest(ctx, d); err != nil {
		t.Error(err)
	}
	if ok, err := fresh.Exists(ctx, d); ok || err != nil {
		t.Errorf("deleted: exists %v, %v", ok, err)
	}
}

func testReferrers(t *testing.T, r *Repository) {
	ctx := t.Context()
	subject, raw := pushImage(t, r, "")
	if err := r.PushManifest(ctx, subject, raw, "latest"); err != nil {
		t.Fatal(err)
	}
	if list, err := r.Referrers(ctx, subject, ""); len(list) != 0 || err != nil {
		t.Errorf("none: %v, %v", list, err)
	}
	var all []v1.Descriptor
	for _, typ := range []string{"text/a", "text/b"} {
		d, raw := pushImage(t, r, fmt.Sprintf(`,"artifactType":%q,"annotations":{"k":"v"},"subject":{"mediaType":%q,"digest":%q,"size":%d}`, typ,
			subject.MediaType, subject.Digest, subject.Size))
		for range 2 { // the second time changes nothing
			if err := r.PushManifest(ctx, d, raw); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, d)
	}
	list, err := r.Referrers(ctx, subject, "")
	if err != nil || len(list) != 2 || list[0].Annotations["k"] != "v" || list[0].ArtifactType == list[1].ArtifactType {
		t.Errorf("all: %v, %v", list, err)
	}
	if list, err = r.Referrers(ctx, subject, "text/b"); err != nil || len(list) != 1 || list[0].Digest != all[1].Digest {
		t.Errorf("one type: %v, %v", list, err)
	}
	if err := r.DeleteManifest(ctx, all[0]); err != nil {
		t.Fatal(err)
	}
	if list, err = r.Referrers(ctx, subject, ""); err != nil || len(list) != 1 || list[0].Digest != all[1].Digest {
		t.Errorf("after a delete: %v, %v", list, err)
	}
}

func testLists(t *testing.T, c *Client) {
	ctx := t.Context()
	r := repository(t, c, "a/tags")
	d, raw := pushImage(t, r, "")
	tags := []string{"a", "b", "c", "latest"}
	if err := r.PushManifest(ctx, d, raw, tags...); err != nil {
		t.Fatal(err)
	}
	var got []string
	add := func(s string) error { got = append(got, s); return nil }
	if err := r.Tags(ctx, "", add); err != nil || !slices.Equal(slices.Sorted(slices.Values(got)), tags) {
		t.Errorf("tags %v, %v", got, err)
	}
	if err := repository(t, c, "no/where").Tags(ctx, "", add); !errors.Is(err, content.ErrNotFound) {
		t.Errorf("tags of nothing: %v", err)
	}
	got = nil
	if err := c.Catalog(ctx, "", add); err != nil || !slices.Contains(got, "a/tags") {
		t.Errorf("catalog %v, %v", got, err)
	}
	if err := c.Catalog(ctx, "", func(string) error { return http.ErrAbortHandler }); !errors.Is(err, http.ErrAbortHandler) {
		t.Errorf("stop: %v", err)
	}
}
