package seccomp

import "github.com/opencontainers/runtime-spec/specs-go"

// Call is a system call of the machine's own architecture with the arguments that it is made with.
type Call struct {
	Name string
	Args [6]uint64
}

// Action returns what the filter answers to a call: SECCOMP_RET_* of linux/seccomp.h, with the errno or the tracer's message in
// the low 16 bits. An architecture that the specification does not have is one that the filter does not know either.
func (f *Filter) Action(name specs.Arch, nr uint32, args [6]uint64) uint32 {
	d := data{nr: nr, args: args}
	if a := findArch(name); a != nil {
		d.arch = a.token
	}
	ret, _ := run(f.Program, &d, f.machine.bigEndian)
	return ret
}

// Refused returns the name of the first of the calls that does not simply happen once the filter is loaded, "" when all happen.
// NOTIFY and TRACE count as refused, because they wait for another process or answer ENOSYS without one; so does a name that the
// machine has no number for.
func (f *Filter) Refused(calls ...Call) string {
	native := findArch(f.machine.native)
	for i := range calls {
		c := &calls[i]
		id := lookup(c.Name)
		if id < 0 {
			return c.Name
		}
		nr, ok := native.number(id)
		if !ok {
			return c.Name
		}
		switch f.Action(native.name, nr, c.Args) & retMask {
		case retAllow, retLog:
		default:
			return c.Name
		}
	}
	return ""
}

// data is struct seccomp_data without the instruction pointer.
type data struct {
	nr, arch uint32
	args     [6]uint64
}

// word is the 32-bit word at an offset of struct seccomp_data.
func (d *data) word(offset uint32, bigEndian bool) uint32 {
	switch {
	case offset == offNumber:
		return d.nr
	case offset == offArch:
		return d.arch
	case offset < offArgs || offset >= offArgs+8*uint32(len(d.args)):
		return 0
	}
	v, upper := d.args[(offset-offArgs)/8], offset%8 == 4
	if upper != bigEndian {
		return uint32(v >> 32)
	}
	return uint32(v)
}

// run interprets a program and returns its answer and the number of instructions that it took. What the compiler does not
// write, an unknown instruction or a jump over the end, kills; the kernel would not load it.
func run(p []Instruction, d *data, bigEndian bool) (ret uint32, steps int) {
	var acc uint32
	for pc := 0; pc < len(p); pc++ {
		i := p[pc]
		steps++
		var yes bool
		switch i.Code {
		case opLoad:
			acc = d.word(i.K, bigEndian)
			continue
		case opAnd:
			acc &= i.K
			continue
		case opReturn:
			return i.K, steps
		case opJump:
			if i.K >= uint32(len(p)) {
				return retKillProcess, steps
			}
			pc += int(i.K)
			continue
		case opEqual:
			yes = acc == i.K
		case opAbove:
			yes = acc > i.K
		case opAtMin:
			yes = acc >= i.K
		default:
			return retKillProcess, steps
		}
		if yes {
			pc += int(i.JT)
		} else {
			pc += int(i.JF)
		}
	}
	return retKillProcess, steps
}
