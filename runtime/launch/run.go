package launch

import (
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// Resources are the descriptors that a plan refers to. The caller keeps and closes them.
type Resources struct {
	// Cgroups are open for writing, one for each of plan.Host.Cgroups: the child writes "0" and is inside.
	Cgroups []*os.File
	// CgroupDir, when not nil, is the cgroup2 directory in which the child is cloned (CLONE_INTO_CGROUP).
	CgroupDir *os.File
	// Place, when not nil, moves the clone with this pid into its cgroup while it waits: for a plan of a Host with Placed.
	Place func(pid int) error
	// Process is the pidfd of the process whose namespaces are joined; for CompileExec's plans.
	Process *os.File
	// Namespaces are joined in its place if there are any.
	Namespaces []Namespace
	// Root is the root directory of the container's process, for CompileExec's plans of a container in the host's mount
	// namespace.
	Root *os.File
	// Listen is the listening socket for start; for plans that wait for it.
	Listen *os.File
	// Stdio, when set, replaces the standard streams.
	Stdio [3]*os.File
	// Foreground: the terminal is copied to the runtime's own streams.
	Foreground bool
	// Keep are the descriptors that plan.KeepOpen passes on.
	Keep []*os.File
	// Ready: the child tells when it has come to its last wait, in which it is what the program will be but for limits and
	// a filter that is loaded last.
	Ready bool
	// Fault makes child instruction Fault-1 fail with EIO instead of being run; for tests.
	Fault int

	opened []*os.File
	maps   []*os.File // user namespaces, one for each of plan.Plan.Thread
	paths  uintptr
	home   uintptr // HOME=… once the child has looked it up; 0: the environment has one
}

// open opens a path for the child and closes it after the clone.
func (r *Resources) open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		if pe, ok := err.(*os.PathError); ok {
			err = pe.Err
		}
		return nil, err
	}
	r.opened = append(r.opened, f)
	return f, nil
}

func (r *Resources) close() {
	for _, f := range r.opened {
		f.Close()
	}
	r.opened = nil
}

// Child is a process on its way from the clone to the user's program. Its methods are for one goroutine.
type Child struct {
	PID   int
	PIDFD *os.File // nobody else's; closed by Close
	// Master is the terminal's other end once the child has opened it; the caller takes it over.
	Master *os.File
	// OnListener gets the listener of a seccomp filter with SCMP_ACT_NOTIFY while the child waits; it is closed afterwards.
	OnListener func(*os.File) error
	// Namespaces are those that the child holds, when hooks run in them. Closed by Close.
	Namespaces []Namespace

	plan    *plan.Plan
	labels  []string
	ops     []plan.Op
	asked   bool
	sync    int
	sender  *os.File // pidfd of the process that sends the seccomp listener
	untold  bool     // the child may have a sender of which it has not told
	copyUp  []int    // descriptors received for a copy
	res     *Resources
	reaped  bool
	helper  int // pid of the helper, 0: none, or waited for
	early   []message
	due     due
	stopped time.Time // when the child was first found stopped by a signal
	program int       // number of instructions
}

// Start lowers the plan, clones and lets the child run to its first wait. On an error no process is left.
func Start(p *plan.Plan, res *Resources) (*Child, error) {
	defer res.close()
	mem, err := newArena()
	if err != nil {
		return nil, err
	}
	defer mem.free()
	prog := newProgram(mem, res)
	if err := onThread(p, res); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair for the child: %w", err)
	}
	prog.slots[slotSync] = uintptr(pair[1])
	prog.slots[slotParent] = uintptr(pair[0])
	c := &Child{plan: p, sync: pair[0], res: res}
	err = prog.openAsk(p)
	defer prog.closeAsk()
	var m *machine
	if err == nil {
		m, err = prog.build(p)
	}
	if err == nil {
		c.labels, c.ops, c.asked, c.untold, c.program, c.due = prog.labels, prog.ops, prog.asked, prog.listens, len(prog.code), prog.due
		err = c.clone(m, res)
	}
	if err != nil {
		unix.Close(pair[1])
		c.Close()
		return nil, err
	}
	err = c.place(res)
	if err == nil {
		err = c.complete(m, prog, pair[1])
	} else {
		unix.Close(pair[1])
	}
	if err != nil {
		c.Abort()
		return nil, err
	}
	return c, nil
}

