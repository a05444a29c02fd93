package runtime

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tare-oci/tare/test/internal/ocitest"
)

// execCase is an exec in a running container whose program is sleep.
type execCase struct {
	row   string
	flags string
	args  []string
	out   string
	code  int
	err   string // wanted on standard error
	edit  []string
}

var execCases = []execCase{
	{row: "X output and status", args: []string{"sh", "-c", "echo out; echo err >&2; exit 7"}, out: "out", code: 7, err: "err"},
	{row: "X status 255", args: []string{"sh", "-c", "exit 255"}, code: 255},
	{row: "X signal", args: []string{"sh", "-c", "kill -TERM $$"}, code: 143},
	{row: "X not found", args: []string{"nosuch"}, code: 255, err: "executable file not found in $PATH"},
	{row: "X no such file", args: []string{"/no/such"}, code: 255, err: "no such file or directory"},
	{row: "X permission denied", args: []string{"/etc/file"}, code: 255, err: "permission denied"},
	{row: "X environment is the container's", args: []string{"sh", "-c", "echo $A-$PATH"}, out: "~^1-/usr/local/sbin", edit: []string{`process.env+=["A=1"]`}},
	{row: "X env", flags: "--env A=2 --env B=x=y", args: []string{"sh", "-c", "echo $A-$B"}, out: "2-x=y", edit: []string{`process.env+=["A=1"]`}},
	{row: "X cwd is the container's", args: []string{"pwd"}, out: "/tmp", edit: []string{`process.cwd="/tmp"`}},
	{row: "X cwd", flags: "--cwd /etc", args: []string{"pwd"}, out: "/etc"},
	{row: "X cwd relative", flags: "--cwd etc", args: []string{"pwd"}, code: 255, err: "cwd"},
	{row: "X user is the container's", args: []string{"sh", "-c", "id -u; id -g"}, out: "7\n8", edit: []string{`process.user={"uid":7,"gid":8}`}},
	{row: "X user", flags: "-u 1000:1001", args: []string{"sh", "-c", "id -u; id -g"}, out: "1000\n1001"},
	{row: "X user without a group", flags: "--user 1000", args: []string{"id", "-u"}, out: "1000"},
	{row: "X additional groups", flags: "-u 7:8 -g 100 -g 200", args: []string{"sh", "-c", "grep Groups /proc/self/status | tr -s '\\t ' '  '"}, out: "~^Groups: (8 )?100 200$"},
	{row: "X capabilities are the container's", args: []string{"sh", "-c", showCaps}, out: capsLine(capNone, capKill, capKill, capKill, capNone), edit: []string{capEdit("CAP_KILL", "CAP_KILL", "CAP_KILL", "", "")}},
	{row: "X cap", flags: "--cap CAP_NET_ADMIN", args: []string{"sh", "-c", "grep CapEff /proc/self/status | tr -s '\\t' ' '"}, out: "CapEff: 0000000000001020", edit: []string{capEdit("CAP_KILL", "CAP_KILL", "CAP_KILL", "", "")}},
	{row: "X inheritable stays empty as a user", flags: "-u 1000 --cap CAP_NET_ADMIN", args: []string{"sh", "-c", "grep -E 'Cap(Inh|Amb)' /proc/self/status | tr -s '\\t\\n' '  '"},
		out: "CapInh: " + capNone + " CapAmb: " + capNone},
	{row: "X no new privileges", flags: "--no-new-privs", args: []string{"sh", "-c", "grep NoNewPrivs /proc/self/status | tr -s '\\t' ' '"}, out: "NoNewPrivs: 1", edit: []string{`process.noNewPrivileges=false`}},
	{row: "X limits are the container's", args: []string{"sh", "-c", "ulimit -n"}, out: "77", edit: []string{`process.rlimits=[{"type":"RLIMIT_NOFILE","soft":77,"hard":78}]`}},
	{row: "X descriptors", args: []string{"ls", "/proc/self/fd"}, out: "0\n1\n2\n3"},
	{row: "X own cgroup", args: []string{"sh", "-c", "[ \"$(sed 's/^0::.*//' /proc/self/cgroup)\" = \"$(sed 's/^0::.*//' /proc/1/cgroup)\" ] && echo same"}, out: "same"},
	{row: "X affinity final", args: []string{"sh", "-c", "grep Cpus_allowed_list /proc/self/status | tr -s '\\t' ' '"}, out: "Cpus_allowed_list: 0", edit: []string{`process.execCPUAffinity={"final":"0"}`}},
	{row: "P29 initial", args: []string{"sh", "-c", showCPUs}, out: "0", edit: []string{`process.execCPUAffinity={"initial":"0"}`}},
	{row: "P29 final replaces initial", args: []string{"sh", "-c", showCPUs}, out: "1", edit: []string{`process.execCPUAffinity={"initial":"0","final":"1"}`}},
	{row: "P29 none", args: []string{"sh", "-c", showCPUs}, out: allCPUs},
	{row: "P29 outside of the cpuset", args: []string{"true"}, code: 255, err: "affinity", edit: []string{`process.execCPUAffinity={"final":"1"}`, `linux.resources.cpu={"cpus":"0"}`}},
	{row: "P29 the cpuset", args: []string{"sh", "-c", showCPUs}, out: "1", edit: []string{`linux.resources.cpu={"cpus":"1"}`}},
	{row: "PE1 exec", args: []string{"uname", "-m"}, out: "~^(i686|armv8l)$", edit: []string{`linux.personality={"domain":"LINUX32"}`}},
	{row: "MP1 exec", args: []string{"head", "-1", "/proc/self/numa_maps"}, out: "~bind:0", edit: []string{`linux.memoryPolicy={"mode":"MPOL_BIND","nodes":"0"}`}},
	{row: "X options end at the command", args: []string{"echo", "-e", "--cwd"}, out: "--cwd"},
	{row: "X masked paths", args: []string{"sh", "-c", "cat /proc/keys | wc -c; ls /sys/firmware | wc -l"}, out: "0\n0"},
	{row: "X apparmor that is not there", flags: "--apparmor docker-default", args: []string{"true"}, code: 255, err: "apparmor"},
	{row: "X process label without SELinux", flags: "--process-label a:b:c:s0", args: []string{"true"}, code: 255, err: "selinux"},
	{row: "X oom score is the container's", args: []string{"cat", "/proc/self/oom_score_adj"}, out: "300", edit: []string{`process.oomScoreAdj=300`}},
	{row: "X umask is the container's", args: []string{"sh", "-c", "umask"}, out: "0077", edit: []string{`process.user={"uid":0,"gid":0,"umask":63}`}},
	{row: "X user namespace", args: []string{"sh", "-c", "id -u; cat /proc/self/uid_map | tr -s ' '"}, out: "~^0\n 0 100000 65536$", edit: []string{userns, idMaps(100000, 65536)}},
}

