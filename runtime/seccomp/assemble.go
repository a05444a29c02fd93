package seccomp

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The instructions of classic BPF that are used (linux/bpf_common.h).
const (
	opLoad   = 0x20 // BPF_LD|BPF_W|BPF_ABS
	opAnd    = 0x54 // BPF_ALU|BPF_AND|BPF_K
	opJump   = 0x05 // BPF_JMP|BPF_JA
	opEqual  = 0x15 // BPF_JMP|BPF_JEQ|BPF_K
	opAbove  = 0x25 // BPF_JMP|BPF_JGT|BPF_K
	opAtMin  = 0x35 // BPF_JMP|BPF_JGE|BPF_K
	opReturn = 0x06 // BPF_RET|BPF_K
)

// The layout of struct seccomp_data (linux/seccomp.h).
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

const maxSkip = 255 // a conditional jump's distance has eight bits

// label is an instruction's index counted from the program's end.
type label int

// assembler writes a program from its last instruction to its first. BPF only jumps forward, so the target of a jump is
// always there already, and a target that is too far gets a stepping stone right behind the jump.
type assembler struct {
	rev     []Instruction // last first
	returns []label       // the latest instruction for each answer
	chains  []label       // in the section being written, by index, wide and narrow; -1 where not yet needed
	full    bool          // more than MaxInstructions: the result is of no use
	big     bool
}

func (a *assembler) emit(i Instruction) label {
	if len(a.rev) == MaxInstructions {
		a.full = true
		return label(len(a.rev) - 1)
	}
	a.rev = append(a.rev, i)
	return label(len(a.rev) - 1)
}

// skip is the distance to l of the instruction that is emitted next.
func (a *assembler) skip(l label) int { return len(a.rev) - 1 - int(l) }

// reach returns a label for l that the jump can take that is emitted next, or after room more instructions.
func (a *assembler) reach(l label, room int) label {
	if a.skip(l)+room <= maxSkip || a.full {
		return l
	}
	if i := a.rev[l]; i.Code == opReturn {
		return a.ret(i.K)
	}
	return a.emit(Instruction{Code: opJump, K: uint32(a.skip(l))})
}

// ret returns a near instruction that ends the program with an answer.
func (a *assembler) ret(k uint32) label {
	for i, l := range a.returns {
		if a.rev[l].K != k {
			continue
		}
		if a.skip(l) > maxSkip-8 {
			a.returns[i] = a.emit(Instruction{Code: opReturn, K: k})
		}
		return a.returns[i]
	}
	l := a.emit(Instruction{Code: opReturn, K: k})
	if !a.full {
		a.returns = append(a.returns, l)
	}
	return l
}

// jump compares the accumulator with k.
func (a *assembler) jump(code uint16, k uint32, yes, no label) label {
	yes = a.reach(yes, 1) // reach(no) may add one
	no = a.reach(no, 0)
	return a.emit(Instruction{Code: code, JT: uint8(a.skip(yes)), JF: uint8(a.skip(no)), K: k})
}

func (a *assembler) load(offset uint32) label { return a.emit(Instruction{Code: opLoad, K: offset}) }

// test loads a word, cuts it down by mask and compares it.
func (a *assembler) test(offset, mask uint32, code uint16, k uint32, yes, no label) label {
	if mask == 0 && code == opEqual && k == 0 || yes == no {
		return yes
	}
	a.jump(code, k, yes, no)
	if mask != 0xffffffff {
		a.emit(Instruction{Code: opAnd, K: mask})
	}
	return a.load(offset)
}

// condition goes to yes if an argument satisfies it, else to no. Arguments are 64 bits, BPF's words 32.
func (a *assembler) condition(c *specs.LinuxSeccompArg, narrow bool, yes, no label) label {
	mask, value := ^uint64(0), c.Value
	if c.Op == specs.OpMaskedEqual {
		mask, value = c.Value, c.Value&c.ValueTwo
	}
	low := uint32(offArgs + 8*c.Index)
	high := low + 4
	if a.big {
		low, high = high, low
	}
	code := uint16(opEqual)
	switch c.Op {
	case specs.OpNotEqual:
		yes, no = no, yes
	case specs.OpGreaterThan:
		code = opAbove
	case specs.OpGreaterEqual:
		code = opAtMin
	case specs.OpLessThan: // not >=
		code, yes, no = opAtMin, no, yes
	case specs.OpLessEqual: // not >
		code, yes, no = opAbove, no, yes
	}
	lower := a.test(low, uint32(mask), code, uint32(value), yes, no)
	if narrow {
		return lower
	}
	if code == opEqual {
		return a.test(high, uint32(mask>>32), opEqual, uint32(value>>32), lower, no)
	}
	if h := uint32(value >> 32); h != 0 {
		no = a.jump(opEqual, h, lower, no)
		a.jump(opAbove, h, yes, no)
	} else {
		a.jump(opAbove, 0, yes, lower)
	}
	return a.load(high)
}

