package hosts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tare-oci/tare/distribution/auth"
)

// recorder is a server that remembers what it saw.
type recorder struct {
	*httptest.Server
	mu  sync.Mutex
	log []string // "METHOD URI AUTHORIZATION"
	do  http.HandlerFunc
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	r.log = append(r.log, strings.TrimSpace(q.Method+" "+q.RequestURI+" "+q.Header.Get("Authorization")))
	r.mu.Unlock()
	if r.do != nil {
		r.do(w, q)
	}
}

// seen returns what was asked since the last call.
func (r *recorder) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.log
	r.log = nil
	return l
}

func (r *recorder) host() string { return r.Listener.Addr().String() }

func record(t *testing.T, do http.HandlerFunc) *recorder {
	t.Helper()
	r := &recorder{do: do}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// authority is a certificate authority for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key, a.pem, _ = a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue makes a certificate, signed by a or, for a's own, by itself; both in PEM form, too.
func (a *authority) issue(c *x509.Certificate) (cert *x509.Certificate, key *ecdsa.PrivateKey, certPEM, keyPEM string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: "test"}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := c, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

// serve starts a TLS server with a certificate of a for 127.0.0.1.
func (a *authority) serve(do http.HandlerFunc, clientCert bool) *recorder {
	a.t.Helper()
	_, _, cert, key := a.issue(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		a.t.Fatal(err)
	}
	r := &recorder{do: do}
	r.Server = httptest.NewUnstartedServer(r)
	r.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if clientCert {
		r.TLS.ClientAuth, r.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		r.TLS.ClientCAs.AddCert(a.cert)
	}
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.StartTLS()
	a.t.Cleanup(r.Close)
	return r
}

// keys is a Keychain with a credential for every origin; it remembers for whom it was asked.
type keys struct {
	t     *testing.T
	only  map[auth.Origin]string // passwords; nil: everybody has "secret-of-ORIGIN"
	mu    sync.Mutex
	asked []string
}

func (k *keys) Find(_ context.Context, o auth.Origin, _ string) (auth.Credential, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, o.String())
	password, ok := k.only[o]
	if k.only != nil && !ok {
		return auth.Credential{}, nil
	}
	if k.only == nil {
		password = "secret-of-" + o.String()
	}
	return auth.NewCredential(o, auth.Secret{Username: "u", Password: password}, "key of "+o.Host())
}

// get asks e for a path and returns status and body.
func get(t *testing.T, ctx context.Context, cfg *Config, e Endpoint, k auth.Keychain, path string) (string, error) {
	t.Helper()
	c, err := cfg.Client(e, k)
	if err != nil {
		return "", err
	}
	u := e.Base()
	u.Path += "/v2/" + path
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", resp.StatusCode)
	}
	return string(body), nil
}

// first returns the only endpoint of an image.
func first(t *testing.T, cfg *Config, image string) Endpoint {
	t.Helper()
	list, err := cfg.Endpoints(name(t, image))
	if err != nil || len(list) != 1 {
		t.Fatalf("endpoints %v, %v", list, err)
	}
	return list[0]
}

func basic(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
	w.WriteHeader(http.StatusUnauthorized)
}

// TestMirrorCredentials_moby42022: PR#52532, demand row 18. Each endpoint sees its own credential and never another's, and an
// observer is told which one was used.
func TestMirrorCredentials_moby42022(t *testing.T) {
	m1, m2 := record(t, basic), record(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	up := record(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			basic(w, r)
		}
	})
	cfg, err := load(t, map[string]string{"a.toml": fmt.Sprintf("[registry.%q]\nmirrors = [%q, %q]\n", up.host(), m1.URL, m2.URL)})
	if err != nil {
		t.Fatal(err)
	}
	list, err := cfg.Endpoints(name(t, up.host()+"/a"))
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	k := &keys{t: t}
	for i, c := range []struct {
		r          *recorder
		credential bool
		err        string
	}{{m1, true, "status 401"}, {m2, false, "status 403"}, {up, true, ""}} {
		var used []string
		ctx := auth.WithObserver(t.Context(), func(e auth.Event) {
			if e.Step == auth.StepCredential {
				used = append(used, e.Credential)
			}
			if s := fmt.Sprintf("%+v", e); strings.Contains(s, "secret-of") {
				t.Errorf("a secret is in the event: %s", s)
			}
		})
		_, err := get(t, ctx, cfg, list[i], k, list[i].Repository+"/manifests/latest")
		if c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err) {
			t.Errorf("%s: %v, want %q", list[i], err, c.err)
		}
		want, wantUsed := "GET /v2/a/manifests/latest", ""
		if c.credential {
			q := &http.Request{Header: http.Header{}}
			q.SetBasicAuth("u", "secret-of-http://"+c.r.host())
			want += "\nGET /v2/a/manifests/latest " + q.Header.Get("Authorization")
			wantUsed = "key of " + c.r.host()
		}
		if got := strings.Join(c.r.seen(), "\n"); got != want {
			t.Errorf("%s saw\n%s\nwant\n%s", list[i], got, want)
		}
		if got := strings.Join(used, " "); got != wantUsed {
			t.Errorf("%s: credential %q, want %q", list[i], got, wantUsed)
		}
	}
}

