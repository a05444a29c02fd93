package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// helper puts a script docker-credential-NAME into PATH for this test.
func helper(t *testing.T, name, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

// keeper is a helper that keeps secrets in files and notes what it is asked.
const keeper = `d=$(dirname "$0"); read -r in || true; printf '%s\n' "$1 $in" >>"$d/log"
case $1 in
get) f=$d/$(echo "$in" | tr / _); [ -e "$f" ] || { echo credentials not found in native keychain; exit 1; }; cat "$f";;
store) f=$d/$(echo "$in" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/' | tr / _); printf '%s\n' "$in" >"$f";;
erase) rm -f "$d/$(echo "$in" | tr / _)";;
esac
`

// shown describes a credential, with its secret.
func shown(c Credential) string {
	s := c.secret
	return strings.TrimRight(strings.Join([]string{s.Username, s.Password, s.IdentityToken, s.RegistryToken}, " "), " ")
}

func TestFind(t *testing.T) {
	helper(t, "static", `read in; printf '{"ServerURL":"%s","Username":"helped","Secret":"%s"}' "$in" "$in"`)
	helper(t, "token", `echo '{"ServerURL":"","Username":"<token>","Secret":"idt"}'`)
	helper(t, "none", `echo "credentials not found in native keychain"; exit 1`)
	for _, c := range []struct {
		what, config, origin, repository, want string
	}{
		{"host", `{"auths":{"r.io":{"auth":"` + b64("u:p:q") + `"}}}`, "https://r.io", "a", "u p:q"},
		{"unpadded", `{"auths":{"r.io":{"auth":"` + strings.TrimRight(b64("u:p"), "=") + `"}}}`, "https://r.io", "a", "u p"},
		{"another host", `{"auths":{"r.io":{"auth":"` + b64("u:p") + `"}}}`, "https://x.r.io", "a", ""},
		{"another port", `{"auths":{"r.io":{"auth":"` + b64("u:p") + `"}}}`, "https://r.io:5000", "a", ""},
		{"port 443", `{"auths":{"r.io:443":{"auth":"` + b64("u:p") + `"}}}`, "https://r.io", "a", "u p"},
		{"case", `{"auths":{"R.io":{"auth":"` + b64("u:p") + `"}}}`, "https://r.io", "a", "u p"},
		{"with scheme and version", `{"auths":{"https://r.io/v2/":{"auth":"` + b64("u:p") + `"}}}`, "https://r.io", "a", "u p"},
		{"https only", `{"auths":{"https://r.io":{"auth":"` + b64("u:p") + `"}}}`, "http://r.io", "a", ""},
		{"plain registry", `{"auths":{"localhost:5000":{"auth":"` + b64("u:p") + `"}}}`, "http://localhost:5000", "a", "u p"},
		{"hub", `{"auths":{"https://index.docker.io/v1/":{"auth":"` + b64("u:p") + `"}}}`, "https://registry-1.docker.io", "library/a", "u p"},
		{"hub as podman writes it", `{"auths":{"docker.io":{"auth":"` + b64("u:p") + `"}}}`, "https://registry-1.docker.io", "library/a", "u p"},
		{"hub, Docker's key first", `{"auths":{"docker.io":{"auth":"` + b64("u:q") + `"},"https://index.docker.io/v1/":{"auth":"` + b64("u:p") + `"}}}`,
			"https://registry-1.docker.io", "library/a", "u p"},
		{"hub is nobody else", `{"auths":{"https://index.docker.io/v1/":{"auth":"` + b64("u:p") + `"}}}`, "https://r.io", "library/a", ""},
		{"longest path", `{"auths":{"r.io":{"auth":"` + b64("u:0") + `"},"r.io/a":{"auth":"` + b64("u:1") + `"},"r.io/a/b":{"auth":"` + b64("u:2") + `"}}}`,
			"https://r.io", "a/b/c", "u 2"},
		{"path ends at a slash", `{"auths":{"r.io/a":{"auth":"` + b64("u:1") + `"}}}`, "https://r.io", "ab", ""},
		{"identity token", `{"auths":{"r.io":{"auth":"` + b64("u:") + `","identitytoken":"i"}}}`, "https://r.io", "a", "u  i"},
		{"registry token", `{"auths":{"r.io":{"registrytoken":"r"}}}`, "https://r.io", "a", "   r"},
		{"plain user and password", `{"auths":{"r.io":{"username":"u","password":"p"}}}`, "https://r.io", "a", "u p"},
		{"marker of a helper that is gone", `{"auths":{"r.io":{}}}`, "https://r.io", "a", ""},
		{"store", `{"credsStore":"static"}`, "https://r.io:5000", "a", "helped r.io:5000"},
		{"store, hub", `{"credsStore":"static"}`, "https://registry-1.docker.io", "a", "helped https://index.docker.io/v1/"},
		{"store before auths", `{"credsStore":"static","auths":{"r.io":{"auth":"` + b64("u:p") + `"}}}`, "https://r.io", "a", "helped r.io"},
		{"store has none, auths", `{"credsStore":"none","auths":{"r.io":{"auth":"` + b64("u:p") + `"}}}`, "https://r.io", "a", "u p"},
		{"store has none", `{"credsStore":"none"}`, "https://r.io", "a", ""},
		{"helper of the host before store", `{"credsStore":"static","credHelpers":{"r.io":"token"}}`, "https://r.io", "a", "  idt"},
		{"helper of another host", `{"credHelpers":{"r.io":"missing"}}`, "https://x.io", "a", ""},
		{"helper of a path", `{"credHelpers":{"r.io/a":"static"}}`, "https://r.io", "a/b", "helped r.io/a"},
		{"nothing", `{}`, "https://r.io", "a", ""},
		{"empty file", ``, "https://r.io", "a", ""},

		{"CVE-2021-41092: missing helper", `{"credHelpers":{"r.io":"missing"},"auths":{"r.io":{"auth":"` + b64("u:p") + `"}}}`, "https://r.io", "a",
			"error: docker-credential-missing: executable file not found in $PATH"},
		{"bad base64", `{"auths":{"r.io":{"auth":"?"}}}`, "https://r.io", "a", `error: auths of "r.io": auth is not base64`},
		{"no colon", `{"auths":{"r.io":{"auth":"` + b64("up") + `"}}}`, "https://r.io", "a", "error: auth is not base64 of USER:PASSWORD"},
		{"a name twice", `{"auths":{"r.io":{},"r.io":{}}}`, "https://r.io", "a", "error: decode JSON"},
		{"no JSON", `{"auths":`, "https://r.io", "a", "error: decode JSON"},
		{"another type", `{"auths":[]}`, "https://r.io", "a", "error: auths: "},
		{"helper with a path", `{"credsStore":"../x"}`, "https://r.io", "a", "error: its name may have letters"},
	} {
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, []byte(c.config), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := (&Files{Paths: []string{path}}).Find(t.Context(), originOf(t, c.origin), c.repository)
		if want, isError := strings.CutPrefix(c.want, "error: "); isError {
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) && !strings.Contains(err.Error(), "docker-credential") &&
				!strings.Contains(err.Error(), "credential helper") {
				t.Errorf("%s: error %v, want %q", c.what, err, want)
			}
		} else if err != nil || shown(got) != c.want || !got.Anonymous() && got.origin.String() != c.origin {
			t.Errorf("%s: %q, %v, want %q", c.what, shown(got), err, c.want)
		}
	}
}

