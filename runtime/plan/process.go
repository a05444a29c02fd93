package plan

import (
	"fmt"
	"math/bits"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/spec"
)

// process compiles what happens between the finished root and the user's program.
func (c *compiler) process() error {
	p := c.spec.Process
	if p == nil {
		if !c.opts.WaitStart {
			return fmt.Errorf("process: process property must not be empty")
		}
		if c.aside {
			c.leave(true, nil)
		}
		c.add(NewSession{}, Wait{ForLimits}, Tell{StageCreated}, WaitStart{})
		return nil
	}
	if p.Capabilities == nil {
		c.warn("process.capabilities is not set: the process gets no capabilities")
	}
	c.add(allCPUs())
	if p.Terminal {
		c.add(UseTerminal{})
	}
	if !c.aside {
		c.session(p)
	}
	if !c.opts.NoNewKeyring {
		c.add(Keyring{"_ses." + c.host.ID})
	}
	return c.become(p, c.aside)
}

// session makes the process the leader of a session, with its terminal.
func (c *compiler) session(p *specs.Process) {
	c.add(NewSession{})
	if p.Terminal {
		c.add(ControlTerminal{})
	}
}

// allCPUs undoes an affinity that the runtime was started with, as runc does: cpusets are what limits containers.
func allCPUs() Affinity {
	mask := make([]byte, 1024) // the kernel cuts it to the CPUs that there are
	for i := range mask {
		mask[i] = 0xff
	}
	return Affinity{CPUs: AllCPUs, Mask: mask}
}

// become turns the child into the process p: the same for the first process and for exec. With outer everything but the last steps is
// done by the intermediate process, so that the process appears among those of the container without a right that is not its own:
// one of them with CAP_SYS_PTRACE could seize it.
func (c *compiler) become(p *specs.Process, outer bool) error {
	load, err := c.filter(p, outer)
	if err != nil {
		return err
	}
	if err := c.scheduling(p, outer); err != nil {
		return err
	}
	if !path.IsAbs(p.Cwd) {
		return fmt.Errorf("process.cwd: %q is not absolute", p.Cwd)
	}
	c.labels(p, outer)
	env := c.environ(p)
	if !c.exactEnv && !hasKey(env, "HOME") {
		c.add(Home{p.User.UID})
	}
	if p.NoNewPrivileges {
		c.add(NoNewPrivileges{})
	}
	if err := c.user(p, load); err != nil {
		return err
	}
	find, err := c.findProgram(p.Args, env)
	if err != nil {
		return err
	}
	c.add(find)
	if outer {
		c.leave(c.aside || !c.userns && c.mayTrace(), load.early)
		c.session(p)
	} else {
		c.add(CloseOnExec{3 + c.opts.PassedFDs})
	}
	c.add(Wait{ForLimits})
	if err := c.limits(p); err != nil {
		return err
	}
	if !outer {
		c.add(load.early...)
	}
	if c.opts.WaitStart {
		c.add(Tell{StageCreated}, WaitStart{})
	}
	c.add(load.late...)
	c.add(Exec{Args: p.Args, Env: env})
	return nil
}

// limits: the process lowers its limits itself, last of all, because each of them may hinder what comes before. The runtime may have
// the right to raise hard limits, which the process has not.
func (c *compiler) limits(p *specs.Process) error {
	given := c.host.NoFile == [2]uint64{}
	for _, r := range p.Rlimits {
		given = given || r.Type == "RLIMIT_NOFILE"
		n, ok := spec.RlimitNumber(r.Type)
		if !ok {
			return fmt.Errorf("process.rlimits: wrong rlimit value: %s", r.Type)
		}
		c.plan.Beside = append(c.plan.Beside, RaiseLimit{Type: r.Type, Number: n, Hard: r.Hard})
		c.add(Rlimit{Type: r.Type, Number: n, Soft: r.Soft, Hard: r.Hard})
	}
	if !given { // Go has raised its own soft limit, which must not reach the container
		n, _ := spec.RlimitNumber("RLIMIT_NOFILE")
		c.add(Rlimit{Type: "RLIMIT_NOFILE", Number: n, Soft: c.host.NoFile[0], Hard: c.host.NoFile[1]})
	}
	if p.OOMScoreAdj != nil {
		c.plan.Beside = append(c.plan.Beside, OOMScore{*p.OOMScoreAdj})
	}
	return nil
}

