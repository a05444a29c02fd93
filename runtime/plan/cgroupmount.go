package plan

import (
	"fmt"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// cgroupMount builds what a program expects below /sys/fs/cgroup: its own part of every hierarchy. A container that stays in
// its caller's cgroups sees these, read-only whatever the options say: they are not the container's to change.
func (c *compiler) cgroupMount(m *specs.Mount, dest string, o parsedOptions) error {
	if c.host.CgroupShared && o.attr.Set&attrReadOnly == 0 {
		c.warn("mounts: %s: the container has no cgroup of its own: it sees its caller's, read-only", dest)
		o.attr.Set |= attrReadOnly
		o.attr.Clear &^= attrReadOnly
	}
	switch {
	case c.host.CgroupV2, m.Type == "cgroup2":
		return c.cgroup2Mount(m, dest, o)
	case len(c.host.CgroupMounts) == 0:
		c.warn("mounts: %s: this host has no cgroup mounted: the container sees an empty directory", dest)
		o.attr.Set |= attrReadOnly
	}
	return c.cgroup1Mount(dest, o)
}

// cgroup2Mount mounts the unified hierarchy: the real one where a new cgroup namespace hides what is not the container's, else a
// bind of the container's directory.
func (c *compiler) cgroup2Mount(m *specs.Mount, dest string, o parsedOptions) error {
	if c.newFlags&NewCgroup != 0 && !c.userns {
		c.add(Mount{Type: "cgroup2", Source: "cgroup", Dest: dest, At: placeOf(dest), Attr: o.attr, Data: append(o.flags, o.data...)})
		return nil
	}
	if c.host.CgroupUnified == "" {
		return fmt.Errorf("mounts: %s: type %s: no cgroup2 hierarchy is mounted on this host", dest, m.Type)
	}
	c.add(Bind{Source: c.host.CgroupUnified, Dest: dest, At: placeOf(dest), Attr: c.cgroupAttr(o.attr)})
	return nil
}

// cgroup1Mount is a tmpfs with a bind of the container's directory for each version 1 hierarchy, and links for those with several
// controllers.
func (c *compiler) cgroup1Mount(dest string, o parsedOptions) error {
	top := Mount{Type: "tmpfs", Source: "tmpfs", Dest: dest, At: placeOf(dest), Data: []string{"mode=755"}, Attr: o.attr, Name: dest}
	if top.Attr.Set&attrReadOnly != 0 {
		c.protectLater(&top)
	}
	for _, h := range c.host.CgroupMounts {
		top.Dirs = append(top.Dirs, h.Name)
	}
	c.add(top)
	for _, h := range c.host.CgroupMounts {
		c.add(Bind{Source: h.Dir, Dest: path.Join(dest, h.Name), In: top.Name, Attr: c.cgroupAttr(o.attr)})
		for _, link := range h.Links {
			c.add(Symlink{Target: h.Name, Path: path.Join(dest, link), In: top.Name})
		}
	}
	return nil
}

// cgroupAttr is what of a cgroup mount's options is set on a bind of the host's hierarchy. In a user namespace the flags of the host's
// mount are locked; options that would clear one of them, or change its access time, were meant for a new mount and ask for nothing.
func (c *compiler) cgroupAttr(a Attr) Attr {
	if c.userns {
		a.Set &^= attrAtime
		a.Clear, a.RecClear = 0, 0
	}
	return a
}
