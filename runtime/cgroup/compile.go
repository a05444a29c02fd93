package cgroup

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// check says how a value is compared with what the kernel gives back.
type check int

const (
	checkNone  check = iota // the kernel prints it in another form
	checkExact              // the same text
	checkBytes              // a number that the kernel rounds down to pages; -1 and "max" are the same
)

// setting is one value for one control file.
type setting struct {
	prop       string // property below linux.resources, for people: "memory.limit"
	controller string
	file       string
	value      string
	alt        string // file that is used when file is not there
	altValue   string // value for alt; empty: the same
	optional   bool   // no error when the file is not there
	check      check
}

// need is a controller that a property asks for.
type need struct{ controller, prop string }

// compile turns resources into settings for the group's hierarchies, each property in the dialect of the hierarchy that
// carries its controller. Device rules are not among them. The order is the order of writing, memory and cpu bandwidth
// apart, whose order depends on the present values (apply.go).
func (g *Group) compile(res *specs.LinuxResources) ([]setting, error) {
	if res == nil {
		return nil, nil
	}
	var out []setting
	for _, part := range [...]func(*specs.LinuxResources) ([]setting, error){
		g.compileCPU, g.compileMemory, g.compilePids, g.compileBlockIO, g.compileHugetlb, g.compileNetwork, g.compileRdma,
		g.compileUnified,
	} {
		s, err := part(res)
		if err != nil {
			return nil, err
		}
		out = append(out, s...)
	}
	for _, s := range out {
		if s.controller != "" && g.find(s.controller) == nil {
			return nil, unsupported(s.prop, "cgroup controller "+s.controller+" is not mounted or not in the kernel")
		}
	}
	return out, nil
}

// v2 tells whether a controller, if there at all, is in the unified hierarchy.
func (g *Group) v2(controller string) bool {
	if d := g.find(controller); d != nil {
		return d.Unified
	}
	return g.Mode == V2
}

// needed lists the controllers that must be enabled in the unified hierarchy for settings.
func (g *Group) needed(settings []setting) []need {
	var out []need
	for _, s := range settings {
		c := s.controller
		if key, ok := strings.CutPrefix(s.prop, "unified."); ok {
			if c, _, _ = strings.Cut(key, "."); !knownController(c) {
				continue // "cgroup.…", or a file of a kernel to come: the write will tell
			}
		} else if d := g.find(c); d == nil || !d.Unified {
			continue
		}
		if !slices.ContainsFunc(out, func(n need) bool { return n.controller == c }) {
			out = append(out, need{c, s.prop})
		}
	}
	return out
}

