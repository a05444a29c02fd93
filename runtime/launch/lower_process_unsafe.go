package launch

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// lowerNamespace translates operations on namespaces and names.
func (p *program) lowerNamespace(op plan.Op) error {
	switch o := op.(type) {
	case plan.JoinCgroup:
		if o.Index >= len(p.res.Cgroups) {
			return fmt.Errorf("%s: no descriptor was given", o.What())
		}
		// A single-threaded process that moves itself needs none of the kernel's global locks.
		p.sys(unix.SYS_WRITE, fd(p.slot(p.res.Cgroups[o.Index].Fd())), p.str("0"), val(1))
	case plan.Unshare:
		p.sys(unix.SYS_UNSHARE, val(o.Flags))
	case plan.Join:
		f, err := p.res.open(o.Path)
		if err != nil {
			return fmt.Errorf("%s: %w", o.What(), err)
		}
		ns := p.slot(f.Fd())
		if o.Flag == plan.NewPID {
			p.pidNS = ns
		}
		p.sys(unix.SYS_SETNS, fd(ns), val(o.Flag))
	case plan.JoinProcess:
		p.undumpable()
		switch {
		case len(p.res.Namespaces) > 0:
			for _, n := range p.res.Namespaces {
				p.sys(unix.SYS_SETNS, fd(p.slot(n.File.Fd())), val(n.Flag))
			}
		case o.Flags != 0:
			p.sys(unix.SYS_SETNS, fd(slotPIDFD), val(o.Flags))
		}
		p.openRoot()
	case plan.CloneChild:
		p.due[recordPID]++
		page, err := p.mem.sharedWord()
		if err != nil {
			return err
		}
		p.do(doClone, noSlot, uintptr(o.Flags|unix.CLONE_PARENT|unix.CLONE_PARENT_SETTID), page+clonedAt)
	case plan.CloseAll:
		keep := []int{slotSync}
		if o.Listen {
			keep = append(keep, slotListen)
		}
		p.first, p.closed = 3+o.Keep, true
		p.closeOthers(p.first, keep)
		if o.Forget {
			p.forgetMemory()
		}
		return p.forgetArguments()
	case plan.BecomeRoot:
		p.becomeRoot(o)
	case plan.NewTimeNamespace:
		p.newTimeNamespace(o)
	case plan.HoldNamespaces:
		p.holdNamespaces(o)
	case plan.HostRoot, plan.KeepOpen, plan.CloneMount, plan.PrivateTmp:
		return p.lowerHostProgram(op)
	case plan.Hostname:
		p.sys(unix.SYS_SETHOSTNAME, p.str(o.Name), val(len(o.Name)))
	case plan.Domainname:
		p.sys(unix.SYS_SETDOMAINNAME, p.str(o.Name), val(len(o.Name)))
	case plan.Loopback:
		p.loopback()
	default:
		return p.lowerProcess(op)
	}
	return nil
}

// openRoot opens the root of the container that the process has joined.
func (p *program) openRoot() {
	p.sysTo(slotRoot, unix.SYS_OPENAT, cwd, p.str("/"), val(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), val(0))
}

// undumpable hides the child's memory and descriptors from processes of the container that it is about to share a pid namespace
// with (CVE-2016-9962).
func (p *program) undumpable() { p.sys(unix.SYS_PRCTL, val(unix.PR_SET_DUMPABLE), val(0)) }

func (p *program) becomeRoot(o plan.BecomeRoot) {
	p.undumpable()
	if !o.KeepGroups {
		p.ignore(p.sys(sysSetgroups, val(0), val(0)), unix.EPERM)
	}
	// Where the namespace maps no 0 the child keeps its overflow ids; it has all capabilities there anyway.
	p.ignore(p.sys(sysSetresgid, val(0), val(0), val(0)), unix.EINVAL)
	p.ignore(p.sys(sysSetresuid, val(0), val(0), val(0)), unix.EINVAL)
}

