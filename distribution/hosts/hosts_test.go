package hosts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tare-oci/tare/image/reference"
)

func name(t *testing.T, s string) reference.Name {
	t.Helper()
	n, err := reference.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// write makes files below a new directory and returns it.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for f, content := range files {
		f = filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func noEnv(string) string { return "" }

// load reads the files of a directory made by write.
func load(t *testing.T, files map[string]string) (*Config, error) {
	t.Helper()
	dir := write(t, files)
	return Load(Options{
		Files:      []string{filepath.Join(dir, "a.toml"), filepath.Join(dir, "b.toml")},
		Containerd: []string{filepath.Join(dir, "containerd")},
		Containers: []string{filepath.Join(dir, "registries.conf")},
		Certs:      []string{filepath.Join(dir, "certs.d")},
		Getenv:     noEnv,
	})
}

// show describes endpoints in one line.
func show(list []Endpoint) string {
	var b strings.Builder
	for i, e := range list {
		if i > 0 {
			b.WriteString(" | ")
		}
		b.WriteString(e.Base().String() + " " + e.Repository + " " + e.Can.String())
		if e.Mirror {
			b.WriteString(" mirror")
		}
		if e.namespace != "" {
			b.WriteString(" ns=" + e.namespace)
		}
		if e.root != "" {
			b.WriteString(" root=" + e.root)
		}
		if e.tls.skipVerify {
			b.WriteString(" unverified")
		}
	}
	return b.String()
}

const all = " pull+resolve+push"

func TestEndpoints(t *testing.T) {
	for _, c := range []struct {
		what  string
		files map[string]string
		image string
		want  string // or the error after "error: "
	}{
		{"hub", nil, "alpine", "https://registry-1.docker.io library/alpine" + all},
		{"other registry", nil, "ghcr.io/a/b:c", "https://ghcr.io a/b" + all},
		{"localhost is plain", nil, "localhost:5000/a", "http://localhost:5000 a" + all},
		{"127.0.0.0/8 is plain", nil, "127.9.9.9:5000/a", "http://127.9.9.9:5000 a" + all},
		{"::1 is plain", nil, "[::1]:5000/a", "http://[::1]:5000 a" + all},
		{"CVE-2026-92543: a name that resolves to loopback is not", nil, "localhost.example.com/a", "https://localhost.example.com a" + all},
		{"CVE-2026-92543: nor one that begins like it", nil, "127.0.0.1.example.com/a", "https://127.0.0.1.example.com a" + all},
		{"localhost with port 443 is not", nil, "localhost:443/a", "https://localhost a" + all},
		{"localhost with a certificate is not", map[string]string{"certs.d/localhost:5000/ca.crt": ""}, "localhost:5000/a",
			"https://localhost:5000 a" + all},

		{"own: mirrors in order", map[string]string{"a.toml": `[registry."docker.io"]
			mirrors = ["m1.example.com", "http://m2.example.com:5000/hub", {url = "https://m3.example.com/odd", override-path = true, pull = "digest", namespace = true}]`},
			"alpine", "https://m1.example.com library/alpine pull+resolve mirror | http://m2.example.com:5000 hub/library/alpine pull+resolve mirror | " +
				"https://m3.example.com library/alpine pull mirror ns=docker.io root=/odd | https://registry-1.docker.io library/alpine" + all},
		{"own: a section without mirrors leaves them to other files", map[string]string{"a.toml": "[registry.\"q.io\"]\nskip-verify = true",
			"registries.conf": "[[registry]]\nlocation = \"q.io\"\n[[registry.mirror]]\nlocation = \"m.io\""},
			"q.io/a", "https://m.io a pull+resolve mirror | https://q.io a" + all + " unverified"},
		{"own: the later file", map[string]string{"a.toml": "[registry.\"q.io\"]\nblocked = true", "b.toml": "[registry.\"q.io\"]\nurl = \"https://r.io/p\""},
			"q.io/a", "https://r.io p/a" + all},
		{"own: blocked", map[string]string{"a.toml": "[registry.\"q.io\"]\nblocked = true"}, "q.io/a", "error: blocked by the configuration"},
		{"own: mirrors only", map[string]string{"a.toml": "[registry.\"q.io\"]\nmirrors-only = true\nmirrors = [\"m.io\"]"},
			"q.io/a", "https://m.io a pull+resolve mirror"},
		{"own: plain by choice", map[string]string{"a.toml": "[registry.\"q.io:5000\"]\nplain-http = true"}, "q.io:5000/a", "http://q.io:5000 a" + all},
		{"own: not plain by choice", map[string]string{"a.toml": "[registry.\"localhost:5000\"]\nplain-http = false"}, "localhost:5000/a", "https://localhost:5000 a" + all},
		{"own: tag mirrors are not for digests", map[string]string{"a.toml": "[registry.\"q.io\"]\nmirrors = [{url = \"m.io\", pull = \"tag\"}]"},
			"q.io/a@sha256:" + strings.Repeat("0", 64), "https://q.io a" + all},

		{"containerd: in the order of the file", map[string]string{"containerd/docker.io/hosts.toml": `
			server = "https://up.example.com"
			[host."https://z.example.com"]
			  capabilities = ["pull"]
			  skip_verify = true
			[host."http://a.example.com:5000/v2/proj"]
			  override_path = true
			[host."https://b.example.com/p"]`},
			"alpine", "https://z.example.com library/alpine pull mirror ns=docker.io unverified | " +
				"http://a.example.com:5000 proj/library/alpine pull+resolve mirror ns=docker.io | " +
				"https://b.example.com/p library/alpine pull+resolve mirror ns=docker.io | https://up.example.com library/alpine" + all},
		{"containerd: directory with a port", map[string]string{"containerd/q.io_5000_/hosts.toml": `server = "https://x.io"`}, "q.io:5000/a", "https://x.io a" + all},
		{"containerd: default", map[string]string{"containerd/_default/hosts.toml": `[host."https://m.io"]`},
			"q.io/a", "https://m.io a pull+resolve mirror ns=q.io | https://q.io a" + all},
		{"containerd: unknown key", map[string]string{"containerd/q.io/hosts.toml": "server = \"https://x.io\"\n\nfoo = 1"}, "q.io/a", "error: line 3: unknown key foo"},
		{"containerd: unknown capability", map[string]string{"containerd/q.io/hosts.toml": "capabilities = [\"fly\"]"}, "q.io/a", `error: unknown capability "fly"`},

		{"containers: longest prefix and rewriting", map[string]string{"registries.conf": `
			[[registry]]
			prefix = "q.io"
			location = "wrong.io"
			[[registry]]
			prefix = "q.io/foo"
			location = "in.io/bar"
			[[registry.mirror]]
			location = "m.io/mir"
			pull-from-mirror = "digest-only"
			[[registry.mirror]]
			location = "m.io:8443/ins"
			insecure = true`},
			"q.io/foo/x", "https://m.io mir/x pull mirror | http://m.io:8443 ins/x pull+resolve mirror | https://in.io bar/x" + all},
		{"containers: a prefix ends at a separator", map[string]string{"registries.conf": "[[registry]]\nprefix = \"q.io/foo\"\nlocation = \"in.io\""},
			"q.io/foobar", "https://q.io foobar" + all},
		{"containers: wildcard", map[string]string{"registries.conf": "[[registry]]\nprefix = \"*.q.io\"\nblocked = true"}, "a.b.q.io/x", "error: blocked"},
		{"containers: wildcard is not the domain", map[string]string{"registries.conf": "[[registry]]\nprefix = \"*.q.io\"\nblocked = true"}, "q.io/x", "https://q.io x" + all},
		{"containers: insecure without port is TLS without verification", map[string]string{"registries.conf": "[[registry]]\nlocation = \"q.io\"\ninsecure = true"},
			"q.io/x", "https://q.io x" + all + " unverified"},
		{"containers: hub by its API host", map[string]string{"registries.conf": "[[registry]]\nprefix = \"docker.io/library\"\nlocation = \"docker.io/mine\""},
			"alpine", "https://registry-1.docker.io mine/alpine" + all},
		{"containers: drop-ins replace by prefix", map[string]string{"registries.conf": "[[registry]]\nlocation = \"q.io\"\nblocked = true",
			"registries.conf.d/x.conf": "[[registry]]\nlocation = \"q.io\""}, "q.io/x", "https://q.io x" + all},
	} {
		cfg, err := load(t, c.files)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		list, err := cfg.Endpoints(name(t, c.image))
		if want, isError := strings.CutPrefix(c.want, "error: "); isError {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want %q", c.what, err, want)
			}
		} else if got := show(list); err != nil || got != c.want {
			t.Errorf("%s:\n got %s, %v\nwant %s", c.what, got, err, c.want)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	for _, c := range []struct{ file, content, want string }{
		{"a.toml", "[registry.\"q.io\"]\nca = []\nmirors = []\n", `a.toml: line 3: unknown key registry."q.io".mirors`},
		{"a.toml", "[registry.\"q.io\"]\nmirrors = [{url = \"m.io\", push = true}]\n", `a mirror has no "push"`},
		{"a.toml", "[registry.\"q.io\"]\nmirrors = [{url = \"m.io\", pull = \"some\"}]\n", "want all, digest or tag"},
		{"a.toml", "[registry.\"q.io\"]\nmirrors = [\"https://u:p@m.io\"]\n", "user information"},
		{"a.toml", "[registry.\"q.io/path\"]\nblocked = true", "want HOST[:PORT]"},
		{"a.toml", "[registry.\"q.io\"]\nblocked = 3", "line 2 (last key"},
		{"a.toml", "[registry.\"q.io\"]\nheader = {Authorization = \"x\"}", "cannot be set"},
		{"a.toml", "[registry.\"q.io\"]\nheader = {A = \"x\\ny\"}", "malformed"},
		{"a.toml", "[registry.\"q.io\"]\nclient-cert = \"x\"", "go together"},
		{"a.toml", "[registry.\"q.io\"]\nmirrors-only = true", "no mirrors"},
		{"a.toml", "[registry.\"q.io\"]\nrealms = [\"ftp://x\"]", "want http or https"},
		{"a.toml", "x", "line 1: "},
		{"registries.conf", "[registries.search]\nregistries = [\"x\"]", "version 1"},
		{"registries.conf", "[[registry]]\nlocation = \"q.io\"\nmirror-by-digest = true", "line 3: unknown key registry.mirror-by-digest"},
		{"registries.conf", "[[registry]]\nprefix = \"q.io/a:tag\"", "not supported"},
		{"registries.conf", "[[registry]]\nlocation = \"q.io/../x\"", "malformed path"},
		{"registries.conf", "[[registry]]\nlocation = \"https://q.io\"", "is not HOST"},
		{"registries.conf", "[[registry]]\nblocked = true", "is not HOST"},
	} {
		_, err := load(t, map[string]string{c.file: c.content})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: error %v, want %q", c.file, c.content, err, c.want)
		}
	}
}

func TestDebianRegistriesConf(t *testing.T) {
	const file = "/etc/containers/registries.conf"
	if _, err := os.Stat(file); err != nil {
		t.Skip("podman's configuration is not installed")
	}
	cfg, err := Load(Options{Containers: []string{file}, Getenv: noEnv})
	if err != nil {
		t.Fatal(err)
	}
	list, err := cfg.Endpoints(name(t, "alpine"))
	if got := show(list); err != nil || got != "https://registry-1.docker.io library/alpine"+all {
		t.Errorf("%s, %v", got, err)
	}
}
