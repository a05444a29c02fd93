// Package access decides who may do what with a registry: it finds out who asks, by an htpasswd file or a bearer token, and
// compares what is asked for with the permissions. It stands before the registry as one handler, so that nothing that the
// registry learns to do later is open by mistake: a method or a path that is not known here is refused.
package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server"
)

// TokenPath and LoginPath are where a Guard answers itself: the token endpoint, and where a browser sends its password.
const (
	TokenPath = "/token"
	LoginPath = "/login"
)

// Config is what a Guard works with. At least one of Users and Tokens is given.
type Config struct {
	Users  *Users      // passwords; nil for none
	Groups *Groups     // of users, beside those of the policy; nil for none
	Tokens []*Verifier // of tokens made elsewhere, whose claims alone count
	Issuer *Issuer     // makes tokens for Users at TokenPath; nil for none
	// TokenURL and Service are for the challenge: where tokens are made, if not here, and for whom.
	TokenURL, Service string
	// URL is the address of this registry as clients know it, for the challenge; if it is empty, what the request says counts.
	URL string

	// Repositories lists names after one, as a storage does; more says that there are others.
	Repositories func(ctx context.Context, after string, n int) (names []string, more bool, err error)

	Warn func(error)                        // told what a request did not cause: a broken file of users; may be nil
	Seen func(r *http.Request, user string) // told who a request is from, for the log; may be nil
}

// A Guard lets pass to a registry what its policy allows. It is the registry's server.Authorizer as well, which decides what
// depends on more than method and path. Its methods may be called from several goroutines at once.
type Guard struct {
	Config
	rules atomic.Pointer[Policy]
}

// New returns a guard. A policy without rules is the one where everybody who has logged in may do everything.
func New(c Config, p *Policy) (*Guard, error) {
	if c.Users == nil && len(c.Tokens) == 0 {
		return nil, errors.New("access: neither users nor tokens: nobody could ever log in")
	}
	if c.Repositories == nil {
		return nil, errors.New("access: no registry to ask for repositories")
	}
	g := &Guard{Config: c}
	return g, g.SetPolicy(p)
}

// SetPolicy puts other permissions in force, for every request from now on.
func (g *Guard) SetPolicy(p *Policy) error {
	if err := p.Check(); err != nil {
		return err
	}
	if len(p.Rules) == 0 {
		p = &Policy{Groups: p.Groups, Rules: []Rule{{Repositories: []string{"**"}, Users: []string{"*"}, Actions: []Action{Pull, Push, Delete}}}}
	}
	g.rules.Store(p)
	return nil
}

func (g *Guard) policy() *Policy { return g.rules.Load() }

// identity is who a request is from.
type identity struct {
	user  string  // "" for nobody
	token *claims // nil without a token
	own   bool    // the token is one of our own: the policy counts as well
}

func (id identity) String() string {
	if id.user == "" {
		return "nobody in particular"
	}
	return id.user
}

// known reports whether the client has shown something, even if it is a token for anybody.
func (id identity) known() bool { return id.user != "" || id.token != nil }

type identityKey struct{}

// CanPull reports whether a request that has passed the guard may read a repository: for who lists several of them.
func (g *Guard) CanPull(r *http.Request, repository string) bool {
	who, ok := r.Context().Value(identityKey{}).(identity)
	return ok && includes(g.allowed(who, repository), Pull)
}

// User returns who a request that has passed the guard is from; "" is nobody.
func User(r *http.Request) string {
	who, _ := r.Context().Value(identityKey{}).(identity)
	return who.user
}

// allowed returns what somebody may do in a repository.
func (g *Guard) allowed(who identity, repository string) []Action {
	if who.token != nil && !who.own {
		return who.token.granted(repository)
	}
	has := g.byPolicy(who, repository)
	if who.token == nil {
		return has
	}
	// Of a token of our own only what the policy allows now is left.
	granted := who.token.granted(repository)
	var out []Action
	for _, a := range actions {
		if includes(has, a) && includes(granted, a) {
			out = append(out, a)
		}
	}
	return out
}

func (g *Guard) byPolicy(who identity, repository string) []Action {
	var groups []string
	if g.Groups != nil && who.user != "" {
		groups = g.Groups.Of(who.user, g.Warn)
	}
	return g.policy().Allowed(who.user, groups, repository)
}

