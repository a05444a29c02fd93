package cgroup

import (
	"errors"
	"os"
	"path"
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
	subs, err := d.subtree()
	if err != nil {
		return nil, err
	}
	var all []int
	for _, sub := range subs {
		pids, err := d.procs(sub)
		if err != nil {
			return nil, err
		}
		all = append(all, pids...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// procs lists the processes of the directory itself, or of one below it.
func (d *Dir) procs(sub string) ([]int, error) {
	file := d.file(path.Join(sub, "cgroup.procs"))
	b, err := cgroupfs.ReadFile(file, maxControlFile)
	switch err {
	case nil:
	case syscall.ENOENT, syscall.ENODEV: // gone, before or while it was read
		return nil, nil
	case syscall.EOPNOTSUPP: // a threaded cgroup; its processes are listed by the domain above it
		return nil, nil
	default:
		return nil, &fileError{op: "read", path: file, err: err}
	}
	var pids []int
	for line := range strings.Lines(string(b)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// maxGroups bounds how many groups a container may leave to be walked.
const maxGroups = 1 << 20

// subtree lists the group and all groups below it, relative to it, parents first; "" is the group itself. Names below
// come from the container, but a directory of cgroupfs holds neither links nor other mounts' content for us: names are
// single components.
func (d *Dir) subtree() ([]string, error) {
	out := []string{""}
	for n := 0; n < len(out); n++ {
		dir := path.Join(d.dir(), out[n])
		entries, err := readDirs(dir)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
				continue
			}
			return nil, &fileError{op: "list", path: dir, err: err}
		}
		for _, e := range entries {
			out = append(out, path.Join(out[n], e))
		}
		if len(out) > maxGroups {
			return nil, &fileError{op: "list", path: d.dir(), hint: "too many cgroups below", err: syscall.E2BIG}
		}
	}
	return out, nil
}

func readDirs(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, bare(err)
}

// bare strips the path that os wraps around an errno.
func bare(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
