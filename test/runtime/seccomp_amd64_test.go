package runtime

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/tare-oci/tare/image/bundle"
)

// machineCode is a static program that makes system calls in all ways that an x86-64 kernel has, and writes their results.
type machineCode struct {
	code  []byte
	calls []string
}

const (
	codeBase   = 0x400000
	codeHeader = 64 + 56 // ELF header, one program header
)

// call64 makes a 64-bit call; with x32Bit in the number it is one of x32's.
func (m *machineCode) call64(what string, nr uint32, args ...uint64) {
	m.code = binary.LittleEndian.AppendUint32(append(m.code, 0xb8), nr) // mov eax
	for i, a := range args {
		m.code = append(m.code, [][]byte{{0x48, 0xbf}, {0x48, 0xbe}, {0x48, 0xba}}[i]...) // mov rdi, rsi, rdx
		m.code = binary.LittleEndian.AppendUint64(m.code, a)
	}
	m.code = append(m.code, 0x0f, 0x05, 0x50) // syscall; push rax
	m.calls = append(m.calls, what)
}

// call32 makes a call of i386. A pointer is given as a slice of what it points to.
func (m *machineCode) call32(what string, nr uint32, args ...any) {
	for i, a := range args {
		v, ok := a.(uint32)
		if list, isList := a.([]uint32); isList {
			m.code = append(m.code, 0xeb, byte(4*len(list))) // jmp over the words
			v, ok = uint32(codeBase+codeHeader+len(m.code)), true
			for _, w := range list {
				m.code = binary.LittleEndian.AppendUint32(m.code, w)
			}
		}
		if !ok {
			panic(fmt.Sprintf("argument %v", a))
		}
		m.code = binary.LittleEndian.AppendUint32(append(m.code, []byte{0xbb, 0xb9, 0xba}[i]), v) // mov ebx, ecx, edx
	}
	m.code = binary.LittleEndian.AppendUint32(append(m.code, 0xb8), nr)
	m.code = append(m.code, 0xcd, 0x80, 0x48, 0x98, 0x50) // int 0x80; cdqe; push rax
	m.calls = append(m.calls, what)
}

// file is the executable: after the calls it writes their results, the last one's first, and exits.
func (m *machineCode) file() []byte {
	code := append(bytes.Clone(m.code), 0x48, 0x89, 0xe6, 0xba) // mov rsi, rsp; mov edx, …
	code = binary.LittleEndian.AppendUint32(code, uint32(8*len(m.calls)))
	code = append(code, 0xbf, 1, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0x0f, 0x05)   // write(1, …)
	code = append(code, 0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05)       // exit_group(0)
	b := append([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, make([]byte, 9)...) // 64 bits, little endian
	size := uint64(codeHeader + len(code))
	for _, v := range []any{uint16(2), uint16(62), uint32(1), uint64(codeBase + codeHeader), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(1),
		uint16(0), uint16(0), uint16(0), uint32(1), uint32(5), uint64(0), uint64(codeBase), uint64(codeBase), size, size, uint64(0x1000)} {
		b, _ = binary.Append(b, binary.LittleEndian, v)
	}
	return append(b, code...)
}

// results reads what the program wrote.
func (m *machineCode) results(h *H, out string) map[string]int64 {
	if len(out) != 8*len(m.calls) {
		h.Fatalf("%d bytes of results for %d calls: %q", len(out), len(m.calls), out)
	}
	list := map[string]int64{}
	for i, what := range m.calls {
		list[what] = int64(binary.LittleEndian.Uint64([]byte(out[8*(len(m.calls)-1-i):])))
	}
	return list
}

const x32Bit = 0x40000000

// hostileSockets asks for the families that have had holes, in every way.
func hostileSockets() *machineCode {
	m := &machineCode{}
	m.call64("allowed family", 41, 2, 1, 0)
	for name, family := range map[string]uint64{"AF_ALG": 38, "AF_VSOCK": 40} {
		m.call64(name, 41, family, 5, 0)
		m.call64(name+" with garbage", 41, 0xdead<<32|family, 5, 0)
		m.call64(name+" with a sign", 41, 0xffffffff<<32|family, 5, 0)
		m.call64(name+" of x32", x32Bit|41, family, 5, 0)
		m.call32(name+" of i386", 359, uint32(family), uint32(5), uint32(0))
		m.call32(name+" by socketcall", 102, uint32(1), []uint32{uint32(family), 5, 0})
	}
	return m
}

// wholeRefusal is a profile that refuses all sockets and lets everything else happen.
const wholeRefusal = "refused whole (CVE-2026-123876)"

// socketProfiles deny two address families, each in a way in which a peer's compiler has left a hole.
func socketProfiles() map[string]string {
	const base = `{"names":["execve","exit_group","write","read","close","brk","mmap","openat","openat2","fchdir","capset","dup3","close_range","accept4","sendto","recvmsg",
		"setresuid","setresgid","setgroups","umask","prctl","faccessat2","statx","madvise","fcntl","futex","getpid","getppid","rt_sigaction","rt_sigprocmask","nanosleep","getdents64","newfstatat",
		"fstat","epoll_pwait","epoll_ctl","sigaltstack","tgkill","exit","clone","mprotect","munmap","getuid","getgid","setuid","setgid","chdir","fstatfs","lstat","readlinkat","capget","rt_sigreturn","gettid","sched_yield","listns"],
		"action":"SCMP_ACT_ALLOW"}`
	rule := func(action string, mask, family uint64) string {
		return fmt.Sprintf(`{"names":["socket"],"action":%q,"args":[{"index":0,"value":%d,"valueTwo":%d,"op":"SCMP_CMP_MASKED_EQ"}]}`, action, mask, family)
	}
	profile := func(rules ...string) string {
		text := `linux.seccomp={"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[` + base
		for _, r := range rules {
			text += "," + r
		}
		return text + "]}"
	}
	own, _ := json.Marshal(bundle.Seccomp(nil))
	return map[string]string{
		"rules like the default (moby#52494)":         profile(rule(errno, 0xffffffff, 38), rule(errno, 0xffffffff, 40), `{"names":["socket"],"action":"SCMP_ACT_ALLOW"}`),
		"socketcall beside socket (containerd#13330)": profile(rule(allow, ^uint64(0), 2)),
		"tare's default profile (CVE-2026-123876)":    "linux.seccomp=" + string(own),
		wholeRefusal: `linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO"}]}`,
	}
}

func TestSeccompSockets(t *testing.T) {
	for name, profile := range socketProfiles() {
		row(t, "B2 "+name, func(h *H) {
			m := hostileSockets()
			b := h.Bundle().Edit(profile).Args("/attack")
			if err := os.WriteFile(b.Rootfs+"/attack", m.file(), 0o755); err != nil {
				h.Fatalf("%v", err)
			}
			r := h.Run(b)
			h.Want(r, "", 0)
			for what, got := range m.results(h, r.Stdout) {
				switch {
				case what == "allowed family":
					if (got < 0) != (name == wholeRefusal) {
						h.Errorf("%s: %d", what, got)
					}
				case got != -1 && got != -38:
					h.Errorf("%s: %d, want EPERM or ENOSYS", what, got)
				}
			}
		})
	}
}
