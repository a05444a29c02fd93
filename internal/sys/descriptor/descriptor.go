// Package descriptor looks at this process's own file descriptors.
package descriptor

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Inherited tells whether fd was open when this program was executed: it is open, and not closed on exec as all that a Go
// program opens by itself.
func Inherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// Pipe makes a pipe, closed on exec. Both ends block, as a program expects of its standard streams: os.Pipe's do not.
func Pipe() (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	return os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe"), nil
}

// CloseOnExec marks every descriptor from first on, so that no program that this process starts from now on gets what its own caller
// had open.
func CloseOnExec(first int) error {
	if err := unix.CloseRange(uint(first), 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors for closing: %w", err)
	}
	return nil
}
