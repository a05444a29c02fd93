package auth

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"
)

// reach says to which addresses a name that a registry gives may lead.
type reach int

const (
	anywhere reach = iota // the user or the registry's own name vouches for it
	related               // public and private addresses, and where the registry is
	foreign               // public addresses, and where the registry is
)

// class is what an address is on the network.
type class int

const (
	public class = iota
	private
	loopback
	local // link-local, unspecified, multicast: where clouds answer with secrets (169.254.169.254)
	unknown
)

func (c class) String() string {
	return [...]string{"public", "private", "loopback", "link-local", "unknown"}[c]
}

func classOf(a netip.Addr) class {
	a = a.Unmap().WithZone("")
	if nat64 := netip.MustParsePrefix("64:ff9b::/96"); nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	switch {
	case a.IsLoopback():
		return loopback
	case a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast():
		return local
	case a.IsPrivate():
		return private
	}
	for _, p := range []string{"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4"} {
		if netip.MustParsePrefix(p).Contains(a) {
			return private
		}
	}
	return public
}

// literal returns the class of a host that is an address or localhost, and unknown for other names.
func literal(host string) class {
	if a, err := netip.ParseAddr(host); err == nil {
		return classOf(a)
	}
	if h := strings.TrimSuffix(host, "."); h == "localhost" || strings.HasSuffix(h, ".localhost") {
		return loopback
	}
	return unknown
}

// classOfHost resolves a name; of several addresses the most public one counts. A name without an address, as behind a
// proxy, is public.
func classOfHost(ctx context.Context, host string) class {
	if c := literal(host); c != unknown {
		return c
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(addrs) == 0 {
		return public
	}
	most := classOf(addrs[0])
	for _, a := range addrs[1:] {
		most = min(most, classOf(a))
	}
	return most
}

// check says whether a server of class c may be asked on the word of a registry of class registry (CVE-2026-33990).
func (r reach) check(registry, c class) error {
	if r == anywhere || c == public || c == unknown || c == registry || c == private && (registry == loopback || r == related) {
		return nil
	}
	return fmt.Errorf("it is at a %s address, and the registry is not", c)
}

// Guard returns a RoundTripper over base for where a registry redirects its clients. It refuses loopback, link-local and
// private addresses unless the registry is there itself or has the same name; private ones are taken with TLS, too, or with
// a name below the same registered domain: a registry must not make its clients ask the services of their own network
// (CVE-2026-33990). The very address that is connected to is checked, so that a name server's second answer makes no
// difference; behind a proxy only what the URL itself says. Origins in trusted (HOST[:PORT] with TLS, or SCHEME://HOST[:PORT])
// may have any address. Guard sets base.DialContext.
func Guard(registry Origin, base *http.Transport, trusted ...string) http.RoundTripper {
	return guard(registry, base, false, trusted)
}

func guard(registry Origin, base *http.Transport, strict bool, trusted []string) http.RoundTripper {
	base.DialContext = guardedDial
	return &guarded{registry: registry, base: base, trusted: trusted, strict: strict}
}

type guarded struct {
	registry Origin
	base     *http.Transport
	trusted  []string
	strict   bool // private addresses with TLS are refused, too

	mu    sync.Mutex
	class class // of the registry
	until time.Time
}

// at returns the class of the registry's address, which is looked up once a minute.
func (g *guarded) at(ctx context.Context) class {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); now.After(g.until) {
		g.class, g.until = classOfHost(ctx, g.registry.Hostname()), now.Add(time.Minute)
	}
	return g.class
}

// trusts reports whether the user named o: as a whole origin, or as a host with TLS (or without, like the registry itself).
func trusts(list []string, registry, o Origin) bool {
	for _, t := range list {
		schemes := []string{"https://"}
		if strings.Contains(t, "://") {
			schemes = []string{""}
		} else if registry.Plain() {
			schemes = append(schemes, "http://")
		}
		for _, s := range schemes {
			if p, err := ParseOrigin(s + t); err == nil && p == o {
				return true
			}
		}
	}
	return false
}

// RoundTrip implements http.RoundTripper.
func (g *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	to, err := OriginOf(r.URL)
	if err != nil {
		closeBody(r)
		return nil, err
	}
	reach, _ := relation(g.registry, to)
	if reach == foreign && !g.strict && !to.Plain() {
		reach = related // a storage whose certificate is verified, as at clouds' private endpoints
	}
	if reach != anywhere && !trusts(g.trusted, g.registry, to) {
		registry := g.at(r.Context())
		if err := reach.check(registry, literal(to.Hostname())); err != nil {
			closeBody(r)
			return nil, fmt.Errorf("registry %s: it leads to %s: %w", g.registry, to, err)
		}
		ctx := context.WithValue(r.Context(), guardKey{}, guardValue{g.registry, registry, net.JoinHostPort(to.host, to.port), reach})
		r = r.WithContext(ctx)
	}
	return g.base.RoundTrip(r)
}

type guardKey struct{}

// guardValue goes with a request to guardedDial, which is told the address of a proxy if there is one.
type guardValue struct {
	registry Origin
	at       class
	target   string
	reach    reach
}

func guardedDial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: tokenTimeout}
	if v, ok := ctx.Value(guardKey{}).(guardValue); ok && strings.EqualFold(addr, v.target) {
		d.ControlContext = func(_ context.Context, _, to string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(to)
			if err != nil {
				return err
			}
			if err := v.reach.check(v.at, classOf(a.Addr())); err != nil {
				return fmt.Errorf("registry %s: it leads to %s: %w", v.registry, addr, err)
			}
			return nil
		}
	}
	return d.DialContext(ctx, network, addr)
}
