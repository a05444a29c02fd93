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
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// notProbed are calls that, if a filter let them through, would not return, or would do something, without arguments:
// rt_sigreturn, pause, fork, vfork, exit, msgget, vhangup, sync, exit_group, and uretprobe and uprobe, which kill.
var notProbed = []uint32{15, 34, 57, 58, 60, 68, 153, 162, 231, 335, 336}

const lastProbed = 600

// manyCalls makes every call up to lastProbed with arguments that are never valid, and writes the results, as 64-bit words,
// to standard output, the last call's first.
func manyCalls() (code []byte, probed []uint32) {
	for nr := range uint32(lastProbed) {
		if slices.Contains(notProbed, nr) {
			continue
		}
		const bad = ^uint64(0)
		code = append(append(code, call64(nr, bad, bad, bad, bad, bad, bad)...), 0x50) // push rax
		probed = append(probed, nr)
	}
	code = append(code, 0x48, 0x89, 0xe6)                                                   // mov rsi, rsp
	code = binary.LittleEndian.AppendUint32(append(code, 0xba), uint32(8*len(probed)))      // mov edx, size
	return append(code, 0xbf, 1, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0x0f, 0x05, 0x31, 0xc0), probed // write(1, …); xor eax, eax
}

// verdicts tells from the results what the filter did: the errnos that only the profile uses, and ENOSYS.
func verdicts(t *testing.T, out []byte, probed []uint32) map[uint32]string {
	t.Helper()
	if len(out) != 8*len(probed) {
		t.Fatalf("%d bytes of results for %d calls: %q", len(out), len(probed), out)
	}
	m := map[uint32]string{}
	for i, nr := range probed {
		result := int64(binary.LittleEndian.Uint64(out[8*(len(probed)-1-i):]))
		switch result {
		case -77, -78, -38:
			m[nr] = fmt.Sprint("errno ", -result)
		default:
			m[nr] = "let through"
		}
	}
	return m
}

// TestAgainstRunc runs the same program under the same default profiles of engines with runc and libseccomp, and with our filter.
func TestAgainstRunc(t *testing.T) {
	if _, err := exec.LookPath("runc"); err != nil || os.Getuid() != 0 {
		t.Skip("needs runc and root")
	}
	for name, s := range defaultProfiles(t, "amd64") {
		t.Run(name, func(t *testing.T) { againstRunc(t, distinct(s)) })
	}
}

// distinct gives the default and the refusing rules errnos of their own, and leaves out calls that an older libseccomp does not know.
func distinct(s *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	s.DefaultErrnoRet = ptr(77)
	list := s.Syscalls
	s.Syscalls = nil
	for _, r := range list {
		if r.Action == specs.ActErrno {
			r.ErrnoRet = ptr(78)
		}
		r.Names = slices.DeleteFunc(slices.Clone(r.Names), func(n string) bool {
			id := lookup(n)
			if id < 0 {
				return true
			}
			nr, ok := findArch("SCMP_ARCH_X86_64").number(id)
			return ok && nr > 440
		})
		if len(r.Names) > 0 {
			s.Syscalls = append(s.Syscalls, r)
		}
	}
	return s
}

func againstRunc(t *testing.T, s *specs.LinuxSeccomp) {
	t.Helper()
	code, probed := manyCalls()
	bundle := t.TempDir()
	path := filepath.Join(bundle, "rootfs", "probe")
	if err := os.MkdirAll(filepath.Join(bundle, "rootfs", "proc"), 0o755); err != nil { // runc wants a /proc
		t.Fatal(err)
	}
	if err := os.WriteFile(path, program(code), 0o755); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("tare-seccomp-%d", os.Getpid())
	config := must(json.Marshal(&specs.Spec{Version: "1.0.2", Root: &specs.Root{Path: "rootfs"},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Process: &specs.Process{Cwd: "/", Args: []string{"/probe"}, NoNewPrivileges: true},
		Linux: &specs.Linux{Seccomp: s, CgroupsPath: "/" + id, Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace}}}}))
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = exec.Command("runc", "--root", bundle, "delete", "-f", id).Run() })
	var stderr bytes.Buffer
	cmd := exec.Command("runc", "--root", bundle, "run", "-b", bundle, id)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("runc: %v: %s", err, &stderr)
	}
	theirs := verdicts(t, out, probed)

	cmd = exec.Command(must(os.Executable()), path)
	cmd.Env = append(os.Environ(), childVar+"="+string(must(json.Marshal(s))))
	if out, err = cmd.Output(); err != nil {
		t.Fatal(err)
	}
	for nr, ours := range verdicts(t, out, probed) {
		if ours != theirs[nr] {
			t.Errorf("call %d: %s, with runc %s", nr, ours, theirs[nr])
		}
	}
}
