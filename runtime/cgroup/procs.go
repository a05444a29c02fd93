package cgroup

import (
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// primary is the directory that answers for processes: the one that can freeze them, so that a kill or a list sees
// the same set.
func (g *Group) primary() *Dir {
	if d := g.find("freezer"); d != nil {
		return d
	}
	if d := g.unified(); d != nil {
		return d
	}
	if len(g.Dirs) == 0 {
		return nil
	}
	return &g.Dirs[0]
}

// Procs lists the processes of the group and of all groups below it, sorted. Processes that this process's pid
// namespace cannot name are left out. A group that is gone has none.
func (g *Group) Procs() ([]int, error) {
	d := g.primary()
	if d == nil {
		return nil, ErrNoCgroups
	}
	return d.allProcs()
}

// allProcs lists the processes of the subtree.
func (d *Dir) allProcs() ([]int, error) {
	var all []int
	whole, err := cgroupfs.Walk(d.dir(), maxGroups, func(g cgroupfs.Group) error {
		pids, err := parseProcs(g.Read("cgroup.procs", maxControlFile))
		all = append(all, pids...)
		return err
	}, nil)
	if err != nil {
		return nil, &fileError{op: "list the processes of", path: d.dir(), hint: "or of a cgroup below", err: err}
	}
	if !whole {
		return nil, d.tooMany()
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// procs lists the processes of the directory itself.
func (d *Dir) procs() ([]int, error) {
	file := d.file("cgroup.procs")
	pids, err := parseProcs(cgroupfs.ReadFile(file, maxControlFile))
	if err != nil {
		return nil, &fileError{op: "read", path: file, err: err}
	}
	return pids, nil
}

// parseProcs reads the content of cgroup.procs, or why there is none.
func parseProcs(b []byte, err error) ([]int, error) {
	switch err {
	case nil:
	case syscall.ENOENT, syscall.ENODEV: // gone, before or while it was read
		return nil, nil
	case syscall.EOPNOTSUPP: // a threaded cgroup; its processes are listed by the domain above it
		return nil, nil
	default:
		return nil, err
	}
	var pids []int
	for line := range strings.Lines(string(b)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Bounds for what a container may leave: how many names of groups are kept at a time, to list them and to remove them.
// Removing goes on as long as there is progress.
const (
	maxGroups  = 1 << 20
	maxRemoved = 1 << 12
)

func (d *Dir) tooMany() error {
	return &fileError{op: "list", path: d.dir(), hint: "too many cgroups below", err: syscall.E2BIG}
}
