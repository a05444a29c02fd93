// Package filelock takes advisory locks on open files and directories (flock(2)). A lock dies with the descriptor, so a
// killed process leaves none behind.
package filelock

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Try locks f for the caller alone, until f and all copies of its descriptor are closed. EWOULDBLOCK: somebody else has it.
func Try(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// TryShared locks f beside others that lock it so, and against Try. EWOULDBLOCK: somebody has it alone.
func TryShared(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// Release gives a lock up while f stays open.
func Release(f *os.File) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		return fmt.Errorf("unlock %s: %w", f.Name(), err)
	}
	return nil
}
