package hosts

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/image/reference"
)

// hostsFile is containerd's HOST/hosts.toml (containerd, docs/hosts.md). Its top level is about the registry itself.
type hostsFile struct {
	hostsTable
	Server string                `toml:"server"`
	Host   map[string]hostsTable `toml:"host"`
}

type hostsTable struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`     // a path or several
	Client       any            `toml:"client"` // a path, several, or pairs of certificate and key
	SkipVerify   bool           `toml:"skip_verify"`
	OverridePath bool           `toml:"override_path"`
	Header       map[string]any `toml:"header"`       // a value or several
	DialTimeout  string         `toml:"dial_timeout"` // not used: ours is 30 s
}

// containerdRule is what the first hosts.toml for n's registry says. The directory of a registry is HOST, with a port
// HOST:PORT or HOST_PORT_, or _default for all.
func (c *Config) containerdRule(n reference.Name) (rule, bool, error) {
	names := []string{n.Domain, "_default"}
	if host, port, ok := strings.Cut(n.Domain, ":"); ok && !strings.HasPrefix(n.Domain, "[") {
		names = append([]string{host + "_" + port + "_"}, names...)
	}
	for _, root := range c.options.Containerd {
		for _, name := range names {
			file := filepath.Join(root, name, "hosts.toml")
			data, err := readFile(file)
			if errors.Is(err, os.ErrPermission) {
				continue // a directory for root alone says nothing to others
			}
			if err != nil {
				return rule{}, true, err
			}
			if data == nil {
				continue
			}
			r, err := c.parseHosts(n, file, data)
			if err != nil {
				err = fmt.Errorf("read %s: %w", file, err)
			}
			return r, true, err
		}
	}
	return rule{}, false, nil
}

func (c *Config) parseHosts(n reference.Name, file string, data []byte) (rule, error) {
	var doc hostsFile
	meta, err := toml.Decode(string(data), &doc)
	if err != nil {
		return rule{}, tomlError(err)
	}
	for _, k := range meta.Undecoded() {
		if k[len(k)-1] != "header" && !(len(k) > 1 && k[len(k)-2] == "header") {
			return rule{}, fmt.Errorf("line %d: unknown key %s", lineOf(data, k), k)
		}
	}
	r := rule{source: file}
	for _, k := range meta.Keys() { // in the order of the file
		if len(k) != 2 || k[0] != "host" {
			continue
		}
		p, err := doc.Host[k[1]].place(k[1], filepath.Dir(file))
		if err != nil {
			return r, fmt.Errorf("host %q: %w", k[1], err)
		}
		p.mirror, p.ns, p.source = true, true, file
		if len(doc.Host[k[1]].Capabilities) == 0 {
			p.can = Pull | Resolve // pushes to a mirror are for those who say so
		}
		r.places = append(r.places, p)
	}
	p := c.defaultPlace(n.Domain)
	server, dir := doc.Server, filepath.Dir(file)
	if server == "" {
		scheme := "https://"
		if p.plain {
			scheme = "http://"
		}
		server = scheme + p.host
	}
	if p, err = doc.place(server, dir); err != nil {
		return r, fmt.Errorf("server: %w", err)
	}
	p.source = file
	r.places = append(r.places, p)
	return r, nil
}

// place completes what a table says of a host, whose relative paths begin at dir.
func (t hostsTable) place(server, dir string) (place, error) {
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.RawQuery != "" || u.Fragment != "" {
		return place{}, fmt.Errorf("%q is not a URL of a host", server)
	}
	if _, err := auth.OriginOf(u); err != nil {
		return place{}, err
	}
	p := place{host: u.Host, plain: u.Scheme == "http", path: strings.TrimSuffix(u.Path, "/")}
	if !t.OverridePath && !strings.HasSuffix(p.path, "/v2") {
		p.path += "/v2"
	}
	p.override = t.OverridePath
	if p.can, err = capabilities(t.Capabilities); err != nil {
		return p, err
	}
	p.tls.skipVerify = t.SkipVerify
	if p.tls.cas, err = texts(t.CA, dir); err != nil {
		return p, fmt.Errorf("ca: %w", err)
	}
	if p.tls.pairs, err = pairs(t.Client, dir); err != nil {
		return p, fmt.Errorf("client: %w", err)
	}
	p.header = http.Header{}
	for name, v := range t.Header {
		values, err := texts(v, "")
		if err != nil {
			return p, fmt.Errorf("header %q: %w", name, err)
		}
		for _, value := range values {
			if http.CanonicalHeaderKey(name) != "Authorization" { // which goes to this origin only, as everything here
				if err := checkHeader(map[string]string{name: value}); err != nil {
					return p, err
				}
			}
			p.header.Add(name, value)
		}
	}
	return p, nil
}

func capabilities(names []string) (Capability, error) {
	if len(names) == 0 {
		return Pull | Resolve | Push, nil
	}
	var can Capability
	for _, n := range names {
		switch strings.ToLower(n) {
		case "pull":
			can |= Pull
		case "resolve":
			can |= Resolve
		case "push":
			can |= Push
		case "referrers": // asked wherever manifests are
		default:
			return 0, fmt.Errorf("unknown capability %q", n)
		}
	}
	return can, nil
}

// texts decodes a string or an array of them; with dir they are paths.
func texts(v any, dir string) ([]string, error) {
	var list []string
	switch v := v.(type) {
	case nil:
	case string:
		list = []string{v}
	case []any:
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, errors.New("want strings")
			}
			list = append(list, s)
		}
	default:
		return nil, errors.New("want a string or an array of strings")
	}
	for i, s := range list {
		if dir != "" && !filepath.IsAbs(s) {
			list[i] = filepath.Join(dir, s)
		}
	}
	return list, nil
}

// pairs decodes the three forms of client.
func pairs(v any, dir string) ([][2]string, error) {
	var list [][2]string
	if outer, ok := v.([]any); ok && len(outer) > 0 {
		if _, nested := outer[0].([]any); nested {
			for _, e := range outer {
				two, err := texts(e, dir)
				if err != nil || len(two) == 0 || len(two) > 2 {
					return nil, errors.New("want pairs of certificate and key")
				}
				list = append(list, [2]string{two[0], two[len(two)-1]})
			}
			return list, nil
		}
	}
	files, err := texts(v, dir)
	for _, f := range files {
		list = append(list, [2]string{f, f})
	}
	return list, err
}
