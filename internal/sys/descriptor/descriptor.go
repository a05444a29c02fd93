// Package descriptor looks at this process's own file descriptors.
package descriptor

import "golang.org/x/sys/unix"

// Inherited tells whether fd was open when this program was executed: it is open, and not closed on exec as all that a Go
// program opens by itself.
func Inherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}
