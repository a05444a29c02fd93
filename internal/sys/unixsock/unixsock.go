// Package unixsock passes descriptors through unix sockets by raw system calls, for programs that must not link package net.
package unixsock

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// maxPath is the longest path that fits into sockaddr_un with its final zero byte (unix(7)).
const maxPath = 107

// Pair returns two connected stream sockets, closed on exec. The caller closes both.
func Pair() (*os.File, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "socketpair[0]"), os.NewFile(uintptr(fds[1]), "socketpair[1]"), nil
}

// Dial connects to the listening stream socket at path, of any length. The caller closes it.
func Dial(path string) (*os.File, error) {
	return withSocket(path, unix.SOCK_STREAM, func(fd int, short string) error {
		if err := retry(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: short}) }); err != nil {
			return fmt.Errorf("connect to %s: %w", path, err)
		}
		return nil
	})
}

// DialPolled is Dial for a socket whose reads and writes have deadlines. A path that begins with "@" is an abstract one. Where the
// other end accepts no connection for patience it is an error. The caller closes the socket.
func DialPolled(path string, patience time.Duration) (*os.File, error) {
	return withSocket(path, unix.SOCK_STREAM, func(fd int, short string) error {
		limit := unix.NsecToTimeval(patience.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
			return fmt.Errorf("limit the time to connect to %s: %w", path, err)
		}
		if err := retry(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: short}) }); err != nil {
			return fmt.Errorf("connect to %s: %w", path, err)
		}
		return unix.SetNonblock(fd, true)
	})
}

// Listen makes a listening stream socket at path, of any length, which must not exist. The caller closes it and removes path.
func Listen(path string) (*os.File, error) {
	return withSocket(path, unix.SOCK_STREAM, func(fd int, short string) error {
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: short}); err != nil {
			return fmt.Errorf("bind %s: %w", path, err)
		}
		if err := unix.Listen(fd, 16); err != nil {
			os.Remove(path)
			return fmt.Errorf("listen on %s: %w", path, err)
		}
		return nil
	})
}

// DialDatagram returns a datagram socket that sends to the one at path, of any length, or with a leading "@" at an abstract name. The
// caller closes it.
func DialDatagram(path string) (*os.File, error) {
	return withSocket(path, unix.SOCK_DGRAM, func(fd int, short string) error {
		if err := retry(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: short}) }); err != nil {
			return fmt.Errorf("connect to %s: %w", path, err)
		}
		return nil
	})
}

// ListenDatagram makes a datagram socket at path, of any length, which must not exist. Close and deadlines end a Read of it. The
// caller closes it and removes path.
func ListenDatagram(path string) (*os.File, error) {
	return withSocket(path, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, func(fd int, short string) error {
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: short}); err != nil {
			return fmt.Errorf("bind %s: %w", path, err)
		}
		return nil
	})
}

// withSocket calls use with a new socket and a name for path that fits: a longer one is reached through a descriptor of its
// directory.
func withSocket(path string, kind int, use func(fd int, short string) error) (*os.File, error) {
	short := path
	if len(path) > maxPath {
		dir, base := filepath.Split(path)
		if dir == "" {
			dir = "."
		}
		d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", dir, err)
		}
		defer unix.Close(d)
		short = "/proc/self/fd/" + strconv.Itoa(d) + "/" + base
	}
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	if err := use(fd, short); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Accept takes one connection from the listening socket l. The caller closes it.
func Accept(l *os.File) (*os.File, error) {
	for {
		fd, _, err := unix.Accept4(int(l.Fd()), unix.SOCK_CLOEXEC)
		if err == nil {
			return os.NewFile(uintptr(fd), l.Name()), nil
		}
		if err != unix.EINTR {
			return nil, fmt.Errorf("accept on %s: %w", l.Name(), err)
		}
	}
}

// SendFD sends payload, at least one byte, over sock, with a copy of descriptor fd in the first message: a payload larger than
// the socket's buffer may take more than one when a signal interrupts.
func SendFD(sock *os.File, payload []byte, fd int) error {
	rights := unix.UnixRights(fd)
	err := retry(func() error {
		n, err := unix.SendmsgN(int(sock.Fd()), payload, rights, nil, unix.MSG_NOSIGNAL)
		if err == nil {
			payload, rights = payload[n:], nil
		}
		if err == nil && len(payload) > 0 {
			err = unix.EINTR
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("send descriptor over %s: %w", sock.Name(), err)
	}
	return nil
}

// RecvFD receives one message with exactly one descriptor from sock. It fills buf with the payload and returns its length
// and the descriptor, closed on exec, which the caller closes. A message with none or several gives an error and leaves
// no descriptor open.
func RecvFD(sock *os.File, buf []byte) (int, int, error) {
	// Room for more than one, so that a peer which sends several is noticed rather than cut short.
	oob := make([]byte, unix.CmsgSpace(4*4))
	var n, oobn, flags int
	err := retry(func() (err error) {
		n, oobn, flags, _, err = unix.Recvmsg(int(sock.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return 0, -1, fmt.Errorf("receive descriptor over %s: %w", sock.Name(), err)
	}
	fds := rights(oob[:oobn])
	if len(fds) != 1 || flags&unix.MSG_CTRUNC != 0 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		if n == 0 && len(fds) == 0 {
			return 0, -1, fmt.Errorf("receive descriptor over %s: the peer closed the connection", sock.Name())
		}
		return 0, -1, fmt.Errorf("receive descriptor over %s: want 1 descriptor, got %d", sock.Name(), len(fds))
	}
	return n, fds[0], nil
}

func rights(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
