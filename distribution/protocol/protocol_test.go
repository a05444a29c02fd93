package protocol

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/reference"
)

var a64 = strings.Repeat("a", 64)

func TestParsePath(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Path
	}{
		{"/v2/", Path{Kind: Base}},
		{"/v2", Path{Kind: Base}},
		{"/v2/_catalog", Path{Kind: Catalog}},
		{BlobPath("a/b", digest.Digest("sha256:"+a64)), Path{Blob, "a/b", "sha256:" + a64}},
		{ManifestPath("a", "latest"), Path{Manifest, "a", "latest"}},
		{ManifestPath("a", "..%2f"), Path{Manifest, "a", "..%2f"}},
		{UploadsPath("a"), Path{Uploads, "a", ""}},
		{"/v2/a/blobs/uploads", Path{Uploads, "a", ""}},
		{UploadPath("a", "x"), Path{Upload, "a", "x"}},
		{TagsPath("a/tags/list"), Path{Tags, "a/tags/list", ""}},
		{ReferrersPath("a", "x"), Path{Referrers, "a", "x"}},
		{"/v2/a/blobs/uploads/manifests/x", Path{Manifest, "a/blobs/uploads", "x"}},
		{"/v2/manifests/blobs/uploads/", Path{Uploads, "manifests", ""}},
	} {
		got, err := ParsePath(c.in)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v %v, want %+v", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{"", "/", "/v1/", "/v2/x", "/v2/a/blobs/", "/v2/a/manifests/", "/v2/a/nothing/x", "/v3/a/tags/list",
		"/v2/manifests/latest"} {
		if _, err := ParsePath(in); !errors.Is(err, ErrNotAPI) {
			t.Errorf("%s: error %v, want ErrNotAPI", in, err)
		}
	}
	for _, in := range []string{"/v2/A/tags/list", "/v2/../tags/list", "/v2/a//b/tags/list", "/v2//manifests/x", "/v2/a:b/manifests/x",
		"/v2/a@b/manifests/x", "/v2/" + strings.Repeat("a", 252) + "/tags/list", "/v2/a/_x/manifests/x", "/v2/a\x00/manifests/x"} {
		if _, err := ParsePath(in); err == nil || !strings.Contains(err.Error(), "repository name") {
			t.Errorf("%s: error %v, want the name refused", in, err)
		}
	}
}

func TestParseRange(t *testing.T) {
	for _, c := range []struct {
		in   string
		size int64
		want Range
	}{
		{"bytes=0-0", 10, Range{0, 0}}, {"bytes=3-", 10, Range{3, 9}}, {"bytes=-3", 10, Range{7, 9}}, {"bytes=-30", 10, Range{0, 9}},
		{"bytes=2-100", 10, Range{2, 9}}, {"Bytes=2-3", 10, Range{2, 3}}, {FormatRange(4), 10, Range{4, 9}},
	} {
		if got, err := ParseRange(c.in, c.size); err != nil || got != c.want {
			t.Errorf("%s of %d: %v %v, want %v", c.in, c.size, got, err, c.want)
		}
	}
	for in, want := range map[string]error{
		"bytes=10-": ErrUnsatisfiable, "bytes=10-11": ErrUnsatisfiable, "bytes=-0": ErrUnsatisfiable,
		"bytes=0-1,3-4": ErrManyRanges, "lines=1-2": ErrManyRanges,
	} {
		if _, err := ParseRange(in, 10); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", in, err, want)
		}
	}
	for _, in := range []string{"", "bytes", "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "bytes=+1-2", "bytes=1--2", "bytes=1-2-3",
		"bytes=9223372036854775807-", "bytes=0-99999999999999999999"} {
		if _, err := ParseRange(in, 10); err == nil || errors.Is(err, ErrManyRanges) || errors.Is(err, ErrUnsatisfiable) {
			t.Errorf("%s: %v, want malformed", in, err)
		}
	}
	if _, err := ParseRange("bytes=-5", 0); !errors.Is(err, ErrUnsatisfiable) {
		t.Errorf("suffix of nothing: %v", err)
	}
}

