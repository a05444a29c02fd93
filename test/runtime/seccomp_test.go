package runtime

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	allow   = "SCMP_ACT_ALLOW"
	errno   = "SCMP_ACT_ERRNO"
	bigArgs = `,"args":[{"index":%d,"value":%d,"valueTwo":%d,"op":"SCMP_CMP_%s"}]`
)

// argCase: getpriority(which, who) is denied when the rule matches; the call is harmless with any arguments.
type argCase struct {
	op              string
	value, valueTwo uint64
	arg             uint64
	denied          bool
}

var argCases = []argCase{
	{"EQ", 5, 0, 5, true}, {"EQ", 5, 0, 6, false}, {"EQ", 5, 0, 1<<32 + 5, false}, {"EQ", 1<<32 + 5, 0, 1<<32 + 5, true}, {"EQ", 1<<32 + 5, 0, 5, false},
	{"NE", 5, 0, 5, false}, {"NE", 5, 0, 1<<32 + 5, true},
	{"LT", 5, 0, 4, true}, {"LT", 5, 0, 5, false}, {"LT", 1 << 32, 0, 1<<32 - 1, true}, {"LT", 5, 0, 1 << 32, false},
	{"LE", 5, 0, 5, true}, {"LE", 5, 0, 6, false}, {"LE", 1<<32 + 5, 0, 1<<32 + 6, false},
	{"GT", 5, 0, 6, true}, {"GT", 5, 0, 5, false}, {"GT", 1<<32 + 5, 0, 1<<33 + 0, true}, {"GT", 1<<32 + 5, 0, 7, false},
	{"GE", 5, 0, 5, true}, {"GE", 5, 0, 4, false}, {"GE", 1 << 32, 0, 1<<32 - 1, false}, {"GE", 7, 0, 1 << 40, true},
	{"MASKED_EQ", 0xf0, 0x50, 0x5f, true}, {"MASKED_EQ", 0xf0, 0x50, 0x6f, false}, {"MASKED_EQ", 0xf << 32, 0x3 << 32, 0x13<<32 + 9, true}, {"MASKED_EQ", 0xf << 32, 0x3 << 32, 0x4 << 32, false},
}

func TestSeccompArguments(t *testing.T) {
	for _, c := range argCases {
		row(t, fmt.Sprintf("S6 %s %#x %#x with %#x", c.op, c.value, c.valueTwo, c.arg), func(h *H) {
			rule := fmt.Sprintf(bigArgs, 1, c.value, c.valueTwo, c.op)
			b := h.Bundle().Edit(seccomp(allow, deny("getpriority", errno, `,"errnoRet":95`+rule)))
			b.Args(probeCall(unix.SYS_GETPRIORITY, 99, c.arg)...) // 99: EINVAL where it is allowed
			want := "EINVAL"
			if c.denied {
				want = "ENOTSUP"
			}
			h.Want(h.Run(b), want, 0)
		})
	}
}

