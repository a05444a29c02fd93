package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func p[T any](v T) *T { return &v }

// Without systemd the sentence is runc's. This runs on every machine.
func TestNotRunning(t *testing.T) {
	if _, err := os.Lstat("/run/systemd/system"); err == nil {
		t.Skip("systemd is running")
	}
	bin := runtimePath(t)
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/rootfs", 0o755); err != nil {
		t.Fatal(err)
	}
	spec := exec.Command(bin, "spec")
	spec.Dir = dir
	if out, err := spec.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	config, _ := os.ReadFile(dir + "/config.json")
	os.WriteFile(dir+"/config.json", []byte(strings.Replace(string(config), `"terminal": true`, `"terminal": false`, 1)), 0o644)
	cmd := exec.Command(bin, "--root", dir+"/state", "--systemd-cgroup", "run", "-b", dir, "box")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "systemd not running on this host, cannot use systemd cgroups manager") {
		t.Errorf("%v: %s", err, out)
	}
	if left, _ := os.ReadDir(dir + "/state"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestLife(t *testing.T) {
	b := newBox(t, 0)
	b.spec.Annotations = map[string]string{"org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.Description": "'my box'"}
	b.create()
	want := "/system.slice/" + b.scope()
	if g := b.group(); g != want {
		t.Errorf("the process is in %s, want %s", g, want)
	}
	b.must("start", b.id)
	if out := b.must("exec", b.id, "cat", "/proc/self/cgroup"); !strings.Contains(out, ":/\n") && !strings.HasSuffix(out, ":/") {
		t.Errorf("exec: %s", out)
	}
	b.must("exec", "-d", b.id, "sleep", "1000")
	for property, want := range map[string]string{"ActiveState": "active", "Delegate": "yes", "Slice": "system.slice", "TimeoutStopUSec": "7s",
		"Description": "my box", "CollectMode": "inactive-or-failed", "ControlGroup": want, "MemoryAccounting": "yes", "TasksCurrent": "2"} {
		if got := b.show(property); got != want {
			t.Errorf("%s is %q, want %q", property, got, want)
		}
	}
	b.must("pause", b.id)
	if s := b.must("state", b.id); !strings.Contains(s, "paused") {
		t.Errorf("state: %s", s)
	}
	b.must("resume", b.id)
	if out := b.must("ps", "--format", "json", b.id); strings.Count(out, ",") != 1 {
		t.Errorf("ps: %s", out)
	}
	b.must("delete", "-f", b.id)
	b.gone()
	b.must("--systemd-cgroup", "create", b.id) // the name is free
	b.must("delete", b.id)
	b.gone()
}

func TestRun(t *testing.T) {
	b := newBox(t, 0, "cat", "/proc/self/cgroup")
	b.write()
	if out := b.must("--systemd-cgroup", "run", b.id); !strings.Contains(out, ":/") {
		t.Errorf("%s", out)
	}
	b.gone()
	b.spec.Process.Args = []string{"sh", "-c", "exit 7"}
	b.write()
	if out, status := b.run("--systemd-cgroup", "run", b.id); status != 7 {
		t.Errorf("status %d: %s", status, out)
	}
	b.gone()
	b.spec.Process.Args = []string{"/none"}
	b.write()
	b.fail("/none", "--systemd-cgroup", "run", b.id)
	b.gone()
}

func TestSlices(t *testing.T) {
	b := newBox(t, 0)
	b.spec.Linux.CgroupsPath = "tare-one-two.slice:pre:" + b.id
	b.create()
	if g, want := b.group(), "/tare.slice/tare-one.slice/tare-one-two.slice/pre-"+b.id+".scope"; g != want {
		t.Errorf("the process is in %s, want %s", g, want)
	}
	b.must("delete", "-f", b.id)
	b.gone()
	for _, bad := range []string{"/a/b", "a--b.slice:x:y", "system.slice:x:y/../z", "system.slice:x:y.slice"} {
		b.spec.Linux.CgroupsPath = bad
		b.write()
		b.fail("linux.cgroupsPath", "--systemd-cgroup", "run", b.id)
		b.gone()
	}
}

// Annotations that are no properties, or not the configuration's to set, fail before anything is touched, and those that systemd
// refuses leave nothing.
func TestAnnotationErrors(t *testing.T) {
	b := newBox(t, 0)
	for key, value := range map[string]string{"ExecStart": "'/bin/true'", "Slice": "'x.slice'", "TimeoutStopSec": "'x'", "CollectMode": "bare", "A-b": "1",
		"NoSuchProperty": "'x'", "CollectMode2": "'x'", "OOMPolicy": "'nonsense'"} {
		b.spec.Annotations = map[string]string{"org.systemd.property." + key: value}
		b.write()
		b.fail("", "--systemd-cgroup", "run", b.id)
		b.gone()
	}
}

// A limit reaches the cgroup and systemd, at create and at update; a reload of systemd changes neither.
func TestLimits(t *testing.T) {
	b := newBox(t, 0)
	r := b.resources()
	r.Memory = &specs.LinuxMemory{Limit: p(int64(32 << 20)), Swap: p(int64(48 << 20))}
	r.CPU = &specs.LinuxCPU{Shares: p(uint64(512)), Quota: p(int64(20000)), Period: p(uint64(50000)), Cpus: "0"}
	r.Pids = &specs.LinuxPids{Limit: p(int64(42))}
	b.up()
	g := b.group()
	check := func(when string, files [][5]string, shown map[string]string) {
		t.Helper()
		for _, f := range files {
			if got := b.file(g, f[0], f[1], f[2]); got != f[3] && got != f[4] {
				t.Errorf("%s: %s is %q, want %q or %q", when, f[0], got, f[3], f[4])
			}
		}
		for property, want := range shown {
			if got := b.show(property); got != want {
				t.Errorf("%s: %s is %q, want %q", when, property, got, want)
			}
		}
	}
	memory, weight, n := "MemoryMax", "CPUWeight", "59"
	if !v2() {
		memory, weight, n = "MemoryLimit", "CPUShares", "512"
	}
	files := [][5]string{{"memory.max", "memory", "memory.limit_in_bytes", "33554432"}, {"pids.max", "pids", "pids.max", "42"},
		{"cpu.weight", "cpu,cpuacct", "cpu.shares", "59", "512"}, {"cpu.max", "cpu,cpuacct", "cpu.cfs_quota_us", "20000 50000", "20000"},
		{"cpuset.cpus", "cpuset", "cpuset.cpus", "0"}}
	shown := map[string]string{memory: "33554432", "TasksMax": "42", weight: n, "CPUQuotaPerSecUSec": "400ms", "AllowedCPUs": "0"}
	check("create", files, shown)
	b.systemctl("daemon-reload")
	check("reload", files, shown)
	b.must("update", "--memory", "64M", "--memory-swap", "96M", "--pids-limit", "20", "--cpu-share", "1024", "--cpu-quota", "10000", b.id)
	files = [][5]string{{"memory.max", "memory", "memory.limit_in_bytes", "67108864"}, {"pids.max", "pids", "pids.max", "20"},
		{"cpu.weight", "cpu,cpuacct", "cpu.shares", "100", "1024"}, {"cpu.max", "cpu,cpuacct", "cpu.cfs_quota_us", "10000 50000", "10000"}}
	shown = map[string]string{memory: "67108864", "TasksMax": "20", "CPUQuotaPerSecUSec": "200ms"}
	check("update", files, shown)
	b.fail("cpus", "update", "--pids-limit", "5", "--cpuset-cpus", "77", b.id)
	check("refused update", files, shown)
	b.systemctl("daemon-reload")
	check("reload after update", files, shown)
	b.must("update", "--memory", "-1", "--pids-limit", "-1", b.id)
	check("no limits", [][5]string{{"pids.max", "pids", "pids.max", "max"}}, map[string]string{memory: "infinity", "TasksMax": "infinity"})
	b.must("delete", "-f", b.id)
	b.gone()
}

func TestUnified(t *testing.T) {
	b := newBox(t, 0)
	if !v2() {
		t.Skip("needs cgroup v2")
	}
	b.resources().Unified = map[string]string{"memory.high": "20971520", "pids.max": "9", "cpu.idle": "1", "memory.oom.group": "1"}
	b.up()
	g := b.group()
	for file, want := range b.resources().Unified {
		if got := b.file(g, file, "", ""); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	for property, want := range map[string]string{"MemoryHigh": "20971520", "TasksMax": "9", "CPUWeight": "0"} {
		if got := b.show(property); got != want && !(property == "CPUWeight" && got == "idle") {
			t.Errorf("%s is %q, want %q", property, got, want)
		}
	}
	b.must("delete", "-f", b.id)
	b.gone()
}

// A reload of systemd, or a property that is set, takes no device away and gives none.
func TestDevicesAfterReload(t *testing.T) {
	b := newBox(t, 0)
	major, minor := int64(10), int64(229) // /dev/fuse, which no default rule allows
	r := b.resources()
	r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rw"})
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/mine", Type: "c", Major: major, Minor: minor, FileMode: p(os.FileMode(0o666))},
		{Path: "/dev/mem", Type: "c", Major: 1, Minor: 1, FileMode: p(os.FileMode(0o666))}}
	b.up()
	check := func(when string) {
		t.Helper()
		// Opened only: a read of /dev/fuse waits for a mount. ENODEV and ENXIO are the driver's words, EPERM is the cgroup's.
		out, _ := b.run("exec", b.id, "sh", "-c", "for d in mine null tty mem; do (: <>/dev/$d) 2>&1 | head -n1; echo $d; done")
		lines := strings.Split(out, "\n")
		for i, l := range lines {
			if denied := strings.Contains(l, "not permitted"); denied && (i+1 >= len(lines) || lines[i+1] != "mem") {
				t.Errorf("%s: %s", when, out)
			}
		}
		if !strings.Contains(out, "not permitted\nmem") {
			t.Errorf("%s: /dev/mem was opened: %s", when, out)
		}
	}
	check("start")
	b.systemctl("daemon-reload")
	check("daemon-reload")
	b.systemctl("set-property", "--runtime", b.scope(), "MemoryMax=100M", "IOWeight=200")
	check("set-property")
	b.must("update", "--pids-limit", "50", b.id)
	check("update")
	b.systemctl("daemon-reexec")
	time.Sleep(time.Second)
	check("daemon-reexec")
	b.must("delete", "-f", b.id)
	b.gone()
}

// A unit, or a cgroup, that is somebody else's is neither used nor touched.
func TestForeign(t *testing.T) {
	b := newBox(t, 0)
	b.write()
	if out, err := exec.Command("systemd-run", "--unit", strings.TrimSuffix(b.scope(), ".scope"), "--scope", "-q", "--no-block", "--", "true").CombinedOutput(); err != nil {
		t.Logf("systemd-run: %v: %s", err, out)
	}
	cmd := exec.Command("systemd-run", "--unit", b.scope(), "--scope", "-q", "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		exec.Command("systemctl", "stop", b.scope()).Run()
		cmd.Wait()
	}()
	dir := filepath.Join(cgroupRoot, "system.slice", b.scope())
	if !v2() {
		dir = filepath.Join(cgroupRoot, "systemd", "system.slice", b.scope())
	}
	held := func() string {
		data, _ := os.ReadFile(dir + "/cgroup.procs")
		return strings.TrimSpace(string(data))
	}
	for i := 0; held() == "" && i < 100; i++ {
		time.Sleep(100 * time.Millisecond)
	}
	before := held()
	if before == "" {
		t.Fatal("the foreign scope does not start")
	}
	b.fail("container's cgroup is not empty", "--systemd-cgroup", "run", b.id)
	if held() != before || b.show("ActiveState") != "active" {
		t.Errorf("the foreign scope: %q, was %q", held(), before)
	}
}

// A scope that took the container's place is left alone by delete.
func TestPlaceTaken(t *testing.T) {
	b := newBox(t, 0)
	b.up()
	b.must("kill", b.id, "KILL")
	for i := 0; b.systemctl("list-units", "--all", "--no-legend", "--plain", b.scope()) != "" && i < 100; i++ {
		time.Sleep(100 * time.Millisecond)
	}
	cmd := exec.Command("systemd-run", "--unit", b.scope(), "--scope", "-q", "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		exec.Command("systemctl", "stop", b.scope()).Run()
		cmd.Wait()
	}()
	for i := 0; b.show("ActiveState") != "active" && i < 100; i++ {
		time.Sleep(100 * time.Millisecond)
	}
	b.must("delete", b.id)
	if s := b.show("ActiveState"); s != "active" {
		t.Errorf("the scope that took the place is %s", s)
	}
}

// What runs out of memory, and groups that the container made, leave no unit and no cgroup.
func TestLeftovers(t *testing.T) {
	b := newBox(t, 0, "tail", "-c", "60000000", "/dev/zero")
	b.resources().Memory = &specs.LinuxMemory{Limit: p(int64(16 << 20)), Swap: p(int64(16 << 20))}
	b.write()
	if out, status := b.run("--systemd-cgroup", "run", b.id); status != 137 {
		t.Errorf("status %d: %s", status, out)
	}
	b.gone()
	b = newBox(t, 0)
	b.up()
	g := b.group()
	dir := filepath.Join(cgroupRoot, g)
	if !v2() {
		dir = filepath.Join(cgroupRoot, "pids", g)
	}
	if err := os.MkdirAll(dir+"/deep/deeper", 0o755); err != nil {
		t.Fatal(err)
	}
	b.must("delete", "-f", b.id)
	b.gone()
}

// Hooks and processes that join run in the scope, also where an intermediate process makes the container's.
func TestInside(t *testing.T) {
	b := newBox(t, 0)
	hook := func(name string) []specs.Hook {
		script := b.dir + "/" + name
		if name == "startContainer" {
			os.WriteFile(b.dir+"/rootfs/hook", []byte("#!/bin/sh\ncat /proc/self/cgroup >/seen\n"), 0o755)
			return []specs.Hook{{Path: "/hook"}}
		}
		os.WriteFile(script, []byte("#!/bin/sh\ncat /proc/self/cgroup >"+b.dir+"/seen-"+name+"\n"), 0o755)
		return []specs.Hook{{Path: script}}
	}
	b.spec.Hooks = &specs.Hooks{CreateContainer: hook("createContainer"), StartContainer: hook("startContainer")}
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	b.up()
	for _, file := range []string{"/seen-createContainer", "/rootfs/seen"} {
		data, err := os.ReadFile(b.dir + file)
		if err != nil || !strings.Contains(string(data), b.scope()) && !strings.Contains(string(data), ":/\n") {
			t.Errorf("%s: %q, %v", file, data, err)
		}
	}
	if out := b.must("exec", b.id, "cat", "/proc/self/cgroup"); !strings.Contains(out+"\n", ":/\n") || strings.Contains(out, "/..") {
		t.Errorf("exec sees %s", out)
	}
	b.must("delete", "-f", b.id)
	b.gone()
}

// A container that was checkpointed is restored into a scope.
func TestRestore(t *testing.T) {
	b := newBox(t, 0, "sh", "-c", "n=0; while :; do n=$((n+1)); echo $n >/n; sleep 1; done")
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu does not work here: %v: %s", err, out)
	}
	counted := func() int {
		data, _ := os.ReadFile(b.dir + "/rootfs/n")
		n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
		return n
	}
	b.write()
	b.must("--systemd-cgroup", "run", "-d", b.id)
	for i := 0; counted() < 2 && i < 100; i++ {
		time.Sleep(100 * time.Millisecond)
	}
	b.must("checkpoint", "--image-path", b.dir+"/images", b.id)
	b.gone()
	before := counted()
	b.must("--systemd-cgroup", "restore", "-d", "--image-path", b.dir+"/images", b.id)
	for i := 0; counted() <= before && i < 100; i++ {
		time.Sleep(100 * time.Millisecond)
	}
	if n := counted(); before < 2 || n <= before {
		t.Errorf("it counted to %d, and then to %d", before, n)
	}
	if g := b.group(); g != "/system.slice/"+b.scope() || b.show("ActiveState") != "active" {
		t.Errorf("restored into %s, the scope is %s", g, b.show("ActiveState"))
	}
	b.must("delete", "-f", b.id)
	b.gone()
}

