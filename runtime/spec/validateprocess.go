package spec

import (
	"math"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// process checks a process; at is the prefix of the paths in messages, "process." in a configuration. Where runc has a
// sentence for the same fault, the message contains it: callers look for those.
func (v *validator) process(at string, p *specs.Process) {
	switch {
	case p.Cwd == "":
		v.bad("%scwd: Cwd property must not be empty", at)
	case p.Cwd[0] != '/':
		v.bad("%scwd: Cwd must be an absolute path: %s", at, quote(p.Cwd))
	}
	switch {
	case len(p.Args) == 0:
		v.bad("%sargs: args must not be empty", at)
	case p.Args[0] == "":
		v.bad("%sargs[0]: exec: \"\": executable file not found in $PATH", at)
	}
	v.environment(at+"env", p.Env)
	v.user(at+"user.", &p.User)
	v.rlimits(at+"rlimits", p.Rlimits)
	v.capabilities(at+"capabilities.", p.Capabilities)
	if a := p.OOMScoreAdj; a != nil && (*a < -1000 || *a > 1000) {
		v.bad("%soomScoreAdj: want -1000 to 1000, got %d", at, *a)
	}
	if p.Scheduler != nil {
		v.scheduler(at+"scheduler.", p.Scheduler)
	}
	if p.IOPriority != nil {
		v.ioPriority(at+"ioPriority.", p.IOPriority)
	}
	if a := p.ExecCPUAffinity; a != nil {
		v.list(at+"execCPUAffinity.initial", a.Initial)
		v.list(at+"execCPUAffinity.final", a.Final)
	}
}

func (v *validator) list(at, s string) {
	if s != "" && !isList(s) {
		v.bad("%s: %s is not a list of numbers and ranges", at, quote(s))
	}
}

// user refuses the id -1, which means "leave it as it is" to setresuid(2): the process would keep the runtime's.
func (v *validator) user(at string, u *specs.User) {
	const none = math.MaxUint32
	if u.UID == none {
		v.bad("%suid: %d (-1) is not a user", at, u.UID)
	}
	if u.GID == none {
		v.bad("%sgid: %d (-1) is not a group", at, u.GID)
	}
	if i := slices.Index(u.AdditionalGids, none); i >= 0 {
		v.bad("%sadditionalGids[%d]: %d (-1) is not a group", at, i, uint32(none))
	}
	if u.Umask != nil && *u.Umask > 0o777 {
		v.bad("%sumask: want 0 to 511 (octal 777), got %d", at, *u.Umask)
	}
}

func (v *validator) rlimits(at string, limits []specs.POSIXRlimit) {
	var seen uint32
	for i, r := range limits {
		n, ok := RlimitNumber(r.Type)
		switch {
		case !ok:
			v.bad("%s[%d].type: wrong rlimit value: %s", at, i, escape(r.Type))
		case seen>>n&1 != 0:
			v.bad("%s[%d].type: duplicate resource %s", at, i, quote(r.Type))
		case r.Soft > r.Hard:
			v.bad("%s[%d].soft: %d is more than the hard limit %d", at, i, r.Soft, r.Hard)
		}
		seen |= 1 << n
	}
}

// capabilities warns only: the specification wants a container to run without the capabilities that cannot be had. Who
// grants them warns about names that do not exist.
func (v *validator) capabilities(at string, c *specs.LinuxCapabilities) {
	if c == nil {
		return
	}
	if len(c.Inheritable) == 0 && slices.Equal(c.Ambient, c.Permitted) {
		return // Buildah and other engines give one list for all sets, and none for this one since CVE-2022-24769
	}
	for i, name := range c.Ambient {
		if _, ok := CapabilityNumber(name); ok && !(slices.Contains(c.Permitted, name) && slices.Contains(c.Inheritable, name)) {
			v.warn("%sambient[%d]: %s is not both permitted and inheritable: ignored", at, i, quote(name))
		}
	}
}

// scheduler checks the combinations that sched_setattr(2) would answer with no more than EINVAL.
func (v *validator) scheduler(at string, s *specs.Scheduler) {
	switch s.Policy {
	case specs.SchedOther, specs.SchedBatch, specs.SchedIdle, specs.SchedISO, specs.SchedDeadline:
		if s.Priority != 0 {
			v.bad("%spriority: want 0 with %s, got %d", at, s.Policy, s.Priority)
		}
	case specs.SchedFIFO, specs.SchedRR:
		if s.Priority < 1 || s.Priority > 99 {
			v.bad("%spriority: want 1 to 99 with %s, got %d", at, s.Policy, s.Priority)
		}
	default:
		v.bad("%spolicy: invalid scheduler policy: %s", at, escape(string(s.Policy)))
	}
	if s.Nice < -20 || s.Nice > 19 {
		v.bad("%snice: want -20 to 19, got %d", at, s.Nice)
	}
	for i, f := range s.Flags {
		switch f {
		case specs.SchedFlagResetOnFork, specs.SchedFlagReclaim, specs.SchedFlagDLOverrun, specs.SchedFlagKeepPolicy,
			specs.SchedFlagKeepParams, specs.SchedFlagUtilClampMin, specs.SchedFlagUtilClampMax:
		default:
			v.bad("%sflags[%d]: invalid scheduler flag: %s", at, i, escape(string(f)))
		}
	}
	if s.Policy != specs.SchedDeadline {
		return
	}
	if s.Runtime == 0 || s.Runtime > s.Deadline || s.Period != 0 && s.Deadline > s.Period {
		v.bad("%sruntime: want 0 < runtime <= deadline <= period with SCHED_DEADLINE, got %d, %d, %d",
			at, s.Runtime, s.Deadline, s.Period)
	}
}

func (v *validator) ioPriority(at string, p *specs.LinuxIOPriority) {
	switch p.Class {
	case specs.IOPRIO_CLASS_RT, specs.IOPRIO_CLASS_BE, specs.IOPRIO_CLASS_IDLE:
	default:
		v.bad("%sclass: invalid ioPriority.Class: %s", at, quote(string(p.Class)))
	}
	if p.Priority < 0 || p.Priority > 7 {
		v.bad("%spriority: invalid ioPriority.Priority: %s: want 0 to 7", at, strconv.Itoa(p.Priority))
	}
}
