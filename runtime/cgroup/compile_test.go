package cgroup

import (
	"errors"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// v1Group and v2Group are places that no test touches; settings for them are only looked at.
func v1Group() *Group {
	g := &Group{Mode: V1}
	for _, c := range []string{"blkio", "cpu", "cpuset", "devices", "freezer", "hugetlb", "memory", "net_cls", "net_prio", "pids", "rdma"} {
		g.Dirs = append(g.Dirs, Dir{Hierarchy: Hierarchy{Controllers: []string{c}, MountPoint: "/v1/" + c}, Path: "/x"})
	}
	return g
}

func v2Group() *Group {
	all := []string{"cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"}
	return &Group{Mode: V2, Dirs: []Dir{{Hierarchy: Hierarchy{Controllers: all, Unified: true, MountPoint: "/v2"}, Path: "/x"}}}
}

func written(settings []setting) string {
	var out []string
	for _, s := range settings {
		line := s.file + "=" + s.value
		if s.alt != "" {
			line += " or " + s.alt
			if s.altValue != "" {
				line += "=" + s.altValue
			}
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

func TestCompile(t *testing.T) {
	cpu := func(c specs.LinuxCPU) specs.LinuxResources { return specs.LinuxResources{CPU: &c} }
	memory := func(m specs.LinuxMemory) specs.LinuxResources { return specs.LinuxResources{Memory: &m} }
	dev := specs.LinuxBlockIODevice{Major: 8, Minor: 1}
	throttle := []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: 5}}
	for _, c := range []struct {
		name   string
		res    specs.LinuxResources
		v1, v2 string // what is written, or "!" and a part of the error
	}{
		{"empty", specs.LinuxResources{}, "", ""},
		{"shares", cpu(specs.LinuxCPU{Shares: p(uint64(1024))}), "cpu.shares=1024", "cpu.weight=100"},
		{"shares unset", cpu(specs.LinuxCPU{Shares: p(uint64(0))}), "", ""},
		{"shares low", cpu(specs.LinuxCPU{Shares: p(uint64(1))}), "!minimum allowed cpu-shares is 2", "cpu.weight=1"},
		{"shares high", cpu(specs.LinuxCPU{Shares: p(uint64(262145))}), "!maximum allowed cpu-shares is 262144", "cpu.weight=10000"},
		{
			"bandwidth", cpu(specs.LinuxCPU{Quota: p(int64(5000)), Period: p(uint64(10000)), Burst: p(uint64(3))}),
			"cpu.cfs_period_us=10000; cpu.cfs_quota_us=5000; cpu.cfs_burst_us=3", "cpu.max=5000 10000; cpu.max.burst=3",
		},
		{"no quota", cpu(specs.LinuxCPU{Quota: p(int64(-7)), Period: p(uint64(0))}), "cpu.cfs_quota_us=-1", "cpu.max=max "},
		{"idle off", cpu(specs.LinuxCPU{Idle: p(int64(0)), Shares: p(uint64(2))}), "cpu.idle=0; cpu.shares=2", "cpu.idle=0; cpu.weight=1"},
		{"idle on", cpu(specs.LinuxCPU{Idle: p(int64(1)), Shares: p(uint64(2))}), "cpu.shares=2; cpu.idle=1", "cpu.weight=1; cpu.idle=1"},
		{"idle bad", cpu(specs.LinuxCPU{Idle: p(int64(2))}), "!cpu.idle: 2", "!cpu.idle: 2"},
		{
			"real time", cpu(specs.LinuxCPU{RealtimeRuntime: p(int64(7)), RealtimePeriod: p(uint64(9))}),
			"cpu.rt_period_us=9; cpu.rt_runtime_us=7", "!cpu.realtimeRuntime",
		},
		{"cpuset", cpu(specs.LinuxCPU{Cpus: "0-8191", Mems: "0"}), "cpuset.cpus=0-8191; cpuset.mems=0", "cpuset.cpus=0-8191; cpuset.mems=0"},
		{"cpuset bad", cpu(specs.LinuxCPU{Cpus: "0;1"}), "!cpu.cpus", "!cpu.cpus"},
		{
			"memory", memory(specs.LinuxMemory{Limit: p(int64(100)), Swap: p(int64(150)), Reservation: p(int64(50))}),
			"memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=150; memory.soft_limit_in_bytes=50",
			"memory.max=100; memory.swap.max=150; memory.low=50", // writeMemoryV2 subtracts
		},
		{
			"memory unlimited", memory(specs.LinuxMemory{Limit: p(int64(-1))}),
			"memory.limit_in_bytes=-1; memory.memsw.limit_in_bytes=-1", "memory.max=max; memory.swap.max=max",
		},
		{"memory unset", memory(specs.LinuxMemory{Limit: p(int64(0)), Swap: p(int64(0)), Kernel: p(int64(1 << 20))}), "", ""},
		{"memory bad", memory(specs.LinuxMemory{Limit: p(int64(-2))}), "!memory.limit: -2", "!memory.limit: -2"},
		{
			"swap below limit", memory(specs.LinuxMemory{Limit: p(int64(100)), Swap: p(int64(99))}),
			"!memory+swap limit should be >= memory limit", "!memory+swap limit should be >= memory limit",
		},
		{"swappiness", memory(specs.LinuxMemory{Swappiness: p(uint64(60))}), "memory.swappiness=60", "!memory.swappiness: cgroup v2"},
		{"swappiness bad", memory(specs.LinuxMemory{Swappiness: p(uint64(101))}), "!101: want 0 to 100", "!101: want 0 to 100"},
		{"oom killer", memory(specs.LinuxMemory{DisableOOMKiller: p(true)}), "memory.oom_control=1", "!memory.disableOOMKiller"},
		{"oom killer default", memory(specs.LinuxMemory{DisableOOMKiller: p(false)}), "memory.oom_control=0", ""},
		{"hierarchy", memory(specs.LinuxMemory{UseHierarchy: p(true)}), "memory.use_hierarchy=1", ""},
		{"no hierarchy", memory(specs.LinuxMemory{UseHierarchy: p(false)}), "memory.use_hierarchy=0", "!memory.useHierarchy"},
		{"tcp", memory(specs.LinuxMemory{KernelTCP: p(int64(4096))}), "memory.kmem.tcp.limit_in_bytes=4096", "!memory.kernelTCP"},
		{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p(int64(7))}}, "pids.max=7", "pids.max=7"},
		{"pids none", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p(int64(0))}}, "pids.max=0", "pids.max=0"},
		{"pids max", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p(int64(-1))}}, "pids.max=max", "pids.max=max"},
		{"pids unset", specs.LinuxResources{Pids: &specs.LinuxPids{}}, "", ""},
		{
			"io weight", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: p(uint16(500))}},
			"blkio.weight=500 or blkio.bfq.weight", "io.bfq.weight=500 or io.weight=4950",
		},
		{"io weight unset", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: p(uint16(0)), LeafWeight: p(uint16(0))}}, "", ""},
		{"io weight bad", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: p(uint16(9))}}, "!want 10 to 1000", "!want 10 to 1000"},
		{"leaf", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{LeafWeight: p(uint16(10))}}, "blkio.leaf_weight=10", "!leafWeight"},
		{
			"weight device", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{
				{LinuxBlockIODevice: dev, Weight: p(uint16(10))},
			}}}, "blkio.weight_device=8:1 10 or blkio.bfq.weight_device", "io.bfq.weight=8:1 10 or io.weight=8:1 1",
		},
		{
			"weight device without weight",
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{{LinuxBlockIODevice: dev}}}},
			"!weight or leafWeight must be set", "!weight or leafWeight must be set",
		},
		{
			"throttle", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
				ThrottleReadBpsDevice: throttle, ThrottleWriteBpsDevice: throttle, ThrottleReadIOPSDevice: throttle,
				ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev}},
			}},
			"blkio.throttle.read_bps_device=8:1 5; blkio.throttle.write_bps_device=8:1 5; " +
				"blkio.throttle.read_iops_device=8:1 5; blkio.throttle.write_iops_device=8:1 0",
			"io.max=8:1 rbps=5; io.max=8:1 wbps=5; io.max=8:1 riops=5; io.max=8:1 wiops=max",
		},
		{
			"huge pages", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 9}}},
			"hugetlb.2MB.limit_in_bytes=9; hugetlb.2MB.rsvd.limit_in_bytes=9", "hugetlb.2MB.max=9; hugetlb.2MB.rsvd.max=9",
		},
		{"huge pages bad", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2mb"}}}, "!2mb", "!2mb"},
		{"class", specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: p(uint32(5))}}, "net_cls.classid=5", "!network.classID: cgroup controller net_cls"},
		{"class 0", specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: p(uint32(0))}}, "net_cls.classid=0", ""},
		{
			"priority", specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 3}}}},
			"net_prio.ifpriomap=eth0 3", "!network.priorities",
		},
		{
			"rdma", specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx": {HcaHandles: p(uint32(2))}}},
			"rdma.max=mlx hca_handle=2 hca_object=max", "rdma.max=mlx hca_handle=2 hca_object=max",
		},
		{"rdma empty", specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx": {}}}, "!must be set", "!must be set"},
		{"unified", specs.LinuxResources{Unified: map[string]string{"pids.max": "7", "a.b": "1"}}, "!unified", "a.b=1; pids.max=7"},
		{"unified escape", specs.LinuxResources{Unified: map[string]string{"../x": "7"}}, "!unified", "!not a file name"},
		{"unified move", specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}, "!unified", "!would move processes"},
	} {
		for _, v := range []struct {
			g    *Group
			want string
		}{{v1Group(), c.v1}, {v2Group(), c.v2}} {
			settings, err := v.g.compile(&c.res)
			part, wantErr := strings.CutPrefix(v.want, "!")
			switch {
			case wantErr && (err == nil || !strings.Contains(err.Error(), part)):
				t.Errorf("%s on %s: error %v, want %q", c.name, v.g.Mode, err, part)
			case !wantErr && (err != nil || written(settings) != v.want):
				t.Errorf("%s on %s: %q, %v, want %q", c.name, v.g.Mode, written(settings), err, v.want)
			}
		}
	}
}

