package seccomp

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// check is what the kernel demands of a program: bpf_check_classic and seccomp_check_filter.
func check(p []Instruction) error {
	if len(p) == 0 || len(p) > 4096 {
		return fmt.Errorf("%d instructions", len(p))
	}
	for pc, i := range p {
		left := len(p) - pc - 1 // instructions behind this one
		switch i.Code {
		case 0x20:
			if i.K%4 != 0 || i.K >= 64 || i.K == 8 || i.K == 12 {
				return fmt.Errorf("instruction %d loads from %d", pc, i.K)
			}
		case 0x54, 0x06:
		case 0x05:
			if int64(i.K) >= int64(left) {
				return fmt.Errorf("instruction %d jumps %d of %d", pc, i.K, left)
			}
		case 0x15, 0x25, 0x35:
			if int(i.JT) >= left || int(i.JF) >= left {
				return fmt.Errorf("instruction %d jumps %d or %d of %d", pc, i.JT, i.JF, left)
			}
		default:
			return fmt.Errorf("instruction %d has code %#x", pc, i.Code)
		}
	}
	if p[len(p)-1].Code != 0x06 {
		return fmt.Errorf("the last instruction has code %#x", p[len(p)-1].Code)
	}
	return nil
}

// naive answers the calls of one number by the words of the package's documentation, for a profile that Compile accepts. It
// shares the tables of architectures, actions and numbers with the compiler and nothing else.
func naive(s *specs.LinuxSeccomp, goarch string, token, nr uint32) func(d *data) uint32 {
	m, _ := machineOf(goarch)
	def, _ := answer(s.DefaultAction, s.DefaultErrnoRet)
	listed := func(name specs.Arch) bool { return name == m.native || slices.Contains(s.Architectures, name) }
	enosysRet := retErrno | m.enosys()

	var a *arch
	always := func(ret uint32) func(*data) uint32 { return func(*data) uint32 { return ret } }
	x32 := token == 0xc000003e && nr >= x32Bit
	for i := range archs {
		if archs[i].token == token && archs[i].column >= 0 && (archs[i].column == colX32) == x32 {
			a = &archs[i]
		}
	}
	switch {
	case a == nil || a.family != findArch(m.native).family:
		return always(retKillProcess)
	case x32 && !listed("SCMP_ARCH_X32") && listed("SCMP_ARCH_X86_64"):
		return always(enosysRet)
	case !listed(a.name):
		return always(retKillProcess)
	}

	newest, callNames := naiveNewest(s, a), namesOf(a, nr)
	if newest >= 0 && int64(nr) > newest && !lets(def) && !(a.column == colARM && nr >= 0xf0000) {
		return always(enosysRet)
	}

	var named []specs.LinuxSyscall // the rules for the number
	for _, r := range s.Syscalls {
		if slices.ContainsFunc(r.Names, func(n string) bool { return slices.Contains(callNames, n) }) {
			named = append(named, r)
		}
	}
	return func(d *data) uint32 {
		best, found := def, false
		consider := func(ret uint32) {
			if !found || int32(ret&0xffff0000) < int32(best&0xffff0000) {
				best, found = ret, true
			}
		}
		unconditional := false
		for _, r := range named {
			ret, _ := answer(r.Action, r.ErrnoRet)
			switch {
			case ret == def && lets(def):
			case len(r.Args) == 0 && !unconditional:
				unconditional = true
				consider(ret)
			case len(r.Args) > 0 && matches(r.Args, d, a.narrow):
				consider(ret)
			}
		}
		for _, mx := range multiplexed {
			sel := d.args[0] & 0xffffffff
			if mx.by == "ipc" {
				sel &= 0xffff
			}
			if sel != mx.selector || !slices.Contains(callNames, mx.by) {
				continue
			}
			ret, ok := naiveFirst(s, mx.name, def)
			if ok && (!lets(ret) && ret != retNotify || int32(ret&0xffff0000) < int32(def&0xffff0000)) {
				consider(ret)
			}
		}
		return best
	}
}

// lets says whether an answer lets the call happen.
func lets(ret uint32) bool {
	k := ret & 0xffff0000
	return k == retAllow || k == retLog || k == retTrace
}

// naiveNewest is the largest number on an architecture that a profile names, -1 if none.
func naiveNewest(s *specs.LinuxSeccomp, a *arch) int64 {
	newest := int64(-1)
	for _, r := range s.Syscalls {
		for _, n := range r.Names {
			if id := lookup(n); id >= 0 {
				if n, ok := a.number(id); ok && !(a.column == colARM && n >= 0xf0000) {
					newest = max(newest, int64(n))
				}
			}
		}
	}
	return newest
}

// naiveFirst is the answer of the first rule without conditions for a name that says something.
func naiveFirst(s *specs.LinuxSeccomp, name string, def uint32) (uint32, bool) {
	for _, r := range s.Syscalls {
		ret, _ := answer(r.Action, r.ErrnoRet)
		if len(r.Args) == 0 && slices.Contains(r.Names, name) && !(ret == def && lets(def)) {
			return ret, true
		}
	}
	return 0, false
}

// matches joins a rule's conditions: by "or" if two are on one argument, else by "and".
func matches(args []specs.LinuxSeccompArg, d *data, narrow bool) bool {
	all, some := true, false
	index := map[uint]bool{}
	for _, c := range args {
		v, x, y := d.args[c.Index], c.Value, c.ValueTwo
		if narrow {
			v, x, y = v&0xffffffff, x&0xffffffff, y&0xffffffff
		}
		var ok bool
		switch c.Op {
		case specs.OpEqualTo:
			ok = v == x
		case specs.OpNotEqual:
			ok = v != x
		case specs.OpGreaterThan:
			ok = v > x
		case specs.OpGreaterEqual:
			ok = v >= x
		case specs.OpLessThan:
			ok = v < x
		case specs.OpLessEqual:
			ok = v <= x
		case specs.OpMaskedEqual:
			ok = v&x == y&x
		}
		all, some = all && ok, some || ok
		index[c.Index] = true
	}
	if len(index) < len(args) {
		return some
	}
	return all
}
