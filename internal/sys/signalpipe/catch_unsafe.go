//go:build amd64 || arm64

package signalpipe

import (
	"os/signal"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read by the handler.
var (
	//lint:ignore U1000 the assembly reads it
	pipe uintptr // descriptor to which signal numbers are written
	//lint:ignore U1000 the assembly reads it
	previous uintptr // the Go runtime's handler, for the faults of this program itself
)

// handler is a signal handler: it is called by the kernel only.
//
//lint:ignore U1000 the assembly returns its address
func handler()

// addresses returns where the handler and the function that returns from it begin; there is no restorer on arm64.
func addresses() (handler, restorer uintptr)

// sigaction is the kernel's struct sigaction.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// flags are SA_SIGINFO, SA_ONSTACK and SA_RESTART.
const flags = 0x4 | 0x08000000 | 0x10000000

func setAction(sig uintptr, action, old *sigaction) {
	syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(action)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
}

// catch has the handler write the signals to descriptor fd.
func catch(fd int) (restore func()) {
	signal.Ignore(syscall.SIGPIPE)
	var taken, old, initial sigaction
	pipe = uintptr(fd)
	setAction(uintptr(syscall.SIGSEGV), nil, &initial)
	previous = initial.handler
	taken.handler, taken.restorer = addresses()
	taken.flags, taken.mask = flags, ^uint64(0)
	if taken.restorer != 0 {
		taken.flags |= saRestorer
	}
	var handled, ignored uint64 // bit n-1: signal n
	for sig := uintptr(1); sig <= 64; sig++ {
		if skipped>>sig&1 != 0 {
			continue
		}
		setAction(sig, &taken, &old)
		switch {
		case old.handler > 1:
			handled |= 1 << (sig - 1)
		case old.handler == 1:
			ignored |= 1 << (sig - 1)
		}
	}
	return func() {
		for sig := uintptr(1); sig <= 64; sig++ {
			action := sigaction{}
			switch {
			case skipped>>sig&1 != 0:
				continue
			case handled>>(sig-1)&1 != 0:
				action = initial
			case ignored>>(sig-1)&1 != 0:
				action.handler = 1
			}
			setAction(sig, &action, nil)
		}
	}
}

const saRestorer = 0x04000000
