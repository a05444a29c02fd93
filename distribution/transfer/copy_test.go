package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
)

var (
	amd64 = manifest.Platform{OS: "linux", Architecture: "amd64"}
	s390x = manifest.Platform{OS: "linux", Architecture: "s390x"}
)

// TestCopy says for graphs and options what is copied: in dst, children are there before what refers to them (it is strict),
// the name comes last, and every byte is the same.
func TestCopy(t *testing.T) {
	for _, c := range []struct {
		name   string
		o      Options
		sparse bool // dst takes an index without all of its entries
		want   string
		err    string
		graph  func(m *memory) v1.Descriptor
	}{
		{"one image", Options{}, false, "a a.config l1 l2", "", func(m *memory) v1.Descriptor { return m.image("a", "amd64", "l1", "l2") }},
		{"all of an index", Options{}, false, "a a.config b b.config i l1 l2 l3", "", twoImages},
		{"one platform", Options{Platforms: []manifest.Platform{s390x}}, true, "b b.config i l1 l3", "", twoImages},
		{"two platforms", Options{Platforms: []manifest.Platform{s390x, amd64}}, false, "a a.config b b.config i l1 l2 l3", "", twoImages},
		{"no such platform", Options{Platforms: []manifest.Platform{{OS: "linux", Architecture: "arm64"}}}, false, "", "available are linux/amd64, linux/s390x", twoImages},
		{"a sparse index where that is refused", Options{Platforms: []manifest.Platform{s390x}}, false, "b b.config l1 l3", "copy all of them, or one image without the index", twoImages},
		{"nested indexes and one for nobody", Options{Platforms: []manifest.Platform{amd64}}, true, "a a.config i j l1 l2", "", func(m *memory) v1.Descriptor {
			inner := m.index("i", m.image("a", "amd64", "l1", "l2"))
			other := v1.Descriptor{MediaType: v1.MediaTypeImageIndex, Digest: digest.FromString("gone"), Size: 4, Platform: &v1.Platform{OS: "linux", Architecture: "arm"}}
			return m.index("j", other, inner)
		}},
		{"a blob of an unknown kind", Options{}, false, "x", "", func(m *memory) v1.Descriptor { return m.add("x", "application/xml", []byte("<a/>")) }},
		{"an index with an unknown kind", Options{}, false, "i x", "", func(m *memory) v1.Descriptor {
			return m.index("i", m.add("x", "application/xml", []byte("<a/>")))
		}},
		{"an artifact for any platform", Options{Platforms: []manifest.Platform{amd64}}, false, "a e x", "", artifact},
		{"missing entries", Options{Sparse: true}, true, "a a.config i l1", "", func(m *memory) v1.Descriptor {
			i := m.index("i", m.image("a", "amd64", "l1"), m.image("b", "s390x"))
			for d, name := range m.names {
				if name == "b" {
					delete(m.blobs, d)
				}
			}
			return i
		}},
		{"missing entries that are wanted", Options{}, true, "", "not found", func(m *memory) v1.Descriptor {
			return m.index("i", v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("gone"), Size: 4})
		}},
		{"layers that are not to be handed on", Options{SkipNonDistributable: true}, true, "e m", "", foreign},
		{"layers that may be missing", Options{}, true, "e f m", "", foreign},
		{"referrers of referrers", Options{Referrers: true}, true, "a a.config e l1 s t", "", func(m *memory) v1.Descriptor {
			a := m.image("a", "amd64", "l1")
			s := m.manifest("s", v1.Manifest{Config: m.add("e", v1.MediaTypeEmptyJSON, []byte("{}")), Subject: &a})
			m.manifest("t", v1.Manifest{Config: m.add("e", v1.MediaTypeEmptyJSON, []byte("{}")), Subject: &s})
			return a
		}},
		{"schema 1", Options{}, false, "", "schema 1", func(m *memory) v1.Descriptor {
			return m.add("x", "application/vnd.docker.distribution.manifest.v1+prettyjws", []byte("{}"))
		}},
		{"data in the descriptor", Options{}, true, "d e", "", func(m *memory) v1.Descriptor {
			return m.manifest("d", v1.Manifest{Config: m.embedded("e", "{}")})
		}},
	} {
		src := newMemory(t)
		root := c.graph(src)
		dst := src.target()
		dst.strict = !c.sparse
		err := Copy(context.Background(), src, dst, root, "name", c.o)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
		if got := strings.Join(dst.pushed(), " "); got != c.want {
			t.Errorf("%s: pushed %q, want %q", c.name, got, c.want)
		}
		if _, tagged := dst.tags["name"]; tagged != (c.err == "") {
			t.Errorf("%s: tagged %v", c.name, tagged)
		}
		if c.err == "" && !strings.HasPrefix(dst.log[len(dst.log)-1], "tag ") {
			t.Errorf("%s: the name did not come last: %q", c.name, dst.log)
		}
		for d, b := range dst.blobs {
			if s, ok := src.blobs[d]; ok && !bytes.Equal(b, s) {
				t.Errorf("%s: %s differs", c.name, d)
			}
		}
	}
}

