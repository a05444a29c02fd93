package launch

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// The helper is a second clone of the runtime that keeps its user namespace and joins the child's mount namespace. It clones bind
// sources there, where every flag of the host's mounts is locked and no mount is a peer of the host's, with the right to reach them
// and to map their ids. It is a part of the child's program with a start of its own:
//
//	child                              helper
//	  ── byte ───────────────────────►   (joins the namespace at the first)
//	                                     open_tree(2), mount_setattr(2)
//	  ◄──────────── byte + SCM_RIGHTS ─
//
// A step that fails is reported to the parent, like the child's own; the child sees the end of the socket and exits.

// openAsk makes the socket pair between the child and its helper, if there is one.
func (p *program) openAsk(pl *plan.Plan) error {
	p.ends = [2]int{-1, -1}
	if len(pl.Helper) == 0 {
		return nil
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket pair for the helper: %w", err)
	}
	p.ends = ends
	p.slots[slotAsk], p.slots[slotAnswer] = uintptr(ends[0]), uintptr(ends[1])
	return nil
}

// closeAsk closes this process's copies.
func (p *program) closeAsk() {
	for _, fd := range p.ends {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// lowerHelper appends the helper's program.
func (p *program) lowerHelper(ops []plan.Op) {
	p.helper = len(p.code)
	for i, op := range ops {
		p.begin(op)
		if i == 0 {
			p.close(slotParent, slotAsk)
		}
		p.short(p.sys(unix.SYS_READ, fd(slotAnswer), arg{v: uintptr(p.mem.alloc(1))}, val(1)))
		if i == 0 {
			// Not before the first question: the child may have to join the namespace itself.
			p.sys(unix.SYS_SETNS, fd(slotChild), val(unix.CLONE_NEWNS))
		}
		switch o := op.(type) {
		case plan.OpenTree:
			p.openTree(slotT1, o)
		case plan.MakeNode:
			p.makeNode(o)
		}
		msg, ctl := p.message(record{})
		p.do(doSend, noSlot, slotT1, msg, ctl, slotAnswer)
		p.close(slotT1)
	}
	if len(ops) > 0 {
		p.do(doDone, noSlot)
	}
}

// ask takes the next tree from the helper into a slot.
func (p *program) ask(out int) {
	p.sys(unix.SYS_SENDTO, fd(slotAsk), arg{v: uintptr(p.mem.alloc(1))}, val(1), val(unix.MSG_NOSIGNAL), val(0), val(0))
	p.ignore(len(p.code)-1, unix.EPIPE, unix.ECONNRESET) // it has failed: the next step exits
	msg, ctl := p.message(record{})
	p.do(doReceive, out, slotAsk, msg, ctl)
}

// openTree clones a piece of the tree that the present process sees into a slot.
func (p *program) openTree(out int, o plan.OpenTree) {
	flags := uintptr(unix.OPEN_TREE_CLONE | unix.O_CLOEXEC)
	if o.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	p.sysTo(out, unix.SYS_OPEN_TREE, cwd, p.str(o.Source), val(flags))
	if o.Map == 0 {
		return
	}
	at := uintptr(0)
	if o.MapRecursive {
		at = unix.AT_RECURSIVE
	}
	i := p.setattr(out, at, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(p.res.maps[o.Map-1].Fd())})
	p.detail(i, "map ids")
}

// cloneHelper starts the helper of a child whose pid is known.
func (c *Child) cloneHelper(m *machine, start int) error {
	args := &cloneArgs{flags: unix.CLONE_CLEAR_SIGHAND, exitSignal: uint64(unix.SIGCHLD)}
	m.slots[slotChild] = c.PIDFD.Fd()
	m.start = uintptr(start)
	syscall.ForkLock.Lock()
	pid, errno := cloneRun(args, m)
	syscall.ForkLock.Unlock()
	if errno != 0 {
		return fmt.Errorf("clone the helper of the container's process: %w", errno)
	}
	c.helper = int(pid)
	return nil
}

// reapHelper waits for the helper, which has answered the last question or was killed.
func (c *Child) reapHelper() {
	if c.helper != 0 {
		waitPID(c.helper)
		c.helper = 0
	}
}

// receiveFD takes one descriptor from a socket. The other side's end without a message ends this process too: the reason was
// told by the other side.
//
//go:nosplit
//go:norace
func receiveFD(m *machine, in *instr, socket uintptr) (uintptr, uintptr) {
	n, _, e := syscall.RawSyscall6(unix.SYS_RECVMSG, socket, in.a[1], unix.MSG_CMSG_CLOEXEC, 0, 0, 0)
	if e != 0 {
		return 0, uintptr(e)
	}
	h := (*unix.Msghdr)(word(in, 1))
	if n == 0 || h.Controllen == 0 {
		exit(1)
	}
	return uintptr(*(*int32)(word(in, 2))), 0
}
