package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// blockDevice finds any block device of the machine.
func blockDevice(t *testing.T) specs.LinuxBlockIODevice {
	t.Helper()
	files, _ := filepath.Glob("/sys/block/*/dev")
	for _, f := range files {
		b, err := os.ReadFile(f)
		major, minor, ok := deviceOf(strings.TrimSpace(string(b)))
		if err == nil && ok {
			return specs.LinuxBlockIODevice{Major: int64(major), Minor: int64(minor)}
		}
	}
	t.Skip("the machine has no block device")
	return specs.LinuxBlockIODevice{}
}

func TestBlockIO(t *testing.T) {
	dev := blockDevice(t)
	rate := func(r uint64) []specs.LinuxThrottleDevice {
		return []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: r}}
	}
	res := &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: rate(1 << 20), ThrottleWriteIOPSDevice: rate(77)}}
	g := testGroup(t, res)
	if err := g.Apply(res); err != nil {
		t.Fatal(err)
	}
	io := pick(g.v2io(), "io", "blkio")
	name := fmt.Sprintf("%d:%d ", dev.Major, dev.Minor)
	want(t, g, io, "blkio.throttle.read_bps_device", name+"1048576", "io.max", name+"rbps=1048576 wbps=max riops=max wiops=77")
	want(t, g, io, "blkio.throttle.write_iops_device", name+"77", "", "")
	if err := g.Update(&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: rate(0)}}); err != nil {
		t.Fatal(err)
	}
	want(t, g, io, "blkio.throttle.read_bps_device", "", "io.max", name+"rbps=max wbps=max riops=max wiops=77")

	weight := &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: p(uint16(500))}}
	err := g.Update(weight)
	if file := pick(g.v2io(), "io.weight", "blkio.bfq.weight"); isThere(g.find(io).file(file)) {
		want(t, g, io, "blkio.bfq.weight", "500", "io.weight", "default 4950")
	} else if !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a weight without %s: %v", file, err)
	}
	bad := &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{
		{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 4000, Minor: 7}, Rate: 1},
	}}}
	if err := g.Update(bad); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("a device that is not there: %v", err)
	}
}

func TestHugePages(t *testing.T) {
	limit := &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}
	if testHost(t).Find("hugetlb") == nil || !isThere("/sys/kernel/mm/hugepages/hugepages-2048kB") {
		t.Skip("the machine has no hugetlb cgroup with pages of 2 MB")
	}
	g := testGroup(t, limit)
	if err := g.Apply(limit); err != nil {
		t.Fatal(err)
	}
	want(t, g, "hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304", "hugetlb.2MB.max", "4194304")
	want(t, g, "hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes", "4194304", "hugetlb.2MB.rsvd.max", "4194304")
	s, err := g.Stats()
	if err != nil || len(s.Hugetlb) == 0 {
		t.Errorf("%v, %v", s.Hugetlb, err)
	}
	limit.HugepageLimits[0].Pagesize = "5MB"
	if err := g.Apply(limit); !errors.Is(err, syscall.ENOENT) || !strings.Contains(err.Error(), "no huge pages of this size") {
		t.Errorf("5MB: %v", err)
	}
}

