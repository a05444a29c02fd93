package cgroup

// FreezerDir returns the directory of the group's freezer, for programs that freeze it by themselves; empty where there is none.
func (g *Group) FreezerDir() string {
	d, err := g.freezerDir()
	if err != nil {
		return ""
	}
	return d.dir()
}
