package access

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// maxToken is the most bytes of a token; a header line longer than that is nobody's grant.
	maxToken = 32 << 10
	// maxGrants is the most entries in a token's claim "access".
	maxGrants = 1000
	// leeway is how far the clocks of issuer and registry may be apart.
	leeway = time.Minute
)

// signatures are the algorithms that are taken. No secret is shared with the issuer (HS…), and "none" is no signature.
var signatures = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// A Grant is one entry of a token's claim "access" (Docker Registry v2 token authentication).
type Grant struct {
	Type    string   `json:"type"` // "repository", or "registry" for the catalog
	Name    string   `json:"name"`
	Actions []string `json:"actions"` // "*" is every one
}

// claims are what a token says.
type claims struct {
	jwt.RegisteredClaims
	Access []Grant `json:"access"`
}

// A Verifier checks the tokens of one issuer. It is not changed, and may be used from several goroutines at once.
type Verifier struct {
	keys   []key
	parser *jwt.Parser
}

// NewVerifier returns a verifier of tokens for service (the audience), which issuer has signed with a key of the given files:
// certificates or public keys in PEM, or a JSON web key set. Keys and certificates that a token brings along in its own header
// are never looked at (CVE-2025-24976).
func NewVerifier(issuer, service string, files ...string) (*Verifier, error) {
	var keys []key
	for _, f := range files {
		k, err := readKeys(f)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k...)
	}
	return newVerifier(issuer, service, keys, time.Now)
}

func newVerifier(issuer, service string, keys []key, now func() time.Time) (*Verifier, error) {
	if issuer == "" || service == "" || len(keys) == 0 {
		return nil, errors.New("tokens: an issuer, a service and a key are necessary")
	}
	parser := jwt.NewParser(jwt.WithValidMethods(signatures), jwt.WithIssuer(issuer), jwt.WithAudience(service),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway), jwt.WithTimeFunc(now))
	return &Verifier{keys: keys, parser: parser}, nil
}

// verify returns what a token says. The error says what is wrong with it, and has no part of it.
func (v *Verifier) verify(token string) (*claims, error) {
	if len(token) > maxToken {
		return nil, fmt.Errorf("check token: longer than %d bytes", maxToken)
	}
	var c claims
	if _, err := v.parser.ParseWithClaims(token, &c, v.key); err != nil {
		return nil, fmt.Errorf("check token: %w", reason(err))
	}
	if len(c.Access) > maxGrants {
		return nil, fmt.Errorf("check token: more than %d grants", maxGrants)
	}
	return &c, nil
}

// reason is what the library found, without the parts of the token that it quotes.
func reason(err error) error {
	for _, e := range []error{jwt.ErrTokenMalformed, jwt.ErrTokenUnverifiable, jwt.ErrTokenSignatureInvalid, jwt.ErrTokenExpired,
		jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued, jwt.ErrTokenInvalidIssuer, jwt.ErrTokenInvalidAudience,
		jwt.ErrTokenRequiredClaimMissing, jwt.ErrTokenInvalidClaims} {
		if errors.Is(err, e) {
			return e
		}
	}
	return errors.New("it is not understood")
}

// key chooses the keys that may have signed a token, among the configured ones only.
func (v *Verifier) key(t *jwt.Token) (any, error) {
	if _, ok := t.Header["crit"]; ok {
		return nil, errors.New("a critical header")
	}
	alg := t.Method.Alg()
	fits := func(k key) bool { return (k.alg == "" || k.alg == alg) && kind(k.public) == family(alg) }
	var set jwt.VerificationKeySet
	kid, named := t.Header["kid"]
	for _, k := range v.keys {
		if fits(k) && named && (k.id == kid || k.id == "" && slices.ContainsFunc(k.ids, func(id string) bool { return id == kid })) {
			set.Keys = append(set.Keys, k.public)
		}
	}
	if len(set.Keys) == 0 {
		for _, k := range v.keys { // an issuer may call a key of a PEM file what it likes; a declared name is meant
			if fits(k) && (!named || k.id == "") {
				set.Keys = append(set.Keys, k.public)
			}
		}
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("no such key")
	}
	return set, nil
}

// family is how the name of an algorithm begins; RSA is used with PKCS #1 v1.5 and with PSS.
func family(alg string) string {
	f := strings.TrimRight(alg, "0123456789")
	if f == "PS" {
		return "RS"
	}
	return f
}

// kind is the family of a key.
func kind(public crypto.PublicKey) string {
	switch public.(type) {
	case *rsa.PublicKey:
		return "RS"
	case *ecdsa.PublicKey:
		return "ES"
	case ed25519.PublicKey:
		return "EdDSA"
	}
	return ""
}

// granted returns the actions that a token allows in a repository. Push of the wire includes create.
func (c *claims) granted(repository string) []Action {
	var out []Action
	for _, g := range c.Access {
		if g.Type != "repository" || g.Name != repository {
			continue
		}
		for _, a := range g.Actions {
			if a == "*" {
				return []Action{Pull, Push, Delete}
			}
			out = append(out, Action(a))
		}
	}
	return out
}

// catalog reports whether a token allows to list repositories.
func (c *claims) catalog() bool {
	return slices.ContainsFunc(c.Access, func(g Grant) bool {
		return g.Type == "registry" && g.Name == "catalog" && slices.Contains(g.Actions, "*")
	})
}
