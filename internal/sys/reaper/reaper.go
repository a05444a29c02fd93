// Package reaper makes the calling process the one that inherits its descendants' orphans.
package reaper

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Become makes this process a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER); it must wait for all children from then on.
func Become() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	return nil
}
