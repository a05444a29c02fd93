package reference

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

const (
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"

	defaultDomain = "docker.io"
	defaultTag    = "latest"
	maxName       = 255 // bytes of domain and path, the limit of Docker's reference grammar
	maxTag        = 128
)

// Name is an image's name in the form that registries and docker save use: [DOMAIN/]PATH[:TAG][@DIGEST].
type Name struct {
	Domain string        // registry host with an optional port; docker.io if the text has none
	Path   string        // repository; with library/ before a single component on docker.io
	Tag    string        // latest if the text has neither tag nor digest
	Digest digest.Digest // empty if the text has none
}

// String returns the full form, in which equal names are equal texts.
func (n Name) String() string {
	s := n.Domain + "/" + n.Path
	if n.Tag != "" {
		s += ":" + n.Tag
	}
	if n.Digest != "" {
		s += "@" + n.Digest.String()
	}
	return s
}

// ParseName parses a name and completes it as Docker does: alpine is docker.io/library/alpine:latest.
func ParseName(s string) (Name, error) {
	bad := func(why string) (Name, error) { return Name{}, fmt.Errorf("image name %.300q: %s", s, why) }
	var n Name
	rest, d, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		n.Digest = digest.Digest(d)
		if err := CheckDigest(n.Digest); err != nil {
			return bad(err.Error())
		}
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, n.Tag = rest[:i], rest[i+1:]
		if err := CheckTag(n.Tag); err != nil {
			return bad(err.Error())
		}
	} else if !hasDigest {
		n.Tag = defaultTag
	}
	n.Domain, n.Path = defaultDomain, rest
	if first, path, ok := strings.Cut(rest, "/"); ok && (first == "localhost" || strings.ContainsAny(first, ".:"+upper)) {
		n.Domain, n.Path = first, path
	}
	if n.Domain == "index.docker.io" {
		n.Domain = defaultDomain
	}
	if n.Domain == defaultDomain && !strings.Contains(n.Path, "/") {
		n.Path = "library/" + n.Path
	}
	switch {
	case len(n.Domain)+1+len(n.Path) > maxName:
		return bad(fmt.Sprintf("longer than %d bytes", maxName))
	case !validDomain(n.Domain):
		return bad(fmt.Sprintf("%q is not a host name with an optional port", n.Domain))
	case !validPath(n.Path):
		return bad("a repository has lower-case letters, digits and single . _ - between them, with / between its parts")
	}
	return n, nil
}

// CheckTag checks a tag by the grammar of distribution-spec: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func CheckTag(s string) error {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' || strings.Trim(s, upper+lower+digits+"_.-") != "" {
		return fmt.Errorf("tag %.140q is malformed: want up to %d of letters, digits, _ . - and no . or - first", s, maxTag)
	}
	return nil
}

// validPath knows parts of [a-z0-9]+ joined by one dot, one or two underscores, or dashes.
func validPath(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !validPart(part) {
			return false
		}
	}
	return true
}

func validPart(s string) bool {
	for {
		rest := strings.TrimLeft(s, lower+digits)
		switch rest {
		case s: // a separator first or last, or nothing at all
			return false
		case "":
			return true
		}
		s = strings.TrimLeft(rest, "._-")
		sep := rest[:len(rest)-len(s)]
		if sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
	}
}

func validDomain(s string) bool {
	host := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		port := s[i+1:]
		if host = s[:i]; port == "" || len(port) > 5 || strings.Trim(port, digits) != "" {
			return false
		}
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		return len(host) > 2 && strings.Trim(host[1:len(host)-1], "abcdefABCDEF:"+digits) == ""
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, upper+lower+digits+"-") != "" {
			return false
		}
	}
	return true
}
