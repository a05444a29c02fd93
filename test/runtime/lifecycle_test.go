package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}

func TestState(t *testing.T) {
	row(t, "state of every phase", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(`annotations={"a.b/c":"d"}`)
		before := time.Now().Add(-time.Second)
		h.Create(b)
		s := h.State(b.ID)
		if s.Status != "created" || s.ID != b.ID || s.Pid <= 1 || !alive(s.Pid) || s.Bundle != b.Dir || s.Annotations["a.b/c"] != "d" || s.OCIVersion == "" {
			h.Errorf("created: %+v", s)
		}
		if s.Rootfs != b.Rootfs || s.Created.Before(before) || s.Created.After(time.Now()) {
			h.Errorf("rootfs and time of creation: %+v", s)
		}
		h.MustRT("start", b.ID)
		if r := h.State(b.ID); r.Status != "running" || r.Pid != s.Pid || !r.Created.Equal(s.Created) {
			h.Errorf("running: %+v", r)
		}
		h.MustRT("pause", b.ID)
		if r := h.State(b.ID); r.Status != "paused" || r.Pid != s.Pid {
			h.Errorf("paused: %+v", r)
		}
		h.MustRT("resume", b.ID)
		h.MustRT("kill", b.ID, "KILL")
		h.AwaitStatus(b.ID, "stopped")
		if r := h.State(b.ID); r.Pid != 0 || r.Bundle != b.Dir {
			h.Errorf("stopped: %+v", r)
		}
		h.MustRT("delete", b.ID)
		h.FailRT("container does not exist", "state", b.ID)
	})
	row(t, "state of an unknown container", func(h *H) { h.FailRT("container does not exist", "state", "nope") })
	row(t, "step 10 an exit that nobody waits for is stopped", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		syscall.Kill(h.State(b.ID).Pid, syscall.SIGKILL) // the zombie stays until the case ends
		h.AwaitStatus(b.ID, "stopped")
	})
	row(t, "list", func(h *H) {
		a, b := h.Bundle().Args("sleep", "60"), h.Bundle().Args("sleep", "60")
		h.Create(a)
		h.Up(b)
		r := h.MustRT("list", "-q")
		h.Want(r, a.ID+"\n"+b.ID, 0)
		r = h.MustRT("list")
		lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
		if len(lines) != 3 || strings.Join(strings.Fields(lines[0]), " ") != "ID PID STATUS BUNDLE CREATED OWNER" {
			h.Fatalf("list: %q", r.Stdout)
		}
		f := strings.Fields(lines[2])
		if len(f) != 6 || f[0] != b.ID || f[1] != fmt.Sprint(h.State(b.ID).Pid) || f[2] != "running" || f[3] != b.Dir || f[5] != "root" {
			h.Errorf("list: %q", lines[2])
		}
		h.Want(h.RT("list", "--format", "json"), `~^\[\{.*"status":"created".*"status":"running".*\}\]$`, 0)
	})
	row(t, "list of nothing", func(h *H) {
		if err := os.MkdirAll(h.Root, 0o700); err != nil {
			h.Fatalf("%v", err)
		}
		h.Want(h.RT("list", "-q"), "~^$", 0)
		h.Want(h.RT("list", "--format", "json"), "~^(null|\\[\\])$", 0)
	})
}

