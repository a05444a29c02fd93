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
)

// The tests named TestV2 need a machine whose cgroups are version 2 alone: see test/vm.

const cgroup2 = "/sys/fs/cgroup"

func v2(t *testing.T) {
	if _, err := os.Stat(cgroup2 + "/cgroup.controllers"); err != nil {
		t.Skip("this machine's /sys/fs/cgroup is not cgroup v2 (make test-vm runs this in a virtual machine)")
	}
}

const (
	cgroupns = `linux.namespaces+=[{"type":"cgroup"}]`
	// 7:0 is /dev/loop0, a device that input and output can be limited for.
	loop0 = `[{"major":7,"minor":0,"rate":1048576}]`
)

// rwCgroup makes the mount of the container's own cgroup writable.
func rwCgroup(_ *H, b *Bundle) {
	for i := range b.Spec.Mounts {
		if m := &b.Spec.Mounts[i]; m.Type == "cgroup" {
			m.Options = []string{"nosuid", "noexec", "nodev", "relatime"}
		}
	}
}

// read2 reads a file of the bundle's cgroup; the suite's bundles have the path /ID.
func read2(h *H, b *Bundle, file string) string {
	data, err := os.ReadFile(filepath.Join(cgroup2, b.ID, file))
	if err != nil {
		h.Errorf("%v", err)
	}
	return strings.TrimSpace(string(data))
}

var v2Limits = []struct {
	row, edit string
	want      []string // file=content
}{
	{"C6 memory", `memory={"limit":33554432,"reservation":16777216,"swap":50331648}`, []string{"memory.max=33554432", "memory.low=16777216", "memory.swap.max=16777216"}},
	{"C6 no swap", `memory={"limit":33554432,"swap":33554432}`, []string{"memory.swap.max=0"}},
	{"C6 memory unlimited", `memory={"limit":-1}`, []string{"memory.max=max", "memory.swap.max=max"}},
	{"C12 shares", `cpu={"shares":1024}`, []string{"cpu.weight=100"}},
	{"C12 fewest and most shares", `cpu={"shares":262144}`, []string{"cpu.weight=10000"}},
	{"C13 quota", `cpu={"quota":20000,"period":50000,"burst":10000}`, []string{"cpu.max=20000 50000", "cpu.max.burst=10000"}},
	{"C13 quota without a period", `cpu={"quota":20000}`, []string{"cpu.max=20000 100000"}},
	{"C15 cpuset", `cpu={"cpus":"1","mems":"0"}`, []string{"cpuset.cpus=1", "cpuset.mems=0", "cpuset.cpus.effective=1"}},
	{"C16 idle", `cpu={"idle":1}`, []string{"cpu.idle=1"}},
	{"C17 weight", `blockIO={"weight":1000}`, []string{"io.weight=default 10000"}},
	{"C17 throttle", `blockIO={"throttleReadBpsDevice":` + loop0 + `,"throttleWriteIOPSDevice":` + loop0 + `}`, []string{"io.max=7:0 rbps=1048576 wbps=max riops=max wiops=1048576"}},
	{"C21 pids", `pids={"limit":42}`, []string{"pids.max=42"}},
	{"C23 unified", `unified={"pids.max":"7","memory.high":"20971520","cgroup.max.depth":"3"}`, []string{"pids.max=7", "memory.high=20971520", "cgroup.max.depth=3"}},
	{"C23 unified is written last", `pids={"limit":42},linux.resources.unified={"pids.max":"8"}`, []string{"pids.max=8"}},
}

func TestV2Limits(t *testing.T) {
	v2(t)
	for _, c := range v2Limits {
		row(t, c.row, func(h *H) {
			b := h.Bundle().Args("sleep", "60")
			for _, e := range strings.Split(c.edit, ",linux.resources.") {
				b.Edit("linux.resources." + e)
			}
			h.Create(b)
			for _, w := range c.want {
				file, want, _ := strings.Cut(w, "=")
				if got := read2(h, b, file); got != want {
					h.Errorf("%s is %q, want %q", file, got, want)
				}
			}
			if pid := read2(h, b, "cgroup.procs"); pid != strconv.Itoa(h.State(b.ID).Pid) {
				h.Errorf("the group's processes are %q", pid)
			}
			h.MustRT("delete", "-f", b.ID)
			h.NoLeak("delete")
		})
	}
}

