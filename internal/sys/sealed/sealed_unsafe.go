package sealed

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// execve is execveat(2) on a descriptor.
func execve(fd int, argv, envp []*byte) error {
	empty := byte(0)
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty)), uintptr(unsafe.Pointer(&argv[0])),
		uintptr(unsafe.Pointer(&envp[0])), unix.AT_EMPTY_PATH, 0)
	return fmt.Errorf("execute copy of own program: %w", errno)
}
