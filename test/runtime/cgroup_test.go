package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// limitCase is a container whose limits are read back from the host.
type limitCase struct {
	row  string
	edit string
	want []string // controller/file=content
}

var limitCases = []limitCase{
	{"C6 memory", `linux.resources.memory={"limit":33554432,"reservation":16777216}`, []string{"memory/memory.limit_in_bytes=33554432", "memory/memory.soft_limit_in_bytes=16777216"}},
	{"C6 memory unlimited", `linux.resources.memory={"limit":-1}`, []string{"memory/memory.limit_in_bytes=9223372036854771712"}},
	{"C7 kernel memory is taken with a warning", `linux.resources.memory={"limit":33554432,"kernel":16777216,"kernelTCP":16777216}`, []string{"memory/memory.limit_in_bytes=33554432"}},
	{"C8 swappiness", `linux.resources.memory={"swappiness":10}`, []string{"memory/memory.swappiness=10"}},
	{"C9 no OOM killer", `linux.resources.memory={"limit":33554432,"disableOOMKiller":true}`, []string{"memory/memory.oom_control=~oom_kill_disable 1"}},
	{"C10 hierarchy", `linux.resources.memory={"useHierarchy":true}`, nil},
	{"C12 shares", `linux.resources.cpu={"shares":512}`, []string{"cpu/cpu.shares=512"}},
	{"C12 shares 0 is unset", `linux.resources.cpu={"shares":0}`, []string{"cpu/cpu.shares=1024"}},
	{"C13 quota", `linux.resources.cpu={"quota":20000,"period":50000}`, []string{"cpu/cpu.cfs_quota_us=20000", "cpu/cpu.cfs_period_us=50000"}},
	{"C13 quota without a period", `linux.resources.cpu={"quota":20000}`, []string{"cpu/cpu.cfs_quota_us=20000", "cpu/cpu.cfs_period_us=100000"}},
	{"C13 burst", `linux.resources.cpu={"quota":20000,"period":50000,"burst":10000}`, []string{"cpu/cpu.cfs_burst_us=10000"}},
	{"C15 cpuset", `linux.resources.cpu={"cpus":"0","mems":"0"}`, []string{"cpuset/cpuset.cpus=0", "cpuset/cpuset.mems=0"}},
	{"C15 cpuset is that of the parent", `linux.resources.cpu={"shares":512}`, []string{"cpuset/cpuset.cpus=~^0"}},
	{"C16 idle", `linux.resources.cpu={"idle":1}`, []string{"cpu/cpu.idle=1"}},
	{"C17 throttle", `linux.resources.blockIO={"throttleReadBpsDevice":[{"major":254,"minor":0,"rate":1048576}],"throttleWriteIOPSDevice":[{"major":254,"minor":0,"rate":100}]}`,
		[]string{"blkio/blkio.throttle.read_bps_device=254:0 1048576", "blkio/blkio.throttle.write_iops_device=254:0 100"}},
	{"C21 pids", `linux.resources.pids={"limit":42}`, []string{"pids/pids.max=42"}},
	{"C21 pids unlimited", `linux.resources.pids={"limit":-1}`, []string{"pids/pids.max=max"}},
	{"C1 path", `linux.resources={}`, []string{"memory/cgroup.procs=~^[0-9]+$", "systemd/cgroup.procs=~^[0-9]+$", "freezer/freezer.state=THAWED"}},
}

func v1(t *testing.T) {
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		t.Skip("this machine has no cgroup v1 hierarchies")
	}
}

func TestLimits(t *testing.T) {
	v1(t)
	for _, c := range limitCases {
		row(t, c.row, func(h *H) {
			b := h.Bundle().Edit(c.edit).Args("sleep", "60")
			h.Create(b)
			pid := h.State(b.ID).Pid
			for _, w := range c.want {
				file, want, _ := strings.Cut(w, "=")
				ctrl, name, _ := strings.Cut(file, "/")
				if got := h.CgroupFile(pid, ctrl, name); got != want && !(want[0] == '~' && match(got, want)) {
					h.Errorf("%s is %q, want %q", file, got, want)
				}
			}
		})
	}
}

