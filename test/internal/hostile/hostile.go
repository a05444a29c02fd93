// Package hostile is a registry for tests that lies. Below is an honest one, in memory (Store); rules make chosen requests be
// answered otherwise; every request is recorded with its headers, so that a test can say which credentials went where.
package hostile

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Registry is the server. Its methods may be called from several goroutines at once.
type Registry struct {
	*Store
	server *httptest.Server

	mu    sync.Mutex
	rules []*rule
	log   []Request
}

// Request is a request that arrived.
type Request struct {
	Method string
	Path   string
	Query  url.Values
	Header http.Header
	Host   string
	Proto  string // HTTP/1.1 or HTTP/2.0
}

// An Act answers a request. honest is what the registry would have answered.
type Act func(w http.ResponseWriter, r *http.Request, honest http.Handler)

type rule struct {
	match func(*http.Request) bool
	times int
	act   Act
}

// New starts an honest registry on a port of loopback; it ends with the test.
func New(t testing.TB) *Registry {
	r := &Registry{Store: NewStore()}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.close)
	return r
}

// NewTLS is New with TLS, HTTP/2 and a certificate that nobody trusts but the client of Server.
func NewTLS(t testing.TB) *Registry {
	r := &Registry{Store: NewStore()}
	r.server = httptest.NewUnstartedServer(r)
	r.server.EnableHTTP2 = true
	r.server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are what tests want
	r.server.StartTLS()
	t.Cleanup(r.close)
	return r
}

func (r *Registry) close() {
	r.server.CloseClientConnections()
	r.server.Close()
}

// URL is the address of the registry.
func (r *Registry) URL() *url.URL {
	u, err := url.Parse(r.server.URL)
	if err != nil {
		panic(err) // of httptest
	}
	return u
}

// Server is what the registry runs on: for its certificate, and to break connections.
func (r *Registry) Server() *httptest.Server { return r.server }

// On makes act answer the next requests that match, so many times; 0: always. The rule that was added last is asked first.
func (r *Registry) On(match func(*http.Request) bool, times int, act Act) {
	if times == 0 {
		times = -1
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules = slices.Insert(r.rules, 0, &rule{match, times, act})
}

// Is matches requests by method (empty: any) and a part of the path with the query.
func Is(method, part string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		return (method == "" || r.Method == method) && strings.Contains(r.URL.RequestURI(), part)
	}
}

// Number matches the request with this position, from 0, among all that arrive from now on.
func Number(n int) func(*http.Request) bool {
	var mu sync.Mutex
	return func(*http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		n--
		return n == -1
	}
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	r.log = append(r.log, Request{q.Method, q.URL.Path, q.URL.Query(), q.Header.Clone(), q.Host, q.Proto})
	var act Act
	for _, rule := range r.rules {
		if rule.times != 0 && rule.match(q) {
			rule.times--
			act = rule.act
			break
		}
	}
	r.mu.Unlock()
	if act == nil {
		r.Store.ServeHTTP(w, q)
		return
	}
	act(w, q, r.Store)
}

// Log returns the requests that arrived so far.
func (r *Registry) Log() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log)
}

// Credentials returns, one line each, the headers of all requests so far that hold something that proves an identity.
func (r *Registry) Credentials() []string {
	var found []string
	for _, q := range r.Log() {
		for _, name := range []string{"Authorization", "Proxy-Authorization", "Cookie"} {
			for _, value := range q.Header.Values(name) {
				found = append(found, q.Method+" "+q.Path+" "+name+": "+value)
			}
		}
	}
	return found
}

// Count returns how many of the requests so far have this method (empty: any) and this part in their path.
func (r *Registry) Count(method, part string) int {
	n := 0
	for _, q := range r.Log() {
		if (method == "" || q.Method == method) && strings.Contains(q.Path, part) {
			n++
		}
	}
	return n
}

// EachRequest runs run against a new registry, to count its requests, which must succeed; then again and again, each time with
// another one of these requests answered by act. check looks at what came of it, run's error included.
func EachRequest(t *testing.T, prepare func(*Registry), act Act, run func(*Registry) error, check func(r *Registry, n int, err error)) {
	t.Helper()
	start := func() *Registry {
		r := New(t)
		prepare(r)
		return r
	}
	honest := start()
	if err := run(honest); err != nil {
		t.Fatalf("without any fault: %v", err)
	}
	total := len(honest.Log())
	if total == 0 {
		t.Fatal("no request was made")
	}
	for n := range total {
		r := start()
		r.On(Number(n), 0, act)
		check(r, n, run(r))
		r.close()
	}
}