func twoImages(m *memory) v1.Descriptor {
	return m.index("i", m.image("a", "amd64", "l1", "l2"), m.image("b", "s390x", "l1", "l3"))
}

func artifact(m *memory) v1.Descriptor {
	return m.manifest("a", v1.Manifest{ArtifactType: "a/b", Config: m.add("e", v1.MediaTypeEmptyJSON, []byte("{}")), Layers: []v1.Descriptor{m.add("x", "a/b", []byte("x"))}})
}

// foreign has one layer that may not be handed on, and one more that is nowhere.
func foreign(m *memory) v1.Descriptor {
	const kind = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	return m.manifest("m", v1.Manifest{Config: m.add("e", v1.MediaTypeEmptyJSON, []byte("{}")),
		Layers: []v1.Descriptor{m.add("f", kind, []byte("f")), {MediaType: kind, Digest: digest.FromString("gone"), Size: 4}}})
}

// embedded returns a descriptor with its data, which is nowhere else.
func (m *memory) embedded(name, data string) v1.Descriptor {
	d := m.add(name, v1.MediaTypeEmptyJSON, []byte(data))
	d.Data = []byte(data)
	delete(m.blobs, d.Digest)
	return d
}

// TestCopyAgain sends only what is missing.
func TestCopyAgain(t *testing.T) {
	src := newMemory(t)
	root := twoImages(src)
	dst := src.target()
	ctx := context.Background()
	for _, o := range []Options{{}, {}} {
		if err := Copy(ctx, src, dst, root, "name", o); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(dst.pushed()); n != 8 {
		t.Errorf("%d pushes, want 8: %q", n, dst.log)
	}
}

// TestHostileGraphs ends soon and with a reason, and nothing was pushed.
func TestHostileGraphs(t *testing.T) {
	config := v1.Descriptor{MediaType: v1.MediaTypeImageManifest}
	for _, c := range []struct {
		name, err string
		limits    Limits
		graph     func(m *memory) v1.Descriptor
	}{
		// CVE-2026-53493: 2^40 ways lead to the lowest of 40 indexes
		{"2^40 paths", "deeper than 16 documents; to allow it raise the graph limit Depth", Limits{}, doubling(40)},
		{"too many parts", "more than 100 parts; to allow it raise the graph limit Descriptors", Limits{Descriptors: 100}, func(m *memory) v1.Descriptor {
			var ds []v1.Descriptor
			for i := range 101 {
				ds = append(ds, m.add("x", "a/b", fmt.Append(nil, i)))
			}
			return m.index("i", ds...)
		}},
		{"too many bytes", "more than 1099511627776 bytes", Limits{}, func(m *memory) v1.Descriptor {
			return m.index("i", v1.Descriptor{MediaType: "a/b", Digest: digest.FromString("x"), Size: 1 << 40})
		}},
		{"bytes beyond counting", "more than 9223372036854775807 bytes", Limits{TotalBytes: -1}, func(m *memory) v1.Descriptor {
			return m.index("i", v1.Descriptor{MediaType: "a/b", Digest: digest.FromString("x"), Size: 1<<63 - 1})
		}},
		{"too many bytes of documents", "more than 300 bytes of manifests", Limits{DocumentBytes: 300}, twoImages},
		{"a manifest that is too large", "the limit is 4194304", Limits{}, func(m *memory) v1.Descriptor {
			return m.index("i", v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 5 << 20})
		}},
		{"two kinds of one thing", "is ambiguous", Limits{}, func(m *memory) v1.Descriptor {
			a := m.image("a", "amd64")
			b := a
			b.MediaType = "a/b"
			return m.index("i", a, b)
		}},
		{"two sizes of one thing", "is said to have", Limits{}, func(m *memory) v1.Descriptor {
			a := m.add("x", "a/b", []byte("x"))
			b := a
			b.Size++
			return m.index("i", a, b)
		}},
		{"both index and manifest", "ambiguous", Limits{}, func(m *memory) v1.Descriptor {
			return m.add("x", v1.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`))
		}},
		{"another kind than said", "says that its media type is", Limits{}, func(m *memory) v1.Descriptor {
			return m.add("x", v1.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"mediaType":"`+v1.MediaTypeImageIndex+`","config":{}}`))
		}},
		{"a digest that leads elsewhere", "malformed", Limits{}, func(*memory) v1.Descriptor { config.Digest = "sha256:../../x"; return config }},
	} {
		for _, platforms := range [][]manifest.Platform{nil, {amd64}} {
			src := newMemory(t)
			root := c.graph(src)
			dst := src.target()
			err := Copy(context.Background(), src, dst, root, "name", Options{Limits: c.limits, Platforms: platforms})
			if err == nil || platforms == nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", c.name, err, c.err)
			}
			if len(dst.log) > 0 {
				t.Errorf("%s: %q", c.name, dst.log)
			}
		}
	}
}

