//go:build 386 || arm || mips || mipsle

package launch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:nosplit
//go:norace
func fstatfs(m *machine, fd uintptr) uintptr {
	_, _, e := syscall.RawSyscall6(unix.SYS_FSTATFS64, fd, unsafe.Sizeof(m.statfs), uintptr(unsafe.Pointer(&m.statfs)), 0, 0, 0)
	return uintptr(e)
}
