package unixsock

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MessagePair returns two connected sockets that keep the boundaries of messages, closed on exec. The caller closes both.
func MessagePair() (*os.File, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "socketpair[0]"), os.NewFile(uintptr(fds[1]), "socketpair[1]"), nil
}

// SendMessage sends one message over sock, of a pair that MessagePair made.
func SendMessage(sock *os.File, message []byte) error {
	err := retry(func() error {
		return unix.Sendto(int(sock.Fd()), message, unix.MSG_NOSIGNAL, nil)
	})
	if err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// ReceiveMessage receives one message from sock into buf and returns its length, 0 when the peer has closed its end, and the
// descriptor that came with it, closed on exec, or -1. The caller closes it. A message that does not fit is EMSGSIZE.
func ReceiveMessage(sock *os.File, buf []byte) (int, int, error) {
	oob := make([]byte, unix.CmsgSpace(4*4))
	var n, oobn, flags int
	err := retry(func() (err error) {
		n, oobn, flags, _, err = unix.Recvmsg(int(sock.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return 0, -1, fmt.Errorf("receive message: %w", err)
	}
	fds := rights(oob[:oobn])
	if len(fds) > 1 || flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return 0, -1, fmt.Errorf("receive message: %w", unix.EMSGSIZE)
	}
	if len(fds) == 1 {
		return n, fds[0], nil
	}
	return n, -1, nil
}