// doubling returns a tower of indexes of which each refers to the next in two ways.
func doubling(depth int) func(m *memory) v1.Descriptor {
	return func(m *memory) v1.Descriptor {
		below := []v1.Descriptor{m.add("x", "a/b", []byte("x")), m.add("y", "a/b", []byte("y"))}
		for range depth {
			a := m.index("i", below...)
			b := m.index("i", below[1], below[0])
			below = []v1.Descriptor{a, b}
		}
		return m.index("i", below...)
	}
}

// TestManyPaths copies what is legal though a walk of every path would not end.
func TestManyPaths(t *testing.T) {
	src := newMemory(t)
	root := doubling(36)(src)
	if err := Copy(context.Background(), src, src.target(), root, "name", Options{Limits: Limits{Depth: 50}}); err != nil {
		t.Error(err)
	}
}

// TestFailure lets each single push fail: the name is never given, and what was begun has ended when Copy returns.
func TestFailure(t *testing.T) {
	for i := range 8 {
		src := newMemory(t)
		root := twoImages(src)
		dst := src.target()
		n, broken := 0, errors.New("disk full")
		dst.refuse = func(v1.Descriptor) error {
			if n++; n == i+1 {
				return broken
			}
			return nil
		}
		if err := Copy(context.Background(), src, dst, root, "name", Options{}); !errors.Is(err, broken) {
			t.Errorf("push %d fails: %v", i, err)
		}
		if dst.active != 0 || len(dst.tags) > 0 {
			t.Errorf("push %d fails: %d still active, tags %v", i, dst.active, dst.tags)
		}
	}
}

// mounting is a target that takes blobs over by name.
type mounting struct {
	*memory
	from *memory
}

