package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Config says for whom a Transport speaks.
type Config struct {
	Origin     Origin            // of the registry
	Base       http.RoundTripper // carries the requests to the registry, and those to other origins unless Other is set
	Other      http.RoundTripper // carries requests to other origins, to which redirects lead; nil: Base
	Keychain   Keychain          // nil: anonymous
	Repository string            // handed to Keychain.Find
	// Realms are more hosts (HOST[:PORT] with TLS, or whole origins) that may receive the credential as token servers.
	Realms []string
	// RealmTransport returns a new transport for a token server on another origin. It must verify certificates whatever the
	// registry's own settings are (CVE-2019-10214). The Transport sets its DialContext. Nil: the system's certificates, and
	// proxies from the environment.
	RealmTransport func(realm Origin) (*http.Transport, error)
	UserAgent      string // of token requests that have none from the request that caused them
}

// Transport is an http.RoundTripper that proves to one registry who asks. To requests for its own origin it adds
// Authorization, answers a 401 by a token and sends the request once more if its body can be had again (GetBody); all other
// requests, such as those that redirects lead to, pass untouched. A 401 that remains is handed to the caller: with or
// without a token the registry says no. It may be used from several goroutines at once.
type Transport struct {
	c    Config
	now  func() time.Time
	wait time.Duration // before the second attempt at a token server

	mu       sync.Mutex
	known    Challenge // what the registry asked for last; zero: nothing yet
	entries  map[string]*entry
	realms   map[Origin]http.RoundTripper
	cred     Credential
	credRead bool
	refresh  string // newer identity token than the credential's
}

// NewTransport checks c.
func NewTransport(c Config) (*Transport, error) {
	if c.Origin == (Origin{}) || c.Base == nil {
		return nil, errors.New("make transport: origin or base transport is missing")
	}
	if c.Other == nil {
		c.Other = c.Base
	}
	if c.Keychain == nil {
		c.Keychain = Static{}
	}
	if c.RealmTransport == nil {
		c.RealmTransport = func(Origin) (*http.Transport, error) { return defaultTransport(), nil }
	}
	return &Transport{c: c, now: time.Now, wait: 500 * time.Millisecond, entries: map[string]*entry{}, realms: map[Origin]http.RoundTripper{}}, nil
}

// entry is the token of one set of scopes. turn is a lock that waits with a context.
type entry struct {
	turn  chan struct{}
	token token
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if o, err := OriginOf(r.URL); err != nil || o != t.c.Origin {
		return t.c.Other.RoundTrip(r)
	}
	first := r.Clone(r.Context())
	sent, err := t.prepare(first)
	if err != nil {
		closeBody(r)
		return nil, err
	}
	resp, err := t.c.Base.RoundTrip(first)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	return t.answer(r, resp, sent)
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		r.Body.Close()
	}
}

// prepare adds to r what the registry is known to want.
func (t *Transport) prepare(r *http.Request) (sent token, err error) {
	t.mu.Lock()
	known := t.known
	t.mu.Unlock()
	switch known.Scheme {
	case "basic":
		c, err := t.credential(r.Context())
		if err != nil || !c.basic() {
			return token{}, err
		}
		return token{value: basicValue(c), basic: true}, authorize(r, t.c.Origin, "Basic", basicValue(c))
	case "bearer":
		sent, err = t.token(r.Context(), known, nil, token{})
		if err != nil {
			return token{}, err
		}
		return sent, authorize(r, t.c.Origin, "Bearer", sent.value)
	}
	return token{}, nil
}

