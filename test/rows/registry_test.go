package rows

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// two adds an index of two images, of which the first is this machine's.
func (l *layout) two() (i v1.Descriptor, images []v1.Descriptor) {
	l.Helper()
	for _, arch := range []string{runtime.GOARCH, "s390x"} {
		d := l.simple("f", arch)
		d.Platform = &v1.Platform{OS: "linux", Architecture: arch}
		images = append(images, d)
	}
	return l.json(v1.MediaTypeImageIndex, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: images}), images
}

// TestRequestsOfPush: K7, K11.
func TestRequestsOfPush(t *testing.T) {
	l, r, x := newLayout(t), newRegistry(t), newTare(t)
	i, images := l.two()
	l.entry(i, "x")
	x.do("copy", l.ref("x"), "docker://"+r.addr+"/a:1")
	log := r.seen()
	manifest := func(ref string) func(request) bool {
		return func(q request) bool {
			return q.method == http.MethodPut && (strings.HasSuffix(q.path, "/manifests/"+ref) || slices.Contains(q.query["tag"], ref))
		}
	}
	first := index(t, "manifest", log, func(q request) bool { return q.method == http.MethodPut && strings.Contains(q.path, "/manifests/") })
	for at, q := range log {
		if strings.Contains(q.path, "/blobs/") && q.method != http.MethodHead && at > first && q.query.Get("digest") != "" {
			before := slices.ContainsFunc(images, func(d v1.Descriptor) bool { return manifest(d.Digest.String())(log[first]) })
			if !before {
				t.Errorf("a blob came after the manifest %s", log[first].path)
			}
		}
	}
	tag := index(t, "tag", log, manifest("1"))
	for _, d := range images {
		at := index(t, d.Digest.String(), log, manifest(d.Digest.String()))
		if at > tag || log[at].header.Get("Content-Type") != d.MediaType {
			t.Errorf("%s was pushed as request %d, the tag as %d, with Content-Type %q", d.Digest, at, tag, log[at].header.Get("Content-Type"))
		}
	}
	if got := log[tag].header.Get("Content-Type"); got != i.MediaType {
		t.Errorf("the index was pushed with Content-Type %q", got)
	}
	if last := slices.IndexFunc(log[tag+1:], func(q request) bool { return q.method == http.MethodPut || q.method == http.MethodPatch }); last >= 0 {
		t.Errorf("after the tag came %s %s", log[tag+1+last].method, log[tag+1+last].path)
	}
}

// TestRequestsOfPull: K1, K4, K20.
func TestRequestsOfPull(t *testing.T) {
	l, r, x := newLayout(t), newRegistry(t), newTare(t)
	i, images := l.two()
	l.entry(i, "x")
	x.do("copy", l.ref("x"), "docker://"+r.addr+"/a:1")
	r.seen()
	x.do("pull", r.addr+"/a:1")
	counts := map[string]int{}
	for _, q := range r.seen() {
		if strings.Contains(q.path, "/manifests/") || strings.Contains(q.path, "/blobs/") {
			counts[q.method+" "+q.path]++
		}
		if !strings.HasPrefix(q.header.Get("User-Agent"), "tare") {
			t.Errorf("User-Agent %q", q.header.Get("User-Agent"))
		}
		if !strings.HasSuffix(q.path, "/manifests/1") {
			continue
		}
		accept := strings.Join(q.header.Values("Accept"), ",")
		for _, kind := range []string{v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.list.v2+json",
			"application/vnd.docker.distribution.manifest.v2+json"} {
			if !strings.Contains(accept, kind) {
				t.Errorf("%s %s: Accept %s lacks %s", q.method, q.path, accept, kind)
			}
		}
	}
	want := []string{"HEAD /v2/a/manifests/1", "GET /v2/a/manifests/" + i.Digest.String(), "GET /v2/a/manifests/" + images[0].Digest.String()}
	for _, q := range want {
		if counts[q] != 1 {
			t.Errorf("%s was asked %d times: %v", q, counts[q], counts)
		}
	}
	if len(counts) != 5 { // and config and layer
		t.Errorf("requests %v", counts)
	}
	for q, n := range counts {
		if n != 1 {
			t.Errorf("%s was asked %d times", q, n)
		}
	}
	x.do("pull", r.addr+"/a:1")
	if log := r.seen(); slices.ContainsFunc(log, func(q request) bool { return q.method != http.MethodHead && q.path != "/v2/" }) {
		t.Errorf("the second pull asked for %v", log)
	}
}

