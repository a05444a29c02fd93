package hosts

import (
	"crypto/tls"
	"errors"
	"net"
	"time"
)

// probeTimeout is how long a registry on this machine has to answer the first words of TLS; a plain one answers at once too.
const probeTimeout = 5 * time.Second

// speaksTLS finds out, once, whether the server at HOST:PORT, which is on this machine by its name, speaks TLS: then it is
// spoken to by TLS only, its certificate verified as everywhere. This is no way back from TLS to plain http: a name of another
// machine is never asked (CVE-2014-5277), and what goes to this machine nobody can change on its way.
func (c *Config) speaksTLS(host string) bool {
	if _, _, err := net.SplitHostPort(host); err != nil {
		return false // port 80, which has no TLS
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if yes, ok := c.tls[host]; ok {
		return yes
	}
	c.tls[host] = handshake(host)
	return c.tls[host]
}

// handshake reports whether the answer to a handshake is one of TLS, be it a refusal. Whether the certificate is good is found
// out by the connection that is used.
func handshake(host string) bool {
	conn, err := net.DialTimeout("tcp", host, probeTimeout)
	if err != nil {
		return false // as the next connection will say too
	}
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(probeTimeout)) != nil {
		return false
	}
	err = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: minTLS}).Handshake()
	var alert tls.AlertError
	return err == nil || errors.As(err, &alert)
}
