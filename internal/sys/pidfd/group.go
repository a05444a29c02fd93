package pidfd

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// KillGroup sends SIGKILL to every process of the process group pgid, whose leader the caller has not yet reaped: until then
// the number is not reused.
func KillGroup(pgid int) error {
	if err := unix.Kill(-pgid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill process group %d: %w", pgid, err)
	}
	return nil
}
