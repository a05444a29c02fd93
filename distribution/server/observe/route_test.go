package observe

import (
	"testing"

	"github.com/tare-oci/tare/distribution/protocol"
)

// TestRoutes: what package protocol takes for an endpoint is counted as that one.
func TestRoutes(t *testing.T) {
	for _, path := range []string{"/v2", "/v2/", "/v2/_catalog", "/v2/a/blobs/sha256:x", "/v2/a/b/manifests/v1", "/v2/blobs/manifests/blobs/uploads", "/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/id",
		"/v2/a/tags/list", "/v2/a/referrers/sha256:x", "/v2/tags/list/tags/list", "/v2/a/manifests/manifests/tags"} {
		p, err := protocol.ParsePath(path)
		if got := routeOf(path); err != nil || got != route(p.Kind) {
			t.Errorf("%s is counted as %s, and is %v, %v", path, names[got], p.Kind, err)
		}
	}
	for path, want := range map[string]route{"": routeOther, "/": routePages, "/r/a": routePages, "/token": routeToken, "/v2x": routeOther, "/v2/a/tags/other": routeOther, "/v2/a/manifests/": routeOther} {
		if got := routeOf(path); got != want {
			t.Errorf("%q is counted as %s", path, names[got])
		}
	}
}
