// Package bpf loads and attaches BPF programs with bpf(2), as far as a container runtime needs it: programs of type
// BPF_PROG_TYPE_CGROUP_DEVICE, attached to a cgroup v2 directory.
//
// There is no assembler and no loader of object files: programs are slices of Instruction, built by their owner.
package bpf

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Instruction is one eBPF instruction (linux/bpf.h, struct bpf_insn).
type Instruction struct {
	Op       uint8 // class, size or operation, source
	Dst, Src uint8 // registers 0 to 10
	Off      int16 // jump distance in instructions, or memory offset
	Imm      int32
}

// The opcodes that programs of this project use.
const (
	OpLoad32   = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W    // dst = *(u32 *)(src + off)
	OpMovReg   = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X    // dst = src, upper half zero
	OpMovImm64 = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K  // dst = imm
	OpAndImm   = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K    // dst &= imm, upper half zero
	OpRshImm   = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K    // dst >>= imm, upper half zero
	OpJneImm   = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K  // if (u32)dst != imm, skip off instructions
	OpJsetImm  = unix.BPF_JMP32 | unix.BPF_JSET | unix.BPF_K // if (u32)dst & imm, skip off instructions
	OpJa       = unix.BPF_JMP | unix.BPF_JA                  // skip off instructions
	OpExit     = unix.BPF_JMP | unix.BPF_EXIT                // return r0
)

// Encode gives the kernel's form of a program, in this machine's byte order.
func Encode(prog []Instruction) []byte {
	out := make([]byte, 0, 8*len(prog))
	for _, i := range prog {
		regs := i.Src<<4 | i.Dst
		if bigEndian() { // the bit fields of struct bpf_insn swap places
			regs = i.Dst<<4 | i.Src
		}
		out = append(out, i.Op, regs)
		out = binary.NativeEndian.AppendUint16(out, uint16(i.Off))
		out = binary.NativeEndian.AppendUint32(out, uint32(i.Imm))
	}
	return out
}

func bigEndian() bool { return binary.NativeEndian.Uint16([]byte{0, 1}) == 1 }

// LoadDevice loads a device-control program (BPF_PROG_LOAD). The caller closes the returned descriptor; an attached
// program lives on without it. EPERM: CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, are missing in the first user
// namespace. When the verifier refuses the program, the error carries the end of its log.
func LoadDevice(name string, prog []Instruction) (*os.File, error) {
	code := Encode(prog)
	fd, err := progLoad(unix.BPF_PROG_TYPE_CGROUP_DEVICE, name, code, nil)
	if err == nil {
		return os.NewFile(uintptr(fd), "bpf:"+name), nil
	}
	if err != syscall.EINVAL && err != syscall.EACCES {
		return nil, err
	}
	log := make([]byte, 64<<10)
	fd, err2 := progLoad(unix.BPF_PROG_TYPE_CGROUP_DEVICE, name, code, log)
	if err2 == nil {
		return os.NewFile(uintptr(fd), "bpf:"+name), nil
	}
	return nil, fmt.Errorf("verifier: %s: %w", lastLine(log), err)
}

func lastLine(log []byte) string {
	end := 0
	for end < len(log) && log[end] != 0 {
		end++
	}
	log = log[:end]
	for len(log) > 0 && log[len(log)-1] == '\n' {
		log = log[:len(log)-1]
	}
	start := len(log)
	for start > 0 && log[start-1] != '\n' && len(log)-start < 200 {
		start--
	}
	return string(log[start:])
}

// AttachDevice attaches a program to a cgroup v2 directory beside those that are there (BPF_F_ALLOW_MULTI): all of them
// must allow an access.
func AttachDevice(cgroup, prog *os.File) error {
	return progAttach(unix.BPF_PROG_ATTACH, int(cgroup.Fd()), int(prog.Fd()), unix.BPF_F_ALLOW_MULTI)
}

// DetachDevice takes a program off a cgroup v2 directory.
func DetachDevice(cgroup, prog *os.File) error {
	return progAttach(unix.BPF_PROG_DETACH, int(cgroup.Fd()), int(prog.Fd()), 0)
}

// QueryDevice returns the ids of the device programs that are attached to a cgroup v2 directory itself (not those
// that it inherits).
func QueryDevice(cgroup *os.File) ([]uint32, error) {
	ids := make([]uint32, 64)
	for {
		n, err := progQuery(int(cgroup.Fd()), ids)
		if err == syscall.ENOSPC && len(ids) < 1<<16 {
			ids = make([]uint32, max(2*len(ids), n))
			continue
		}
		if err != nil {
			return nil, err
		}
		return ids[:n], nil
	}
}

// OpenID opens a loaded program by its id (BPF_PROG_GET_FD_BY_ID). The caller closes it.
func OpenID(id uint32) (*os.File, error) {
	fd, err := progByID(id)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "bpf"), nil
}
