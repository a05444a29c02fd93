package cgroup

import (
	"path"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// MountSource is what an OCI mount of type "cgroup" shows of one version 1 hierarchy.
type MountSource struct {
	// Name of the directory below the mount's destination: "memory", "cpu,cpuacct", "systemd".
	Name string
	// HostDir is the container's own group, as a path in the host's mount namespace.
	HostDir string
	// Links are the names of symbolic links to Name, one per controller of a hierarchy with several.
	Links []string
}

// MountSources says what a cgroup mount of version 1 consists of: an entry for every version 1 hierarchy, none on a V2 host.
func (g *Group) MountSources() []MountSource {
	var out []MountSource
	for i := range g.Dirs {
		d := &g.Dirs[i]
		if d.Unified {
			continue
		}
		m := MountSource{Name: path.Base(d.MountPoint), HostDir: d.dir()}
		for _, c := range d.Controllers {
			if c != m.Name {
				m.Links = append(m.Links, c)
			}
		}
		out = append(out, m)
	}
	return out
}

// UnifiedDir is the container's own directory in the cgroup2 hierarchy, as a path in the host's mount namespace; empty where none
// is mounted.
func (g *Group) UnifiedDir() string {
	if d := g.unified(); d != nil {
		return d.dir()
	}
	return ""
}

// Caller returns the group that the calling process is in, for what a container sees that stays there. It made nothing.
func (g *Group) Caller() *Group {
	own := &Group{Mode: g.Mode}
	for _, d := range g.Dirs {
		own.Dirs = append(own.Dirs, Dir{Hierarchy: d.Hierarchy, Path: d.OwnPath})
	}
	return own
}

// Delegate gives the group to a user of the container, so that it may make groups of its own (runtime-spec, "Cgroup
// ownership"): the directory and the files that the kernel lists in /sys/kernel/cgroup/delegate. uid is the host's
// number. Only on a V2 host; the caller checks the specification's other conditions (new cgroup namespace, writable
// mount). Listed files that are not there are no error.
func (g *Group) Delegate(uid int) error {
	d := g.unified()
	if g.Mode != V2 || d == nil {
		return nil
	}
	list, err := cgroupfs.ReadFile("/sys/kernel/cgroup/delegate", 64<<10)
	if err != nil {
		list = []byte("cgroup.procs cgroup.subtree_control cgroup.threads")
	}
	if err := cgroupfs.Chown(d.dir(), uid); err != nil {
		return &fileError{op: "chown", path: d.dir(), err: err}
	}
	for _, name := range strings.Fields(string(list)) {
		if strings.Contains(name, "/") {
			continue
		}
		if err := cgroupfs.Chown(d.file(name), uid); err != nil && err != syscall.ENOENT {
			return &fileError{op: "chown", path: d.file(name), err: err}
		}
	}
	return nil
}
