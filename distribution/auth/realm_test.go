package auth

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// TestRealmCVE_2026_48978: T10: who may receive the credential of a registry, by the rules of docs/decisions/0012.
func TestRealmCVE_2026_48978(t *testing.T) {
	const yes, no = "credential", "anonymous"
	for _, c := range []struct {
		registry, realm string
		realms          []string
		want            string // yes, no, or what the refusal says
	}{
		{"https://registry-1.docker.io", "https://auth.docker.io/token", nil, yes},
		{"https://r.example.com", "https://auth.docker.io/token", nil, no},
		{"https://r.example.com", "https://r.example.com/token?x=y", nil, yes},
		{"https://r.example.com", "https://r.example.com:8443/token", nil, yes},
		{"https://r.example.com:5000", "https://auth.example.com/token", nil, yes},
		{"https://registry.gitlab.com", "https://gitlab.com/jwt/auth", nil, yes},
		{"https://registry.digitalocean.com", "https://api.digitalocean.com/v2/registry/auth", nil, yes},
		{"https://rg.fr-par.scw.cloud", "https://api.scaleway.com/registry/tokens", nil, yes},
		{"https://scw.cloud", "https://api.scaleway.com/registry/tokens", nil, no},
		{"https://r.example.com", "https://evil.com/token", nil, no},
		{"https://r.example.co.uk", "https://evil.co.uk/token", nil, no},
		{"https://a.github.io", "https://b.github.io/token", nil, no},
		{"https://r.example.com", "https://r.example.com.evil.com/token", nil, no},
		{"https://r.example.com", "https://auth.other.com/token", []string{"auth.other.com"}, yes},
		{"https://r.example.com", "https://auth.other.com:8443/token", []string{"auth.other.com"}, no},
		{"https://r.example.com", "https://auth.other.com/token", []string{"Auth.Other.com:443"}, yes},
		{"https://r.example.com", "http://auth.other.com/token", []string{"auth.other.com"}, "no TLS"},
		{"https://r.example.com", "http://auth.other.com/token", []string{"http://auth.other.com"}, yes},
		{"https://r.example.com", "http://r.example.com/token", nil, "no TLS"},
		{"https://r.example.com", "https://u:p@r.example.com/token", nil, "user information"},
		{"https://r.example.com", "https://r.example.com@evil.com/token", nil, "user information"},
		{"https://r.example.com", "https://r.example.com/token#x", nil, "not a URL"},
		{"https://r.example.com", "file:///etc/passwd", nil, "want http or https"},
		{"https://r.example.com", "/token", nil, "want http or https"},
		{"https://r.example.com", "", nil, "want http or https"},
		{"https://r.example.com", "https://" + strings.Repeat("a", maxRealm), nil, "longer than"},
		{"http://r.example.com", "http://r.example.com:5001/token", nil, yes},
		{"http://r.example.com", "http://auth.example.com/token", nil, no},
		{"http://r.example.com", "https://auth.example.com/token", nil, yes},
		{"http://10.0.0.5:5000", "http://10.0.0.6:5001/token", nil, no},
		{"http://10.0.0.5:5000", "http://10.0.0.6:5001/token", []string{"10.0.0.6:5001"}, yes},
		{"http://localhost:5000", "http://127.0.0.1:5001/token", nil, yes},
		{"https://10.0.0.5", "https://10.0.0.6/token", nil, no},
	} {
		tr, err := NewTransport(Config{Origin: originOf(t, c.registry), Base: http.DefaultTransport, Realms: c.realms})
		if err != nil {
			t.Fatal(err)
		}
		r, err := tr.realm(c.realm)
		got := yes
		switch {
		case err != nil:
			got = err.Error()
		case r.distrust != "":
			got = no
		}
		if !strings.Contains(got, c.want) || err != nil && strings.Contains(got, ":p@") {
			t.Errorf("%s names %.80s: %s, want %s", c.registry, c.realm, got, c.want)
		}
	}
}

