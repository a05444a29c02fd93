// Package config reads the file that says how a registry runs. A key that nobody knows is an error with its line: a
// misspelled permission or limit must not be silently without effect.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/tare-oci/tare/distribution/server/access"
)

// maxFile is the most bytes of a configuration.
const maxFile = 1 << 20

// Config is the whole file. What is left out has the value that Default gives.
type Config struct {
	Listen   string `toml:"listen"`    // host:port
	Root     string `toml:"root"`      // directory with what the registry keeps; for an object store, with what is temporary
	URL      string `toml:"url"`       // how clients call the registry, if not by Listen; empty: as the request says
	ReadOnly bool   `toml:"read-only"` // refuse every change
	Delete   bool   `toml:"delete"`    // let manifests, tags and blobs be deleted

	TLS         TLS                 `toml:"tls"`
	Auth        Auth                `toml:"auth"`
	Groups      map[string][]string `toml:"groups"` // users by group
	Permissions []Permission        `toml:"permission"`
	Limits      Limits              `toml:"limits"`
	GC          GC                  `toml:"gc"`
	Retention   []Retention         `toml:"retention"`
	S3          S3                  `toml:"s3"`
	Proxies     []Proxy             `toml:"proxy"`
	Log         Log                 `toml:"log"`
	Metrics     Metrics             `toml:"metrics"`
	Web         Web                 `toml:"web"`
}

// TLS is the registry's certificate. The files are read again when they change.
type TLS struct {
	Certificate string `toml:"certificate"` // PEM, the server's first, then what signed it
	Key         string `toml:"key"`         // PEM
	ClientCA    string `toml:"client-ca"`   // PEM; if given, every client must have a certificate of it
}

// Auth is how users log in. Without users and issuers everybody may do everything.
type Auth struct {
	Htpasswd string   `toml:"htpasswd"`       // file of users; hashes of bcrypt only
	Groups   string   `toml:"groups"`         // file of lines "group: user user"
	Service  string   `toml:"service"`        // for whom tokens are; also the realm that a browser shows
	Tokens   bool     `toml:"token-endpoint"` // make tokens for the users of Htpasswd
	TokenKey string   `toml:"token-key"`      // Ed25519 private key, for servers behind one name; empty: one until the end
	Issuers  []Issuer `toml:"issuer"`         // who else's tokens are taken
}

// Issuer is a server that makes tokens.
type Issuer struct {
	Name string   `toml:"name"` // in its tokens, claim "iss"
	Keys []string `toml:"keys"` // files: certificates, public keys or a JSON web key set
	URL  string   `toml:"url"`  // where clients get the tokens
}

// Permission is a rule of package access.
type Permission struct {
	Repositories []string        `toml:"repositories"`
	Users        []string        `toml:"users"`
	Groups       []string        `toml:"groups"`
	Anonymous    bool            `toml:"anonymous"`
	Actions      []access.Action `toml:"actions"`
}

// Limits are what one client may ask of the registry.
type Limits struct {
	Manifest Size     `toml:"manifest"` // of a manifest, at most 4 MiB
	Blob     Size     `toml:"blob"`     // of a blob; 0: none
	Requests int      `toml:"requests"` // at once; more are answered with 429
	Header   Duration `toml:"header-timeout"`
	Idle     Duration `toml:"idle-timeout"`
	Stall    Duration `toml:"stall-timeout"` // how long a transfer may stand still
	Shutdown Duration `toml:"shutdown"`      // how long requests under way have left after a SIGTERM
}

// GC is when garbage is collected.
type GC struct {
	Interval Duration `toml:"interval"` // 0: never by itself
	Grace    Duration `toml:"grace"`    // younger blobs and manifests are no garbage
	Uploads  Duration `toml:"uploads"`  // uploads that stood still for so long are dropped
	Untagged bool     `toml:"untagged"` // manifests without a tag, that nothing refers to, are garbage
}

// Retention says which tags stay in some repositories; the others are removed by the garbage collection.
type Retention struct {
	Repositories []string `toml:"repositories"` // patterns, as in Permission
	Tags         []string `toml:"tags"`         // patterns of the tags that the rule is about; none: all
	KeepLast     int      `toml:"keep-last"`    // that many of them, the youngest
	KeepWithin   Duration `toml:"keep-within"`  // those that were pushed in the time before now
	KeepTags     []string `toml:"keep-tags"`    // patterns of tags that stay in any case
}

// S3 is an object store in place of a directory.
type S3 struct {
	Endpoint  string   `toml:"endpoint"` // http://host:port or https://host
	Bucket    string   `toml:"bucket"`
	Prefix    string   `toml:"prefix"` // of the names of objects
	Region    string   `toml:"region"`
	AccessKey Secret   `toml:"access-key"`
	SecretKey Secret   `toml:"secret-key"`
	Redirect  bool     `toml:"redirect"`        // send clients to the store for blobs
	Expiry    Duration `toml:"redirect-expiry"` // how long such an address is good
}

