package plan

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// buildsAside decides whether the intermediate process makes the whole container, and clones its process into the
// joined pid namespace last: a process of that namespace with CAP_SYS_PTRACE could seize one that still has the
// runtime's rights. A process behind a user namespace of its own cannot be seized so. Hooks and devices that the
// runtime moves need the pid of the container's process before.
func (c *compiler) buildsAside() bool {
	return c.joined["pid"] != "" && !c.userns && !c.opts.Hooks && len(c.linux.NetDevices) == 0 &&
		(c.host.ProcByDescriptor || !c.mountsProc())
}

// mountsProc reports whether the configuration mounts a procfs, which older kernels do for the process's own pid
// namespace only.
func (c *compiler) mountsProc() bool {
	return slices.ContainsFunc(c.spec.Mounts, func(m specs.Mount) bool { return m.Type == "proc" })
}

// enterAside adds what an intermediate process that makes the whole container does first.
func (c *compiler) enterAside(cgroups, newTime, joins []Op, newFlags uint64) {
	c.aside = true
	c.add(cgroups...)
	c.add(newTime...)
	c.add(joins...)
	if newFlags != 0 {
		c.add(Unshare{newFlags})
	}
}

// leave ends the intermediate process: what was added up to here is its part, and the child begins.
func (c *compiler) leave(forget bool, filter []Op) {
	c.add(CloseAll{Keep: c.opts.PassedFDs, Listen: c.opts.WaitStart, Forget: forget})
	c.add(filter...)
	c.plan.Outer = append(c.plan.Child, CloneChild{})
	c.plan.Child = nil
}
