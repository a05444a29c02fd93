package ocitest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ConsoleSocket receives the terminal that a runtime sends.
func ConsoleSocket(h *H) (path string, terminal func() *os.File) {
	path = filepath.Join(h.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() { l.Close() })
	return path, func() *os.File {
		l.SetDeadline(time.Now().Add(10 * time.Second))
		c, err := l.AcceptUnix()
		if err != nil {
			h.Fatalf("no terminal came: %v", err)
		}
		defer c.Close()
		buf, oob := make([]byte, 4096), make([]byte, 256)
		n, on, _, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil {
			h.Fatalf("%v", err)
		}
		ms, err := unix.ParseSocketControlMessage(oob[:on])
		if err != nil || len(ms) != 1 || n == 0 {
			h.Fatalf("message %q with %d control messages: %v", buf[:n], len(ms), err)
		}
		fds, err := unix.ParseUnixRights(&ms[0])
		if err != nil || len(fds) != 1 {
			h.Fatalf("%d descriptors: %v", len(fds), err)
		}
		unix.SetNonblock(fds[0], true) // lets Close end a Read
		f := os.NewFile(uintptr(fds[0]), "terminal")
		h.Cleanup(func() { f.Close() })
		return f
	}
}

// PTY makes a terminal of the suite's own: the side of the person and the side of the program.
func PTY(h *H) (*os.File, *os.File) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		h.Fatalf("%v", err)
	}
	m := os.NewFile(uintptr(fd), "ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		h.Fatalf("%v", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		h.Fatalf("%v", err)
	}
	s, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() { m.Close(); s.Close() })
	return m, s
}