// Proxy is another registry that this one fetches from and keeps a copy of.
type Proxy struct {
	Upstream  string   `toml:"upstream"`  // https://host
	Namespace string   `toml:"namespace"` // how clients call it ("ns"), usually its host; also the prefix of its repositories, if there are several
	Username  string   `toml:"username"`
	Password  Secret   `toml:"password"`
	CA        string   `toml:"ca"`  // PEM, beside the system's
	TTL       Duration `toml:"ttl"` // how long a tag is believed without asking
}

// Log is the access log, one line for each request.
type Log struct {
	Access string `toml:"access"` // a file, "-" for standard output, "off"
	Format string `toml:"format"` // json or common
}

// Metrics is the address of Prometheus metrics, which are open to whoever reaches it.
type Metrics struct {
	Listen string `toml:"listen"` // host:port; empty: none
}

// Web is the page at /.
type Web struct {
	Enabled bool   `toml:"enabled"`
	Title   string `toml:"title"`
}

// Default returns the configuration of an empty file.
func Default() *Config {
	return &Config{
		Listen: "127.0.0.1:5000",
		Root:   "/var/lib/tared/registry",
		Delete: true,
		Auth:   Auth{Service: "tared registry", Tokens: true},
		Limits: Limits{Manifest: 4 << 20, Requests: 2000, Header: Duration(10 * time.Second), Idle: Duration(2 * time.Minute),
			Stall: Duration(time.Minute), Shutdown: Duration(30 * time.Second)},
		GC:  GC{Grace: Duration(time.Hour), Uploads: Duration(24 * time.Hour)},
		S3:  S3{Region: "us-east-1", Expiry: Duration(10 * time.Minute)},
		Log: Log{Access: "off", Format: "json"},
		Web: Web{Enabled: true, Title: "tared registry"},
	}
}

// Load reads a configuration and checks it. Names of files in it are relative to the directory that it is in.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read configuration: %s has more than %d bytes", path, maxFile)
	}
	c, err := parse(data)
	if err == nil {
		c.resolve(filepath.Dir(path))
		err = errors.Join(c.readSecrets(), c.Check())
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %s: %w", path, err)
	}
	return c, nil
}

// parse decodes a file. The error names the line.
func parse(data []byte) (*Config, error) {
	c := Default()
	meta, err := toml.Decode(string(data), c)
	if err != nil {
		var p toml.ParseError
		if errors.As(err, &p) {
			return nil, fmt.Errorf("line %d: %s", p.Position.Line, discreet(data, p))
		}
		return nil, err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("line %d: unknown key %s", lineOf(data), unknown[0])
	}
	return c, nil
}

// discreet is what the library says about a line, unless that has a secret, of which it could quote a part.
func discreet(data []byte, p toml.ParseError) string {
	lines := bytes.Split(data, []byte("\n"))
	for _, n := range []int{p.Position.Line - 1, p.Position.Line} {
		for _, key := range []string{"password", "access-key", "secret-key"} {
			if n > 0 && n <= len(lines) && bytes.Contains(lines[n-1], []byte(key)) {
				return "not valid TOML"
			}
		}
	}
	return p.Message
}

// lineOf returns the line of the first unknown key, which the library does not tell: the first one with which there is one.
func lineOf(data []byte) int {
	for n, end := 1, 0; ; n++ {
		i := bytes.IndexByte(data[end:], '\n')
		if i < 0 {
			return n
		}
		end += i + 1
		if meta, err := toml.Decode(string(data[:end]), &Config{}); err == nil && len(meta.Undecoded()) > 0 {
			return n
		}
	}
}

// resolve makes the names of files absolute.
func (c *Config) resolve(dir string) {
	files := []*string{&c.Root, &c.TLS.Certificate, &c.TLS.Key, &c.TLS.ClientCA, &c.Auth.Htpasswd, &c.Auth.Groups, &c.Auth.TokenKey}
	if c.Log.Access != "-" && c.Log.Access != "off" {
		files = append(files, &c.Log.Access)
	}
	for i := range c.Auth.Issuers {
		for j := range c.Auth.Issuers[i].Keys {
			files = append(files, &c.Auth.Issuers[i].Keys[j])
		}
	}
	for i := range c.Proxies {
		files = append(files, &c.Proxies[i].CA)
	}
	for _, f := range files {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(dir, *f)
		}
	}
	for _, s := range c.secrets() {
		if f, ok := strings.CutPrefix(string(*s), filePrefix); ok && !filepath.IsAbs(f) {
			*s = Secret(filePrefix + filepath.Join(dir, f))
		}
	}
}

func (c *Config) secrets() []*Secret {
	out := []*Secret{&c.S3.AccessKey, &c.S3.SecretKey}
	for i := range c.Proxies {
		out = append(out, &c.Proxies[i].Password)
	}
	return out
}

