package peers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const user, password = "alice", "correct horse: battery/staple"

// certificate writes a certificate for loopback, signed by itself, and its key.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tare test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// secureRegistry starts tared with TLS and one user, who may do everything.
func secureRegistry(t *testing.T, tokens bool) string {
	t.Helper()
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	address := freePort(t)
	files := map[string]string{
		"htpasswd": user + ":" + string(hash) + "\n",
		"config.toml": fmt.Sprintf("listen = %q\nroot = %q\n[tls]\ncertificate = %q\nkey = %q\n[auth]\nhtpasswd = \"htpasswd\"\ntoken-endpoint = %v\n"+
			"[[permission]]\nrepositories = [\"**\"]\nusers = [%q]\nactions = [\"pull\", \"push\", \"delete\"]\n", address, filepath.Join(dir, "root"), cert, key, tokens, user),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	serve(t, address, filepath.Join(binDir, "tared"), "registry", "--config", filepath.Join(dir, "config.toml"))
	t.Setenv("SSL_CERT_FILE", cert)
	// ctr speaks plain http to this machine unless a file says otherwise.
	hosts := filepath.Join(os.Getenv("DOCKER_CONFIG"), "hosts", address)
	if err := os.MkdirAll(hosts, 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("server = \"https://%[1]s\"\n[host.\"https://%[1]s\"]\ncapabilities = [\"pull\", \"resolve\", \"push\"]\n", address)
	if err := os.WriteFile(filepath.Join(hosts, "hosts.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	data, err := os.ReadFile(cert)
	if err != nil || !pool.AppendCertsFromPEM(data) {
		t.Fatalf("read the certificate: %v", err)
	}
	old := http.DefaultClient.Transport
	http.DefaultClient.Transport = basicAuth{&http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	secure = true
	t.Cleanup(func() { http.DefaultClient.Transport, secure = old, false })
	return address
}

// basicAuth gives the user's name to the test's own requests.
type basicAuth struct{ base http.RoundTripper }

func (b basicAuth) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme = "https"
	r.SetBasicAuth(user, password)
	return b.base.RoundTrip(r)
}

// TestLogins logs in with tare and lets everybody use what that has written, against basic authentication and tokens.
func TestLogins(t *testing.T) {
	f := images(t)
	for name, tokens := range map[string]bool{"basic": false, "tokens": true} {
		t.Run(name, func(t *testing.T) {
			config := t.TempDir()
			t.Setenv("DOCKER_CONFIG", config)
			t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(config, "config.json")) // podman's and skopeo's
			address := secureRegistry(t, tokens)
			for _, c := range clients() {
				if c.name == "podman" || c.name == "ctr" {
					continue // the one does not push this image, the other has its own credentials
				}
				need(t, c.needs...)
				if err := c.push(t, f.dir, "one", address+"/nobody/"+c.name+":1"); err == nil {
					t.Errorf("%s pushes without credentials", c.name)
				}
			}
			login(t, address, "not-that-one", false)
			login(t, address, password, true)
			for _, c := range clients() {
				t.Run(c.name, func(t *testing.T) {
					need(t, c.needs...)
					fromTo(t, address, "tared", c, f, "one", f.one)
				})
			}
			do(t, "tare", "logout", address)
			if err := clients()[0].push(t, f.dir, "one", address+"/nobody/after:1"); err == nil {
				t.Error("tare pushes after logout")
			}
		})
	}
}

func login(t *testing.T, address, secret string, want bool) {
	t.Helper()
	c := exec.Command("tare", "login", "--username", user, "--password-stdin", address)
	c.Stdin = strings.NewReader(secret)
	out, err := c.CombinedOutput()
	if (err == nil) != want {
		t.Fatalf("tare login: %v\n%s", err, out)
	}
	if strings.Contains(string(out), secret) {
		t.Errorf("tare login says the password: %s", out)
	}
}