var v2Errors = []Case{
	{Row: "C23 unknown file", Edit: []string{`linux.resources.unified={"foo.bar":"1"}`}, Err: "foo.bar"},
	{Row: "C23 unknown file of a known controller", Edit: []string{`linux.resources.unified={"memory.nope":"1"}`}, Err: "memory.nope"},
	{Row: "C23 path", Edit: []string{`linux.resources.unified={"../cgroup.procs":"1"}`}, Err: "unified"},
	{Row: "C23 bad value", Edit: []string{`linux.resources.unified={"pids.max":"x"}`}, Err: "pids.max"},
	{Row: "C6 swap below the limit", Edit: []string{`linux.resources.memory={"limit":33554432,"swap":16777216}`}, Err: "swap"},
	{Row: "C24 C8 swappiness", Edit: []string{`linux.resources.memory={"swappiness":10}`}, Err: "swappiness"},
	{Row: "C24 C9 no OOM killer", Edit: []string{`linux.resources.memory={"disableOOMKiller":true}`}, Err: "disableOOMKiller"},
	{Row: "C24 C14 real time", Edit: []string{`linux.resources.cpu={"realtimeRuntime":1000,"realtimePeriod":10000}`}, Err: "realtime"},
	{Row: "C15 no such cpu", Edit: []string{`linux.resources.cpu={"cpus":"77"}`}, Err: "cpus"},
	{Row: "C17 leaf weight", Edit: []string{`linux.resources.blockIO={"leafWeight":100}`}, Err: "leafWeight"},
	{Row: "C17 no such device", Edit: []string{`linux.resources.blockIO={"throttleReadBpsDevice":[{"major":999,"minor":99,"rate":1048576}]}`}, Err: "throttleReadBpsDevice"},
	{Row: "C24 C20 network", Edit: []string{`linux.resources.network={"classID":1048577}`}, Err: "network"},
}

func TestV2Errors(t *testing.T) { v2(t); runCases(t, v2Errors) }

// seen lists what a container sees of cgroups: its own group, and no way to another one.
const seen = "cd /sys/fs/cgroup; cat /proc/self/cgroup; cat cgroup.procs | head -n1; cat pids.max; ls -d */ 2>/dev/null | wc -l; mkdir x 2>&1 | grep -o 'Read-only.*\\|denied'; stat -f -c %T . ; ls ../cgroup/.. | wc -l"

var v2Inside = []Case{
	{Row: "C1 default", Args: []string{"true"}},
	{Row: "NS cgroup namespace", Edit: []string{cgroupns, `linux.resources.pids={"limit":42}`}, Sh: seen, Out: "~^0::/\n1\n42\n0\nRead-only file system\n"},
	{Row: "M cgroup without a namespace", Edit: []string{`linux.resources.pids={"limit":42}`}, Sh: seen, Out: "~^0::/[^/]*\n1\n42\n0\nRead-only file system\n"},
	{Row: "M cgroup is writable when asked", Edit: []string{cgroupns}, Setup: rwCgroup, Sh: "mkdir /sys/fs/cgroup/x && sh -c 'echo 0 >/sys/fs/cgroup/x/cgroup.procs; cat /proc/self/cgroup'", Out: "0::/x"},
	{Row: "C21 limit holds", Edit: []string{`linux.resources.pids={"limit":3}`}, Sh: "for i in 1 2 3 4 5; do sleep 1 & done; wait", Code: 2, Warn: "can't fork"},
	{Row: "C15 affinity", Edit: []string{`linux.resources.cpu={"cpus":"1"}`}, Sh: "grep Cpus_allowed_list /proc/self/status | tr -s '\\t' ' '", Out: "Cpus_allowed_list: 1"},
	{Row: "C6 out of memory", Edit: []string{`linux.resources.memory={"limit":16777216,"swap":16777216}`}, Sh: "exec tail -c 60000000 /dev/zero", Code: 137},
	{Row: "C5 devices of a user namespace", Edit: []string{userns, idMaps(100000, 65536)}, Setup: rootfsOf(100000), Sh: "head -c1 /dev/zero | wc -c; mknod /s b 7 0 2>&1 | grep -o 'not permitted'", Out: "1\nnot permitted"},
	{Row: "U1 user and cgroup namespace", Edit: []string{userns, idMaps(100000, 65536), cgroupns}, Setup: rootfsOf(100000), Sh: "cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs | head -n1; mkdir /sys/fs/cgroup/x", Out: "~^0::/\n1$", Code: 1, Warn: "Read-only"},
	{Row: "C4 user namespace with a group of its own", Edit: []string{userns, idMaps(100000, 65536), cgroupns}, Setup: func(h *H, b *Bundle) { rootfsOf(100000)(h, b); rwCgroup(h, b) },
		Sh:  "cd /sys/fs/cgroup; stat -c %u . cgroup.procs cgroup.subtree_control memory.max; mkdir x && echo 1 >x/cgroup.procs && cat /proc/1/cgroup; echo +pids >cgroup.subtree_control && cat x/pids.max",
		Out: "0\n0\n0\n65534\n0::/x\nmax"},
	{Row: "C4 a user", Edit: []string{cgroupns, `process.user={"uid":7,"gid":8}`}, Setup: rwCgroup, Sh: "cd /sys/fs/cgroup; stat -c %u:%g . cgroup.procs cgroup.threads pids.max; mkdir x && echo made", Out: "7:0\n7:0\n7:0\n0:0\nmade"},
	{Row: "C4 not without a cgroup namespace", Edit: []string{`process.user={"uid":7,"gid":8}`}, Setup: rwCgroup, Sh: "stat -c %u /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs", Out: "0\n0"},
	{Row: "C4 not when it is read-only", Edit: []string{cgroupns, `process.user={"uid":7,"gid":8}`}, Sh: "stat -c %u /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs", Out: "0\n0"},
}

