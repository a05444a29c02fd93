package hosts

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution/auth"
)

const (
	dialTimeout    = 30 * time.Second
	headerTimeout  = 10 * time.Minute // a registry that hashes a large upload answers late
	idleTimeout    = 90 * time.Second
	maxIdle        = 32       // connections kept per host
	bufferSize     = 64 << 10 // bytes
	maxRedirects   = 10
	maxHeaderBytes = 256 << 10
	maxCertFile    = 1 << 20 // bytes
	maxCertFiles   = 100     // in one directory
)

// tlsFiles is how one host is believed, and how it believes us. The zero value: the system's certificates.
type tlsFiles struct {
	cas        []string
	pairs      [][2]string // certificate and key; equal if one file has both
	skipVerify bool
}

func (t tlsFiles) empty() bool { return len(t.cas) == 0 && len(t.pairs) == 0 && !t.skipVerify }

func (t tlsFiles) merge(o tlsFiles) tlsFiles {
	return tlsFiles{slices.Concat(t.cas, o.cas), slices.Concat(t.pairs, o.pairs), t.skipVerify || o.skipVerify}
}

// certs reads the names in the certs.d directories of a host: *.crt are certificate authorities, *.cert with *.key of the
// same name certificates of the client. The first directory that exists counts.
func (c *Config) certs(host string) (tlsFiles, error) {
	var t tlsFiles
	for _, root := range c.options.Certs {
		dir := filepath.Join(root, host)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) { // Docker makes /etc/docker for root alone
			continue
		}
		if err != nil {
			return t, fmt.Errorf("read certificates: %w", err)
		}
		if len(entries) > maxCertFiles {
			return t, fmt.Errorf("read certificates: %s has more than %d files", dir, maxCertFiles)
		}
		for _, e := range entries {
			base, ext := filepath.Join(dir, e.Name()), filepath.Ext(e.Name())
			base = strings.TrimSuffix(base, ext)
			switch ext {
			case ".crt":
				t.cas = append(t.cas, base+ext)
			case ".cert":
				t.pairs = append(t.pairs, [2]string{base + ext, base + ".key"})
			case ".key":
				if _, err := os.Stat(base + ".cert"); err != nil {
					return t, fmt.Errorf("read certificates: %s.key has no certificate %s.cert beside it; authorities end in .crt", base, filepath.Base(base))
				}
			}
		}
		if !t.empty() {
			break
		}
	}
	return t, nil
}

// config returns the TLS configuration for the host itself; foreign is the same without what is for that host alone: client
// certificates and doing without verification.
func (t tlsFiles) config(foreign bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: minTLS, InsecureSkipVerify: t.skipVerify && !foreign}
	if len(t.cas) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, f := range t.cas {
			data, err := readSmall(f)
			if err != nil {
				return nil, fmt.Errorf("read certificate authority: %w", err)
			}
			if !pool.AppendCertsFromPEM(data) {
				return nil, fmt.Errorf("read certificate authority %s: no certificate in PEM form in it", f)
			}
		}
		c.RootCAs = pool
	}
	if foreign {
		return c, nil
	}
	for _, p := range t.pairs {
		cert, err := readSmall(p[0])
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		key, err := readSmall(p[1])
		if err != nil {
			return nil, fmt.Errorf("read key of client certificate: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate %s: %w", p[0], err)
		}
		c.Certificates = append(c.Certificates, pair)
	}
	return c, nil
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCertFile+1))
	if err == nil && len(data) > maxCertFile {
		err = fmt.Errorf("%s: more than %d bytes", path, maxCertFile)
	}
	return data, err
}

// transport returns a new connection pool.
func (c *Config) transport(t *tls.Config) *http.Transport {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return c.proxy(r.URL) },
		DialContext:            d.DialContext,
		TLSClientConfig:        t,
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    maxIdle,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ReadBufferSize:         bufferSize,
		WriteBufferSize:        bufferSize,
		ExpectContinueTimeout:  time.Second,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // digests are of what is stored, not of what was transferred
	}
}

