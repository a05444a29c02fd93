package runtime

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

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
	{Row: "S1 notify as default", Edit: []string{seccomp("SCMP_ACT_NOTIFY", "")}, Err: "notify"},
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

// agent accepts one connection, gives back the message and answers every notified call with an errno.
func agent(h *H, l *net.UnixListener, errnum int32) <-chan string {
	got := make(chan string, 1)
	go func() {
		l.SetDeadline(time.Now().Add(5 * time.Second))
		c, err := l.AcceptUnix()
		if err != nil {
			got <- err.Error()
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		buf, oob := make([]byte, 65536), make([]byte, 1024)
		n, on, _, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil {
			got <- err.Error()
			return
		}
		ms, _ := unix.ParseSocketControlMessage(oob[:on])
		if len(ms) != 1 {
			got <- fmt.Sprintf("%d control messages", len(ms))
			return
		}
		fds, _ := unix.ParseUnixRights(&ms[0])
		text := string(buf[:n])
		c.SetDeadline(time.Now().Add(2 * time.Second))
		for { // the rest of a long message, until the runtime closes
			n, err := c.Read(buf)
			text += string(buf[:n])
			if err != nil || n == 0 {
				break
			}
		}
		got <- text
		for _, fd := range fds {
			answer(fd, errnum)
		}
	}()
	return got
}

func TestSeccompNotify(t *testing.T) {
	for _, how := range []string{"run", "exec"} {
		row(t, "S9 notify on "+how, func(h *H) {
			path := filepath.Join(h.TempDir(), "s")
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				h.Fatalf("%v", err)
			}
			h.Cleanup(func() { l.Close() })
			b := h.Bundle().Edit(fmt.Sprintf(`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","listenerPath":%q,"listenerMetadata":"meta","syscalls":[{"names":["mkdirat"],"action":"SCMP_ACT_NOTIFY"}]}`, path))
			b.Edit(`annotations={"k":"v"}`)
			first := agent(h, l, 95)
			status, text := "creating", ""
			if how == "run" {
				h.Want(h.Run(b.Args(probeCall(unix.SYS_MKDIRAT, -100, 0, 0)...)), "ENOTSUP", 0)
				text = <-first
			} else {
				h.Up(b.Args("sleep", "60"))
				<-first
				second := agent(h, l, 22)
				status = "running"
				h.Want(h.RT(append([]string{"exec", b.ID}, probeCall(unix.SYS_MKDIRAT, -100, 0, 0)...)...), "EINVAL", 0)
				text = <-second
			}
			checkNotifyState(h, text, b, status)
		})
	}
}

func checkNotifyState(h *H, text string, b *Bundle, status string) {
	var s struct {
		OCIVersion string   `json:"ociVersion"`
		Fds        []string `json:"fds"`
		Pid        int      `json:"pid"`
		Metadata   string   `json:"metadata"`
		State      struct {
			ID, Status, Bundle string
			Pid                int
			Annotations        map[string]string
		} `json:"state"`
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		h.Fatalf("%v: %q", err, text)
	}
	if s.OCIVersion == "" || len(s.Fds) != 1 || s.Fds[0] != "seccompFd" || s.Pid <= 1 || s.Metadata != "meta" || s.State.ID != b.ID || s.State.Status != status ||
		s.State.Bundle != b.Dir || s.State.Annotations["k"] != "v" {
		h.Errorf("state is %s, want status %s", text, status)
	}
}
