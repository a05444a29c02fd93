package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/storagetest"
)

var gateway = sync.OnceValues(startGateway)

var stopGateway func()

func TestMain(m *testing.M) {
	code := m.Run()
	if stopGateway != nil {
		stopGateway()
	}
	os.Exit(code)
}

// startGateway starts an S3 server over a directory, and returns its address.
func startGateway() (string, error) {
	bin, err := exec.LookPath("versitygw")
	if err != nil {
		if bin, err = filepath.Abs("../../../.cache/bin/versitygw"); err != nil {
			return "", err
		}
		if _, err := os.Stat(bin); err != nil {
			return "", err
		}
	}
	dir, err := os.MkdirTemp("", "s3-test")
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	l.Close()
	for _, d := range []string{"data/registry", "sidecar"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return "", err
		}
	}
	cmd := exec.Command(bin, "--access", "access", "--secret", "s3cret-key", "--port", addr, "--quiet", "posix", "--sidecar", filepath.Join(dir, "sidecar"), filepath.Join(dir, "data"))
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stopGateway = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		os.RemoveAll(dir)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return addr, nil
		}
	}
	return "", errors.New("versitygw does not answer")
}

// options are of an empty part of the bucket.
func options(t *testing.T) Options {
	t.Helper()
	addr, err := gateway()
	if err != nil {
		t.Skipf("there is no S3 server (versitygw, by scripts/peers.sh): %v", err)
	}
	return Options{Endpoint: "http://" + addr, Bucket: "registry", Prefix: newID(), Region: "us-east-1", AccessKey: "access", SecretKey: "s3cret-key", Temp: t.TempDir(), Expiry: time.Minute}
}

func open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStorage(t *testing.T) {
	storagetest.Test(t, func(t *testing.T) storage.Storage { return open(t, options(t)) })
}

