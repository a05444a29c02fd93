package auth

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
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

// Guard returns a RoundTripper over base for where a registry sends its clients: redirects and token servers. It refuses
// loopback, link-local and private addresses unless the registry is there itself, has the same name, or (private ones) a
// name below the same registered domain: a registry must not make its clients ask the services of their own network
// (CVE-2026-33990). The very address that is connected to is checked, so that a name server's second answer makes no
// difference; behind a proxy only what the URL itself says. Guard sets base.DialContext.
func Guard(registry Origin, base *http.Transport) http.RoundTripper {
	return guard(registry, base, false)
}

func guard(registry Origin, base *http.Transport, trusted bool) http.RoundTripper {
	base.DialContext = guardedDial
	return guarded{registry: registry, base: base, trusted: trusted}
}

type guarded struct {
	registry Origin
	base     *http.Transport
	trusted  bool // whatever the address: the user named it
}

// RoundTrip implements http.RoundTripper.
func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	to, err := OriginOf(r.URL)
	if err != nil {
		closeBody(r)
		return nil, err
	}
	reach, _ := relation(g.registry, to)
	if reach != anywhere && !g.trusted {
		registry := classOfHost(r.Context(), g.registry.Hostname())
		if err := reach.check(registry, literal(to.Hostname())); err != nil {
			closeBody(r)
			return nil, fmt.Errorf("registry %s: it leads to %s: %w", g.registry, to, err)
		}
		ctx := context.WithValue(r.Context(), guardKey{}, guardValue{g.registry, registry, net.JoinHostPort(to.host, to.port), reach})
		r = r.WithContext(ctx)
	}
	return g.base.RoundTrip(r)
}

// CloseIdleConnections closes the connections of base.
func (g guarded) CloseIdleConnections() { g.base.CloseIdleConnections() }

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
