package proxy

import (
	"net/http"
	"strings"

	"github.com/tare-oci/tare/distribution/protocol"
)

// Wrap returns a handler that takes ns=HOST from requests, by which clients say which registry they mean (distribution-spec,
// "Registry Proxying"), and asks next for the repository by its whole name here. What is below is no longer told of ns: next
// page and permission are of the repository with its whole name.
func (s *Store) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := protocol.ParsePath(r.URL.Path)
		q := r.URL.Query()
		ns := q.Get(protocol.QueryNamespace)
		if err != nil || p.Name == "" || ns == "" {
			next.ServeHTTP(w, r)
			return
		}
		u := *r.URL
		q.Del(protocol.QueryNamespace)
		u.RawQuery = q.Encode()
		if !s.knows(ns) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write(protocol.Errors{{Code: protocol.CodeNameUnknown, Message: "this registry is no proxy of that one"}}.Encode())
			return
		}
		if len(s.upstreams) > 1 || s.upstreams[0].Namespace != "" {
			u.Path = "/v2/" + ns + strings.TrimPrefix(u.Path, "/v2")
			u.RawPath = ""
		}
		w.Header().Set(protocol.HeaderNamespace, ns)
		inner := r.Clone(r.Context())
		inner.URL, inner.RequestURI = &u, u.RequestURI()
		next.ServeHTTP(w, inner)
	})
}

// knows reports whether a namespace is that of an upstream: by its name, or of the only one by its host.
func (s *Store) knows(ns string) bool {
	for _, u := range s.upstreams {
		if u.Namespace == ns || u.Namespace == "" && (u.base.Host == ns || ns == "docker.io" && u.base.Host == "registry-1.docker.io") {
			return true
		}
	}
	return false
}
