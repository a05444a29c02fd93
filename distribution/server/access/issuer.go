package access

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// tokenLife is how long a token of our own is good for. What its user may do is looked up again at each request, so a right
	// that was taken away is gone at once.
	tokenLife = 5 * time.Minute
	// maxScopes is the most scopes of one request for a token.
	maxScopes = 100
	// maxTokenForm is the most bytes of a POST for a token.
	maxTokenForm = 64 << 10
)

// An Issuer makes the tokens of the registry itself, so that clients which want Docker's token flow need no other server.
type Issuer struct {
	name, service string
	private       ed25519.PrivateKey
	verifier      *Verifier
	now           func() time.Time
}

// NewIssuer returns an issuer of tokens for a service. keyFile has an Ed25519 private key (PEM, PKCS #8), which servers behind
// one name share; if it is empty, a key is made that is good until the process ends.
func NewIssuer(service, keyFile string) (*Issuer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make token key: %w", err)
	}
	if keyFile != "" {
		if private, err = readPrivate(keyFile); err != nil {
			return nil, fmt.Errorf("read token key: %s: %w", keyFile, err)
		}
	}
	return newIssuer(service, private, time.Now)
}

func newIssuer(service string, private ed25519.PrivateKey, now func() time.Time) (*Issuer, error) {
	i := &Issuer{name: "tared " + service, service: service, private: private, now: now}
	var err error
	i.verifier, err = newVerifier(i.name, service, []key{{public: private.Public().(ed25519.PublicKey), alg: "EdDSA"}}, now)
	return i, err
}

func readPrivate(path string) (ed25519.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New(`not a PEM block "PRIVATE KEY" (openssl genpkey -algorithm ed25519 makes one)`)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a %T, not an Ed25519 key", parsed.(crypto.PrivateKey))
	}
	return private, nil
}

// sign makes a token with which user ("" is anybody) may do what the grants say.
func (i *Issuer) sign(user string, grants []Grant) (token string, issued time.Time, err error) {
	issued = i.now().Truncate(time.Second)
	c := claims{Access: grants, RegisteredClaims: jwt.RegisteredClaims{Issuer: i.name, Subject: user, Audience: jwt.ClaimStrings{i.service},
		IssuedAt: jwt.NewNumericDate(issued), NotBefore: jwt.NewNumericDate(issued), ExpiresAt: jwt.NewNumericDate(issued.Add(tokenLife)), ID: rand.Text()}}
	token, err = jwt.NewWithClaims(jwt.SigningMethodEdDSA, c).SignedString(i.private)
	return token, issued, err
}

// parseScope reads TYPE:NAME:ACTION,ACTION… A name may have a host with a port in front, so the type ends at the first colon
// and the name at the last.
func parseScope(s string) (Grant, bool) {
	kind, rest, ok := strings.Cut(s, ":")
	i := strings.LastIndexByte(rest, ':')
	if !ok || i < 0 {
		return Grant{}, false
	}
	return Grant{Type: kind, Name: rest[:i], Actions: strings.Split(rest[i+1:], ",")}, true
}

// tokenReply is the answer of the token endpoint (Docker Registry v2 token authentication, and its OAuth 2 form).
type tokenReply struct {
	Token       string `json:"token"`
	AccessToken string `json:"access_token"`
	ExpiresIn   int    `json:"expires_in"` // seconds
	IssuedAt    string `json:"issued_at"`  // RFC 3339
	Scope       string `json:"scope,omitempty"`
}

// serveToken answers GET with Basic credentials or none, and POST with the OAuth 2 password grant.
func (g *Guard) serveToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	user, scopes, status, err := g.tokenUser(w, r)
	if err == nil && len(scopes) > maxScopes {
		status, err = http.StatusBadRequest, fmt.Errorf("more than %d scopes", maxScopes)
	}
	if err != nil {
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", g.basicChallenge())
		}
		refuse(w, status, err.Error())
		return
	}
	g.seen(r, user)
	who := identity{user: user}
	var grants []Grant
	for _, s := range scopes {
		if grant, ok := parseScope(s); ok {
			if grant.Actions = g.grantable(who, grant); len(grant.Actions) > 0 {
				grants = append(grants, grant)
			}
		}
	}
	token, issued, err := g.Issuer.sign(user, grants)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(tokenReply{Token: token, AccessToken: token, ExpiresIn: int(tokenLife.Seconds()),
		IssuedAt: issued.UTC().Format(time.RFC3339), Scope: strings.Join(scopes, " ")}) // who has gone needs no answer
}

// tokenUser returns who asks for a token and for which scopes, or the status with which that is refused.
func (g *Guard) tokenUser(w http.ResponseWriter, r *http.Request) (user string, scopes []string, status int, err error) {
	split := func(all []string) (out []string) {
		for _, s := range all {
			out = append(out, strings.Fields(s)...)
		}
		return out
	}
	var password string
	var given bool
	service := ""
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		q := r.URL.Query()
		user, password, given = r.BasicAuth()
		if !given && r.Header.Get("Authorization") != "" {
			return "", nil, http.StatusUnauthorized, errPassword
		}
		service, scopes = q.Get("service"), split(q["scope"])
	case http.MethodPost:
		r.Body = http.MaxBytesReader(w, r.Body, maxTokenForm)
		if err := r.ParseForm(); err != nil {
			return "", nil, http.StatusBadRequest, errors.New("the form is not understood")
		}
		if t := r.PostForm.Get("grant_type"); t != "password" {
			return "", nil, http.StatusBadRequest, errors.New("unsupported_grant_type: only password is")
		}
		user, password, given = r.PostForm.Get("username"), r.PostForm.Get("password"), true
		service, scopes = r.PostForm.Get("service"), split(r.PostForm["scope"])
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		return "", nil, http.StatusMethodNotAllowed, fmt.Errorf("method %s is not allowed here", r.Method)
	}
	if service != "" && service != g.Issuer.service {
		return "", nil, http.StatusBadRequest, errors.New("tokens for another service are not made here")
	}
	if !given {
		if !g.policy().Anonymous() {
			return "", nil, http.StatusUnauthorized, errors.New("log in first")
		}
		return "", scopes, 0, nil
	}
	if err := g.checkPassword(r.Context(), user, password); err != nil {
		return "", nil, http.StatusUnauthorized, err
	}
	return user, scopes, 0, nil
}

// checkPassword never lets in the nameless user: that name is nobody's.
func (g *Guard) checkPassword(ctx context.Context, user, password string) error {
	if user == "" || g.Users == nil {
		return errPassword
	}
	return g.Users.Check(ctx, user, password, g.Warn)
}

// grantable returns those of the actions asked for that somebody has. Who may only create and asks to push may create.
func (g *Guard) grantable(who identity, asked Grant) []string {
	if asked.Type == "registry" && asked.Name == "catalog" && slices.Contains(asked.Actions, "*") {
		return []string{"*"} // it lists what one may pull
	}
	if asked.Type != "repository" {
		return nil
	}
	var out []string
	add := func(a Action) {
		if !slices.Contains(out, string(a)) {
			out = append(out, string(a))
		}
	}
	has := g.allowed(who, asked.Name)
	for _, a := range asked.Actions {
		switch {
		case a == "*":
			for _, a := range has {
				add(a)
			}
		case includes(has, Action(a)):
			add(Action(a))
		case Action(a) == Push && includes(has, Create):
			add(Create)
		}
	}
	return out
}
