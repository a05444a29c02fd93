package hosts

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/image/reference"
)

// containersRegistry is [[registry]] of registries.conf (containers-registries.conf(5), version 2).
type containersRegistry struct {
	Prefix       string             `toml:"prefix"`
	Location     string             `toml:"location"`
	Insecure     bool               `toml:"insecure"`
	Blocked      bool               `toml:"blocked"`
	DigestOnly   bool               `toml:"mirror-by-digest-only"`
	Mirrors      []containersMirror `toml:"mirror"`
	file         string
	wildcardHost bool
}

type containersMirror struct {
	Location string `toml:"location"`
	Insecure bool   `toml:"insecure"`
	Pull     string `toml:"pull-from-mirror"` // all, digest-only, tag-only
}

// readContainers reads the first registries.conf that exists, and then the files in the .d directories of all, of which
// a later one replaces what an earlier one says of a prefix.
func (c *Config) readContainers(paths []string) error {
	for _, path := range paths {
		data, err := readFile(path)
		if err != nil {
			return err
		}
		if data != nil {
			if err := c.addContainers(path, data); err != nil {
				return err
			}
			break
		}
	}
	for _, path := range slices.Backward(paths) {
		files, err := filepath.Glob(filepath.Join(path+".d", "*.conf"))
		if err != nil {
			return err
		}
		for _, f := range files {
			data, err := readFile(f)
			if err == nil {
				err = c.addContainers(f, data)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Config) addContainers(path string, data []byte) error {
	list, helpers, err := parseContainers(data)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if helpers != nil {
		c.helpers = helpers
	}
	for _, r := range list {
		r.file = path
		c.containers = slices.DeleteFunc(c.containers, func(o containersRegistry) bool { return o.Prefix == r.Prefix })
		c.containers = append(c.containers, r)
	}
	return nil
}

// parseContainers parses and checks registries.conf. What it says of short names is not used: a name without a registry is
// Docker Hub's, always. Other unknown keys at the top are podman's own business; in [[registry]] they are errors.
func parseContainers(data []byte) (list []containersRegistry, helpers []auth.Helper, err error) {
	var doc struct {
		Registry   []containersRegistry `toml:"registry"`
		Registries map[string]any       `toml:"registries"`
		Helpers    []auth.Helper        `toml:"credential-helpers"`
	}
	meta, err := toml.Decode(string(data), &doc)
	if err != nil {
		return nil, nil, tomlError(err)
	}
	if len(doc.Registries) > 0 {
		return nil, nil, errors.New("[registries.…] is version 1 of the format, which is not read; version 2 has [[registry]]")
	}
	for _, k := range meta.Undecoded() {
		if k[0] == "registry" {
			return nil, nil, fmt.Errorf("line %d: unknown key %s", lineOf(data, k), k)
		}
	}
	for i := range doc.Registry {
		if err := doc.Registry[i].check(); err != nil {
			return nil, nil, err
		}
	}
	for _, h := range doc.Helpers {
		if h != "containers-auth.json" { // which stands for the files, and they are always asked first
			helpers = append(helpers, h)
		}
	}
	return doc.Registry, helpers, nil
}

// check checks and completes r.
func (r *containersRegistry) check() error {
	r.Prefix, r.Location = strings.TrimSuffix(r.Prefix, "/"), strings.TrimSuffix(r.Location, "/")
	if r.Prefix == "" {
		r.Prefix = r.Location
	}
	host, wildcard := strings.CutPrefix(r.Prefix, "*.")
	r.wildcardHost = wildcard
	if r.Location == "" && !wildcard {
		r.Location = r.Prefix
	}
	if err := checkLocation(host); err != nil {
		return fmt.Errorf("registry %q: prefix: %w", r.Prefix, err)
	}
	if wildcard && strings.Contains(host, "/") {
		return fmt.Errorf("registry %q: after *. only a domain is understood", r.Prefix)
	}
	if r.Location != "" {
		if err := checkLocation(r.Location); err != nil {
			return fmt.Errorf("registry %q: location: %w", r.Prefix, err)
		}
	}
	for i, m := range r.Mirrors {
		m.Location = strings.TrimSuffix(m.Location, "/")
		r.Mirrors[i] = m
		if err := checkLocation(m.Location); err != nil {
			return fmt.Errorf("registry %q: mirror: %w", r.Prefix, err)
		}
		switch m.Pull {
		case "", "all", "digest-only", "tag-only":
		default:
			return fmt.Errorf("registry %q: pull-from-mirror is %q; want all, digest-only or tag-only", r.Prefix, m.Pull)
		}
		if m.Pull != "" && m.Pull != "all" && r.DigestOnly {
			return fmt.Errorf("registry %q: mirror-by-digest-only and pull-from-mirror contradict each other", r.Prefix)
		}
	}
	return nil
}

// checkLocation checks HOST[:PORT][/PATH].
func checkLocation(s string) error {
	host, path, _ := strings.Cut(s, "/")
	if _, err := auth.ParseOrigin("https://" + host); err != nil || strings.ContainsAny(host, "@?#") || strings.Contains(s, "://") {
		return fmt.Errorf("%q is not HOST[:PORT][/PATH]", s)
	}
	if strings.ContainsAny(path, ":@") {
		return fmt.Errorf("%q has a tag or a digest, which is not supported here", s)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "." || part == ".." || strings.ContainsAny(part, "?#% ") || path != "" && part == "" {
			return fmt.Errorf("%q has a malformed path", s)
		}
	}
	return nil
}

// match returns what is left of a name (domain and path) after the prefix, and how long the prefix is; -1: no match.
func (r containersRegistry) match(name string) (rest string, length int) {
	if r.wildcardHost {
		host, path, _ := strings.Cut(name, "/")
		if !strings.HasSuffix(host, r.Prefix[1:]) {
			return "", -1
		}
		return "/" + path, len(r.Prefix)
	}
	rest, ok := strings.CutPrefix(name, r.Prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return "", -1
	}
	return rest, len(r.Prefix)
}

// containersRule is what the [[registry]] with the longest prefix of n says.
func (c *Config) containersRule(n reference.Name) (rule, bool, error) {
	var found containersRegistry
	var rest string
	longest := -1
	for _, r := range c.containers {
		if left, l := r.match(n.Domain + "/" + n.Path); l > longest {
			found, rest, longest = r, left, l
		}
	}
	if longest < 0 {
		return rule{}, false, nil
	}
	r := rule{source: found.file, blocked: found.Blocked}
	for _, m := range found.Mirrors {
		p := containersPlace(m.Location+rest, m.Insecure)
		p.mirror, p.source, p.can = true, found.file, Pull|Resolve
		if found.DigestOnly || m.Pull == "digest-only" {
			p.can = Pull
		}
		if m.Pull != "tag-only" || n.Digest == "" {
			r.places = append(r.places, p)
		}
	}
	location := found.Location + rest
	if found.Location == "" { // a wildcard without a location
		location = n.Domain + "/" + n.Path
	}
	p := containersPlace(location, found.Insecure)
	p.source, p.can = found.file, Pull|Resolve|Push
	r.places = append(r.places, p)
	return r, true, nil
}

// containersPlace takes HOST[:PORT]/REPOSITORY apart. podman tries TLS without verification and then plain http at insecure
// registries; we never fall back from TLS (CVE-2014-5277), so that the port has to decide: none or 443 is TLS without
// verification, any other is plain http.
func containersPlace(location string, insecure bool) place {
	host, repository, _ := strings.Cut(location, "/")
	p := place{host: apiHost(host), repository: repository, plain: plainByName(host)}
	if insecure {
		_, port, err := net.SplitHostPort(host)
		tls := !p.plain && (err != nil || port == "443")
		p.plain, p.tls.skipVerify = !tls, tls
	}
	return p
}