func (c *compiler) labels(p *specs.Process, outer bool) {
	if p.SelinuxLabel != "" {
		c.add(Label{Module: "selinux", File: "attr/exec", Value: p.SelinuxLabel, HostProc: outer})
	}
	if p.ApparmorProfile != "" {
		c.add(Label{Module: "apparmor", File: "attr/apparmor/exec", Value: "exec " + p.ApparmorProfile, HostProc: outer})
	}
}

// user sets credentials: the bounding set first, while the right to change it is there; then ids; then the sets.
func (c *compiler) user(p *specs.Process, load *loading) error {
	if err := c.mapped(p); err != nil {
		return err
	}
	var sets [5]uint64 // without process.capabilities the process gets none
	if p.Capabilities != nil {
		sets = c.capabilities(p.Capabilities)
	}
	c.add(BoundingSet{Keep: sets[0], Last: c.host.LastCap})
	c.add(OwnStdio{UID: p.User.UID, GID: p.User.GID, Terminal: p.Terminal})
	c.add(Chdir{Path: path.Clean(p.Cwd), Try: true})
	u := SetUser{UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids}
	if c.host.Rootless {
		if len(u.Groups) > 0 && !c.host.IDMapHelpers {
			return fmt.Errorf("process.user.additionalGids: a single mapped gid allows no additional groups")
		}
		u.SkipGroups = !c.host.IDMapHelpers
	}
	c.add(u)
	caps := Capabilities{Effective: sets[1], Permitted: sets[2], Inheritable: sets[3], Ambient: sets[4]}
	load.keep(&caps)
	c.add(caps)
	c.add(Chdir{Path: path.Clean(p.Cwd)})
	if p.User.Umask != nil {
		c.add(Umask{*p.User.Umask})
	} else {
		c.add(Umask{0o022}) // what callers of runc and crun rely on
	}
	return nil
}

// mapped checks that the process's ids exist in a new user namespace.
func (c *compiler) mapped(p *specs.Process) error {
	if c.newFlags&NewUser == 0 {
		return nil
	}
	if _, ok := mappedID(p.User.UID, c.linux.UIDMappings); !ok {
		return fmt.Errorf("process.user.uid: %d is not in linux.uidMappings", p.User.UID)
	}
	for _, gid := range append([]uint32{p.User.GID}, p.User.AdditionalGids...) {
		if _, ok := mappedID(gid, c.linux.GIDMappings); !ok {
			return fmt.Errorf("process.user: gid %d is not in linux.gidMappings", gid)
		}
	}
	return nil
}

// capabilities returns bounding, effective, permitted, inheritable, ambient, without what the host cannot grant: the
// specification wants a warning for that and no failure.
func (c *compiler) capabilities(caps *specs.LinuxCapabilities) [5]uint64 {
	var sets [5]uint64
	var ignored []string
	for i, names := range [][]string{caps.Bounding, caps.Effective, caps.Permitted, caps.Inheritable, caps.Ambient} {
		set, unknown := capSet(names, capNumber, c.host.LastCap)
		if lost := set &^ c.host.Grantable; lost != 0 && !c.userns {
			for lost != 0 {
				n := bits.TrailingZeros64(lost)
				unknown = append(unknown, spec.CapabilityNames()[n])
				lost &^= 1 << n
			}
			set &= c.host.Grantable
		}
		ignored = append(ignored, unknown...)
		sets[i] = set
	}
	if len(ignored) > 0 {
		c.warn("%s", ignoredCapabilities(ignored))
	}
	sets[1] &= sets[2]
	sets[4] &= sets[2] & sets[3] // as the kernel wants it; spec.Load has warned
	return sets
}

