package reference

import (
	"fmt"
	"strings"

	// The hash functions that go-digest finds by crypto.Hash have to be linked.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
)

// maxDigest is the longest digest in bytes. The specification has no limit; sha512, the longest registered one, has 135.
const maxDigest = 512

// CheckDigest checks a digest by the grammar of image-spec descriptor.md and, for the registered algorithms sha256, sha512
// and blake3, by length and lower case. A digest of another algorithm passes: it may be copied, but see CheckVerifiable.
// What passes holds no slash and no "..", so that it can be used as a name in blobs/ (CVE-2024-3727).
func CheckDigest(d digest.Digest) error {
	unsafe := string(d)
	if unsafe == "" {
		return fmt.Errorf("digest is missing")
	}
	if len(unsafe) > maxDigest {
		return fmt.Errorf("digest %.64q… is longer than %d bytes", unsafe, maxDigest)
	}
	alg, encoded, ok := strings.Cut(unsafe, ":")
	if !ok || !validAlgorithm(alg) || encoded == "" || strings.Trim(encoded, upper+lower+digits+"=_-") != "" {
		return fmt.Errorf("digest %q is malformed: want ALGORITHM:ENCODED, as in sha256:9f86…", unsafe)
	}
	want := 0
	switch alg {
	case "sha256", "blake3":
		want = 64
	case "sha512":
		want = 128
	default:
		return nil
	}
	if len(encoded) != want || strings.Trim(encoded, "abcdef"+digits) != "" {
		return fmt.Errorf("digest %q is malformed: %s has %d lower-case hexadecimal digits", unsafe, alg, want)
	}
	return nil
}

// CheckVerifiable checks a digest as CheckDigest does and that tare can compute it: sha256 or sha512.
func CheckVerifiable(d digest.Digest) error {
	if err := CheckDigest(d); err != nil {
		return err
	}
	if alg := d.Algorithm(); alg != digest.SHA256 && alg != digest.SHA512 {
		return fmt.Errorf("digest %s cannot be verified: its algorithm is neither sha256 nor sha512", d)
	}
	return nil
}

// validAlgorithm knows components of [a-z0-9]+ with one of +._- between them.
func validAlgorithm(s string) bool {
	separator := true
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			separator = false
		case strings.IndexByte("+._-", c) >= 0 && !separator:
			separator = true
		default:
			return false
		}
	}
	return !separator
}
