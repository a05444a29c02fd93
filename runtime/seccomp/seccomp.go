// Package seccomp compiles linux.seccomp of config.json into one classic BPF program for seccomp(2). It is pure: nothing is
// loaded here, and the program of every machine can be made on any.
//
// # What a profile means
//
// The answer to a call is found as follows; the tests hold the same words as a naive evaluator.
//
//   - The call's architecture (seccomp_data.arch) is neither the machine's own nor one of the profile's: the process is
//     killed. (libseccomp kills the thread.)
//   - An x32 call (bit 30 on x86-64) where the profile does not list SCMP_ARCH_X32: ENOSYS, as from a kernel without x32.
//   - The number is larger than that of every call that the profile names, on this architecture, and the default action
//     does not let calls happen (ALLOW, LOG, TRACE): ENOSYS. So a C library that tries a call newer than the profile falls
//     back to an older one. ARM's private calls do not count as newest, nor are they answered so.
//   - Otherwise the rules that name the call are looked at. A rule matches if all its conditions hold; a rule with two
//     conditions on one argument stands for one rule per condition (runc's reading). Of the rules without conditions only
//     the first in the profile counts (libseccomp's). Of those that match, the strictest decides, in the kernel's order:
//     KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, NOTIFY, TRACE, LOG, ALLOW; of equally strict ones the first in the profile.
//     Where none matches the default action decides.
//   - A rule that repeats a default of ALLOW, LOG or TRACE says nothing. One that repeats a refusing default does refuse:
//     libseccomp's users lose it, and with it the hole that they meant to close (moby#52494).
//   - On architectures with 32-bit pointers, x32 and MIPS N32 too, the low 32 bits are compared (libseccomp's).
//   - socketcall and ipc, which reach many calls by one number, are never allowed behind the profile's back: they need a
//     rule of their own. A refusing rule without conditions for a call that they reach (say, socket) refuses it there too.
//     Rules with conditions cannot: the arguments lie in memory that no filter sees. Who allows socketcall beside them
//     lets 32-bit programs past them.
//   - NOTIFY for write is refused, as by runc, and as a default. errnoRet with an action that has none is an error.
//   - Names that no architecture knows are ignored, with a warning.
//
// # The program
//
// One section per architecture, the machine's own first, each a binary search over runs of numbers with the same answer.
// Since 5.11 the kernel evaluates each number once and keeps a bitmap of those that are always allowed (8e01b51a31a1), so
// the way of such a call only loads the number and the architecture, and what counts for the others is the program's length:
// the kernel verifies and translates it at each start of a container.
package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// MaxInstructions is the kernel's limit for one program (BPF_MAXINSNS).
const MaxInstructions = 4096

// Instruction is struct sock_filter of linux/filter.h.
type Instruction struct {
	Code   uint16
	JT, JF uint8 // instructions to skip if the comparison holds and if not
	K      uint32
}

// Filter is a compiled profile. It is never changed after Compile and may be shared.
type Filter struct {
	// Program has at most MaxInstructions.
	Program []Instruction
	// Flags are the SECCOMP_FILTER_FLAG_* for seccomp(2). With NEW_LISTENER set the call returns a descriptor.
	Flags uint32
	// Notify says that some rule answers SCMP_ACT_NOTIFY; if not, ListenerPath and ListenerMetadata are empty.
	Notify bool
	// ListenerPath is the socket of the agent that gets the descriptor, ListenerMetadata what it is told.
	ListenerPath, ListenerMetadata string
	// Warnings are sentences about what has no effect or another than it seems: unknown system calls, a flag without use,
	// two conditions on one argument.
	Warnings []string

	machine machine
}

// Compile validates a profile and compiles it for a machine, named in Go's words (GOARCH). The error names the rule, by its
// index, and what is wrong with it; s is not changed and not kept.
//
// Source: config-linux.md "Seccomp" of the runtime specification 1.3; seccomp(2).
func Compile(s *specs.LinuxSeccomp, goarch string) (*Filter, error) {
	f, err := compile(s, goarch)
	if err != nil {
		return nil, fmt.Errorf("compile seccomp profile: %w", err)
	}
	return f, nil
}

func compile(s *specs.LinuxSeccomp, goarch string) (*Filter, error) {
	if s == nil {
		return nil, errors.New("no profile")
	}
	m, err := machineOf(goarch)
	if err != nil {
		return nil, err
	}
	def, err := answer(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("default action: %w", err)
	}
	if def == retNotify {
		return nil, errors.New("SCMP_ACT_NOTIFY cannot be used as default action")
	}
	for _, a := range s.Architectures {
		if findArch(a) == nil {
			return nil, fmt.Errorf("string %s is not a valid arch for seccomp", a)
		}
	}
	list, warnings, err := rules(s)
	if err != nil {
		return nil, err
	}
	f := &Filter{machine: m, Warnings: warnings}
	for i := range list {
		f.Notify = f.Notify || list[i].ret == retNotify
	}
	if err := checkListener(s, f.Notify); err != nil {
		return nil, err
	}
	if f.Notify {
		f.ListenerPath, f.ListenerMetadata = s.ListenerPath, s.ListenerMetadata
	}
	if f.Flags, err = flagBits(s.Flags, f.Notify); err != nil {
		return nil, err
	}
	if f.Flags&flagWaitKillable != 0 && !f.Notify { // EINVAL from the kernel; libseccomp leaves it out too
		f.Flags &^= flagWaitKillable
		f.Warnings = append(f.Warnings, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV has no effect without a rule with SCMP_ACT_NOTIFY")
	}
	c := newCompiler(m, list, def)
	f.Warnings = append(f.Warnings, c.warnings...)
	f.Program, err = c.program(selectArchs(m, s.Architectures))
	return f, err
}

// AppendBytes appends the program as an array of struct sock_filter in the machine's byte order.
func (f *Filter) AppendBytes(b []byte) []byte {
	var order binary.AppendByteOrder = binary.LittleEndian
	if f.machine.bigEndian {
		order = binary.BigEndian
	}
	for _, i := range f.Program {
		b = order.AppendUint16(b, i.Code)
		b = append(b, i.JT, i.JF)
		b = order.AppendUint32(b, i.K)
	}
	return b
}