// ignoredCapabilities is runc's warning about names, with a hint at those that lack nothing but their prefix.
func ignoredCapabilities(names []string) string {
	slices.Sort(names)
	names = slices.Compact(names)
	text := fmt.Sprintf("ignoring unknown or unavailable capabilities: %v", names)
	for _, name := range names {
		if _, ok := spec.CapabilityNumber("CAP_" + name); ok {
			text += fmt.Sprintf(" (%q needs the prefix CAP_)", name)
		}
	}
	return text
}

// scheduling compiles scheduler, ioPriority, memoryPolicy and personality.
func (c *compiler) scheduling(p *specs.Process, outer bool) error {
	if s := p.Scheduler; s != nil {
		op, err := scheduler(s)
		if err != nil {
			return err
		}
		// A process with a deadline makes no children, others may lose their policy at birth; the child has no right to set it.
		if outer && (op.Policy == schedDeadline || op.Flags&schedResetOnFork != 0) {
			c.plan.Beside = append(c.plan.Beside, op)
		} else {
			c.add(op)
		}
	}
	if io := p.IOPriority; io != nil {
		class := 0
		switch io.Class {
		case specs.IOPRIO_CLASS_RT:
			class = 1
		case specs.IOPRIO_CLASS_BE:
			class = 2
		case specs.IOPRIO_CLASS_IDLE:
			class = 3
		default:
			return fmt.Errorf("process.ioPriority.class: unknown class %q", io.Class)
		}
		c.add(IOPriority{Class: class, Priority: io.Priority})
	}
	if mp := c.linux.MemoryPolicy; mp != nil {
		op, err := memoryPolicy(mp)
		if err != nil {
			return err
		}
		c.add(op)
	}
	if pers := c.linux.Personality; pers != nil {
		switch {
		case len(pers.Flags) > 0:
			return fmt.Errorf("linux.personality.flags: no flag is defined, got %q", pers.Flags[0])
		case pers.Domain == specs.PerLinux:
			c.add(Personality{0})
		case pers.Domain == specs.PerLinux32:
			c.add(Personality{8})
		default:
			return fmt.Errorf("linux.personality.domain: unknown domain %q", pers.Domain)
		}
	}
	return nil
}

// SCHED_DEADLINE and SCHED_FLAG_RESET_ON_FORK of sched.h.
const (
	schedDeadline    = 6
	schedResetOnFork = 1
)

func scheduler(s *specs.Scheduler) (Scheduler, error) {
	op := Scheduler{Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	policies := []specs.LinuxSchedulerPolicy{specs.SchedOther, specs.SchedFIFO, specs.SchedRR, specs.SchedBatch, specs.SchedISO,
		specs.SchedIdle, specs.SchedDeadline}
	found := false
	for n, name := range policies {
		if s.Policy == name {
			op.Policy, found = uint32(n), true
		}
	}
	if !found {
		return op, fmt.Errorf("process.scheduler.policy: unknown policy %q", s.Policy)
	}
	flags := []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork, specs.SchedFlagReclaim, specs.SchedFlagDLOverrun,
		specs.SchedFlagKeepPolicy, specs.SchedFlagKeepParams, specs.SchedFlagUtilClampMin, specs.SchedFlagUtilClampMax}
next:
	for _, f := range s.Flags {
		for n, name := range flags {
			if f == name {
				op.Flags |= 1 << n
				continue next
			}
		}
		return op, fmt.Errorf("process.scheduler.flags: unknown flag %q", f)
	}
	return op, nil
}