func TestV2Inside(t *testing.T) { v2(t); runCases(t, v2Inside) }

func TestV2Exec(t *testing.T) {
	v2(t)
	row(t, "X exec lands in the group", func(h *H) {
		b := h.Bundle().Edit(cgroupns).Args("sleep", "60")
		h.Up(b)
		h.Want(h.RT("exec", b.ID, "sh", "-c", "cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs | wc -l"), "0::/\n4", 0)
		h.Want(h.RT("exec", "-d", b.ID, "sleep", "60"), "", 0)
		if n := len(strings.Fields(read2(h, b, "cgroup.procs"))); n != 2 {
			h.Errorf("%d processes in the group, want 2", n)
		}
		stop := h.ReapOrphans()
		h.MustRT("kill", "--all", b.ID, "KILL")
		h.AwaitStatus(b.ID, "stopped")
		h.MustRT("delete", b.ID)
		stop()
		h.NoLeak("delete")
	})
	row(t, "X exec follows the container to a child group", func(h *H) {
		b := h.Bundle().Edit(cgroupns)
		rwCgroup(h, b)
		b.Sh("cd /sys/fs/cgroup && mkdir init && echo 1 >init/cgroup.procs && echo +pids +memory >cgroup.subtree_control && echo done >/done; exec sleep 60")
		h.Up(b)
		h.Await("the container's own groups", func() bool { _, err := os.Stat(b.Rootfs + "/done"); return err == nil })
		h.Want(h.RT("exec", b.ID, "cat", "/proc/self/cgroup"), "0::/init", 0)
		if err := os.Mkdir(filepath.Join(cgroup2, b.ID, "other"), 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		h.Want(h.RT("exec", "--cgroup", "other", b.ID, "cat", "/proc/self/cgroup"), "0::/other", 0)
		h.FailRT("cgroup", "exec", "--cgroup", "../..", b.ID, "true")
		h.MustRT("delete", "-f", b.ID)
		h.NoLeak("delete")
	})
	row(t, "X exec in user namespaces", func(h *H) {
		b := h.Bundle().Edit(userns, idMaps(100000, 65536), cgroupns).Args("sleep", "60")
		rootfsOf(100000)(h, b)
		h.Up(b)
		h.Want(h.RT("exec", b.ID, "sh", "-c", "id -u; cat /proc/self/cgroup"), "0\n0::/", 0)
	})
}

func TestV2Lifecycle(t *testing.T) {
	v2(t)
	row(t, "L pause, resume, kill while paused", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.MustRT("pause", b.ID)
		if s, frozen := h.State(b.ID).Status, read2(h, b, "cgroup.events"); s != "paused" || !strings.Contains(frozen, "frozen 1") {
			h.Errorf("status %s, events %q", s, frozen)
		}
		h.FailRT("paused", "exec", b.ID, "true")
		h.MustRT("resume", b.ID)
		h.Want(h.RT("exec", b.ID, "true"), "", 0)
		h.MustRT("pause", b.ID)
		h.MustRT("kill", b.ID, "KILL")
		h.AwaitStatus(b.ID, "stopped")
		h.MustRT("delete", b.ID)
		h.NoLeak("delete")
	})
	row(t, "C27 pressure and its like in the statistics", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		stats := h.MustRT("events", "--stats", b.ID).Stdout
		for file, name := range map[string]string{"cpu.pressure": "cpu", "memory.pressure": "memory", "io.pressure": "blkio"} {
			if _, err := os.Stat(filepath.Join(cgroup2, b.ID, file)); err != nil {
				h.T.Logf("the kernel has no %s", file)
				continue
			}
			var event struct {
				Data map[string]struct {
					PSI *struct{ Some, Full *struct{ Total *uint64 } }
				}
			}
			if err := json.Unmarshal([]byte(stats), &event); err != nil && event.Data == nil {
				h.Fatalf("%v: %s", err, stats)
			}
			if p := event.Data[name].PSI; p == nil || p.Some == nil || p.Some.Total == nil {
				h.Errorf("%s has no pressure: %s", name, stats)
			}
		}
	})
	row(t, "L no pid namespace: kill --all and delete end all", func(h *H) {
		for _, how := range []string{"all", "delete"} {
			b := h.Bundle(func(s *specs.Spec) {
				s.Linux.Namespaces = append(s.Linux.Namespaces[1:], specs.LinuxNamespace{Type: "cgroup"})
			})
			rwCgroup(h, b)
			b.Sh("mkdir /sys/fs/cgroup/deep; for i in 1 2 3; do sh -c 'echo 0 >/sys/fs/cgroup/deep/cgroup.procs; echo x >>/up; exec sleep 60' & done; wait")
			h.Up(b)
			h.Await("three processes below", func() bool {
				data, _ := os.ReadFile(b.Rootfs + "/up")
				return len(strings.Fields(string(data))) == 3
			})
			stop := h.ReapOrphans()
			if how == "all" {
				h.MustRT("kill", "-a", b.ID, "KILL")
				h.AwaitStatus(b.ID, "stopped")
				h.MustRT("delete", b.ID)
			} else {
				h.MustRT("delete", "-f", b.ID)
			}
			stop()
			h.NoLeak(how)
		}
	})
	row(t, "C2 a cgroup with processes is refused", func(h *H) {
		a := h.Bundle().Args("sleep", "60")
		h.Up(a)
		b := h.Bundle()
		b.Spec.Linux.CgroupsPath = a.Spec.Linux.CgroupsPath
		wantInUse(h, b, a.ID)
	})
	row(t, "E events tell of memory that ran out", func(h *H) {
		b := h.Bundle().Edit(`linux.resources.memory={"limit":16777216,"swap":16777216}`).Sh("while ! test -e /go; do usleep 10000; done; tail -c 60000000 /dev/zero; sleep 60")
		h.Up(b)
		_, wait := h.Start(Cmd{Args: []string{"events", "--interval", "100s", b.ID}})
		h.Await("the watcher", func() bool { return inotifyOpen(b.ID) })
		h.File(b.Rootfs+"/go", "", 0o644)
		h.Await("the killed process", func() bool { return strings.Contains(read2(h, b, "memory.events"), "oom_kill 1") })
		h.MustRT("kill", b.ID, "KILL")
		if r := wait(); r.Code != 0 || !strings.Contains(r.Stdout, `"oom"`) || !strings.Contains(r.Stdout, `"limit":16777216`) {
			h.Errorf("status %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
	})
	row(t, "C11 update goes back when a value is refused", func(h *H) {
		b := h.Bundle().Edit(`linux.resources={"memory":{"limit":33554432,"swap":33554432},"pids":{"limit":10}}`).Args("sleep", "60")
		h.Up(b)
		h.MustRT("update", "--memory", "64M", "--memory-swap", "96M", "--cpu-share", "512", "--cpu-quota", "30000", "--pids-limit", "20", b.ID)
		want := map[string]string{"memory.max": "67108864", "memory.swap.max": "33554432", "cpu.weight": "59", "cpu.max": "30000 100000", "pids.max": "20"}
		check := func(when string) {
			for f, w := range want {
				if got := read2(h, b, f); got != w {
					h.Errorf("%s: %s is %q, want %q", when, f, got, w)
				}
			}
		}
		check("update")
		h.FailRT("cpus", "update", "--memory", "32M", "--memory-swap", "48M", "--cpu-quota", "40000", "--pids-limit", "5", "--cpuset-cpus", "77", b.ID)
		check("refused update")
		r := h.Do(Cmd{Args: []string{"update", "-r", "-", b.ID}, Stdin: `{"memory":{"limit":4096,"checkBeforeUpdate":true}}`})
		if r.Code == 0 {
			h.Errorf("a limit below the usage was taken")
		}
		check("update below the usage")
	})
}

// wantInUse runs b, whose cgroup is container other's, which must fail and leave the other alone.
func wantInUse(h *H, b *Bundle, other string) {
	if r := h.Run(b); r.Code == 0 || !strings.Contains(r.Stderr, "cgroup") {
		h.Errorf("status %d: %s", r.Code, r.Stderr)
	}
	if s := h.State(other); s.Status != "running" {
		h.Errorf("the first container is %s", s.Status)
	}
}

// inotifyOpen tells whether the events command for id watches already.
func inotifyOpen(id string) bool {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.Contains(to, "inotify") {
			cmd, _ := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(fd)), "cmdline"))
			if strings.Contains(string(cmd), id) {
				return true
			}
		}
	}
	return false
}

