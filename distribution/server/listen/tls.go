package listen

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"time"
)

// lookAgain is how often the files of a certificate are looked at, at most.
const lookAgain = time.Second

// maxPEM is the most bytes of a certificate's or key's file.
const maxPEM = 1 << 20

// TLS returns a configuration with the certificate and key of two PEM files. With clientCA, clients need a certificate that it
// has signed. When a file changes, new connections use it; if it is broken, warn, which may be nil, is told, and what was read
// before stays.
func TLS(certificate, key, clientCA string, warn func(error)) (*tls.Config, error) {
	f := &files{certificate: certificate, key: key, clientCA: clientCA, warn: warn, now: time.Now}
	if err := f.load(); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, GetConfigForClient: f.config}, nil
}

var protocols = []string{"h2", "http/1.1"}

// files are the files of a configuration.
type files struct {
	certificate, key, clientCA string
	warn                       func(error)
	now                        func() time.Time

	mu      sync.Mutex
	looked  time.Time
	content [][]byte // of the files, as they were last seen, good or not
	current *tls.Config
}

func (f *files) config(*tls.ClientHelloInfo) (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now().Sub(f.looked) >= lookAgain {
		if err := f.load(); err != nil && f.warn != nil {
			f.warn(err)
		}
	}
	return f.current, nil
}

// load reads the files, if they have changed. Their content is compared: it is small, and a certificate may be replaced by one of
// the same size within the same second.
func (f *files) load() error {
	f.looked = f.now()
	var content [][]byte
	for _, path := range []string{f.certificate, f.key, f.clientCA} {
		var data []byte
		if path != "" {
			fi, err := os.Stat(path)
			if err == nil && fi.Size() > maxPEM {
				err = fmt.Errorf("%s has %d bytes, at most %d", path, fi.Size(), maxPEM)
			}
			if err == nil {
				data, err = os.ReadFile(path)
			}
			if err != nil {
				return fmt.Errorf("read certificate: %w", err)
			}
		}
		content = append(content, data)
	}
	if f.content != nil && bytes.Equal(bytes.Join(content, []byte{0}), bytes.Join(f.content, []byte{0})) {
		return nil
	}
	f.content = content
	pair, err := tls.X509KeyPair(content[0], content[1])
	if err != nil {
		return fmt.Errorf("read certificate: %s and %s: %w", f.certificate, f.key, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, Certificates: []tls.Certificate{pair}}
	if f.clientCA != "" {
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(content[2]) {
			return fmt.Errorf("read certificate: %s: no certificate in it", f.clientCA)
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	f.current = c
	return nil
}

// logger gives what net/http has to say to fault.
func logger(fault func(error)) *log.Logger {
	return log.New(teller(func(s string) { tell(fault, s) }), "", 0)
}

func tell(fault func(error), text string) {
	if fault != nil {
		fault(errors.New(strings.TrimRight(text, "\n")))
	}
}

type teller func(string)

func (t teller) Write(p []byte) (int, error) {
	t(string(p))
	return len(p), nil
}