// TestRedirectsCVE_2022_23538: GHSA-vh4v-2xq2-g5cg, K6. A redirect to another port or scheme has neither the credential nor
// the configured headers.
func TestRedirectsCVE_2022_23538(t *testing.T) {
	ca := newAuthority(t)
	var extra string
	target := ca.serve(func(_ http.ResponseWriter, r *http.Request) { extra = r.Header.Get("X-Extra") }, false)
	reg := record(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			basic(w, r)
			return
		}
		http.Redirect(w, r, target.URL+"/blob", http.StatusTemporaryRedirect)
	})
	cfg, err := load(t, map[string]string{"a.toml": fmt.Sprintf("[registry.%q]\nplain-http = true\nheader = {X-Extra = \"x\"}\n", reg.host()),
		"certs.d/" + reg.host() + "/ca.crt": ca.pem})
	if err != nil {
		t.Fatal(err)
	}
	e := first(t, cfg, reg.host()+"/a")
	if _, err := get(t, t.Context(), cfg, e, &keys{t: t}, "a/blobs/x"); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(target.seen(), "\n"); got != "GET /blob" || extra != "" {
		t.Errorf("the target of the redirect saw %q and %q", got, extra)
	}
}

// TestRedirectDowngrade: a redirect from TLS to plain http is refused.
func TestRedirectDowngrade(t *testing.T) {
	ca := newAuthority(t)
	target := record(t, nil)
	reg := ca.serve(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target.URL+"/blob", http.StatusTemporaryRedirect)
	}, false)
	cfg, err := load(t, map[string]string{"certs.d/" + reg.host() + "/ca.crt": ca.pem})
	if err != nil {
		t.Fatal(err)
	}
	_, err = get(t, t.Context(), cfg, first(t, cfg, reg.host()+"/a"), nil, "a/blobs/x")
	if err == nil || !strings.Contains(err.Error(), "from TLS to plain http") || len(target.seen()) != 0 {
		t.Errorf("error %v", err)
	}
}

// TestTLSCVE_2025_6032: certificates are verified, by certs.d too.
func TestTLSCVE_2025_6032(t *testing.T) {
	ca := newAuthority(t)
	_, _, cert, key := ca.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	ok := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }
	plain, closed := ca.serve(ok, false), ca.serve(ok, true)
	for _, c := range []struct {
		what  string
		r     *recorder
		files map[string]string
		want  string // in the error; empty: none
	}{
		{"self-signed", plain, map[string]string{"a.toml": "[registry.\"HOST\"]\nplain-http = false"}, "certificate signed by unknown authority"},
		{"with the authority", plain, map[string]string{"certs.d/HOST/ca.crt": ca.pem}, ""},
		{"with another authority", plain, map[string]string{"certs.d/HOST/ca.crt": newAuthority(t).pem}, "certificate signed by unknown authority"},
		{"by choice", plain, map[string]string{"a.toml": "[registry.\"HOST\"]\nplain-http = false\nskip-verify = true"}, ""},
		{"without client certificate", closed, map[string]string{"certs.d/HOST/ca.crt": ca.pem}, "certificate required"},
		{"with client certificate", closed, map[string]string{"certs.d/HOST/ca.crt": ca.pem, "certs.d/HOST/client.cert": cert, "certs.d/HOST/client.key": key}, ""},
		{"hosts.toml", closed, map[string]string{"containerd/HOST/hosts.toml": "server = \"https://HOST\"\nca = \"ca.pem\"\nclient = [[\"c.pem\", \"k.pem\"]]",
			"containerd/HOST/ca.pem": ca.pem, "containerd/HOST/c.pem": cert, "containerd/HOST/k.pem": key}, ""},
		{"key without certificate", closed, map[string]string{"certs.d/HOST/client.key": key}, "has no certificate client.cert beside it"},
		{"no PEM", plain, map[string]string{"certs.d/HOST/ca.crt": "x"}, "no certificate in PEM form"},
	} {
		files := map[string]string{}
		for f, content := range c.files {
			files[strings.ReplaceAll(f, "HOST", c.r.host())] = strings.ReplaceAll(content, "HOST", c.r.host())
		}
		cfg, err := load(t, files)
		if err != nil {
			t.Fatal(err)
		}
		list, err := cfg.Endpoints(name(t, c.r.host()+"/a"))
		body := ""
		if err == nil {
			body, err = get(t, t.Context(), cfg, list[0], nil, "")
		}
		if c.want == "" && (err != nil || body != "ok") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %q, %v, want %q", c.what, body, err, c.want)
		}
	}
}

