package seccomp

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const explained = `{
	"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "listenerPath": "/agent",
	"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
	"syscalls": [
		{"names": ["read", "execve", "socketcall", "mkdir", "rename"], "action": "SCMP_ACT_ALLOW"},
		{"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
		{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}, {"index": 2, "value": 9, "op": "SCMP_CMP_LT"}]},
		{"names": ["socket"], "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]},
		{"names": ["send"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
		{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"},
		{"names": ["ptrace"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
		{"names": ["bpf"], "action": "SCMP_ACT_LOG"}, {"names": ["acct"], "action": "SCMP_ACT_KILL"}, {"names": ["reboot"], "action": "SCMP_ACT_TRAP"},
		{"names": ["swapon"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0}
	]}`

func TestExplain(t *testing.T) {
	p, err := ParseProfile([]byte(explained), Conditions{Arch: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		q    Question
		want string
	}{
		{Question{Call: "mkdir"}, "mkdir (83) on x86_64: allowed\n  rule 0 (read, execve, socketcall and 2 more)\n"},
		{Question{Call: "83"}, "mkdir (83) on x86_64: allowed\n  rule 0 (read, execve, socketcall and 2 more)\n"},
		{Question{Call: "rmdir"}, "rmdir (84) on x86_64: fails with EPERM (1)\n  the default action, SCMP_ACT_ERRNO\n"},
		{Question{Call: "mount"}, "mount (165) on x86_64: asks the agent at /agent (NOTIFY)\n  rule 5 (mount)\n"},
		{Question{Call: "ptrace"}, "ptrace (101) on x86_64: asks the tracer with message 7, fails with ENOSYS (38) without one (TRACE)\n  rule 6 (ptrace)\n"},
		{Question{Call: "bpf"}, "bpf (321) on x86_64: allowed and logged (LOG)\n  rule 7 (bpf)\n"},
		{Question{Call: "acct"}, "acct (163) on x86_64: kills the thread by SIGSYS (KILL_THREAD)\n  rule 8 (acct)\n"},
		{Question{Call: "reboot"}, "reboot (169) on x86_64: sends SIGSYS, which the process may handle (TRAP)\n  rule 9 (reboot)\n"},
		{Question{Call: "swapon"}, "swapon (167) on x86_64: returns 0 and does nothing (ERRNO 0)\n  rule 10 (swapon)\n"},
		{Question{Call: "seccomp"}, "seccomp (317) on x86_64: fails with EPERM (1)\n  the default action, SCMP_ACT_ERRNO\n"},
		{Question{Call: "listns"}, "listns (470) on x86_64: fails with ENOSYS (38)\n" +
			"  newer than every call that the profile names, of which bpf (321) is the newest: as on a kernel without it\n"},
		{Question{Call: "9999"}, "unknown call (9999) on x86_64: fails with ENOSYS (38)\n" +
			"  newer than every call that the profile names, of which bpf (321) is the newest: as on a kernel without it\n"},
		{Question{Call: "clone"}, "clone (56) on x86_64: depends on the arguments; the first of these that matches decides\n" +
			"  argument 0 & 0x7e020000 == 0x0: allowed: rule 1 (clone)\n  otherwise: fails with EPERM (1): the default action, SCMP_ACT_ERRNO\n"},
		{Question{Call: "clone", Args: []uint64{17}}, "clone (56) on x86_64: allowed\n  rule 1 (clone)\n"},
		{Question{Call: "clone", Args: []uint64{0x10000011}}, "clone (56) on x86_64: fails with EPERM (1)\n  no rule matches: the default action, SCMP_ACT_ERRNO\n"},
		{Question{Call: "socket"}, "socket (41) on x86_64: depends on the arguments; the first of these that matches decides\n" +
			"  argument 0 == 0x26: kills the process by SIGSYS (KILL_PROCESS): rule 3 (socket)\n" +
			"  argument 0 != 0x28 and argument 2 < 0x9: allowed: rule 2 (socket)\n  otherwise: fails with EPERM (1): the default action, SCMP_ACT_ERRNO\n"},
		{Question{Call: "socket", Args: []uint64{38}}, "socket (41) on x86_64: kills the process by SIGSYS (KILL_PROCESS)\n  rule 3 (socket)\n"},
		{Question{Call: "socket", Args: []uint64{2, 1}}, "socket (41) on x86_64: depends on the arguments; the first of these that matches decides\n" +
			"  argument 0 != 0x28 and argument 2 < 0x9: allowed: rule 2 (socket)\n  otherwise: fails with EPERM (1): the default action, SCMP_ACT_ERRNO\n"},
		{Question{Call: "send", Arch: "SCMP_ARCH_X86"}, "send: x86 has no call of this name\nthe same by socketcall with 9 as first argument:\n" +
			"  socketcall (102) on x86: fails with EACCES (13)\n    added because a rule refuses send, which this call reaches\n"},
		{Question{Call: "socketcall", Arch: "SCMP_ARCH_X86", Args: []uint64{1}}, "socketcall (102) on x86: allowed\n  rule 0 (read, execve, socketcall and 2 more)\n"},
		{Question{Call: "mkdir", Arch: "SCMP_ARCH_X32"}, "mkdir (1073741907) on x32: fails with ENOSYS (38)\n" +
			"  the profile does not list SCMP_ARCH_X32: as on a kernel without x32\n"},
		{Question{Call: "0x40000053"}, "unknown call (1073741907) on x86_64: fails with ENOSYS (38)\n  the number has the bit of x32 calls: ask for the architecture x32\n"},
		{Question{Call: "open", Arch: "SCMP_ARCH_AARCH64"}, "open: aarch64 has no call of this name\n"},
	} {
		got, err := p.Explain("amd64", c.q)
		if err != nil || got != c.want {
			t.Errorf("%+v:\n%s(%v), want\n%s", c.q, got, err, c.want)
		}
	}
	for _, q := range []Question{{Call: "no_such_call"}, {Call: "read", Arch: "SCMP_ARCH_PARISC"}, {Call: ""}} {
		if text, err := p.Explain("amd64", q); err == nil {
			t.Errorf("%+v: %s", q, text)
		}
	}
}

// TestExplainAgrees compares what is explained with what the program does, for profiles whose rules meet each other.
func TestExplainAgrees(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 11))
		s, goarch := randomProfile(rnd), goarchs[seed%uint64(len(goarchs))]
		f := must(Compile(s, goarch))
		def := must(answer(s.DefaultAction, s.DefaultErrnoRet))
		list, _, err := rules(s)
		if err != nil {
			t.Fatal(err)
		}
		e := &explainer{Profile: &Profile{Spec: s}, f: f, c: newCompiler(f.machine, list, def)}
		values := corners(s)
		for _, a := range selectArchs(f.machine, s.Architectures) {
			for _, nr := range numbersToTry(s, a.token, false) {
				if e.withoutRules(a, nr) != "" || (a.column == colX32) != (nr >= x32Bit && a.token == 0xc000003e) {
					continue
				}
				var args [6]uint64
				for i := range args {
					args[i] = values[rnd.IntN(len(values))]
				}
				open, _, got := e.decide(a, nr, args[:])
				if want := f.Action(a.name, nr, args); len(open) > 0 || got != want {
					j, _ := json.Marshal(s)
					t.Fatalf("seed %d %s %s %d %#x: explained as %#x (%q), the program says %#x\n%s", seed, goarch, a.name, nr, args, got, open, want, j)
				}
			}
		}
	}
}

