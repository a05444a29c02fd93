package runtime

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

func TestCommandLine(t *testing.T) {
	row(t, "CLI version", func(h *H) {
		r := h.Do(Cmd{NoRoot: true, Args: []string{"--version"}})
		h.Want(r, `~^(tare-runtime|runc|crun) version \S+\n(.*\n)*spec: 1\.[0-9.]+`, 0)
		h.Want(h.Do(Cmd{NoRoot: true, Args: []string{"-v"}}), `~version`, 0)
	})
	row(t, "CLI help", func(h *H) {
		for _, a := range []string{"--help", "-h", "help"} {
			r := h.Do(Cmd{NoRoot: true, Args: []string{a}})
			for _, c := range []string{"create", "start", "state", "kill", "delete", "exec", "run", "list", "ps", "pause", "resume", "update", "events", "spec", "features"} {
				if r.Code != 0 || !strings.Contains(r.Stdout, c) {
					h.Errorf("%s: status %d, no word of %s", a, r.Code, c)
				}
			}
		}
	})
	row(t, "CLI usage errors", func(h *H) {
		for _, args := range [][]string{{"banana"}, {"--banana", "list"}, {"start"}, {"create"}, {"state", "a", "b"}, {"delete"}, {"kill"}, {"list", "--format", "x"}, {"run", "--banana", "x"}, {"exec"}} {
			r := h.RT(args...)
			if r.Code == 0 || r.Stderr == "" {
				h.Errorf("%v: status %d, stderr %q", args, r.Code, r.Stderr)
			}
		}
		h.FailRT("requires exactly 1 argument(s)", "start")
	})
	row(t, "CLI forms of options", func(h *H) {
		b := h.Bundle().Args("echo", "x")
		h.Write(b)
		for _, form := range [][]string{{"--bundle", b.Dir}, {"--bundle=" + b.Dir}, {"-b", b.Dir}, {"-b=" + b.Dir}, {"-bundle", b.Dir}, {"-bundle=" + b.Dir}} {
			h.Want(h.RT(append(append([]string{"run"}, form...), b.ID)...), "x", 0)
		}
		h.Want(h.Do(Cmd{NoRoot: true, Args: []string{"--root=" + h.Root, "--systemd-cgroup=false", "--debug=false", "run", "-no-subreaper=false", "-b", b.Dir, b.ID}}), "x", 0)
	})
	row(t, "CLI what containerd passes", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Write(b)
		log := filepath.Join(b.Dir, "log.json")
		global := []string{"--log", log, "--log-format", "json"}
		do := func(args ...string) Result { return h.Do(Cmd{Global: global, Args: args}) }
		h.Want(do("create", "--bundle", b.Dir, "--pid-file", b.Dir+"/init.pid", b.ID), "", 0)
		h.Want(do("start", b.ID), "", 0)
		p := h.File("p.json", `{"args":["sleep","50"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0}}`, 0o644)
		h.Want(do("exec", "--process", p, "--detach", "--pid-file", b.Dir+"/x.pid", b.ID), "", 0)
		h.Want(do("ps", "--format", "json", b.ID), `~^\[[0-9]+,[0-9]+\]$`, 0)
		h.Want(h.Do(Cmd{Global: global, Stdin: `{"pids":{"limit":77}}`, Args: []string{"update", "--resources=-", b.ID}}), "", 0)
		h.Want(do("pause", b.ID), "", 0)
		h.Want(do("resume", b.ID), "", 0)
		h.Want(do("kill", "--all", b.ID, "9"), "", 0)
		h.Cleanup(h.ReapOrphans())
		h.AwaitStatus(b.ID, "stopped")
		h.Want(do("delete", b.ID), "", 0)
	})
	row(t, "CLI log as JSON", func(h *H) {
		log := filepath.Join(h.TempDir(), "log.json")
		for range 2 {
			r := h.Do(Cmd{Global: []string{"--log", log, "--log-format", "json"}, Args: []string{"state", "nope"}})
			if r.Code != 1 || !strings.Contains(r.Stderr, "container does not exist") {
				h.Errorf("status %d, stderr %q", r.Code, r.Stderr)
			}
		}
		data, _ := os.ReadFile(log)
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		if len(lines) != 2 {
			h.Fatalf("the log is %q", data)
		}
		var e struct{ Level, Msg, Time string }
		err := json.Unmarshal([]byte(lines[1]), &e)
		if _, timeErr := time.Parse(time.RFC3339, e.Time); err != nil || timeErr != nil || e.Level != "error" || !strings.Contains(e.Msg, "container does not exist") {
			h.Errorf("the line is %q", lines[1])
		}
	})
	row(t, "CLI log as text", func(h *H) {
		log := filepath.Join(h.TempDir(), "log")
		h.Do(Cmd{Global: []string{"--log", log}, Args: []string{"state", "nope"}})
		data, _ := os.ReadFile(log)
		h.Want(Result{Stdout: string(data)}, `~^time="\S+" level=error msg="container does not exist"$`, 0)
	})
	row(t, "CLI log format that is unknown", func(h *H) {
		r := h.Do(Cmd{Global: []string{"--log-format", "xml"}, Args: []string{"list"}})
		if r.Code == 0 {
			h.Errorf("status 0")
		}
	})
	row(t, "CLI spec", func(h *H) {
		d := h.TempDir()
		h.Want(h.Do(Cmd{NoRoot: true, Args: []string{"spec", "-b", d}}), "~^$", 0)
		if _, err := os.Stat(d + "/config.json"); err != nil {
			h.Fatalf("%v", err)
		}
		if r := h.Do(Cmd{NoRoot: true, Args: []string{"spec", "-b", d}}); r.Code == 0 {
			h.Errorf("config.json was overwritten")
		}
		if err := ocitest.MakeRootfs(d + "/rootfs"); err != nil {
			h.Fatalf("%v", err)
		}
		edit := h.Do(Cmd{Path: "/usr/bin/jq", NoRoot: true, Args: []string{`.process.terminal=false|.process.args=["id","-u"]`, d + "/config.json"}})
		h.File(d+"/config.json", edit.Stdout, 0o644)
		h.Want(h.RT("run", "-b", d, h.NewID()), "0", 0)
	})
	row(t, "CLI the runtime without a command", func(h *H) {
		r := h.Do(Cmd{NoRoot: true, Args: []string{}})
		if !strings.Contains(r.Stdout+r.Stderr, "create") {
			h.Errorf("status %d: %q %q", r.Code, r.Stdout, r.Stderr)
		}
	})
}