// place has the clone moved into its cgroup while it waits.
func (c *Child) place(res *Resources) error {
	if res.Place == nil {
		return nil
	}
	if err := res.Place(c.PID); err != nil {
		return err
	}
	return c.Go()
}

// complete replaces an intermediate process by its child and starts the helper, which reports over the child's end of the socket
// pair: it stays open here until then.
func (c *Child) complete(m *machine, p *program, end int) error {
	hold := len(c.plan.Helper) > 0
	if !hold {
		unix.Close(end)
	} else {
		defer unix.Close(end)
	}
	if len(c.plan.Outer) > 0 {
		if err := c.awaitPID(); err != nil {
			c.reapCloned(p.mem.cloned())
			return err
		}
	}
	if len(c.plan.Outer) > 0 || c.untold {
		if err := c.watchStops(); err != nil {
			return err
		}
	}
	if hold {
		return c.cloneHelper(m, p.helper)
	}
	return nil
}

// build lowers the whole plan.
func (p *program) build(pl *plan.Plan) (m *machine, err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != any(errFull) {
				panic(r)
			}
			m, err = nil, errFull
		}
	}()
	if p.res.Process != nil {
		p.slots[slotPIDFD] = p.res.Process.Fd()
	}
	if p.res.Listen != nil {
		p.slots[slotListen] = p.res.Listen.Fd()
	}
	p.begin(plan.Umask{})
	p.close(slotParent) // a copy of it would keep the child from seeing the parent's end
	if len(pl.Helper) > 0 {
		p.close(slotAnswer)
	}
	p.sysTo(slotUmask, unix.SYS_UMASK, val(0)) // modes are exact
	for n, f := range p.res.Stdio {
		if f != nil {
			p.sys(unix.SYS_DUP3, val(f.Fd()), val(n), val(0))
		}
	}
	if !pl.Has(plan.NewUser) {
		p.undumpable()
	}
	for _, ops := range [][]plan.Op{pl.Outer, pl.Child} {
		for _, op := range ops {
			if err := p.lower(op); err != nil {
				return nil, err
			}
		}
	}
	p.do(doDone, noSlot)
	p.lowerHelper(pl.Helper)
	m = p.finish()
	if p.res.Fault > 0 {
		m.fail = uintptr(p.res.Fault)
	}
	return m, nil
}

// clone makes the process.
func (c *Child) clone(m *machine, res *Resources) error {
	var pidfd int32 = -1
	args := &cloneArgs{flags: unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND, exitSignal: uint64(unix.SIGCHLD)}
	if len(c.plan.Outer) == 0 {
		args.flags |= c.plan.Flags
	}
	if res.CgroupDir != nil {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(res.CgroupDir.Fd())
	}
	args.setPIDFD(&pidfd)
	syscall.ForkLock.Lock()
	pid, errno := cloneRun(args, m)
	syscall.ForkLock.Unlock()
	if errno != 0 {
		return fmt.Errorf("clone the container's process with %s: %w%s", plan.FlagNames(c.plan.Flags), errno, cloneHint(errno))
	}
	c.PID = int(pid)
	c.PIDFD = os.NewFile(uintptr(pidfd), "pidfd")
	return nil
}

func cloneHint(errno syscall.Errno) string {
	switch errno {
	case unix.EPERM:
		return " (user namespaces may be switched off, or creating the others needs one)"
	case unix.ENOSPC, unix.EUSERS:
		return " (a limit below /proc/sys/user is reached)"
	case unix.EBUSY:
		return " (a cgroup with controllers for its children takes no processes)"
	}
	return ""
}

// Finish lets the child go on to the user's program (or to its wait for start).
func (c *Child) Finish() error {
	if err := c.Ready(); err != nil {
		return err
	}
	return c.Go()
}