func TestUnified(t *testing.T) {
	if testHost(t).Mode != V2 {
		t.Skip("the machine is not a cgroup v2 one")
	}
	res := &specs.LinuxResources{Unified: map[string]string{"pids.max": "7", "memory.high": "16777216", "cgroup.max.depth": "3"}}
	g := testGroup(t, res)
	if err := g.Apply(res); err != nil {
		t.Fatal(err)
	}
	for key, value := range res.Unified {
		if b, err := os.ReadFile(g.unified().file(key)); strings.TrimSpace(string(b)) != value {
			t.Errorf("%s is %q, %v", key, b, err)
		}
	}
	for key, part := range map[string]string{"foo.bar": "controller foo", "memory.nonsense": "controller memory", "pids.max ": "unified"} {
		err := g.Apply(&specs.LinuxResources{Unified: map[string]string{key: "1"}})
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestDelegate(t *testing.T) {
	g := testGroup(t, nil)
	if err := g.Delegate(12345); err != nil {
		t.Fatal(err)
	}
	owner := func(path string) uint32 {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Sys().(*syscall.Stat_t).Uid
	}
	u := g.unified()
	if u == nil {
		t.Skip("the machine has no cgroup2")
	}
	uid := pick(g.Mode == V2, uint32(12345), 0)
	for name, want := range map[string]uint32{
		"": uid, "cgroup.procs": uid, "cgroup.subtree_control": uid, "cgroup.threads": uid, "cgroup.freeze": 0, "../cgroup.procs": 0,
	} {
		if got := owner(u.dir() + "/" + name); got != want {
			t.Errorf("%q belongs to %d, want %d", name, got, want)
		}
	}
}

// A container that manages its own cgroup2 groups has moved out of its first one; exec follows.
func TestJoinExecFollowsInit(t *testing.T) {
	g := testGroup(t, nil)
	if g.Mode != V2 {
		t.Skip("the machine is not a cgroup v2 one")
	}
	cmd, _ := spawn(t, g, "")
	if err := os.Mkdir(g.Dirs[0].dir()+"/init", 0o755); err != nil {
		t.Fatal(err)
	}
	for file, value := range map[string]string{"init/cgroup.procs": strconv.Itoa(cmd.Process.Pid)} {
		if err := os.WriteFile(g.Dirs[0].dir()+"/"+file, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(g.Dirs[0].dir()+"/cgroup.subtree_control", []byte("+memory +pids"), 0); err != nil {
		t.Fatal(err)
	}
	files, err := g.JoinExec(cmd.Process.Pid, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer files[0].File.Close()
	if len(files) != 1 || !strings.HasSuffix(files[0].File.Name(), "/init") || !files[0].IntoCgroup {
		t.Errorf("%+v, %s", files, files[0].File.Name())
	}
}

func TestMountSources(t *testing.T) {
	g := &Group{Mode: Hybrid, Dirs: []Dir{
		{Hierarchy: Hierarchy{Controllers: []string{"cpu", "cpuacct"}, MountPoint: "/sys/fs/cgroup/cpu,cpuacct"}, Path: "/x/y"},
		{Hierarchy: Hierarchy{Name: "systemd", MountPoint: "/sys/fs/cgroup/systemd"}, Path: "/x/y"},
		{Hierarchy: Hierarchy{Controllers: []string{"memory"}, MountPoint: "/cg/memory"}, Path: "/x/y"},
		{Hierarchy: Hierarchy{Unified: true, MountPoint: "/sys/fs/cgroup/unified"}, Path: "/x/y"},
	}}
	want := []MountSource{
		{Name: "cpu,cpuacct", HostDir: "/sys/fs/cgroup/cpu,cpuacct/x/y", Links: []string{"cpu", "cpuacct"}},
		{Name: "systemd", HostDir: "/sys/fs/cgroup/systemd/x/y"},
		{Name: "memory", HostDir: "/cg/memory/x/y"},
	}
	if got := g.MountSources(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := g.UnifiedDir(); got != "/sys/fs/cgroup/unified/x/y" {
		t.Errorf("unified: %s", got)
	}
	g.Dirs[2].OwnPath, g.Dirs[2].Made = "/own", []string{"/x"}
	if got := g.Caller().MountSources()[2].HostDir; got != "/cg/memory/own" {
		t.Errorf("caller: %s", got)
	}
	g.Mode, g.Dirs = V2, g.Dirs[3:]
	if got := g.MountSources(); got != nil {
		t.Errorf("%+v", got)
	}
}

// Where nothing is at the usual places, mountinfo tells: other mount points, a container that sees its own group as
// root, a controller that is not mounted.
func TestDetectByMountinfo(t *testing.T) {
	own := "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/user.slice\n3:net_cls:/\n0::/../other\n"
	info := "30 1 0:1 /docker/abc /cg\\040x/memory ro - cgroup cgroup rw,memory\n" +
		"31 1 0:2 / /cg/cpuacct,cpu rw - cgroup cgroup rw,cpuacct,cpu\n" +
		"32 1 0:3 / /cg/systemd rw - cgroup systemd rw,xattr,name=systemd\n" +
		"33 1 0:4 / /cg/unified rw - cgroup2 cgroup2 rw,nsdelegate\n34 1 0:5 / /proc rw - proc proc rw\n"
	h, err := detect(t.TempDir(), func(name string) (string, error) {
		return map[string]string{"cgroup": own, "mountinfo": info}[name], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &Host{Mode: Hybrid, Hierarchies: []Hierarchy{
		{Controllers: []string{"cpu", "cpuacct"}, MountPoint: "/cg/cpuacct,cpu", OwnPath: "/docker/abc"},
		{Controllers: []string{"memory"}, MountPoint: "/cg x/memory", OwnPath: "/"},
		{Name: "systemd", MountPoint: "/cg/systemd", OwnPath: "/user.slice"},
		{Unified: true, MountPoint: "/cg/unified", OwnPath: "/", Controllers: []string{}},
	}}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("%+v", h)
	}
	none := func(string) (string, error) { return "", nil }
	if _, err := detect(t.TempDir(), none); !errors.Is(err, ErrNoCgroups) {
		t.Errorf("nothing mounted: %v", err)
	}
}

func TestDetectHere(t *testing.T) {
	h := testHost(t)
	for _, hi := range h.Hierarchies {
		if !isThere(hi.MountPoint + hi.OwnPath + "/cgroup.procs") {
			t.Errorf("%s: no group at %s%s", hi.Label(), hi.MountPoint, hi.OwnPath)
		}
	}
}

// The contract of Destroy when nothing can be killed in time: an error that names the process.
func TestDestroyDeadline(t *testing.T) {
	g := testGroup(t, nil)
	cmd, _ := spawn(t, g, "")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := g.Destroy(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err != nil && strings.Contains(err.Error(), "left after SIGKILL") && !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("does not name process %d: %v", cmd.Process.Pid, err)
	}
}

func BenchmarkDetect(b *testing.B) {
	for b.Loop() {
		if _, err := Detect(); err != nil {
			b.Skip(err)
		}
	}
}