// identify finds out who a request is from. The error is for the client.
func (g *Guard) identify(r *http.Request) (identity, error) {
	given := r.Header.Values("Authorization")
	if len(given) == 0 {
		return identity{}, nil
	}
	if len(given) > 1 {
		return identity{}, errors.New("more than one Authorization header")
	}
	scheme, rest, _ := strings.Cut(given[0], " ")
	switch {
	case strings.EqualFold(scheme, "basic"):
		user, password, ok := r.BasicAuth()
		if !ok {
			return identity{}, errPassword
		}
		if err := g.checkPassword(r.Context(), user, password); err != nil {
			return identity{}, err
		}
		return identity{user: user}, nil
	case strings.EqualFold(scheme, "bearer"):
		return g.identifyToken(strings.TrimSpace(rest))
	}
	return identity{}, errors.New("this kind of authorization is not known")
}

func (g *Guard) identifyToken(token string) (identity, error) {
	err := errors.New("tokens are not taken")
	if g.Issuer != nil {
		var c *claims
		if c, err = g.Issuer.verifier.verify(token); err == nil {
			if c.Subject != "" && !g.Users.Has(c.Subject) {
				return identity{}, errors.New("the user of the token is gone")
			}
			return identity{user: c.Subject, token: c, own: true}, nil
		}
	}
	for _, v := range g.Tokens {
		var c *claims
		if c, err = v.verify(token); err == nil {
			return identity{user: c.Subject, token: c}, nil
		}
	}
	return identity{}, err
}

// need says what an endpoint's methods need of its repository. What is not here is refused.
var need = map[protocol.Kind]map[string]Action{
	protocol.Blob:      {"GET": Pull, "HEAD": Pull, "DELETE": Delete},
	protocol.Manifest:  {"GET": Pull, "HEAD": Pull, "PUT": Create, "DELETE": Delete},
	protocol.Uploads:   {"POST": Create},
	protocol.Upload:    {"GET": Create, "HEAD": Create, "PATCH": Create, "PUT": Create, "DELETE": Create},
	protocol.Tags:      {"GET": Pull, "HEAD": Pull},
	protocol.Referrers: {"GET": Pull, "HEAD": Pull},
}

// Wrap returns a handler that passes to next what is allowed and refuses the rest.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == TokenPath && g.Issuer != nil {
			g.serveToken(w, r)
			return
		}
		api := r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/")
		who, err := g.identify(r)
		if err != nil {
			g.challenge(w, r, api, "", "", err.Error())
			return
		}
		g.seen(r, who.user)
		r = r.WithContext(context.WithValue(r.Context(), identityKey{}, who))
		if api {
			g.serveAPI(w, r, who, next)
			return
		}
		g.servePages(w, r, who, next)
	})
}

func (g *Guard) seen(r *http.Request, user string) {
	if g.Seen != nil && user != "" {
		g.Seen(r, user)
	}
}

// servePages is for people with browsers, who know Basic only.
func (g *Guard) servePages(w http.ResponseWriter, r *http.Request, who identity, next http.Handler) {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "the method is not allowed here")
	case !who.known() && (r.URL.Path == LoginPath || !g.policy().Anonymous()):
		g.challenge(w, r, false, "", "", "log in first")
	case r.URL.Path == LoginPath:
		http.Redirect(w, r, "/", http.StatusSeeOther)
	default:
		next.ServeHTTP(w, r)
	}
}

func (g *Guard) serveAPI(w http.ResponseWriter, r *http.Request, who identity, next http.Handler) {
	p, err := protocol.ParsePath(r.URL.Path)
	if err != nil || p.Kind == protocol.Base || p.Kind == protocol.Catalog {
		g.serveGlobal(w, r, who, p, next)
		return
	}
	methods := need[p.Kind]
	action, ok := methods[r.Method]
	if !ok {
		notAllowed(w, methods)
		return
	}
	if !includes(g.allowed(who, p.Name), action) {
		g.deny(w, r, who, p, action)
		return
	}
	next.ServeHTTP(w, r)
}

// Authorize implements server.Authorizer for requests that have passed the guard: for who may create but not push, a tag that
// is there stays what it is (CVE-2026-31801); for a mount, its source must be readable (CVE-2024-39897).
func (g *Guard) Authorize(r *http.Request, a server.Access) error {
	who, ok := r.Context().Value(identityKey{}).(identity)
	if !ok {
		return errors.New("authorize: the request has not passed the guard")
	}
	action := map[server.Action]Action{server.Pull: Pull, server.Push: Create, server.Overwrite: Push, server.Delete: Delete}[a.Action]
	switch {
	case a.Action == server.List || a.Action == server.Enter:
		return nil // as the guard has decided
	case action != "" && includes(g.allowed(who, a.Repository), action):
		return nil
	case a.Action == server.Overwrite:
		return &server.AccessError{Status: http.StatusForbidden, Message: fmt.Sprintf("the tag exists, and %s may only create tags in %s", who, a.Repository)}
	}
	return &server.AccessError{Status: http.StatusForbidden, Message: fmt.Sprintf("%s may not %s in %s", who, action, a.Repository)}
}

