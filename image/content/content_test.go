package content

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

func TestVerify(t *testing.T) {
	d := v1.Descriptor{Digest: digest.FromString("hello"), Size: 5}
	for _, c := range []struct{ in, want, err string }{
		{"hello", "hello", ""},
		{"hell", "hell", "ends after 4 of 5 bytes"},
		{"hello!", "hello", "goes on after its 5 bytes"},
		{"jello", "jello", "content is sha256:"},
		{"", "", "ends after 0 of 5"},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in)), iotest.DataErrReader(strings.NewReader(c.in))} {
			v, err := Verify(r, d)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(v)
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || string(got) != c.want {
				t.Errorf("%q: read %q, %v, want %q, %q", c.in, got, err, c.want, c.err)
			}
		}
	}
	if _, err := Verify(nil, v1.Descriptor{Digest: "sha256:../x", Size: 1}); err == nil {
		t.Error("a malformed digest is taken")
	}
}

type only []byte

func (o only) Fetch(context.Context, v1.Descriptor, int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(o)), nil
}

func TestReadAll(t *testing.T) {
	d := v1.Descriptor{Digest: digest.FromString("hello"), Size: 5}
	ctx := context.Background()
	if got, err := ReadAll(ctx, only("hello"), d, 5); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := ReadAll(ctx, only("hello"), d, 4); err == nil || !strings.Contains(err.Error(), "the limit is 4") {
		t.Errorf("above the limit: %v", err)
	}
	d.Data = []byte("hello")
	if got, err := ReadAll(ctx, only("nonsense"), d, 5); err != nil || string(got) != "hello" {
		t.Errorf("with embedded data: %q, %v", got, err)
	}
	d.Data = []byte("jello") // a lie is not believed, and not a reason to refuse what is there
	if got, err := ReadAll(ctx, only("hello"), d, 5); err != nil || string(got) != "hello" {
		t.Errorf("with wrong embedded data: %q, %v", got, err)
	}
}