// answer looks at a 401 to r, which was sent with sent, and returns what the registry says to a better request, or the 401.
func (t *Transport) answer(r *http.Request, resp *http.Response, sent token) (*http.Response, error) {
	ctx := r.Context()
	list, err := ParseChallenges(resp.Header.Values("WWW-Authenticate"))
	if err != nil {
		drain(resp)
		return nil, fmt.Errorf("registry %s: %w", t.c.Origin, err)
	}
	c, ok := find(list, "bearer")
	if !ok {
		c, ok = find(list, "basic")
	}
	if !ok {
		return resp, nil
	}
	observe(ctx, Event{Registry: t.c.Origin, Step: StepChallenge, Detail: c.Scheme, Scopes: scopesOf(ctx)})
	var next token
	if c.Scheme == "basic" {
		next, err = t.basic(ctx, sent)
	} else {
		next, err = t.bearer(ctx, c, sent)
	}
	if err != nil {
		drain(resp)
		return nil, err
	}
	t.mu.Lock()
	t.known = c
	t.mu.Unlock()
	again, ok := replay(r)
	if next.value == "" && sent.withheld != nil {
		drain(resp)
		return nil, sent.withheld
	}
	if next.value == "" || !ok {
		return resp, nil
	}
	drain(resp)
	scheme := "Bearer"
	if next.basic {
		scheme = "Basic"
	}
	if err := authorize(again, t.c.Origin, scheme, next.value); err != nil {
		closeBody(again)
		return nil, err
	}
	resp, err = t.c.Base.RoundTrip(again)
	if err == nil && resp.StatusCode == http.StatusUnauthorized && next.withheld != nil {
		drain(resp)
		return nil, next.withheld
	}
	return resp, err
}

// basic returns the credential for a basic challenge; no token where there is none or it was refused already.
func (t *Transport) basic(ctx context.Context, sent token) (token, error) {
	c, err := t.credential(ctx)
	if err != nil || !c.basic() || sent.basic {
		return token{}, err
	}
	return token{value: basicValue(c), basic: true}, nil
}

// bearer returns a token that is better than sent, or none if a new one would allow no more than it.
func (t *Transport) bearer(ctx context.Context, c Challenge, sent token) (token, error) {
	asked, err := ParseScopes(c.Params["scope"])
	if err != nil {
		return token{}, fmt.Errorf("registry %s: challenge: %w", t.c.Origin, err)
	}
	if sent.value != "" && c.Params["error"] == "insufficient_scope" && covers(sent.scopes, asked) {
		return token{}, nil
	}
	return t.token(ctx, c, asked, sent)
}

// covers reports whether every scope of want is contained in one of have.
func covers(have, want []Scope) bool {
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h Scope) bool { return h.Contains(w) }) {
			return false
		}
	}
	return true
}

// replay returns a copy of r that can be sent, if its body can be had again.
func replay(r *http.Request) (*http.Request, bool) {
	again := r.Clone(r.Context())
	if r.Body == nil || r.Body == http.NoBody {
		return again, true
	}
	if r.GetBody == nil {
		return nil, false
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, false
	}
	again.Body = body
	return again, true
}

// drain reads a little of a body, so that its connection can be used again, and closes it.
func drain(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}

// credential asks the keychain once.
func (t *Transport) credential(ctx context.Context) (Credential, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.credRead {
		return t.cred, nil
	}
	c, err := t.c.Keychain.Find(ctx, t.c.Origin, t.c.Repository)
	if err == nil && !c.Anonymous() && c.origin != t.c.Origin {
		err = fmt.Errorf("a %s is not sent there", c)
	}
	observe(ctx, Event{Registry: t.c.Origin, Step: StepCredential, Credential: c.Name(), Err: err})
	if err != nil {
		return Credential{}, fmt.Errorf("find credential for %s: %w", t.c.Origin, err)
	}
	t.cred, t.credRead = c, true
	return c, nil
}

// Step says what an Event is about.
type Step string

// The steps of Event.
const (
	StepChallenge  Step = "challenge"  // the registry asked for proof; Detail has the scheme
	StepCredential Step = "credential" // the keychain was asked; Credential has the name of what it has
	StepToken      Step = "token"      // a token was fetched, or Err
	StepWithheld   Step = "withheld"   // the token server may not have the credential; Detail says why
)

// Event tells what a Transport did, for people who ask why. It has no secrets.
type Event struct {
	Registry   Origin
	Step       Step
	Realm      Origin // of the token server
	Credential string // Credential.Name
	Scopes     []Scope
	Detail     string
	Err        error
}

type observerKey struct{}

// WithObserver returns a context whose requests report to f, and to observers of ctx, what is done to prove who asks. f may be called from several
// goroutines at once.
func WithObserver(ctx context.Context, f func(Event)) context.Context {
	if outer, ok := ctx.Value(observerKey{}).(func(Event)); ok {
		inner := f
		f = func(e Event) { inner(e); outer(e) }
	}
	return context.WithValue(ctx, observerKey{}, f)
}

func observe(ctx context.Context, e Event) {
	if f, ok := ctx.Value(observerKey{}).(func(Event)); ok {
		f(e)
	}
}
