package launch

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Adopt returns a Child for a child of this process that another program made: criu restores the container's first process as its
// own sibling. master, which may be nil, is its terminal.
func Adopt(pid int, master *os.File) (*Child, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open pidfd of the restored process: %w", err)
	}
	return &Child{PID: pid, PIDFD: os.NewFile(uintptr(pidfd), "pidfd"), Master: master, sync: -1}, nil
}
