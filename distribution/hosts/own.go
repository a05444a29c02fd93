package hosts

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/image/reference"
)

const maxConfigFile = 1 << 20 // bytes of one configuration file

// section is [registry."HOST[:PORT]"] of registries.toml.
type section struct {
	URL         string            `toml:"url"`          // of the registry, if it is not where its name says
	Mirrors     []mirror          `toml:"mirrors"`      // asked first, in this order
	MirrorsOnly bool              `toml:"mirrors-only"` // the registry itself is not asked
	Blocked     bool              `toml:"blocked"`
	PlainHTTP   *bool             `toml:"plain-http"`
	SkipVerify  bool              `toml:"skip-verify"`
	CA          []string          `toml:"ca"`
	Cert        string            `toml:"client-cert"`
	Key         string            `toml:"client-key"`
	Realms      []string          `toml:"realms"`    // hosts of token servers that may have the credential, too
	Redirects   []string          `toml:"redirects"` // hosts to which it may redirect whatever their address
	Header      map[string]string `toml:"header"`
	file        string
}

// mirror is an element of mirrors: a host, a URL whose path is put before the repository's, or a table.
type mirror struct {
	URL       string `toml:"url"`
	Pull      string `toml:"pull"`          // all (the default), digest, tag
	Root      bool   `toml:"override-path"` // the URL's path is that of the API, in place of /v2
	Namespace bool   `toml:"namespace"`     // say for which registry it is asked (?ns=)
}

// UnmarshalTOML implements toml.Unmarshaler.
func (m *mirror) UnmarshalTOML(v any) error {
	if s, ok := v.(string); ok {
		m.URL = s
		return nil
	}
	table, ok := v.(map[string]any)
	if !ok {
		return errors.New("a mirror is a URL or a table with url")
	}
	for key, value := range table {
		switch key {
		case "url":
			m.URL, ok = value.(string)
		case "pull":
			m.Pull, ok = value.(string)
		case "override-path":
			m.Root, ok = value.(bool)
		case "namespace":
			m.Namespace, ok = value.(bool)
		default:
			return fmt.Errorf("a mirror has no %q; known are url, pull, override-path, namespace", key)
		}
		if !ok {
			return fmt.Errorf("%s of a mirror has another type", key)
		}
	}
	return nil
}

// readFile reads a configuration file; nil if it does not exist.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err == nil && len(data) > maxConfigFile {
		err = fmt.Errorf("%s: more than %d bytes", path, maxConfigFile)
	}
	return append([]byte{}, data...), err
}

func (c *Config) readOwn(path string) error {
	data, err := readFile(path)
	if data == nil || err != nil {
		return err
	}
	sections, err := parseOwn(data)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for host, s := range sections {
		s.file = path
		c.own[strings.ToLower(host)] = s
	}
	return nil
}

// parseOwn parses and checks registries.toml.
func parseOwn(data []byte) (map[string]section, error) {
	var doc struct {
		Registry map[string]section `toml:"registry"`
	}
	meta, err := toml.Decode(string(data), &doc)
	if err != nil {
		return nil, tomlError(err)
	}
	if keys := meta.Undecoded(); len(keys) > 0 {
		return nil, fmt.Errorf("line %d: unknown key %s", lineOf(data, keys[0]), keys[0])
	}
	for host, s := range doc.Registry {
		if err := s.check(host); err != nil {
			return nil, fmt.Errorf("registry %q: %w", host, err)
		}
	}
	return doc.Registry, nil
}

// tomlError returns an error with line and reason in one line.
func tomlError(err error) error {
	var p toml.ParseError
	if errors.As(err, &p) {
		return fmt.Errorf("line %d: %s", p.Position.Line, p.Message)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "toml: "))
}

// lineOf finds the line of a key that no field takes: the first that begins with the key's last part. 0 if there is none.
func lineOf(data []byte, key toml.Key) int {
	last := key[len(key)-1]
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimLeft(line, " \t[\"'")
		if rest, ok := strings.CutPrefix(line, last); ok && strings.IndexAny(rest+" ", "\"' \t=.]") == 0 {
			return n
		}
	}
	for i, line := range strings.Split(string(data), "\n") {
		if strings.Contains(line, last) {
			return i + 1
		}
	}
	return 0
}

func (s section) check(host string) error {
	if _, err := auth.ParseOrigin("https://" + host); err != nil || strings.ContainsAny(host, "/@") {
		return errors.New("want HOST[:PORT]")
	}
	if s.URL != "" {
		if _, err := parsePlace(s.URL); err != nil {
			return err
		}
	}
	if s.MirrorsOnly && len(s.Mirrors) == 0 {
		return errors.New("mirrors-only, and no mirrors")
	}
	if (s.Cert == "") != (s.Key == "") {
		return errors.New("client-cert and client-key go together")
	}
	for _, m := range s.Mirrors {
		if _, err := parsePlace(m.URL); err != nil {
			return err
		}
		if m.Pull != "" && m.Pull != "all" && m.Pull != "digest" && m.Pull != "tag" {
			return fmt.Errorf("pull of a mirror is %q; want all, digest or tag", m.Pull)
		}
	}
	for _, r := range slices.Concat(s.Realms, s.Redirects) {
		if !strings.Contains(r, "://") {
			r = "https://" + r
		}
		if _, err := auth.ParseOrigin(r); err != nil {
			return fmt.Errorf("realms or redirects: %w", err)
		}
	}
	return checkHeader(s.Header)
}