// badUsers are arguments of exec --user that are no numbers: an error each, never user 0 (CVE-2026-30892).
var badUsers = []string{"1:", ":1", "a:b", "root", "1x", "x1", "4294967296", "4294967295", "-1", " 0", "0 ", "1:2:3", "0x0", "+0", "1:a", "99999999999999999999", "1.0", "::"}

func TestExec(t *testing.T) {
	for _, c := range execCases {
		row(t, c.row, func(h *H) {
			b := h.Bundle().Args("sleep", "60").Edit(c.edit...)
			h.File(filepath.Join(b.Rootfs, "etc/file"), "x", 0o644)
			h.Up(b)
			r := h.RT(append(append(append([]string{"exec"}, strings.Fields(c.flags)...), b.ID), c.args...)...)
			h.Want(r, c.out, c.code)
			if !strings.Contains(strings.ToLower(r.Stderr), strings.ToLower(c.err)) {
				h.Errorf("standard error %q does not contain %q", r.Stderr, c.err)
			}
		})
	}
	row(t, "X bad users", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		for _, u := range badUsers {
			if r := h.RT("exec", "--user", u, b.ID, "id", "-u"); r.Code == 0 {
				h.Errorf("user %q: status 0, output %q", u, r.Stdout)
			}
		}
		h.Want(h.RT("exec", "--user", "", b.ID, "id", "-u"), "0", 0)
	})
	row(t, "X standard input", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.Want(h.Do(Cmd{Args: []string{"exec", b.ID, "cat"}, Stdin: "hello"}), "hello", 0)
	})
	row(t, "X in a created container", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Create(b)
		h.Want(h.RT("exec", b.ID, "echo", "hi"), "hi", 0)
	})
	row(t, "X wrong state", func(h *H) {
		r := h.FailRT("container does not exist", "exec", "nope", "true")
		if r.Code != 255 {
			h.Errorf("status %d, want 255", r.Code)
		}
		b := h.Bundle()
		h.Up(b)
		h.AwaitStatus(b.ID, "stopped")
		if r := h.FailRT("cannot exec in a stopped container", "exec", b.ID, "true"); r.Code != 255 {
			h.Errorf("status %d, want 255", r.Code)
		}
	})
	row(t, "X joins every namespace", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(`linux.namespaces+=[{"type":"cgroup"}]`)
		h.Up(b)
		pid := h.State(b.ID).Pid
		for typ, file := range nsFiles {
			h.Want(h.RT("exec", b.ID, "readlink", "/proc/self/ns/"+file), nsID(h, pid, file), 0)
			_ = typ
		}
	})
}

