//go:build amd64 || arm64

package killpoint

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// callInfo is the start of struct ptrace_syscall_info of ptrace(2).
type callInfo struct {
	op   uint8 // 1: entry
	_    [3]uint8
	arch uint32
	_    [2]uint64 // instruction and stack pointers
	nr   uint64
	_    [6]uint64 // arguments
	_    uint64
}

// enteredCall is the number of the call that a stopped thread enters; false: it leaves one.
func enteredCall(tid int) (nr uint64, entering bool) {
	var info callInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info),
		uintptr(unsafe.Pointer(&info)), 0, 0)
	return info.nr, errno == 0 && info.op == unix.PTRACE_SYSCALL_INFO_ENTRY
}