// newTimeNamespace makes a time namespace for children, sets its offsets while no process is in it, and enters it: a process with
// one thread may (time_namespaces(7)).
func (p *program) newTimeNamespace(o plan.NewTimeNamespace) {
	p.sys(unix.SYS_UNSHARE, val(unix.CLONE_NEWTIME))
	if len(o.Offsets) > 0 {
		p.timeOffsets(o)
	}
	p.sysTo(slotT0, unix.SYS_OPENAT, cwd, p.str("/proc/self/ns/time_for_children"), val(unix.O_RDONLY|unix.O_CLOEXEC), val(0))
	p.sys(unix.SYS_SETNS, fd(slotT0), val(unix.CLONE_NEWTIME))
	p.close(slotT0)
}

// timeOffsets writes the offsets. The files of a process that is not dumpable belong to the host's root, and a child in a user
// namespace may not write them: it is dumpable for that moment, in which the container has no other process.
func (p *program) timeOffsets(o plan.NewTimeNamespace) {
	text := ""
	for _, clock := range []string{"monotonic", "boottime"} {
		if off, ok := o.Offsets[clock]; ok {
			text += fmt.Sprintf("%s %d %d\n", clock, off.Secs, off.Nanosecs)
		}
	}
	p.sys(unix.SYS_PRCTL, val(unix.PR_SET_DUMPABLE), val(1))
	p.sysTo(slotT0, unix.SYS_OPENAT, cwd, p.str("/proc/self/timens_offsets"), val(unix.O_WRONLY|unix.O_CLOEXEC), val(0))
	p.undumpable()
	p.sys(unix.SYS_WRITE, fd(slotT0), p.str(text), val(len(text)))
	p.close(slotT0)
}

// ifreq is struct ifreq as SIOCSIFFLAGS takes it.
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	flags uint16
	_     [22]byte
}

func (p *program) loopback() {
	req := ifreq{flags: unix.IFF_UP}
	copy(req.name[:], "lo")
	p.sysTo(slotT0, unix.SYS_SOCKET, val(unix.AF_INET), val(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), val(0))
	p.sys(unix.SYS_IOCTL, fd(slotT0), val(unix.SIOCSIFFLAGS), arg{v: put(p.mem, req)})
	p.close(slotT0)
}

// lowerProcess translates what turns the child into the user's process.
func (p *program) lowerProcess(op plan.Op) error {
	switch o := op.(type) {
	case plan.NewSession:
		p.ignore(p.sys(unix.SYS_SETSID), unix.EPERM) // the leader of a process group has one of its own already
	case plan.UseTerminal:
		for n := range 3 {
			p.sys(unix.SYS_DUP3, fd(slotSlave), val(n), val(0))
		}
		p.close(slotSlave)
	case plan.ControlTerminal:
		p.sys(unix.SYS_IOCTL, val(0), val(unix.TIOCSCTTY), val(0))
	case plan.Keyring:
		p.ignore(p.sys(unix.SYS_KEYCTL, val(unix.KEYCTL_JOIN_SESSION_KEYRING), p.str(o.Name)), unix.ENOSYS, unix.EDQUOT, unix.EPERM)
	case plan.Scheduler:
		p.sys(unix.SYS_SCHED_SETATTR, val(0), arg{v: put(p.mem, schedAttr(o))}, val(0))
	case plan.IOPriority:
		p.sys(unix.SYS_IOPRIO_SET, val(1), val(0), val(o.Class<<13|o.Priority))
	case plan.Affinity:
		i := p.sys(unix.SYS_SCHED_SETAFFINITY, val(0), val(len(o.Mask)), arg{v: p.mem.bytes(o.Mask)})
		if o.CPUs == plan.AllCPUs {
			p.ignore(i, unix.EINVAL, unix.EPERM)
		}
	case plan.MemoryPolicy:
		mask := uintptr(0)
		if len(o.Nodes) > 0 {
			mask = p.mem.bytes(append(append([]byte{}, o.Nodes...), make([]byte, 8)...)) // the kernel reads whole words
		}
		p.sys(unix.SYS_SET_MEMPOLICY, val(o.Mode), arg{v: mask}, val(len(o.Nodes)*8+1))
	case plan.Personality:
		p.sys(unix.SYS_PERSONALITY, val(o.Domain))
	case plan.NoNewPrivileges:
		p.sys(unix.SYS_PRCTL, val(unix.PR_SET_NO_NEW_PRIVS), val(1), val(0), val(0), val(0))
	case plan.Label:
		return p.securityLabel(o)
	case plan.Seccomp:
		return p.seccomp(o)
	default:
		return p.lowerUser(op)
	}
	return nil
}

