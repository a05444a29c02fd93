package hostile_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/client"
	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/test/internal/hostile"
)

func tags(t *testing.T, repo *client.Repository, last string) ([]string, error) {
	t.Helper()
	var got []string
	err := repo.Tags(t.Context(), last, func(tag string) error { got = append(got, tag); return nil })
	return got, err
}

// TestPages: K15.
func TestPages(t *testing.T) {
	r := hostile.New(t)
	var all []string
	for i := range 2345 {
		all = append(all, fmt.Sprintf("t%05d", i))
		r.AddManifest("a/b", all[i], v1.MediaTypeImageManifest, []byte("{}"))
	}
	whole := func(w http.ResponseWriter, q *http.Request, _ http.Handler) { // knows neither n nor last
		json.NewEncoder(w).Encode(map[string]any{"tags": all[:1000]})
	}
	noLink := func(w http.ResponseWriter, q *http.Request, honest http.Handler) {
		hostile.Header("Link", "")(w, q, honest)
	}
	for _, c := range []struct {
		name string
		act  hostile.Act
		last string
		want []string
		err  string
	}{
		{"with Link", hostile.Header(), "", all, ""},
		{"from the middle", hostile.Header(), all[1999], all[2000:], ""},
		{"without Link", noLink, "", all, ""},
		{"no pages at all", whole, "", all[:1000], ""},
		{"a page of 1000 is too large", func(w http.ResponseWriter, q *http.Request, honest http.Handler) {
			if q.URL.Query().Get("n") == "1000" {
				hostile.Status(http.StatusBadRequest)(w, q, honest)
				return
			}
			honest.ServeHTTP(w, q)
		}, "", all, ""},
		{"null", hostile.Body([]byte(`{"name":"a/b","tags":null}`), "Link", ""), "", nil, ""},
		{"no list", hostile.Body([]byte(`{}`), "Link", ""), "", nil, ""},
		{"not JSON", hostile.Body([]byte(`<html>`), "Link", ""), "", nil, "decode JSON"},
		{"next is elsewhere", hostile.Header("Link", `<http://127.0.0.1:1/v2/a/b/tags/list>; rel="next"`), "", nil, "is not on"},
		{"next is itself", hostile.Header("Link", `</v2/a/b/tags/list?n=1000>; rel="next"`), "", nil, "names itself"},
		{"next is malformed", hostile.Header("Link", `<http://[>; rel="next"`), "", nil, "malformed"},
		{"endless", hostile.Endless(`{"tags":["a"`, `,"a"`), "", nil, "limit of 8388608 bytes"},
		{"unknown", hostile.Status(http.StatusNotFound), "", nil, "404"},
	} {
		r.On(hostile.Is("", "/tags/list"), 0, c.act)
		got, err := tags(t, open(t, r.URL()), c.last)
		if c.err != "" {
			has(t, c.name, err, c.err)
		} else if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %d tags, want %d, %v", c.name, len(got), len(c.want), err)
		}
	}
	n := 0
	r.On(hostile.Is("", "/tags/list"), 0, func(w http.ResponseWriter, q *http.Request, _ http.Handler) {
		n++
		w.Header().Set("Link", protocol.FormatNext(fmt.Sprintf("%s?page=%d", q.URL.Path, n)))
		fmt.Fprintf(w, `{"tags":["t%d"]}`, n)
	})
	_, err := tags(t, open(t, r.URL(), limits(client.Limits{Pages: 7})), "")
	has(t, "pages", err, "limit of 7 pages")
	_, err = tags(t, open(t, r.URL(), limits(client.Limits{Entries: 5})), "")
	has(t, "entries", err, "limit of 5 entries")
}

// referrer returns a manifest that refers to subject.
func referrer(artifactType string, subject v1.Descriptor) (v1.Descriptor, []byte) {
	raw, _ := image(fmt.Sprintf(`,"artifactType":%q,"subject":{"mediaType":%q,"digest":%q,"size":%d},"annotations":{"a":"b"}`,
		artifactType, subject.MediaType, subject.Digest, subject.Size))
	return describe(v1.MediaTypeImageManifest, raw), raw
}

// TestReferrersTag: K12 K13 K14 RG11.
func TestReferrersTag(t *testing.T) {
	ctx := t.Context()
	for _, old := range []bool{false, true} {
		r := hostile.New(t)
		r.NoReferrers = old
		repo := open(t, r.URL())
		subject := describe(v1.MediaTypeImageManifest, []byte("not there"))
		tag := "a/b:" + protocol.ReferrersTag(subject.Digest)
		var all []v1.Descriptor
		for _, typ := range []string{"x/a", "x/b", "x/a"} {
			d, raw := referrer(typ, subject)
			if err := repo.PushManifest(ctx, d, raw); err != nil {
				t.Fatal(err)
			}
			all = append(all, d)
		}
		if slices.Contains(r.Visible(), tag) != old {
			t.Errorf("old %v: %v", old, r.Visible())
		}
		for typ, want := range map[string]int{"": 2, "x/a": 1, "x/b": 1, "x/c": 0} {
			got, err := repo.Referrers(ctx, subject, typ)
			if err != nil || len(got) != want || want == 1 && (got[0].ArtifactType != typ || got[0].Annotations["a"] != "b") {
				t.Errorf("old %v: type %q: %v, %v", old, typ, got, err)
			}
		}
		if err := repo.DeleteManifest(ctx, all[0]); err != nil {
			t.Error(err)
		}
		if got, err := repo.Referrers(ctx, subject, ""); err != nil || len(got) != 1 || got[0].Digest != all[1].Digest {
			t.Errorf("old %v: after a delete %v, %v", old, got, err)
		}
	}
}