func TestMissingController(t *testing.T) {
	g := v1Group()
	g.Dirs = g.Dirs[:1]
	for prop, res := range map[string]specs.LinuxResources{
		"pids.limit":   {Pids: &specs.LinuxPids{Limit: p(int64(1))}},
		"memory.limit": {Memory: &specs.LinuxMemory{Limit: p(int64(4096))}},
		"rdma.x":       {Rdma: map[string]specs.LinuxRdma{"x": {HcaObjects: p(uint32(1))}}},
	} {
		_, err := g.compile(&res)
		if err == nil || !strings.Contains(err.Error(), prop) || !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s without its controller: %v", prop, err)
		}
	}
}

// A hybrid host may have a controller on either side; the value follows it.
func TestHybridController(t *testing.T) {
	g := v1Group()
	g.Mode = Hybrid
	g.Dirs = append(g.Dirs[:5:5], g.Dirs[6:]...)
	g.Dirs = append(g.Dirs, Dir{Hierarchy: Hierarchy{Controllers: []string{"hugetlb"}, Unified: true, MountPoint: "/u"}, Path: "/x"})
	res := &specs.LinuxResources{
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "1GB", Limit: 1}}, Pids: &specs.LinuxPids{Limit: p(int64(3))},
		Unified: map[string]string{"hugetlb.2MB.max": "0", "cgroup.max.depth": "3"},
	}
	settings, err := g.compile(res)
	if err != nil {
		t.Fatal(err)
	}
	want := "pids.max=3; hugetlb.1GB.max=1; hugetlb.1GB.rsvd.max=1; cgroup.max.depth=3; hugetlb.2MB.max=0"
	if got := written(settings); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if needs := g.needed(settings); len(needs) != 1 || needs[0].controller != "hugetlb" {
		t.Errorf("needed controllers: %v", needs)
	}
}

