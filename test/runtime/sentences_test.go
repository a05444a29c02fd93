package runtime

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sentences are refused configurations and what runc says of them: scripts and engines look for these words in its
// error. Ours has them too, between the property's name and what can be done about it.
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

func TestUpdateSentences(t *testing.T) {
	row(t, "a wrong value is told in one line, after the container was found", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		for _, c := range [][3]string{
			{"--memory", "foo", "invalid value for memory: invalid size: 'foo'"},
			{"--memory-swap", "1X", "invalid value for memory-swap: invalid size: '1X'"},
			{"--memory", "1.2.3G", "invalid value for memory: invalid size: '1.2.3G'"},
			{"--cpu-share", "foo", `invalid value for cpu-share: strconv.ParseUint: parsing \"foo\": invalid syntax`},
			{"--cpu-quota", "x", `invalid value for cpu-quota: strconv.ParseInt: parsing \"x\": invalid syntax`},
		} {
			r := h.RT("update", c[0], c[1], b.ID)
			if want := ` msg="` + c[2] + "\"\n"; r.Code != 1 || r.Stdout != "" || !strings.HasSuffix(r.Stderr, want) {
				h.Errorf("%v: status %d, %q, %q", c, r.Code, r.Stdout, r.Stderr)
			}
		}
		h.FailRT("container does not exist", "update", "--memory", "foo", b.ID+"x")
		for size, want := range map[string]string{"0.0625G": "67108864", "128 M": "134217728", "64m": "67108864"} {
			h.MustRT("update", "--memory", size, b.ID)
			r := h.RT("exec", b.ID, "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null")
			if got := strings.TrimSpace(r.Stdout); got != want {
				h.Errorf("update --memory %s: the limit is %s, want %s", size, got, want)
			}
		}
	})
}

func TestStateSentences(t *testing.T) {
	row(t, "of a stopped container", func(h *H) {
		b := h.Bundle().Args("true")
		h.Create(b)
		h.MustRT("pause", b.ID)
		h.FailRT("cannot start a container in the paused state", "start", b.ID)
		h.MustRT("resume", b.ID)
		h.MustRT("start", b.ID)
		h.AwaitStatus(b.ID, "stopped")
		for _, c := range [][]string{{"pause", "container not running"}, {"events", "container with id " + b.ID + " is not running"},
			{"update", "container not running"}} {
			if r := h.RT(c[0], b.ID); r.Code != 1 || !strings.HasSuffix(r.Stderr, ` msg="`+c[1]+"\"\n") {
				h.Errorf("%s: status %d, %s", c[0], r.Code, r.Stderr)
			}
		}
	})
	row(t, "of options", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		for _, c := range []struct {
			want string
			args []string
		}{
			{"exec args cannot be empty", []string{"exec", b.ID}},
			{`bad uid: strconv.Atoi: parsing \"foo\": invalid syntax`, []string{"exec", "-u", "foo", b.ID, "true"}},
			{`bad gid: strconv.Atoi: parsing \"x\": invalid syntax`, []string{"exec", "-u", "1:x", b.ID, "true"}},
			{"bad uid: ", []string{"exec", "-u", "+1", b.ID, "true"}},
			{"bad uid: ", []string{"exec", "-u", "4294967295", b.ID, "true"}},
			{"duration interval must be greater than 0", []string{"events", "--interval", "0s", b.ID}},
			{"unknown controller foo in SubCgroupPaths", []string{"exec", "--cgroup", "foo:/", b.ID, "true"}},
		} {
			h.FailRT(c.want, c.args...)
		}
	})
	row(t, "of an empty directory of images", func(h *H) {
		b := h.Bundle().Args("true")
		h.Write(b)
		dir := h.TempDir()
		h.FailRT("open "+dir+"/descriptors.json: no such file or directory", "restore", "--image-path", dir, "-b", b.Dir, b.ID)
	})
}

func TestHookSentences(t *testing.T) {
	runCases(t, []Case{
		{Row: "exit status", Edit: []string{`hooks={"createRuntime":[{"path":"/bin/sh","args":["sh","-c","echo o; echo e >&2; exit 3"]}]}`},
			Err: `error running createRuntime hook #0: exit status 3, stdout: o\n, stderr: e\n`},
		{Row: "timeout", Edit: []string{`hooks={"createRuntime":[{"path":"/bin/sleep","args":["sleep","10"],"timeout":1}]}`},
			Err: "error running createRuntime hook #0: hook ran past specified timeout of 1.0s"},
		{Row: "in the container", Edit: []string{`hooks={"startContainer":[{"path":"/bin/sh","args":["sh","-c","exit 3"]}]}`},
			Err: "error running startContainer hook #0: exit status 3"},
	})
}

func TestSentences(t *testing.T) { runCases(t, sentences) }

func TestEventsPercpu(t *testing.T) {
	row(t, "processor time is the kernel's, not counted in ticks", func(h *H) {
		b := h.Bundle().Sh("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; touch /tmp/done; sleep 60").Edit(`root.readonly=false`)
		h.Up(b)
		done := filepath.Join(b.Rootfs, "tmp/done")
		h.Await(done, func() bool { _, err := os.Stat(done); return err == nil })
		var e struct {
			Data struct {
				CPU struct {
					Usage struct {
						Total  uint64
						Percpu []uint64
					}
				}
			}
		}
		r := h.MustRT("events", "--stats", b.ID)
		if err := json.Unmarshal([]byte(r.Stdout), &e); err != nil {
			h.Fatalf("%v: %s", err, r.Stdout)
		}
		u, sum := e.Data.CPU.Usage, uint64(0)
		if u.Percpu == nil {
			return // version 2 has none
		}
		for _, n := range u.Percpu {
			sum += n
		}
		// Whole ticks are multiples of a millisecond at least. The two files are read one after the other, while the
		// container sleeps.
		if sum%1_000_000 == 0 || sum < u.Total || sum-u.Total > 10_000_000 {
			h.Errorf("percpu %v, sum %d, total %d", u.Percpu, sum, u.Total)
		}
	})
}
