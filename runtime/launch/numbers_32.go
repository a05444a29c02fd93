//go:build 386 || arm

package launch

import "golang.org/x/sys/unix"

// System calls that take 32-bit user ids.
const (
	sysFchown    = unix.SYS_FCHOWN32
	sysSetgroups = unix.SYS_SETGROUPS32
	sysSetresuid = unix.SYS_SETRESUID32
	sysSetresgid = unix.SYS_SETRESGID32
)
