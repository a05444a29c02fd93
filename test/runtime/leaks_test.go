package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

func TestLeaks(t *testing.T) {
	if !ocitest.Tare() {
		t.Skip("a command of tare-runtime alone")
	}
	row(t, "leaks of containers that are well", func(h *H) {
		h.Want(h.RT("leaks"), "~^$", 0)
		b := h.Bundle().Args("sleep", "50")
		h.Up(b)
		h.Want(h.RT("leaks", b.ID), "~^$", 0)
		h.MustRT("delete", "-f", b.ID)
		h.Want(h.RT("leaks", b.ID), "~^$", 0)
		h.FailRT("invalid container ID", "leaks", "a/b")
	})
	row(t, "leaks of one that was killed", func(h *H) {
		v1(h.T)
		b := h.Bundle().Edit(`linux.namespaces=[{"type":"mount"},{"type":"uts"},{"type":"ipc"},{"type":"network"}]`).Sh("sleep 1000 & sleep 2000")
		h.Up(b)
		h.Await("two processes", func() bool { return strings.Contains(h.MustRT("ps", "-f", "json", b.ID).Stdout, ",") })
		if err := syscall.Kill(h.State(b.ID).Pid, syscall.SIGKILL); err != nil {
			h.Fatalf("%v", err)
		}
		h.AwaitStatus(b.ID, "stopped")
		if err := unix.Mount("t", b.Rootfs+"/tmp", "tmpfs", 0, ""); err != nil {
			h.Fatalf("%v", err)
		}
		h.Cleanup(func() { unix.Unmount(b.Rootfs+"/tmp", 0) })
		dead := exec.Command("true")
		if err := dead.Run(); err != nil {
			h.Fatalf("%v", err)
		}
		tmp := filepath.Join(h.Root, "~"+strconv.Itoa(dead.Process.Pid)+"~x")
		if err := os.Mkdir(tmp, 0o700); err != nil {
			h.Fatalf("%v", err)
		}
		r := h.RT("leaks")
		for _, want := range []string{"container " + b.ID + " has no process", "is in the cgroup of container " + b.ID, "mount on " + b.Rootfs + "/tmp\n",
			"cgroup /sys/fs/cgroup/", "directory " + tmp + " is of a create that was killed"} {
			if r.Code != 1 || !strings.Contains(r.Stdout, want) {
				h.Errorf("status %d, %q is not in:\n%s", r.Code, want, r.Stdout)
			}
		}
		unix.Unmount(b.Rootfs+"/tmp", 0)
		os.Remove(tmp)
		h.MustRT("delete", b.ID)
		h.Want(h.RT("leaks", b.ID), "~^$", 0)
	})
	row(t, "leaks of one whose state is gone", func(h *H) {
		b := h.Bundle()
		dir := filepath.Join("/sys/fs/cgroup/pids", b.ID)
		v1(h.T)
		if err := os.Mkdir(dir, 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		h.Cleanup(func() { os.Remove(dir) })
		h.Want(h.RT("leaks", b.ID), "cgroup "+dir, 1)
		h.Want(h.RT("leaks"), "~^$", 0)
	})
}
