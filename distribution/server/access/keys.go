package access

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
)

const (
	maxKeyFile = 1 << 20 // bytes
	minRSA     = 2048    // bits
)

// A key is a public key that tokens may be signed with.
type key struct {
	public crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	id     string           // the declared one of a JSON web key; "" if it has none
	ids    []string         // derived ones, by which issuers call a key of a PEM file
	alg    string           // the only algorithm that the key is for; "" for every one of its kind
}

// readKeys reads the keys of a file, which has either PEM blocks (certificates, public keys) or a JSON web key set. A key that
// is private, symmetric or too weak is an error: it was not meant to be here.
func readKeys(path string) ([]key, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if fi.Size() > maxKeyFile {
		return nil, fmt.Errorf("read keys: %s has %d bytes, at most %d", path, fi.Size(), maxKeyFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	parse := parsePEM
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		parse = parseJWKS
	}
	keys, err := parse(data)
	if err == nil && len(keys) == 0 {
		err = errors.New("no key in it")
	}
	if err != nil {
		return nil, fmt.Errorf("read keys: %s: %w", path, err)
	}
	return keys, nil
}

func parsePEM(data []byte) ([]key, error) {
	var keys []key
	for n := 1; ; n++ {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return keys, nil
		}
		var public any
		var err error
		switch block.Type {
		case "CERTIFICATE":
			var c *x509.Certificate
			if c, err = x509.ParseCertificate(block.Bytes); err == nil {
				public = c.PublicKey
			}
		case "PUBLIC KEY":
			public, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			public, err = x509.ParsePKCS1PublicKey(block.Bytes)
		default:
			err = fmt.Errorf("a %q, not a certificate or public key", block.Type)
		}
		if err == nil {
			err = checkKey(public)
		}
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", n, err)
		}
		keys = append(keys, key{public: public, ids: keyIDs(public)})
	}
}

// checkKey refuses keys of kinds and strengths that no token should be signed with.
func checkKey(public any) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSA {
			return fmt.Errorf("an RSA key of %d bits, at least %d", k.N.BitLen(), minRSA)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return fmt.Errorf("a key on curve %s", k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("a key of type %T", public)
	}
	return nil
}

// keyIDs are the names that issuers give to a key that has none: the thumbprint of RFC 7638, and the fingerprint that
// Docker's libtrust made (SHA-256 of the DER form, its first 30 bytes in base32, in groups of four).
func keyIDs(public any) []string {
	var ids []string
	b64 := base64.RawURLEncoding
	var canonical string
	switch k := public.(type) {
	case *rsa.PublicKey:
		canonical = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, b64.EncodeToString(big.NewInt(int64(k.E)).Bytes()), b64.EncodeToString(k.N.Bytes()))
	case *ecdsa.PublicKey:
		if point, err := k.Bytes(); err == nil {
			half := (len(point) - 1) / 2
			canonical = fmt.Sprintf(`{"crv":"%s","kty":"EC","x":"%s","y":"%s"}`, k.Params().Name, b64.EncodeToString(point[1:1+half]), b64.EncodeToString(point[1+half:]))
		}
	case ed25519.PublicKey:
		canonical = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, b64.EncodeToString(k))
	}
	if canonical != "" {
		sum := sha256.Sum256([]byte(canonical))
		ids = append(ids, b64.EncodeToString(sum[:]))
	}
	if der, err := x509.MarshalPKIXPublicKey(public); err == nil {
		sum := sha256.Sum256(der)
		text := strings.TrimRight(base32.StdEncoding.EncodeToString(sum[:30]), "=")
		var groups []string
		for four := range slices.Chunk([]byte(text), 4) {
			groups = append(groups, string(four))
		}
		ids = append(ids, strings.Join(groups, ":"))
	}
	return ids
}

// jwk is a JSON web key (RFC 7517, RFC 8037).
type jwk struct {
	Type   string   `json:"kty"`
	ID     string   `json:"kid"`
	Use    string   `json:"use"`
	Ops    []string `json:"key_ops"`
	Alg    string   `json:"alg"`
	Curve  string   `json:"crv"`
	N      string   `json:"n"`
	E      string   `json:"e"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
	Secret *string  `json:"d"`
}

// parseJWKS reads a key set; keys that are not for signatures are skipped.
func parseJWKS(data []byte) ([]key, error) {
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, err
	}
	var keys []key
	for i, j := range set.Keys {
		if j.Use != "" && j.Use != "sig" || len(j.Ops) > 0 && !slices.Contains(j.Ops, "verify") {
			continue
		}
		public, err := j.public()
		if err == nil {
			err = checkKey(public)
		}
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		k := key{public: public, id: j.ID, alg: j.Alg}
		if k.id == "" {
			k.ids = keyIDs(public)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (j jwk) public() (any, error) {
	if j.Secret != nil {
		return nil, errors.New("a private key: give the public one to who only verifies")
	}
	number := func(name, s string) ([]byte, error) {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err == nil && len(b) == 0 {
			err = errors.New("empty")
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		return b, nil
	}
	switch j.Type {
	case "RSA":
		n, err := number("n", j.N)
		if err != nil {
			return nil, err
		}
		e, err := number("e", j.E)
		if err != nil {
			return nil, err
		}
		exponent := new(big.Int).SetBytes(e)
		if exponent.BitLen() > 31 || exponent.Int64() < 3 {
			return nil, errors.New(`"e" is out of range`)
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
	case "EC":
		return j.elliptic(number)
	case "OKP":
		x, err := number("x", j.X)
		if err != nil {
			return nil, err
		}
		if j.Curve != "Ed25519" || len(x) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%d bytes on curve %q", len(x), j.Curve)
		}
		return ed25519.PublicKey(x), nil
	}
	return nil, fmt.Errorf("a key of type %q", j.Type)
}

func (j jwk) elliptic(number func(name, s string) ([]byte, error)) (any, error) {
	curves := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}
	curve := curves[j.Curve]
	if curve == nil {
		return nil, fmt.Errorf("unknown curve %q", j.Curve)
	}
	x, err := number("x", j.X)
	if err != nil {
		return nil, err
	}
	y, err := number("y", j.Y)
	if err != nil {
		return nil, err
	}
	if size := (curve.Params().BitSize + 7) / 8; len(x) != size || len(y) != size {
		return nil, fmt.Errorf("a point on %s has coordinates of %d bytes", j.Curve, size)
	}
	return ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
}
