//go:build linux

package seccomp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// load puts the filter on the calling thread.
func load(f *Filter) error {
	program := make([]unix.SockFilter, len(f.Program))
	for i, x := range f.Program {
		program[i] = unix.SockFilter{Code: x.Code, Jt: x.JT, Jf: x.JF, K: x.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, 1 /* SECCOMP_SET_MODE_FILTER */, uintptr(f.Flags), uintptr(unsafe.Pointer(&fprog))); errno != 0 {
		return errno
	}
	return nil
}
