package runtime

import "testing"

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

func TestSentences(t *testing.T) { runCases(t, sentences) }