func TestPs(t *testing.T) {
	row(t, "ps table and json", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.Want(h.RT("ps", b.ID), `~^UID +PID .*\n.*sleep 60$`, 0)
		h.Want(h.RT("ps", b.ID, "-o", "pid,comm"), `~PID.*\n.*sleep$`, 0)
		h.Want(h.RT("ps", "-f", "json", b.ID), `~^\[[0-9]+\]$`, 0)
		h.FailRT("container does not exist", "ps", "nope")
	})
}

func TestUpdate(t *testing.T) {
	v1(t)
	row(t, "update by flags", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(`linux.resources.memory={"limit":33554432}`)
		h.Up(b)
		pid := h.State(b.ID).Pid
		h.MustRT("update", "--memory", "64M", "--pids-limit", "9", "--cpu-share", "512", "--cpu-quota", "20000", "--cpu-period", "50000", "--cpuset-cpus", "0", b.ID)
		for file, want := range map[string]string{"memory/memory.limit_in_bytes": "67108864", "pids/pids.max": "9", "cpu/cpu.shares": "512", "cpu/cpu.cfs_quota_us": "20000",
			"cpu/cpu.cfs_period_us": "50000", "cpuset/cpuset.cpus": "0"} {
			c, f, _ := strings.Cut(file, "/")
			if got := h.CgroupFile(pid, c, f); got != want {
				h.Errorf("%s is %s, want %s", file, got, want)
			}
		}
	})
	row(t, "update keeps what is not given", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(`linux.resources.memory={"limit":33554432}`, `linux.resources.cpu={"shares":300}`)
		h.Up(b)
		h.Want(h.Do(Cmd{Args: []string{"update", "-r", "-", b.ID}, Stdin: `{"pids":{"limit":5}}`}), "", 0)
		pid := h.State(b.ID).Pid
		if a, c, p := h.CgroupFile(pid, "memory", "memory.limit_in_bytes"), h.CgroupFile(pid, "cpu", "cpu.shares"), h.CgroupFile(pid, "pids", "pids.max"); a != "33554432" || c != "300" || p != "5" {
			h.Errorf("memory %s shares %s pids %s", a, c, p)
		}
	})
	row(t, "update errors", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(`linux.resources.memory={"limit":33554432}`)
		h.Up(b)
		h.FailRT("", "update", "--memory", "banana", b.ID)
		h.FailRT("", "update", "--cpuset-cpus", "77", b.ID)
		h.FailRT("", "update", "-r", "/no/such", b.ID)
		h.FailRT("container does not exist", "update", "--memory", "64M", "nope")
		if got := h.CgroupFile(h.State(b.ID).Pid, "memory", "memory.limit_in_bytes"); got != "33554432" {
			h.Errorf("the limit is now %s", got)
		}
	})
	row(t, "C11 check before update", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(`linux.resources.memory={"limit":33554432}`)
		h.Up(b)
		r := h.Do(Cmd{Args: []string{"update", "-r", "-", b.ID}, Stdin: `{"memory":{"limit":4096,"checkBeforeUpdate":true}}`})
		if got := h.CgroupFile(h.State(b.ID).Pid, "memory", "memory.limit_in_bytes"); r.Code == 0 || got != "33554432" {
			h.Errorf("status %d, limit %s", r.Code, got)
		}
	})
	row(t, "events --stats", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(`linux.resources.pids={"limit":42}`)
		h.Up(b)
		r := h.MustRT("events", "--stats", b.ID)
		var e struct {
			Type, ID string
			Data     struct {
				Pids   struct{ Current, Limit int }
				CPU    struct{ Usage struct{ Total int64 } }
				Memory struct {
					Usage struct{ Usage int64 }
				}
			}
		}
		if err := json.Unmarshal([]byte(r.Stdout), &e); err != nil || e.Type != "stats" || e.ID != b.ID || e.Data.Pids.Current != 1 || e.Data.Pids.Limit != 42 || e.Data.CPU.Usage.Total <= 0 || e.Data.Memory.Usage.Usage <= 0 {
			h.Errorf("%v: %s", err, r.Stdout)
		}
	})
}