// TestReferrersRace lets many push at once to a registry that knows no transactions, and another client overwrite what they
// wrote: none is lost.
func TestReferrersRace(t *testing.T) {
	r := hostile.New(t)
	r.NoReferrers = true
	subject := describe(v1.MediaTypeImageManifest, []byte("not there"))
	tag := protocol.ReferrersTag(subject.Digest)
	r.On(hostile.Is("PUT", tag), 2, func(w http.ResponseWriter, q *http.Request, honest http.Handler) {
		honest.ServeHTTP(w, q)
		r.AddManifest("a/b", tag, v1.MediaTypeImageIndex, fmt.Appendf(nil, `{"schemaVersion":2,"x":1,"mediaType":%q,"manifests":[]}`, v1.MediaTypeImageIndex))
	})
	repo := open(t, r.URL())
	var wg sync.WaitGroup
	const n = 4
	for i := range n {
		wg.Go(func() {
			d, raw := referrer(fmt.Sprintf("x/%d", i), subject)
			if err := repo.PushManifest(t.Context(), d, raw); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := repo.Referrers(t.Context(), subject, ""); err != nil || len(got) != n {
		t.Errorf("%d referrers, %v", len(got), err)
	}
	if _, raw, err := repo.Manifest(t.Context(), tag); err != nil || !strings.Contains(string(raw), `"x":1`) {
		t.Errorf("what is unknown is lost: %s, %v", raw, err)
	}
	r.On(hostile.Is("PUT", tag), 0, func(w http.ResponseWriter, q *http.Request, honest http.Handler) {
		honest.ServeHTTP(httptest.NewRecorder(), q)
		r.AddManifest("a/b", tag, v1.MediaTypeImageIndex, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[]}`, v1.MediaTypeImageIndex))
		w.WriteHeader(http.StatusCreated)
	})
	d, raw := referrer("x/never", subject)
	has(t, "for ever", repo.PushManifest(t.Context(), d, raw), "again and again")
}

// TestReferrersTagTaken: what is under the tag is something else: a push says so, a list is empty.
func TestReferrersTagTaken(t *testing.T) {
	r := hostile.New(t)
	r.NoReferrers = true
	subject := describe(v1.MediaTypeImageManifest, []byte("not there"))
	mine, _ := image("")
	r.AddManifest("a/b", protocol.ReferrersTag(subject.Digest), v1.MediaTypeImageManifest, mine)
	repo := open(t, r.URL())
	if got, err := repo.Referrers(t.Context(), subject, ""); err != nil || len(got) != 0 {
		t.Errorf("list: %v, %v", got, err)
	}
	d, raw := referrer("x/a", subject)
	has(t, "push", repo.PushManifest(t.Context(), d, raw), "not an index")
	if _, got, err := repo.Manifest(t.Context(), protocol.ReferrersTag(subject.Digest)); err != nil || string(got) != string(mine) {
		t.Errorf("it was overwritten: %q, %v", got, err)
	}
}

// TestTagsInQuery: end-7b, and registries that do not know it.
func TestTagsInQuery(t *testing.T) {
	raw, _ := image("")
	d := describe(v1.MediaTypeImageManifest, raw)
	for known, puts := range map[bool]int{true: 1, false: 4} {
		r := hostile.New(t)
		r.TagQuery = known
		if err := open(t, r.URL()).PushManifest(t.Context(), d, raw, "a", "b", "c"); err != nil {
			t.Error(err)
		}
		if got, err := tags(t, open(t, r.URL()), ""); err != nil || strings.Join(got, " ") != "a b c" || r.Count("PUT", "") != puts {
			t.Errorf("known %v: %v, %v, %d requests", known, got, err, r.Count("PUT", ""))
		}
	}
}

// TestMount: K10.
func TestMount(t *testing.T) {
	r := hostile.New(t)
	d := r.AddBlob("other/name", []byte("blob"))
	repo := open(t, r.URL())
	for _, c := range []struct {
		name string
		act  hostile.Act
		want bool
		err  string
	}{
		{"refused", hostile.Status(http.StatusForbidden), false, ""},
		{"unknown", hostile.Status(http.StatusNotFound), false, ""},
		{"an upload instead", func(w http.ResponseWriter, q *http.Request, honest http.Handler) {
			q.URL.RawQuery = ""
			honest.ServeHTTP(w, q)
		}, false, ""},
		{"another one", hostile.Header("Docker-Content-Digest", describe("", []byte("x")).Digest.String()), false, "has mounted"},
		{"mounted", hostile.Header(), true, ""},
	} {
		r.On(hostile.Is("POST", "mount="), 1, c.act)
		got, err := repo.Mount(t.Context(), d, "other/name")
		if c.err != "" {
			has(t, c.name, err, c.err)
		} else if got != c.want || err != nil {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
		if n := r.Uploads(); n > 0 {
			t.Errorf("%s: %d uploads are left", c.name, n)
		}
	}
}

// TestDelete looks at deletes whose answer is lost, and at registries that delete nothing.
func TestDelete(t *testing.T) {
	r := hostile.New(t)
	repo := open(t, r.URL())
	d := r.AddBlob("a/b", []byte("blob"))
	r.On(hostile.Is("DELETE", ""), 1, hostile.Drop(true))
	if err := repo.DeleteBlob(t.Context(), d.Digest); err != nil {
		t.Error(err)
	}
	if err := repo.DeleteBlob(t.Context(), d.Digest); !errors.Is(err, content.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	r.On(hostile.Is("DELETE", ""), 1, hostile.Status(http.StatusMethodNotAllowed))
	has(t, "405", repo.DeleteTag(t.Context(), "x"), "deletes nothing")
}
