package attack

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's structure, long enough for every port; handler 1 is SIG_IGN.
type sigaction struct {
	handler, flags, restorer, mask uintptr
	_                              [4]uintptr
}

// withSignals becomes a program: INT, HUP, QUIT and the real-time signal 34 are ignored, USR1 and TERM are blocked.
func withSignals(args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	ignore := sigaction{handler: 1}
	for _, sig := range []uintptr{1, 2, 3, 34} {
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0); e != 0 {
			return e
		}
	}
	var set unix.Sigset_t
	*(*uint64)(unsafe.Pointer(&set)) = 1<<(uint(unix.SIGUSR1)-1) | 1<<(uint(unix.SIGTERM)-1)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &set, nil); err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}
