package cgroup

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// compileMemory covers linux.resources.memory. Swap on version 1 is memory and swap together, as the specification
// counts it; the cgroup2 value, which is swap alone, is computed when it is written (writeMemory), because it depends
// on a limit that may be set already.
//
// `kernel` is accepted and has no effect on any kernel since 5.16 (kmem.limit_in_bytes is gone; kernel memory counts
// into the limit). `kernelTCP`, `swappiness`, `disableOOMKiller` and a false `useHierarchy` have no cgroup2 counterpart.
func (g *Group) compileMemory(res *specs.LinuxResources) ([]setting, error) {
	m := res.Memory
	if m == nil {
		return nil, nil
	}
	if err := checkMemory(m); err != nil {
		return nil, err
	}
	if g.v2("memory") {
		return g.compileMemoryV2(m)
	}
	var out []setting
	add := func(prop, file, value string, ck check) {
		out = append(out, setting{prop: "memory." + prop, controller: "memory", file: file, value: value, check: ck})
	}
	if m.UseHierarchy != nil {
		add("useHierarchy", "memory.use_hierarchy", bit(*m.UseHierarchy), checkNone)
	}
	if m.Limit != nil && *m.Limit != 0 {
		add("limit", "memory.limit_in_bytes", i(max(*m.Limit, -1)), checkBytes)
	}
	if m.Swap != nil && *m.Swap != 0 {
		add("swap", "memory.memsw.limit_in_bytes", i(max(*m.Swap, -1)), checkBytes)
	} else if m.Limit != nil && *m.Limit == -1 { // unlimited memory below a limit of both would not be unlimited
		add("swap", "memory.memsw.limit_in_bytes", "-1", checkNone)
		out[len(out)-1].optional = true
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		add("reservation", "memory.soft_limit_in_bytes", i(max(*m.Reservation, -1)), checkBytes)
	}
	if m.KernelTCP != nil && *m.KernelTCP != 0 {
		add("kernelTCP", "memory.kmem.tcp.limit_in_bytes", i(max(*m.KernelTCP, -1)), checkBytes)
	}
	if m.Swappiness != nil {
		add("swappiness", "memory.swappiness", u(*m.Swappiness), checkExact)
	}
	if m.DisableOOMKiller != nil {
		add("disableOOMKiller", "memory.oom_control", bit(*m.DisableOOMKiller), checkNone)
	}
	return out, nil
}

func (g *Group) compileMemoryV2(m *specs.LinuxMemory) ([]setting, error) {
	for _, p := range [...]struct {
		prop string
		set  bool
	}{
		{"memory.swappiness", m.Swappiness != nil},
		{"memory.kernelTCP", m.KernelTCP != nil && *m.KernelTCP > 0},
		{"memory.disableOOMKiller", m.DisableOOMKiller != nil && *m.DisableOOMKiller},
		{"memory.useHierarchy", m.UseHierarchy != nil && !*m.UseHierarchy},
	} {
		if p.set {
			return nil, unsupported(p.prop, "cgroup v2 has no such setting")
		}
	}
	var out []setting
	add := func(prop, file, value string, ck check) {
		out = append(out, setting{prop: "memory." + prop, controller: "memory", file: file, value: value, check: ck})
	}
	if m.Limit != nil && *m.Limit != 0 {
		add("limit", "memory.max", orUnlimited(*m.Limit), checkBytes)
	}
	switch {
	case m.Swap != nil && *m.Swap != 0:
		add("swap", "memory.swap.max", orUnlimited(*m.Swap), checkBytes)
	case m.Limit != nil && *m.Limit == -1:
		add("swap", "memory.swap.max", "max", checkNone)
		out[len(out)-1].optional = true
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		add("reservation", "memory.low", orUnlimited(*m.Reservation), checkBytes)
	}
	return out, nil
}

// checkMemory finds values that are wrong on every host. 0 stands for unset, as callers send it.
func checkMemory(m *specs.LinuxMemory) error {
	for _, v := range [...]struct {
		prop string
		v    *int64
	}{
		{"limit", m.Limit}, {"reservation", m.Reservation}, {"swap", m.Swap}, {"kernelTCP", m.KernelTCP},
	} {
		if v.v != nil && *v.v < -1 {
			return invalid("memory."+v.prop, "%d: want bytes, or -1 for unlimited", *v.v)
		}
	}
	if m.Swappiness != nil && *m.Swappiness > 100 {
		return invalid("memory.swappiness", "%d: want 0 to 100", *m.Swappiness)
	}
	if m.Swap == nil || m.Limit == nil || *m.Swap <= 0 || *m.Limit == 0 {
		return nil
	}
	if *m.Limit > *m.Swap || *m.Limit == -1 {
		return invalid("memory.swap", "%d is memory and swap together: memory+swap limit should be >= memory limit (%d)", *m.Swap, *m.Limit)
	}
	return nil
}

func orUnlimited(v int64) string {
	if v < 0 {
		return "max"
	}
	return i(v)
}

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
