package seccomp

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The filter's answers: SECCOMP_RET_* of linux/seccomp.h. The low 16 bits are data.
const (
	retKillProcess uint32 = 0x80000000
	retKillThread  uint32 = 0x00000000
	retTrap        uint32 = 0x00030000
	retErrno       uint32 = 0x00050000
	retNotify      uint32 = 0x7fc00000
	retTrace       uint32 = 0x7ff00000
	retLog         uint32 = 0x7ffc0000
	retAllow       uint32 = 0x7fff0000
	retMask        uint32 = 0xffff0000
)

// The flags of seccomp(2): SECCOMP_FILTER_FLAG_* of linux/seccomp.h.
const (
	flagTsync        uint32 = 1 << 0
	flagLog          uint32 = 1 << 1
	flagSpecAllow    uint32 = 1 << 2
	flagNewListener  uint32 = 1 << 3
	flagTsyncESRCH   uint32 = 1 << 4
	flagWaitKillable uint32 = 1 << 5
)

const (
	eperm      = 1
	enosys     = 38
	enosysMIPS = 89
	maxErrno   = 4095 // MAX_ERRNO: the kernel cuts a larger one down to it
)

// strictness orders answers as the kernel does when several filters disagree: the smaller, as a signed number, wins.
func strictness(ret uint32) int32 { return int32(ret & retMask) }

// permissive answers let the call happen.
func permissive(ret uint32) bool {
	switch ret & retMask {
	case retAllow, retLog, retTrace:
		return true
	}
	return false
}

// rule is one of the profile's rules after validation, its conditions joined by "and".
type rule struct {
	names []string
	conds []specs.LinuxSeccompArg
	ret   uint32
	index int // in the profile
}

// actions is sorted.
var actions = [...]struct {
	name specs.LinuxSeccompAction
	ret  uint32
}{
	{"SCMP_ACT_ALLOW", retAllow},
	{"SCMP_ACT_ERRNO", retErrno},
	{"SCMP_ACT_KILL", retKillThread},
	{"SCMP_ACT_KILL_PROCESS", retKillProcess},
	{"SCMP_ACT_KILL_THREAD", retKillThread},
	{"SCMP_ACT_LOG", retLog},
	{"SCMP_ACT_NOTIFY", retNotify},
	{"SCMP_ACT_TRACE", retTrace},
	{"SCMP_ACT_TRAP", retTrap},
}

// operators is sorted.
var operators = [...]specs.LinuxSeccompOperator{
	specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpLessEqual, specs.OpLessThan, specs.OpMaskedEqual, specs.OpNotEqual,
}