func TestWeightOfShares(t *testing.T) {
	for shares, want := range map[uint64]uint64{2: 1, 3: 2, 512: 59, 1024: 100, 2048: 174, 262144: 10000} {
		if got := weightOfShares(shares); got != want {
			t.Errorf("%d: %d, want %d", shares, got, want)
		}
	}
	last := uint64(0)
	for shares := uint64(2); shares <= 262144; shares++ {
		w := weightOfShares(shares)
		if w < last || w < 1 || w > 10000 {
			t.Fatalf("%d shares give %d after %d", shares, w, last)
		}
		last = w
	}
}

func TestIOWeight(t *testing.T) {
	for w, want := range map[uint64]uint64{10: 1, 100: 910, 500: 4950, 1000: 10000} {
		if got := ioWeight(w); got != want {
			t.Errorf("%d: %d, want %d", w, got, want)
		}
	}
}

func TestPageSize(t *testing.T) {
	for s, want := range map[string]bool{
		"2MB": true, "1GB": true, "64KB": true, "": false, "MB": false, "02MB": false, "2mb": false, "2M": false, "2TB": false,
		"../2MB": false, "2 MB": false, "-1MB": false,
	} {
		if validPageSize(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

// Lists of machines with thousands of processors are passed on and read whole.
func TestBigCPUList(t *testing.T) {
	var parts []string
	for n := 0; n < 8192; n += 2 {
		parts = append(parts, i(int64(n)))
	}
	list := strings.Join(parts, ",")
	settings, err := v1Group().compile(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: list}})
	if err != nil || len(settings) != 1 || settings[0].value != list {
		t.Fatalf("%d settings, %v", len(settings), err)
	}
	if got := listOf(list); len(got) != 4096 || got[4095] != 8190 {
		t.Errorf("%d cpus read", len(got))
	}
	if got := listOf("0-8191"); len(got) != 8192 || got[8191] != 8191 {
		t.Errorf("%d cpus read", len(got))
	}
}

func TestOldValue(t *testing.T) {
	for _, c := range []struct{ file, content, value, want string }{
		{"/x/pids.max", "max\n", "7", "max"},
		{"/x/cpu.max", "max 100000\n", "5 10", "max 100000"},
		{"/x/cpuset.cpus", "\n", "0", "\n"},
		{"/x/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", "1", "0"},
		{"/x/io.max", "8:0 rbps=1 wbps=max riops=max wiops=max\n", "8:0 rbps=2", "8:0 rbps=1 wbps=max riops=max wiops=max"},
		{"/x/io.max", "", "8:0 rbps=2", "8:0 rbps=max wbps=max riops=max wiops=max"},
		{"/x/io.weight", "default 100\n", "200", "default 100"},
		{"/x/io.weight", "default 100\n", "8:0 200", "8:0 default"},
		{"/x/blkio.throttle.read_bps_device", "8:1 5\n", "8:0 7", "8:0 0"},
		{"/x/rdma.max", "mlx hca_handle=2 hca_object=max\n", "mlx hca_handle=3 hca_object=4", "mlx hca_handle=2 hca_object=max"},
	} {
		if got := oldValue(c.file, c.content, c.value); got != c.want {
			t.Errorf("%s %q before %q: %q, want %q", c.file, c.content, c.value, got, c.want)
		}
	}
}
