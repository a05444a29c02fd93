package runtime

import (
	"strings"
	"testing"
)

// sentences are refused configurations and what runc says of them: scripts and engines look for these words in its error. Ours has them
// too, between the property's name and what can be done about it.
var sentences = []Case{
	{Row: "cwd empty", Edit: []string{`process.cwd=""`}, Err: "Cwd property must not be empty"},
	{Row: "cwd relative", Edit: []string{`process.cwd="tmp"`}, Err: "Cwd must be an absolute path"},
	{Row: "no args", Edit: []string{`process.args=[]`}, Err: "args must not be empty"},
	{Row: "no process", Edit: []string{`-process`}, Err: "process property must not be empty"},
	{Row: "no root", Edit: []string{`-root`}, Err: "root must be specified"},
	{Row: "root not there", Edit: []string{`root.path="nope"`}, Err: "invalid rootfs: "},
	{Row: "variable without a value", Edit: []string{`process.env=["A"]`}, Err: "invalid environment variable: missing '='"},
	{Row: "variable without a name", Edit: []string{`process.env=["=a"]`}, Err: "invalid environment variable: name cannot be empty"},
	{Row: "scheduler", Edit: []string{`process.scheduler={"policy":"X"}`}, Err: "invalid scheduler policy: X"},
	{Row: "scheduler flag", Edit: []string{`process.scheduler={"policy":"SCHED_OTHER","flags":["X"]}`}, Err: "invalid scheduler flag: X"},
	{Row: "io class", Edit: []string{`process.ioPriority={"class":"X","priority":1}`}, Err: `invalid ioPriority.Class: \"X\"`},
	{Row: "io priority", Edit: []string{`process.ioPriority={"class":"IOPRIO_CLASS_BE","priority":9}`},
		Err: "invalid ioPriority.Priority: 9"},
	{Row: "personality", Edit: []string{`linux.personality={"domain":"X"}`}, Err: "invalid personality domain X"},
	{Row: "memory policy", Edit: []string{`linux.memoryPolicy={"mode":"X"}`}, Err: `invalid memory policy mode \"X\"`},
	{Row: "namespace", Edit: []string{`linux.namespaces+=[{"type":"foo"}]`}, Err: `namespace {\"foo\" \"\"} does not exist`},
	{Row: "namespace twice", Edit: []string{`linux.namespaces+=[{"type":"pid"}]`}, Err: `duplicated ns {\"pid\" \"\"}`},
	{Row: "time offsets", Edit: []string{`linux.timeOffsets={"monotonic":{"secs":1}}`},
		Err: "time namespace offsets specified, but time namespace isn't enabled in the config"},
	{Row: "device type", Edit: []string{`linux.devices=[{"path":"/dev/x","type":"x","major":1,"minor":1}]`},
		Err: `invalid device type \"x\"`},
	{Row: "seccomp action", Edit: []string{`linux.seccomp={"defaultAction":"X"}`}, Err: "string X is not a valid action for seccomp"},
	{Row: "seccomp architecture", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","architectures":["X"]}`},
		Err: "string X is not a valid arch for seccomp"},
	{Row: "seccomp listener", Edit: []string{`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getcwd"],` +
		`"action":"SCMP_ACT_NOTIFY"}]}`}, Err: "seccomp listenerPath is not set"},
	{Row: "mount inside proc", Edit: []string{`mounts+=[{"destination":"/proc/self","type":"bind","source":"/tmp","options":["bind"]}]`},
		Err: "cannot be mounted because it is inside /proc"},
	{Row: "mount on proc", Edit: []string{`mounts+=[{"destination":"/proc","type":"tmpfs","source":"tmpfs"}]`},
		Err: "cannot be mounted because it is not of type proc"},
}

// execSentences are what runc says of a program that cannot be run; ours may go on after it.
var execSentences = []Case{
	{Row: "a directory", Args: []string{"/bin"}, Err: `exec: \"/bin\": is a directory: permission denied`},
	{Row: "in PATH, not executable", Setup: withFile("rootfs/bin/plain", "x"), Args: []string{"plain"},
		Err: `exec: \"plain\": executable file not found in $PATH (a file of that name is not executable)`},
	{Row: "in PATH, a directory", Setup: withFile("rootfs/bin/dir/", ""), Args: []string{"dir"},
		Err: `exec: \"dir\": executable file not found in $PATH (a directory has that name)`},
	{Row: "in PATH, a loop", Setup: withLink("loop", "bin/loop"), Args: []string{"loop"},
		Err: `executable file not found in $PATH (a symbolic link of that name leads to itself)`},
	{Row: "source of a bind not there", Edit: []string{`mounts+=[{"destination":"/x","source":"/nope","options":["bind"]}]`},
		Err: "open /nope: no such file or directory"},
	{Row: "option of a bind", Edit: []string{`mounts+=[{"destination":"/x","source":"/tmp","options":["bind","nexec"]}]`},
		Err: `unknown option \"nexec\": bind mounts cannot have any filesystem-specific options applied`},
	{Row: "sysctl that the kernel lacks", Edit: []string{`linux.sysctl={"net.ipv4.nope":"1"}`},
		Err: "net.ipv4.nope=1: no such file or directory (the kernel has no such setting)"},
	{Row: "capabilities", Edit: []string{`process.capabilities.bounding+=["NET_RAW","CAP_FOO"]`},
		Warn: "ignoring unknown or unavailable capabilities: [CAP_FOO NET_RAW]", After: func(h *H, _ *Bundle, r Result) {
			if n := strings.Count(r.Stderr, "level=warning"); n != 1 {
				h.Errorf("%d warnings: %s", n, r.Stderr)
			}
		}},
}

func TestExecSentences(t *testing.T) { runCases(t, execSentences) }

func TestSentences(t *testing.T) { runCases(t, sentences) }