// Ready waits, where the child tells so, until it has come to its last wait: see Resources.Ready.
func (c *Child) Ready() error {
	if !c.asked {
		return nil
	}
	return c.Await(stageReady)
}

// stageReady is told before the last wait by a child that had questions on its way or whose parent wants to know, and
// to start by one that got its word.
const stageReady plan.Stage = 99

// Go sends the byte for which the child waits.
func (c *Child) Go() error {
	if _, err := unix.Write(c.sync, []byte{1}); err != nil {
		if err == unix.EPIPE || err == unix.ECONNRESET {
			// The child has failed before: its own words tell why.
			if e := c.Await(0); e != nil {
				return e
			}
			return ErrGone
		}
		return fmt.Errorf("speak to the container's process: %w", err)
	}
	return nil
}

// Await serves the child until it reaches the stage. Stage 0 is the end: the user's program runs. An error is the child's, in
// the words of the plan.
func (c *Child) Await(stage plan.Stage) error {
	for {
		r, descriptor, err := c.next()
		if err == io.EOF {
			if stage == 0 {
				c.reapHelper()
				return nil
			}
			return ErrGone
		}
		if err != nil {
			return fmt.Errorf("listen to the container's process: %w", err)
		}
		switch r.kind {
		case recordError:
			return c.failure(r)
		case recordStage:
			if plan.Stage(r.value) == stage {
				if stage >= plan.StageMounts {
					c.reapHelper()
				}
				return nil
			}
		case recordNamespace:
			c.Namespaces = append(c.Namespaces, newNamespace(r, descriptor))
		case recordDescriptor:
			c.Master = os.NewFile(uintptr(descriptor), "/dev/ptmx")
		case recordSender:
			c.untold = false
			c.sender = os.NewFile(uintptr(descriptor), "pidfd")
		case recordListener:
			if err := c.serveListener(descriptor); err != nil {
				return err
			}
		case recordCopyUp:
			if err := c.serveCopy(descriptor); err != nil {
				return err
			}
		}
	}
}

// failure makes the sentence for a failed instruction.
func (c *Child) failure(r record) error {
	if int(r.index) >= len(c.labels) {
		return fmt.Errorf("the container's process sent nonsense: instruction %d of %d", r.index, len(c.labels))
	}
	e := &StepError{Op: c.ops[r.index], Index: int(r.index), Step: c.labels[r.index], Errno: syscall.Errno(r.errno)}
	if _, ok := e.Op.(plan.Mount); ok && e.Errno == unix.EINVAL && slices.Contains(c.plan.Child, plan.Op(plan.EnterRoot{})) {
		return fmt.Errorf("%w (mounts of a container without a mount namespace of its own take Linux 6.15)", e)
	}
	return e
}

// Steps is the number of the child's instructions.
func (c *Child) Steps() int { return c.program }

// message is what one receive gave.
type message struct {
	record
	descriptor int
}

// next returns what came before its time, then what comes.
func (c *Child) next() (record, int, error) {
	if len(c.early) == 0 {
		for {
			r, descriptor, err := c.receive()
			if err != unix.EAGAIN {
				return r, descriptor, err
			}
			if err := c.lookAt(); err != nil {
				return r, descriptor, err
			}
		}
	}
	m := c.early[0]
	c.early = c.early[1:]
	return m.record, m.descriptor, nil
}

// awaitPID replaces the intermediate process by its child, which may have said something before the pid was told. The
// socket's other end may stay open when the intermediate process is killed: in its child, or in this process.
func (c *Child) awaitPID() error {
	var r record
	for r.kind != recordPID {
		var descriptor int
		var err error
		if !c.readable() {
			return c.earlyFailure()
		}
		if r, descriptor, err = c.receive(); err == io.EOF {
			return c.earlyFailure()
		}
		if err != nil {
			return err
		}
		if r.kind == recordCopyUp {
			if err := c.serveCopy(descriptor); err != nil {
				return err
			}
			continue
		}
		if r.kind != recordPID {
			c.early = append(c.early, message{r, descriptor})
		}
	}
	pid := int(r.value)
	if pid == c.PID || !ownChild(pid) {
		return errForged
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		unix.Kill(pid, unix.SIGKILL)
		return fmt.Errorf("open pidfd of the container's process: %w", err)
	}
	waitPID(c.PID)
	c.PIDFD.Close()
	c.PID, c.PIDFD = pid, os.NewFile(uintptr(pidfd), "pidfd")
	return nil
}

