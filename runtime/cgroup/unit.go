package cgroup

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// Unit is the unit of systemd whose cgroup a group is. Its directories in cgroup2 and in version 1's hierarchy "systemd" are systemd's to
// make and to remove; the others are handled like those of any group.
type Unit struct {
	Name string `json:"name"`
	User bool   `json:"user"` // of a user's own systemd
	// ID is the inode number of the unit's directory, by which it is known from one that took its place; 0: not started.
	ID uint64 `json:"id"`
}

// PlanUnit says where a unit of systemd is in every hierarchy, whose cgroup has the given absolute path; it touches nothing.
func (h *Host) PlanUnit(cgroup string, unit Unit) (*Group, error) {
	g, err := h.Plan(cgroup, "")
	if err != nil {
		return nil, err
	}
	if g.Unit = &unit; g.tracked() == nil {
		return nil, fmt.Errorf("find the cgroup hierarchy of systemd: %w", ErrNoCgroups)
	}
	return g, nil
}

// Managed tells whether the directory is systemd's.
func (g *Group) Managed(d *Dir) bool { return g.Unit != nil && (d.Unified || d.Name == "systemd") }

// tracked is the directory by which systemd knows the unit's processes.
func (g *Group) tracked() *Dir {
	for i := range g.Dirs {
		if d := &g.Dirs[i]; g.Managed(d) && (d.Unified == (g.Mode == V2)) {
			return d
		}
	}
	return nil
}

// Fit refuses a unit's cgroup that is in use or frozen already: systemd would put the container beside what is there.
func (g *Group) Fit() error {
	for i := range g.Dirs {
		d := &g.Dirs[i]
		if !g.Managed(d) {
			continue
		}
		if err := errors.Join(d.fit(), d.refuseFrozen()); err != nil {
			return err
		}
	}
	return nil
}

// Started takes over the cgroup of the unit that systemd has started with the process pid in it: it makes sure that the process is
// nowhere else, remembers the directory, and on cgroup2 enables the controllers, of which res tells which must be there.
func (g *Group) Started(pid int, res *specs.LinuxResources) error {
	d := g.tracked()
	pids, err := d.procs()
	if err != nil {
		return err
	}
	if !slices.Contains(pids, pid) {
		where, _ := cgroupfs.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid), maxProcFile)
		return fmt.Errorf("unit %s: process %d is not in its cgroup %s but in %q: %w", g.Unit.Name, pid, d.dir(), short(string(where)), ErrUnfit)
	}
	if g.Unit.ID, err = cgroupfs.Inode(d.dir()); err != nil {
		return &fileError{op: "stat", path: d.dir(), err: err}
	}
	if g.Mode != V2 {
		return nil
	}
	settings, err := g.compile(res)
	if err != nil {
		return err
	}
	return d.enable(g.needed(settings), true)
}

// Present tells whether the unit's cgroup is there, and is the one that Started took over.
func (g *Group) Present() bool {
	d := g.tracked()
	if d == nil || g.Unit.ID == 0 {
		return false
	}
	id, err := cgroupfs.Inode(d.dir())
	return err == nil && id == g.Unit.ID
}

// replaced tells whether a unit has the place of this one, which has ended: what is in any hierarchy there is the other's.
func (g *Group) replaced() bool {
	d := g.tracked()
	return d != nil && !g.Present() && cgroupfs.IsDir(d.dir())
}

// emptyUnit kills what is left in a directory that is systemd's. One that is not the container's, or not any more, is left alone.
func (g *Group) emptyUnit(ctx context.Context, d *Dir) error {
	for wait := 100 * time.Microsecond; g.Present(); wait = min(2*wait, 20*time.Millisecond) {
		pids, err := d.allProcs()
		if len(pids) == 0 || err != nil {
			return err
		}
		if err := g.killIn(ctx, d); err != nil {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return d.stuck(err)
		}
	}
	return nil
}