var cgroupErrors = []Case{
	{Row: "C1 path does not leave the tree", Edit: []string{`linux.cgroupsPath="/../../../../tmp/x"`}, Sh: "grep pids: /proc/self/cgroup", Setup: func(h *H, b *Bundle) {
		b.Edit(fmt.Sprintf(`linux.cgroupsPath="/../../%s/../%s"`, b.ID, b.ID))
	}, Out: "~pids:/[^/]*oci"},
	{Row: "C6 swap below the limit", Edit: []string{`linux.resources.memory={"limit":33554432,"swap":16777216}`}, Err: "swap"},
	{Row: "C8 swappiness 101", Edit: []string{`linux.resources.memory={"swappiness":101}`}, Err: "swappiness"},
	{Row: "C13 quota of 1", Edit: []string{`linux.resources.cpu={"quota":1,"period":50000}`}, Err: "quota"},
	{Row: "C15 no such cpu", Edit: []string{`linux.resources.cpu={"cpus":"77"}`}, Err: "cpus"},
	{Row: "C15 bad list", Edit: []string{`linux.resources.cpu={"cpus":"banana"}`}, Err: "cpus"},
	{Row: "C14 real time beyond the budget", Edit: []string{`linux.resources.cpu={"realtimeRuntime":2000000,"realtimePeriod":1000000}`}, Err: "*"},
	{Row: "C17 bad device", Edit: []string{`linux.resources.blockIO={"throttleReadBpsDevice":[{"major":999,"minor":99,"rate":1048576}]}`}, Err: "blkio"},
	{Row: "C18 weight device without a weight", Edit: []string{`linux.resources.blockIO={"weightDevice":[{"major":254,"minor":0}]}`}, Err: "weight"},
	{Row: "C19 bad page size", Edit: []string{`linux.resources.hugepageLimits=[{"pageSize":"2mb","limit":0}]`}, Err: "*"},
	{Row: "C20 no net_cls", Edit: []string{`linux.resources.network={"classID":1048577}`}, Err: "net"},
	{Row: "C22 no rdma", Edit: []string{`linux.resources.rdma={"mlx5_1":{"hcaHandles":3}}`}, Err: "rdma"},
	{Row: "C23 unified on v1", Edit: []string{`linux.resources.unified={"memory.max":"1000000"}`}, Err: "unified"},
	{Row: "C21 wrong type", Edit: []string{`linux.resources.pids={"limit":"x"}`}, Err: "limit"},
}

func TestCgroupErrors(t *testing.T) { v1(t); runCases(t, cgroupErrors) }

// onC is a writable mount of the given type on /c.
func onC(typ string) string {
	return `mounts+=[{"destination":"/c","type":"` + typ + `","source":"cgroup","options":["nosuid","noexec","nodev"]}]`
}

var insideCases = []Case{
	{Row: "M1 a mount point inside of the read-only cgroups", Edit: []string{mnt("/sys/fs/cgroup/x", "tmpfs", "t")},
		Sh: "touch /sys/fs/cgroup/x/y && echo rw; touch /sys/fs/cgroup/y 2>/dev/null || echo ro", Out: "rw\nro"},
	{Row: "M cgroup2 on a hybrid host is the unified hierarchy", Edit: []string{onC("cgroup2")}, Sh: "stat -f -c %t /c; test -e /c/cgroup.controllers && cat /c/cgroup.procs | head -n1", Out: "~^63677270\n1$"},
	{Row: "C21 a limit of 0 is a limit since 1.3.0", Edit: []string{`ociVersion="1.3.0"`, `linux.resources.pids={"limit":0}`}, Sh: "cat /sys/fs/cgroup/pids/pids.max; echo", Code: 2, Warn: "can't fork"},
	{Row: "C21 a limit of 0 is unset before 1.3.0", Edit: []string{`ociVersion="1.0.2-dev"`, `linux.resources.pids={"limit":0}`}, Sh: "cat /sys/fs/cgroup/pids/pids.max", Out: "max"},
	{Row: "C6 seen inside", Edit: []string{`linux.resources.memory={"limit":33554432}`}, Sh: "cat /sys/fs/cgroup/memory/memory.limit_in_bytes", Out: "33554432"},
	{Row: "C21 limit holds", Edit: []string{`linux.resources.pids={"limit":3}`}, Sh: "for i in 1 2 3 4 5; do sleep 1 & done; wait", Code: 2, Warn: "can't fork"},
	{Row: "C15 affinity", Edit: []string{`linux.resources.cpu={"cpus":"1"}`}, Sh: "grep Cpus_allowed_list /proc/self/status | tr -s '\\t' ' '", Out: "Cpus_allowed_list: 1"},
	{Row: "C6 memory is limited", Edit: []string{`linux.resources.memory={"limit":16777216}`}, Sh: "tail -c 60000000 /dev/zero >/dev/null; echo $?", Out: "137"},
}

