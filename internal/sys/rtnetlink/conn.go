// Package rtnetlink reads and changes network devices, their addresses and routes by rtnetlink(7), in the caller's network namespace
// or in another one, without package net. Errors wrap the kernel's errno and carry its explanation where it gives one.
package rtnetlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Conn is a netlink socket. It belongs to the network namespace in which it was opened, whichever thread uses it. It is for one
// goroutine at a time.
type Conn struct {
	fd  int
	seq uint32
}

// Open returns a socket in the network namespace of the calling thread. The caller closes it.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// Explanations of errors, errors without a copy of the request, dumps that are filtered by the kernel.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("set netlink option %d: %w", option, err)
		}
	}
	return &Conn{fd: fd}, nil
}

// OpenIn returns a socket in the network namespace ns. The calling thread enters ns for the time of the call: it is locked to the
// goroutine meanwhile, so that Go starts no other thread from it. The caller closes the socket.
func OpenIn(ns *os.File) (*Conn, error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer own.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter network namespace %s: %w", ns.Name(), err)
	}
	c, err := Open()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, so that nothing else ever runs in the wrong namespace.
		if err == nil {
			c.Close()
		}
		return nil, fmt.Errorf("return to the runtime's network namespace: %w", back)
	}
	runtime.UnlockOSThread()
	return c, err
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// message is one answer of the kernel.
type message struct {
	kind uint16
	body []byte
}

const (
	headerLen = unix.SizeofNlMsghdr
	// dumpTries is how often a dump is repeated that the kernel marks as inconsistent.
	dumpTries = 5
)

var (
	order          = binary.NativeEndian
	errInterrupted = errors.New("the list changed while it was read")
)

// do sends a request that is acknowledged and returns what comes before the acknowledgement.
func (c *Conn) do(kind, flags uint16, body []byte) ([]message, error) {
	return c.exchange(kind, flags|unix.NLM_F_ACK, body)
}

// dump asks for all objects of a kind that match the body.
func (c *Conn) dump(kind uint16, body []byte) (list []message, err error) {
	for range dumpTries {
		if list, err = c.exchange(kind, unix.NLM_F_DUMP, body); err != errInterrupted {
			return list, err
		}
	}
	return nil, err
}

func (c *Conn) exchange(kind, flags uint16, body []byte) ([]message, error) {
	c.seq++
	b := make([]byte, headerLen, headerLen+len(body))
	order.PutUint32(b[0:], uint32(headerLen+len(body)))
	order.PutUint16(b[4:], kind)
	order.PutUint16(b[6:], flags|unix.NLM_F_REQUEST)
	order.PutUint32(b[8:], c.seq)
	if err := unix.Sendto(c.fd, append(b, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send netlink request: %w", err)
	}
	var list []message
	interrupted := false
	for {
		data, err := c.receive()
		if err != nil {
			return nil, err
		}
		for len(data) >= headerLen {
			size := int(order.Uint32(data))
			if size < headerLen || size > len(data) {
				return nil, fmt.Errorf("read netlink answer: %w", unix.EBADMSG)
			}
			kind, flags, seq := order.Uint16(data[4:]), order.Uint16(data[6:]), order.Uint32(data[8:])
			body := data[headerLen:size]
			data = data[min(align(size), len(data)):]
			if seq != c.seq {
				continue
			}
			interrupted = interrupted || flags&unix.NLM_F_DUMP_INTR != 0
			switch kind {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if err := status(flags, body); err != nil {
					return nil, err
				}
				if interrupted {
					return nil, errInterrupted
				}
				return list, nil
			default:
				list = append(list, message{kind, body})
			}
		}
	}
}

// receive returns one datagram of the kernel, of any size.
func (c *Conn) receive() ([]byte, error) {
	for {
		size, _, err := unix.Recvfrom(c.fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		if err == nil {
			buf := make([]byte, size)
			var from unix.Sockaddr
			size, from, err = unix.Recvfrom(c.fd, buf, 0)
			if nl, ok := from.(*unix.SockaddrNetlink); err == nil && ok && nl.Pid == 0 { // others may write to the socket too
				return buf[:size], nil
			}
		}
		if err != nil && err != unix.EINTR {
			return nil, fmt.Errorf("receive netlink answer: %w", err)
		}
	}
}

// status reads the errno at the start of an acknowledgement or of a dump's end, and the kernel's explanation after it.
func status(flags uint16, body []byte) error {
	if len(body) < 4 {
		return fmt.Errorf("read netlink answer: %w", unix.EBADMSG)
	}
	code := int32(order.Uint32(body))
	if code >= 0 {
		return nil
	}
	errno := syscall.Errno(-code)
	text := ""
	if rest := body[4:]; flags&unix.NLM_F_ACK_TLVS != 0 {
		if flags&unix.NLM_F_CAPPED != 0 && len(rest) >= headerLen {
			rest = rest[headerLen:]
		}
		attributes(rest, func(kind uint16, value []byte) {
			if kind == unix.NLMSGERR_ATTR_MSG {
				text = zeroEnded(value)
			}
		})
	}
	if text != "" {
		return fmt.Errorf("%w (%s)", errno, text)
	}
	return errno
}

func align(n int) int { return (n + 3) &^ 3 }

// attributes calls each with every attribute in b. A cut one ends the list.
func attributes(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= 4 {
		size := int(order.Uint16(b))
		if size < 4 || size > len(b) {
			return
		}
		each(order.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:size])
		b = b[min(align(size), len(b)):]
	}
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = order.AppendUint16(b, uint16(4+len(value)))
	b = order.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, align(len(value))-len(value))...)
}

func appendUint32(b []byte, kind uint16, value uint32) []byte {
	return appendAttribute(b, kind, order.AppendUint32(nil, value))
}

func appendString(b []byte, kind uint16, value string) []byte {
	return appendAttribute(b, kind, append([]byte(value), 0))
}

func zeroEnded(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