func TestLifecycle(t *testing.T) {
	row(t, "step 1 the same id twice", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Create(b)
		pid := h.State(b.ID).Pid
		h.FailRT("container with given ID already exists", "create", "--bundle", b.Dir, b.ID)
		h.FailRT("container with given ID already exists", "run", "--bundle", b.Dir, b.ID)
		if s := h.State(b.ID); s.Status != "created" || s.Pid != pid {
			h.Errorf("the first container is %+v", s)
		}
	})
	row(t, "step 2 edits of config.json after create", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Create(b)
		h.Write(b.Args("sleep", "70"))
		h.MustRT("start", b.ID)
		h.Await("the first program", func() bool {
			data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", h.State(b.ID).Pid))
			return string(data) == "sleep\x0060\x00"
		})
	})
	row(t, "step 2 a bundle that is gone after create", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Create(b)
		os.Remove(filepath.Join(b.Dir, "config.json"))
		h.MustRT("start", b.ID)
		h.MustRT("delete", "-f", b.ID)
		h.NoLeak("delete")
	})
	row(t, "step 6 start in the wrong state", func(h *H) {
		h.FailRT("container does not exist", "start", "nope")
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.FailRT("cannot start an already running container", "start", b.ID)
		h.MustRT("kill", b.ID, "9")
		h.AwaitStatus(b.ID, "stopped")
		h.FailRT("cannot start a container that has stopped", "start", b.ID)
		h.MustRT("delete", b.ID)
	})
	row(t, "step 8 the program runs once and start returns", func(h *H) {
		b := h.Bundle().Sh("echo once")
		r := h.Up(b)
		h.AwaitStatus(b.ID, "stopped")
		h.Want(r.Again(), "once", 0)
		h.MustRT("delete", b.ID)
		h.NoLeak("delete")
	})
	row(t, "step 8 execve that fails is an error of start", func(h *H) {
		b := h.Bundle().Args("/script")
		h.File(filepath.Join(b.Rootfs, "script"), "no interpreter\n", 0o755)
		h.Create(b)
		h.FailRT("exec format error", "start", b.ID)
	})
	row(t, "step 8 execve that fails is an error of run", func(h *H) {
		b := h.Bundle().Args("/script")
		h.File(filepath.Join(b.Rootfs, "script"), "no interpreter\n", 0o755)
		if r := h.Run(b); r.Code == 0 || !strings.Contains(r.Stderr, "exec format error") {
			h.Errorf("status %d: %s", r.Code, r.Stderr)
		}
		h.NoLeak("the error")
	})
	row(t, "P1 create without a process", func(h *H) {
		b := h.Bundle().Edit("-process")
		h.Create(b)
		if s := h.State(b.ID); s.Status != "created" {
			h.Errorf("status %s", s.Status)
		}
		h.FailRT("process", "start", b.ID)
		if s := h.State(b.ID); s.Status != "created" {
			h.Errorf("status after start %s", s.Status)
		}
		h.MustRT("delete", "-f", b.ID)
		h.NoLeak("delete")
	})
	row(t, "run keeps with --keep", func(h *H) {
		b := h.Bundle()
		h.Want(h.Run(b, "--keep"), "", 0)
		if s := h.State(b.ID); s.Status != "stopped" {
			h.Errorf("status %s", s.Status)
		}
		h.MustRT("delete", b.ID)
		h.NoLeak("delete")
	})
	row(t, "run keeps a container without a program with --keep", func(h *H) {
		for _, hook := range []string{"-hooks", `hooks.startContainer=[{"path":"/bin/true"}]`} {
			b := h.Bundle().Args("/no/such").Edit(hook)
			if r := h.Run(b, "--keep"); r.Code != 1 || !strings.Contains(r.Stderr, "no such file or directory") {
				h.Errorf("status %d: %s", r.Code, r.Stderr)
			}
			if s := h.State(b.ID); s.Status != "stopped" || s.Pid != 0 {
				h.Errorf("status %s, pid %d", s.Status, s.Pid)
			}
			h.Want(h.RT("ps", "-f", "json", b.ID), "null", 0)
			h.MustRT("delete", b.ID)
			h.NoLeak("delete")
		}
	})
	row(t, "run detached", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		pid := filepath.Join(h.TempDir(), "pid")
		h.Want(h.Run(b, "-d", "--pid-file", pid), "", 0)
		s := h.State(b.ID)
		if data, _ := os.ReadFile(pid); s.Status != "running" || string(data) != strconv.Itoa(s.Pid) {
			h.Errorf("pid file %q, state %+v", data, s)
		}
	})
	row(t, "pid file of create is decimal without newline", func(h *H) {
		b := h.Bundle()
		pid := filepath.Join(h.TempDir(), "pid")
		h.Create(b, "--pid-file", pid)
		if data, _ := os.ReadFile(pid); string(data) != strconv.Itoa(h.State(b.ID).Pid) {
			h.Errorf("pid file %q", data)
		}
	})
	row(t, "pid file that cannot be written", func(h *H) {
		b := h.Bundle()
		h.Write(b)
		h.FailRT("no such file or directory", "create", "--bundle", b.Dir, "--pid-file", "/no/such/dir/pid", b.ID)
		h.NoLeak("the error")
	})
	row(t, "init is a child of the caller's subreaper", func(h *H) {
		b := h.Bundle()
		h.Create(b)
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.State(b.ID).Pid))
		if !strings.Contains(string(status), fmt.Sprintf("PPid:\t%d\n", os.Getpid())) {
			h.Errorf("not re-parented:\n%s", status)
		}
	})
}

