package transfer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/snapshot"
	"github.com/tare-oci/tare/image/store"
)

// tarLayer returns a layer with one file of n bytes.
func tarLayer(t *testing.T, name string, n int) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(n), Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte(name[:1]), n)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func hostImage(m *memory) v1.Descriptor {
	d := m.image("a", manifest.Host().Architecture, tarLayer(m.t, "x", 100), tarLayer(m.t, "y", 300_000), tarLayer(m.t, "z", 5000))
	return m.index("i", m.image("b", "other"), d)
}

type local struct {
	st     *store.Store
	layers *snapshot.Store
}

func openLocal(t *testing.T, dir string) local {
	t.Helper()
	st, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	layers, err := snapshot.Open(filepath.Join(dir, "layers"), snapshot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return local{st, layers}
}

// complete checks that everything of an image is there and unpacked.
func (l local) complete(t *testing.T, p *Pulled, unpacked bool) {
	t.Helper()
	ctx := context.Background()
	for i, d := range append(p.Image.Manifest.Layers, p.Image.Manifest.Config, p.Root, p.Image.Path[len(p.Image.Path)-1]) {
		if _, err := content.ReadAll(ctx, l.st, d, 1<<30); err != nil {
			t.Error(err)
		}
		if i < len(p.Image.Manifest.Layers) && l.layers.Has(p.Image.Config.RootFS.DiffIDs[i]) != unpacked {
			t.Errorf("layer %d unpacked: %v", i, !unpacked)
		}
	}
	if d, err := l.st.Resolve(ctx, "name"); err != nil || d.Digest != p.Root.Digest {
		t.Errorf("name: %v, %v", d, err)
	}
	leases, err := l.st.Leases(ctx)
	if err != nil || slices.ContainsFunc(leases, func(i store.LeaseInfo) bool { return i.Kind == "pull" }) {
		t.Errorf("leases %v, %v", leases, err)
	}
}

func TestPull(t *testing.T) {
	for _, noUnpack := range []bool{false, true} {
		src := newMemory(t)
		root := hostImage(src)
		l := openLocal(t, t.TempDir())
		p, err := Pull(context.Background(), src, l.st, l.layers, root, PullOptions{Name: "name", NoUnpack: noUnpack})
		if err != nil {
			t.Fatal(err)
		}
		l.complete(t, p, !noUnpack)
		if got := len(src.log); got != 6 { // index, manifest, config, three layers; nothing of the other platform
			t.Errorf("%d requests: %q", got, src.log)
		}
		again, err := Pull(context.Background(), src, l.st, l.layers, root, PullOptions{Name: "name"})
		if err != nil {
			t.Fatal(err)
		}
		l.complete(t, again, true)
		if len(src.log) != 6 {
			t.Errorf("the second pull asked for %q", src.log[6:])
		}
	}
}

func TestPullAll(t *testing.T) {
	src := newMemory(t)
	root := hostImage(src)
	l := openLocal(t, t.TempDir())
	p, err := Pull(context.Background(), src, l.st, l.layers, root, PullOptions{Name: "name", All: true})
	if err != nil {
		t.Fatal(err)
	}
	l.complete(t, p, true)
	if _, sparse, err := List(context.Background(), l.st, root, Options{}); err != nil || sparse {
		t.Errorf("sparse %v, %v", sparse, err)
	}
}

// TestPullBroken lets every stream break after some bytes: the pull fails, nothing is named, and the next pulls go on.
func TestPullBroken(t *testing.T) {
	dir := t.TempDir()
	src := newMemory(t)
	root := hostImage(src)
	var mu sync.Mutex
	sent := int64(0)
	src.read = func(r io.Reader) io.ReadCloser {
		return io.NopCloser(io.TeeReader(io.MultiReader(io.LimitReader(r, 50_000), brokenIfMore{r}), writerFunc(func(p []byte) {
			mu.Lock()
			sent += int64(len(p))
			mu.Unlock()
		})))
	}
	l := openLocal(t, dir)
	failed := 0
	for {
		p, err := Pull(context.Background(), src, l.st, l.layers, root, PullOptions{Name: "name"})
		if err == nil {
			l.complete(t, p, true)
			break
		}
		if failed++; failed > 20 || !strings.Contains(err.Error(), "connection reset") {
			t.Fatalf("after %d failures: %v", failed, err)
		}
		if _, err := l.st.Resolve(context.Background(), "name"); !errors.Is(err, content.ErrNotFound) {
			t.Errorf("name after a failed pull: %v", err)
		}
	}
	if failed < 5 || sent > 350_000 {
		t.Errorf("%d failures, %d bytes sent for about 315000", failed, sent)
	}
}

// brokenIfMore breaks a stream unless it is at its end.
type brokenIfMore struct{ r io.Reader }

func (b brokenIfMore) Read(p []byte) (int, error) {
	if n, err := b.r.Read(p[:1]); n == 0 && errors.Is(err, io.EOF) {
		return 0, io.EOF
	}
	return 0, errors.New("connection reset")
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// TestPullLeftover begins anew where what an earlier download left is wrong.
func TestPullLeftover(t *testing.T) {
	src := newMemory(t)
	root := hostImage(src)
	l := openLocal(t, t.TempDir())
	layer := v1.Descriptor{Digest: digest.FromString(tarLayer(t, "y", 300_000)), Size: int64(len(tarLayer(t, "y", 300_000)))}
	in, err := l.st.Ingest(context.Background(), layer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("not what it should be")); err != nil {
		t.Fatal(err)
	}
	in.Close()
	p, err := Pull(context.Background(), src, l.st, l.layers, root, PullOptions{Name: "name"})
	if err != nil {
		t.Fatal(err)
	}
	l.complete(t, p, true)
}

// TestPullLies fails, whatever it is that is not what its digest says.
func TestPullLies(t *testing.T) {
	sound := newMemory(t)
	hostImage(sound)
	for d, name := range sound.names {
		if strings.HasPrefix(name, "b") {
			continue
		}
		src := newMemory(t)
		root := hostImage(src)
		data := bytes.Clone(src.blobs[d])
		data[len(data)/2] ^= 1
		src.blobs[d] = data
		l := openLocal(t, t.TempDir())
		if _, err := Pull(context.Background(), src, l.st, l.layers, root, PullOptions{Name: "name"}); err == nil {
			t.Errorf("%.20s: no error", name)
		}
		if list, err := l.st.List(context.Background()); err != nil || len(list) > 0 {
			t.Errorf("%.20s: names %v, %v", name, list, err)
		}
	}
}

// TestPullWrongDiffID fails: a configuration that lies about its layers.
func TestPullWrongDiffID(t *testing.T) {
	src := newMemory(t)
	cfg := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: manifest.Host().Architecture},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("other")}}}
	root := src.manifest("m", v1.Manifest{Config: src.addJSON("c", v1.MediaTypeImageConfig, cfg),
		Layers: []v1.Descriptor{src.add("l", v1.MediaTypeImageLayer, []byte(tarLayer(t, "x", 10)))}})
	l := openLocal(t, t.TempDir())
	if _, err := Pull(context.Background(), src, l.st, l.layers, root, PullOptions{Name: "name"}); err == nil || !strings.Contains(err.Error(), "unpack sha256:") {
		t.Errorf("error %v", err)
	}
}

