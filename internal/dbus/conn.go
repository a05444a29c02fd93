// Package dbus is a client for the message bus of D-Bus that does what a manager of systemd units needs: connect to a bus or
// directly to a process, authenticate by the socket's credentials, call methods and wait for a signal, all until a deadline.
// What comes over the bus is bounded and checked. There is no reflection: values are trees with their signatures.
package dbus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/tare-oci/tare/internal/sys/unixsock"
)

// Conn is a connection. It is used by one goroutine at a time.
type Conn struct {
	sock    *os.File
	r       *bufio.Reader
	serial  uint32
	direct  bool       // no bus in between
	signals []*Message // seen while something else was awaited, the oldest first
}

// maxSignals is how many signals are kept that no call has waited for.
const maxSignals = 256

// patience is how long the other end may take where the context has no deadline.
const patience = 30 * time.Second

// Error is what the other end answered to a call.
type Error struct{ Name, Text string }

// Error gives the text, which is for people, and the name, which is for programs.
func (e *Error) Error() string { return e.Text + " (" + e.Name + ")" }

// Is tells whether err is the answer of that name.
func Is(err error, name string) bool {
	var e *Error
	return errors.As(err, &e) && e.Name == name
}

// Connect connects to the bus at an address of the specification's form: "unix:path=/run/bus", several separated by ";", of which the
// first that works is used. Only unix sockets are known. The caller closes the connection.
func Connect(ctx context.Context, address string) (*Conn, error) {
	c, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	if _, err := c.Call(ctx, bus, busPath, bus, "Hello"); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to bus %s: %w", address, err)
	}
	return c, nil
}

// ConnectDirect connects to a process that speaks the protocol itself, as systemd does at /run/systemd/private: there are no names and
// all signals come. The caller closes the connection.
func ConnectDirect(ctx context.Context, path string) (*Conn, error) {
	c, err := dial(ctx, "unix:path="+path)
	if err == nil {
		c.direct = true
	}
	return c, err
}

const (
	bus     = "org.freedesktop.DBus"
	busPath = "/org/freedesktop/DBus"
)

func dial(ctx context.Context, address string) (*Conn, error) {
	var errs []error
	for one := range strings.SplitSeq(address, ";") {
		path, err := socketPath(one)
		if err == nil {
			var c *Conn
			if c, err = dialSocket(ctx, path); err == nil {
				return c, nil
			}
		}
		errs = append(errs, fmt.Errorf("connect to bus %s: %w", one, err))
	}
	return nil, errors.Join(errs...)
}