func schedAttr(o plan.Scheduler) unix.SchedAttr {
	return unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: o.Policy, Flags: o.Flags, Nice: o.Nice, Priority: o.Priority,
		Runtime: o.Runtime, Deadline: o.Deadline, Period: o.Period}
}

// securityLabel writes to a procfs that the container has never seen and cannot put a file into (CVE-2019-16884, CVE-2025-52881).
func (p *program) securityLabel(o plan.Label) error {
	from := slotT1
	if o.HostProc {
		proc, err := p.res.open("/proc")
		if err != nil {
			return fmt.Errorf("%s: %w", o.What(), err)
		}
		from = p.slot(proc.Fd())
		p.do(doType, noSlot, uintptr(from), uintptr(unix.EINVAL), procMagic)
	} else {
		p.sysTo(slotT0, unix.SYS_FSOPEN, p.str("proc"), val(unix.FSOPEN_CLOEXEC))
		p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_CMD_CREATE), val(0), val(0), val(0))
		p.sysTo(slotT1, unix.SYS_FSMOUNT, fd(slotT0), val(unix.FSMOUNT_CLOEXEC), val(0))
		p.close(slotT0)
	}
	how := put(p.mem, unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV |
		unix.RESOLVE_NO_MAGICLINKS})
	p.sysTo(slotT2, unix.SYS_OPENAT2, fd(from), p.str("thread-self/"+o.File), arg{v: how}, val(unix.SizeofOpenHow))
	p.sys(unix.SYS_WRITE, fd(slotT2), p.str(o.Value), val(len(o.Value)))
	p.close(from, slotT2)
	return nil
}

// sockFprog is struct sock_fprog.
type sockFprog struct {
	len    uint16
	filter uintptr
}

func (p *program) seccomp(o plan.Seccomp) error {
	prog := put(p.mem, sockFprog{uint16(len(o.Program) / 8), p.mem.bytes(o.Program)})
	if o.Notify {
		return p.seccompListener(o, prog)
	}
	p.code[p.sys(unix.SYS_SECCOMP, val(unix.SECCOMP_SET_MODE_FILTER), val(o.Flags), arg{v: prog})].value = valueSeccomp
	return nil
}

// lowerUser translates credentials, the working directory and the program itself.
func (p *program) lowerUser(op plan.Op) error {
	switch o := op.(type) {
	case plan.BoundingSet:
		for n := 0; n <= o.Last; n++ {
			if o.Keep&(1<<n) == 0 {
				p.sys(unix.SYS_PRCTL, val(unix.PR_CAPBSET_DROP), val(n), val(0), val(0), val(0))
			}
		}
	case plan.SetUser:
		p.setUser(o)
	case plan.Capabilities:
		p.capabilities(o)
	case plan.DropAdmin:
		p.capset(o.Effective, o.Permitted, o.Inheritable)
	case plan.Rlimit:
		limit := put(p.mem, [2]uint64{o.Soft, o.Hard})
		p.sys(unix.SYS_PRLIMIT64, val(0), val(o.Number), arg{v: limit}, val(0))
	case plan.Home:
		p.res.home = uintptr(p.mem.alloc(homeMax))
		p.do(doHome, noSlot, slotRoot, p.res.home, uintptr(o.UID), p.mem.str("etc/passwd"), p.mem.bytes(make([]byte, pathMax)))
	case plan.Umask:
		p.sys(unix.SYS_UMASK, val(o.Mask))
	case plan.CallerUmask:
		p.sys(unix.SYS_UMASK, fd(slotUmask))
	case plan.OwnStdio:
		terminal := uintptr(0)
		if o.Terminal {
			terminal = 1
		}
		for n := range 3 {
			p.do(doOwn, noSlot, uintptr(n), uintptr(o.UID), terminal)
		}
	case plan.Chdir:
		p.chdir(o)
	case plan.CloseOnExec:
		p.first = o.First
		p.sys(unix.SYS_CLOSE_RANGE, val(o.First), val(^uint32(0)), val(unix.CLOSE_RANGE_CLOEXEC))
	case plan.FindProgram:
		paths := make([]uintptr, len(o.Paths))
		for i, path := range o.Paths {
			paths[i] = p.mem.str(path)
		}
		p.res.paths = p.mem.words(paths)
		p.do(doFind, slotFound, p.res.paths, uintptr(len(paths)))
	case plan.WaitStart:
		return p.waitStart()
	case plan.Exec:
		if o.Path != "" {
			p.res.paths = p.mem.words([]uintptr{p.mem.str(o.Path)})
		}
		p.code[p.do(doExec, noSlot, p.res.paths, p.mem.strings(o.Args), p.environ(o.Env))].value = valueExec
	default:
		return errLower(op)
	}
	return nil
}

