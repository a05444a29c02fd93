//go:build linux && amd64

package seccomp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const childVar = "TARE_SECCOMP_CHILD"

// TestMain turns the test's program into the child: it puts the profile in its environment on itself and becomes the
// program in its argument.
func TestMain(m *testing.M) {
	profile := os.Getenv(childVar)
	if profile == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	fmt.Fprintln(os.Stderr, become(profile, os.Args[1]))
	os.Exit(255)
}

func become(profile, path string) error {
	var s specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(profile), &s); err != nil {
		return err
	}
	f, err := Compile(&s, runtime.GOARCH)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := load(f); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	return unix.Exec(path, []string{path}, nil)
}

// program returns a static executable that makes one system call and exits with its errno, 0 if it succeeded.
func program(code []byte) []byte {
	code = append(code, 0xf7, 0xd8, 0x89, 0xc7)            // neg eax; mov edi, eax
	code = append(code, 0xb8, 231, 0, 0, 0, 0x0f, 0x05)    // mov eax, exit_group; syscall
	const base, header = uint64(0x400000), uint64(64 + 56) // ELF header, one program header
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 15: 0}       // 64 bits, little endian
	put := func(vs ...any) {
		for _, v := range vs {
			b = must(binary.Append(b, binary.LittleEndian, v))
		}
	}
	put(uint16(2), uint16(62), uint32(1), base+header, uint64(64), uint64(0), uint32(0)) // executable, x86-64
	put(uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0))
	size := header + uint64(len(code))
	put(uint32(1), uint32(5), uint64(0), base, base, size, size, uint64(0x1000)) // PT_LOAD, readable and executable
	return append(b, code...)
}

// call64 makes a call by the syscall instruction, call32 one of i386's by int 0x80.
func call64(nr uint32, args ...uint64) []byte {
	code := binary.LittleEndian.AppendUint32([]byte{0xb8}, nr)
	for i, a := range args {
		code = append(code, [][]byte{{0x48, 0xbf}, {0x48, 0xbe}, {0x48, 0xba}, {0x49, 0xba}, {0x49, 0xb8}, {0x49, 0xb9}}[i]...)
		code = binary.LittleEndian.AppendUint64(code, a)
	}
	return append(code, 0x0f, 0x05)
}

func call32(nr uint32, args ...uint32) []byte {
	code := binary.LittleEndian.AppendUint32([]byte{0xb8}, nr)
	for i, a := range args {
		code = binary.LittleEndian.AppendUint32(append(code, []byte{0xbb, 0xb9, 0xba}[i]), a)
	}
	return append(code, 0xcd, 0x80)
}

// probe makes one system call under a profile and says how the process ended: its errno or the signal.
func probe(t *testing.T, s *specs.LinuxSeccomp, code []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "probe")
	if err := os.WriteFile(path, program(code), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(must(os.Executable()), path)
	cmd.Env = append(os.Environ(), childVar+"="+string(must(json.Marshal(s))))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if stderr.Len() > 0 {
		t.Fatalf("%v: %s", err, &stderr)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return status.Signal().String()
	}
	if status.ExitStatus() == 0 {
		return "ok"
	}
	return unix.ErrnoName(syscall.Errno(status.ExitStatus()))
}

type kernelCase struct {
	name string
	s    *specs.LinuxSeccomp
	code []byte
	want string
}

