package cgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// want checks control files: controller, version 1 file and value, version 2 file and value; an empty file is skipped.
func want(t *testing.T, g *Group, controller, v1, value1, v2, value2 string) {
	t.Helper()
	file, value := v1, value1
	if g.find(controller).Unified {
		file, value = v2, value2
	}
	if file == "" {
		return
	}
	if got := read(t, g, controller, file); got != value {
		t.Errorf("%s is %q, want %q", file, got, value)
	}
}

func memory(limit, swap int64) *specs.LinuxResources {
	m := &specs.LinuxMemory{}
	if limit != 0 {
		m.Limit = &limit
	}
	if swap != 0 {
		m.Swap = &swap
	}
	return &specs.LinuxResources{Memory: m}
}

const mib = 1 << 20

func TestApplyAndUpdate(t *testing.T) {
	res := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: p(int64(64 * mib)), Swap: p(int64(96 * mib)), Reservation: p(int64(32 * mib))},
		CPU:    &specs.LinuxCPU{Shares: p(uint64(512)), Quota: p(int64(50000)), Period: p(uint64(100000)), Cpus: "0", Mems: "0"},
		Pids:   &specs.LinuxPids{Limit: p(int64(20))},
	}
	g := testGroup(t, res)
	if err := g.Apply(res); err != nil {
		t.Fatal(err)
	}
	wantMem := func(limit, swap int64) {
		t.Helper()
		want(t, g, "memory", "memory.limit_in_bytes", i(limit*mib), "memory.max", i(limit*mib))
		want(t, g, "memory", "memory.memsw.limit_in_bytes", i(swap*mib), "memory.swap.max", i((swap-limit)*mib))
	}
	wantMem(64, 96)
	want(t, g, "memory", "memory.soft_limit_in_bytes", i(32*mib), "memory.low", i(32*mib))
	want(t, g, "cpu", "cpu.shares", "512", "cpu.weight", "59")
	want(t, g, "cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000")
	want(t, g, "cpuset", "cpuset.cpus", "0", "cpuset.cpus", "0")
	want(t, g, "cpuset", "cpuset.mems", "0", "cpuset.mems", "0")
	want(t, g, "pids", "pids.max", "20", "pids.max", "20")

	for _, step := range []struct{ limit, swap, wantLimit, wantSwap int64 }{
		{128 * mib, 256 * mib, 128, 256}, // both above the old sum
		{32 * mib, 48 * mib, 32, 48},     // both below the old limit
		{40 * mib, 0, 40, 48},            // the sum stays
		{0, 80 * mib, 40, 80},            // the limit stays
	} {
		if err := g.Update(memory(step.limit, step.swap)); err != nil {
			t.Fatalf("%+v: %v", step, err)
		}
		wantMem(step.wantLimit, step.wantSwap)
	}
	want(t, g, "pids", "pids.max", "20", "pids.max", "20")
	if err := g.Update(memory(200*mib, 0)); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("limit above memory and swap together: %v", err)
	}
	if err := g.Update(memory(-1, 0)); err != nil {
		t.Fatal(err)
	}
	want(t, g, "memory", "", "", "memory.max", "max")
	if v, err := g.find("memory").readBytes(pick(g.v2("memory"), "memory.swap.max", "memory.memsw.limit_in_bytes")); err != nil || v < 1<<60 {
		t.Errorf("swap after memory -1: %d, %v", v, err)
	}
}

func TestBandwidthBothWays(t *testing.T) {
	g := testGroup(t, nil)
	for _, c := range []struct {
		quota         int64
		period, burst uint64
	}{{20000, 100000, 10000}, {500000, 200000, 400000}, {10000, 50000, 5000}, {-1, 100000, 0}} {
		res := &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &c.quota, Period: &c.period, Burst: &c.burst}}
		if err := g.Update(res); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		quota := pick(c.quota < 0, "max", i(c.quota))
		want(t, g, "cpu", "cpu.cfs_quota_us", i(c.quota), "cpu.max", quota+" "+u(c.period))
		want(t, g, "cpu", "cpu.cfs_period_us", u(c.period), "", "")
		want(t, g, "cpu", "cpu.cfs_burst_us", u(c.burst), "cpu.max.burst", u(c.burst))
	}
	if err := g.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: p(int64(30000))}}); err != nil {
		t.Fatal(err)
	}
	want(t, g, "cpu", "cpu.cfs_quota_us", "30000", "cpu.max", "30000 100000")
	err := g.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Burst: p(uint64(40000))}})
	if !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "burst at most the quota") {
		t.Errorf("burst above quota: %v", err)
	}
}