var seccompCases = []Case{
	{Row: "S1 errno", Edit: []string{seccomp(allow, deny("mkdir mkdirat", errno, ""))}, Args: probeCall(unix.SYS_MKDIRAT, -100, 0, 0), Out: "EPERM"},
	{Row: "S1 kill process", Edit: []string{seccomp(allow, deny("mkdir mkdirat", "SCMP_ACT_KILL_PROCESS", ""))}, Args: []string{"mkdir", "/x"}, Code: 159},
	{Row: "S1 kill", Edit: []string{seccomp(allow, deny("mkdir mkdirat", "SCMP_ACT_KILL", ""))}, Args: []string{"mkdir", "/x"}, Code: 159},
	{Row: "S1 kill thread", Edit: []string{seccomp(allow, deny("mkdir mkdirat", "SCMP_ACT_KILL_THREAD", ""))}, Args: []string{"mkdir", "/x"}, Code: 159},
	{Row: "S1 trap", Edit: []string{seccomp(allow, deny("mkdir mkdirat", "SCMP_ACT_TRAP", ""))}, Args: []string{"mkdir", "/x"}, Code: 159},
	{Row: "S1 log", Edit: []string{seccomp(allow, deny("mkdir mkdirat", "SCMP_ACT_LOG", ""))}, Args: []string{"mkdir", "/x"}},
	{Row: "S1 trace without a tracer", Edit: []string{seccomp(allow, deny("mkdir mkdirat", "SCMP_ACT_TRACE", ""))}, Args: []string{"mkdir", "/x"}, Code: 1, Warn: "not implemented"},
	{Row: "S1 notify as default", Edit: []string{seccomp("SCMP_ACT_NOTIFY", "")}, Err: "NOTIFY"},
	{Row: "S1 unknown action", Edit: []string{seccomp("SCMP_ACT_BANANA", "")}, Err: "SCMP_ACT_BANANA"},
	{Row: "S1 unknown action of a rule", Edit: []string{seccomp(allow, deny("mkdir", "SCMP_ACT_BANANA", ""))}, Err: "SCMP_ACT_BANANA"},
	{Row: "S1 no default action", Edit: []string{`linux.seccomp={"syscalls":[]}`}, Err: "*"},
	{Row: "S1 in force", Edit: []string{seccomp(allow, "")}, Sh: "grep Seccomp: /proc/self/status", Out: "~2$"},
	{Row: "S2 errno of a rule", Edit: []string{seccomp(allow, deny("mkdir mkdirat", errno, `,"errnoRet":38`))}, Args: probeCall(unix.SYS_MKDIRAT, -100, 0, 0), Out: "ENOSYS"},
	{Row: "S2 errno 0", Edit: []string{seccomp(allow, deny("mkdir mkdirat", errno, `,"errnoRet":0`))}, Args: probeCall(unix.SYS_MKDIRAT, -100, 0, 0), Out: "ok"},
	{Row: "S2 default errno", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":95,"syscalls":[{"names":["getpriority"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}`}, Err: "*"},
	{Row: "S2 errno with allow", Edit: []string{seccomp(allow, deny("mkdir", allow, `,"errnoRet":1`))}, Err: "errno"},
	{Row: "S2 errno with kill", Edit: []string{seccomp(allow, deny("mkdir", "SCMP_ACT_KILL", `,"errnoRet":1`))}, Err: "errno"},
	{Row: "S2 default errno with allow", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}`}, Err: "errno"},
	{Row: "S3 unknown architecture", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_FOO"]}`}, Err: "SCMP_ARCH_FOO"},
	{Row: "S3 native is always included", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`},
		Args: probeCall(unix.SYS_MKDIRAT, -100, 0, 0), Out: "EPERM"},
	{Row: "S3 all little-endian ones", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86","SCMP_ARCH_X86_64","SCMP_ARCH_X32","SCMP_ARCH_ARM","SCMP_ARCH_AARCH64",
		"SCMP_ARCH_MIPSEL","SCMP_ARCH_MIPSEL64","SCMP_ARCH_MIPSEL64N32","SCMP_ARCH_PPC64LE","SCMP_ARCH_RISCV64"],"syscalls":[{"names":["mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`}, Args: probeCall(unix.SYS_MKDIRAT, -100, 0, 0), Out: "EPERM"},
	{Row: "S4 flags", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW","SECCOMP_FILTER_FLAG_TSYNC"],"syscalls":[{"names":["mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`},
		Args: probeCall(unix.SYS_MKDIRAT, -100, 0, 0), Out: "EPERM"},
	{Row: "S4 speculation is left alone", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_SPEC_ALLOW"],"syscalls":[{"names":["mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`},
		Sh: "grep Speculation_Store_Bypass /proc/self/status", Out: "~(vulnerable|not vulnerable|unknown|thread mitigated)"},
	{Row: "S4 unknown flag", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_X"]}`}, Err: "SECCOMP_FILTER_FLAG_X"},
	{Row: "S5 no names", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_ERRNO"}]}`}, Err: "name"},
	{Row: "S5 unknown name", Edit: []string{seccomp(allow, deny("no_such_call mkdirat", errno, ""))}, Args: probeCall(unix.SYS_MKDIRAT, -100, 0, 0), Out: "EPERM"},
	{Row: "S6 index 6", Edit: []string{seccomp(allow, deny("mkdirat", errno, fmt.Sprintf(bigArgs, 6, 0, 0, "EQ")))}, Err: "6"},
	{Row: "S6 unknown operator", Edit: []string{seccomp(allow, deny("mkdirat", errno, fmt.Sprintf(bigArgs, 0, 0, 0, "XX")))}, Err: "SCMP_CMP_XX"},
	{Row: "S6 two arguments both match", Edit: []string{seccomp(allow, deny("getpriority", errno, `,"args":[{"index":0,"value":99,"op":"SCMP_CMP_EQ"},{"index":1,"value":7,"op":"SCMP_CMP_EQ"}]`))},
		Args: probeCall(unix.SYS_GETPRIORITY, 99, 7), Out: "EPERM"},
	{Row: "S6 two arguments one matches", Edit: []string{seccomp(allow, deny("getpriority", errno, `,"args":[{"index":0,"value":99,"op":"SCMP_CMP_EQ"},{"index":1,"value":7,"op":"SCMP_CMP_EQ"}]`))},
		Args: probeCall(unix.SYS_GETPRIORITY, 99, 8), Out: "EINVAL"},
	{Row: "S6 the same argument twice is either", Edit: []string{seccomp(allow, deny("getpriority", errno, `,"args":[{"index":0,"value":98,"op":"SCMP_CMP_EQ"},{"index":0,"value":99,"op":"SCMP_CMP_EQ"}]`))},
		Args: probeCall(unix.SYS_GETPRIORITY, 99, 8), Out: "EPERM"},
	{Row: "S1 notify as default, as runc says it", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/agent"}`}, Err: "SCMP_ACT_NOTIFY cannot be used as default action"},
	{Row: "S8 notify on write", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/agent","syscalls":[{"names":["write"],"action":"SCMP_ACT_NOTIFY"}]}`},
		Err: "SCMP_ACT_NOTIFY cannot be used for the write syscall"},
	{Row: "S8 notify on write beside others", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/agent","syscalls":[{"names":["mkdir","write"],"action":"SCMP_ACT_NOTIFY"}]}`},
		Err: "SCMP_ACT_NOTIFY cannot be used for the write syscall"},
	{Row: "S8 notify without a path", Edit: []string{seccomp(allow, deny("mkdirat", "SCMP_ACT_NOTIFY", ""))}, Err: "listenerPath"},
	{Row: "S8 path without notify is not used", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/no/such/socket"}`}},
	{Row: "S8 no agent", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/no/such/socket","syscalls":[{"names":["mkdirat"],"action":"SCMP_ACT_NOTIFY"}]}`}, Err: "/no/such/socket"},
	{Row: "S10 metadata alone", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"x"}`}, Err: "listenerMetadata"},
	{Row: "S without no_new_privs", Edit: []string{`process.noNewPrivileges=false`, seccomp(allow, deny("mkdirat", errno, ""))}, Args: probeCall(unix.SYS_MKDIRAT, -100, 0, 0), Out: "EPERM"},
	{Row: "S of a user without capabilities", Edit: []string{capEdit("", "", "", "", ""), `process.user={"uid":1000,"gid":1000}`, seccomp(allow, deny("mkdirat", errno, `,"errnoRet":95`))},
		Args: probeCall(unix.SYS_MKDIRAT, -100, 0, 0), Out: "ENOTSUP"},
}

func TestSeccomp(t *testing.T) { runCases(t, seccompCases) }

// dockerProfile reads the default profile that Debian ships for Podman and resolves its conditions for a container with the
// base capabilities, as an engine does.
func dockerProfile(h *H) string {
	data, err := os.ReadFile("/usr/share/containers/seccomp.json")
	if err != nil {
		h.T.Skip("no default profile on this machine:", err)
	}
	var p struct {
		DefaultAction   string           `json:"defaultAction"`
		DefaultErrnoRet *int             `json:"defaultErrnoRet,omitempty"`
		Syscalls        []map[string]any `json:"syscalls"`
	}
	if err := json.Unmarshal(data, &p); err != nil {
		h.Fatalf("%v", err)
	}
	var rules []map[string]any
	for _, s := range p.Syscalls {
		inc, _ := json.Marshal(s["includes"])
		exc, _ := json.Marshal(s["excludes"])
		if strings.Contains(string(inc), "CAP_") && !strings.Contains(string(inc), "CAP_SYS_CHROOT") || strings.Contains(string(inc), "arches") && !strings.Contains(string(inc), runtime.GOARCH) ||
			strings.Contains(string(exc), "CAP_SYS_CHROOT") {
			continue
		}
		for _, k := range []string{"includes", "excludes", "comment"} {
			delete(s, k)
		}
		if s["action"] != errno {
			delete(s, "errnoRet")
		}
		delete(s, "errno")
		rules = append(rules, s)
	}
	p.Syscalls = rules
	out, _ := json.Marshal(p)
	return "linux.seccomp=" + string(out)
}

func TestSeccompProfile(t *testing.T) {
	row(t, "S12 the default profile lets programs run", func(h *H) {
		b := h.Bundle().Sh("ls / >/dev/null && mkdir /x && echo fine").Edit()
		b.Edit(dockerProfile(h))
		h.Want(h.Run(b), "fine", 0)
	})
	for name, call := range map[string][]any{"swapon": {unix.SYS_SWAPON, 0, 0}, "acct": {unix.SYS_ACCT, 0}, "settimeofday": {unix.SYS_SETTIMEOFDAY, 0, 0}, "bpf": {unix.SYS_BPF, 99},
		"init_module": {unix.SYS_INIT_MODULE, 0, 0, 0}, "reboot": {unix.SYS_REBOOT, 0}} {
		row(t, "S12 the default profile denies "+name, func(h *H) {
			b := h.Bundle().Args(probeCall(call[0].(int), call[1:]...)...)
			b.Edit(dockerProfile(h))
			h.Want(h.Run(b), "~^(EPERM|ENOSYS)$", 0)
		})
	}
	for _, nr := range []int{600, 9999, 1 << 20} {
		row(t, fmt.Sprintf("S7 newer system call %d", nr), func(h *H) {
			b := h.Bundle().Args(probeCall(nr)...)
			b.Edit(dockerProfile(h))
			h.Want(h.Run(b), "ENOSYS", 0)
		})
	}
	row(t, "S11 applies to exec", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(seccomp(allow, deny("mkdirat", errno, `,"errnoRet":95`)))
		h.Up(b)
		h.Want(h.RT(append([]string{"exec", b.ID}, probeCall(unix.SYS_MKDIRAT, -100, 0, 0)...)...), "ENOTSUP", 0)
	})
}