func TestParseContentRange(t *testing.T) {
	if r, size, err := ParseContentRange(FormatContentRange(Range{2, 5}, 9)); r != (Range{2, 5}) || size != 9 || err != nil {
		t.Error(r, size, err)
	}
	if r, size, err := ParseContentRange("bytes 2-5/*"); r != (Range{2, 5}) || size != -1 || err != nil {
		t.Error(r, size, err)
	}
	if _, size, err := ParseContentRange(FormatUnsatisfied(7)); size != 7 || !errors.Is(err, ErrUnsatisfiable) {
		t.Error(size, err)
	}
	for _, in := range []string{"", "2-5", "bytes 2-5", "bytes 5-2/9", "bytes 2-9/9", "bytes */*", "bytes -5/9", "lines 1-2/3", "bytes=2-5/9"} {
		if _, _, err := ParseContentRange(in); err == nil || errors.Is(err, ErrUnsatisfiable) {
			t.Errorf("%q: %v, want malformed", in, err)
		}
	}
}

func TestParseUploadRange(t *testing.T) {
	if r, err := ParseUploadRange("4-9"); r != (Range{4, 9}) || err != nil || r.Length() != 6 || r.String() != "4-9" {
		t.Error(r, err)
	}
	for _, in := range []string{"", "-", "1", "1-", "-1", "9-4", "bytes 1-2", "bytes=1-2", "1-2/3", " 1-2", "1-2-3", "1-9223372036854775807"} {
		if _, err := ParseUploadRange(in); err == nil {
			t.Errorf("%q passed", in)
		}
	}
	for received, want := range map[int64]string{0: "0-0", 1: "0-0", 9: "0-8"} {
		if got := FormatUploadRange(received); got != want {
			t.Errorf("%d received: %s, want %s", received, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	doc := Errors{{Code: CodeNameUnknown, Message: `a "b"`, Detail: []byte(`{"x":1}`)}, {Code: CodeDenied, Detail: []byte("{")}}
	want := `{"errors":[{"code":"NAME_UNKNOWN","message":"a \"b\"","detail":{"x":1}},{"code":"DENIED"}]}`
	if got := string(doc.Encode()); got != want {
		t.Errorf("encoded %s\n   want %s", got, want)
	}
	back := DecodeErrors([]byte(want))
	if !back.Has(CodeNameUnknown) || !back.Has(CodeDenied) || back.Has(CodeUnsupported) || back.Error() != `NAME_UNKNOWN: a "b"; DENIED` {
		t.Errorf("decoded %q", back)
	}
	for _, in := range []string{"", "<html>", "[]", "{}", `{"errors":null}`, `{"errors":[{}]}`, strings.Repeat(" ", MaxErrorBody) + want} {
		if got := DecodeErrors([]byte(in)); got != nil {
			t.Errorf("%.20q: %v", in, got)
		}
	}
	if got := DecodeErrors([]byte(`{"errors":[{"code":"X","message":"\u001b[31mred\n"}]}`)); got.Error() != "X: [31mred" {
		t.Errorf("escape: %q", got)
	}
	many := `{"errors":[` + strings.Repeat(`{"code":"X"},`, 100) + `{"code":"Y","message":1}]}`
	if got := DecodeErrors([]byte(many)); len(got) != MaxErrors {
		t.Errorf("%d errors kept", len(got))
	}
}

func TestNext(t *testing.T) {
	for in, want := range map[string]string{
		FormatNext("/v2/a/tags/list?n=2&last=b"):           "/v2/a/tags/list?n=2&last=b",
		`</a>; rel=next`:                                   "/a",
		`</p>; rel="prev", </n>; title="x, \"y"; rel=NEXT`: "/n",
		`</a>; rel="last next"`:                            "/a",
		`</a>`:                                             "",
		`</a>; rel="nextish"`:                              "",
		`/a; rel="next"`:                                   "",
		`</a; rel="next"`:                                  "",
		`</a>; rel="next`:                                  "",
		`<>; rel="next"`:                                   "",
		`</a>; rel="next"` + strings.Repeat(" ", MaxHeaderText): "",
	} {
		if got := ParseNext(http.Header{HeaderLink: {in}}); got != want {
			t.Errorf("%.60s: %q, want %q", in, got, want)
		}
	}
	if got := ParseNext(http.Header{HeaderLink: {"rubbish", FormatNext("x")}}); got != "x" {
		t.Errorf("second header: %q", got)
	}
}

func TestReferrersTag(t *testing.T) {
	for in, want := range map[digest.Digest]string{
		digest.Digest("sha256:" + a64):       "sha256-" + a64,
		digest.Digest("sha512:" + a64 + a64): "sha512-" + a64,
		"test+algorithm+using+algorithm+separators+and+lots+of+characters+to+excercise+overall+truncation:alsoSome=InTheEncodedSectionToShowHyphenReplacementAndLotsAndLotsOfCharactersToExcerciseEncodedTruncation": "test-algorithm-using-algorithm-s-alsoSome-InTheEncodedSectionToShowHyphenReplacementAndLotsAndLot",
	} {
		if got := ReferrersTag(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	h := http.Header{HeaderWarning: {FormatWarning(`say "a\b"`), FormatWarning(`say "a\b"`), `299 - "x" "Sat, 25 Aug 2012 23:34:45 GMT"`,
		`110 - "stale"`, `299 - "two` + "\x1b" + `[0m"`, `299 - "`}}
	if got, want := ParseWarnings(h), []string{`say "a\b"`, "two [0m"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := ParseWarnings(http.Header{HeaderWarning: {FormatWarning(strings.Repeat("x", 2000)), FormatWarning(strings.Repeat("y", 2030)), FormatWarning(strings.Repeat("z", 100))}}); len(got) != 2 {
		t.Errorf("%d warnings of more than the limit", len(got))
	}
}

func TestMediaType(t *testing.T) {
	if got := MediaType("application/json ; charset=utf-8"); got != "application/json" {
		t.Error(got)
	}
	if got := WithQuery("/x?a=1", "digest", "sha256:b"); got != "/x?a=1&digest=sha256%3Ab" {
		t.Error(got)
	}
	if got := WithQuery("/x", "digest", "sha256:b"); got != "/x?digest=sha256%3Ab" {
		t.Error(got)
	}
}

func FuzzParseRange(f *testing.F) {
	f.Add("bytes=0-4", int64(10))
	f.Add("bytes=-4", int64(0))
	f.Fuzz(func(t *testing.T, s string, size int64) {
		r, err := ParseRange(s, max(size, 0))
		if err == nil && (r.First < 0 || r.Last < r.First || r.Last >= size || r.Length() <= 0) {
			t.Errorf("%q of %d: %v", s, size, r)
		}
	})
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("bytes 0-4/10")
	f.Add("bytes */10")
	f.Add("0-4")
	f.Fuzz(func(t *testing.T, s string) {
		if r, size, err := ParseContentRange(s); err == nil && (r.Length() <= 0 || size >= 0 && r.Last >= size) {
			t.Errorf("%q: %v of %d", s, r, size)
		}
		if r, err := ParseUploadRange(s); err == nil && (r.First < 0 || r.Length() <= 0) {
			t.Errorf("%q: %v", s, r)
		}
	})
}

func FuzzHeaders(f *testing.F) {
	f.Add(`</a>; rel="next"`)
	f.Add(`299 - "x\"y"`)
	f.Fuzz(func(t *testing.T, s string) {
		if next := ParseNext(http.Header{HeaderLink: {s}}); strings.Contains(next, ">") {
			t.Errorf("%q: next %q", s, next)
		}
		for _, w := range ParseWarnings(http.Header{HeaderWarning: {s}}) {
			if strings.ContainsAny(w, "\x1b\n\r") {
				t.Errorf("%q: warning %q", s, w)
			}
		}
		if got := ParseWarnings(http.Header{HeaderWarning: {FormatWarning(s)}}); len(got) > 1 {
			t.Errorf("%q: %q", s, got)
		}
	})
}

func FuzzParsePath(f *testing.F) {
	f.Add("/v2/a/b/blobs/uploads/x")
	f.Add("a-b/c.d/e_f")
	f.Fuzz(func(t *testing.T, s string) {
		if plainName(s) && len(s) <= maxName {
			if _, err := reference.ParseName("r.x/" + s); err != nil {
				t.Errorf("%q is plain: %v", s, err)
			}
		}
		p, err := ParsePath(s)
		if err == nil && (strings.Contains(p.Name, "..") || strings.Contains(p.UnsafeReference, "/")) {
			t.Errorf("%q: %+v", s, p)
		}
	})
}

func FuzzDecodeErrors(f *testing.F) {
	f.Add([]byte(`{"errors":[{"code":"X","message":"y","detail":[]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if errs := DecodeErrors(b); len(errs) > MaxErrors || strings.ContainsAny(errs.Error(), "\x1b\n") {
			t.Errorf("%q: %q", b, errs)
		}
	})
}
