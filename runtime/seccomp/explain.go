package seccomp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Question is a system call that is to be explained.
type Question struct {
	Call string     // its name, or its number
	Arch specs.Arch // "" is the machine's own
	Args []uint64   // at most 6; those after the last are not known
}

// FindArch returns the architecture with a name of the specification, of Go or of uname(1): "SCMP_ARCH_X86_64", "amd64", "x86_64".
func FindArch(name string) (specs.Arch, bool) {
	switch name {
	case "i386", "i686":
		return specs.ArchX86, true
	case "arm64":
		return specs.ArchAARCH64, true
	}
	if m, err := machineOf(name); err == nil && name != "386" { // a number is an argument
		return m.native, true
	}
	arch := specs.Arch("SCMP_ARCH_" + strings.ToUpper(strings.TrimPrefix(name, "SCMP_ARCH_")))
	return arch, findArch(arch) != nil
}

// MachineOf returns the machine, in Go's words, whose kernel makes calls of an architecture: goarch itself if it does, else the
// one that has 64 bits.
func MachineOf(name specs.Arch, goarch string) (string, error) {
	a, m := findArch(name), machine{}
	if a == nil || a.family == "" {
		return "", fmt.Errorf("no machine that tare runs on makes calls of %s", name)
	}
	m, err := machineOf(goarch)
	if err == nil && findArch(m.native).family == a.family {
		return goarch, nil
	}
	for _, other := range []string{"amd64", "arm64", "loong64", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x"} {
		if m, err := machineOf(other); err == nil && findArch(m.native).family == a.family {
			return other, nil
		}
	}
	return "", fmt.Errorf("no machine that tare runs on makes calls of %s", name)
}

// explainer holds a compiled profile and what is written about it.
type explainer struct {
	*Profile
	c    *compiler
	f    *Filter
	out  strings.Builder
	deep int // of the indentation
}

// Explain says in sentences what a machine's filter for the profile does with a call: the answer, the rule that decides it, and
// what it depends on where the arguments are not known.
func (p *Profile) Explain(goarch string, q Question) (string, error) {
	f, err := Compile(p.Spec, goarch)
	if err != nil {
		return "", err
	}
	def, err := answer(p.Spec.DefaultAction, p.Spec.DefaultErrnoRet)
	if err != nil {
		return "", err
	}
	list, _, err := rules(p.Spec)
	if err != nil {
		return "", err
	}
	e := &explainer{Profile: p, f: f, c: newCompiler(f.machine, list, def)}
	if q.Arch == "" {
		q.Arch = f.machine.native
	}
	a := findArch(q.Arch)
	if a == nil || a.column == noColumn {
		return "", fmt.Errorf("no system calls of %s are known", q.Arch)
	}
	if err := e.call(a, q); err != nil {
		return "", err
	}
	return e.out.String(), nil
}

// shortArch is an architecture's name as people write it.
func shortArch(a *arch) string {
	return strings.ToLower(strings.TrimPrefix(string(a.name), "SCMP_ARCH_"))
}

func (e *explainer) line(format string, args ...any) {
	e.out.WriteString(strings.Repeat("  ", e.deep))
	fmt.Fprintf(&e.out, format, args...)
	e.out.WriteByte('\n')
}

// call explains one call, and the other way to reach it.
func (e *explainer) call(a *arch, q Question) error {
	nr, err := strconv.ParseUint(q.Call, 0, 32)
	if err == nil {
		name := "unknown call"
		if names := namesOf(a, uint32(nr)); len(names) > 0 {
			name = strings.Join(names, ", ")
		}
		e.number(a, name, uint32(nr), q.Args)
		return nil
	}
	id := lookup(q.Call)
	if id < 0 {
		return fmt.Errorf("unknown system call %q", q.Call)
	}
	if nr, ok := a.number(id); ok {
		e.number(a, q.Call, nr, q.Args)
	} else {
		e.line("%s: %s has no call of this name", q.Call, shortArch(a))
	}
	e.deep++
	for _, s := range e.skipped {
		if slices.Contains(s.names, q.Call) {
			e.line("rule %d is left out: it is there only %s", s.index, s.why)
		}
	}
	e.deep--
	for _, m := range multiplexed {
		if nr, ok := a.number(lookup(m.by)); m.name == q.Call && ok {
			e.line("the same by %s with %d as first argument:", m.by, m.selector)
			e.deep++
			e.number(a, m.by, nr, []uint64{m.selector})
			e.deep--
		}
	}
	return nil
}

