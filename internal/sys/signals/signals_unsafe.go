package signals

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigset is the kernel's signal set.
type sigset [8]byte

// setMask sets the calling thread's signal mask and returns the one before.
func setMask(mask sigset) (before sigset, err error) {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&before)), 8, 0, 0)
	if e != 0 {
		return before, fmt.Errorf("set signal mask: %w", e)
	}
	return before, nil
}

// setIgnored makes the process ignore a signal, or gives it its default action.
func setIgnored(sig syscall.Signal, ignore bool) error {
	var action [64]byte // at least struct sigaction, whose first word is the handler: SIG_DFL is 0, SIG_IGN 1
	if ignore {
		*(*uintptr)(unsafe.Pointer(&action)) = 1
	}
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); e != 0 {
		return fmt.Errorf("set action of signal %d: %w", int(sig), e)
	}
	return nil
}
