package auth

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

const service = "service=reg%2C+with+comma"

func TestTokenFlow(t *testing.T) { // T1, T2, T6
	f := newFake(t)
	f.password = "secret"
	rt := f.transport(Secret{Username: "alice", Password: "secret"})
	f.wantStatus(rt, "/v2/a/manifests/x", 200, Repository("a", "pull"))
	f.wantLog("GET /v2/a/manifests/x", "GET /v2/a/manifests/x Bearer t1")
	f.wantTokens("GET account=alice&scope=repository%3Aa%3Apull&" + service + " Basic YWxpY2U6c2VjcmV0")

	f.wantStatus(rt, "/v2/a/blobs/y", 200, Repository("a", "pull")) // from the cache, without a 401
	f.wantLog("GET /v2/a/blobs/y Bearer t1")
	f.wantTokens()

	f.wantStatus(rt, "/v2/a/blobs/y", 200, Repository("a", "push", "pull"), Repository("b", "pull")) // a mount
	f.wantLog("GET /v2/a/blobs/y Bearer t2")
	f.wantTokens("GET account=alice&scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Ab%3Apull&" + service + " Basic YWxpY2U6c2VjcmV0")

	f.mu.Lock()
	clear(f.valid) // the registry forgets: refresh on 401
	f.mu.Unlock()
	f.wantStatus(rt, "/v2/a/blobs/y", 200, Repository("a", "pull"))
	f.wantLog("GET /v2/a/blobs/y Bearer t1", "GET /v2/a/blobs/y Bearer t3")
}

func TestAnonymousToken(t *testing.T) { // T2
	f := newFake(t)
	f.wantStatus(f.transport(Secret{}), "/v2/a/manifests/x", 200, Repository("a", "pull"))
	f.wantTokens("GET scope=repository%3Aa%3Apull&" + service)
}

func TestReplay(t *testing.T) {
	f := newFake(t)
	rt := f.transport(Secret{})
	for _, c := range []struct {
		body io.Reader
		want int
	}{{strings.NewReader("x"), 200}, {io.LimitReader(strings.NewReader("x"), 1), 401}} {
		rt.known = Challenge{}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, f.registry.URL+"/v2/", c.body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := rt.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("status %d, want %d", resp.StatusCode, c.want)
		}
	}
}
