// Package hosts says which endpoints answer for an image's name (mirrors, then the registry itself) and makes the HTTP client
// for each: certificates, proxies, and credentials that never get from one endpoint to another. It reads the files of tare,
// Docker, containerd and podman that say such things; docs/registries-config.md describes them.
package hosts

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/net/http/httpproxy"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/image/reference"
)

// Capability is what an endpoint may be used for. Several are ORed.
type Capability uint8

// The capabilities of an endpoint.
const (
	Pull    Capability = 1 << iota // content by digest
	Resolve                        // tags to digests: the endpoint is trusted to know the newest
	Push
)

// String returns the names with + between them.
func (c Capability) String() string {
	var names []string
	for i, n := range []string{"pull", "resolve", "push"} {
		if c&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, "+")
}

// ErrBlocked is wrapped by the error of Endpoints for a name that the configuration blocks.
var ErrBlocked = errors.New("blocked by the configuration")

// Endpoint is one place that answers for a repository.
type Endpoint struct {
	Origin     auth.Origin
	Repository string     // path of the repository at this endpoint
	Mirror     bool       // not the registry itself
	Can        Capability // what it may be used for
	Source     string     // the file that says so; "default" if none does

	namespace string // the registry that a mirror stands for, sent as ns= with reads; empty: not sent
	base      string // path before /v2/, without slash at its end
	root      string // path of the API in place of base/v2; empty: that
	header    http.Header
	realms    []string
	redirects []string
	tls       tlsFiles
}

// String returns the origin and the repository there.
func (e Endpoint) String() string { return e.Origin.String() + "/" + e.Repository }

// Base returns the address of the registry: the API is in Base/v2/. (Where the configuration has it elsewhere, the transport
// of the endpoint sees to it.)
func (e Endpoint) Base() *url.URL {
	scheme := "https"
	if e.Origin.Plain() {
		scheme = "http"
	}
	return &url.URL{Scheme: scheme, Host: e.Origin.Host(), Path: e.base}
}

// Options say where Load reads. A file or directory that does not exist says nothing.
type Options struct {
	UserAgent  string
	Files      []string // registries.toml of tare; what a later one says of a host replaces what an earlier one says
	Containerd []string // directories with HOST/hosts.toml
	Containers []string // registries.conf of podman and its kin; the first that exists is read, with its .d directory
	Certs      []string // directories with HOST[:PORT]/*.crt, *.cert, *.key
	// Getenv is asked for the proxies: HTTP_PROXY, HTTPS_PROXY, NO_PROXY and their lower-case names. Nil: os.Getenv.
	Getenv func(string) string
}

// DefaultOptions returns the places where files are by custom. getenv may be nil: os.Getenv.
func DefaultOptions(getenv func(string) string) Options {
	if getenv == nil {
		getenv = os.Getenv
	}
	o := Options{
		Getenv:     getenv,
		Files:      []string{"/etc/tare/registries.toml"},
		Containerd: []string{"/etc/containerd/certs.d", "/etc/docker/certs.d"},
		Certs:      []string{"/etc/docker/certs.d", "/etc/containers/certs.d"},
	}
	home := getenv("HOME")
	config := getenv("XDG_CONFIG_HOME")
	if config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	if f := getenv("CONTAINERS_REGISTRIES_CONF"); f != "" {
		o.Containers = append(o.Containers, f)
	}
	if config != "" {
		o.Files = append(o.Files, filepath.Join(config, "tare/registries.toml"))
		o.Certs = append(o.Certs, filepath.Join(config, "containers/certs.d"), filepath.Join(config, "docker/certs.d"))
		o.Containers = append(o.Containers, filepath.Join(config, "containers/registries.conf"))
	}
	if home != "" {
		o.Certs = append(o.Certs, filepath.Join(home, ".docker/certs.d"))
	}
	o.Containers = append(o.Containers, "/etc/containers/registries.conf")
	return o
}

// Config is what the files say. It may be used from several goroutines at once. Its clients share connections per endpoint.
type Config struct {
	options Options
	own     map[string]section // by host, of registries.toml
	proxy   func(*url.URL) (*url.URL, error)

	containers []containersRegistry
	helpers    []auth.Helper // of registries.conf, asked after the files

	mu    sync.Mutex
	pools map[string]*http.Transport
	tls   map[string]bool // registries on this machine: whether they speak TLS
}

// Load reads the files. Of hosts' directories it reads nothing yet: their names are looked up when they are needed.
func Load(o Options) (*Config, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	c := &Config{options: o, own: map[string]section{}, pools: map[string]*http.Transport{}, tls: map[string]bool{}, proxy: proxies(o.Getenv)}
	for _, f := range o.Files {
		if err := c.readOwn(f); err != nil {
			return nil, err
		}
	}
	if err := c.readContainers(o.Containers); err != nil {
		return nil, err
	}
	return c, nil
}