// leaf returns the code of an outcome.
func (a *assembler) leaf(c *compiler, o outcome) label {
	if o.chain == noChain {
		return a.ret(o.ret)
	}
	written := &a.chains[2*o.chain]
	if o.narrow {
		written = &a.chains[2*o.chain+1]
	}
	if *written >= 0 {
		return *written
	}
	ch := &c.chains[o.chain]
	next := a.ret(ch.final)
	for i := len(ch.rules) - 1; i >= 0 && !a.full; i-- {
		r := &c.rules[ch.rules[i]]
		l := a.ret(r.ret)
		for j := len(r.conds) - 1; j >= 0; j-- {
			l = a.condition(&r.conds[j], o.narrow, l, next)
		}
		next = l
	}
	*written = next
	return next
}

// tree is a binary search for the number in the accumulator.
func (a *assembler) tree(c *compiler, spans []span) label {
	if len(spans) == 1 {
		return a.leaf(c, spans[0].out)
	}
	if len(spans) == 3 && spans[0].out == spans[2].out && spans[1].start+1 == spans[2].start { // one number among others
		no := a.leaf(c, spans[0].out)
		return a.jump(opEqual, spans[1].start, a.leaf(c, spans[1].out), no)
	}
	mid := len(spans) / 2
	above := a.tree(c, spans[mid:])
	below := a.tree(c, spans[:mid])
	return a.jump(opAtMin, spans[mid].start, above, below)
}

// section is the code for one audit token.
type section struct {
	token uint32
	spans []span
}

// sections puts x32, which has x86-64's token, behind x86-64.
func (c *compiler) sections(list []*arch) []section {
	var secs []section
	var x32, x8664 bool
	for _, a := range list {
		x32 = x32 || a.column == colX32
		x8664 = x8664 || a.column == colX8664
	}
	for _, a := range list {
		switch {
		case a.column == colX32 && x8664:
			// With x86-64's.
		case a.column == colX32:
			s := appendSpan(nil, 0, always(retKillProcess))
			secs = append(secs, section{a.token, c.appendSpans(s, a, x32Bit)})
		default:
			s := c.appendSpans(nil, a, 0)
			if a.column == colX8664 && x32 {
				s = c.appendSpans(s, findArch("SCMP_ARCH_X32"), x32Bit)
			} else if a.column == colX8664 {
				s = appendSpan(s, x32Bit, always(c.enosys))
			}
			secs = append(secs, section{a.token, s})
		}
	}
	return secs
}

// program writes: load the architecture; for each, compare, load the number, search. The machine's own comes first.
func (c *compiler) program(list []*arch) ([]Instruction, error) {
	a := &assembler{big: c.machine.bigEndian, rev: make([]Instruction, 0, 512)}
	secs := c.sections(list)
	a.chains = make([]label, 2*len(c.chains))
	next := a.ret(retKillProcess)
	for i := len(secs) - 1; i >= 0; i-- {
		for j := range a.chains {
			a.chains[j] = -1
		}
		entry := a.tree(c, secs[i].spans)
		if len(secs[i].spans) > 1 {
			entry = a.load(offNumber)
		}
		next = a.jump(opEqual, secs[i].token, entry, next)
	}
	a.load(offArch)
	if a.full {
		return nil, fmt.Errorf("the program has more than %d instructions, the kernel's limit", MaxInstructions)
	}
	for i, j := 0, len(a.rev)-1; i < j; i, j = i+1, j-1 {
		a.rev[i], a.rev[j] = a.rev[j], a.rev[i]
	}
	return a.rev, nil
}
