package auth

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

const maxRealm = 4096 // bytes of a realm's URL

// realm is a token server that a registry named, after the rules of docs/decisions/0012.
type realm struct {
	url       *url.URL
	origin    Origin
	distrust  string // why it gets no credential; empty: it gets the one of the registry
	transport http.RoundTripper
}

// realm applies the rules to what the registry's challenge says.
func (t *Transport) realm(unsafe string) (realm, error) {
	bad := func(why string) (realm, error) {
		return realm{}, fmt.Errorf("its token server %.300q is refused: %s", strip(unsafe), why)
	}
	if len(unsafe) > maxRealm {
		return bad(fmt.Sprintf("the URL is longer than %d bytes", maxRealm))
	}
	u, err := url.Parse(unsafe)
	if err != nil || u.Fragment != "" {
		return bad("not a URL of a token server")
	}
	if u.User != nil {
		return bad("it has user information")
	}
	o, err := OriginOf(u)
	if err != nil {
		return bad(err.Error())
	}
	r := realm{url: u, origin: o}
	if !trusts(t.c.Realms, t.c.Origin, o) {
		if o.Plain() && !t.c.Origin.Plain() {
			return bad("it has no TLS, unlike the registry")
		}
		_, r.distrust = relation(t.c.Origin, o)
	}
	r.transport, err = t.realmTransport(o)
	return r, err
}

// strip removes user information and the query from a text that goes into an error.
func strip(s string) string {
	s, _, _ = strings.Cut(s, "?")
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			rest = "…" + rest[i:]
		}
		return scheme + "://" + rest
	}
	return s
}

// relation says how far a realm is trusted by its name.
func relation(registry, realm Origin) (reach, string) {
	same := registry.Hostname() == realm.Hostname()
	switch {
	case same, registry.Plain() && Loopback(registry.Hostname()) && Loopback(realm.Hostname()):
		return anywhere, ""
	case realm.Plain():
		return foreign, "which has no TLS and is another host"
	case wellKnown(registry.Hostname(), realm.Hostname()) || sameDomain(registry.Hostname(), realm.Hostname()):
		return related, ""
	}
	return foreign, "which belongs to another domain than the registry"
}

// wellKnown are registries whose token server has another domain.
func wellKnown(registry, realm string) bool {
	switch {
	case registry == "registry-1.docker.io", registry == "index.docker.io", registry == "docker.io":
		return realm == "auth.docker.io"
	case strings.HasPrefix(registry, "rg.") && strings.HasSuffix(registry, ".scw.cloud"):
		return realm == "api.scaleway.com"
	}
	return false
}

// sameDomain reports whether both hosts are below one name that somebody registered: registry.example.com and
// auth.example.com, but not two names below co.uk.
func sameDomain(a, b string) bool {
	if _, err := netip.ParseAddr(a); err == nil {
		return false
	}
	da, err := publicsuffix.EffectiveTLDPlusOne(strings.TrimSuffix(a, "."))
	if err != nil {
		return false
	}
	db, err := publicsuffix.EffectiveTLDPlusOne(strings.TrimSuffix(b, "."))
	return err == nil && da == db
}

// realmTransport returns the connection pool for a token server.
func (t *Transport) realmTransport(o Origin) (http.RoundTripper, error) {
	if o == t.c.Origin {
		return t.c.Base, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if rt := t.realms[o]; rt != nil {
		return rt, nil
	}
	tr, err := t.c.RealmTransport(o)
	if err != nil {
		return nil, fmt.Errorf("token server %s: %w", o, err)
	}
	if len(t.realms) >= 16 {
		return nil, errors.New("it names more than 16 token servers")
	}
	rt := guard(t.c.Origin, tr, true, t.c.Realms)
	t.realms[o] = rt
	return rt, nil
}

// defaultTransport verifies with the system's certificates.
func defaultTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  tokenTimeout,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}
}