// TestNoFallbackCVE_2014_5277: after TLS failed nothing is sent in plain.
func TestNoFallbackCVE_2014_5277(t *testing.T) {
	var plainBytes []byte
	l, err := net.Listen("tcp", "127.0.0.1:0") // answers TLS with nonsense
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 4096)
			n, _ := c.Read(b)
			plainBytes = append(plainBytes, b[:n]...)
			io.WriteString(c, "HTTP/1.1 400 no TLS here\r\nContent-Length: 0\r\n\r\n")
			c.Close()
		}
	}()
	cfg, err := load(t, map[string]string{"a.toml": fmt.Sprintf("[registry.%q]\nplain-http = false", l.Addr())})
	if err != nil {
		t.Fatal(err)
	}
	k := &keys{t: t}
	if _, err := get(t, t.Context(), cfg, first(t, cfg, l.Addr().String()+"/a"), k, ""); err == nil {
		t.Error("a server without TLS is taken")
	}
	l.Close()
	<-done
	if strings.Contains(string(plainBytes), "HTTP/1.1") || strings.Contains(string(plainBytes), "GET ") || len(plainBytes) == 0 || plainBytes[0] != 0x16 {
		t.Errorf("sent in plain: %q", plainBytes)
	}
}

// TestRealmIsVerifiedCVE_2019_10214: That the registry's certificate is not verified does not extend to another host that it
// names as token server.
func TestRealmIsVerifiedCVE_2019_10214(t *testing.T) {
	ca := newAuthority(t)
	realm := ca.serve(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"token":"t"}`) }, false)
	_, port, _ := net.SplitHostPort(realm.host())
	reg := ca.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://localhost:`+port+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}, false)
	cfg, err := load(t, map[string]string{"a.toml": fmt.Sprintf("[registry.%q]\nplain-http = false\nskip-verify = true\n", reg.host())})
	if err != nil {
		t.Fatal(err)
	}
	_, err = get(t, t.Context(), cfg, first(t, cfg, reg.host()+"/a"), &keys{t: t}, "")
	if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") || len(realm.seen()) != 0 {
		t.Errorf("error %v", err)
	}
}

// TestRedirectToSameHost: a storage on another port of a registry that is not verified is not verified either; one on
// another host is.
func TestRedirectToSameHost(t *testing.T) {
	ca := newAuthority(t)
	storage := ca.serve(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "blob") }, false)
	to := storage.URL
	reg := ca.serve(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }, false)
	cfg, err := load(t, map[string]string{"a.toml": fmt.Sprintf("[registry.%q]\nplain-http = false\nskip-verify = true\n", reg.host())})
	if err != nil {
		t.Fatal(err)
	}
	e := first(t, cfg, reg.host()+"/a")
	if got, err := get(t, t.Context(), cfg, e, nil, ""); err != nil || got != "blob" {
		t.Errorf("%q, %v", got, err)
	}
	to = strings.Replace(to, "127.0.0.1", "localhost", 1)
	if _, err := get(t, t.Context(), cfg, e, nil, ""); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("another host: %v", err)
	}
}