// environ makes the environment's vector, with room for HOME where the child looks it up.
func (p *program) environ(env []string) uintptr {
	w := make([]uintptr, 0, len(env)+2)
	for _, e := range env {
		w = append(w, p.mem.str(e))
	}
	if p.res.home != 0 {
		w = append(w, p.res.home)
	}
	return p.mem.words(append(w, 0))
}

func (p *program) setUser(o plan.SetUser) {
	p.sys(unix.SYS_PRCTL, val(unix.PR_SET_KEEPCAPS), val(1), val(0), val(0), val(0))
	if !o.SkipGroups {
		groups := make([]byte, 0, 4*len(o.Groups))
		for _, g := range o.Groups {
			groups = append(groups, (*[4]byte)(unsafe.Pointer(&g))[:]...)
		}
		p.sys(sysSetgroups, val(len(o.Groups)), arg{v: p.mem.bytes(groups)})
	}
	p.sys(sysSetresgid, val(o.GID), val(o.GID), val(o.GID))
	p.sys(sysSetresuid, val(o.UID), val(o.UID), val(o.UID))
	p.sys(unix.SYS_PRCTL, val(unix.PR_SET_KEEPCAPS), val(0), val(0), val(0), val(0))
}

func (p *program) capabilities(o plan.Capabilities) {
	p.sys(unix.SYS_PRCTL, val(unix.PR_CAP_AMBIENT), val(unix.PR_CAP_AMBIENT_CLEAR_ALL), val(0), val(0), val(0))
	p.capset(o.Effective, o.Permitted, o.Inheritable)
	for n := range 64 {
		if o.Ambient&(1<<n) != 0 {
			p.sys(unix.SYS_PRCTL, val(unix.PR_CAP_AMBIENT), val(unix.PR_CAP_AMBIENT_RAISE), val(n), val(0), val(0))
		}
	}
}

func (p *program) capset(effective, permitted, inheritable uint64) {
	hdr := put(p.mem, unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3})
	data := put(p.mem, [2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	})
	p.sys(unix.SYS_CAPSET, arg{v: hdr}, arg{v: data})
}

// chdir enters the working directory by a descriptor that was resolved inside the root without magic links, so that it can be
// nowhere else (CVE-2024-21626). A directory that root may not enter is tried again as the process's user.
func (p *program) chdir(o plan.Chdir) {
	done := -1
	if !o.Try {
		done = p.do(doIfSlot, noSlot, slotCwd)
	}
	steps := []int{
		p.resolve(slotT0, slotRoot, o.Path, resolveOpen, 0, 0),
		p.sys(unix.SYS_FCHDIR, fd(slotT0)),
	}
	p.do(doSet, slotCwd, 1)
	p.close(slotT0)
	if o.Try {
		for _, i := range steps {
			p.ignore(i, unix.EACCES)
			p.land(i)
		}
	} else {
		p.land(done)
	}
}

