package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

const full = `# everything
listen = "0.0.0.0:443"
root = "data"
url = "https://registry.example"
read-only = true
delete = false

[tls]
certificate = "cert.pem"
key = "/abs/key.pem"

[auth]
htpasswd = "users"
token-endpoint = false
[[auth.issuer]]
name = "ci"
keys = ["ci.jwks"]
url = "https://ci.example/token"

[groups]
devs = ["a", "b"]

[[permission]]
repositories = ["team/**"]
groups = ["devs"]
actions = ["pull", "push"]

[limits]
blob = "10GiB"
manifest = 1048576
stall-timeout = "90s"

[gc]
interval = "1d"

[[retention]]
repositories = ["team/**"]
keep-last = 10

[s3]
endpoint = "https://s3.example"
bucket = "b"
access-key = "TOPSECRET-access"
secret-key = "file:s3key"

[[proxy]]
upstream = "https://r.example"
username = "u"
password = "TOPSECRET-password"
ttl = "5m"

[log]
access = "access.log"
format = "common"
`

func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{"config.toml": text, "s3key": "TOPSECRET-key\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(filepath.Join(dir, "config.toml"))
}

func TestLoad(t *testing.T) {
	c, err := load(t, full)
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(c.Root) || filepath.Base(c.Root) != "data" || c.TLS.Key != "/abs/key.pem" || !filepath.IsAbs(c.Auth.Issuers[0].Keys[0]) ||
		!filepath.IsAbs(c.Log.Access) || c.Auth.Groups != "" {
		t.Errorf("names of files: %+v", c)
	}
	if c.Limits.Blob != 10<<30 || c.Limits.Manifest != 1<<20 || time.Duration(c.Limits.Stall) != 90*time.Second || time.Duration(c.GC.Interval) != 24*time.Hour ||
		c.Limits.Requests != Default().Limits.Requests || c.S3.SecretKey.Reveal() != "TOPSECRET-key" {
		t.Errorf("values: %+v", c)
	}
	if p := c.Policy(); len(p.Rules) != 1 || p.Allowed("b", nil, "team/x") == nil || p.Allowed("c", nil, "team/x") != nil {
		t.Errorf("permissions: %+v", p)
	}
	if c, err = load(t, ""); err != nil || c.Listen != "127.0.0.1:5000" || !c.Delete || c.ReadOnly {
		t.Errorf("empty: %+v, %v", c, err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no file is no error")
	}
}

// TestSecretsCVE_2025_48374: whatever prints a configuration prints no secret.
func TestSecretsCVE_2025_48374(t *testing.T) {
	c, err := load(t, full)
	if err != nil {
		t.Fatal(err)
	}
	var asTOML bytes.Buffer
	if err := toml.NewEncoder(&asTOML).Encode(c); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"%v": fmt.Sprint(c), "%+v": fmt.Sprintf("%+v", *c), "%#v": fmt.Sprintf("%#v", *c), "%s": fmt.Sprintf("%s %q", c.S3.SecretKey, c.Proxies[0].Password),
		"TOML": asTOML.String(), "JSON": string(asJSON)} {
		if strings.Contains(text, "TOPSECRET") {
			t.Errorf("%s shows a secret: %s", name, text)
		}
		if name != "%s" && name != "%v" && !strings.Contains(text, "r.example") {
			t.Errorf("%s shows nothing", name)
		}
	}
	for _, broken := range []string{strings.Replace(full, `secret-key = "file:s3key"`, "secret-key = \"TOPSECRET-x\"\nx = 1", 1), strings.Replace(full, `"TOPSECRET-access"`, `["TOPSECRET-x"]`, 1),
		strings.Replace(full, `"https://r.example"`, `"https://u:TOPSECRET@r.example"`, 1), strings.Replace(full, `"TOPSECRET-access"`, `"TOPSECRET-\x"`, 1)} {
		if _, err := load(t, broken); err == nil || strings.Contains(err.Error(), "TOPSECRET") {
			t.Errorf("an error shows a secret: %v", err)
		}
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a = 1":                                "line 1: unknown key a",
		"listen = \":1\"\n[tls]\nkeys = \"x\"": "line 3: unknown key tls.keys",
		"[[permission]]\nusers = [\n \"a\",\n]\nactoins = [\"pull\"]\n[tls]\nx = 1": "line 5: unknown key permission.actoins",
		"[gc]\n\n[nonsense]\n":                   "line 3: unknown key nonsense",
		"listen = 1":                             "line 1",
		"listen = \"x":                           "line 1",
		"[limits]\nblob = \"ten\"":               "is not a size",
		"[limits]\nblob = \"9999999999GiB\"":     "is not a size",
		"[limits]\nblob = -1":                    "is not a size",
		"[limits]\nmanifest = \"5MiB\"":          "want 1 to 4 MiB",
		"[limits]\nidle-timeout = \"2 hours\"":   "is not a time",
		"[limits]\nrequests = 0":                 "at least 1",
		"[gc]\ninterval = \"1s\"":                "at least a minute",
		"[gc]\ngrace = \"0s\"":                   "could lose its blobs",
		"[tls]\ncertificate = \"x\"":             "certificate and key go together",
		"[tls]\nclient-ca = \"x\"":               "client-ca needs a certificate",
		"[log]\nformat = \"xml\"":                "neither json nor common",
		"url = \"registry.example\"":             "url: want http",
		"url = \"https://u:p@registry.example\"": "has no place in it",
		"[auth]\nservice = \"a\\\"b\"":           "printable ASCII",
		"[[auth.issuer]]\nname = \"x\"":          "needs a name and keys",
		"[[permission]]\nrepositories = [\"**\"]\nanonymous = true\nactions = [\"pull\"]": "nobody could log in",
		"[auth]\nhtpasswd = \"x\"\n[[permission]]\nactions = [\"pull\"]":                  "permission 1: no repositories",
		"[s3]\nbucket = \"b\"":                                                   "s3: endpoint",
		"[s3]\nbucket = \"b\"\nendpoint = \"http://x\"":                          "necessary",
		"[s3]\nsecret-key = \"file:none\"":                                       "no such file",
		"[[proxy]]\nupstream = \"x\"":                                            "proxy: upstream",
		"[[proxy]]\nupstream = \"http://x\"\nusername = \"u\"":                   "go together",
		"[[proxy]]\nupstream = \"http://x\"\n[[proxy]]\nupstream = \"http://y\"": "several need a namespace",
		"[[retention]]\nkeep-last = 1":                                           "retention 1: no repositories",
		"[[retention]]\nrepositories = [\"a\"]":                                  "it keeps nothing",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if c, err := parse(data); err == nil {
			_ = c.Check()
		}
	})
}
