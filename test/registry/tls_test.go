package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority writes a CA and what it has signed: a server's certificate for loopback, and a client's.
func authority(t *testing.T, dir string) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tests"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	for i, name := range []string{"ca", "server", "client"} {
		key, template := caKey, ca
		if i > 0 {
			if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
				t.Fatal(err)
			}
			template = &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
				IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		}
		der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for file, block := range map[string]*pem.Block{name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: raw}} {
			if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if i == 1 { // what another client's directory of certificates has
			if err := os.Rename(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.pem")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestTLS: a client with the right CA and certificate pushes over TLS and HTTP/2; one without is let in nowhere.
func TestTLS(t *testing.T) {
	need(t, "skopeo", "umoci", "curl", "htpasswd")
	dir := t.TempDir()
	authority(t, dir)
	x := startTared(t, fmt.Sprintf("[tls]\ncertificate = \"%[1]s/server.pem\"\nkey = \"%[1]s/server.key\"\nclient-ca = \"%[1]s/ca.crt\"\n[auth]\nhtpasswd = %[2]q\n", dir, htpasswdFile(t, t.TempDir(), "alice")))
	image, certs := filepath.Join(x.dir, "image"), filepath.Join(x.dir, "certs")
	if err := os.Mkdir(certs, 0o700); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"ca.crt": "ca.crt", "client.crt": "client.cert", "client.key": "client.key"} {
		data, err := os.ReadFile(filepath.Join(dir, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(certs, to), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args string
		good bool
		want string
	}{
		{"umoci init --layout " + image, true, ""},
		{"umoci new --image " + image + ":1", true, ""},
		{"skopeo copy --dest-creds alice:" + topSecret + "alice --dest-cert-dir " + certs + " oci:" + image + ":1 docker://" + x.addr + "/a:1", true, ""},
		{"skopeo copy --dest-creds alice:" + topSecret + "alice oci:" + image + ":1 docker://" + x.addr + "/a:2", false, "certificate"},
		{"curl -sS --cacert " + dir + "/ca.crt https://" + x.addr + "/v2/", false, "curl:"},
		{"curl -sSI --cacert " + dir + "/ca.crt --cert " + dir + "/client.crt --key " + dir + "/client.key https://" + x.addr + "/v2/", true, `HTTP/2 401`},
		{"curl -sSI --cacert " + dir + "/ca.crt --cert " + dir + "/client.crt --key " + dir + "/client.key https://" + x.addr + "/v2/", true, `realm="https://` + x.addr + `/token"`},
		{"curl -sS --tls-max 1.1 --cacert " + dir + "/ca.crt --cert " + dir + "/client.crt --key " + dir + "/client.key https://" + x.addr + "/v2/", false, "curl:"},
	} {
		words := strings.Fields(c.args)
		out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
		if (err == nil) != c.good || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: %v %s, want %q", c.args, err, out, c.want)
		}
	}
}