func knownController(c string) bool {
	switch c {
	case "cpu", "cpuset", "dmem", "hugetlb", "io", "memory", "misc", "perf_event", "pids", "rdma":
		return true
	}
	return false
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (g *Group) compileCPU(res *specs.LinuxResources) ([]setting, error) {
	c := res.CPU
	if c == nil {
		return nil, nil
	}
	var out []setting
	add := func(prop, controller, file, value string, ck check) {
		out = append(out, setting{prop: "cpu." + prop, controller: controller, file: file, value: value, check: ck})
	}
	idle := setting{}
	if c.Idle != nil {
		if *c.Idle != 0 && *c.Idle != 1 {
			return nil, invalid("cpu.idle", "%d is neither 0 nor 1", *c.Idle)
		}
		idle = setting{prop: "cpu.idle", controller: "cpu", file: "cpu.idle", value: strconv.FormatInt(*c.Idle, 10), check: checkExact}
		if *c.Idle == 0 { // an idle group takes no shares: leave that state first
			out = append(out, idle)
		}
	}
	if c.Shares != nil && *c.Shares != 0 {
		if g.v2("cpu") {
			add("shares", "cpu", "cpu.weight", u(weightOfShares(*c.Shares)), checkExact)
		} else if err := checkShares(*c.Shares); err != nil {
			return nil, err
		} else {
			add("shares", "cpu", "cpu.shares", u(*c.Shares), checkExact)
		}
	}
	if idle.value == "1" { // and shares written before are harmless
		idle.check = checkExact
		out = append(out, idle)
		for i := range out {
			if out[i].prop == "cpu.shares" {
				out[i].check = checkNone // overridden by idle
			}
		}
	}
	if g.v2("cpu") && (c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 || c.RealtimePeriod != nil && *c.RealtimePeriod != 0) {
		return nil, unsupported("cpu.realtimeRuntime, cpu.realtimePeriod", "cgroup v2 has no real-time bandwidth")
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		add("realtimePeriod", "cpu", "cpu.rt_period_us", u(*c.RealtimePeriod), checkExact)
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		add("realtimeRuntime", "cpu", "cpu.rt_runtime_us", i(*c.RealtimeRuntime), checkExact)
	}
	out = append(out, g.compileBandwidth(c)...)
	for _, l := range [...]struct{ prop, value string }{{"cpus", c.Cpus}, {"mems", c.Mems}} {
		if l.value == "" {
			continue
		}
		if err := checkList(l.value); err != nil {
			return nil, invalid("cpu."+l.prop, "%q: %v", short(l.value), err)
		}
		add(l.prop, "cpuset", "cpuset."+l.prop, l.value, checkNone)
	}
	return out, nil
}

// compileBandwidth covers quota, period and burst; 0 stands for unset, as callers send it. On cgroup2 the value of
// cpu.max is completed from the present one when it is written (see writeBandwidth).
func (g *Group) compileBandwidth(c *specs.LinuxCPU) []setting {
	var out []setting
	add := func(prop, file, value string) {
		out = append(out, setting{prop: "cpu." + prop, controller: "cpu", file: file, value: value, check: checkExact})
	}
	quota, period := c.Quota != nil && *c.Quota != 0, c.Period != nil && *c.Period != 0
	if g.v2("cpu") {
		q, p := "", ""
		if quota {
			q = "max"
			if *c.Quota > 0 {
				q = i(*c.Quota)
			}
		}
		if period {
			p = u(*c.Period)
		}
		if quota || period {
			add("quota", "cpu.max", q+" "+p)
		}
		if c.Burst != nil {
			add("burst", "cpu.max.burst", u(*c.Burst))
		}
		return out
	}
	if period {
		add("period", "cpu.cfs_period_us", u(*c.Period))
	}
	if quota {
		add("quota", "cpu.cfs_quota_us", i(max(*c.Quota, -1)))
	}
	if c.Burst != nil {
		add("burst", "cpu.cfs_burst_us", u(*c.Burst))
	}
	return out
}

// checkShares refuses what the kernel would silently change (MIN_SHARES and MAX_SHARES in kernel/sched/sched.h).
func checkShares(shares uint64) error {
	switch {
	case shares < 2:
		return invalid("cpu.shares", "%d: the minimum allowed cpu-shares is 2", shares)
	case shares > 262144:
		return invalid("cpu.shares", "%d: the maximum allowed cpu-shares is 262144", shares)
	}
	return nil
}

// weightOfShares converts cpu.shares (2 to 262144) to cpu.weight (1 to 10000) so that the least, the default (1024,
// 100) and the greatest agree, and what is beyond them is taken for them, as with runc: ⌈10^((l²+125l)/612 − 7/34)⌉ with l = log2(shares).
func weightOfShares(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func (g *Group) compilePids(res *specs.LinuxResources) ([]setting, error) {
	if res.Pids == nil || res.Pids.Limit == nil {
		return nil, nil
	}
	v := "max"
	if *res.Pids.Limit >= 0 {
		v = i(*res.Pids.Limit)
	}
	return []setting{{prop: "pids.limit", controller: "pids", file: "pids.max", value: v, check: checkExact}}, nil
}

func (g *Group) compileHugetlb(res *specs.LinuxResources) ([]setting, error) {
	suffix := ".limit_in_bytes"
	if g.v2("hugetlb") {
		suffix = ".max"
	}
	var out []setting
	for _, l := range res.HugepageLimits {
		if !validPageSize(l.Pagesize) {
			return nil, invalid("hugepageLimits", "page size %q: want a number and KB, MB or GB", short(l.Pagesize))
		}
		s := setting{
			prop: "hugepageLimits." + l.Pagesize, controller: "hugetlb",
			file: "hugetlb." + l.Pagesize + suffix, value: u(l.Limit),
		}
		rsvd := s
		rsvd.file, rsvd.optional = "hugetlb."+l.Pagesize+".rsvd"+suffix, true
		out = append(out, s, rsvd) // use and, since Linux 5.7, reservation
	}
	return out, nil
}

// validPageSize is ^[1-9][0-9]*[KMG]B$ (config-linux.md, "Huge page limits").
func validPageSize(s string) bool {
	n := len(s) - 2
	if n < 1 || len(s) > 20 || s[n+1] != 'B' || !strings.Contains("KMG", s[n:n+1]) || s[0] == '0' {
		return false
	}
	for _, c := range s[:n] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func (g *Group) compileNetwork(res *specs.LinuxResources) ([]setting, error) {
	n := res.Network
	if n == nil {
		return nil, nil
	}
	var out []setting
	if n.ClassID != nil && (*n.ClassID != 0 || g.find("net_cls") != nil) {
		out = append(out, setting{
			prop: "network.classID", controller: "net_cls", file: "net_cls.classid", value: u(uint64(*n.ClassID)), check: checkExact,
		})
	}
	for _, p := range n.Priorities {
		if p.Name == "" || len(p.Name) > 15 || strings.ContainsAny(p.Name, " \t\n/\x00") {
			return nil, invalid("network.priorities", "interface name %q", short(p.Name))
		}
		out = append(out, setting{
			prop: "network.priorities", controller: "net_prio", file: "net_prio.ifpriomap",
			value: fmt.Sprintf("%s %d", p.Name, p.Priority),
		})
	}
	return out, nil
}

func (g *Group) compileRdma(res *specs.LinuxResources) ([]setting, error) {
	var out []setting
	for _, dev := range sortedKeys(res.Rdma) {
		l := res.Rdma[dev]
		if dev == "" || strings.ContainsAny(dev, " \t\n\x00") {
			return nil, invalid("rdma", "device name %q", short(dev))
		}
		if l.HcaHandles == nil && l.HcaObjects == nil {
			return nil, invalid("rdma."+dev, "hcaHandles or hcaObjects must be set")
		}
		out = append(out, setting{
			prop: "rdma." + dev, controller: "rdma", file: "rdma.max",
			value: dev + " hca_handle=" + orMax(l.HcaHandles) + " hca_object=" + orMax(l.HcaObjects),
		})
	}
	return out, nil
}

func orMax(v *uint32) string {
	if v == nil {
		return "max"
	}
	return u(uint64(*v))
}

// compileUnified passes the map on: every key is a file of the group's cgroup2 directory. Keys that would move
// processes are no limits and are refused.
func (g *Group) compileUnified(res *specs.LinuxResources) ([]setting, error) {
	if len(res.Unified) > 0 && g.unified() == nil {
		return nil, unsupported("unified", "cgroup2 is not mounted")
	}
	var out []setting
	for _, key := range sortedKeys(res.Unified) {
		switch {
		case key == "" || key == "." || key == ".." || strings.ContainsAny(key, "/\x00"):
			return nil, invalid("unified", "key %q is not a file name", short(key))
		case key == "cgroup.procs" || key == "cgroup.threads":
			return nil, invalid("unified", "key %q would move processes", key)
		}
		out = append(out, setting{prop: "unified." + key, file: key, value: res.Unified[key]})
	}
	return out, nil
}

// checkList accepts a list of cpus or memory nodes as the kernel reads it ("0-3,8,16-31:2/4", "N"): digits and
// separators in any number, so machines of any size. Its meaning is the kernel's to judge.
func checkList(s string) error {
	for _, c := range s {
		if !strings.ContainsRune("0123456789-,:/Nal \n", c) {
			return fmt.Errorf("unexpected %q", c)
		}
	}
	return nil
}

func u(v uint64) string { return strconv.FormatUint(v, 10) }
func i(v int64) string  { return strconv.FormatInt(v, 10) }
