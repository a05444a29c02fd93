package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const manyLines = 341

func tooManyMaps() string {
	var l []string
	for i := range manyLines {
		l = append(l, fmt.Sprintf(`{"containerID":%d,"hostID":%d,"size":1}`, i, 100000+2*i))
	}
	m := "[" + strings.Join(l, ",") + "]"
	return `linux+={"uidMappings":` + m + `,"gidMappings":` + m + `}`
}

var namespaceCases = []Case{
	{Row: "N1 unknown type", Edit: []string{`linux.namespaces+=[{"type":"banana"}]`}, Err: "banana"},
	{Row: "N1 empty type", Edit: []string{`linux.namespaces+=[{"type":""}]`}, Err: "namespace"},
	{Row: "N3 relative path", Edit: []string{`-hostname`, `linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"network","path":"proc/1/ns/net"}]`}, Err: "path"},
	{Row: "N3 missing path", Edit: []string{`-hostname`, `linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"network","path":"/run/no/such"}]`}, Err: "no such file or directory"},
	{Row: "N3 another type", Edit: []string{`-hostname`, `linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"network","path":"/proc/1/ns/ipc"}]`}, Err: "*"},
	{Row: "N3 not a namespace", Edit: []string{`-hostname`, `linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"network","path":"/etc/passwd"}]`}, Err: "*"},
	{Row: "N4 duplicate type", Edit: []string{`linux.namespaces+=[{"type":"pid"}]`}, Err: "pid"},
	{Row: "N cgroup", Edit: []string{`linux.namespaces+=[{"type":"cgroup"}]`}, Sh: "grep -c ':/$' /proc/self/cgroup >/n; grep -v ':/$' /proc/self/cgroup | grep -v ^0:; test $(cat /n) -gt 0", Out: "~^$"},
	{Row: "U1 user namespace", Edit: []string{userns, idMaps(100000, 65536)}, Setup: rootfsOf(100000), Sh: "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u; stat -c %u /etc",
		Out: "~^0 100000 65536\n 0 100000 65536\n0\n0$"},
	{Row: "U1 two ranges", Edit: []string{userns,
		`linux.uidMappings=[{"containerID":0,"hostID":100000,"size":1},{"containerID":1,"hostID":200000,"size":10}]`,
		`linux.gidMappings=[{"containerID":0,"hostID":100000,"size":1},{"containerID":1,"hostID":200000,"size":10}]`}, Sh: "wc -l </proc/self/uid_map", Out: "2"},
	{Row: "U1 a user inside", Edit: []string{userns, idMaps(100000, 65536), `process.user={"uid":1000,"gid":1000,"additionalGids":[5]}`}, Sh: "id -u; id -G", Out: "~^1000\n(1000 5|5 1000)$"},
	{Row: "U1 no maps", Edit: []string{userns}, Err: "map"},
	{Row: "U1 only uid maps", Edit: []string{userns, `linux.uidMappings=[{"containerID":0,"hostID":100000,"size":65536}]`}, Err: "map"},
	{Row: "U2 maps without the namespace", Edit: []string{idMaps(100000, 65536)}, Err: "user"},
	{Row: "U3 owners are left alone", Edit: []string{userns, idMaps(100000, 65536)}, Sh: "stat -c %u /bin", Out: "65534"},
	{Row: "U5 too many lines", Edit: []string{userns, tooManyMaps()}, Err: "*"},
	{Row: "U1 empty range", Edit: []string{userns, idMaps(100000, 0)}, Err: "*"},
	{Row: "U1 overlapping ranges", Edit: []string{userns,
		`linux.uidMappings=[{"containerID":0,"hostID":100000,"size":10},{"containerID":5,"hostID":200000,"size":10}]`,
		`linux.gidMappings=[{"containerID":0,"hostID":100000,"size":10}]`}, Err: "*"},
	{Row: "U6 user that is not mapped", Edit: []string{userns, idMaps(100000, 1), `process.user={"uid":5,"gid":0}`}, Err: "*"},
	{Row: "U6 group that is not mapped", Edit: []string{userns, idMaps(100000, 1), `process.user={"uid":0,"gid":5}`}, Err: "*"},
	{Row: "U1 devices in a user namespace", Edit: []string{userns, idMaps(100000, 65536)}, Setup: rootfsOf(100000), Sh: "echo x >/dev/null && head -c 4 /dev/zero | wc -c && test -c /dev/urandom && ls /dev/ptmx /dev/fd", Out: "~^4\n"},
	{Row: "U1 mount options in a user namespace", Edit: []string{userns, idMaps(100000, 65536), mnt("/t", "tmpfs", "t", "size=1m", "noexec")}, Setup: rootfsOf(100000), Sh: mountOpts("/t"), Out: "~noexec"},
	{Row: "T1 boot time", Edit: []string{`linux.namespaces+=[{"type":"time"}]`, `linux.timeOffsets={"boottime":{"secs":604800}}`}, Sh: "cut -d. -f1 /proc/uptime | awk '{print ($1>=604800)}'", Out: "1"},
	{Row: "T1 monotonic", Edit: []string{`linux.namespaces+=[{"type":"time"}]`, `linux.timeOffsets={"monotonic":{"secs":5,"nanosecs":7}}`}, Sh: "grep monotonic /proc/self/timens_offsets | tr -s ' '", Out: "monotonic 5 7"},
	{Row: "T1 unknown clock", Edit: []string{`linux.namespaces+=[{"type":"time"}]`, `linux.timeOffsets={"banana":{"secs":5}}`}, Err: "banana"},
	{Row: "T1 without the namespace", Edit: []string{`linux.timeOffsets={"boottime":{"secs":5}}`}, Err: "time"},
	{Row: "T1 before the boot", Edit: []string{`linux.namespaces+=[{"type":"time"}]`, `linux.timeOffsets={"boottime":{"secs":-99999999}}`}, Err: "*"},
}