func TestParseProfile(t *testing.T) {
	const docker = `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"defaultErrno":"ENOSYS","archMap":[
		{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]},{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]}],
		"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":null,"comment":"x","includes":{},"excludes":{}},
		{"name":"bpf","action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN","CAP_BPF"]}},
		{"names":["bpf"],"action":"SCMP_ACT_ERRNO","errno":"EACCES","excludes":{"caps":["CAP_SYS_ADMIN"]}},
		{"names":["arch_prctl"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["amd64","x32"]}},
		{"names":["open"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["arm64"]}},
		{"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
		{"names":["kcmp"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"5.10"}}]}`
	for _, c := range []struct {
		data  string
		cond  Conditions
		rules string // first names
		archs int
		err   string
	}{
		{docker, Conditions{Arch: "amd64"}, "read bpf arch_prctl open ptrace", 3, ""},
		{docker, Conditions{Arch: "amd64", Caps: []string{"CAP_SYS_ADMIN"}}, "read arch_prctl open ptrace", 3, ""},
		{docker, Conditions{Arch: "amd64", Caps: []string{"CAP_BPF", "CAP_SYS_ADMIN"}, Kernel: "4.8.0-1-amd64"}, "read bpf arch_prctl open ptrace kcmp", 3, ""},
		{docker, Conditions{Arch: "arm64", Kernel: "4.7"}, "read bpf kcmp", 2, ""},
		{docker, Conditions{Arch: "s390x", Kernel: "5.10"}, "read bpf open ptrace", 0, ""},
		{docker, Conditions{Arch: "amd64", Kernel: "five"}, "", 0, `kernel version "five"`},
		{docker, Conditions{Arch: "vax"}, "", 0, "vax"},
		{`{"ociVersion":"1.0.2","linux":{"seccomp":` + explained + `}}`, Conditions{Arch: "amd64"}, "read clone socket socket send mount ptrace bpf acct reboot swapon", 2, ""},
		{`{"ociVersion":"1.0.2","linux":{}}`, Conditions{Arch: "amd64"}, "", 0, "has no linux.seccomp"},
		{`{"ociVersion":"1.0.2"}`, Conditions{Arch: "amd64"}, "", 0, "has no linux.seccomp"},
		{`[]`, Conditions{Arch: "amd64"}, "", 0, "decode profile"},
		{`{"syscalls":[{"names":["read"],"errno":"EFOO"}]}`, Conditions{Arch: "amd64"}, "", 0, `rule 0: errno: unknown errno "EFOO"`},
	} {
		p, err := ParseProfile([]byte(c.data), c.cond)
		if err != nil || c.err != "" {
			if err == nil || c.err == "" || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%.40s %+v: error %v, want %q", c.data, c.cond, err, c.err)
			}
			continue
		}
		var names []string
		for _, r := range p.Spec.Syscalls {
			names = append(names, r.Names[0])
		}
		if got := strings.Join(names, " "); got != c.rules || len(p.Spec.Architectures) != c.archs {
			t.Errorf("%.40s %+v: rules %s for %q, want %s", c.data, c.cond, got, p.Spec.Architectures, c.rules)
		}
	}
	p := must(ParseProfile([]byte(docker), Conditions{Arch: "amd64"}))
	text := must(p.Explain("amd64", Question{Call: "bpf"}))
	if want := "bpf (321) on x86_64: fails with EACCES (13)\n  rule 2 (bpf)\n  rule 1 is left out: it is there only with CAP_SYS_ADMIN\n"; text != want {
		t.Errorf("got\n%swant\n%s", text, want)
	}
}