func (m mounting) MountFrom(_ context.Context, d v1.Descriptor, src content.Fetcher) (bool, error) {
	if src != content.Fetcher(m.from) {
		return false, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[d.Digest] = m.from.blobs[d.Digest]
	return true, nil
}

func TestMount(t *testing.T) {
	src := newMemory(t)
	root := twoImages(src)
	dst := mounting{src.target(), src}
	kinds := map[Kind]int{}
	if err := Copy(context.Background(), src, dst, root, "name", Options{Progress: func(e Event) { kinds[e.Kind]++ }}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(dst.pushed(), " "); got != "a b i" || kinds[Mounted] != 5 || kinds[Planned] != 5 || kinds[Done] != 3 {
		t.Errorf("pushed %s, events %v", got, kinds)
	}
}

// onlySource is a memory that a target cannot take over from.
type onlySource struct{ *memory }

// guessing is a target that takes blobs over from those who have them; the others refuse, one with an error.
type guessing struct {
	*memory
	tries map[content.Fetcher][]string
}

func (g guessing) MountFrom(_ context.Context, d v1.Descriptor, src content.Fetcher) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	from, ok := src.(*memory)
	if !ok { // the source itself
		return false, errors.New("token server: not for two repositories")
	}
	g.tries[src] = append(g.tries[src], g.names[d.Digest])
	if from.blobs[d.Digest] == nil {
		return false, errors.New("token server: no")
	}
	g.blobs[d.Digest] = from.blobs[d.Digest]
	return true, nil
}

// TestMountElsewhere takes over what is elsewhere, asks one place for each blob, and nobody who only refuses.
func TestMountElsewhere(t *testing.T) {
	src := newMemory(t)
	var layers []string
	for i := range 9 {
		layers = append(layers, fmt.Sprint("layer", i))
	}
	root := src.image("a", "amd64", layers...)
	empty, full := newMemory(t), newMemory(t)
	for d, data := range src.blobs {
		full.blobs[d] = data
	}
	dst := guessing{src.target(), map[content.Fetcher][]string{}}
	o := Options{Jobs: 1, Elsewhere: func(v1.Descriptor) []content.Fetcher { return []content.Fetcher{empty, full} }}
	if err := Copy(context.Background(), onlySource{src}, dst, root, "name", o); err != nil {
		t.Fatal(err)
	}
	if len(dst.pushed()) != 2 || len(dst.tries[empty]) != 1 || len(dst.tries[full]) != 9 {
		t.Errorf("pushed %v, tried %v and %v", dst.pushed(), dst.tries[empty], dst.tries[full])
	}
	dst = guessing{src.target(), map[content.Fetcher][]string{}}
	o.Elsewhere = func(v1.Descriptor) []content.Fetcher { return []content.Fetcher{empty} }
	if err := Copy(context.Background(), onlySource{src}, dst, root, "name", o); err != nil {
		t.Fatal(err)
	}
	if len(dst.pushed()) != 11 || len(dst.tries[empty]) != maxRefused {
		t.Errorf("pushed %v, tried %v", dst.pushed(), dst.tries[empty])
	}
}

// TestJobs moves as many side by side as it may, and not more.
func TestJobs(t *testing.T) {
	src := newMemory(t)
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprint("layer", i))
	}
	root := src.image("a", "amd64", names...)
	var together sync.WaitGroup
	together.Add(3)
	var mu sync.Mutex
	waited := 0
	src.read = func(r io.Reader) io.ReadCloser {
		return io.NopCloser(io.MultiReader(r, readerFunc(func([]byte) (int, error) {
			mu.Lock()
			first := waited < 3
			waited++
			mu.Unlock()
			if first {
				together.Done()
				together.Wait()
			}
			return 0, io.EOF
		})))
	}
	waited = 99 // not while the plan is made
	dst := src.target()
	o := Options{Jobs: 3, Progress: func(e Event) {
		if e.Kind == Planned {
			mu.Lock()
			waited = 0
			mu.Unlock()
		}
	}}
	if err := Copy(context.Background(), src, dst, root, "", o); err != nil {
		t.Fatal(err)
	}
	if dst.most != 3 {
		t.Errorf("%d at once, want 3", dst.most)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestReferrersLast copies what refers to an image after the image, also where somebody lies about what refers to what.
func TestReferrersLast(t *testing.T) {
	src := newMemory(t)
	empty := src.add("e", v1.MediaTypeEmptyJSON, []byte("{}"))
	root := src.index("i", src.image("a", "amd64", "l1"), src.image("b", "s390x", "l1"))
	s := src.manifest("s", v1.Manifest{Config: empty, Subject: &root})
	u := src.index("u", src.manifest("v", v1.Manifest{Config: empty}))
	src.subject[s.Digest] = []v1.Descriptor{root, u, s} // of which nothing is true
	src.subject[u.Digest] = []v1.Descriptor{s, u}
	dst := src.target()
	dst.strict = false // the index is sparse
	if err := Copy(context.Background(), src, dst, root, "name", Options{Referrers: true, Platforms: []manifest.Platform{amd64}}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(dst.log, ", "); !strings.HasSuffix(got, "push i, push s, push u, tag i") || !strings.Contains(got, "push v") {
		t.Error(got)
	}
}