func dialSocket(ctx context.Context, path string) (*Conn, error) {
	sock, err := unixsock.DialPolled(path, patience)
	if err != nil {
		return nil, err
	}
	c := &Conn{sock: sock, r: bufio.NewReader(sock)}
	if err := c.authenticate(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// socketPath gives the path of a unix socket's address; an abstract one begins with "@".
func socketPath(address string) (string, error) {
	list, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return "", fmt.Errorf("address %.80q: only unix sockets are supported", address)
	}
	for kv := range strings.SplitSeq(list, ",") {
		key, value, _ := strings.Cut(kv, "=")
		value, err := unescape(value)
		if err != nil {
			return "", fmt.Errorf("address %.80q: %w", address, err)
		}
		switch {
		case key == "path" && value != "":
			return value, nil
		case key == "abstract" && value != "":
			return "@" + value, nil
		}
	}
	return "", fmt.Errorf("address %.80q has neither path nor abstract", address)
}

// unescape undoes the percent escapes of addresses.
func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		hi, lo := -1, -1
		if i+2 < len(s) {
			hi, lo = hexDigit(s[i+1]), hexDigit(s[i+2])
		}
		if hi < 0 || lo < 0 {
			return "", fmt.Errorf("bad escape in %.80q", s)
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	return b.String(), nil
}

func hexDigit(c byte) int { return strings.IndexByte("0123456789abcdef", c|0x20) }

// authenticate does SASL's EXTERNAL without naming an identity: the other end takes the socket's credentials, which are right in a user
// namespace too, where this process does not know its id on the host.
//
//	> \0 AUTH EXTERNAL
//	< DATA
//	> DATA
//	< OK guid
//	> BEGIN
func (c *Conn) authenticate(ctx context.Context) error {
	c.until(ctx)
	if _, err := c.sock.WriteString("\x00AUTH EXTERNAL\r\nDATA\r\n"); err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	for _, want := range []string{"DATA", "OK "} {
		line, err := c.line()
		if err != nil {
			return fmt.Errorf("authenticate: %w", err)
		}
		if !strings.HasPrefix(line, want) {
			return fmt.Errorf("authenticate: the bus answers %.80q", line)
		}
	}
	if _, err := c.sock.WriteString("BEGIN\r\n"); err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	return nil
}

// line reads a line of the authentication, which is short.
func (c *Conn) line() (string, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// until sets the deadline of what follows.
func (c *Conn) until(ctx context.Context) {
	at, ok := ctx.Deadline()
	if !ok {
		at = time.Now().Add(patience)
	}
	_ = c.sock.SetDeadline(at)
}

// Close closes the connection.
func (c *Conn) Close() { c.sock.Close() }

// Call calls a method and returns the answer's values. An answer that says why not is an *Error.
func (c *Conn) Call(ctx context.Context, destination, path, iface, member string, args ...Value) ([]Value, error) {
	c.until(ctx)
	serial, err := c.send(&Message{Type: typeCall, Destination: destination, Path: path, Interface: iface, Member: member, Body: args})
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", member, err)
	}
	for {
		m, err := c.next()
		switch {
		case err != nil:
			return nil, fmt.Errorf("call %s: %w", member, err)
		case m.Type == typeReply && m.ReplySerial == serial:
			return m.Body, nil
		case m.Type == typeError && m.ReplySerial == serial:
			e := &Error{Name: m.ErrorName}
			if len(m.Body) > 0 {
				e.Text = m.Body[0].Str
			}
			return nil, fmt.Errorf("call %s: %w", member, e)
		case m.Type == typeSignal:
			c.keep(m)
		}
	}
}

// Tell calls a method without waiting for its answer.
func (c *Conn) Tell(ctx context.Context, destination, path, iface, member string, args ...Value) error {
	c.until(ctx)
	m := &Message{Type: typeCall, Flags: flagNoReply, Destination: destination, Path: path, Interface: iface, Member: member, Body: args}
	if _, err := c.send(m); err != nil {
		return fmt.Errorf("call %s: %w", member, err)
	}
	return nil
}

// AddMatch asks the bus for the signals that a rule describes.
func (c *Conn) AddMatch(ctx context.Context, rule string) error {
	if c.direct {
		return nil
	}
	return c.Tell(ctx, bus, busPath, bus, "AddMatch", String(rule))
}

// Signal waits for a signal of an interface that is wanted; others are dropped.
func (c *Conn) Signal(ctx context.Context, iface, member string, want func(body []Value) bool) ([]Value, error) {
	c.until(ctx)
	for {
		var m *Message
		if len(c.signals) > 0 {
			m, c.signals = c.signals[0], c.signals[1:]
		} else {
			var err error
			if m, err = c.next(); err != nil {
				return nil, fmt.Errorf("wait for signal %s: %w", member, err)
			}
		}
		if m.Type == typeSignal && m.Interface == iface && m.Member == member && want(m.Body) {
			return m.Body, nil
		}
	}
}

func (c *Conn) keep(m *Message) {
	if len(c.signals) == maxSignals {
		c.signals = c.signals[1:]
	}
	c.signals = append(c.signals, m)
}

func (c *Conn) send(m *Message) (uint32, error) {
	if c.direct {
		m.Destination = ""
	}
	c.serial++
	m.Serial = c.serial
	b, err := m.encode()
	if err != nil {
		return 0, err
	}
	_, err = c.sock.Write(b)
	return m.Serial, err
}

func (c *Conn) next() (*Message, error) {
	m, err := read(c.r)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errors.New("the bus closed the connection")
	}
	return m, err
}