// leaveNewlines has the terminal in slotSlave write what the program writes: the terminal of the person, if there is one, makes
// "\r\n" of a newline, and a pipe or a file gets the program's own bytes. Whoever takes the master by a socket decides for himself.
func (p *program) leaveNewlines() {
	termios := put(p.mem, unix.Termios{})
	p.sys(unix.SYS_IOCTL, fd(slotSlave), val(unix.TCGETS), arg{v: termios})
	p.do(doClear, noSlot, termios+unsafe.Offsetof(unix.Termios{}.Oflag), unix.ONLCR)
	p.sys(unix.SYS_IOCTL, fd(slotSlave), val(unix.TCSETS), arg{v: termios})
}

// closeInherited closes what the child has of its parent's but the listening socket, the namespaces that it holds and
// what is in slots: it waits perhaps for days, and copies of the parent's descriptors would keep locks and files busy.
func (p *program) closeInherited(slots ...int) {
	if p.closed { // by CloseAll
		if len(slots) == 0 {
			p.close(slotSync)
		}
		return
	}
	slots = append(slots, slotListen)
	for _, i := range p.held {
		slots = append(slots, slotNamespaces+i)
	}
	p.closeOthers(p.first, slots)
}

// forgetMemory clears what the process has of the runtime's memory, of which it needs no more than the arena.
func (p *program) forgetMemory() {
	for _, r := range forgettable(p.mem) {
		p.ignore(p.do(doForget, noSlot, r[0], r[1]), unix.EINVAL, unix.ENOMEM, unix.EBUSY)
	}
}

// forgetArguments clears the arguments and the environment with which the runtime was started: /proc/PID/environ shows
// those until execve.
func (p *program) forgetArguments() error {
	from, to, err := startMemory()
	if err != nil {
		return err
	}
	p.do(doZero, noSlot, from, to-from)
	return nil
}

// startMemory is where this process's arguments and environment are: fields 48 and 51 of /proc/self/stat (proc(5)).
func startMemory() (from, to uintptr, err error) {
	data, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, 0, fmt.Errorf("find the runtime's arguments: %w", err)
	}
	_, rest, _ := strings.Cut(string(data), ") ") // the name is the runtime's own
	fields := strings.Fields(rest)                // from field 3 on
	if len(fields) < 49 {
		return 0, 0, fmt.Errorf("find the runtime's arguments: %w", unix.EBADMSG)
	}
	first, err1 := strconv.ParseUint(fields[48-3], 10, 64)
	last, err2 := strconv.ParseUint(fields[51-3], 10, 64)
	if err1 != nil || err2 != nil || first == 0 || last < first {
		return 0, 0, fmt.Errorf("find the runtime's arguments: %w", unix.EBADMSG)
	}
	return uintptr(first), uintptr(last), nil
}

// waitStart forgets what the child has of its parent's memory and waits for start. A caller that goes away without a
// word changes nothing.
func (p *program) waitStart() error {
	if !p.closed { // else the intermediate process has done it
		p.forgetMemory()
		if err := p.forgetArguments(); err != nil {
			return err
		}
	}
	p.closeInherited()
	again := p.here()
	p.sysTo(slotConn, unix.SYS_ACCEPT4, fd(slotListen), val(0), val(0), val(unix.SOCK_CLOEXEC))
	p.do(doRelay, noSlot, slotConn)
	said := uintptr(p.mem.alloc(1))
	i := p.sys(unix.SYS_READ, fd(slotConn), arg{v: said}, val(1))
	p.short(i)
	ask := p.do(doIfByte, noSlot, said, askNamespaces)
	over := p.do(doJump, noSlot)
	p.land(ask)
	p.sendNamespaces(slotConn)
	p.land(i)
	p.close(slotConn)
	p.code[p.do(doJump, noSlot)].target = again
	p.land(over)
	p.close(slotListen)
	r := record{kind: recordStage, value: uint32(stageReady)}
	sent := p.sys(unix.SYS_SENDTO, fd(slotConn), arg{v: put(p.mem, r)}, val(unsafe.Sizeof(r)), val(unix.MSG_NOSIGNAL), val(0), val(0))
	p.ignore(sent, unix.EPIPE, unix.ECONNRESET) // start was killed after its word: the program runs all the same
	return nil
}
