package launch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/sys/scheduler"
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

// Sizes for cloneRun: the aligned part of Go's heap that the stack lies in, and how much of the stack the child gets. A
// stack is at least twice as large as the frames of functions that are not split.
const (
	heapChunk  = 4 << 20
	stackPage  = 64 << 10 // the largest page of any port
	stackBelow = 64 << 10
	stackAbove = 128 << 10
)

// cloneRun clones the calling thread; the child runs the program and never returns. The caller holds syscall.ForkLock.
//
//go:noinline
//go:nosplit
//go:norace
func cloneRun(args *cloneArgs, m *machine) (pid uintptr, errno syscall.Errno) {
	runtimeBeforeFork()
	if slack := scheduler.Slack(); slack != 0 { // a clone inherits this thread's
		syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, slack, 0, 0, 0, 0)
	}
	// The child needs nothing of Go's heap but this goroutine's stack from here down. What it does not get is not copied
	// when this process writes to it next.
	here := uintptr(unsafe.Pointer(&pid))
	chunk := here &^ (heapChunk - 1)
	low, high := max((here-stackBelow)&^(stackPage-1), chunk), min((here+stackAbove)&^(stackPage-1), chunk+heapChunk)
	syscall.RawSyscall6(unix.SYS_MADVISE, chunk, low-chunk, unix.MADV_DONTFORK, 0, 0, 0)
	syscall.RawSyscall6(unix.SYS_MADVISE, high, chunk+heapChunk-high, unix.MADV_DONTFORK, 0, 0, 0)
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		syscall.RawSyscall6(unix.SYS_MADVISE, chunk, heapChunk, unix.MADV_DOFORK, 0, 0, 0)
		runtimeAfterFork()
		return pid, errno
	}
	defaultSignals()
	run(m)
	return 0, 0
}

// lastSignal is the kernel's _NSIG on every port of Go but MIPS.
const lastSignal = 64

// zeroSignals is struct sigaction with SIG_DFL, and an empty signal mask: a program gets them whatever the runtime's caller ignores
// or blocks (nohup, a supervisor's mask). CLONE_CLEAR_SIGHAND leaves ignored signals alone.
var zeroSignals [64]byte

//go:nosplit
//go:norace
func defaultSignals() {
	zero := uintptr(unsafe.Pointer(&zeroSignals))
	for sig := uintptr(1); sig <= lastSignal; sig++ { // EINVAL for KILL and STOP
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, zero, 0, 8, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, zero, 0, 8, 0, 0)
}