func TestExecProcess(t *testing.T) {
	row(t, "X process file", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(`process.env+=["INHERITED=1"]`)
		h.Up(b)
		p := specs.Process{Args: []string{"sh", "-c", "echo $A$INHERITED; id -u; id -g; pwd; umask; ulimit -s; grep -E 'Cap(Eff|Bnd)|NoNew' /proc/self/status | tr -s '\\t' ' '"},
			Env: []string{"A=1", "PATH=/bin"}, Cwd: "/etc", User: specs.User{UID: 5, GID: 6}, NoNewPrivileges: true,
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_STACK", Soft: 4 << 20, Hard: 8 << 20}},
			Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}}
		h.Want(h.RT("exec", "--process", processFile(h, p), b.ID), "1\n5\n6\n/etc\n0022\n4096\nCapEff: 0000000000000000\nCapBnd: 0000000000000020\nNoNewPrivs: 1", 0)
	})
	row(t, "P29 process file", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(`process.execCPUAffinity={"final":"0"}`)
		h.Up(b)
		p := specs.Process{Args: []string{"sh", "-c", showCPUs}, Env: []string{"PATH=/bin"}, Cwd: "/", ExecCPUAffinity: &specs.CPUAffinity{Final: "1"}}
		h.Want(h.RT("exec", "--process", processFile(h, p), b.ID), "1", 0)
		p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0-x"}
		h.FailRT("execCPUAffinity", "exec", "--process", processFile(h, p), b.ID)
		p.ExecCPUAffinity = &specs.CPUAffinity{Final: "4000"}
		h.FailRT("affinity", "exec", "--process", processFile(h, p), b.ID)
	})
	row(t, "X process file that is not there or bad", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.FailRT("no such file or directory", "exec", "-p", "/no/such.json", b.ID)
		h.FailRT("", "exec", "-p", h.File("p.json", "{", 0o644), b.ID)
		h.FailRT("args", "exec", "-p", processFile(h, specs.Process{Cwd: "/"}), b.ID)
		h.FailRT("cwd", "exec", "-p", processFile(h, specs.Process{Args: []string{"/bin/true"}}), b.ID)
	})
	row(t, "X detached with a pid file", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		pidFile := filepath.Join(h.TempDir(), "pid")
		h.Want(h.RT("exec", "-d", "--pid-file", pidFile, b.ID, "sleep", "50"), "", 0)
		data, err := os.ReadFile(pidFile)
		pid, convErr := strconv.Atoi(string(data))
		if err != nil || convErr != nil {
			h.Fatalf("pid file %q: %v", data, err)
		}
		h.Await("the program", func() bool {
			cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			return string(cmd) == "sleep\x0050\x00"
		})
		var s string
		h.Await("ps", func() bool { s = h.MustRT("ps", "--format", "json", b.ID).Stdout; return strings.Contains(s, ",") })
		if !strings.Contains(s, fmt.Sprint(pid)) || !strings.Contains(s, fmt.Sprint(h.State(b.ID).Pid)) {
			h.Errorf("ps: %s lacks %d", s, pid)
		}
	})
	row(t, "X preserved descriptors", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		f, err := os.Open(h.File("passed", "content of 3", 0o644))
		if err != nil {
			h.Fatalf("%v", err)
		}
		defer f.Close()
		g, _ := os.Open("/etc/hostname")
		defer g.Close()
		h.Want(h.Do(Cmd{Args: []string{"exec", "--preserve-fds", "1", b.ID, "sh", "-c", "cat <&3; ls /proc/self/fd | tr '\\n' ' '"}, Files: []*os.File{f, g}}), "content of 30 1 2 3 4", 0)
	})
	row(t, "X cgroup", func(h *H) {
		v1(h.T)
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		d := filepath.Join("/sys/fs/cgroup/pids", b.ID, "sub")
		if err := os.Mkdir(d, 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		h.Want(h.RT("exec", "--cgroup", "pids:sub", b.ID, "grep", "pids", "/proc/self/cgroup"), "~"+b.ID+"/sub$", 0)
		h.FailRT("", "exec", "--cgroup", "pids:../..", b.ID, "true")
		h.FailRT("", "exec", "--cgroup", "pids:../"+b.ID+"x", b.ID, "true")
	})
}

func processFile(h *H, p specs.Process) string {
	j, err := json.Marshal(p)
	if err != nil {
		h.Fatalf("%v", err)
	}
	return h.File("process.json", string(j), 0o644)
}