func proxies(getenv func(string) string) func(*url.URL) (*url.URL, error) {
	get := func(name string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return getenv(strings.ToLower(name))
	}
	p := httpproxy.Config{HTTPProxy: get("HTTP_PROXY"), HTTPSProxy: get("HTTPS_PROXY"), NoProxy: get("NO_PROXY"),
		CGI: getenv("REQUEST_METHOD") != ""}
	return p.ProxyFunc()
}

// Endpoints returns the places to ask for n, in order: mirrors that fit n, then the registry itself. Mirrors take no pushes
// unless their configuration says so. The error wraps ErrBlocked if n must not be used.
func (c *Config) Endpoints(n reference.Name) ([]Endpoint, error) {
	r, err := c.rule(n)
	if err != nil {
		return nil, fmt.Errorf("registry of %s: %w", n, err)
	}
	if r.blocked {
		return nil, fmt.Errorf("image %s: %w (%s)", n, ErrBlocked, r.source)
	}
	var list []Endpoint
	for _, p := range r.places {
		e, err := c.endpoint(n, p)
		if err != nil {
			return nil, fmt.Errorf("registry of %s: %w", n, err)
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("registry of %s: no endpoint is left (%s)", n, r.source)
	}
	return list, nil
}

// rule is what one source says of a name.
type rule struct {
	blocked bool
	source  string
	places  []place
}

// place is an endpoint before the repository is known and before its certificates are looked up.
type place struct {
	host       string // HOST[:PORT]
	plain      bool
	mirror     bool
	can        Capability
	path       string // of the API; empty: /v2
	override   bool   // what is in path after /v2/ belongs to the repository
	repository string // empty: that of the name
	ns         bool
	header     http.Header
	realms     []string
	redirects  []string
	tls        tlsFiles
	source     string
}

// rule asks the sources in their order; the first that knows the name decides.
func (c *Config) rule(n reference.Name) (rule, error) {
	for _, source := range []func(reference.Name) (rule, bool, error){c.ownRule, c.containerdRule, c.containersRule} {
		if r, ok, err := source(n); err != nil || ok {
			return r, err
		}
	}
	return rule{source: "default", places: []place{c.defaultPlace(n.Domain)}}, nil
}

// defaultPlace is the registry itself, where no file says anything else.
func (c *Config) defaultPlace(domain string) place {
	host := apiHost(domain)
	return place{host: host, plain: plainByName(host), can: Pull | Resolve | Push, source: "default"}
}

const hubDomain = "docker.io"

// apiHost returns the host of a domain's API: Docker Hub has another one than its name says.
func apiHost(domain string) string {
	if domain == hubDomain || domain == "index.docker.io" {
		return "registry-1.docker.io"
	}
	return domain
}

// plainByName reports whether a registry is spoken to without TLS because its name says that it is on this machine: by the
// configured name only, never by what a name server answers (CVE-2026-92543). Port 443 is always TLS.
func plainByName(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), ""
	}
	return port != "443" && auth.Loopback(name)
}

// endpoint completes p for a name.
func (c *Config) endpoint(n reference.Name, p place) (Endpoint, error) {
	p, decided := c.settings(p)
	files, err := c.certs(p.host)
	if err != nil {
		return Endpoint{}, err
	}
	p.tls = p.tls.merge(files)
	if p.plain && p.source == "default" && !decided {
		p.plain = files.empty() && !c.speaksTLS(p.host) // a certificate for it says that it speaks TLS
	}
	scheme := "https"
	if p.plain {
		scheme = "http"
	}
	o, err := auth.ParseOrigin(scheme + "://" + p.host)
	if err != nil {
		return Endpoint{}, err
	}
	e := Endpoint{Origin: o, Repository: p.repository, Mirror: p.mirror, Can: p.can, Source: p.source,
		header: p.header, realms: p.realms, redirects: p.redirects, tls: p.tls}
	if e.Repository == "" {
		e.Repository = n.Path
	}
	if p.ns {
		e.namespace = n.Domain
	}
	e.setPath(p)
	return e, nil
}

// setPath finds /v2 in the path of the API: before it is the base, and after it, if the path is as the user wants it, what
// the repository begins with. A path without /v2 is the API's root.
func (e *Endpoint) setPath(p place) {
	switch base, ok := strings.CutSuffix(p.path, "/v2"); {
	case p.path == "":
	case ok:
		e.base = base
	case p.override:
		before, after, ok := strings.Cut(p.path, "/v2/")
		if !ok {
			e.root = p.path
			return
		}
		e.base, e.Repository = before, after+"/"+e.Repository
	}
}

// minTLS is the oldest version of TLS that is spoken.
const minTLS = tls.VersionTLS12
