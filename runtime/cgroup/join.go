package cgroup

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// JoinFile is an open descriptor by which a child enters the group in one hierarchy. The caller closes File.
type JoinFile struct {
	// Why says what it is for: "join cgroup cpu,cpuacct".
	Why string
	// File is, with IntoCgroup, a directory (O_PATH) for clone3(2)'s CLONE_INTO_CGROUP; else a `tasks` file in which
	// the single-threaded child writes "0". (A thread that moves itself by `tasks` takes no lock that waits for an RCU
	// grace period, as `cgroup.procs` does: microseconds instead of milliseconds.)
	File       *os.File
	IntoCgroup bool
}

// Join opens the group for a child: one file per hierarchy, cgroup2's last. The caller closes them.
func (g *Group) Join() ([]JoinFile, error) { return g.JoinExec(0, nil) }

// JoinRest is Join for those hierarchies only into which systemd does not move the first process of the group's unit.
func (g *Group) JoinRest() ([]JoinFile, error) {
	rest := &Group{Mode: g.Mode}
	for _, d := range g.Dirs {
		if !g.Managed(&d) {
			rest.Dirs = append(rest.Dirs, d)
		}
	}
	return rest.Join()
}

// JoinExec opens the group for a process that joins a running container whose first process is init (0: none is
// running). sub names groups below the container's by controller ("cpu", "name=systemd"), or by "" for all hierarchies;
// they must exist, and no component of theirs may lead out of the container's group.
//
// Where the container has handed its cgroup2 controllers on to groups below, its own group takes no process any more
// (cgroup-v2.rst, "No Internal Process Constraint"): then the group that init moved itself to is used. The caller
// closes the files.
func (g *Group) JoinExec(init int, sub map[string]string) (files []JoinFile, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.File.Close()
			}
			files = nil
		}
	}()
	if err := g.checkSubs(sub); err != nil {
		return nil, err
	}
	for i := range g.Dirs {
		d := &g.Dirs[i]
		below, err := d.subFor(init, sub)
		if err != nil {
			return files, err
		}
		f, err := d.openJoin(below)
		if err != nil {
			return files, err
		}
		files = append(files, JoinFile{Why: "join cgroup " + d.Label(), File: f, IntoCgroup: d.Unified})
	}
	return files, nil
}

// checkSubs refuses a name that no hierarchy has.
func (g *Group) checkSubs(sub map[string]string) error {
	for key := range sub {
		if key != "" && !slices.ContainsFunc(g.Dirs, func(d Dir) bool { return d.named(key) }) {
			return fmt.Errorf("join cgroup: unknown controller %s in SubCgroupPaths: %w", short(key), syscall.ENOENT)
		}
	}
	return nil
}

func (d *Dir) named(key string) bool {
	return slices.Contains(d.Controllers, key) || d.Label() == key || d.Name != "" && "name="+d.Name == key
}

// subFor is the path below the group that a process joins.
func (d *Dir) subFor(init int, sub map[string]string) (string, error) {
	for _, key := range sortedKeys(sub) {
		if key != "" && d.named(key) {
			return sub[key], nil
		}
	}
	if s := sub[""]; s != "" {
		return s, nil
	}
	if !d.Unified || init == 0 {
		return "", nil
	}
	b, err := cgroupfs.ReadFile(d.file("cgroup.subtree_control"), 4096)
	if err != nil || len(strings.TrimSpace(string(b))) == 0 {
		return "", nil // an error shows when the group is opened
	}
	b, err = cgroupfs.ReadFile(fmt.Sprintf("/proc/%d/cgroup", init), maxProcFile)
	if err != nil {
		return "", fmt.Errorf("read cgroup of process %d: %w", init, err)
	}
	for line := range strings.Lines(string(b)) {
		if own, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			if rest, ok := strings.CutPrefix(own, d.Path+"/"); ok {
				return rest, nil
			}
			return "", fmt.Errorf("join cgroup %s: it has handed its controllers to groups below, and process %d is in %s, not below it: %w",
				d.dir(), init, own, syscall.EBUSY)
		}
	}
	return "", nil
}

func (d *Dir) openJoin(sub string) (*os.File, error) {
	if strings.Trim(sub, "/") == "" {
		target, open := d.file("tasks"), cgroupfs.OpenWrite
		if d.Unified {
			target, open = d.dir(), cgroupfs.OpenDir
		}
		f, err := open(target)
		if err != nil {
			return nil, &fileError{op: "open", path: target, err: err}
		}
		return f, nil
	}
	base, err := cgroupfs.OpenDir(d.dir())
	if err != nil {
		return nil, &fileError{op: "open", path: d.dir(), err: err}
	}
	defer base.Close()
	name, flags := strings.Trim(sub, "/"), syscall.O_DIRECTORY|cgroupfs.OPath
	if !d.Unified { // not path.Join, which would clean ".." away before the kernel could refuse it
		name, flags = name+"/tasks", syscall.O_WRONLY
	}
	f, err := cgroupfs.OpenBeneath(base, name, flags)
	if err != nil {
		return nil, &fileError{op: "open", path: d.dir() + "/" + name, hint: hintBeneath(err), err: err}
	}
	return f, nil
}

func hintBeneath(err error) string {
	if err == syscall.EXDEV {
		return "it leads out of the container's cgroup"
	}
	return ""
}

// JoinPID moves a process, all its threads, into the group, or into the existing group sub below it.
func (g *Group) JoinPID(pid int, sub string) error {
	for i := range g.Dirs {
		if err := g.Dirs[i].joinPID(pid, sub); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) joinPID(pid int, sub string) error {
	base, err := cgroupfs.OpenDir(d.dir())
	if err != nil {
		return &fileError{op: "open", path: d.dir(), err: err}
	}
	defer base.Close()
	name := "cgroup.procs"
	if s := strings.Trim(sub, "/"); s != "" {
		name = s + "/" + name
	}
	f, err := cgroupfs.OpenBeneath(base, name, syscall.O_WRONLY)
	if err != nil {
		return &fileError{op: "open", path: d.dir() + "/" + name, hint: hintBeneath(err), err: err}
	}
	defer f.Close()
	v := strconv.Itoa(pid)
	if _, err := f.WriteString(v); err != nil {
		return &fileError{op: "write", path: d.dir() + "/" + name, value: v, hint: hintJoin(bare(err)), err: bare(err)}
	}
	return nil
}

func hintJoin(err error) string {
	switch err {
	case syscall.EBUSY:
		return "the cgroup hands controllers to groups below and takes no process itself"
	case syscall.ENOSPC:
		return "its cpuset is empty"
	case syscall.EINVAL:
		return "a real-time process needs real-time budget in its cgroup"
	case syscall.EOPNOTSUPP:
		return "the cgroup is threaded"
	}
	return ""
}