// delegated makes a cgroup of the user's, as systemd gives one to a session, and moves the suite into it: path of the group
// relative to the mount point.
func delegated(h *H) string {
	dir := filepath.Join(cgroup2, h.NewID())
	self := func(to string) {
		if err := os.WriteFile(to+"/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			h.Fatalf("%v", err)
		}
	}
	for _, d := range []string{dir, dir + "/session"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		for _, f := range []string{"", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"} {
			if err := os.Chown(d+f, user, user); err != nil {
				h.Fatalf("%v", err)
			}
		}
	}
	if err := os.WriteFile(cgroup2+"/cgroup.subtree_control", []byte("+pids +memory +cpu"), 0); err != nil {
		h.Fatalf("%v", err)
	}
	self(dir + "/session")
	h.Cleanup(func() {
		self(cgroup2)
		for _, d := range []string{dir + "/session", dir} {
			if err := os.Remove(d); err != nil {
				h.Errorf("%v", err)
			}
		}
	})
	return strings.TrimPrefix(dir, cgroup2)
}

func TestV2Rootless(t *testing.T) {
	v2(t)
	row(t, "C28 limits in a delegated group", func(h *H) {
		parent := delegated(h)
		b := rootless(h, `linux.resources={"pids":{"limit":9},"memory":{"limit":33554432}}`, cgroupns,
			`mounts+=[{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","relatime"]}]`).Args("sleep", "60")
		b.Edit(fmt.Sprintf(`linux.cgroupsPath="%s/%s"`, parent, b.ID))
		h.Want(asUser(h, b, "create", "-b", b.Dir, b.ID), "", 0)
		for f, w := range map[string]string{"pids.max": "9\n", "memory.max": "33554432\n"} {
			if got, err := os.ReadFile(filepath.Join(cgroup2, parent, b.ID, f)); string(got) != w {
				h.Errorf("%s is %q, want %q (%v)", f, got, w, err)
			}
		}
		h.Want(h.Do(userCmd(h, b, "start", b.ID)), "", 0)
		h.Want(h.Do(userCmd(h, b, "exec", b.ID, "sh", "-c", "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max; mkdir /sys/fs/cgroup/x && echo made")), "0::/\n9\nmade", 0)
		h.Want(h.Do(userCmd(h, b, "pause", b.ID)), "", 0)
		h.Want(h.Do(userCmd(h, b, "resume", b.ID)), "", 0)
		h.Want(h.Do(userCmd(h, b, "update", "--pids-limit", "12", b.ID)), "", 0)
		stop := h.ReapOrphans()
		h.Want(h.Do(userCmd(h, b, "delete", "-f", b.ID)), "", 0)
		stop()
		if _, err := os.Stat(filepath.Join(cgroup2, parent, b.ID)); err == nil {
			h.Errorf("the cgroup is left")
		}
	})
	row(t, "C28 no delegated group", func(h *H) {
		b := rootless(h).Sh("cat /proc/self/cgroup")
		h.Want(asUser(h, b, "run", "-b", b.Dir, b.ID), "~^0::/$", 0)
		b = rootless(h, `linux.resources.pids={"limit":5}`)
		r := asUser(h, b, "run", "-b", b.Dir, b.ID)
		if r.Code == 0 || !strings.Contains(r.Stderr, "cgroup") {
			h.Errorf("status %d: %s", r.Code, r.Stderr)
		}
		h.NoLeak("the error")
	})
}
