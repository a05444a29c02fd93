package systemd

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestPodman has podman drive the runtime with its systemd manager, the default on such a machine.
func TestPodman(t *testing.T) {
	b := newBox(t, 0)
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
	storage := b.dir + "-podman"
	podman := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("podman", append([]string{"--root", storage + "/root", "--runroot", storage + "/run", "--storage-driver", "vfs",
			"--cgroup-manager", "systemd", "--runtime", runtimePath(t)}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("podman %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	t.Cleanup(func() { os.RemoveAll(storage) })
	rootfs := b.dir + "/rootfs"
	if out := podman("run", "--rm", "--network", "none", "--cgroupns", "host", "--rootfs", rootfs, "cat", "/proc/self/cgroup"); !strings.Contains(out, ":/machine.slice/libpod-") {
		t.Errorf("run: %s", out)
	}
	id := podman("run", "-d", "--name", "box", "--network", "none", "--memory", "64m", "--pids-limit", "33", "--cpus", "0.5", "--rootfs", rootfs, "sleep", "1000")
	id = id[strings.LastIndexByte(id, '\n')+1:]
	scope := "libpod-" + id + ".scope"
	memory := "MemoryMax"
	if !v2() {
		memory = "MemoryLimit"
	}
	for property, want := range map[string]string{"ActiveState": "active", "Slice": "machine.slice", "TasksMax": "33", "CPUQuotaPerSecUSec": "500ms", memory: "67108864"} {
		if got := b.systemctl("show", "--value", "-p", property, scope); got != want {
			t.Errorf("%s is %q, want %q", property, got, want)
		}
	}
	if out := podman("exec", "box", "cat", "/proc/self/cgroup"); strings.Contains(out, "/..") {
		t.Errorf("exec: %s", out)
	}
	podman("rm", "-f", "-t", "0", "box")
	if s := b.systemctl("list-units", "--all", "--no-legend", "--plain", scope); s != "" {
		t.Errorf("left unit: %s", s)
	}
	if out, _ := exec.Command("find", cgroupRoot, "-name", "*"+id+"*").Output(); len(out) > 0 {
		t.Errorf("left cgroups: %s", out)
	}
}
