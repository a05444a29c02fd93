package ocitest

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deafen ignores every signal and blocks every one on the calling thread, which the goroutine keeps: so begins what it executes.
func deafen() {
	runtime.LockOSThread()
	ignore := [8]uintptr{1} // struct sigaction begins with the handler; SIG_IGN
	for sig := uintptr(1); sig <= 64; sig++ {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0)
	}
	all := ^uint64(0)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)
}