func TestIdle(t *testing.T) {
	g := testGroup(t, nil)
	if !isThere(g.find("cpu").file("cpu.idle")) {
		t.Skip("this kernel has no cpu.idle")
	}
	for _, c := range []struct{ idle, shares string }{{"1", ""}, {"0", "256"}, {"1", "512"}} {
		idle, _ := strconv.ParseInt(c.idle, 10, 64)
		cpu := &specs.LinuxCPU{Idle: &idle}
		if c.shares != "" {
			shares, _ := strconv.ParseUint(c.shares, 10, 64)
			cpu.Shares = &shares
		}
		if err := g.Update(&specs.LinuxResources{CPU: cpu}); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		want(t, g, "cpu", "cpu.idle", c.idle, "cpu.idle", c.idle)
		if c.idle == "0" {
			want(t, g, "cpu", "cpu.shares", c.shares, "cpu.weight", "35")
		}
	}
}

// A refused value takes the values before it back.
func TestUpdateRollsBack(t *testing.T) {
	res := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: p(int64(64 * mib)), Swap: p(int64(64 * mib))},
		CPU:    &specs.LinuxCPU{Shares: p(uint64(512))}, Pids: &specs.LinuxPids{Limit: p(int64(20))},
	}
	g := testGroup(t, res)
	if err := g.Apply(res); err != nil {
		t.Fatal(err)
	}
	bad := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: p(int64(128 * mib)), Swap: p(int64(128 * mib))},
		CPU:    &specs.LinuxCPU{Shares: p(uint64(1024)), Quota: p(int64(30000))}, Pids: &specs.LinuxPids{Limit: p(int64(30))},
	}
	bad.CPU.Cpus = "4000" // no such processor
	err := g.Update(bad)
	if err == nil || !strings.Contains(err.Error(), "cpu.cpus") || strings.Contains(err.Error(), "going back") {
		t.Fatalf("Update: %v", err)
	}
	want(t, g, "memory", "memory.limit_in_bytes", i(64*mib), "memory.max", i(64*mib))
	want(t, g, "memory", "memory.memsw.limit_in_bytes", i(64*mib), "memory.swap.max", "0")
	want(t, g, "cpu", "cpu.shares", "512", "cpu.weight", "59")
	want(t, g, "cpu", "cpu.cfs_quota_us", "-1", "cpu.max", "max 100000")
	want(t, g, "pids", "pids.max", "20", "pids.max", "20")
}

func TestCheckBeforeUpdate(t *testing.T) {
	res := memory(64*mib, 128*mib)
	g := testGroup(t, res)
	if err := g.Apply(res); err != nil {
		t.Fatal(err)
	}
	spawn(t, g, "x=$(head -c 8000000 /dev/zero | tr '\\0' a)")
	low := memory(mib, 2*mib)
	low.Memory.CheckBeforeUpdate = p(true)
	if err := g.Update(low); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("limit below usage: %v", err)
	}
	want(t, g, "memory", "memory.limit_in_bytes", i(64*mib), "memory.max", i(64*mib))
}

// The machine enforces what was written.
func TestPidsLimitHolds(t *testing.T) {
	res := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p(int64(2))}}
	g := testGroup(t, res)
	if err := g.Apply(res); err != nil {
		t.Fatal(err)
	}
	_, out := spawn(t, g, "sh -c '(:) && echo forked' 2>/dev/null || echo refused")
	if !strings.Contains(out.String(), "refused") {
		t.Errorf("a fork under pids.limit 2: %s", out)
	}
}