func notAllowed(w http.ResponseWriter, methods map[string]Action) {
	var allow []string
	for m := range methods {
		allow = append(allow, m)
	}
	slices.Sort(allow)
	w.Header().Set("Allow", strings.Join(allow, ", "))
	refuse(w, http.StatusMethodNotAllowed, "the method is not allowed here")
}

// serveGlobal is for what is in no repository. Docker learns at /v2/ that it must log in, so that is never open to who shows
// nothing, as long as there is a way to get a token for nobody.
func (g *Guard) serveGlobal(w http.ResponseWriter, r *http.Request, who identity, p protocol.Path, next http.Handler) {
	anonymous := g.policy().Anonymous()
	if !who.known() && (!anonymous || p.Kind == protocol.Base && (g.Issuer != nil || g.TokenURL != "")) {
		scope := ""
		if p.Kind == protocol.Catalog {
			scope = "registry:catalog:*"
		}
		g.challenge(w, r, true, scope, "", "log in first")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		notAllowed(w, map[string]Action{"GET": Pull, "HEAD": Pull})
		return
	}
	if p.Kind != protocol.Catalog {
		next.ServeHTTP(w, r)
		return
	}
	if who.token != nil && !who.token.catalog() {
		g.challenge(w, r, true, "registry:catalog:*", "insufficient_scope", "the token does not allow to list repositories")
		return
	}
	g.serveCatalog(w, r, who)
}

// deny refuses: with a challenge if another login or token could help, else with 403. It says the same whether or not the
// repository exists.
func (g *Guard) deny(w http.ResponseWriter, r *http.Request, who identity, p protocol.Path, action Action) {
	scope := "repository:" + p.Name + ":"
	switch action {
	case Create, Push:
		scope += "pull,push"
		if from := r.URL.Query().Get(protocol.QueryFrom); p.Kind == protocol.Uploads && from != p.Name && protocol.CheckName(from) == nil {
			scope += " repository:" + from + ":pull"
		}
	default:
		scope += string(action)
	}
	switch {
	case !who.known():
		g.challenge(w, r, true, scope, "", "log in first")
	case who.token != nil && (!who.own || includes(g.byPolicy(who, p.Name), action) || who.user == ""):
		g.challenge(w, r, true, scope, "insufficient_scope", fmt.Sprintf("the token does not allow to %s in %s", action, p.Name))
	default:
		refuse(w, http.StatusForbidden, fmt.Sprintf("%s may not %s in %s", who, action, p.Name))
	}
}

// challenge answers 401 and says how to log in. Pages are for browsers, which know Basic only.
func (g *Guard) challenge(w http.ResponseWriter, r *http.Request, api bool, scope, code, message string) {
	realm := g.TokenURL
	if g.Issuer != nil {
		realm = g.base(r) + TokenPath
	}
	value := g.basicChallenge()
	if api && realm != "" {
		value = fmt.Sprintf("Bearer realm=%q,service=%q", realm, g.Service)
		if scope != "" {
			value += fmt.Sprintf(",scope=%q", scope)
		}
		if code != "" {
			value += fmt.Sprintf(",error=%q", code)
		}
	}
	w.Header().Set("WWW-Authenticate", value)
	refuse(w, http.StatusUnauthorized, message)
}

func (g *Guard) basicChallenge() string {
	return fmt.Sprintf("Basic realm=%q, charset=\"UTF-8\"", g.Service)
}

// base is the address under which the client has reached this registry. What the client says comes back to the client only.
func (g *Guard) base(r *http.Request) string {
	if g.URL != "" {
		return strings.TrimSuffix(g.URL, "/")
	}
	u := url.URL{Scheme: "http", Host: r.Host}
	if r.TLS != nil {
		u.Scheme = "https"
	}
	if strings.ContainsFunc(u.Host, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"\/@?#,;`, c) }) {
		u.Host = "invalid"
	}
	return u.String()
}

// refuse writes an error document.
func refuse(w http.ResponseWriter, status int, message string) {
	code := protocol.CodeUnsupported
	switch status {
	case http.StatusUnauthorized:
		code = protocol.CodeUnauthorized
	case http.StatusForbidden:
		code = protocol.CodeDenied
	case http.StatusTooManyRequests:
		code = protocol.CodeTooManyRequests
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(protocol.HeaderAPIVersion, protocol.APIVersion)
	w.WriteHeader(status)
	_, _ = w.Write(protocol.Errors{{Code: code, Message: message}}.Encode()) // who has gone needs no answer
}