// namesOf lists what a number is called.
func namesOf(a *arch, nr uint32) (list []string) {
	for id := range numNames {
		if n, ok := a.number(id); ok && n == nr {
			list = append(list, nameAt(id))
		}
	}
	return list
}

// number explains a number.
func (e *explainer) number(a *arch, name string, nr uint32, args []uint64) {
	head := fmt.Sprintf("%s (%d) on %s", name, nr, shortArch(a))
	if why := e.withoutRules(a, nr); why != "" {
		ret := e.f.Action(a.name, nr, [6]uint64{})
		e.line("%s: %s", head, e.words(ret))
		e.deep++
		e.line("%s", why)
		e.deep--
		return
	}
	open, last, decided := e.decide(a, nr, args)
	if len(open) == 0 {
		e.line("%s: %s", head, e.words(decided))
		e.deep++
		e.line("%s", last)
		e.deep--
		return
	}
	e.line("%s: depends on the arguments; the first of these that matches decides", head)
	e.deep++
	for _, o := range open {
		e.line("%s", o)
	}
	e.line("otherwise: %s: %s", e.words(decided), last)
	e.deep--
}

// withoutRules says why no rule is looked at, "" if they are.
func (e *explainer) withoutRules(a *arch, nr uint32) string {
	native := findArch(e.f.machine.native)
	listed := slices.Contains(e.Spec.Architectures, a.name)
	switch {
	case a.column == colX32 && !listed:
		return "the profile does not list SCMP_ARCH_X32: as on a kernel without x32"
	case a != native && !listed:
		return fmt.Sprintf("the profile does not list %s: every call of it ends so", a.name)
	case a.column == colX8664 && nr >= x32Bit:
		return "the number has the bit of x32 calls: ask for the architecture x32"
	}
	_, newest, any := e.c.calls(a)
	if any && nr > newest && !permissive(e.c.def) && !a.isPrivate(nr) {
		names := namesOf(a, newest)
		return fmt.Sprintf("newer than every call that the profile names, of which %s (%d) is the newest: as on a kernel without it",
			strings.Join(names, ", "), newest)
	}
	return ""
}

// decide goes through the rules of a number in the order in which they decide: open are those that depend on arguments that are
// not known, ret is the answer if none of them matches, and last says where it comes from.
func (e *explainer) decide(a *arch, nr uint32, args []uint64) (open []string, last string, ret uint32) {
	list, _, _ := e.c.calls(a)
	var mine []int
	unconditional := false
	for _, l := range list {
		r := &e.c.rules[l.rule()]
		if l.nr() != nr || e.c.idle(r) || len(r.conds) == 0 && unconditional {
			continue
		}
		unconditional = unconditional || len(r.conds) == 0
		mine = append(mine, l.rule())
	}
	slices.SortStableFunc(mine, func(x, y int) int { return int(cmpStrictness(e.c.rules[x].ret, e.c.rules[y].ret)) })
	for _, i := range mine {
		r := &e.c.rules[i]
		switch matchKnown(r.conds, args, a.narrow) {
		case yes:
			return open, e.describe(i), r.ret
		case perhaps:
			open = append(open, fmt.Sprintf("%s: %s: %s", conditions(r.conds), e.words(r.ret), e.describe(i)))
		}
	}
	last = "the default action, " + string(e.Spec.DefaultAction)
	if len(mine) > 0 && len(open) == 0 {
		last = "no rule matches: " + last
	}
	return open, last, e.c.def
}