// checkHeader refuses headers that are not for a configuration to set.
func checkHeader(h map[string]string) error {
	for name, value := range h {
		switch http.CanonicalHeaderKey(name) {
		case "Authorization", "Proxy-Authorization", "Host", "Content-Length", "Transfer-Encoding", "Connection", "Cookie":
			return fmt.Errorf("header %q cannot be set; credentials are stored by tare login", name)
		}
		if name == "" || strings.ContainsFunc(name+value, func(r rune) bool { return r < ' ' || r == 0x7f }) ||
			strings.ContainsAny(name, " :\"(),/;<=>?@[\\]{}") {
			return fmt.Errorf("header %q is malformed", name)
		}
	}
	return nil
}

// parsePlace parses HOST[:PORT][/PATH] or a URL of it. Without a scheme the host's name decides as for registries.
func parsePlace(s string) (place, error) {
	full := s
	if !strings.Contains(s, "://") {
		full = "https://" + s
	}
	u, err := url.Parse(full)
	if err != nil || u.RawQuery != "" || u.Fragment != "" {
		return place{}, fmt.Errorf("%q is not HOST[:PORT][/PATH] or a URL of it", s)
	}
	if _, err := auth.OriginOf(u); err != nil {
		return place{}, err
	}
	p := place{host: u.Host, path: strings.TrimSuffix(u.EscapedPath(), "/"), plain: u.Scheme == "http"}
	if full != s {
		p.plain = plainByName(u.Host)
	}
	return p, nil
}

// settings applies what the section of p's own host says to p: certificates, headers and realms are those of a host,
// whether it is asked as a registry or as a mirror, and whichever file says so. decided: it says whether there is TLS.
func (c *Config) settings(p place) (out place, decided bool) {
	s, ok := c.own[strings.ToLower(p.host)]
	if p.host == apiHost(hubDomain) {
		s, ok = c.own[hubDomain]
	}
	if !ok {
		return p, false
	}
	if s.PlainHTTP != nil {
		p.plain = *s.PlainHTTP
	}
	own := tlsFiles{cas: s.CA, skipVerify: s.SkipVerify}
	if s.Cert != "" {
		own.pairs = [][2]string{{s.Cert, s.Key}}
	}
	p.tls = p.tls.merge(own)
	p.realms, p.redirects = s.Realms, s.Redirects
	p.header = p.header.Clone()
	for name, value := range s.Header {
		if p.header == nil {
			p.header = http.Header{}
		}
		p.header.Set(name, value)
	}
	return p, s.PlainHTTP != nil
}

// ownRule is what registries.toml says of n.
func (c *Config) ownRule(n reference.Name) (rule, bool, error) {
	s, ok := c.own[strings.ToLower(n.Domain)]
	if !ok || !s.rules() {
		return rule{}, false, nil // the other files may know mirrors
	}
	r := rule{blocked: s.Blocked, source: s.file}
	for _, m := range s.Mirrors {
		p, err := m.place(n)
		if err != nil {
			return r, true, err
		}
		p.source = s.file
		if m.Pull != "tag" || n.Digest == "" {
			r.places = append(r.places, p)
		}
	}
	if s.MirrorsOnly {
		return r, true, nil
	}
	p := c.defaultPlace(n.Domain)
	if s.URL != "" {
		var err error
		if p, err = parsePlace(s.URL); err != nil {
			return r, true, err
		}
		p = p.below(n)
	}
	p.source, p.can = s.file, Pull|Resolve|Push
	r.places = append(r.places, p)
	return r, true, nil
}

// rules reports whether s says who is asked, and not only how.
func (s section) rules() bool { return s.Blocked || s.URL != "" || len(s.Mirrors) > 0 || s.MirrorsOnly }

// below puts the path of p before the repository's.
func (p place) below(n reference.Name) place {
	if p.path != "" {
		p.path, p.repository = "", strings.Trim(p.path, "/")+"/"+n.Path
	}
	return p
}

func (m mirror) place(n reference.Name) (place, error) {
	p, err := parsePlace(m.URL)
	if err != nil {
		return p, err
	}
	if m.Root {
		p.override = true
	} else {
		p = p.below(n)
	}
	p.mirror, p.ns, p.can = true, m.Namespace, Pull|Resolve
	if m.Pull == "digest" {
		p.can = Pull
	}
	return p, nil
}
