package launch

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// The descriptor of a seccomp listener exists only once the filter is loaded, and from then on the filter may refuse whatever
// call the child would need to hand it over, or may keep it waiting for the agent that does not have the descriptor yet.
// So another process, the sender, does it, which is cloned before and has no filter. It shares the child's descriptors:
//
//	child                          sender                         parent
//	  clone3(CLONE_FILES) ──────────►
//	  record + its pidfd ─────────────────────────────────────────►
//	  seccomp(NEW_LISTENER) = N      look every 50 µs
//	  N ── shared page ─────────────►
//	                                 record + N ──────────────────► wait for the sender's end,
//	                                 close(N), exit                 connect to the agent, send, close
//	  Wait ◄──────────────────────────────────────────── byte ───
//
// The descriptor is closed for the child too, so that its calls end with ENOSYS when the agent is gone. pidfd_getfd(2)
// in the parent would need the right to trace the child, which a rootless runtime does not have over a child that is not
// dumpable.

// listenerPoll is how long the sender sleeps between two looks; loading a filter takes some hundred microseconds.
var listenerPoll = unix.Timespec{Nsec: 50_000}

// noCldWait is SA_NOCLDWAIT: the end of a sender that is the child's child leaves no zombie for the container's program.
// execve(2) resets it.
const noCldWait = 2

// seccompListener lowers the load of a filter that has a listener.
func (p *program) seccompListener(o plan.Seccomp, prog uintptr) error {
	told, err := p.mem.sharedWord()
	if err != nil {
		return err
	}
	p.listens = true
	number := p.mem.bytes(make([]byte, 4))
	// A sibling is the runtime's to reap, whatever happens to the child; the first process of a pid namespace has none (EINVAL).
	sibling := put(p.mem, cloneArgs{flags: unix.CLONE_FILES | unix.CLONE_PIDFD | unix.CLONE_PARENT, pidfd: uint64(number)})
	child := put(p.mem, cloneArgs{flags: unix.CLONE_FILES | unix.CLONE_PIDFD, pidfd: uint64(number), exitSignal: uint64(unix.SIGCHLD)})
	action := p.mem.words([]uintptr{0, noCldWait, 0, 0, 0, 0}) // struct sigaction: handler, flags, restorer, mask
	p.due[recordListener]++
	p.due[recordSender]++
	hdr, control := p.message(record{kind: recordListener})
	p.sysTo(slotT0, unix.SYS_GETPID)
	p.sys(unix.SYS_RT_SIGACTION, val(unix.SIGCHLD), arg{v: action}, val(0), val(8))
	i := p.do(doListener, slotT1, sibling, child, hdr, control, told, number)
	p.detail(i, "clone the process that sends its listener")
	hdr, control = p.message(record{kind: recordSender})
	p.do(doSend, noSlot, slotT1, hdr, control, slotSync)
	p.close(slotT1)
	i = p.do(doFilter, noSlot, uintptr(o.Flags), prog, told)
	p.code[i].value = valueSeccomp
	p.wait()
	return nil
}

// listenerSender clones the sender and returns its pidfd.
//
//go:nosplit
//go:norace
func listenerSender(m *machine, in *instr) (uintptr, uintptr) {
	pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE3, in.a[0], unsafe.Sizeof(cloneArgs{}), 0, 0, 0, 0)
	if e == unix.EINVAL {
		pid, _, e = syscall.RawSyscall6(unix.SYS_CLONE3, in.a[1], unsafe.Sizeof(cloneArgs{}), 0, 0, 0, 0)
	}
	if e != 0 || pid != 0 {
		return uintptr(*(*uint32)(word(in, 5))), uintptr(e)
	}
	told := (*uintptr)(word(in, 4))
	for *told == 0 {
		if _, _, e = syscall.RawSyscall6(unix.SYS_KILL, m.slots[slotT0], 0, 0, 0, 0, 0); e != 0 {
			exit(1) // the child was killed
		}
		syscall.RawSyscall6(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&listenerPoll)), 0, 0, 0, 0, 0)
	}
	if *told == ^uintptr(0) {
		exit(1) // no filter was loaded; the child tells why
	}
	listener := *told - 1
	*(*int32)(word(in, 3)) = int32(listener)
	for {
		_, _, e = syscall.RawSyscall6(unix.SYS_SENDMSG, m.slots[slotSync], in.a[2], unix.MSG_NOSIGNAL, 0, 0, 0)
		if e != unix.EINTR {
			break
		}
	}
	closeFD(listener)
	if e == 0 {
		exit(0)
	}
	return 0, uintptr(e) // told as the failure of this instruction
}

// loadFilter loads the filter and tells the sender the listener's number.
//
//go:nosplit
//go:norace
func loadFilter(in *instr) uintptr {
	told := (*uintptr)(word(in, 2))
	listener, _, e := syscall.RawSyscall6(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, in.a[0], in.a[1], 0, 0, 0)
	if e != 0 {
		*told = ^uintptr(0)
		return uintptr(e)
	}
	*told = listener + 1
	return 0
}

// errNoReceiver is a filter with a listener for a caller that has no use for one.
var errNoReceiver = errors.New("receive the seccomp listener: no receiver is set")

// serveListener hands the listener to the caller and lets the child go on.
func (c *Child) serveListener(descriptor int) error {
	f := os.NewFile(uintptr(descriptor), "seccomp listener")
	defer f.Close()
	c.endSender(false) // it closes the child's descriptor
	if c.OnListener == nil {
		return errNoReceiver
	}
	if err := c.OnListener(f); err != nil {
		return err
	}
	return c.Go()
}

// endSender waits for the end of the sender, if there is one, and reaps it where it is the runtime's child.
func (c *Child) endSender(kill bool) {
	if c.sender == nil {
		return
	}
	sender := int(c.sender.Fd())
	if kill {
		unix.PidfdSendSignal(sender, unix.SIGKILL, nil, 0)
	}
	p := []unix.PollFd{{Fd: int32(sender), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(p, -1); err != unix.EINTR {
			break
		}
	}
	unix.Waitid(unix.P_PIDFD, sender, nil, unix.WEXITED|unix.WNOHANG, nil)
	c.sender.Close()
	c.sender = nil
}

// reapUntold waits for a sender that ends because the child was killed before it could tell of it. In the child's process group,
// which has led no program yet, there is no other child of the runtime.
func (c *Child) reapUntold() {
	for c.untold {
		if _, err := syscall.Wait4(-c.PID, nil, 0, nil); err != nil && err != syscall.EINTR {
			return
		}
	}
}