func TestErrnoNames(t *testing.T) {
	m := must(machineOf("amd64"))
	for n := range uint32(140) {
		want := unix.ErrnoName(syscall.Errno(n))
		got, _, _ := strings.Cut(errnoName(m, n), " ")
		switch want { // another name of the same value
		case "EDEADLOCK", "EWOULDBLOCK", "ENOTSUP", "EFSCORRUPTED":
			want = got
		case "", "EFTYPE":
			want = "errno"
		}
		if got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
	if got := errnoName(must(machineOf("mips")), 89); got != "ENOSYS (89)" {
		t.Error(got)
	}
	if got := errnoName(must(machineOf("mips")), 38); got != "errno 38" {
		t.Error(got)
	}
}

func TestFindArch(t *testing.T) {
	for name, want := range map[string]specs.Arch{"amd64": specs.ArchX86_64, "x86_64": specs.ArchX86_64, "SCMP_ARCH_X86": specs.ArchX86, "i386": specs.ArchX86,
		"x32": specs.ArchX32, "arm64": specs.ArchAARCH64, "aarch64": specs.ArchAARCH64, "s390": specs.ArchS390, "ppc64le": specs.ArchPPC64LE, "386": "", "": "", "vax": ""} {
		got, ok := FindArch(name)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: %s %v, want %s", name, got, ok, want)
		}
	}
	for _, c := range []struct {
		arch       specs.Arch
		have, want string
	}{{specs.ArchX86, "amd64", "amd64"}, {specs.ArchX86_64, "386", "386"}, {specs.ArchARM, "amd64", "arm64"}, {specs.ArchS390, "amd64", "s390x"},
		{specs.ArchMIPSEL64N32, "amd64", "mips64le"}, {"SCMP_ARCH_PARISC", "amd64", ""}} {
		if got, err := MachineOf(c.arch, c.have); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s from %s: %s %v, want %s", c.arch, c.have, got, err, c.want)
		}
	}
}
