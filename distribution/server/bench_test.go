package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage/directory"
)

// sink is a response that goes nowhere.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(int)             {}

// BenchmarkGetManifest is the handler's part of a GET of a manifest that is in memory.
func BenchmarkGetManifest(b *testing.B) {
	dir, err := directory.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	x := New(Options{Storage: dir})
	w := httptest.NewRecorder()
	r := httptest.NewRequest("PUT", "/v2/a/manifests/latest", strings.NewReader(imageOf("")))
	r.Header.Set("Content-Type", image)
	if x.ServeHTTP(w, r); w.Code != 201 {
		b.Fatal(w.Body)
	}
	for name, ref := range map[string]string{"digest": w.Header().Get(protocol.HeaderContentDigest), "tag": "latest"} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/v2/a/manifests/"+ref, nil)
			w := &sink{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				x.ServeHTTP(w, r)
			}
		})
	}
}