func cmpStrictness(x, y uint32) int {
	switch a, b := strictness(x), strictness(y); {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// What is known of a match.
const (
	no = iota
	perhaps
	yes
)

// matchKnown joins conditions by "and", some of whose arguments may not be known.
func matchKnown(conds []specs.LinuxSeccompArg, args []uint64, narrow bool) int {
	result := yes
	for _, c := range conds {
		if c.Index >= uint(len(args)) {
			result = perhaps
		} else if !holds(c, args[c.Index], narrow) {
			return no
		}
	}
	return result
}

// holds compares an argument.
func holds(c specs.LinuxSeccompArg, v uint64, narrow bool) bool {
	x, y := c.Value, c.ValueTwo
	if narrow {
		v, x, y = uint64(uint32(v)), uint64(uint32(x)), uint64(uint32(y))
	}
	switch c.Op {
	case specs.OpEqualTo:
		return v == x
	case specs.OpNotEqual:
		return v != x
	case specs.OpGreaterThan:
		return v > x
	case specs.OpGreaterEqual:
		return v >= x
	case specs.OpLessThan:
		return v < x
	case specs.OpLessEqual:
		return v <= x
	}
	return v&x == y&x
}

// describe names a rule by its number in the file.
func (e *explainer) describe(i int) string {
	if i >= e.c.named {
		r := &e.c.rules[i]
		by := ""
		for _, m := range multiplexed {
			if m.selector == r.conds[0].ValueTwo && lookup(m.by) == e.c.ids[i][0] {
				by = m.name
			}
		}
		return fmt.Sprintf("added because a rule refuses %s, which this call reaches", by)
	}
	r := &e.c.rules[i]
	at := r.index
	if at < len(e.index) {
		at = e.index[at]
	}
	names := strings.Join(r.names[:min(3, len(r.names))], ", ")
	if more := len(r.names) - 3; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("rule %d (%s)", at, names)
}

// conditions writes a rule's conditions.
func conditions(conds []specs.LinuxSeccompArg) string {
	signs := map[specs.LinuxSeccompOperator]string{specs.OpEqualTo: "==", specs.OpNotEqual: "!=", specs.OpGreaterThan: ">",
		specs.OpGreaterEqual: ">=", specs.OpLessThan: "<", specs.OpLessEqual: "<="}
	list := make([]string, len(conds))
	for i, c := range conds {
		if c.Op == specs.OpMaskedEqual {
			list[i] = fmt.Sprintf("argument %d & %#x == %#x", c.Index, c.Value, c.ValueTwo&c.Value)
		} else {
			list[i] = fmt.Sprintf("argument %d %s %#x", c.Index, signs[c.Op], c.Value)
		}
	}
	return strings.Join(list, " and ")
}

// words says what an answer of the filter does.
func (e *explainer) words(ret uint32) string {
	low := ret &^ retMask
	switch ret & retMask {
	case retKillProcess:
		return "kills the process by SIGSYS (KILL_PROCESS)"
	case retKillThread:
		return "kills the thread by SIGSYS (KILL_THREAD)"
	case retTrap:
		return "sends SIGSYS, which the process may handle (TRAP)"
	case retErrno:
		if low == 0 {
			return "returns 0 and does nothing (ERRNO 0)"
		}
		return "fails with " + errnoName(e.c.machine, low)
	case retNotify:
		return "asks the agent at " + e.Spec.ListenerPath + " (NOTIFY)"
	case retTrace:
		return fmt.Sprintf("asks the tracer with message %d, fails with %s without one (TRACE)", low, errnoName(e.c.machine, e.c.machine.enosys()))
	case retLog:
		return "allowed and logged (LOG)"
	}
	return "allowed"
}