func TestCgroupInside(t *testing.T) { v1(t); runCases(t, insideCases) }

// hierarchies are the mount points of all cgroup hierarchies.
func hierarchies() []string {
	var dirs []string
	es, _ := filepath.Glob("/sys/fs/cgroup/*")
	for _, e := range es {
		if st, err := os.Lstat(e); err == nil && st.IsDir() { // not a link: cpu is one of "cpu,cpuacct"
			dirs = append(dirs, e)
		}
	}
	return dirs
}

// freezer freezes a group of the version 1 freezer, which it makes if need be; the function thaws it and removes it if it is empty.
func freezer(h *H, name string) (thaw func()) {
	d := filepath.Join("/sys/fs/cgroup/freezer", name)
	if err := os.MkdirAll(d, 0o755); err != nil {
		h.Fatalf("%v", err)
	}
	h.File(d+"/freezer.state", "FROZEN", 0)
	thaw = func() {
		os.WriteFile(d+"/freezer.state", []byte("THAWED"), 0)
		os.Remove(d)
	}
	h.Cleanup(thaw)
	return thaw
}

func TestCgroupPlace(t *testing.T) {
	v1(t)
	row(t, "C6 a limit below what starting takes is an error or kills", func(h *H) {
		r := h.Run(h.Bundle().Edit(`linux.resources.memory={"limit":4096}`))
		if r.Code != 137 && (r.Code == 0 || r.Stderr == "") {
			h.Errorf("status %d, stderr %q", r.Code, r.Stderr)
		}
		h.NoLeak("the end")
	})
	row(t, "C1 relative and unset paths are below the runtime's", func(h *H) {
		own := h.CgroupFile(os.Getpid(), "memory", "cgroup.procs") // fails if we are in none
		if own == "" {
			h.Fatalf("not in a memory cgroup")
		}
		for _, edit := range []string{`-linux.cgroupsPath`, `linux.cgroupsPath="rel-%s"`} {
			b := h.Bundle().Args("sleep", "60")
			if strings.Contains(edit, "%s") {
				edit = fmt.Sprintf(edit, b.ID)
			}
			h.Create(b.Edit(edit))
			data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", h.State(b.ID).Pid))
			for _, l := range strings.Split(strings.TrimSpace(string(data)), "\n") {
				if !strings.HasPrefix(l, "0::") && !strings.HasSuffix(l, b.ID) {
					h.Errorf("cgroup %s does not end in %s", l, b.ID)
				}
			}
			h.MustRT("delete", "-f", b.ID)
		}
	})
	row(t, "C3 a parent that was there stays", func(h *H) {
		b := h.Bundle()
		var made []string
		for _, e := range hierarchies() {
			d := filepath.Join(e, b.ID+"-parent")
			if err := os.Mkdir(d, 0o755); err != nil {
				h.Fatalf("%v", err)
			}
			made = append(made, d)
			h.Cleanup(func() { os.Remove(d) })
		}
		b.Spec.Linux.CgroupsPath = "/" + b.ID + "-parent/" + b.ID
		h.Want(h.Run(b), "", 0)
		for _, d := range made {
			if _, err := os.Stat(d); err != nil {
				h.Errorf("%v", err)
			}
			if _, err := os.Stat(filepath.Join(d, b.ID)); err == nil {
				h.Errorf("%s/%s is left", d, b.ID)
			}
		}
	})
	row(t, "C2 a cgroup with processes is refused", func(h *H) {
		a := h.Bundle().Args("sleep", "60")
		h.Up(a)
		b := h.Bundle()
		b.Spec.Linux.CgroupsPath = a.Spec.Linux.CgroupsPath
		if r := h.Run(b); r.Code == 0 || !strings.Contains(r.Stderr, "container's cgroup is not empty: 1 process(es) found") {
			h.Errorf("status %d, stderr %q", r.Code, r.Stderr)
		}
		if s := h.State(a.ID); s.Status != "running" {
			h.Errorf("the first container is %s", s.Status)
		}
		h.CgroupFile(h.State(a.ID).Pid, "memory", "cgroup.procs")
	})
	row(t, "C2 a frozen cgroup is refused", func(h *H) {
		b := h.Bundle()
		thaw := freezer(h, b.ID)
		if r := h.Run(b); r.Code == 0 || !strings.Contains(r.Stderr, "container's cgroup unexpectedly frozen") {
			h.Errorf("status %d, stderr %q", r.Code, r.Stderr)
		}
		thaw()
	})
	row(t, "C2 a cgroup below a frozen one is refused", func(h *H) {
		b := h.Bundle()
		thaw := freezer(h, b.ID+"-parent")
		b.Spec.Linux.CgroupsPath = "/" + b.ID + "-parent/" + b.ID
		if r := h.Run(b); r.Code == 0 || !strings.Contains(r.Stderr, "container's cgroup unexpectedly frozen") {
			h.Errorf("status %d, stderr %q", r.Code, r.Stderr)
		}
		thaw()
	})
	row(t, "L delete -f and exec below a frozen cgroup", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		b.Spec.Linux.CgroupsPath = "/" + b.ID + "-parent/" + b.ID
		for _, e := range hierarchies() { // made before, so that they stay
			d := filepath.Join(e, b.ID+"-parent")
			if err := os.Mkdir(d, 0o755); err != nil {
				h.Fatalf("%v", err)
			}
			h.Cleanup(func() { os.Remove(d) })
		}
		h.Up(b)
		thaw := freezer(h, b.ID+"-parent")
		h.FailRT("cannot exec in a paused container", "exec", b.ID, "true")
		h.FailRT("is frozen", "delete", "-f", b.ID)
		thaw()
		h.MustRT("delete", "-f", b.ID)
		for _, e := range hierarchies() {
			os.Remove(filepath.Join(e, b.ID+"-parent"))
		}
		h.NoLeak("delete")
	})
	row(t, "L delete -f of what is frozen in a group of the container's, and in another's", func(h *H) {
		for _, own := range []bool{true, false} {
			b := h.Bundle().Args("sleep", "60")
			h.Up(b)
			name := b.ID + "/deep"
			if !own {
				name = b.ID + "-other"
			}
			d := filepath.Join("/sys/fs/cgroup/freezer", name)
			if err := os.Mkdir(d, 0o755); err != nil {
				h.Fatalf("%v", err)
			}
			h.File(d+"/cgroup.procs", strconv.Itoa(h.State(b.ID).Pid), 0)
			thaw := freezer(h, name)
			if !own {
				h.FailRT("is frozen by the cgroup "+d, "delete", "-f", b.ID)
				thaw()
			}
			h.MustRT("delete", "-f", b.ID)
			thaw()
			h.NoLeak("delete")
		}
	})
	row(t, "HK hooks inside run in the container's cgroup", func(h *H) {
		b := h.Bundle()
		h.File(b.Rootfs+"/hook", "#!/bin/sh\ncat /proc/self/cgroup >/seen\n", 0o755)
		b.Spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/hook"}}}
		h.Want(h.Run(b), "", 0)
		if seen, err := os.ReadFile(b.Rootfs + "/seen"); !strings.Contains(string(seen), "memory:/"+b.ID) {
			h.Errorf("the hook was in %q (%v)", seen, err)
		}
	})
	row(t, "C25 every hierarchy", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Create(b)
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", h.State(b.ID).Pid))
		for _, l := range strings.Split(strings.TrimSpace(string(data)), "\n") {
			if !strings.HasPrefix(l, "0::") && !strings.HasSuffix(l, "/"+b.ID) {
				h.Errorf("not in a cgroup of its own: %s", l)
			}
		}
	})
	row(t, "C12 sub-cgroups made inside go with the container", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		for _, c := range []string{"memory", "pids"} {
			if err := os.MkdirAll(filepath.Join("/sys/fs/cgroup", c, b.ID, "a/b"), 0o755); err != nil {
				h.Fatalf("%v", err)
			}
		}
		h.MustRT("delete", "-f", b.ID)
		h.NoLeak("delete")
	})
}