// TestHelperFailureCVE_2021_41092: whatever a helper does wrong is an error, and no request is made.
func TestHelperFailureCVE_2021_41092(t *testing.T) {
	for what, c := range map[string]struct{ script, want string }{
		"fails":           {"echo locked >&2; exit 3", "exit status 3: locked"},
		"fails on stdout": {"echo 'no password'; exit 1", "exit status 1: no password"},
		"is killed":       {"kill -9 $$", "signal: killed"},
		"no JSON":         {"echo hello", "is not the JSON of a credential"},
		"no output":       {"true", "is not the JSON of a credential"},
		"too much":        {"head -c 3000000 /dev/zero", "more than 1048576 bytes"},
		"another host":    {`echo '{"ServerURL":"https://index.docker.io/v1/","Username":"u","Secret":"p"}'`, "it answered for"},
	} {
		t.Run(what, func(t *testing.T) {
			helper(t, "bad", c.script)
			f := newFake(t)
			path := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(path, []byte(`{"credsStore":"bad"}`), 0o600); err != nil {
				t.Fatal(err)
			}
			rt := f.transport(Secret{})
			rt.c.Keychain = &Files{Paths: []string{path}}
			_, err := f.get(rt, "/v2/", Repository("a", "pull"))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			f.wantLog("GET /v2/")
			f.wantTokens()
		})
	}
	t.Run("hangs", func(t *testing.T) {
		helper(t, "bad", "sleep 20 & wait")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := askHelper(ctx, "bad", "x"); err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
			t.Errorf("error %v", err)
		}
	})
}