func TestDevicesHold(t *testing.T) {
	g := testGroup(t, nil)
	if err := g.Apply(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, dev := range map[string]int{"zero": 1<<8 | 5, "kmsg": 1<<8 | 11} {
		if err := syscall.Mknod(filepath.Join(dir, name), syscall.S_IFCHR|0o600, dev); err != nil {
			t.Skipf("cannot make device nodes: %v", err)
		}
	}
	script := fmt.Sprintf("cd %s; for d in zero kmsg; do (exec 4<$d) 2>/dev/null && echo $d opened || echo $d refused; done\n"+
		"rm -f fresh; mknod fresh b 8 0 && echo made; (exec 4<fresh) 2>/dev/null && echo fresh opened || echo fresh refused", dir)
	_, out := spawn(t, g, script)
	for _, line := range []string{"zero opened", "kmsg refused", "made", "fresh refused"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("%q is missing in:\n%s", line, out)
		}
	}

	// A second list replaces the first.
	open := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	if err := g.Apply(open); err != nil {
		t.Fatal(err)
	}
	if _, out := spawn(t, g, script); !strings.Contains(out.String(), "kmsg opened") {
		t.Errorf("after allowing all:\n%s", out)
	}
}

// An update does not touch the device list.
func TestUpdateLeavesDevices(t *testing.T) {
	g := testGroup(t, nil)
	if err := g.Apply(nil); err != nil {
		t.Fatal(err)
	}
	if err := g.Update(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}); err != nil {
		t.Fatal(err)
	}
	if _, out := spawn(t, g, "(exec 4</dev/kmsg) 2>/dev/null && echo opened || echo refused"); !strings.Contains(out.String(), "refused") {
		t.Error("update opened the device list")
	}
}

// stateOf is the state letter of a process in /proc.
func stateOf(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest[:min(1, len(rest))]
}

func TestFreezeAndKill(t *testing.T) {
	g := testGroup(t, nil)
	ctx := context.Background()
	cmd, _ := spawn(t, g, "while :; do :; done &")
	pids, err := g.Procs()
	if err != nil || len(pids) != 2 {
		t.Fatalf("%v, %v", pids, err)
	}
	if err := g.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); !frozen || err != nil {
		t.Errorf("Frozen: %v, %v", frozen, err)
	}
	before := cpuTime(t, g)
	if now := cpuTime(t, g); now != before {
		t.Errorf("a frozen group used %d ns", now-before)
	}
	if err := g.Kill(syscall.SIGTERM); err != nil { // waits in the frozen group
		t.Fatal(err)
	}
	if frozen, _ := g.Frozen(); !frozen {
		t.Error("SIGTERM thawed the group")
	}
	if err := g.Kill(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the processes to die", func() bool { return stateOf(cmd.Process.Pid) == "Z" })
	waitFor(t, "the group to be empty", func() bool { pids, _ := g.Procs(); return len(pids) == 0 })
	if err := g.Thaw(ctx); err != nil {
		t.Errorf("Thaw of a thawed group: %v", err)
	}
}