// flags is sorted.
var flags = [...]struct {
	name specs.LinuxSeccompFlag
	bit  uint32
}{
	{"SECCOMP_FILTER_FLAG_LOG", flagLog},
	{"SECCOMP_FILTER_FLAG_SPEC_ALLOW", flagSpecAllow},
	{"SECCOMP_FILTER_FLAG_TSYNC", flagTsync},
	{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", flagWaitKillable},
}

// Actions lists the actions that Compile knows, sorted, for the features command.
func Actions() []string {
	var list []string
	for _, a := range actions {
		list = append(list, string(a.name))
	}
	return list
}

// Operators lists the comparisons that Compile knows, sorted, for the features command.
func Operators() []string {
	var list []string
	for _, o := range operators {
		list = append(list, string(o))
	}
	return list
}

// Archs lists the architectures that a profile may name, sorted, for the features command.
func Archs() []string {
	var list []string
	for i := range archs {
		list = append(list, string(archs[i].name))
	}
	return list
}

// Flags lists the flags that Compile knows, sorted, for the features command.
func Flags() []string {
	var list []string
	for _, f := range flags {
		list = append(list, string(f.name))
	}
	return list
}

// answer turns an action and its errnoRet into SECCOMP_RET_*.
func answer(action specs.LinuxSeccompAction, data *uint) (uint32, error) {
	for _, a := range actions {
		if a.name != action {
			continue
		}
		limit := uint(maxErrno)
		switch a.ret {
		case retErrno:
		case retTrace:
			limit = 0xffff
		default:
			if data != nil {
				return 0, fmt.Errorf("action %s takes no errnoRet", action)
			}
			return a.ret, nil
		}
		if data == nil {
			return a.ret | eperm, nil
		}
		if *data > limit {
			return 0, fmt.Errorf("errnoRet %d of %s is above %d", *data, action, limit)
		}
		return a.ret | uint32(*data), nil
	}
	return 0, fmt.Errorf("string %s is not a valid action for seccomp", action)
}

// flagBits follows runc: flags that are absent, not empty, mean SPEC_ALLOW, because since Linux 5.16 the mitigation that it
// turns off costs more than it protects.
func flagBits(list []specs.LinuxSeccompFlag, notify bool) (uint32, error) {
	var bits uint32
	if list == nil {
		bits = flagSpecAllow
	}
next:
	for _, name := range list {
		for _, f := range flags {
			if f.name == name {
				bits |= f.bit
				continue next
			}
		}
		return 0, fmt.Errorf("unknown flag %q", name)
	}
	if notify {
		bits |= flagNewListener
		if bits&flagTsync != 0 { // both return a number: the kernel wants to be told that they may (5.7, 51891498f2da)
			bits |= flagTsyncESRCH
		}
	}
	return bits, nil
}

// checkListener is for what the specification says about listenerPath and listenerMetadata.
func checkListener(s *specs.LinuxSeccomp, notify bool) error {
	if s.ListenerMetadata != "" && s.ListenerPath == "" {
		return errors.New("listenerMetadata without listenerPath")
	}
	if notify && s.ListenerPath == "" {
		return errors.New("SCMP_ACT_NOTIFY is used: seccomp listenerPath is not set")
	}
	return nil
}

// rules validates the profile's rules and returns them in its order. A rule with two conditions on one argument becomes a
// rule for each of its conditions, as runc does it: joined by "or". That is seldom what was meant, hence the warning.
func rules(s *specs.LinuxSeccomp) (list []rule, warnings []string, err error) {
	list = make([]rule, 0, len(s.Syscalls)+len(multiplexed))
	for i := range s.Syscalls {
		c := &s.Syscalls[i]
		ret, err := checkRule(c)
		if err != nil {
			name := ""
			if len(c.Names) > 0 {
				name = " (" + c.Names[0] + ")"
			}
			return nil, nil, fmt.Errorf("rule %d%s: %w", i, name, err)
		}
		if repeatsIndex(c.Args) {
			warnings = append(warnings, fmt.Sprintf("rule %d (%s): conditions on the same argument are joined by \"or\"", i, c.Names[0]))
			for j := range c.Args {
				list = append(list, rule{c.Names, c.Args[j : j+1], ret, i})
			}
		} else {
			list = append(list, rule{c.Names, c.Args, ret, i})
		}
	}
	return list, warnings, nil
}

func checkRule(c *specs.LinuxSyscall) (uint32, error) {
	if len(c.Names) == 0 || slices.Contains(c.Names, "") {
		return 0, errors.New("empty system call name")
	}
	ret, err := answer(c.Action, c.ErrnoRet)
	if err != nil {
		return 0, err
	}
	if ret == retNotify && slices.Contains(c.Names, "write") {
		// Runtimes write between the load of the filter and the moment when the agent has the descriptor.
		return 0, errors.New("SCMP_ACT_NOTIFY cannot be used for the write syscall")
	}
	for _, a := range c.Args {
		if a.Index > 5 {
			return 0, fmt.Errorf("argument index %d is above 5", a.Index)
		}
		if !slices.Contains(operators[:], a.Op) {
			return 0, fmt.Errorf("unknown operator %q", a.Op)
		}
	}
	return ret, nil
}

func repeatsIndex(args []specs.LinuxSeccompArg) bool {
	var seen [6]bool
	for _, a := range args {
		if seen[a.Index] {
			return true
		}
		seen[a.Index] = true
	}
	return false
}