// reapCloned ends the child of an intermediate process that was killed before it told its number: a zombie of this
// process's in the container's pid namespace would keep the namespace from ending.
func (c *Child) reapCloned(pid int) {
	if pid > 0 && pid != c.PID && ownChild(pid) {
		unix.Kill(pid, unix.SIGKILL)
		waitPID(pid)
	}
}

// earlyFailure is why the intermediate process ended without telling a pid.
func (c *Child) earlyFailure() error {
	for _, m := range c.early {
		if m.kind == recordError {
			return c.failure(m.record)
		}
	}
	return ErrGone
}

// readable waits until there is a record to receive; false: the intermediate process ended without one.
func (c *Child) readable() bool {
	fds := []unix.PollFd{{Fd: int32(c.sync), Events: unix.POLLIN}, {Fd: int32(c.PIDFD.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
		case fds[0].Revents != 0:
			return true
		case fds[1].Revents != 0:
			fds = fds[:1] // what it wrote last has arrived
			n, err := unix.Poll(fds, 0)
			return err == nil && n > 0
		case err != nil:
			return false
		}
	}
}

// Abort kills the child, waits for it and closes.
func (c *Child) Abort() {
	if c.helper != 0 {
		unix.Kill(c.helper, unix.SIGKILL)
		c.reapHelper()
	}
	if c.PIDFD != nil && !c.reaped {
		unix.PidfdSendSignal(int(c.PIDFD.Fd()), unix.SIGKILL, nil, 0)
		c.Wait()
		c.reapUntold()
	}
	c.Close()
}

// Wait waits for the child's end and returns its status. Only for the process that cloned it.
func (c *Child) Wait() syscall.WaitStatus {
	c.reaped = true
	return waitPID(c.PID)
}

// WaitReaping is Wait for a subreaper: it reaps whatever else ends meanwhile.
func (c *Child) WaitReaping() syscall.WaitStatus {
	c.reaped = true
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		if pid == c.PID || err != nil && err != syscall.EINTR {
			return ws
		}
	}
}

// Reap reaps all children of this process that have ended, and tells whether the child is one of them.
func (c *Child) Reap() (ws syscall.WaitStatus, ended bool) {
	for {
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case pid == c.PID:
			c.reaped = true
			return ws, true
		case err == syscall.ECHILD:
			return 0, true
		case pid <= 0 && err != syscall.EINTR:
			return 0, false
		}
	}
}

// Signal sends a signal to the child, as long as it was not waited for.
func (c *Child) Signal(sig syscall.Signal) error {
	return unix.PidfdSendSignal(int(c.PIDFD.Fd()), sig, nil, 0)
}

func waitPID(pid int) syscall.WaitStatus {
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if err != syscall.EINTR {
			return ws
		}
	}
}

// Close releases the descriptors; the child goes on.
func (c *Child) Close() {
	if c.sync >= 0 {
		unix.Close(c.sync)
		c.sync = -1
	}
	c.endSender(true)
	for _, f := range c.copyUp {
		unix.Close(f)
	}
	c.copyUp = nil
	for _, m := range c.early {
		if m.descriptor >= 0 {
			unix.Close(m.descriptor)
		}
	}
	c.early = nil
	if c.PIDFD != nil {
		c.PIDFD.Close()
		c.PIDFD = nil
	}
	if c.Master != nil {
		c.Master.Close()
		c.Master = nil
	}
	CloseNamespaces(c.Namespaces)
	c.Namespaces = nil
}