func cpuTime(t *testing.T, g *Group) uint64 {
	t.Helper()
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s.CPU.Usage.Total
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

// A frozen group with processes and groups of the container's own is removed all the same.
func TestDestroyFrozenTree(t *testing.T) {
	g := testGroup(t, nil)
	cmd, _ := spawn(t, g, "")
	for _, d := range g.Dirs {
		if err := os.MkdirAll(d.dir()+"/own/deep", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if d, _ := g.freezerDir(); !d.Unified {
		if err := os.WriteFile(d.dir()+"/own/cgroup.procs", []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Freeze(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := g.Destroy(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestFreezeDeadlineThaws(t *testing.T) {
	g := testGroup(t, nil)
	spawn(t, g, "")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := g.Freeze(ctx)
	if frozen, _ := g.Frozen(); err != nil && frozen {
		t.Errorf("frozen after %v", err)
	}
}

func TestJoinExec(t *testing.T) {
	g := testGroup(t, nil)
	cmd, _ := spawn(t, g, "")
	for _, d := range g.Dirs {
		if err := os.Mkdir(d.dir()+"/sub", 0o755); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(d.Controllers, "cpuset") && !d.Unified {
			sub := d
			sub.Path += "/sub"
			if err := sub.inheritCpuset(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, bad := range []string{"..", "../x", "sub/../..", "/../" + filepath.Base(g.Dirs[0].Path) + "b", "absent", "sub/tasks"} {
		if _, err := g.JoinExec(0, map[string]string{"": bad}); err == nil {
			t.Errorf("joined %q", bad)
		}
		if err := g.JoinPID(cmd.Process.Pid, bad); err == nil {
			t.Errorf("moved a process to %q", bad)
		}
	}
	if _, err := g.JoinExec(0, map[string]string{"nonsense": "sub"}); err == nil {
		t.Error("joined a hierarchy that is not there")
	}
	files, err := g.JoinExec(0, map[string]string{"": "/sub"})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		f.File.Close()
	}
	if err := g.JoinPID(cmd.Process.Pid, "sub"); err != nil {
		t.Fatal(err)
	}
	own, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	for _, d := range g.Dirs {
		if !strings.Contains(string(own), d.Path+"/sub\n") {
			t.Errorf("not in %s/sub of %s:\n%s", d.Path, d.Label(), own)
		}
	}
}

func TestOOMEvents(t *testing.T) {
	res := memory(8*mib, 8*mib)
	g := testGroup(t, res)
	if err := g.Apply(res); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	events, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- g.OOMEvents(ctx, func() {
			select {
			case events <- struct{}{}:
			default:
			}
		})
	}()
	spawn(t, g, "(while :; do head -c 50000000 /dev/zero | tr '\\0' a | sort; done) >/dev/null 2>&1 &")
	select {
	case <-events:
	case err := <-ended:
		t.Fatalf("watcher ended: %v", err)
	case <-ctx.Done():
		t.Fatal("no event within 20 s")
	}
	if err := g.Destroy(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("after the group was removed: %v", err)
	}
}

func TestOOMEventsEndsWithContext(t *testing.T) {
	g := testGroup(t, memory(8*mib, 0))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.OOMEvents(ctx, func() { t.Error("an event") }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestStats(t *testing.T) {
	res := memory(64*mib, 64*mib)
	res.Pids = &specs.LinuxPids{Limit: p(int64(33))}
	g := testGroup(t, res)
	if err := g.Apply(res); err != nil {
		t.Fatal(err)
	}
	spawn(t, g, "x=$(head -c 4000000 /dev/zero | tr '\\0' a)")
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.Pids.Current != 1 || s.Pids.Limit != 33 || s.Memory.Usage.Limit != 64*mib || s.Memory.Usage.Usage < 4000000 ||
		s.Memory.Swap.Limit != 64*mib || s.CPU.Usage.Total == 0 || len(s.CPUSet.CPUs) == 0 || len(s.Memory.Raw) < 10 {
		b, _ := json.Marshal(s)
		t.Errorf("%s", b)
	}
	if err := g.Destroy(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Stats(); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Stats of a removed group: %v", err)
	}
}

// An error names the property, the file, the value and what the kernel said.
func TestErrorNamesAll(t *testing.T) {
	g := testGroup(t, nil)
	err := g.Apply(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}})
	if err == nil {
		t.Fatal("cpu 4000 was taken")
	}
	for _, part := range []string{"cpu.cpus", `"4000"`, g.find("cpuset").file("cpuset.cpus")} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in: %v", part, err)
		}
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) || !strings.HasSuffix(err.Error(), errno.Error()) {
		t.Errorf("does not end in the kernel's word: %v", err)
	}
}

// Without rights Create says so in a way that a rootless caller can act on.
func TestNotPermitted(t *testing.T) {
	if os.Getenv("TARE_UNPRIVILEGED") != "" {
		h, err := Detect()
		if err != nil {
			t.Fatal(err)
		}
		g, err := h.Plan("/tare-test-unprivileged", "")
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Create(nil); !errors.Is(err, ErrNotPermitted) {
			t.Errorf("Create: %v", err)
		}
		return
	}
	testHost(t)
	bin := t.TempDir() + "/test" // os.Executable may be in a directory closed to others
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, b, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(bin); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	cmd := exec.Command(bin, "-test.run=^TestNotPermitted$")
	cmd.Env = append(os.Environ(), "TARE_UNPRIVILEGED=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