func TestKernel(t *testing.T) {
	const getuid, getuid386, socket = 102, 199, 41 // getuid succeeds with 0 for root: "ok"
	needed := []string{"execve", "exit_group", "exit"}
	profile := func(def specs.LinuxSeccompAction, rules ...specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: def, Architectures: []specs.Arch{specs.ArchX86},
			Syscalls: append([]specs.LinuxSyscall{{Names: needed, Action: specs.ActAllow}}, rules...)}
	}
	rule := func(name string, act specs.LinuxSeccompAction, data *uint, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: act, ErrnoRet: data, Args: args}
	}
	masked := rule("socket", specs.ActErrno, ptr(77), specs.LinuxSeccompArg{Index: 2, Op: specs.OpMaskedEqual, Value: 0xf0000000f0, ValueTwo: 0x1000000010})
	newest := rule("listns", specs.ActAllow, nil)
	x32 := profile("SCMP_ACT_ALLOW", rule("getuid", specs.ActErrno, ptr(77)))
	x32.Architectures = []specs.Arch{specs.ArchX32}
	cases := []kernelCase{
		{"allowed", profile("SCMP_ACT_ERRNO", rule("getuid", specs.ActAllow, nil)), call64(getuid), "ok"},
		{"ERRNO by default", profile("SCMP_ACT_ERRNO", newest), call64(getuid), "EPERM"},
		{"ERRNO with errnoRet", profile("SCMP_ACT_ALLOW", rule("getuid", specs.ActErrno, ptr(38))), call64(getuid), "ENOSYS"},
		{"KILL", profile("SCMP_ACT_ALLOW", rule("getuid", specs.ActKill, nil)), call64(getuid), "bad system call"},
		{"KILL_THREAD", profile("SCMP_ACT_ALLOW", rule("getuid", specs.ActKillThread, nil)), call64(getuid), "bad system call"},
		{"KILL_PROCESS", profile("SCMP_ACT_ALLOW", rule("getuid", specs.ActKillProcess, nil)), call64(getuid), "bad system call"},
		{"TRAP", profile("SCMP_ACT_ALLOW", rule("getuid", specs.ActTrap, nil)), call64(getuid), "bad system call"},
		{"LOG", profile("SCMP_ACT_ALLOW", rule("getuid", specs.ActLog, nil)), call64(getuid), "ok"},
		{"TRACE without tracer", profile("SCMP_ACT_ALLOW", rule("getuid", specs.ActTrace, nil)), call64(getuid), "ENOSYS"},
		{"newer than the profile", profile("SCMP_ACT_ERRNO"), call64(9999), "ENOSYS"},
		{"killed by default, newer", profile("SCMP_ACT_KILL_PROCESS"), call64(9999), "ENOSYS"},
		{"killed by default, older", profile("SCMP_ACT_KILL_PROCESS"), call64(getuid), "bad system call"},
		{"masked, equal", profile("SCMP_ACT_ALLOW", masked), call64(socket, 1000, 0, 0x1f1000001f), "EBADFD"},
		{"masked, upper half differs", profile("SCMP_ACT_ALLOW", masked), call64(socket, 1000, 0, 0x2f1000001f), "EAFNOSUPPORT"},
		{"masked, lower half differs", profile("SCMP_ACT_ALLOW", masked), call64(socket, 1000, 0, 0x1000000020), "EAFNOSUPPORT"},
		{"docker's socket", dockerLike(), call64(socket, 40, 1, 0), "EPERM"},
		{"docker's clone3", dockerLike(), call64(435, 0, 0), "ENOSYS"},
		{"docker's mount", dockerLike(), call64(165, 0, 0, 0, 0, 0), "EPERM"},
		{"docker's close", dockerLike(), call64(3, 1000), "EBADF"},
		{"x32, not listed", profile("SCMP_ACT_ALLOW"), call64(x32Bit | 102), "ENOSYS"},
		{"x32", x32, call64(x32Bit | getuid), "EBADFD"},
		{"x86-64 beside x32", x32, call64(socket, 1000, 0, 0), "EAFNOSUPPORT"},
	}
	only64 := profile("SCMP_ACT_ALLOW")
	only64.Architectures = nil
	if probe(t, profile("SCMP_ACT_ALLOW"), call32(getuid386)) == "ok" { // a kernel with IA32_EMULATION
		cases = append(cases, []kernelCase{
			{"i386", profile("SCMP_ACT_ALLOW", rule("getuid32", specs.ActErrno, ptr(77))), call32(getuid386), "EBADFD"},
			{"i386, not listed", only64, call32(getuid386), "bad system call"},
			{"i386, newer", profile("SCMP_ACT_ERRNO"), call32(9999), "ENOSYS"},
			{"i386, socketcall", profile("SCMP_ACT_ALLOW", rule("socket", specs.ActErrno, ptr(77))), call32(102, 1, 0), "EBADFD"},
			{"i386, socketcall of another", profile("SCMP_ACT_ALLOW", rule("socket", specs.ActErrno, ptr(77))), call32(102, 2, 0), "EFAULT"},
		}...)
	} else {
		t.Log("kernel without IA32_EMULATION: i386 is left out")
	}
	for _, c := range cases {
		if got := probe(t, c.s, c.code); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
