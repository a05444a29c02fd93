package s3

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// faulty lets the nth request from now on fail, before the store has seen it or after.
type faulty struct {
	left  atomic.Int64
	after bool
}

func (f *faulty) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.left.Add(-1) != 0 {
		return http.DefaultTransport.RoundTrip(r)
	}
	if f.after {
		a, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		a.Body.Close()
	} else if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	return &http.Response{StatusCode: http.StatusForbidden, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r, Header: http.Header{"Content-Type": {"application/xml"}},
		Body: io.NopCloser(strings.NewReader("<Error><Code>AccessDenied</Code><Message>injected</Message></Error>"))}, nil
}

// TestEachRequestFails: whichever request to the store fails, before or after it has done its work, what is tried again as a
// client does ends well, a failed push of a tag is seen whole or not at all, and nothing that was promised is lost.
func TestEachRequestFails(t *testing.T) {
	o := options(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), (minPart+1008)/16)
	d := digest.FromBytes(content)
	step := int64(4)
	if os.Getenv("TARE_LONG") != "" {
		step = 1
	}
	for _, after := range []bool{false, true} {
		for n := int64(1); ; n += step {
			o.Prefix = newID()
			f := &faulty{after: after}
			o.Transport = f
			s := open(t, o)
			f.left.Store(n)
			err := pushAll(t, s, content, d)
			if f.left.Load() > 0 {
				if err != nil {
					t.Fatalf("without a fault: %v", err)
				}
				if n < 20 {
					t.Fatalf("only %d requests", n)
				}
				break
			}
			f.left.Store(0)
			if err != nil && !strings.Contains(err.Error(), "injected") && !errors.Is(err, storage.ErrUploadUnknown) && !errors.Is(err, storage.ErrUploadBusy) {
				t.Errorf("request %d, after %v: %v", n, after, err)
			}
			// A tag that is there names a manifest whose blob is there.
			if tag, err := s.GetTag(t.Context(), "a", "t"); err == nil {
				m, err := s.GetManifest(t.Context(), "a", tag)
				if err != nil {
					t.Errorf("request %d, after %v: a tag without its manifest: %v", n, after, err)
				}
				for _, b := range m.Blobs {
					if _, err := s.StatBlob(t.Context(), "a", b); err != nil {
						t.Errorf("request %d, after %v: a manifest without its blob: %v", n, after, err)
					}
				}
			}
			// The lock of the failed try is renewed by nobody: a client's next try comes later.
			if err := s.list(t.Context(), "locks/", "", func(name string) (bool, error) { return true, s.remove(t.Context(), "locks/"+name) }); err != nil {
				t.Fatal(err)
			}
			if err := pushAll(t, s, content, d); err != nil {
				t.Errorf("request %d, after %v: the second try: %v", n, after, err)
			}
			b, err := s.OpenBlob(t.Context(), "a", d)
			if err != nil {
				t.Errorf("request %d, after %v: %v", n, after, err)
				continue
			}
			got, err := io.ReadAll(b.Content)
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("request %d, after %v: %d bytes, %v", n, after, len(got), err)
			}
			b.Content.Close()
		}
	}
}

// pushAll uploads a blob in two chunks, and a manifest with a tag.
func pushAll(t *testing.T, s *Store, content []byte, d digest.Digest) error {
	ctx := t.Context()
	id, err := s.StartUpload(ctx, "a", digest.SHA256)
	if err != nil {
		return err
	}
	half := int64(len(content) - 1000)
	if _, err := s.AppendUpload(ctx, "a", id, 0, bytes.NewReader(content[:half])); err != nil {
		return err
	}
	if _, err := s.CommitUpload(ctx, "a", id, half, bytes.NewReader(content[half:]), d); err != nil {
		return err
	}
	m := storage.Manifest{Raw: []byte("{}"), Blobs: []digest.Digest{d}, Pushed: time.Now()}
	m.Descriptor.Digest = digest.FromBytes(m.Raw)
	return s.PutManifest(ctx, "a", m, storage.PutOptions{Tags: []string{"t", "u"}, RequireBlobs: m.Blobs})
}
