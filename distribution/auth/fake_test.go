package auth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a registry and a token server. All requests are recorded.
type fake struct {
	t        *testing.T
	registry *httptest.Server
	auth     *httptest.Server

	mu        sync.Mutex
	log       []string        // "METHOD PATH AUTHORIZATION"
	tokenLog  []string        // "GET QUERY AUTHORIZATION" or "POST FORM"
	valid     map[string]bool // tokens
	n         int
	challenge func(r *http.Request) []string
	token     http.HandlerFunc // in place of the usual answer
	password  string           // of alice; empty: anybody gets a token
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, valid: map[string]bool{}}
	f.registry = httptest.NewServer(http.HandlerFunc(f.serve))
	f.auth = httptest.NewServer(http.HandlerFunc(f.serveToken))
	t.Cleanup(f.registry.Close)
	t.Cleanup(f.auth.Close)
	f.challenge = func(*http.Request) []string {
		return []string{`Bearer realm="` + f.auth.URL + `/token",service="reg, with comma"`}
	}
	return f
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := r.Header.Get("Authorization")
	f.log = append(f.log, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+a))
	if f.valid[a] {
		fmt.Fprint(w, "content")
		return
	}
	for _, c := range f.challenge(r) {
		w.Header().Add("WWW-Authenticate", c)
	}
	w.WriteHeader(http.StatusUnauthorized)
}

func (f *fake) serveToken(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.ParseForm()
	f.tokenLog = append(f.tokenLog, strings.TrimSpace(r.Method+" "+r.Form.Encode()+" "+r.Header.Get("Authorization")))
	if f.token != nil {
		f.token(w, r)
		return
	}
	if u, p, _ := r.BasicAuth(); f.password != "" && (u != "alice" || p != f.password) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"details":"incorrect username or password"}`)
		return
	}
	f.give(w, nil)
}

// give answers with a new token.
func (f *fake) give(w http.ResponseWriter, more map[string]any) {
	f.n++
	t := fmt.Sprintf("t%d", f.n)
	f.valid["Bearer "+t] = true
	doc := map[string]any{"token": t}
	for k, v := range more {
		doc[k] = v
	}
	json.NewEncoder(w).Encode(doc)
}

func (f *fake) wantLog(want ...string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.log, want) {
		f.t.Errorf("the registry saw\n%s\nwant\n%s", strings.Join(f.log, "\n"), strings.Join(want, "\n"))
	}
	f.log = nil
}

func (f *fake) wantTokens(want ...string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.tokenLog, want) {
		f.t.Errorf("the token server saw\n%s\nwant\n%s", strings.Join(f.tokenLog, "\n"), strings.Join(want, "\n"))
	}
	f.tokenLog = nil
}

func originOf(t *testing.T, s string) Origin {
	t.Helper()
	o, err := ParseOrigin(s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func credential(t *testing.T, o Origin, s Secret) Credential {
	t.Helper()
	c, err := NewCredential(o, s, "test")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// transport returns a Transport for the fake registry with a secret.
func (f *fake) transport(s Secret) *Transport {
	f.t.Helper()
	o := originOf(f.t, f.registry.URL)
	var k Keychain
	if s != (Secret{}) {
		k = Static{credential(f.t, o, s)}
	}
	t, err := NewTransport(Config{Origin: o, Base: f.registry.Client().Transport, Keychain: k})
	if err != nil {
		f.t.Fatal(err)
	}
	t.wait = time.Millisecond
	return t
}

// get returns the status of GET path, or the error.
func (f *fake) get(rt http.RoundTripper, path string, scopes ...Scope) (int, error) {
	f.t.Helper()
	r, err := http.NewRequestWithContext(WithScopes(f.t.Context(), scopes...), http.MethodGet, f.registry.URL+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

func (f *fake) wantStatus(rt http.RoundTripper, path string, want int, scopes ...Scope) {
	f.t.Helper()
	if got, err := f.get(rt, path, scopes...); err != nil || got != want {
		f.t.Errorf("GET %s: %d, %v, want %d", path, got, err, want)
	}
}

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