// Client returns a client for requests to e, with a pool of connections and a set of tokens of its own. What k has for the
// origin of e is sent there and nowhere else: to no mirror, no redirect target, and to token servers by the rules of
// docs/decisions/0012. k may be nil: anonymous. Clients for one endpoint share connections. The client follows at most ten
// redirects, and none from TLS to plain http; it has no time limit for bodies.
func (c *Config) Client(e Endpoint, k auth.Keychain) (*http.Client, error) {
	t, err := c.Transport(e, k)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: t, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		if r.URL.Scheme != "https" && via[len(via)-1].URL.Scheme == "https" {
			return fmt.Errorf("%s redirects from TLS to plain http at %s, which is refused", via[len(via)-1].URL.Host, r.URL.Host)
		}
		return nil
	}}, nil
}

// Transport returns the transport of Client, which follows no redirects.
func (c *Config) Transport(e Endpoint, k auth.Keychain) (http.RoundTripper, error) {
	own, err := c.pool(e, false)
	if err != nil {
		return nil, err
	}
	other, err := c.pool(e, true)
	if err != nil {
		return nil, err
	}
	if k != nil && len(c.helpers) > 0 {
		k = chain{k, c.helpers}
	}
	t, err := auth.NewTransport(auth.Config{
		Origin: e.Origin, Base: own, Keychain: k, Repository: e.Repository,
		Other:  elsewhere{host: e.Origin.Hostname(), same: own, other: auth.Guard(e.Origin, other, e.redirects...)},
		Realms: e.realms, UserAgent: c.options.UserAgent,
		RealmTransport: func(realm auth.Origin) (*http.Transport, error) {
			cfg, err := e.tls.config(realm.Hostname() != e.Origin.Hostname())
			if err != nil {
				return nil, err
			}
			return c.transport(cfg), nil
		},
	})
	if err != nil {
		return nil, err
	}
	return endpointTransport{next: t, e: e, agent: c.options.UserAgent}, nil
}

// pool returns the connections to e, or those to where e redirects.
func (c *Config) pool(e Endpoint, other bool) (*http.Transport, error) {
	key := fmt.Sprintf("%s %v %x", e.Origin, other, sha256.Sum256(fmt.Append(nil, e.tls)))
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.pools[key]; t != nil {
		return t, nil
	}
	cfg, err := e.tls.config(other)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", e.Origin, err)
	}
	t := c.transport(cfg)
	c.pools[key] = t
	return t, nil
}

// CloseIdleConnections closes the connections that no request uses.
func (c *Config) CloseIdleConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.pools {
		t.CloseIdleConnections()
	}
}

// chain asks the files and then the helpers that are for all registries.
type chain struct {
	first   auth.Keychain
	helpers []auth.Helper
}

// Find implements auth.Keychain.
func (c chain) Find(ctx context.Context, o auth.Origin, repository string) (auth.Credential, error) {
	found, err := c.first.Find(ctx, o, repository)
	for _, h := range c.helpers {
		if err != nil || !found.Anonymous() {
			break
		}
		found, err = h.Find(ctx, o, repository)
	}
	return found, err
}

// elsewhere carries requests to other origins: those to other ports of the same host with the host's own certificates and
// settings, all others verified.
type elsewhere struct {
	host        string
	same, other http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (s elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	if o, err := auth.OriginOf(r.URL); err == nil && o.Hostname() == s.host {
		return s.same.RoundTrip(r)
	}
	return s.other.RoundTrip(r)
}

// endpointTransport does what the configuration wants with requests to one endpoint: headers, the parameter ns, and where the
// API is. The
// User-Agent is for all requests.
type endpointTransport struct {
	next  http.RoundTripper
	e     Endpoint
	agent string
}

// RoundTrip implements http.RoundTripper.
func (t endpointTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if t.agent != "" && r.Header.Get("User-Agent") == "" {
		r.Header.Set("User-Agent", t.agent)
	}
	if o, err := auth.OriginOf(r.URL); err != nil || o != t.e.Origin {
		r.Header.Del("Authorization")
		return t.next.RoundTrip(r)
	}
	for name, values := range t.e.header {
		if r.Header.Get(name) == "" {
			r.Header[name] = slices.Clone(values)
		}
	}
	if q := r.URL.Query(); t.e.namespace != "" && (r.Method == http.MethodGet || r.Method == http.MethodHead) && !q.Has("ns") {
		q.Set("ns", t.e.namespace)
		r.URL.RawQuery = q.Encode()
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, "/v2/"); ok && t.e.root != "" {
		r.URL.Path, r.URL.RawPath = t.e.root+"/"+rest, ""
	}
	return t.next.RoundTrip(r)
}
