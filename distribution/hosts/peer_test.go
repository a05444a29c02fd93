package hosts

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/bcrypt"

	"github.com/tare-oci/tare/distribution/auth"
)

// dockerRegistry starts Debian's docker-registry with TLS and more configuration, and returns HOST:PORT.
func dockerRegistry(t *testing.T, ca *authority, config string) string {
	t.Helper()
	path, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	_, _, cert, key := ca.issue(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	dir := write(t, map[string]string{"cert.pem": cert, "key.pem": key})
	config = "version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: " + dir + "/data}}\n" +
		"http:\n  addr: 127.0.0.1:0\n  tls: {certificate: " + dir + "/cert.pem, key: " + dir + "/key.pem}\n" + config
	if err := os.WriteFile(filepath.Join(dir, "config.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "serve", filepath.Join(dir, "config.yml"))
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	found := make(chan string, 1)
	go func() { // it says which port the kernel chose
		var all strings.Builder
		for s := bufio.NewScanner(out); s.Scan(); {
			all.WriteString(s.Text() + "\n")
			if _, rest, ok := strings.Cut(s.Text(), "listening on "); ok {
				found <- strings.FieldsFunc(rest, func(r rune) bool { return r == ',' || r == '"' || r == ' ' })[0]
			}
		}
		select {
		case found <- "it ended:\n" + all.String():
		default:
		}
	}()
	select {
	case addr := <-found:
		if !strings.HasPrefix(addr, "127.0.0.1:") {
			t.Fatalf("docker-registry: %s", addr)
		}
		return addr
	case <-time.After(time.Minute):
		t.Fatal("docker-registry does not listen")
		return ""
	}
}

// TestDockerRegistryBasic: docker-registry with an htpasswd file, TLS by certs.d, and the credential from a helper.
func TestDockerRegistryBasic(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t)
	dir := write(t, map[string]string{"htpasswd": "alice:" + string(hash) + "\n"})
	addr := dockerRegistry(t, ca, "auth: {htpasswd: {realm: x, path: "+dir+"/htpasswd}}\n")
	cfg, err := load(t, map[string]string{"certs.d/" + addr + "/ca.crt": ca.pem})
	if err != nil {
		t.Fatal(err)
	}
	e := first(t, cfg, addr+"/a")
	for password, ok := range map[string]bool{"secret": true, "wrong": false} {
		bin := write(t, map[string]string{
			"docker-credential-test": fmt.Sprintf("#!/bin/sh\nread s; printf '{\"ServerURL\":\"%%s\",\"Username\":\"alice\",\"Secret\":%q}' \"$s\"\n", password),
			"config.json":            `{"credHelpers":{"` + addr + `":"test"}}`})
		if err := os.Chmod(filepath.Join(bin, "docker-credential-test"), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
		rt, err := cfg.Transport(e, &auth.Files{Paths: []string{filepath.Join(bin, "config.json")}})
		if err != nil {
			t.Fatal(err)
		}
		asked, err := auth.Verify(t.Context(), rt, e.Base())
		if !asked || ok != (err == nil) || !ok && !errors.Is(err, auth.ErrRefused) {
			t.Errorf("password %s: asked %v, %v", password, asked, err)
		}
	}
}

// TestSkopeoFiles: what skopeo login writes is read, and skopeo reads what Save writes.
func TestSkopeoFiles(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	reg := record(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "alice" || password != "secret" {
			basic(w, r)
		}
	})
	dir := t.TempDir()
	theirs, ours := filepath.Join(dir, "theirs.json"), filepath.Join(dir, "ours.json")
	cmd := exec.Command(skopeo, "login", "--tls-verify=false", "--authfile", theirs, "-u", "alice", "--password-stdin", reg.host())
	cmd.Stdin = strings.NewReader("secret")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("skopeo login: %v: %s", err, out)
	}
	o, err := auth.ParseOrigin(reg.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&auth.Files{Paths: []string{theirs}}).Find(t.Context(), o, "a")
	if err != nil || c.Username() != "alice" {
		t.Fatalf("of skopeo: %v, %v", c, err)
	}
	if _, err := (&auth.Files{Paths: []string{ours}}).Save(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	reg.seen()
	if out, err := exec.Command(skopeo, "list-tags", "--tls-verify=false", "--authfile", ours, "docker://"+reg.host()+"/a").CombinedOutput(); err == nil {
		t.Fatalf("the registry has no tags, and skopeo found some: %s", out)
	}
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:secret")); !strings.Contains(strings.Join(reg.seen(), "\n"), want) {
		t.Error("skopeo did not send the credential that we saved")
	}
}

// TestDockerRegistryToken: docker-registry with tokens that it verifies by a certificate (T1, T2, T6, T7).
func TestDockerRegistryToken(t *testing.T) {
	ca := newAuthority(t)
	cert, key, certPEM, _ := ca.issue(&x509.Certificate{})
	server := ca.serve(tokenServer(t, cert, key), false)
	dir := write(t, map[string]string{"token.pem": certPEM})
	addr := dockerRegistry(t, ca, fmt.Sprintf("auth: {token: {realm: %q, service: reg, issuer: test, rootcertbundle: %s/token.pem}}\n", server.URL+"/token", dir))
	cfg, err := load(t, map[string]string{"certs.d/" + addr + "/ca.crt": ca.pem})
	if err != nil {
		t.Fatal(err)
	}
	e := first(t, cfg, addr+"/a/b")
	k := &keys{t: t, only: map[auth.Origin]string{e.Origin: "secret"}}
	client, err := cfg.Client(e, k)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path string
		scope        auth.Scope
		want         int
	}{
		{"GET", "/v2/", auth.Scope{}, 200},
		{"POST", "/v2/a/b/blobs/uploads/", auth.Repository("a/b", "pull", "push"), 202},
		{"GET", "/v2/a/b/manifests/none", auth.Repository("a/b", "pull"), 404},
		{"GET", "/v2/a/b/manifests/none", auth.Repository("a/b", "pull"), 404}, // from the cache
		{"GET", "/v2/secret/manifests/none", auth.Repository("secret", "pull"), 401},
	} {
		ctx := t.Context()
		if c.scope.Type != "" {
			ctx = auth.WithScopes(ctx, c.scope)
		}
		r, err := http.NewRequestWithContext(ctx, c.method, "https://"+addr+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatalf("%s %s: %v", c.method, c.path, err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s: %s, want %d", c.method, c.path, resp.Status, c.want)
		}
	}
	basic := " Basic " + base64.StdEncoding.EncodeToString([]byte("u:secret"))
	want := []string{
		"GET /token?account=u&service=reg" + basic,
		"GET /token?account=u&scope=repository%3Aa%2Fb%3Apull%2Cpush&service=reg" + basic,
		"GET /token?account=u&scope=repository%3Aa%2Fb%3Apull&service=reg" + basic,
		"GET /token?account=u&scope=repository%3Asecret%3Apull&service=reg" + basic,
	}
	if got := server.seen(); len(got) < len(want) || strings.Join(got[:4], "\n") != strings.Join(want, "\n") || len(got) > 5 {
		t.Errorf("the token server saw\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// tokenServer gives u everything but the repository secret.
func tokenServer(t *testing.T, cert *x509.Certificate, key *ecdsa.PrivateKey) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "u" || p != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		access := []map[string]any{}
		for _, text := range r.URL.Query()["scope"] {
			s, err := auth.ParseScope(text)
			if err != nil {
				t.Errorf("scope %q: %v", text, err)
			}
			if s.Name != "secret" {
				access = append(access, map[string]any{"type": s.Type, "name": s.Name, "actions": s.Actions})
			}
		}
		now := time.Now()
		token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": "test", "sub": "u", "aud": r.URL.Query().Get("service"), "jti": "1",
			"exp": now.Add(time.Hour).Unix(), "nbf": now.Add(-time.Minute).Unix(), "iat": now.Unix(), "access": access})
		token.Header["x5c"] = []string{base64.StdEncoding.EncodeToString(cert.Raw)}
		signed, err := token.SignedString(key)
		if err != nil {
			t.Errorf("sign: %v", err)
		}
		json.NewEncoder(w).Encode(map[string]any{"token": signed, "expires_in": 3600, "issued_at": now.UTC().Format(time.RFC3339)})
	}
}