// TestTwoServers: what one server does is seen by another at once, and an upload goes on at the other.
func TestTwoServers(t *testing.T) {
	o := options(t)
	one, two := open(t, o), open(t, o)
	ctx := t.Context()
	content := make([]byte, 2*partSize+minPart+12345)
	r := rand.NewChaCha8(sha256.Sum256([]byte("seed")))
	if _, err := r.Read(content); err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(content)
	id, err := one.StartUpload(ctx, "a/b", digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for i, end := range []int{1000, 6 << 20, 6<<20 + 10, partSize + 3, partSize + 3, 2*partSize + 77} {
		s := []*Store{one, two}[i%2]
		n, err := s.AppendUpload(ctx, "a/b", id, int64(sent), bytes.NewReader(content[sent:end]))
		if sent = end; err != nil || n != int64(end) {
			t.Fatalf("until %d: %d, %v", end, n, err)
		}
	}
	if _, err := two.CommitUpload(ctx, "a/b", id, int64(sent), bytes.NewReader(content[sent:]), d); err != nil {
		t.Fatal(err)
	}
	b, err := one.OpenBlob(ctx, "a/b", d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Content.Close()
	if got, err := io.ReadAll(b.Content); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	if err := two.UnlinkBlob(ctx, "a/b", d); err != nil {
		t.Fatal(err)
	}
	if _, err := one.StatBlob(ctx, "a/b", d); !errors.Is(err, storage.ErrBlobUnknown) { // CVE-2026-35172
		t.Errorf("deleted at the other: %v", err)
	}
	var left []string
	if err := one.list(ctx, "uploads/", "", func(rest string) (bool, error) { left = append(left, rest); return true, nil }); err != nil || len(left) > 0 {
		t.Errorf("left of the upload: %v, %v", left, err)
	}
	wins := make(chan error)
	for i := range 6 {
		go func() {
			m := storage.Manifest{Raw: []byte{byte(i)}}
			m.Descriptor.Digest = digest.FromBytes(m.Raw)
			wins <- []*Store{one, two}[i%2].PutManifest(ctx, "a/b", m, storage.PutOptions{Tags: []string{"race"}, Expect: func(_ string, now digest.Digest) bool { return now == "" }})
		}()
	}
	won := 0
	for range 6 {
		if err := <-wins; err == nil {
			won++
		} else if !errors.Is(err, storage.ErrConditionFailed) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d of 6 were the first", won)
	}
}

// TestSameContentTwice: bytes that two uploads bring are kept once, also when the content was removed before.
func TestSameContentTwice(t *testing.T) {
	s := open(t, options(t))
	ctx := t.Context()
	d := digest.FromString("content")
	push := func(repo string) {
		t.Helper()
		id, err := s.StartUpload(ctx, repo, digest.SHA256)
		if err == nil {
			_, err = s.CommitUpload(ctx, repo, id, 0, strings.NewReader("content"), d)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	objects := func() (n int) {
		t.Helper()
		if err := s.list(ctx, "data/", "", func(string) (bool, error) { n++; return true, nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 2 {
		push("a")
		push("b")
		if n := objects(); n != 1 {
			t.Errorf("%d objects of one content", n)
		}
		if removed, err := s.RemoveContent(ctx, d, time.Now().Add(time.Hour)); !removed || err != nil {
			t.Errorf("removed %v, %v", removed, err)
		}
		if n := objects(); n != 0 {
			t.Errorf("%d objects of no content", n)
		}
	}
}

// TestDeadServer: an upload that a server left half-way, in whatever state, can be aborted, and leaves no bytes but a blob's.
func TestDeadServer(t *testing.T) {
	s := open(t, options(t))
	ctx := t.Context()
	content := bytes.Repeat([]byte("x"), partSize+minPart+5)
	d := digest.FromBytes(content)
	for _, died := range []string{"before the object", "before the record", "after the record"} {
		id, err := s.StartUpload(ctx, "a", digest.SHA256)
		if err == nil {
			_, err = s.AppendUpload(ctx, "a", id, 0, bytes.NewReader(content))
		}
		if err != nil {
			t.Fatal(err)
		}
		u, work, err := s.openSession(ctx, "a", id)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.noteDigest(work, id, d), u.receive(work, nil)); err != nil {
			t.Fatal(err)
		}
		if died != "before the object" {
			if err := u.complete(work); err != nil {
				t.Fatal(err)
			}
		}
		if died == "after the record" {
			if _, err := s.change(ctx, contentKey(d), func(*record) (record, bool) { return newRecord(dataKey(id), u.Received), true }); err != nil {
				t.Fatal(err)
			}
		}
		u.close()
		if err := s.AbortUpload(ctx, "a", id); err != nil {
			t.Errorf("%s: %v", died, err)
		}
		n := 0
		for _, prefix := range []string{"data/", "uploads/", "locks/"} {
			if err := s.list(ctx, prefix, "", func(string) (bool, error) { n++; return true, nil }); err != nil {
				t.Fatal(err)
			}
		}
		if want := map[bool]int{true: 1}[died == "after the record"]; n != want {
			t.Errorf("%s: %d objects left, want %d", died, n, want)
		}
	}
	if _, err := s.LinkBlob(ctx, "", "b", d); err != nil {
		t.Errorf("the blob that was complete: %v", err)
	}
}

// TestDeadLock: the lock of a server that died is taken over, and one that is alive is waited for.
func TestDeadLock(t *testing.T) {
	s := open(t, options(t))
	ctx := t.Context()
	if _, err := s.putJSON(ctx, "locks/x", held{time.Now().Add(-lockSkew - time.Second), "dead"}, anyway); err != nil {
		t.Fatal(err)
	}
	_, release, err := s.lock(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.tryLock(ctx, "x"); !errors.Is(err, storage.ErrUploadBusy) {
		t.Errorf("taken twice: %v", err)
	}
	release()
	if _, err := s.putJSON(ctx, "locks/x", held{time.Now(), "alive"}, anyway); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, _, err := s.lock(short, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a lock of another server: %v", err)
	}
	if _, release, err = s.lock(ctx, "y"); err != nil {
		t.Fatal(err)
	}
	release()
	if _, _, err := s.get(ctx, "locks/y"); !errors.Is(err, errAbsent) {
		t.Errorf("a released lock: %v", err)
	}
}

// TestRedirect: a signed address serves the blob, and nothing else, and has no secret.
func TestRedirect(t *testing.T) {
	s := open(t, options(t))
	ctx := t.Context()
	d := digest.FromString("content")
	id, err := s.StartUpload(ctx, "a", digest.SHA256)
	if err == nil {
		_, err = s.CommitUpload(ctx, "a", id, 0, strings.NewReader("content"), d)
	}
	if err != nil {
		t.Fatal(err)
	}
	address, err := s.BlobURL(ctx, "a", d, "GET")
	if err != nil || strings.Contains(address, s.opts.SecretKey) || !strings.Contains(address, "X-Amz-Expires=60") {
		t.Fatalf("%s, %v", address, err)
	}
	get := func(address string) (int, string) {
		r, err := http.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(body)
	}
	if code, body := get(address); code != 200 || body != "content" {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := get(strings.Replace(address, "/data/", "/locks/", 1)); code != 403 {
		t.Errorf("another object: %d", code)
	}
	if _, err := s.BlobURL(ctx, "b", d, "GET"); !errors.Is(err, storage.ErrRepositoryUnknown) {
		t.Errorf("in another repository: %v", err)
	}
}

// unconditional is a store that does not know conditions: it says that it has done what it should not.
type unconditional struct{}

func (unconditional) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && a.StatusCode == http.StatusPreconditionFailed {
		a.StatusCode = http.StatusOK
		a.Header.Set("ETag", `"0123456789abcdef0123456789abcdef"`)
	}
	return a, err
}

func TestOpen(t *testing.T) {
	good := options(t)
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no conditions": {func(o *Options) { o.Transport = unconditional{} }, "conditional writes"},
		"no bucket":     {func(o *Options) { o.Bucket = "another" }, "bucket"},
		"wrong key":     {func(o *Options) { o.SecretKey = "wrong-s3cret" }, "open bucket"},
		"no scheme":     {func(o *Options) { o.Endpoint = "127.0.0.1:1" }, "endpoint"},
	} {
		o := good
		c.change(&o)
		if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNames(t *testing.T) {
	names := []string{"a", "a-b", "a-b/c", "a.b", "a.b/c", "a/b", "a/b.c", "a/b/c", "a0", "a_b", "a__b", "ab"}
	slices.Sort(names)
	var keys []string
	for _, n := range names {
		if keys = append(keys, encode(n)); decode(encode(n)) != n {
			t.Errorf("%s becomes %s", n, decode(encode(n)))
		}
	}
	if !slices.IsSorted(keys) {
		t.Errorf("keys sort otherwise: %q", keys)
	}
	for in, want := range map[string]string{"a": "a", "": "", "a\x00b": "a", "aäb": "a~", strings.Repeat("x", 600): strings.Repeat("x", 512) + "~"} {
		if got := clip(in); got != want {
			t.Errorf("%.20q: %.20q, want %.20q", in, got, want)
		}
	}
	if err := translate("read", minio.ErrorResponse{StatusCode: 507}); !errors.Is(err, storage.ErrNoSpace) {
		t.Error(err)
	}
}
