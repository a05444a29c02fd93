// Package filelock takes advisory locks on open files and directories (flock(2)). A lock dies with the descriptor, so a
// killed process leaves none behind.
package filelock

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Lock waits until f is locked for the caller alone. It holds until f is closed.
func Lock(f *os.File) error { return lock(f, unix.LOCK_EX) }

// Try is Lock that returns EWOULDBLOCK when somebody else holds the lock.
func Try(f *os.File) error { return lock(f, unix.LOCK_EX|unix.LOCK_NB) }

func lock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}
