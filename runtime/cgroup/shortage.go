package cgroup

// Shortage tells how often the group's memory limit was in the way.
type Shortage struct {
	Limit    uint64 // bytes
	Kills    uint64 // processes that the kernel has killed for it
	Failures uint64 // times that the limit was hit
}

// Shortage reads it; all zero when there is no limit, or none can be read.
func (g *Group) Shortage() Shortage {
	d := g.find("memory")
	if d == nil {
		return Shortage{}
	}
	var r reader
	s := Shortage{}
	if d.Unified {
		events := r.keyed(d, "memory.events")
		s = Shortage{Limit: r.number(d, "memory.max"), Kills: events["oom_kill"], Failures: events["max"]}
	} else {
		s = Shortage{Limit: r.number(d, "memory.limit_in_bytes"), Kills: r.keyed(d, "memory.oom_control")["oom_kill"],
			Failures: r.number(d, "memory.failcnt")}
	}
	if s.Limit >= 1<<62 { // no limit
		return Shortage{}
	}
	return s
}