func TestKillDelete(t *testing.T) {
	for _, sig := range []string{"TERM", "SIGTERM", "15", "term", "sigterm", ""} {
		row(t, "kill with "+sig+" as the signal", func(h *H) {
			b := h.Bundle().Sh("trap 'echo got TERM; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
			r := h.Up(b)
			h.Await("the trap", func() bool { return strings.Contains(r.Again().Stdout, "ready") })
			args := []string{"kill", b.ID}
			if sig != "" {
				args = append(args, sig)
			}
			h.MustRT(args...)
			h.AwaitStatus(b.ID, "stopped")
			h.Want(r.Again(), "ready\ngot TERM", 0)
		})
	}
	row(t, "kill with real-time signals", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		for _, s := range []string{"SIGRTMIN+3", "RTMIN+3", "SIGRTMAX-2", "37"} {
			h.MustRT("kill", b.ID, s) // ignored by an init without a handler
		}
	})
	row(t, "kill with unknown signals", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		for _, s := range []string{"BANANA", "SIG", "65", "-1", "1x", "SIGRTMIN+99"} {
			if r := h.RT("kill", b.ID, "--", s); r.Code == 0 {
				h.Errorf("kill %s: status 0", s)
			}
		}
		if s := h.State(b.ID); s.Status != "running" {
			h.Errorf("status %s", s.Status)
		}
	})
	row(t, "kill of a created container", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Create(b)
		h.MustRT("kill", b.ID, "KILL")
		h.AwaitStatus(b.ID, "stopped")
		h.MustRT("delete", b.ID)
		h.NoLeak("delete")
	})
	for sig, want := range map[string]string{"TERM": "stopped", "INT": "stopped", "HUP": "stopped", "QUIT": "stopped", "USR1": "created", "0": "created"} {
		row(t, "kill of a created container with "+sig, func(h *H) {
			b := h.Bundle().Args("sleep", "60")
			h.Create(b)
			h.Want(h.RT("kill", b.ID, sig), "", 0)
			if want == "stopped" {
				h.AwaitStatus(b.ID, want)
				h.MustRT("delete", b.ID)
				h.NoLeak("delete")
				return
			}
			time.Sleep(100 * time.Millisecond)
			if s := h.State(b.ID); s.Status != want {
				h.Errorf("status %s, want %s", s.Status, want)
			}
		})
	}
	row(t, "kill with 0 as the signal", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.Want(h.RT("kill", b.ID, "0"), "", 0)
		if s := h.State(b.ID); s.Status != "running" {
			h.Errorf("status %s", s.Status)
		}
		h.MustRT("kill", b.ID, "KILL")
		h.AwaitStatus(b.ID, "stopped")
		h.FailRT("container not running", "kill", b.ID, "0")
	})
	row(t, "kill of what is left of a container without a pid namespace", func(h *H) {
		v1(h.T)
		left := func() (*Bundle, string) {
			b := h.Bundle().Edit(`linux.namespaces=[{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"network"}]`).Sh("sleep 1000 & exit 0")
			h.Up(b)
			h.AwaitStatus(b.ID, "stopped")
			procs := "/sys/fs/cgroup/pids/" + b.ID + "/cgroup.procs"
			if content(h, procs) == "" {
				h.Fatalf("nothing is left to kill")
			}
			return b, procs
		}
		b, procs := left()
		h.FailRT("container not running", "kill", b.ID, "TERM")
		h.Want(h.RT("kill", b.ID, "KILL"), "", 0)
		h.Await("the processes' end", func() bool { return content(h, procs) == "" })
		h.FailRT("container not running", "kill", b.ID, "KILL")
		h.MustRT("delete", b.ID)
		b, _ = left()
		h.MustRT("delete", b.ID)
		h.NoLeak("delete")
	})
	row(t, "kill of a stopped container", func(h *H) {
		b := h.Bundle()
		h.Up(b)
		h.AwaitStatus(b.ID, "stopped")
		h.FailRT("container not running", "kill", b.ID, "KILL")
		h.Want(h.RT("kill", "--all", b.ID, "KILL"), "", 0)
		h.Want(h.RT("kill", "-a", b.ID, "9"), "", 0)
	})
	row(t, "kill of an unknown container", func(h *H) { h.FailRT("container does not exist", "kill", "nope", "KILL") })
	row(t, "kill of a paused container", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.MustRT("pause", b.ID)
		h.MustRT("kill", b.ID, "KILL")
		h.AwaitStatus(b.ID, "stopped")
	})
	row(t, "pause, update and delete beside run", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Write(b)
		_, wait := h.Start(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}})
		h.Await("the container", func() bool { return strings.Contains(h.RT("state", b.ID).Stdout, "\"running\"") })
		h.MustRT("pause", b.ID)
		h.AwaitStatus(b.ID, "paused")
		h.MustRT("resume", b.ID)
		h.MustRT("update", "--pids-limit", "77", b.ID)
		h.MustRT("delete", "--force", b.ID)
		h.Want(wait(), "", 137)
		h.FailRT("container does not exist", "state", b.ID)
	})
	row(t, "kill --all reaches every process", func(h *H) {
		b := h.Bundle().Edit(`linux.namespaces=[{"type":"mount"},{"type":"uts"},{"type":"ipc"},{"type":"network"}]`).Sh("sleep 61 & sleep 62 & wait")
		h.Up(b)
		h.Await("three processes", func() bool { return len(strings.Fields(h.CgroupFile(h.State(b.ID).Pid, "pids", "cgroup.procs"))) == 3 })
		h.MustRT("kill", "--all", b.ID, "KILL")
		h.AwaitStatus(b.ID, "stopped")
		h.MustRT("delete", b.ID)
		h.NoLeak("delete")
	})
	row(t, "delete takes processes that are left", func(h *H) {
		b := h.Bundle().Edit(`linux.namespaces=[{"type":"mount"},{"type":"uts"},{"type":"ipc"},{"type":"network"}]`).Sh("sleep 1000 & exit 0")
		h.Up(b)
		h.AwaitStatus(b.ID, "stopped")
		h.MustRT("delete", b.ID)
		h.NoLeak("delete")
	})
	row(t, "delete of a running container", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.FailRT("cannot delete container "+b.ID+" that is not stopped: running", "delete", b.ID)
		if s := h.State(b.ID); s.Status != "running" || !alive(s.Pid) {
			h.Errorf("state %+v", s)
		}
		h.MustRT("pause", b.ID)
		h.FailRT("that is not stopped: paused", "delete", b.ID)
		h.MustRT("delete", "-f", b.ID)
		h.NoLeak("delete")
	})
	row(t, "delete of a created container", func(h *H) {
		b := h.Bundle()
		h.Create(b)
		h.MustRT("delete", b.ID)
		h.NoLeak("delete")
	})
	row(t, "delete of an unknown container", func(h *H) {
		h.FailRT("container does not exist", "delete", "nope")
		h.Want(h.RT("delete", "-f", "nope"), "", 0)
	})
	row(t, "delete twice", func(h *H) {
		b := h.Bundle()
		h.Create(b)
		h.MustRT("delete", "-f", b.ID)
		h.FailRT("container does not exist", "delete", b.ID)
	})
	row(t, "pause and resume in the wrong state", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.FailRT("", "resume", b.ID)
		h.MustRT("pause", b.ID)
		h.FailRT("", "pause", b.ID)
		h.FailRT("paused", "exec", b.ID, "true")
		h.MustRT("resume", b.ID)
		h.Want(h.RT("exec", b.ID, "true"), "", 0)
		h.FailRT("container does not exist", "pause", "nope")
		h.FailRT("container does not exist", "resume", "nope")
	})
}

