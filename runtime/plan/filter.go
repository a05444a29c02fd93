package plan

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/seccomp"
)

// loading says when the seccomp filter is loaded. After it the child makes no system call that a profile could refuse
// and runc would not make too.
//
//   - Where the profile lets all remaining steps of the child happen, before another process can see the child: before the wait for
//     start, or before it is born in the container's pid namespace.
//   - Where it does not, right before execve(2).
//
// Without no_new_privs loading takes CAP_SYS_ADMIN, which is kept until then and given up right after.
type loading struct {
	early, late []Op
	admin       bool // CAP_SYS_ADMIN is kept until the filter is loaded
}

// capSysAdmin is CAP_SYS_ADMIN of capability.h.
const capSysAdmin = 1 << 21

// filter compiles the seccomp section for the process p, which an intermediate process of exec prepares when outer is set.
func (c *compiler) filter(p *specs.Process, outer bool) (*loading, error) {
	load := new(loading)
	if c.linux.Seccomp == nil {
		return load, nil
	}
	f, err := seccomp.Compile(c.linux.Seccomp, c.host.Arch)
	if err != nil {
		return nil, fmt.Errorf("linux.seccomp: %w", err)
	}
	for _, w := range f.Warnings {
		c.warn("linux.seccomp: %s", w)
	}
	if len(f.Program) == 0 {
		return load, nil
	}
	if !mayExec(c.linux.Seccomp) {
		return nil, fmt.Errorf("linux.seccomp: the default action refuses execve and no rule allows it: no program could be started")
	}
	op := Seccomp{Program: f.AppendBytes(nil), Flags: f.Flags, Notify: f.Notify}
	load.admin = !p.NoNewPrivileges
	switch {
	case f.Notify && !outer: // create hands the listener to the agent, and fails if it cannot
		load.early = []Op{op}
	case outer && !f.Notify && f.Refused(c.afterBirth()...) == "":
		load.early = []Op{op}
	case outer && !c.userns && c.mayTrace():
		// The process would be seen without the filter, perhaps with CAP_SYS_ADMIN, by another one that can seize it.
		return nil, fmt.Errorf("linux.seccomp: the profile refuses or notifies %s, which an exec needs once the filter is loaded, and processes of "+
			"the container have CAP_SYS_PTRACE and could take over an exec that loads it later", c.refusedCall(f))
	case c.aside && load.admin:
		// What the processes of the joined namespace may do is not known.
		return nil, fmt.Errorf("linux.seccomp: the profile refuses or notifies %s, which a container in the pid namespace of another one needs once "+
			"the filter is loaded; loaded later it needs process.noNewPrivileges, so that no process there can take over CAP_SYS_ADMIN",
			c.refusedCall(f))
	case !outer && c.opts.WaitStart && f.Refused(c.afterCreate()...) == "":
		load.early = []Op{op}
	default:
		load.late = []Op{op}
	}
	return load, nil
}

// mayTrace reports whether processes of the container may seize others.
func (c *compiler) mayTrace() bool {
	p := c.spec.Process
	return p != nil && p.Capabilities != nil && slices.Contains(p.Capabilities.Bounding, "CAP_SYS_PTRACE")
}

func (c *compiler) refusedCall(f *seccomp.Filter) string {
	if name := f.Refused(c.afterBirth()...); name != "" {
		return name
	}
	return "system calls" // of a profile with a listener
}

// Calls that the child makes after an early filter: those of an exec's intermediate process and its child, and those of a container
// that waits for start. launch makes them; TestCallsOfEarlyFilter of test/runtime allows no others.
var (
	born = []seccomp.Call{{Name: "capset"}, {Name: "clone", Args: [6]uint64{cloneParent}}, {Name: "write"}, {Name: "exit_group"}, {Name: "setsid"},
		{Name: "ioctl", Args: [6]uint64{0, tiocsctty}}, {Name: "read"}, {Name: "prlimit64"}, {Name: "execve"}}
	waiting = []seccomp.Call{{Name: "capset"}, {Name: "write"}, {Name: "close_range"}, {Name: "madvise"}, {Name: "accept4"},
		{Name: "read"}, {Name: "close"}, {Name: "sendto"}, {Name: "execve"}, {Name: "exit_group"}}
)

// afterCreate are the calls of a child that waits for start; a rootless one hands out its namespaces too.
func (c *compiler) afterCreate() []seccomp.Call {
	if c.host.Rootless {
		return append([]seccomp.Call{{Name: "sendmsg"}}, waiting...)
	}
	return waiting
}

// afterBirth are the calls of an intermediate process and its child; a container that waits for start makes those for
// that too.
func (c *compiler) afterBirth() []seccomp.Call {
	if !c.opts.WaitStart {
		return born
	}
	return append([]seccomp.Call{{Name: "accept4"}, {Name: "close"}, {Name: "sendto"}}, born...)
}

// Arguments of the calls above, of sched.h and ioctls.h.
const (
	cloneParent = 0x108000 // CLONE_PARENT and CLONE_PARENT_SETTID
	tiocsctty   = 0x540e
)

// keep adds CAP_SYS_ADMIN to the sets that the process becomes its user with, if the filter needs it and it is not there anyway,
// and gives it up after the filter.
func (l *loading) keep(caps *Capabilities) {
	if !l.admin || caps.Effective&capSysAdmin != 0 {
		return
	}
	drop := DropAdmin{Effective: caps.Effective, Permitted: caps.Permitted, Inheritable: caps.Inheritable}
	caps.Effective |= capSysAdmin
	caps.Permitted |= capSysAdmin
	if len(l.early) > 0 {
		l.early = append(l.early, drop)
	} else {
		l.late = append(l.late, drop)
	}
}

// mayExec tells whether a profile lets the child become the user's program at all. After a filter that does not, the child could
// not even say so.
func mayExec(s *specs.LinuxSeccomp) bool {
	lets := func(a specs.LinuxSeccompAction) bool {
		return a == specs.ActAllow || a == specs.ActLog || a == specs.ActTrace || a == specs.ActNotify
	}
	if lets(s.DefaultAction) {
		return true
	}
	for _, rule := range s.Syscalls {
		if lets(rule.Action) && slices.Contains(rule.Names, "execve") {
			return true
		}
	}
	return false
}