// TestPullTogether pulls one image many times at once, as several processes: every blob is asked for once.
func TestPullTogether(t *testing.T) {
	src := newMemory(t)
	root := hostImage(src)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 5 {
		l := openLocal(t, dir)
		wg.Go(func() {
			p, err := Pull(context.Background(), src, l.st, l.layers, root, PullOptions{Name: "name"})
			if err != nil {
				t.Error(err)
			} else if !l.layers.Has(p.Image.Config.RootFS.DiffIDs[1]) {
				t.Error("not unpacked")
			}
		})
	}
	wg.Wait()
	count := map[string]int{}
	for _, line := range src.log {
		if name := strings.TrimPrefix(line, "fetch "); len(name) > 100 { // layers are named by their content
			count[name]++
		}
	}
	if len(count) != 3 {
		t.Errorf("%d layers were asked for", len(count))
	}
	for name, n := range count {
		if n != 1 {
			t.Errorf("layer %.1s was asked for %d times", name, n)
		}
	}
}

// TestPullCancelled ends soon, with what was begun.
func TestPullCancelled(t *testing.T) {
	src := newMemory(t)
	root := hostImage(src)
	l := openLocal(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Pull(ctx, src, l.st, l.layers, root, PullOptions{Name: "name", Progress: func(e Event) {
		if e.Kind == Done {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestEndpoints asks one place after the other, and goes on elsewhere where a stream breaks.
func TestEndpoints(t *testing.T) {
	empty, broken, whole := newMemory(t), newMemory(t), newMemory(t)
	root := hostImage(broken)
	hostImage(whole)
	whole.tags["1"] = root
	broken.read = func(r io.Reader) io.ReadCloser {
		return io.NopCloser(io.MultiReader(io.LimitReader(r, 700), brokenIfMore{r}))
	}
	var told []string
	e := &Endpoints{List: []Endpoint{{"empty", empty}, {"broken", broken}, {"whole", whole}}, Tell: func(endpoint, what string, err error) {
		told = append(told, fmt.Sprint(endpoint, " ", strings.Fields(what)[0], " ", err == nil))
	}}
	d, err := e.Resolve(context.Background(), "1")
	if err != nil || d.Digest != root.Digest {
		t.Fatal(d, err)
	}
	if got := strings.Join(told, ", "); got != "empty resolve false, broken resolve false, whole resolve true" {
		t.Error(got)
	}
	e.best = 1
	big := v1.Descriptor{Digest: digest.FromString(tarLayer(t, "y", 300_000)), Size: int64(len(tarLayer(t, "y", 300_000)))}
	data, err := content.ReadAll(context.Background(), e, big, 1<<30)
	if err != nil || int64(len(data)) != big.Size {
		t.Error(len(data), err)
	}
	if _, err := e.Resolve(context.Background(), "2"); !errors.Is(err, content.ErrNotFound) || !strings.Contains(err.Error(), "3 endpoints failed") {
		t.Error(err)
	}
}