// TestHelpersOfRegistriesConf: credential-helpers are asked after the files.
func TestHelpersOfRegistriesConf(t *testing.T) {
	bin := write(t, map[string]string{"docker-credential-global": "#!/bin/sh\necho '{\"Username\":\"u\",\"Secret\":\"global\"}'\n"})
	if err := os.Chmod(filepath.Join(bin, "docker-credential-global"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	reg := record(t, basic)
	cfg, err := load(t, map[string]string{"registries.conf": "credential-helpers = [\"containers-auth.json\", \"global\"]\n"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		k    auth.Keychain
		want string
	}{{nil, ""}, {&auth.Files{}, "u:global"}, {&keys{t: t}, "u:secret-of-" + reg.URL}} {
		get(t, t.Context(), cfg, first(t, cfg, reg.host()+"/a"), c.k, "")
		got, q := reg.seen(), &http.Request{Header: http.Header{}}
		q.Header.Set("Authorization", strings.TrimPrefix(got[len(got)-1], "GET /v2/ "))
		if user, password, _ := q.BasicAuth(); user+":"+password != c.want && c.want != "" || c.want == "" && len(got) != 1 {
			t.Errorf("the registry saw %q, want %q", got, c.want)
		}
	}
}

// TestProxy: K20.
func TestProxy(t *testing.T) {
	proxy := record(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "via proxy ", r.URL) })
	direct := record(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "direct") })
	env := map[string]string{"http_proxy": proxy.URL, "NO_PROXY": "other.example.com"}
	dir := write(t, map[string]string{"a.toml": "[registry.\"r.example.com\"]\nplain-http = true\n"})
	cfg, err := Load(Options{Files: []string{filepath.Join(dir, "a.toml")}, Getenv: func(n string) string { return env[n] }})
	if err != nil {
		t.Fatal(err)
	}
	for image, want := range map[string]string{"r.example.com/a": "via proxy http://r.example.com/v2/", direct.host() + "/a": "direct"} {
		if got, err := get(t, t.Context(), cfg, first(t, cfg, image), nil, ""); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", image, got, err, want)
		}
	}
	u := &url.URL{Scheme: "http", Host: "other.example.com"}
	if p, err := cfg.proxy(u); err != nil || p != nil {
		t.Errorf("NO_PROXY: %v, %v", p, err)
	}
}

// TestOverridePath: the API below another path, its headers and the User-Agent.
func TestOverridePath(t *testing.T) {
	var agent, key string
	m := record(t, func(_ http.ResponseWriter, r *http.Request) { agent, key = r.UserAgent(), r.Header.Get("X-Key") })
	dir := write(t, map[string]string{"q.io/hosts.toml": fmt.Sprintf("server = %q\noverride_path = true\n[header]\nx-key = [\"k\"]\n", m.URL+"/odd"),
		"m.io/hosts.toml": fmt.Sprintf("[host.%q]\n", m.URL)})
	cfg, err := Load(Options{UserAgent: "tare/test", Containerd: []string{dir}, Getenv: noEnv})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, t.Context(), cfg, first(t, cfg, "q.io/a"), nil, "a/tags/list"); err != nil {
		t.Fatal(err)
	}
	if got := m.seen(); len(got) != 1 || got[0] != "GET /odd/a/tags/list" || agent != "tare/test" || key != "k" {
		t.Errorf("saw %q, %q, %q", got, agent, key)
	}
	list, err := cfg.Endpoints(name(t, "m.io/a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, t.Context(), cfg, list[0], nil, "a/tags/list"); err != nil {
		t.Fatal(err)
	}
	if got := m.seen(); len(got) != 1 || got[0] != "GET /v2/a/tags/list?ns=m.io" {
		t.Errorf("the mirror saw %q", got)
	}
}

// TestDefaultOptions: the places where files are.
func TestDefaultOptions(t *testing.T) {
	o := DefaultOptions(func(n string) string { return map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/c"}[n] })
	if o.Files[len(o.Files)-1] != "/c/tare/registries.toml" || o.Containers[0] != "/c/containers/registries.conf" {
		t.Errorf("%+v", o)
	}
	if _, err := Load(Options{Files: []string{filepath.Join(t.TempDir(), "none")}, Containers: []string{"/nonexistent"}}); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "a.toml"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Options{Files: []string{filepath.Join(dir, "a.toml")}}); err == nil {
		t.Error("a directory in place of a file is taken for nothing")
	}
}
