package spec

import (
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// resources checks limits; at is the prefix of the paths in messages, "linux.resources." in a configuration.
func (v *validator) resources(at string, r *specs.LinuxResources) {
	v.deviceRules(at+"devices", r.Devices)
	v.memory(at+"memory.", r.Memory)
	v.cpu(at+"cpu.", r.CPU)
	v.blockIO(at+"blockIO.", r.BlockIO)
	for i, h := range r.HugepageLimits {
		if !isPageSize(h.Pagesize) {
			v.bad("%shugepageLimits[%d].pageSize: %s is not a size like 64KB, 2MB or 1GB", at, i, quote(h.Pagesize))
		}
	}
	if r.Network != nil {
		for i, p := range r.Network.Priorities {
			if !isInterfaceName(p.Name) {
				v.bad("%snetwork.priorities[%d].name: %s is not an interface name", at, i, quote(p.Name))
			}
		}
	}
	for _, device := range slices.Sorted(maps.Keys(r.Rdma)) {
		if l := r.Rdma[device]; l.HcaHandles == nil && l.HcaObjects == nil {
			v.bad("%srdma[%s]: want hcaHandles, hcaObjects or both", at, quote(device))
		}
	}
	for _, file := range slices.Sorted(maps.Keys(r.Unified)) {
		if file == "" || file == "." || file == ".." || strings.Contains(file, "/") {
			v.bad("%sunified: %s is not a file name", at, quote(file))
		}
	}
}

func (v *validator) deviceRules(at string, rules []specs.LinuxDeviceCgroup) {
	for i, r := range rules {
		switch r.Type {
		case "", "a", "b", "c":
		default:
			v.bad("%s[%d].type: unknown type %s, want a, b or c", at, i, quote(r.Type))
		}
		// "a" is not in the specification, but callers of runc write it.
		if strings.Trim(r.Access, "rwma") != "" {
			v.bad("%s[%d].access: %s is not made of r, w and m", at, i, quote(r.Access))
		}
		// -1 is not in the specification, but engines write it for "any".
		if r.Major != nil && *r.Major < -1 {
			v.bad("%s[%d].major: %d is not a device number", at, i, *r.Major)
		}
		if r.Minor != nil && *r.Minor < -1 {
			v.bad("%s[%d].minor: %d is not a device number", at, i, *r.Minor)
		}
	}
}

func (v *validator) memory(at string, m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	for _, l := range [...]struct {
		name  string
		value *int64
	}{{"limit", m.Limit}, {"reservation", m.Reservation}, {"swap", m.Swap}} {
		if l.value != nil && *l.value < -1 {
			v.bad("%s%s: want -1 (unlimited) or more, got %d", at, l.name, *l.value)
		}
	}
	if m.Limit != nil && m.Swap != nil && *m.Limit > 0 && *m.Swap > 0 && *m.Swap < *m.Limit {
		v.bad("%sswap: %d is less than the memory limit %d, which it includes", at, *m.Swap, *m.Limit)
	}
	if m.Swappiness != nil && *m.Swappiness > 100 {
		v.bad("%sswappiness: want 0 to 100, got %d", at, *m.Swappiness)
	}
}

// swap refuses a limit for memory and swap together where memory has none, which no kernel interface can express.
func (v *validator) swap(at string, m *specs.LinuxMemory) {
	if m != nil && m.Swap != nil && *m.Swap > 0 && (m.Limit == nil || *m.Limit <= 0) {
		v.bad("%smemory.swap: %d needs a memory limit", at, *m.Swap)
	}
}

func (v *validator) cpu(at string, c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	if c.Quota != nil && *c.Quota < -1 {
		v.bad("%squota: want -1 (unlimited) or more, got %d", at, *c.Quota)
	}
	if c.Burst != nil && c.Quota != nil && *c.Quota > 0 && *c.Burst > uint64(*c.Quota) {
		v.bad("%sburst: %d is more than the quota %d", at, *c.Burst, *c.Quota)
	}
	if c.Idle != nil && *c.Idle != 0 && *c.Idle != 1 {
		v.bad("%sidle: want 0 or 1, got %d", at, *c.Idle)
	}
	v.list(at+"cpus", c.Cpus)
	v.list(at+"mems", c.Mems)
}

func (v *validator) blockIO(at string, b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	v.weight(at+"weight", b.Weight)
	v.weight(at+"leafWeight", b.LeafWeight)
	for i, d := range b.WeightDevice {
		if d.Weight == nil && d.LeafWeight == nil {
			v.bad("%sweightDevice[%d]: want weight, leafWeight or both", at, i)
		}
		v.weight(at+"weightDevice.weight", d.Weight)
		v.weight(at+"weightDevice.leafWeight", d.LeafWeight)
	}
}

// weight takes 0 as "not set", as engines write it.
func (v *validator) weight(at string, w *uint16) {
	if w != nil && *w != 0 && (*w < 10 || *w > 1000) {
		v.bad("%s: want 10 to 1000, got %d", at, *w)
	}
}

// isPageSize matches ^[1-9][0-9]*[KMG]B$.
func isPageSize(s string) bool {
	n := len(s) - 2
	return n >= 1 && s[n+1] == 'B' && strings.IndexByte("KMG", s[n]) >= 0 && isNumber(s[:n]) && s[0] != '0'
}
