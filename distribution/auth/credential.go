package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Secret is what somebody proves an identity with. It prints as a placeholder with every verb of package fmt.
type Secret struct {
	Username      string
	Password      string
	IdentityToken string // refresh token, exchanged at the token server by POST
	RegistryToken string // bearer token that is sent to the registry as it is
}

const redacted = "(redacted)"

// String returns a placeholder.
func (s Secret) String() string {
	if s == (Secret{}) {
		return "(empty)"
	}
	return redacted
}

// GoString returns a placeholder.
func (s Secret) GoString() string { return s.String() }

// Format writes a placeholder whatever the verb is.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// MarshalJSON returns a placeholder, so that a secret gets into no report by mistake.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// Credential is a secret of one origin. There is no way to get the secret out of it, and none to send it elsewhere: only
// this package writes it, into requests to its origin or to the token server that the origin names and the rules of
// docs/decisions/0012 allow. The zero Credential is that of nobody: anonymous. It prints without the secret.
type Credential struct {
	origin Origin
	secret Secret
	name   string
}

// NewCredential binds s to origin o. name says for people where it is kept (a file and key, or a helper), and is printed.
func NewCredential(o Origin, s Secret, name string) (Credential, error) {
	switch {
	case o == (Origin{}):
		return Credential{}, errors.New("bind credential: it has no origin")
	case s == (Secret{}):
		return Credential{}, errors.New("bind credential: it is empty")
	case !clean(s.Username) || !clean(s.Password) || !clean(s.IdentityToken) || !clean(s.RegistryToken):
		return Credential{}, fmt.Errorf("bind credential for %s: control characters in it", o)
	}
	return Credential{origin: o, secret: s, name: name}, nil
}

func clean(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// Origin returns what the credential is bound to.
func (c Credential) Origin() Origin { return c.origin }

// Name says where the credential is kept; "anonymous" for the zero Credential.
func (c Credential) Name() string {
	if c.Anonymous() {
		return "anonymous"
	}
	return c.name
}

// Username returns the user's name, which is no secret; empty with tokens.
func (c Credential) Username() string { return c.secret.Username }

// Anonymous reports whether there is nothing to prove.
func (c Credential) Anonymous() bool { return c.secret == Secret{} }

// basic reports whether there is what Basic authentication needs; the user's name that goes with a token is not.
func (c Credential) basic() bool {
	s := c.secret
	return s.Password != "" || s.Username != "" && s.IdentityToken == "" && s.RegistryToken == ""
}

// String says whose credential it is, without the secret.
func (c Credential) String() string {
	if c.Anonymous() {
		return "anonymous"
	}
	return fmt.Sprintf("credential for %s from %s", c.origin, c.name)
}

// GoString is String.
func (c Credential) GoString() string { return c.String() }

// Format writes String whatever the verb is.
func (c Credential) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) }

// authorize is the only function that writes an Authorization header for registries. It refuses requests to any other
// origin than o.
func authorize(r *http.Request, o Origin, scheme, value string) error {
	got, err := OriginOf(r.URL)
	if err != nil {
		return err
	}
	if got != o || o == (Origin{}) {
		return fmt.Errorf("a credential for %s is not sent to %s", o, got)
	}
	r.Header.Set("Authorization", scheme+" "+value)
	return nil
}

// Keychain finds credentials.
type Keychain interface {
	// Find returns the credential for a repository (without the host; empty: any) of the registry at o. The zero Credential
	// without an error means that none is kept. What cannot be read, a helper that is missing or fails, is an error and never
	// "none is kept" (CVE-2021-41092). It may be called from several goroutines at once.
	Find(ctx context.Context, o Origin, repository string) (Credential, error)
}

// Static is a Keychain of one credential, for its own origin; the zero Static keeps none.
type Static struct{ Credential Credential }

// Find implements Keychain.
func (s Static) Find(_ context.Context, o Origin, _ string) (Credential, error) {
	if s.Credential.origin != o {
		return Credential{}, nil
	}
	return s.Credential, nil
}