// A user's own systemd, from a process outside of what that manages.
func TestUser(t *testing.T) {
	const user = 1000
	newBox(t, 0)
	if out, err := exec.Command("systemctl", "start", "user@"+strconv.Itoa(user)).CombinedOutput(); err != nil {
		t.Skipf("no user manager: %s", out)
	}
	dir := fmt.Sprintf("/run/user/%d", user)
	for i := 0; i < 100; i++ {
		if _, err := os.Stat(dir + "/bus"); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	b := newBox(t, user)
	b.env = []string{"XDG_RUNTIME_DIR=" + dir}
	b.resources().Pids = &specs.LinuxPids{Limit: p(int64(42))}
	b.write()
	if !v2() {
		b.fail("cannot use rootless systemd cgroups manager on cgroup v1", "--systemd-cgroup", "run", b.id)
		return
	}
	b.up()
	g := fmt.Sprintf("/user.slice/user-%d.slice/user@%d.service/user.slice/%s", user, user, b.scope())
	if got := b.group(); got != g {
		t.Errorf("the process is in %s, want %s", got, g)
	}
	if out := b.must("exec", b.id, "cat", "/proc/self/cgroup"); out != "0::/" {
		t.Errorf("exec: %s", out)
	}
	if got := b.file(g, "pids.max", "", ""); got != "42" {
		t.Errorf("pids.max is %s", got)
	}
	b.must("update", "--memory", "64M", b.id)
	if got, shown := b.file(g, "memory.max", "", ""), b.show("MemoryMax"); got != "67108864" || shown != got {
		t.Errorf("memory.max is %s, MemoryMax %s", got, shown)
	}
	b.systemctl("daemon-reload")
	b.must("exec", b.id, "head", "-c1", "/dev/null")
	b.must("delete", "-f", b.id)
	b.gone()
	b.env = nil
	b.fail("DBUS_SESSION_BUS_ADDRESS", "--systemd-cgroup", "run", b.id)
}