func TestConcurrency(t *testing.T) {
	n := 16
	if long() {
		n = 50
	}
	row(t, "one create wins per id", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Write(b)
		codes := inParallel(n, func(int) Result {
			return h.Do(Cmd{Args: []string{"create", "--bundle", b.Dir, b.ID}, Timeout: time.Minute})
		})
		won := 0
		for _, r := range codes {
			if r.Code == 0 {
				won++
			} else if !strings.Contains(r.Stderr, "already exists") {
				h.Errorf("a loser says: %s", r.Stderr)
			}
		}
		if won != 1 {
			h.Errorf("%d creates won", won)
		}
		if s := h.State(b.ID); s.Status != "created" {
			h.Errorf("status %s", s.Status)
		}
	})
	row(t, "creates and deletes of many ids", func(h *H) {
		bs := make([]*Bundle, n)
		for i := range bs {
			bs[i] = h.Bundle().Args("sleep", "60")
			h.Write(bs[i])
		}
		step := func(f func(b *Bundle) []string) {
			for i, r := range inParallel(n, func(i int) Result { return h.Do(Cmd{Args: f(bs[i]), Timeout: time.Minute}) }) {
				if r.Code != 0 {
					h.Errorf("%s: status %d: %s", strings.Join(f(bs[i]), " "), r.Code, r.Stderr)
				}
			}
		}
		step(func(b *Bundle) []string { return []string{"create", "--bundle", b.Dir, b.ID} })
		step(func(b *Bundle) []string { return []string{"start", b.ID} })
		step(func(b *Bundle) []string { return []string{"exec", b.ID, "true"} })
		step(func(b *Bundle) []string { return []string{"delete", "-f", b.ID} })
		h.NoLeak("all deletes")
	})
	row(t, "one delete wins, or all", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		for _, r := range inParallel(8, func(int) Result { return h.RT("delete", "-f", b.ID) }) {
			if r.Code != 0 {
				h.Errorf("delete -f: status %d: %s", r.Code, r.Stderr)
			}
		}
		h.NoLeak("delete")
	})
	row(t, "one start wins", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Create(b)
		won := 0
		for _, r := range inParallel(8, func(int) Result { return h.RT("start", b.ID) }) {
			if r.Code == 0 {
				won++
			}
		}
		if s := h.State(b.ID); won != 1 || s.Status != "running" {
			h.Errorf("%d starts won, status %s", won, s.Status)
		}
	})
}

func inParallel(n int, f func(i int) Result) []Result {
	out := make([]Result, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { out[i] = f(i) })
	}
	wg.Wait()
	return out
}
