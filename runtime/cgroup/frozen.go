package cgroup

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// freezes tells whether the directory is one of a hierarchy that can freeze processes.
func (d *Dir) freezes() bool { return d.Unified || slices.Contains(d.Controllers, "freezer") }

// asked tells whether the group at p, relative to the mount point, was itself asked to be frozen. A group that is gone was not.
func (d *Dir) asked(p string) bool {
	b, err := cgroupfs.ReadFile(d.MountPoint+path.Join(p, pick(d.Unified, "cgroup.freeze", "freezer.self_freezing")), 64)
	return err == nil && len(b) > 0 && b[0] == '1'
}

// frozenAt returns the nearest group from p upwards that was asked to be frozen and so keeps what is at p frozen; empty: there is
// none. The root cannot be frozen.
func (d *Dir) frozenAt(p string) string {
	for ; p != "/" && p != "."; p = path.Dir(p) {
		if d.asked(p) {
			return p
		}
	}
	return ""
}

// refuseFrozen refuses a group in which a process would be frozen from its birth: its own doing if it was there before, else a
// parent's.
func (d *Dir) refuseFrozen() error {
	p := d.Path
	if d.own() {
		p = path.Dir(p)
	}
	if !d.freezes() {
		return nil
	}
	if at := d.frozenAt(p); at != "" {
		return fmt.Errorf("container's cgroup unexpectedly frozen: %s: %w", d.MountPoint+at, ErrUnfit)
	}
	return nil
}

// FrozenAbove returns the directory of a group above this one that was asked to be frozen, so that no process here runs; empty:
// there is none.
func (g *Group) FrozenAbove() string {
	d, err := g.freezerDir()
	if err != nil {
		return ""
	}
	if at := d.frozenAt(path.Dir(d.Path)); at != "" {
		return d.MountPoint + at
	}
	return ""
}

// FrozenElsewhere returns the directory of the version 1 group that keeps a process frozen although the process is not in this
// group, or because a group above this one is frozen; empty: nothing does, or this group and those below it, which Kill thaws.
// Not even SIGKILL ends such a process. On cgroup2 it does.
func (h *Host) FrozenElsewhere(pid int, g *Group) string {
	f := h.Find("freezer")
	if f == nil || f.Unified {
		return ""
	}
	b, err := cgroupfs.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid), maxProcFile)
	if err != nil {
		return "" // it is gone
	}
	for line := range strings.Lines(string(b)) {
		hi, ok := parseOwn(strings.TrimSuffix(line, "\n"))
		if !ok || !slices.Contains(hi.Controllers, "freezer") {
			continue
		}
		d := Dir{Hierarchy: *f, Path: hi.OwnPath}
		at := d.frozenAt(d.Path)
		if at == "" || g != nil && g.contains(at) {
			return ""
		}
		return d.MountPoint + at
	}
	return ""
}

// contains tells whether a path of the freezer's hierarchy is the group or below it.
func (g *Group) contains(p string) bool {
	d := g.find("freezer")
	return d != nil && (p == d.Path || strings.HasPrefix(p, d.Path+"/"))
}

// ThawBelow takes the wish to be frozen from all groups below the container's, which a container with a writable freezer of version 1
// may have made: SIGKILL waits in them. Errors show in what is left.
func (g *Group) ThawBelow() {
	d := g.find("freezer")
	if d == nil || d.Unified {
		return
	}
	first := true
	_, _ = cgroupfs.Walk(d.dir(), maxGroups, func(sub cgroupfs.Group) error {
		if !first {
			_ = sub.Write("freezer.state", "THAWED")
		}
		first = false
		return nil
	}, nil)
}
