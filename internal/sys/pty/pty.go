// Package pty handles pseudo-terminals and terminal settings (pty(7), termios(3)).
package pty

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Size is a terminal's size in character cells.
type Size struct{ Rows, Cols uint16 }

// Open makes a pseudo-terminal by the multiplexer at ptmx, "/dev/ptmx" or the "ptmx" of any devpts instance, and returns its
// master and slave, closed on exec. The slave is opened through the master and never by a path (TIOCGPTPEER, Linux 4.13),
// so nobody can put another file in its place. The caller closes both.
func Open(ptmx string) (master, slave *os.File, err error) {
	fd, err := unix.Open(ptmx, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", ptmx, err)
	}
	master = os.NewFile(uintptr(fd), ptmx)
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("unlock terminal: %w", err)
	}
	slave, err = Peer(master)
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

// Peer opens the slave of an unlocked master. The caller closes it.
func Peer(master *os.File) (*os.File, error) {
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, fmt.Errorf("get number of terminal: %w", err)
	}
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, flags)
	if errno != 0 {
		return nil, fmt.Errorf("open slave of terminal %d: %w", n, errno)
	}
	return os.NewFile(fd, "/dev/pts/"+strconv.Itoa(n)), nil
}

// IsTerminal tells whether f is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// InForeground tells whether this process may read the terminal f without being stopped by SIGTTIN: it is in the foreground of its
// session, or f is not the session's terminal.
func InForeground(f *os.File) bool {
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err != nil || group == unix.Getpgrp()
}

// GetSize returns the size of the terminal f.
func GetSize(f *os.File) (Size, error) {
	w, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return Size{}, fmt.Errorf("get size of terminal %s: %w", f.Name(), err)
	}
	return Size{Rows: w.Row, Cols: w.Col}, nil
}

// SetSize sets the size of the terminal f. Its foreground process group gets SIGWINCH when it changed.
func SetSize(f *os.File, s Size) error {
	w := unix.Winsize{Row: s.Rows, Col: s.Cols}
	if err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &w); err != nil {
		return fmt.Errorf("set size of terminal %s: %w", f.Name(), err)
	}
	return nil
}

// Settings are a terminal's settings, to be given back to Restore.
type Settings struct{ termios unix.Termios }

// EOF returns the character that ends input on this terminal, and false when it does not read by lines.
func (s *Settings) EOF() (byte, bool) {
	return s.termios.Cc[unix.VEOF], s.termios.Lflag&unix.ICANON != 0 && s.termios.Cc[unix.VEOF] != 0
}

// Get returns the settings of the terminal f.
func Get(f *os.File) (*Settings, error) {
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("get settings of terminal %s: %w", f.Name(), err)
	}
	return &Settings{*t}, nil
}

// MakeRaw lets all bytes that are typed pass the terminal f unchanged, as cfmakeraw(3) does, and returns the settings from before.
// How f shows output, a newline above all, stays.
func MakeRaw(f *os.File) (*Settings, error) {
	old, err := Get(f)
	if err != nil {
		return nil, err
	}
	t := old.termios
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := Restore(f, &Settings{t}); err != nil {
		return nil, err
	}
	return old, nil
}

// Restore gives the terminal f the settings s.
func Restore(f *os.File, s *Settings) error {
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &s.termios); err != nil {
		return fmt.Errorf("set settings of terminal %s: %w", f.Name(), err)
	}
	return nil
}

// DupNonblock returns a copy of f's descriptor for non-blocking use with deadlines, which the caller closes. The file
// behind it, and with it f, becomes non-blocking: only for files that nobody else reads.
func DupNonblock(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("copy descriptor of %s: %w", f.Name(), err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make %s non-blocking: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