func (c *Config) readSecrets() error {
	for _, s := range c.secrets() {
		path, ok := strings.CutPrefix(string(*s), filePrefix)
		if !ok {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		*s = Secret(strings.TrimRight(string(data), "\r\n"))
	}
	return nil
}

// Policy returns the permissions in the form of package access.
func (c *Config) Policy() *access.Policy {
	p := &access.Policy{Groups: c.Groups}
	for _, r := range c.Permissions {
		p.Rules = append(p.Rules, access.Rule(r))
	}
	return p
}

// Check returns an error that names the first thing that makes no sense.
func (c *Config) Check() error {
	for _, check := range []func() error{c.checkAddresses, c.checkAuth, c.checkLimits, c.checkStorage, c.checkRetention} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkAddresses() error {
	switch {
	case c.Listen == "":
		return errors.New("listen: no address")
	case (c.TLS.Certificate == "") != (c.TLS.Key == ""):
		return errors.New("tls: certificate and key go together")
	case c.TLS.ClientCA != "" && c.TLS.Certificate == "":
		return errors.New("tls: client-ca needs a certificate")
	case c.Log.Format != "json" && c.Log.Format != "common":
		return fmt.Errorf("log: format %q is neither json nor common", c.Log.Format)
	case c.URL != "":
		return checkURL("url", c.URL)
	}
	return nil
}

func (c *Config) checkAuth() error {
	if strings.ContainsFunc(c.Auth.Service, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) || c.Auth.Service == "" {
		return fmt.Errorf("auth: service %q: want printable ASCII without quotes", c.Auth.Service)
	}
	for _, i := range c.Auth.Issuers {
		if i.Name == "" || len(i.Keys) == 0 {
			return errors.New("auth: an issuer needs a name and keys")
		}
		if err := checkURL("auth: issuer: url", i.URL); err != nil {
			return err
		}
	}
	if c.Auth.Htpasswd == "" && len(c.Auth.Issuers) == 0 && (len(c.Permissions) > 0 || c.Auth.Groups != "") {
		return errors.New("permissions without htpasswd or an issuer: nobody could log in")
	}
	return c.Policy().Check()
}

func (c *Config) checkLimits() error {
	switch {
	case c.Limits.Manifest <= 0 || c.Limits.Manifest > 4<<20:
		return fmt.Errorf("limits: manifest: %d bytes, want 1 to 4 MiB", c.Limits.Manifest)
	case c.Limits.Blob < 0:
		return errors.New("limits: blob is negative")
	case c.Limits.Requests <= 0:
		return errors.New("limits: requests: at least 1")
	case c.Limits.Header <= 0 || c.Limits.Idle <= 0 || c.Limits.Stall <= 0 || c.Limits.Shutdown < 0:
		return errors.New("limits: a time must be positive")
	case c.GC.Interval < 0 || c.GC.Interval > 0 && c.GC.Interval < Duration(time.Minute):
		return errors.New("gc: interval: at least a minute, or 0 for never")
	case c.GC.Grace < Duration(time.Minute) || c.GC.Uploads < Duration(time.Minute):
		return errors.New("gc: grace and uploads: at least a minute, or a push under way could lose its blobs")
	}
	return nil
}

func (c *Config) checkStorage() error {
	s := c.S3
	if s.Endpoint != "" || s.Bucket != "" {
		if err := checkURL("s3: endpoint", s.Endpoint); err != nil {
			return err
		}
		if s.Bucket == "" || s.AccessKey == "" || s.SecretKey == "" {
			return errors.New("s3: bucket, access-key and secret-key are necessary")
		}
		if s.Expiry < Duration(time.Second) || s.Expiry > Duration(7*24*time.Hour) {
			return errors.New("s3: redirect-expiry: one second to seven days")
		}
	}
	seen := map[string]bool{}
	for _, p := range c.Proxies {
		if err := checkURL("proxy: upstream", p.Upstream); err != nil {
			return err
		}
		if (p.Username == "") != (p.Password == "") {
			return fmt.Errorf("proxy %s: username and password go together", p.Upstream)
		}
		if seen[p.Namespace] || p.Namespace == "" && len(c.Proxies) > 1 {
			return fmt.Errorf("proxy %s: several need a namespace each, and %q is none or taken", p.Upstream, p.Namespace)
		}
		seen[p.Namespace] = true
		if p.TTL < 0 {
			return fmt.Errorf("proxy %s: ttl is negative", p.Upstream)
		}
	}
	return nil
}

func (c *Config) checkRetention() error {
	for i, r := range c.Retention {
		if len(r.Repositories) == 0 {
			return fmt.Errorf("retention %d: no repositories", i+1)
		}
		if r.KeepLast < 0 || r.KeepWithin < 0 {
			return fmt.Errorf("retention %d: a number is negative", i+1)
		}
		if r.KeepLast == 0 && r.KeepWithin == 0 && len(r.KeepTags) == 0 {
			return fmt.Errorf("retention %d: it keeps nothing: say keep-last, keep-within or keep-tags", i+1)
		}
	}
	return nil
}

// checkURL wants http or https with a host, and no password that would end up in a log.
func checkURL(what, s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%s: want http:// or https:// and a host", what)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s: a user, query or fragment has no place in it", what)
	}
	return nil
}
