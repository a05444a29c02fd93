// Package caps asks the kernel about the calling process's capabilities: capabilities(7).
package caps

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Own returns the capabilities that this process can hand on (permitted and in the bounding set) as a bit set, and the number
// of the kernel's last capability.
func Own() (set uint64, last int, err error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, 0, fmt.Errorf("read own capabilities: %w", err)
	}
	set = uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted)
	for last = -1; last < 63; last++ {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(last+1), 0, 0, 0)
		if err != nil {
			break // EINVAL: the kernel knows no more
		}
		if in == 0 {
			set &^= 1 << (last + 1)
		}
	}
	return set, last, nil
}