// TestWithheldCVE_2026_48978: another host that a registry names gets no credential, and the error says why and what to do.
func TestWithheldCVE_2026_48978(t *testing.T) {
	f := newFake(t)
	o := originOf(t, "http://r.test")
	rt, err := NewTransport(Config{Origin: o, Base: toServer(f.registry), Keychain: Static{credential(t, o, Secret{Username: "alice", Password: "secret", IdentityToken: "i"})},
		RealmTransport: func(Origin) (*http.Transport, error) { return http.DefaultTransport.(*http.Transport).Clone(), nil }})
	if err != nil {
		t.Fatal(err)
	}
	f.challenge = func(*http.Request) []string { return []string{`Bearer realm="` + f.auth.URL + `/token"`} }
	get := func() error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://r.test/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := rt.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := get(); err == nil || !strings.Contains(err.Error(), "it leads to http://127.0.0.1") || !strings.Contains(err.Error(), "loopback address") {
		t.Errorf("CVE-2026-33990: a realm on loopback of a registry elsewhere: %v", err)
	}
	f.wantTokens()

	rt.realms[originOf(t, f.auth.URL)] = toServer(f.auth) // as if it were at a public address
	f.password = "secret"
	if err := get(); err == nil || !strings.Contains(err.Error(), "is not sent to the token server http://127.0.0.1") || !strings.Contains(err.Error(), "realms = [") {
		t.Errorf("error %v", err)
	}
	f.wantTokens("GET") // anonymous
	f.password = ""
	f.mu.Lock()
	f.token = func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"token":"anonymous"}`) } // which the registry does not like
	f.mu.Unlock()
	if err := get(); err == nil || !strings.Contains(err.Error(), "is not sent to the token server") {
		t.Errorf("error %v", err)
	}
	f.wantTokens("GET")
	f.challenge = func(*http.Request) []string {
		return []string{`Bearer realm="` + f.auth.URL + `/token",error="insufficient_scope"`}
	}
	if err := get(); err == nil || !strings.Contains(err.Error(), "is not sent to the token server") {
		t.Errorf("error %v", err)
	}
	f.wantTokens() // the token at hand is all that is to be had
}

// toServer returns a transport that goes to s whatever the host is.
func toServer(s *httptest.Server) http.RoundTripper {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", s.Listener.Addr().String())
	}}
}

// TestGuardCVE_2026_33990: to which addresses a registry may lead its clients.
func TestGuardCVE_2026_33990(t *testing.T) {
	for _, c := range []struct {
		registry, to string // addresses
		related      bool
		ok           bool
	}{
		{"1.2.3.4", "5.6.7.8", false, true},
		{"1.2.3.4", "127.0.0.1", false, false},
		{"1.2.3.4", "127.0.0.1", true, false},
		{"1.2.3.4", "169.254.169.254", true, false},
		{"1.2.3.4", "fe80::1", true, false},
		{"1.2.3.4", "0.0.0.0", true, false},
		{"1.2.3.4", "::", true, false},
		{"1.2.3.4", "10.1.1.1", false, false},
		{"1.2.3.4", "10.1.1.1", true, true},
		{"1.2.3.4", "100.100.100.200", false, false},
		{"1.2.3.4", "::ffff:127.0.0.1", false, false},
		{"1.2.3.4", "::ffff:10.0.0.1", false, false},
		{"1.2.3.4", "64:ff9b::a00:1", false, false},
		{"1.2.3.4", "fd00:ec2::254", false, false},
		{"1.2.3.4", "2606:4700::1", false, true},
		{"10.1.1.1", "192.168.1.1", false, true},
		{"10.1.1.1", "127.0.0.1", false, false},
		{"10.1.1.1", "169.254.169.254", false, false},
		{"127.0.0.1", "127.0.0.1", false, true},
		{"127.0.0.1", "10.1.1.1", false, true},
		{"127.0.0.1", "169.254.169.254", false, false},
	} {
		r := foreign
		if c.related {
			r = related
		}
		err := r.check(classOf(netip.MustParseAddr(c.registry)), classOf(netip.MustParseAddr(c.to)))
		if (err == nil) != c.ok {
			t.Errorf("registry at %s leads to %s (related %v): %v, want allowed %v", c.registry, c.to, c.related, err, c.ok)
		}
	}
	for _, c := range []struct {
		to     string
		strict bool
		want   string
	}{ // connections to these would fail: no error by the guard is what counts
		{"http://10.255.255.1:1", false, "private address"}, {"https://10.255.255.1:1", true, "private address"}, {"https://10.255.255.1:1", false, "canceled"},
		{"https://169.254.169.254", false, "link-local address"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.to, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := guard(originOf(t, "https://1.2.3.4"), &http.Transport{}, c.strict, nil).RoundTrip(r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, strict %v: %v, want %q", c.to, c.strict, err, c.want)
		}
	}
	hit := false
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hit = true }))
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	ask := func(registry, to string, trusted ...string) error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := Guard(originOf(t, registry), &http.Transport{}, trusted...).RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	for _, to := range []string{s.URL, "http://localhost:" + port, "http://x.localhost:" + port} {
		if err := ask("https://1.2.3.4", to); err == nil || !strings.Contains(err.Error(), "loopback address") || hit {
			t.Errorf("%s: error %v", to, err)
		}
	}
	if err := ask("https://1.2.3.4", s.URL, s.URL); err != nil || !hit {
		t.Errorf("what the user trusts: %v", err)
	}
	hit = false
	v := guardValue{originOf(t, "https://1.2.3.4"), public, s.Listener.Addr().String(), foreign} // a name that resolves to loopback
	if c, err := guardedDial(context.WithValue(t.Context(), guardKey{}, v), "tcp", v.target); err == nil || !strings.Contains(err.Error(), "loopback address") {
		t.Errorf("dial: %v, %v", c, err)
	}
}

// TestLoopbackCVE_2026_92543: by the name alone.
func TestLoopbackCVE_2026_92543(t *testing.T) {
	for host, want := range map[string]bool{"localhost": true, "LOCALHOST": true, "127.0.0.1": true, "127.1.2.3": true, "::1": true,
		"localhost.example.com": false, "127.0.0.1.nip.io": false, "0.0.0.0": false, "::": false, "::ffff:127.0.0.1": false, "128.0.0.1": false, "": false} {
		if Loopback(host) != want {
			t.Errorf("%q: want %v", host, want)
		}
	}
}
