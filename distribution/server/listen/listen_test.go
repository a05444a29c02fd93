package listen

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair writes a certificate that has signed itself, and its key.
func pair(t *testing.T, dir, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"registry.test"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, private := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	for file, data := range map[string][]byte{"cert.pem": cert, "key.pem": private} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := tls.X509KeyPair(cert, private)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// seen is the name of the certificate that a client sees.
func seen(t *testing.T, c *tls.Config, client ...tls.Certificate) (string, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	fail := make(chan error, 1)
	go func() { fail <- tls.Server(a, c).Handshake() }()
	conn := tls.Client(b, &tls.Config{InsecureSkipVerify: true, Certificates: client, MaxVersion: tls.VersionTLS12})
	err := conn.Handshake()
	if err = errors.Join(err, <-fail); err != nil {
		return "", err
	}
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	pair(t, dir, "one")
	var told []error
	f := &files{certificate: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), warn: func(err error) { told = append(told, err) }}
	now := time.Now()
	f.now = func() time.Time { return now }
	if err := f.load(); err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{GetConfigForClient: f.config}
	expect := func(want string) {
		t.Helper()
		if got, err := seen(t, c); err != nil || got != want {
			t.Errorf("saw %s, %v, want %s", got, err, want)
		}
	}
	expect("one")
	pair(t, dir, "two")
	expect("one")
	now = now.Add(lookAgain)
	expect("two")
	if err := os.WriteFile(f.key, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookAgain)
	expect("two")
	now = now.Add(lookAgain)
	expect("two")
	if len(told) != 1 || !strings.Contains(told[0].Error(), "key.pem") {
		t.Errorf("told: %v", told)
	}
}

func TestClientCertificates(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	good, bad := pair(t, dir, "one"), pair(t, other, "two")
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	c, err := TLS(cert, key, cert, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seen(t, c); err == nil {
		t.Error("a client without a certificate may enter")
	}
	if _, err := seen(t, c, bad); err == nil {
		t.Error("a client with a stranger's certificate may enter")
	}
	if _, err := seen(t, c, good); err != nil {
		t.Errorf("a client with a certificate: %v", err)
	}
	for _, files := range [][3]string{{cert, cert, ""}, {cert, key, key}, {cert, "none", ""}} {
		if _, err := TLS(files[0], files[1], files[2], nil); err == nil {
			t.Errorf("%q is taken", files)
		}
	}
}

func TestServeEnds(t *testing.T) {
	for _, grace := range []time.Duration{time.Minute, 0} {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		entered, leave, ending := make(chan bool), make(chan bool), make(chan bool, 1)
		done := make(chan error, 1)
		go func() {
			done <- Serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				entered <- true
				select {
				case <-leave:
				case <-r.Context().Done():
				}
				_, _ = io.WriteString(w, "whole")
			}), Options{Header: time.Minute, Grace: grace, Ending: func() { ending <- true }})
		}()
		got := make(chan string, 1)
		go func() {
			r, err := http.Get("http://" + l.Addr().String())
			if err != nil {
				got <- "cut"
				return
			}
			defer r.Body.Close()
			body, _ := io.ReadAll(r.Body)
			got <- string(body)
		}()
		<-entered
		cancel()
		<-ending
		for { // nobody else is let in
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				break
			}
			c.Close()
		}
		want := "cut"
		if grace > 0 {
			want = "whole"
			leave <- true
		}
		if text := <-got; text != want {
			t.Errorf("grace %s: the request under way was answered %q", grace, text)
		}
		if err := <-done; (err == nil) != (grace > 0) {
			t.Errorf("grace %s: %v", grace, err)
		}
	}
}

// TestSlowHeader: who never finishes a header is cut off.
func TestSlowHeader(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = Serve(ctx, l, http.NotFoundHandler(), Options{Header: 200 * time.Millisecond, Idle: time.Minute})
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nX: ")); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(c); err != nil || strings.Contains(string(text), " 200 ") {
		t.Errorf("answered %q, %v", text, err)
	}
}
