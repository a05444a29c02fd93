// Package auth proves to registries who asks: it parses challenges, fetches tokens, and keeps credentials from getting to
// anybody but the origin that they belong to. It serves both sides: the registry uses the same challenges and scopes.
//
//	client ──GET /v2/a/manifests/x──────────────────────────► registry
//	       ◄─401 WWW-Authenticate: Bearer realm=R,service=S───
//	       ──GET R?service=S&scope=repository:a:pull──► R       with the credential of the registry, if R may have it
//	       ◄─{"token": T, "expires_in": 300}───────────
//	       ──GET /v2/a/manifests/x, Authorization: Bearer T───► registry
package auth

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Origin is a scheme, a host and a port: what a credential is bound to. Origins are compared with ==. The zero Origin is
// nobody's. Others come from OriginOf and ParseOrigin only.
type Origin struct {
	scheme string // http or https
	host   string // lower case, without port and brackets
	port   string // decimal, never empty
}

// OriginOf returns the origin of an absolute http or https URL. A URL with user information is refused: what looks like a
// host there is not one.
func OriginOf(u *url.URL) (Origin, error) {
	if u == nil {
		return Origin{}, errors.New("URL is missing")
	}
	if u.User != nil {
		return Origin{}, fmt.Errorf("URL of %q has user information before its host", u.Host)
	}
	o := Origin{scheme: strings.ToLower(u.Scheme), host: strings.ToLower(u.Hostname()), port: u.Port()}
	if o.scheme != "http" && o.scheme != "https" {
		return Origin{}, fmt.Errorf("URL of %q has scheme %.20q; want http or https", u.Host, u.Scheme)
	}
	if !validHost(o.host) {
		return Origin{}, fmt.Errorf("URL has no valid host: %.300q", u.Host)
	}
	switch {
	case o.port == "" && o.scheme == "https":
		o.port = "443"
	case o.port == "":
		o.port = "80"
	}
	n, err := strconv.ParseUint(o.port, 10, 16)
	if err != nil || n == 0 {
		return Origin{}, fmt.Errorf("URL of %q has no valid port", u.Host)
	}
	o.port = strconv.FormatUint(n, 10)
	return o, nil
}

// ParseOrigin parses SCHEME://HOST[:PORT].
func ParseOrigin(s string) (Origin, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Origin{}, fmt.Errorf("parse origin %.300q: not a URL", s)
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return Origin{}, fmt.Errorf("parse origin %.300q: want SCHEME://HOST[:PORT] and nothing after it", s)
	}
	return OriginOf(u)
}

// validHost accepts names of letters, digits, - _ and dots, and addresses.
func validHost(h string) bool {
	if h == "" || len(h) > 255 {
		return false
	}
	if strings.Contains(h, ":") {
		_, err := netip.ParseAddr(h)
		return err == nil
	}
	return strings.Trim(h, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == "" && h[0] != '.' && !strings.Contains(h, "..")
}

// String returns SCHEME://HOST[:PORT], without the scheme's default port.
func (o Origin) String() string {
	if o == (Origin{}) {
		return "(no origin)"
	}
	return o.scheme + "://" + o.Host()
}

// Host returns HOST[:PORT], without the scheme's default port: as configuration files name a registry.
func (o Origin) Host() string {
	if o.scheme == "https" && o.port == "443" || o.scheme == "http" && o.port == "80" {
		if strings.Contains(o.host, ":") {
			return "[" + o.host + "]"
		}
		return o.host
	}
	return net.JoinHostPort(o.host, o.port)
}

// Hostname returns the host without port and brackets.
func (o Origin) Hostname() string { return o.host }

// Plain reports whether the origin is spoken to without TLS.
func (o Origin) Plain() bool { return o.scheme == "http" }

// Loopback reports whether a host by its name alone, never by what a name server answers, is this machine: localhost,
// 127.0.0.0/8 or ::1 (CVE-2026-92543). host is without port and brackets.
func Loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Zone() == "" && (a.Is4() && a.IsLoopback() || a == netip.IPv6Loopback())
}