func TestFileOrder(t *testing.T) {
	dir := t.TempDir()
	file := func(name, password string, legacy bool) string {
		doc := `"r.io":{"auth":"` + b64("u:"+password) + `"}`
		if !legacy {
			doc = `"auths":{` + doc + `}`
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("{"+doc+"}"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	f := &Files{Paths: []string{filepath.Join(dir, "none"), file("one", "1", false), file("two", "2", false)}, Legacy: file("old", "3", true)}
	o := originOf(t, "https://r.io")
	for _, want := range []string{"u 1", "u 2", "u 3", ""} {
		c, err := f.Find(t.Context(), o, "a")
		if err != nil || shown(c) != want {
			t.Errorf("%q, %v, want %q", shown(c), err, want)
		}
		for _, name := range []string{"one", "two", "old"} {
			if os.Remove(filepath.Join(dir, name)) == nil {
				break
			}
		}
	}
	env := map[string]string{"HOME": "/h", "XDG_RUNTIME_DIR": "/r"}
	get := func(n string) string { return env[n] }
	if got := strings.Join(DefaultFiles(get).Paths, " "); got != "/h/.docker/config.json /r/containers/auth.json /h/.config/containers/auth.json" {
		t.Errorf("paths %s", got)
	}
	env["DOCKER_CONFIG"] = "/d"
	if d := DefaultFiles(get); d.Paths[0] != "/d/config.json" || d.Legacy != "" {
		t.Errorf("with DOCKER_CONFIG: %+v", d)
	}
	env["REGISTRY_AUTH_FILE"] = "/x"
	if d := DefaultFiles(get); len(d.Paths) != 1 || d.Paths[0] != "/x" {
		t.Errorf("with REGISTRY_AUTH_FILE: %+v", d)
	}
}

func TestSaveAndErase(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "docker", "config.json")
	f := &Files{Paths: []string{path}}
	hub, other := originOf(t, "https://registry-1.docker.io"), originOf(t, "https://r.io:5000")
	save := func(o Origin, s Secret) string {
		t.Helper()
		where, err := f.Save(t.Context(), credential(t, o, s))
		if err != nil {
			t.Fatal(err)
		}
		return where
	}
	if where := save(other, Secret{Username: "u", Password: "p"}); where != path {
		t.Errorf("saved in %s", where)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	const content = `{"HttpHeaders":{"X":"<&>"},"auths":{"docker.io":{"auth":"eDp5"},"https://registry-1.docker.io":{"auth":"eDp5"},"r.io/ns":{"auth":"eDp5"}},"unknown":[1.0,{"b":1,"a":2}]}`
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.json")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	f.Paths[0] = link
	save(hub, Secret{Username: "u", Password: "p"})
	save(other, Secret{IdentityToken: "i"})
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var compact strings.Builder
	for _, r := range string(data) {
		if r != '\n' && r != '\t' && r != ' ' {
			compact.WriteRune(r)
		}
	}
	want := `{"HttpHeaders":{"X":"<&>"},"auths":{"https://index.docker.io/v1/":{"auth":"` + b64("u:p") + `"},"r.io/ns":{"auth":"eDp5"},"r.io:5000":{"identitytoken":"i"}},"unknown":[1.0,{"b":1,"a":2}]}`
	if compact.String() != want {
		t.Errorf("got  %s\nwant %s", compact.String(), want)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced")
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for i, want := range []bool{true, false} {
		if found, err := f.Erase(t.Context(), hub); err != nil || found != want {
			t.Errorf("%d: erased %v, %v", i, found, err)
		}
	}
	if c, err := f.Find(t.Context(), hub, "a"); err != nil || !c.Anonymous() {
		t.Errorf("after logout: %v, %v", c, err)
	}
	f.Paths = append(f.Paths, filepath.Join(dir, "second.json"))
	if err := os.WriteFile(f.Paths[1], []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Erase(t.Context(), hub); err == nil || !strings.Contains(err.Error(), "second.json") {
		t.Errorf("another file still has one: %v", err)
	}
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	if _, err := (&Files{}).Save(t.Context(), credential(t, hub, Secret{Username: "u"})); err == nil {
		t.Error("saved nowhere")
	}
	none := &Files{Paths: []string{filepath.Join(dir, "none", "config.json")}}
	if found, err := none.Erase(t.Context(), hub); found || err != nil {
		t.Errorf("erased from nothing: %v, %v", found, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("logging out made a directory")
	}
}

func TestSaveInHelper(t *testing.T) {
	bin := helper(t, "keeper", keeper)
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(`{"credsStore":"keeper","auths":{"r.io":{"auth":"`+b64("old:old")+`"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f, o := &Files{Paths: []string{path}}, originOf(t, "https://r.io")
	where, err := f.Save(t.Context(), credential(t, o, Secret{Username: "u", Password: `p"\`}))
	if err != nil || where != "docker-credential-keeper" {
		t.Fatalf("%s, %v", where, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Auths map[string]json.RawMessage }
	if err := json.Unmarshal(data, &doc); err != nil || string(doc.Auths["r.io"]) != "{}" {
		t.Errorf("the file has %s, %v", data, err)
	}
	if c, err := f.Find(t.Context(), o, "a"); err != nil || shown(c) != `u p"\` || c.Name() != "docker-credential-keeper, r.io" {
		t.Errorf("found %q in %s, %v", shown(c), c.Name(), err)
	}
	if _, err := f.Save(t.Context(), credential(t, o, Secret{IdentityToken: "i"})); err != nil {
		t.Fatal(err)
	}
	if c, err := f.Find(t.Context(), o, "a"); err != nil || shown(c) != "  i" {
		t.Errorf("found %q, %v", shown(c), err)
	}
	if found, err := f.Erase(t.Context(), o); err != nil || !found {
		t.Errorf("erase: %v, %v", found, err)
	}
	if c, err := f.Find(t.Context(), o, "a"); err != nil || !c.Anonymous() {
		t.Errorf("after logout: %q, %v", shown(c), err)
	}
	log, err := os.ReadFile(filepath.Join(bin, "log"))
	if err != nil || !strings.HasPrefix(string(log), `store {"ServerURL":"r.io","Username":"u","Secret":"p\"\\"}`) || !strings.Contains(string(log), "erase r.io\n") {
		t.Errorf("the helper saw %s, %v", log, err)
	}
	if _, err := f.Save(t.Context(), credential(t, o, Secret{RegistryToken: "r"})); err == nil {
		t.Error("a helper cannot keep a registry token")
	}
}

// TestSaveTogether: logins side by side lose nothing.
func TestSaveTogether(t *testing.T) {
	f := &Files{Paths: []string{filepath.Join(t.TempDir(), "config.json")}}
	var wg sync.WaitGroup
	for i := range 20 {
		o, c := originOf(t, fmt.Sprintf("https://r%d.io", i)), Credential{}
		c = credential(t, o, Secret{Username: "u", Password: "p"})
		wg.Go(func() {
			if _, err := f.Save(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 20 {
		if c, err := f.Find(t.Context(), originOf(t, fmt.Sprintf("https://r%d.io", i)), ""); err != nil || c.Anonymous() {
			t.Errorf("%d: %v, %v", i, c, err)
		}
	}
}

func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"r.io/a/b":{"identitytoken":"i"}},"HttpHeaders":{}}`), "https://r.io", "a/b/c", false)
	f.Add([]byte(`{"r.io":{"auth":"dTpw"}}`), "http://r.io:80", "", true)
	f.Fuzz(func(t *testing.T, data []byte, origin, repository string, legacy bool) {
		o, err := ParseOrigin(origin)
		if err != nil {
			return
		}
		a, err := parseAuthFile("config.json", data, legacy)
		if err != nil {
			return
		}
		a.helpers, a.store = nil, "" // nothing is run here
		c, err := a.find(t.Context(), o, repository)
		if err == nil && !c.Anonymous() && c.origin != o {
			t.Errorf("%s: credential for %s", o, c.origin)
		}
	})
}