// Stopped waits until the directory of a unit that was stopped is gone, and then removes what an old systemd has left of it.
func (g *Group) Stopped(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx, destroyTimeout)
	defer cancel()
	begin := time.Now()
	for wait := time.Millisecond; g.Present(); wait = min(2*wait, 50*time.Millisecond) {
		if time.Since(begin) > time.Second {
			if _, err := g.tracked().removeTree(); err != nil {
				return err
			}
		}
		if err := sleep(ctx, wait); err != nil {
			return g.tracked().stuck(err)
		}
	}
	return nil
}

// MayJoin tells whether this process may move a process of its own cgroup into the group, or a group below it: it must be able to write
// to the nearest group that holds both (cgroup-v2.rst, "Delegation Containment"). Version 1 has no such rule.
func (g *Group) MayJoin() bool {
	d := g.unified()
	if d == nil || g.Mode != V2 {
		return true
	}
	f, err := cgroupfs.OpenWrite(d.MountPoint + path.Join(commonDir(d.OwnPath, d.Path), "cgroup.procs"))
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// commonDir is the deepest directory that two absolute paths are in, or are.
func commonDir(a, b string) string {
	common := "/"
	one, two := strings.Split(a, "/"), strings.Split(b, "/")
	for i := range min(len(one), len(two)) {
		if one[i] != two[i] {
			break
		}
		common = path.Join(common, one[i])
	}
	return common
}

// SubFor is where below the group a process is to go that joins a running container; see JoinExec. For a cgroup2 host.
func (g *Group) SubFor(init int, sub map[string]string) (string, error) {
	if err := g.checkSubs(sub); err != nil {
		return "", err
	}
	below, err := g.unified().subFor(init, sub)
	if err != nil {
		return "", err
	}
	if slices.Contains(strings.Split(below, "/"), "..") {
		return "", fmt.Errorf("join cgroup %q: %s: %w", short(below), hintBeneath(syscall.EXDEV), syscall.EXDEV)
	}
	return below, nil
}

// Value is what a control file holds.
type Value struct{ File, Content string }

// Written reads the control files back that res has to do with, once they were written. A limit of memory brings the one of swap along,
// and one half of the processor's bandwidth the other.
func (g *Group) Written(res *specs.LinuxResources) ([]Value, error) {
	settings, err := g.compile(res)
	if err != nil {
		return nil, err
	}
	var out []Value
	read := func(d *Dir, name string) {
		if slices.ContainsFunc(out, func(v Value) bool { return v.File == name }) {
			return
		}
		if b, err := cgroupfs.ReadFile(d.file(name), maxControlFile); err == nil { // optional ones need not be there
			out = append(out, Value{name, strings.TrimSpace(string(b))})
		}
	}
	for _, s := range settings {
		d := g.dirOf(&s)
		for _, name := range []string{s.file, s.alt} {
			if name != "" {
				read(d, name)
			}
		}
		switch s.file {
		case "memory.max":
			read(d, "memory.swap.max")
		case "cpu.cfs_quota_us", "cpu.cfs_period_us":
			read(d, "cpu.cfs_quota_us")
			read(d, "cpu.cfs_period_us")
		case "cpu.weight":
			read(d, "cpu.idle")
		}
	}
	return out, nil
}

// DeviceRule is one exception of a DeviceList; Major and Minor -1 are all.
type DeviceRule struct {
	Type         byte // 'b' or 'c'
	Major, Minor int64
	Access       string // letters of rwm
}

// DeviceList gives device rules, with the default rules behind them, as version 1 has them: what holds by default, and exceptions of the
// opposite kind.
func DeviceList(rules []specs.LinuxDeviceCgroup) (allow bool, exceptions []DeviceRule, err error) {
	l, err := parseDevices(rules)
	if err != nil {
		return false, nil, err
	}
	flat, err := l.flatten()
	for _, r := range flat {
		text := r.String()
		exceptions = append(exceptions, DeviceRule{r.typ, r.major, r.minor, text[strings.LastIndexByte(text, ' ')+1:]})
	}
	return l.allow, exceptions, err
}
