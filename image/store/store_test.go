package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/internal/imagetest"
)

var ctx = context.Background()

var (
	_ content.Source = (*Store)(nil)
	_ content.Target = (*Store)(nil)
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newStore(t testing.TB) *Store {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "store"))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error %v, want %v", err, target)
	}
}

func blob(data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// noise returns n bytes that are the same for the same seed.
func noise(seed uint64, n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	r.Read(data)
	return data
}

// testImage returns an image of a few blobs, the manifest and what it refers to, manifest last.
func testImage(t testing.TB, seed int) (imagetest.Files, v1.Descriptor) {
	t.Helper()
	f := imagetest.Files{}
	var layers []imagetest.Layer
	for i := range 2 {
		var e imagetest.Entry
		e.Name = fmt.Sprintf("file-%d-%d", seed, i)
		e.Content = string(noise(uint64(seed*10+i), 3000))
		layers = append(layers, imagetest.Layer{Tar: imagetest.Tar(t, e), Compression: "gzip"})
	}
	return f, f.AddImage(t, imagetest.Image{Layers: layers})
}

// pushFiles pushes the blobs of f, the one named last after all others.
func pushFiles(ctx context.Context, s *Store, f imagetest.Files, last v1.Descriptor) error {
	for _, data := range f {
		if d := blob(data); d.Digest != last.Digest {
			if err := s.Push(ctx, d, bytes.NewReader(data)); err != nil {
				return err
			}
		}
	}
	return s.Push(ctx, last, bytes.NewReader(f[blobName(last.Digest)]))
}

func addImage(t testing.TB, s *Store, seed int, name string) v1.Descriptor {
	t.Helper()
	f, d := testImage(t, seed)
	must(t, pushFiles(ctx, s, f, d))
	must(t, s.Tag(ctx, d, name))
	return d
}

func read(t testing.TB, s *Store, d v1.Descriptor) []byte {
	t.Helper()
	r, err := s.Fetch(ctx, d, 0)
	must(t, err)
	defer r.Close()
	data, err := io.ReadAll(r)
	must(t, err)
	return data
}

func TestPushFetch(t *testing.T) {
	s := newStore(t)
	data := noise(1, 100_000)
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		d := v1.Descriptor{MediaType: "a/b", Digest: alg.FromBytes(data), Size: int64(len(data))}
		if there, err := s.Exists(ctx, d); err != nil || there {
			t.Fatalf("exists %v, %v before it is pushed", there, err)
		}
		_, err := s.Fetch(ctx, d, 0)
		want(t, err, content.ErrNotFound)
		must(t, s.Push(ctx, d, bytes.NewReader(data)))
		must(t, s.Push(ctx, d, strings.NewReader("is not read")))
		if there, err := s.Exists(ctx, d); err != nil || !there {
			t.Fatalf("exists %v, %v", there, err)
		}
		if !bytes.Equal(read(t, s, d), data) {
			t.Fatal("other bytes")
		}
		r, err := s.Fetch(ctx, d, 99_990)
		must(t, err)
		if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, data[99_990:]) {
			t.Fatalf("from an offset: %q, %v", rest, err)
		}
		r.Close()
		wrong := d
		wrong.Size++
		_, err = s.Fetch(ctx, wrong, 0)
		want(t, err, content.ErrNotFound)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, "blobs": 0o700, ".tare/ingest": 0o700, "index.json": 0o600} {
		if info, err := os.Stat(filepath.Join(s.Dir(), name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestPushRefuses(t *testing.T) {
	s := newStore(t)
	data := []byte("hello")
	for _, c := range []struct {
		d    v1.Descriptor
		in   string
		want string
	}{
		{blob(data), "hell", "ends after 4 of 5 bytes"},
		{blob(data), "hello!", "goes on after its 5 bytes"},
		{blob(data), "jello", "content is sha256:"},
		{v1.Descriptor{Digest: "sha256:../../x", Size: 5}, "hello", "malformed"},
		{v1.Descriptor{Digest: "blake3:" + digest.Digest(blob(data).Digest.Encoded()), Size: 5}, "hello", "cannot be verified"},
		{v1.Descriptor{Digest: blob(data).Digest, Size: -1}, "hello", "negative"},
	} {
		if err := s.Push(ctx, c.d, strings.NewReader(c.in)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q as %v: error %v, want %q", c.in, c.d, err, c.want)
		}
	}
	if u, err := s.Size(ctx); err != nil || u != (Usage{}) {
		t.Errorf("left %+v, %v", u, err)
	}
}

func TestTagResolveUntag(t *testing.T) {
	s := newStore(t)
	a, b := addImage(t, s, 1, "alpine"), addImage(t, s, 2, "reg.example:5000/x/y:v1")
	must(t, s.Tag(ctx, a, "again:1"))
	for ref, d := range map[string]v1.Descriptor{"alpine": a, "docker.io/library/alpine:latest": a, "again:1": a,
		"reg.example:5000/x/y:v1": b, "z@" + a.Digest.String(): a, b.Digest.String(): b} {
		if got, err := s.Resolve(ctx, ref); err != nil || got.Digest != d.Digest || got.Size != d.Size || got.MediaType != d.MediaType {
			t.Errorf("%s: %v, %v", ref, got, err)
		}
	}
	for _, ref := range []string{"none", "ALPINE", "", "sha256:" + strings.Repeat("0", 64)} {
		if _, err := s.Resolve(ctx, ref); !errors.Is(err, content.ErrNotFound) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	want(t, s.Tag(ctx, blob([]byte("not there")), "x"), content.ErrNotFound)
	must(t, s.Tag(ctx, b, "alpine")) // in place of a
	must(t, s.Tag(ctx, b, ""))       // is listed
	names := func() string {
		list, err := s.List(ctx)
		must(t, err)
		var names []string
		for _, n := range list {
			names = append(names, n.Name+"="+n.Descriptor.Digest.Encoded()[:4])
			if time.Since(n.Used) > time.Hour {
				t.Errorf("%s was used at %v", n.Name, n.Used)
			}
		}
		return strings.Join(names, " ")
	}
	ea, eb := a.Digest.Encoded()[:4], b.Digest.Encoded()[:4]
	if got, want := names(), "docker.io/library/alpine:latest="+eb+" reg.example:5000/x/y:v1="+eb+" docker.io/library/again:1="+ea; got != want {
		t.Errorf("listed %s, want %s", got, want)
	}
	if d, err := s.Untag(ctx, "again:1"); err != nil || d.Digest != a.Digest {
		t.Errorf("untagged %v, %v", d, err)
	}
	_, err := s.Untag(ctx, "again:1")
	want(t, err, content.ErrNotFound)
	must(t, s.Tag(ctx, a, ""))
	if got := names(); !strings.HasSuffix(got, " ="+ea) {
		t.Errorf("listed %s", got)
	}
	must(t, s.Tag(ctx, a, "named"))
	if got := names(); !strings.HasSuffix(got, " docker.io/library/named:latest="+ea) {
		t.Errorf("listed %s", got)
	}
	must(t, s.Tag(ctx, blob([]byte(read(t, s, a))), "other/type")) // nothing is assumed of what it is
	_, err = s.Untag(ctx, "named")
	must(t, err)
	_, err = s.Untag(ctx, a.Digest.String()) // it has a name: not without
	want(t, err, content.ErrNotFound)
}

func TestForeignIndex(t *testing.T) {
	s := newStore(t)
	a := addImage(t, s, 1, "a")
	b := addImage(t, s, 2, "b")
	raw := fmt.Sprintf(`{"schemaVersion":2,"x":{"y":[1e3]},"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"new":"<&>","annotations":{"k":"v",
		"org.opencontainers.image.ref.name":"twice"}},{"broken":1},{"mediaType":%[4]q,"digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"twice"}}]}`,
		a.MediaType, a.Digest, a.Size, b.MediaType, b.Digest, b.Size)
	must(t, os.WriteFile(filepath.Join(s.Dir(), "index.json"), []byte(raw), 0o600))
	list, err := s.List(ctx)
	if err != nil || len(list) != 2 || list[0].Name != "twice" || list[1].Name != "" || list[1].Descriptor.Digest != b.Digest {
		t.Fatalf("%+v, %v", list, err)
	}
	if d, err := s.Resolve(ctx, "twice"); err != nil || d.Digest != a.Digest {
		t.Errorf("%v, %v", d, err)
	}
	must(t, s.Tag(ctx, a, "c"))
	data, err := os.ReadFile(filepath.Join(s.Dir(), "index.json"))
	must(t, err)
	for _, part := range []string{`"x":{"y":[1e3]}`, `"new":"<&>"`, `{"broken":1}`, `"k":"v"`} {
		if !strings.Contains(string(data), part) {
			t.Errorf("%s was lost: %s", part, data)
		}
	}
	if _, err := s.Untag(ctx, "twice"); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(ctx); err != nil || len(list) != 1 || list[0].Name != "docker.io/library/c:latest" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestIngestResume(t *testing.T) {
	s := newStore(t)
	data := noise(3, 200_000)
	d := blob(data)
	in, err := s.Ingest(ctx, d)
	must(t, err)
	r, err := in.Reader()
	must(t, err)
	in.Write(data[:70_000])
	in.Fail(io.ErrClosedPipe)
	if got, err := io.ReadAll(r); !errors.Is(err, io.ErrClosedPipe) || !bytes.Equal(got, data[:70_000]) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	r.Close()
	in, err = open(t, s.Dir()).Ingest(ctx, d)
	must(t, err)
	if in.Offset() != 70_000 {
		t.Fatalf("offset %d", in.Offset())
	}
	r, err = in.Reader()
	must(t, err)
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result)
	go func() {
		got, err := io.ReadAll(r)
		done <- result{got, err}
	}()
	for rest := data[70_000:]; len(rest) > 0; rest = rest[min(len(rest), 7777):] {
		_, err := in.Write(rest[:min(len(rest), 7777)])
		must(t, err)
	}
	must(t, in.Commit())
	must(t, in.Close())
	must(t, in.Discard())
	if got := <-done; got.err != nil || !bytes.Equal(got.data, data) {
		t.Fatalf("the reader got %d bytes, %v", len(got.data), got.err)
	}
	r.Close()
	_, err = s.Ingest(ctx, d)
	want(t, err, content.ErrExists)
	late, err := in.Reader()
	must(t, err)
	if got, err := io.ReadAll(late); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("a reader after the end: %d bytes, %v", len(got), err)
	}
	late.Close()
}

func TestIngestWrong(t *testing.T) {
	s := newStore(t)
	d := blob([]byte("hello"))
	in, err := s.Ingest(ctx, d)
	must(t, err)
	r, err := in.Reader()
	must(t, err)
	defer r.Close()
	in.Write([]byte("jello"))
	want(t, in.Commit(), ErrMismatch)
	if got, err := io.ReadAll(r); !errors.Is(err, ErrMismatch) {
		t.Errorf("the reader got %q, %v", got, err)
	}
	in, err = s.Ingest(ctx, d)
	must(t, err)
	if in.Offset() != 0 {
		t.Errorf("wrong content is resumed")
	}
	in.Write([]byte("hel"))
	want(t, in.Commit(), io.ErrUnexpectedEOF)
	in, err = s.Ingest(ctx, d)
	must(t, err)
	if in.Offset() != 3 {
		t.Errorf("offset %d", in.Offset())
	}
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	_, err = s.Ingest(short, d)
	want(t, err, context.DeadlineExceeded)
	in.Write([]byte("lo"))
	must(t, in.Commit())
}

func TestReaderClose(t *testing.T) {
	s := newStore(t)
	in, err := s.Ingest(ctx, blob([]byte("hello")))
	must(t, err)
	defer in.Discard()
	r, err := in.Reader()
	must(t, err)
	done := make(chan error)
	go func() {
		_, err := r.Read(make([]byte, 1))
		done <- err
	}()
	time.Sleep(time.Millisecond) // the read may or may not wait already: both must end
	r.Close()
	want(t, <-done, os.ErrClosed)
}

func TestNewBlob(t *testing.T) {
	s := newStore(t)
	for _, alg := range []digest.Algorithm{"", digest.SHA512} {
		for range 2 { // the second is there already
			b, err := s.NewBlob(ctx, alg)
			must(t, err)
			io.WriteString(b, "hello")
			d, err := b.Commit("a/b")
			must(t, err)
			must(t, b.Close())
			if string(read(t, s, d)) != "hello" || d.MediaType != "a/b" {
				t.Errorf("%v", d)
			}
		}
	}
	b, err := s.NewBlob(ctx, "")
	must(t, err)
	io.WriteString(b, "gone")
	must(t, b.Close())
	if u, err := s.Size(ctx); err != nil || u.Partial != 0 || u.Blobs != 2 || u.Bytes != 10 {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := s.NewBlob(ctx, "md5"); err == nil {
		t.Error("md5")
	}
}

// What storing costs: one sync of every blob's file, and those of the directories and of index.json once for an image.
func TestSyncs(t *testing.T) {
	s := newStore(t)
	syncs := map[string]int{}
	s.inject = func(op, path string) error {
		if strings.HasPrefix(op, "sync") {
			rel, err := filepath.Rel(s.Dir(), path)
			must(t, err)
			syncs[op+" "+rel]++
		}
		return nil
	}
	f, m := testImage(t, 1)
	must(t, pushFiles(ctx, s, f, m))
	if len(syncs) != len(f) {
		t.Errorf("%v for %d blobs", syncs, len(f))
	}
	must(t, s.Tag(ctx, m, "x"))
	if len(syncs) != len(f)+4 {
		t.Errorf("%v", syncs)
	}
	for what, n := range syncs {
		if n != 1 {
			t.Errorf("%s %d times", what, n)
		}
	}
}

// Listing reads no manifest: the blobs of these images are not even there.
func TestListThousands(t *testing.T) {
	s := newStore(t)
	const many = 5000
	var entries []string
	for i := range many {
		entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":500,"annotations":{%q:"docker.io/library/x:%d"}}`,
			v1.MediaTypeImageManifest, digest.FromString(fmt.Sprint(i)), v1.AnnotationRefName, i))
	}
	must(t, os.WriteFile(filepath.Join(s.Dir(), "index.json"), []byte(`{"schemaVersion":2,"manifests":[`+strings.Join(entries, ",")+`]}`), 0o600))
	start := time.Now()
	list, err := s.List(ctx)
	first := time.Since(start)
	if err != nil || len(list) != many || list[many-1].Name != "docker.io/library/x:4999" {
		t.Fatalf("%d, %v", len(list), err)
	}
	start = time.Now()
	for i := range 1000 {
		if _, err := s.Resolve(ctx, fmt.Sprint("x:", i)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("listed in %v, 1000 names resolved in %v", first, time.Since(start))
	if first > 10*time.Second { // 0.1 s where nothing else runs
		t.Errorf("listing took %v", first)
	}
}

func TestLimits(t *testing.T) {
	entry := fmt.Sprintf(`{"mediaType":"a/b","digest":%q,"size":1}`, digest.FromString("x"))
	for raw, want := range map[string]string{
		`{"schemaVersion":2,"manifests":[` + strings.Repeat(entry+",", maxEntries) + entry + `]}`: "the limit is 50000",
		`{"schemaVersion":1,"manifests":[]}`:                                                      "want 2",
		`{"schemaVersion":2}`:                                                                     "manifests",
		`{"schemaVersion":2,"manifests":{}}`:                                                      "manifests",
		`[]`:                                                                                      "",
	} {
		if _, err := parseIndex([]byte(raw)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: error %v, want %q", raw, err, want)
		}
	}
	s := newStore(t)
	must(t, os.Truncate(filepath.Join(s.Dir(), "index.json"), maxIndex+1))
	if _, err := s.List(ctx); err == nil || !strings.Contains(err.Error(), "the limit is 67108864") {
		t.Error(err)
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(emptyIndex))
	f.Add([]byte(`{"schemaVersion":2,"x":[1],"manifests":[{"mediaType":"a/b","digest":"sha256:00","size":1},null,{"annotations":{"org.opencontainers.image.ref.name":"x"}}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		idx, err := parseIndex(raw)
		if err != nil {
			return
		}
		data, err := idx.encode(idx.entries())
		if err != nil {
			return
		}
		again, err := parseIndex(data)
		if err != nil || len(again.entries()) != len(idx.entries()) {
			t.Fatalf("%s\nbecame\n%s\n%v", raw, data, err)
		}
		for i, e := range idx.entries() {
			if a := again.entries()[i]; a.name != e.name || (a.err == nil) != (e.err == nil) || a.desc.Digest != e.desc.Digest {
				t.Errorf("%s became %s", e.raw, a.raw)
			}
		}
	})
}

func FuzzLease(f *testing.F) {
	f.Add([]byte("{\"kind\":\"pull\",\"id\":\"1\"}\n{\"digests\":[\"a:b\"]}\n{\"drop\":[\"a:b\"],\"layers\":[\"c:d\"]}\n{\"dig"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		info, err := parseLease(raw)
		if err != nil {
			return
		}
		data, err := encodeJSON(info)
		must(t, err)
		again, err := parseLease(append(data, '\n'))
		if err != nil || fmt.Sprint(again.Digests, again.Layers) != fmt.Sprint(info.Digests, info.Layers) {
			t.Errorf("%+v became %+v, %v", info, again, err)
		}
	})
}
