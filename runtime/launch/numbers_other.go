//go:build !386 && !arm

package launch

import "golang.org/x/sys/unix"

// System calls that take 32-bit user ids.
const (
	sysFchown    = unix.SYS_FCHOWN
	sysSetgroups = unix.SYS_SETGROUPS
	sysSetresuid = unix.SYS_SETRESUID
	sysSetresgid = unix.SYS_SETRESGID
)