func memoryPolicy(mp *specs.LinuxMemoryPolicy) (MemoryPolicy, error) {
	var op MemoryPolicy
	switch mp.Mode {
	case specs.MpolDefault:
		op.Mode = 0
	case specs.MpolPreferred:
		op.Mode = 1
	case specs.MpolBind:
		op.Mode = 2
	case specs.MpolInterleave:
		op.Mode = 3
	case specs.MpolLocal:
		op.Mode = 4
	case specs.MpolPreferredMany:
		op.Mode = 5
	case specs.MpolWeightedInterleave:
		op.Mode = 6
	default:
		return op, fmt.Errorf("linux.memoryPolicy.mode: unknown mode %q", mp.Mode)
	}
	for _, f := range mp.Flags {
		switch f {
		case specs.MpolFNumaBalancing:
			op.Mode |= 1 << 13
		case specs.MpolFRelativeNodes:
			op.Mode |= 1 << 14
		case specs.MpolFStaticNodes:
			op.Mode |= 1 << 15
		default:
			return op, fmt.Errorf("linux.memoryPolicy.flags: unknown flag %q", f)
		}
	}
	if mp.Nodes == "" {
		return op, nil
	}
	nodes, err := parseList(mp.Nodes)
	if err != nil {
		return op, fmt.Errorf("linux.memoryPolicy.nodes: %w", err)
	}
	op.Nodes = nodes
	return op, nil
}

// environ is the process's environment with the last of several values for a name, in the order of the first ones. An empty HOME
// counts as none, as with runc.
func (c *compiler) environ(p *specs.Process) []string {
	env := dedupe(p.Env)
	if c.exactEnv {
		return env
	}
	return slices.DeleteFunc(env, func(e string) bool { return e == "HOME=" })
}

func dedupe(env []string) []string {
	out := make([]string, 0, len(env))
	at := make(map[string]int, len(env))
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}

// findProgram is the file to execute: ExecInput's, or the one that args[0] names.
func (c *compiler) findProgram(args, env []string) (FindProgram, error) {
	if c.program != "" {
		return FindProgram{Arg: c.program, Paths: []string{c.program}}, nil
	}
	return findProgram(args, env)
}

// findProgram lists the files to try for args[0]: execvp(3)'s rule over the container's own PATH.
func findProgram(args, env []string) (FindProgram, error) {
	if len(args) == 0 || args[0] == "" {
		return FindProgram{}, fmt.Errorf("process.args: args must not be empty")
	}
	find := FindProgram{Arg: args[0]}
	if strings.Contains(args[0], "/") {
		find.Paths = []string{args[0]}
		return find, nil
	}
	for _, e := range env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range strings.Split(list, ":") {
			if dir == "" {
				dir = "."
			}
			find.Paths = append(find.Paths, strings.TrimSuffix(dir, "/")+"/"+args[0])
		}
	}
	return find, nil
}

// parseList reads "0-3,7" to a bit mask, lowest bit first. Numbers reach to 8191.
func parseList(s string) ([]byte, error) {
	var mask []byte
	for _, part := range strings.Split(strings.TrimSpace(s), ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := listNumber(from)
		if err != nil {
			return nil, err
		}
		b := a
		if isRange {
			if b, err = listNumber(to); err != nil {
				return nil, err
			}
		}
		if b < a {
			return nil, fmt.Errorf("range %q runs backwards", part)
		}
		for ; a <= b; a++ {
			for len(mask) <= a/8 {
				mask = append(mask, 0)
			}
			mask[a/8] |= 1 << (a % 8)
		}
	}
	return mask, nil
}

func listNumber(s string) (int, error) {
	n := 0
	if s == "" || len(s) > 4 {
		return 0, fmt.Errorf("%q is not a number from 0 to 8191", s)
	}
	for _, ch := range s {
		if ch < '0' || ch > '9' {
			return 0, fmt.Errorf("%q is not a number from 0 to 8191", s)
		}
		n = n*10 + int(ch-'0')
	}
	if n > 8191 {
		return 0, fmt.Errorf("%q is not a number from 0 to 8191", s)
	}
	return n, nil
}