func TestRunDescriptors(t *testing.T) {
	open := func(h *H, n int) []*os.File {
		var fs []*os.File
		for i := range n {
			f, err := os.Open(h.File("f", fmt.Sprint("file", i), 0o644))
			if err != nil {
				h.Fatalf("%v", err)
			}
			h.Cleanup(func() { f.Close() })
			fs = append(fs, f)
		}
		return fs
	}
	row(t, "P16 the caller's descriptors are closed", func(h *H) {
		b := h.Bundle().Args("ls", "/proc/self/fd")
		h.Write(b)
		h.Want(h.Do(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Files: open(h, 9)}), "0\n1\n2\n3", 0)
	})
	row(t, "P16 preserved descriptors", func(h *H) {
		b := h.Bundle().Sh("cat <&3; cat <&4; ls /proc/self/fd | tr '\\n' ' '")
		h.Write(b)
		h.Want(h.Do(Cmd{Args: []string{"run", "-b", b.Dir, "--preserve-fds", "2", b.ID}, Files: open(h, 5)}), "file0file10 1 2 3 4 5", 0)
	})
	row(t, "P16 preserved descriptors that are not open", func(h *H) {
		b := h.Bundle()
		h.Write(b)
		h.FailRT("", "run", "-b", b.Dir, "--preserve-fds", "3", b.ID)
		h.NoLeak("the error")
	})
	// listen runs the command line with LISTEN_FDS=1, three open files and LISTEN_PID as the shell words pid say.
	listen := func(h *H, pid string, args ...string) Result {
		sh := []string{"-c", pid + ` exec "$@"`, "sh", ocitest.RuntimePath(), "--root", h.Root}
		return h.Do(Cmd{Path: "/bin/sh", NoRoot: true, Args: append(sh, args...), Files: open(h, 3), Env: append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=web")})
	}
	const show = "echo $LISTEN_FDS,$LISTEN_PID; ls /proc/self/fd | tr '\\n' ' '"
	row(t, "CLI LISTEN_FDS", func(h *H) {
		b := h.Bundle().Sh(show + "; cat <&3")
		h.Write(b)
		h.Want(listen(h, "LISTEN_PID=$$", "run", "-b", b.Dir, b.ID), "1,1\n0 1 2 3 4 file0", 0)
	})
	row(t, "CLI LISTEN_FDS and preserved descriptors", func(h *H) {
		b := h.Bundle().Sh(show + "; cat <&3; cat <&4")
		h.Write(b)
		h.Want(listen(h, "LISTEN_PID=$$", "run", "-b", b.Dir, "--preserve-fds", "1", b.ID), "1,1\n0 1 2 3 4 5 file0file1", 0)
	})
	row(t, "CLI LISTEN_FDS for another process", func(h *H) {
		b := h.Bundle().Sh(show)
		h.Write(b)
		for _, pid := range []string{"", "LISTEN_PID=1", "LISTEN_PID=$PPID", "LISTEN_PID=", "LISTEN_PID=x$$"} {
			h.Want(listen(h, pid, "run", "-b", b.Dir, b.ID), ",\n0 1 2 3", 0)
		}
		h.Want(listen(h, "LISTEN_PID=1", "run", "-b", b.Dir, "--preserve-fds", "1", b.ID), ",\n0 1 2 3 4", 0)
	})
	row(t, "CLI LISTEN_FDS is not for start and exec", func(h *H) {
		b := h.Bundle().Sh("ls /proc/self/fd | tr '\\n' ' '; echo $LISTEN_FDS; sleep 60")
		r := h.Create(b)
		if r := listen(h, "LISTEN_PID=$$", "start", b.ID); r.Code != 0 {
			h.Fatalf("start: %s", r.Stderr)
		}
		h.Await("the program", func() bool { return strings.Contains(r.Again().Stdout, "\n") })
		h.Want(r.Again(), "0 1 2 3", 0)
		h.Want(listen(h, "LISTEN_PID=$$", "exec", b.ID, "sh", "-c", show), ",\n0 1 2 3", 0)
		h.Want(listen(h, "LISTEN_PID=$$", "exec", "--preserve-fds", "1", b.ID, "sh", "-c", show), ",\n0 1 2 3 4", 0)
	})
	row(t, "CLI the caller's environment stays outside", func(h *H) {
		b := h.Bundle().Args("env")
		h.Write(b)
		env := append(os.Environ(), "_OCI_SYNCPIPE=3", "SECRET=1", "XDG_RUNTIME_DIR=")
		if r := h.Do(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Env: env}); r.Code != 0 || strings.Contains(r.Stdout, "SECRET") || strings.Contains(r.Stdout, "_OCI") {
			h.Errorf("status %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
	})
}
