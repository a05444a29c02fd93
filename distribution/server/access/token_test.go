package access

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// keys that issuers sign with, made once.
var (
	rsaKey, _      = rsa.GenerateKey(rand.Reader, 2048)
	weakRSA, _     = rsa.GenerateKey(rand.Reader, 1024)
	ecKey, _       = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, edKey, _    = ed25519.GenerateKey(rand.Reader)
	_, evilKey, _  = ed25519.GenerateKey(rand.Reader)
	evilRSA, _     = rsa.GenerateKey(rand.Reader, 2048)
	oddCurveKey, _ = ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
)

func public(t *testing.T, k crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func certificate(t *testing.T, k crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keySet(keys ...map[string]any) []byte {
	data, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		panic(err)
	}
	return data
}

func edSet(id string, k ed25519.PrivateKey) map[string]any {
	return map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": id, "x": b64(k.Public().(ed25519.PublicKey))}
}

// token signs good claims, changed by change.
func token(t *testing.T, method jwt.SigningMethod, k any, header, change map[string]any) string {
	t.Helper()
	now := time.Now()
	c := jwt.MapClaims{"iss": "issuer", "aud": "service", "sub": "somebody", "exp": now.Add(time.Minute).Unix(), "nbf": now.Unix(), "iat": now.Unix(),
		"access": []map[string]any{{"type": "repository", "name": "team/a", "actions": []string{"pull"}}}}
	for k, v := range change {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	j := jwt.NewWithClaims(method, c)
	for k, v := range header {
		j.Header[k] = v
	}
	s, err := j.SignedString(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func verifier(t *testing.T, files ...[]byte) *Verifier {
	t.Helper()
	var paths []string
	for i, data := range files {
		paths = append(paths, filepath.Join(t.TempDir(), fmt.Sprint(i)))
		write(t, paths[i], data)
	}
	v, err := NewVerifier("issuer", "service", paths...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTokenKeys(t *testing.T) {
	pems := verifier(t, append(public(t, rsaKey), certificate(t, ecKey)...), public(t, edKey))
	set := verifier(t, keySet(edSet("one", edKey), map[string]any{"kty": "RSA", "kid": "two", "alg": "RS256", "n": b64(rsaKey.N.Bytes()), "e": b64(big.NewInt(int64(rsaKey.E)).Bytes())},
		map[string]any{"kty": "EC", "kid": "three", "crv": "P-256", "x": b64(ecKey.X.FillBytes(make([]byte, 32))), "y": b64(ecKey.Y.FillBytes(make([]byte, 32)))},
		map[string]any{"kty": "oct", "kid": "four", "use": "enc", "k": "c2VjcmV0"}))
	ids := keyIDs(rsaKey.Public())
	if len(ids) != 2 || strings.Count(ids[1], ":") != 11 {
		t.Fatalf("names of a key: %q", ids)
	}
	for _, c := range []struct {
		name   string
		v      *Verifier
		method jwt.SigningMethod
		key    any
		kid    any
		good   bool
	}{
		{"RSA", pems, jwt.SigningMethodRS256, rsaKey, nil, true},
		{"RSA-PSS", pems, jwt.SigningMethodPS512, rsaKey, nil, true},
		{"RSA by its thumbprint", pems, jwt.SigningMethodRS256, rsaKey, ids[0], true},
		{"RSA by its fingerprint", pems, jwt.SigningMethodRS256, rsaKey, ids[1], true},
		{"RSA by another's fingerprint", pems, jwt.SigningMethodRS256, evilRSA, ids[1], false},
		{"EC from a certificate", pems, jwt.SigningMethodES256, ecKey, nil, true},
		{"Ed25519", pems, jwt.SigningMethodEdDSA, edKey, "whatever the issuer calls it", true},
		{"a stranger's", pems, jwt.SigningMethodEdDSA, evilKey, nil, false},
		{"set", set, jwt.SigningMethodEdDSA, edKey, "one", true},
		{"set, unnamed", set, jwt.SigningMethodEdDSA, edKey, nil, true},
		{"set, unknown name", set, jwt.SigningMethodEdDSA, edKey, "five", false},
		{"set, name of another", set, jwt.SigningMethodEdDSA, edKey, "two", false},
		{"set, name of another type", set, jwt.SigningMethodEdDSA, edKey, 1, false},
		{"set, EC", set, jwt.SigningMethodES256, ecKey, "three", true},
		{"set, RSA", set, jwt.SigningMethodRS256, rsaKey, "two", true},
		{"set, algorithm that the key is not for", set, jwt.SigningMethodRS512, rsaKey, "two", false},
		{"shared secret", set, jwt.SigningMethodHS256, []byte("secret"), "four", false},
	} {
		header := map[string]any{}
		if c.kid != nil {
			header["kid"] = c.kid
		}
		if _, err := c.v.verify(token(t, c.method, c.key, header, nil)); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestTokenCVE_2025_24976: what a token says about its own key is not believed.
func TestTokenCVE_2025_24976(t *testing.T) {
	v := verifier(t, public(t, rsaKey))
	evil := evilKey.Public().(ed25519.PublicKey)
	block, _ := pem.Decode(certificate(t, evilRSA))
	for name, tok := range map[string]string{
		"jwk":                      token(t, jwt.SigningMethodEdDSA, evilKey, map[string]any{"jwk": map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(evil)}}, nil),
		"jwk RSA":                  token(t, jwt.SigningMethodRS256, evilRSA, map[string]any{"jwk": map[string]any{"kty": "RSA", "n": b64(evilRSA.N.Bytes()), "e": "AQAB"}}, nil),
		"x5c":                      token(t, jwt.SigningMethodRS256, evilRSA, map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(block.Bytes)}}, nil),
		"jku":                      token(t, jwt.SigningMethodRS256, evilRSA, map[string]any{"jku": "http://127.0.0.1:1/"}, nil),
		"none":                     token(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, nil),
		"HMAC with the public key": token(t, jwt.SigningMethodHS256, public(t, rsaKey), nil, nil),
		"crit":                     token(t, jwt.SigningMethodRS256, rsaKey, map[string]any{"crit": []string{"exp"}}, nil),
	} {
		if _, err := v.verify(tok); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	good := token(t, jwt.SigningMethodRS256, rsaKey, map[string]any{"jwk": map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(evil)}}, nil)
	if _, err := v.verify(good); err != nil {
		t.Errorf("a good token with a key that nobody asks for: %v", err)
	}
}

func TestTokenClaims(t *testing.T) {
	v := verifier(t, public(t, edKey))
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	many := make([]map[string]any, maxGrants+1)
	for _, c := range []struct {
		change map[string]any
		want   string
	}{
		{nil, ""},
		{map[string]any{"aud": []string{"x", "service"}}, ""},
		{map[string]any{"aud": "services"}, "audience"},
		{map[string]any{"aud": nil}, "required claim"},
		{map[string]any{"iss": "other"}, "issuer"},
		{map[string]any{"iss": nil}, "required claim"},
		{map[string]any{"exp": nil}, "required claim"},
		{map[string]any{"exp": at(-2 * leeway)}, "expired"},
		{map[string]any{"exp": at(-leeway / 2)}, ""},
		{map[string]any{"nbf": at(2 * leeway)}, "not valid yet"},
		{map[string]any{"iat": at(2 * leeway)}, "used before issued"},
		{map[string]any{"exp": "tomorrow"}, "malformed"},
		{map[string]any{"access": "everything"}, "malformed"},
		{map[string]any{"access": many}, "more than 1000 grants"},
		{map[string]any{"sub": strings.Repeat("x", maxToken)}, "longer than"},
	} {
		_, err := v.verify(token(t, jwt.SigningMethodEdDSA, edKey, nil, c.change))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%.60v: %v, want %q", c.change, err, c.want)
		}
	}
	for _, s := range []string{"", ".", "..", "a.b.c", "e30.e30.", "e30.e30.AA", "null.null.null"} {
		if _, err := v.verify(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

// TestForeignTokens: the claims of an issuer elsewhere count, and neither users nor permissions here.
func TestForeignTokens(t *testing.T) {
	x := newWorld(t, func(c *Config) {
		c.Users, c.Groups, c.Issuer = nil, nil, nil
		c.Tokens = []*Verifier{verifier(t, public(t, edKey))}
		c.TokenURL = "https://auth.test/token"
	})
	bearer := func(actions ...string) string {
		return "Bearer " + token(t, jwt.SigningMethodEdDSA, edKey, nil, map[string]any{"sub": "dave", "access": []Grant{{Type: "repository", Name: "team/a", Actions: actions}}})
	}
	has := map[string][]Action{"pull": {Pull}, "push": {Push}, "delete": {Delete}, "*": {Pull, Push, Delete}, "create": {Create}, "admin": nil, "PULL": nil}
	for scope, actions := range has {
		auth := bearer(scope)
		for _, e := range endpoints {
			for _, method := range methods {
				action, known := e.need[method]
				want := http.StatusUnauthorized
				switch {
				case !known:
					want = http.StatusMethodNotAllowed
				case includes(actions, action):
					want = http.StatusTeapot
				}
				if w := x.do(method, e.path, auth); w.Code != want {
					t.Errorf("%s: %s %s is answered %d, want %d", scope, method, e.path, w.Code, want)
				}
			}
		}
	}
	w := x.do("GET", "/v2/team/b/tags/list", bearer("*"))
	if got := w.Header().Get("WWW-Authenticate"); w.Code != 401 || got != `Bearer realm="https://auth.test/token",service="registry.test",scope="repository:team/b:pull",error="insufficient_scope"` {
		t.Errorf("%d %s", w.Code, got)
	}
	for _, auth := range []string{"dave", "Basic ZGF2ZTo="} {
		if w := x.do("GET", "/v2/", auth); w.Code != 401 {
			t.Errorf("a password without users: %d", w.Code)
		}
	}
	if w := x.do("GET", TokenPath, ""); w.Code != 418 { // nothing of ours: what is behind answers
		t.Errorf("token endpoint: %d", w.Code)
	}
}

func TestReadKeys(t *testing.T) {
	private, err := x509.MarshalPKCS8PrivateKey(edKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":     {nil, "no key in it"},
		"private":     {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), `block 1: a "PRIVATE KEY"`},
		"weak":        {append(public(t, edKey), public(t, weakRSA)...), "block 2: an RSA key of 1024 bits, at least 2048"},
		"odd curve":   {public(t, oddCurveKey), "P-224"},
		"broken":      {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}), "block 1"},
		"set":         {[]byte(`{"keys":`), "unexpected end"},
		"empty set":   {[]byte(`{"keys":[]}`), "no key in it"},
		"symmetric":   {keySet(map[string]any{"kty": "oct", "k": "c2VjcmV0"}), `key 1: a key of type "oct"`},
		"private set": {keySet(map[string]any{"kty": "OKP", "d": "x"}), "a private key"},
		"off curve":   {keySet(map[string]any{"kty": "EC", "crv": "P-256", "x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))}), "key 1"},
		"short":       {keySet(map[string]any{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}), "coordinates of 32 bytes"},
		"exponent 1":  {keySet(map[string]any{"kty": "RSA", "n": b64(rsaKey.N.Bytes()), "e": "AQ"}), "out of range"},
		"huge":        {make([]byte, maxKeyFile+1), "at most"},
	} {
		file := filepath.Join(t.TempDir(), "keys")
		write(t, file, c.data)
		if _, err := readKeys(file); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestIssuerKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	der, err := x509.MarshalPKCS8PrivateKey(edKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	one, err := NewIssuer("s", file)
	if err != nil {
		t.Fatal(err)
	}
	two, err := NewIssuer("s", file)
	if err != nil {
		t.Fatal(err)
	}
	tok, _, err := one.sign("u", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := two.verifier.verify(tok); err != nil || c.Subject != "u" {
		t.Errorf("a server with the same key: %v", err)
	}
	other, err := NewIssuer("s", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.verifier.verify(tok); err == nil {
		t.Error("a server with another key takes the token")
	}
	if der, err = x509.MarshalPKCS8PrivateKey(ecKey); err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{nil, public(t, edKey), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"})} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewIssuer("s", file); err == nil {
			t.Errorf("%.30q is taken for a key", data)
		}
	}
}

func FuzzParseJWKS(f *testing.F) {
	f.Add(keySet(edSet("one", edKey)))
	f.Add(keySet(map[string]any{"kty": "EC", "crv": "P-256", "x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))}))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseJWKS(data)
		for _, k := range keys {
			if err != nil || checkKey(k.public) != nil {
				t.Errorf("%T, %v", k.public, err)
			}
		}
	})
}

func FuzzVerify(f *testing.F) {
	v, err := newVerifier("issuer", "service", []key{{public: edKey.Public().(ed25519.PublicKey)}}, time.Now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("eyJhbGciOiJFZERTQSIsImtpZCI6W119.e30.AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := v.verify(s); err == nil {
			t.Error("a token that nobody has signed is taken")
		}
	})
}