// TestSubjectOfIndex: M4, an index refers to a manifest that is not there yet, and is found once it is.
func TestSubjectOfIndex(t *testing.T) {
	l, r, x := newLayout(t), newRegistry(t), newTare(t)
	subject := l.simple("f", "subject")
	l.entry(subject, "s")
	refers := newLayout(t)
	i := refers.json(v1.MediaTypeImageIndex, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex,
		ArtifactType: "application/x.index", Manifests: []v1.Descriptor{}, Subject: &subject, Annotations: map[string]string{"k": ""}})
	refers.entry(i, "i")
	x.do("copy", refers.ref("i"), "docker://"+r.addr+"/a:i")
	x.do("copy", l.ref("s"), "docker://"+r.addr+"/a:s")
	_, _, body := r.get("a/referrers/" + subject.Digest.String())
	var list v1.Index
	if err := json.Unmarshal(body, &list); err != nil || len(list.Manifests) != 1 || list.Manifests[0].Digest != i.Digest ||
		list.Manifests[0].ArtifactType != "application/x.index" || list.Manifests[0].MediaType != v1.MediaTypeImageIndex {
		t.Errorf("referrers %s, %v", body, err)
	} else if v, ok := list.Manifests[0].Annotations["k"]; !ok || v != "" {
		t.Errorf("annotations %v", list.Manifests[0].Annotations)
	}
	to := &layout{t, t.TempDir(), digest.SHA256}
	x.do("copy", "--referrers", "docker://"+r.addr+"/a:s", to.ref("s"))
	if len(to.has(i.Digest)) == 0 {
		t.Error("the index was not copied with its subject")
	}
}

// TestLargestManifest: M7, a manifest of 4 MiB goes everywhere, a larger one nowhere.
func TestLargestManifest(t *testing.T) {
	const limit = 4 << 20
	l, r, x := newLayout(t), newRegistry(t), newTare(t)
	layer := tarOf(t, "f", "large")
	c, b := l.json(v1.MediaTypeImageConfig, config(digest.FromBytes(layer))), l.blob(v1.MediaTypeImageLayer, layer)
	head := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s],"annotations":{"pad":"`, v1.MediaTypeImageManifest, encode(t, c), encode(t, b))
	for _, size := range []int{limit, limit + 1} {
		d := l.blob(v1.MediaTypeImageManifest, []byte(head+strings.Repeat("x", size-len(head)-3)+`"}}`))
		l.entry(d, "x")
		if d.Size != int64(size) {
			t.Fatalf("%d bytes, want %d", d.Size, size)
		}
		if size > limit {
			x.refused("the limit is 4194304", "copy", l.ref("x"), "docker://"+r.addr+"/a:2")
			continue
		}
		x.do("copy", l.ref("x"), "docker://"+r.addr+"/a:1")
		x.do("pull", r.addr+"/a:1")
		if got := x.do("inspect", "--raw", r.addr+"/a:1"); digest.FromString(got) != d.Digest {
			t.Errorf("%d bytes came back", len(got))
		}
	}
}

// TestNonDistributable: ND1, the layer stays here, and the manifest names it as before.
func TestNonDistributable(t *testing.T) {
	l, r, x := newLayout(t), newRegistry(t), newTare(t)
	layer := tarOf(t, "f", "licensed")
	b := l.blob("application/vnd.oci.image.layer.nondistributable.v1.tar", layer)
	b.URLs = []string{"https://licensor.example/layer"}
	d := l.manifest(l.json(v1.MediaTypeImageConfig, config(digest.FromBytes(layer))), b)
	l.entry(d, "x")
	for _, c := range []struct {
		options []string
		status  int
	}{{nil, 404}, {[]string{"--allow-nondistributable-artifacts"}, 200}} {
		repo := fmt.Sprint("a", c.status)
		x.do(append(append([]string{"copy"}, c.options...), l.ref("x"), "docker://"+r.addr+"/"+repo+":1")...)
		if status, _, _ := r.get(repo + "/blobs/" + b.Digest.String()); status != c.status {
			t.Errorf("%v: the layer is %d there, want %d", c.options, status, c.status)
		}
		if _, _, body := r.get(repo + "/manifests/1"); digest.FromBytes(body) != d.Digest {
			t.Errorf("%v: the manifest became %s", c.options, body)
		}
	}
}

// TestExtensions: end-ext, what is not there is said in the form of the specification.
func TestExtensions(t *testing.T) {
	r := newRegistry(t)
	for _, path := range []string{"_oci/ext/discover", "a/_oci/ext/discover", "_x/y"} {
		status, _, body := r.get(path)
		var errs struct{ Errors []struct{ Code string } }
		if err := json.Unmarshal(body, &errs); err != nil || status != 404 && status != 400 || len(errs.Errors) != 1 {
			t.Errorf("%s: %d %s, %v", path, status, body, err)
		}
	}
}