func TestFeatures(t *testing.T) {
	row(t, "F the features document", func(h *H) {
		r := h.Do(Cmd{NoRoot: true, Args: []string{"features"}})
		var f struct {
			OCIVersionMin, OCIVersionMax string
			Hooks, MountOptions          []string
			Linux                        struct {
				Namespaces, Capabilities []string
				Cgroup                   struct{ V1, V2 *bool }
				Seccomp                  struct {
					Enabled                   *bool
					Actions, Operators, Archs []string
				}
			}
		}
		if err := json.Unmarshal([]byte(r.Stdout), &f); err != nil || r.Code != 0 {
			h.Fatalf("status %d: %v: %s", r.Code, err, r.Stdout)
		}
		if f.OCIVersionMin != "1.0.0" || f.OCIVersionMax < f.OCIVersionMin {
			h.Errorf("versions %s to %s", f.OCIVersionMin, f.OCIVersionMax)
		}
		if len(f.Hooks) != 6 || len(f.MountOptions) < 40 || len(f.Linux.Namespaces) < 7 || len(f.Linux.Capabilities) < 38 || f.Linux.Cgroup.V1 == nil || len(f.Linux.Seccomp.Actions) < 8 || len(f.Linux.Seccomp.Operators) != 7 {
			h.Errorf("the document lacks something: %s", r.Stdout)
		}
		for _, o := range f.MountOptions {
			b := h.Bundle()
			switch {
			case strings.HasSuffix(o, "bind"):
				b.Edit(mnt("/t", "none", h.TempDir(), o))
			case o == "remount":
				b.Edit(mnt("/t", "tmpfs", "t"), mnt("/t", "tmpfs", "t", o))
			case strings.HasSuffix(o, "idmap"):
				rootfsOf(100000)(h, b)
				b.Edit(userns, idMaps(100000, 65536), mnt("/t", "none", h.TempDir(), "bind", o))
			default:
				b.Edit(mnt("/t", "tmpfs", "t", o))
			}
			if r := h.Run(b); r.Code != 0 {
				h.Errorf("F5 mount option %s: %s", o, r.Stderr)
			}
		}
	})
}
