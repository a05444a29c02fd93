package launch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The Go source names these two as kept for programs that clone by themselves: they block signals around the clone, so that no
// handler of the Go runtime ever runs in the child.

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

// cloneArgs is struct clone_args of clone3(2) up to the field cgroup (Linux 5.7).
type cloneArgs struct {
	flags      uint64
	pidfd      uint64
	childTID   uint64
	parentTID  uint64
	exitSignal uint64
	stack      uint64
	stackSize  uint64
	tls        uint64
	setTID     uint64
	setTIDSize uint64
	cgroup     uint64
}

// cloneRun clones the calling thread; the child runs the program and never returns. The caller holds syscall.ForkLock. mask is the signal mask that the child's program gets.
//
//go:noinline
//go:nosplit
//go:norace
func cloneRun(args *cloneArgs, m *machine, mask *[16]byte) (pid uintptr, errno syscall.Errno) {
	runtimeBeforeFork()
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		runtimeAfterFork()
		return pid, errno
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(mask)), 0, 8, 0, 0)
	run(m)
	return 0, 0
}

// signalMask is the calling thread's signal mask: what the runtime was started with.
func signalMask() (mask [16]byte) {
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, 0, uintptr(unsafe.Pointer(&mask)), 8, 0, 0)
	return mask
}