func TestNamespaces(t *testing.T) { runCases(t, namespaceCases) }

var nsFiles = map[string]string{"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt", "cgroup": "cgroup", "user": "user", "time": "time"}

func TestNamespaceJoin(t *testing.T) {
	row(t, "N linux absent runs or is refused, without a trace", func(h *H) {
		r := h.Run(h.Bundle().Edit(`-linux`, `-hostname`, `mounts=[]`))
		if r.Code != 0 && r.Stderr == "" {
			h.Errorf("status %d without a word", r.Code)
		}
		h.NoLeak("a run without linux")
	})
	row(t, "N2 new for listed, the runtime's for unlisted", func(h *H) {
		b := h.Bundle().Edit(`linux.namespaces=[{"type":"mount"},{"type":"ipc"},{"type":"cgroup"}]`, `-hostname`).Args("sleep", "60")
		h.Create(b)
		pid := h.State(b.ID).Pid
		for typ, file := range nsFiles {
			listed := typ == "mount" || typ == "ipc" || typ == "cgroup"
			if same := nsID(h, pid, file) == nsID(h, "self", file); same == listed {
				h.Errorf("%s namespace: the runtime's is %v, listed is %v", typ, same, listed)
			}
		}
	})
	for _, typ := range []string{"network", "ipc", "uts", "cgroup", "pid"} {
		row(t, "N3 join "+typ, func(h *H) {
			owner := holder(h)
			path := fmt.Sprintf("/proc/%d/ns/%s", owner, nsFiles[typ])
			if typ == "pid" {
				path = fmt.Sprintf("/proc/%d/ns/pid_for_children", owner)
			}
			want, err := os.Readlink(path)
			if err != nil {
				h.Fatalf("%v", err)
			}
			b := h.Bundle().Args("sleep", "60").Edit("-hostname")
			ns := fmt.Sprintf(`{"type":%q,"path":%q}`, typ, path)
			for _, o := range []string{"pid", "network", "ipc", "uts", "mount"} {
				if o != typ {
					ns += fmt.Sprintf(`,{"type":%q}`, o)
				}
			}
			b.Edit("linux.namespaces=[" + ns + "]")
			h.Up(b)
			if got := nsID(h, h.State(b.ID).Pid, nsFiles[typ]); got != want {
				h.Errorf("the container is in %s, want %s", got, want)
			}
			h.Want(h.RT("exec", b.ID, "readlink", "/proc/self/ns/"+nsFiles[typ]), want, 0)
			if typ == "pid" {
				h.RT("kill", b.ID, "KILL")
			}
		})
	}
	row(t, "N3 join user and network", func(h *H) {
		a := h.Bundle().Edit(userns, idMaps(100000, 65536)).Args("sleep", "60")
		h.Up(a)
		pid := h.State(a.ID).Pid
		b := h.Bundle().Args("sleep", "60").Edit("-hostname",
			fmt.Sprintf(`linux.namespaces=[{"type":"user","path":"/proc/%[1]d/ns/user"},{"type":"network","path":"/proc/%[1]d/ns/net"},{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"pid"}]`, pid))
		h.Up(b)
		for _, f := range []string{"user", "net"} {
			if nsID(h, h.State(b.ID).Pid, f) != nsID(h, pid, f) {
				h.Errorf("the %s namespace is not the joined one", f)
			}
		}
		h.Want(h.RT("exec", b.ID, "cat", "/proc/self/uid_map"), "~0 +100000 +65536", 0)
	})
	row(t, "N6 join a mount namespace", func(h *H) {
		c := exec.Command("unshare", "--mount", "sleep", "1000")
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := c.Start(); err != nil {
			h.Fatalf("%v", err)
		}
		h.Cleanup(func() { c.Process.Kill(); c.Wait() })
		h.Await("mount namespace", func() bool { return nsID(h, c.Process.Pid, "mnt") != nsID(h, "self", "mnt") })
		want := nsID(h, c.Process.Pid, "mnt")
		b := h.Bundle().Edit(fmt.Sprintf(`linux.namespaces=[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"network"},{"type":"mount","path":"/proc/%d/ns/mnt"}]`, c.Process.Pid))
		r := h.Run(b.Args("readlink", "/proc/self/ns/mnt"))
		if r.Code == 0 && strings.TrimSpace(r.Stdout) != want || r.Code != 0 && r.Stderr == "" {
			h.Errorf("status %d, output %q, want %s or a refusal", r.Code, r.Stdout, want)
		}
	})
	row(t, "N3 join a named network", func(h *H) {
		name := h.NewID()
		if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
			h.Fatalf("ip netns add: %v: %s", err, out)
		}
		h.Cleanup(func() {
			exec.Command("ip", "netns", "del", name).Run()
			unix.Unmount("/run/netns", unix.MNT_DETACH)
			os.Remove("/run/netns")
		})
		exec.Command("ip", "netns", "exec", name, "ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1").Run()
		b := h.Bundle().Edit(fmt.Sprintf(`linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"network","path":"/run/netns/%s"}]`, name))
		b.Sh("ls /sys/class/net; ip link show lo")
		h.Want(h.Run(b), "~^d0\nd1\nlo\n", 0)
	})
}

// holder starts a process in new network, ipc, uts, cgroup and (for its children) pid namespaces; it ends with the case.
func holder(h *H) int {
	c := exec.Command("unshare", "--net", "--ipc", "--uts", "--cgroup", "--pid", "--fork", "sleep", "1000")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() { c.Process.Kill(); c.Wait(); killChildren() })
	h.Await("new namespaces", func() bool {
		l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", c.Process.Pid))
		return err == nil && l != nsID(h, "self", "pid")
	})
	return c.Process.Pid
}

// killChildren kills what the holder left: its child, the init of its pid namespace, which is now ours.
func killChildren() {
	data, _ := os.ReadFile("/proc/self/task/" + fmt.Sprint(os.Getpid()) + "/children")
	for _, p := range strings.Fields(string(data)) {
		var pid int
		fmt.Sscan(p, &pid)
		syscall.Kill(pid, syscall.SIGKILL)
	}
}
