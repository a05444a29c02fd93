package escape

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// TestHiddenProcesses has a container that may write to its cgroups hide processes in groups that are deeper than any
// path (issue 7 F5).
func TestHiddenProcesses(t *testing.T) {
	hide := func(h *H) (*Bundle, []string) {
		b := h.Bundle().Edit(`linux.namespaces=[{"type":"mount"},{"type":"cgroup"}]`, "-hostname", mnt("/cg", "cgroup", "cgroup", "rw")).
			WithoutMounts("/sys", "/dev/mqueue", "/sys/fs/cgroup").Args("attack", "deep", "/cg")
		attacker(h, b)
		r := h.Up(b)
		h.Await("the hidden processes", func() bool { return strings.HasSuffix(r.Again().Stdout, "\n") })
		f := strings.Fields(r.Again().Stdout)
		if len(f) != 3 || f[0] != "hidden" {
			h.Fatalf("%s", r.Again().Stdout)
		}
		return b, f[1:]
	}
	gone := func(h *H, pids []string) {
		for _, p := range pids {
			h.Await("the end of process "+p, func() bool {
				data, err := os.ReadFile("/proc/" + p + "/cmdline")
				return err != nil || len(data) == 0 // a zombie has none
			})
		}
	}
	row(t, "issue7 F5 ps and kill --all reach processes in deep cgroups", func(h *H) {
		b, pids := hide(h)
		defer sweep(b)
		r := h.RT("ps", "-f", "json", b.ID)
		for _, p := range pids {
			if r.Code != 0 || !strings.Contains(r.Stdout, p) {
				h.Errorf("process %s is not listed: status %d %s %.200s", p, r.Code, r.Stdout, r.Stderr)
			}
		}
		if r := h.RT("kill", "--all", b.ID, "KILL"); r.Code != 0 {
			h.Errorf("kill: status %d %.200s", r.Code, r.Stderr)
		}
		gone(h, pids)
		h.Await("stopped", func() bool { return h.State(b.ID).Status == "stopped" })
		h.Want(h.RT("delete", b.ID), "", 0)
	})
	row(t, "issue7 F5 delete --force removes processes in deep cgroups and the groups", func(h *H) {
		b, pids := hide(h)
		defer sweep(b)
		if r := h.RT("delete", "-f", b.ID); r.Code != 0 {
			h.Errorf("delete: status %d %.200s", r.Code, r.Stderr)
		}
		gone(h, pids)
	})
}

// TestFrozenInit has processes of a container freeze its first process whenever it is thawed: not even SIGKILL ends it
// (issue 7 G5).
func TestFrozenInit(t *testing.T) {
	row(t, "issue7 G5 delete --force ends a first process that others freeze again and again", func(h *H) {
		b := h.Bundle().Edit(`linux.namespaces=[{"type":"mount"},{"type":"pid"},{"type":"cgroup"}]`, "-hostname", mnt("/cg", "cgroup", "cgroup", "rw")).
			WithoutMounts("/sys", "/dev/mqueue", "/sys/fs/cgroup").Args("attack", "freeze", "/cg")
		attacker(h, b)
		defer sweep(b)
		r := h.Up(b)
		pid := h.State(b.ID).Pid
		h.Await("the frozen process", func() bool {
			data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
			return err == nil && strings.Contains(string(data), "/cold\n") || r.Again().Stdout != ""
		})
		if out := r.Again().Stdout; out != "" {
			h.Fatalf("the attack does not work: %s", out)
		}
		h.Want(h.RT("delete", "--force", b.ID), "", 0)
		h.NoLeak("a delete of a frozen container")
	})
}

// sweep removes what a runtime has left, so that nothing else fails of it.
func sweep(b *Bundle) {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + b.ID)
	for _, dir := range append(dirs, "/sys/fs/cgroup/"+b.ID) {
		for try := 0; try < 50 && cgroupfs.Exists(dir); try++ {
			_, _ = cgroupfs.Walk(dir, 1000, func(g cgroupfs.Group) error {
				_ = g.Write("freezer.state", "THAWED")
				_ = g.Write("cgroup.freeze", "0")
				procs, _ := g.Read("cgroup.procs", 4096)
				for _, p := range strings.Fields(string(procs)) {
					pid, _ := strconv.Atoi(p)
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
				return nil
			}, func(parent cgroupfs.Group, name string) error {
				_ = parent.Rmdir(name)
				return nil
			})
			_ = cgroupfs.Rmdir(dir)
			time.Sleep(10 * time.Millisecond)
		}
	}
}
