package lifecycle

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/procfs"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/plan"
)

// Before a process executes its program the runtime reads back from the kernel what the process has become
// (docs/decisions/0027). What is wanted comes from the configuration where it has it, and a step that the plan lacks
// counts as one that grants nothing.

// errReadBack begins the sentence about a process that is not what its configuration says.
var errReadBack = errors.New("the process is not as its configuration says")

// confirmation is what a process must be at one point of its plan.
type confirmation struct {
	uid, gid   uint32
	groups     []uint32
	anyGroups  bool // the user namespace denies setgroups(2)
	caps       plan.Capabilities
	bounding   uint64
	noNewPrivs bool
	seccomp    bool          // a filter is loaded already
	late       bool          // a filter is loaded after this point
	mapped     bool          // ids are those of a user namespace
	label      string        // of SELinux, for execve(2)
	cgroups    *cgroup.Group // nil: not compared
}

// confirm returns what process proc of configuration s must be while it waits at the operation of plan p that last
// recognises. The plan's capabilities are those of the configuration without what this host cannot grant.
func confirm(p *plan.Plan, s *specs.Spec, proc *specs.Process, last func(plan.Op) bool) *confirmation {
	c := &confirmation{uid: proc.User.UID, gid: proc.User.GID, groups: proc.User.AdditionalGids, noNewPrivs: proc.NoNewPrivileges,
		label: proc.SelinuxLabel}
	c.mapped = s.Linux != nil && slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	reached := false
	for _, op := range slices.Concat(p.Outer, p.Child) {
		reached = reached || last(op)
		switch o := op.(type) {
		case plan.Seccomp:
			c.seccomp, c.late = c.seccomp || !reached, c.late || reached
		case plan.SetUser:
			c.anyGroups = o.SkipGroups
		case plan.BoundingSet:
			c.bounding = o.Keep
		case plan.Capabilities:
			c.caps = o
		case plan.DropAdmin:
			if !reached {
				c.caps.Effective, c.caps.Permitted, c.caps.Inheritable = o.Effective, o.Permitted, o.Inheritable
			}
		}
	}
	return c
}

// beforeLimits is where a process waits that is not started by start.
func beforeLimits(op plan.Op) bool {
	w, ok := op.(plan.Wait)
	return ok && w.For == plan.ForLimits
}

// beforeStart is where a created container waits.
func beforeStart(op plan.Op) bool {
	_, ok := op.(plan.WaitStart)
	return ok
}

// check reads process pid back. One that has died is left to who waits for its report.
func (c *confirmation) check(pid int) error {
	err := c.compareProcess(pid)
	if err == nil {
		return nil
	}
	if ending(pid) {
		return nil
	}
	return err
}

// ending tells whether a process is gone, or on its way: its cgroups are the roots then.
func ending(pid int) bool {
	s, err := procfs.ReadStat(pid)
	return err != nil || s.Dead() || s.Exiting
}

func (c *confirmation) compareProcess(pid int) error {
	text, err := readProc(pid, "status")
	if err != nil {
		return fmt.Errorf("read back the process: %w", err)
	}
	s, err := parseStatus(text)
	if err != nil {
		return fmt.Errorf("read back the process: %w", err)
	}
	want := *c
	if err := want.translate(pid); err != nil {
		return fmt.Errorf("read back the process: %w", err)
	}
	for _, look := range []func() error{func() error { return want.compare(s) }, func() error { return want.compareCgroups(pid) },
		func() error { return want.compareLabel(pid) }} {
		if err := look(); err != nil {
			return fmt.Errorf("%w: %w", errReadBack, err)
		}
	}
	return nil
}

// translate turns ids to those that this process sees, by the maps of process pid.
func (c *confirmation) translate(pid int) error {
	if !c.mapped {
		return nil
	}
	uids, err := readProc(pid, "uid_map")
	if err != nil {
		return err
	}
	gids, err := readProc(pid, "gid_map")
	if err != nil {
		return err
	}
	if c.uid, err = hostID(c.uid, uids); err != nil {
		return err
	}
	if c.gid, err = hostID(c.gid, gids); err != nil {
		return err
	}
	c.groups = slices.Clone(c.groups)
	for i := range c.groups {
		if c.groups[i], err = hostID(c.groups[i], gids); err != nil {
			return err
		}
	}
	return nil
}

// compare compares a status with what is wanted.
func (c *confirmation) compare(s *status) error {
	for _, id := range s.uids {
		if id != c.uid {
			return fmt.Errorf("user ids are %d, want %d", s.uids, c.uid)
		}
	}
	for _, id := range s.gids {
		if id != c.gid {
			return fmt.Errorf("group ids are %d, want %d", s.gids, c.gid)
		}
	}
	if !c.anyGroups {
		found, want := slices.Sorted(slices.Values(s.groups)), slices.Sorted(slices.Values(c.groups)) // the kernel sorts them
		if !slices.Equal(found, want) {
			return fmt.Errorf("supplementary groups are %d, want %d", found, want)
		}
	}
	for _, set := range []struct {
		name        string
		found, want uint64
	}{
		{"bounding", s.bounding, c.bounding}, {"effective", s.effective, c.caps.Effective}, {"permitted", s.permitted, c.caps.Permitted},
		{"inheritable", s.inheritable, c.caps.Inheritable}, {"ambient", s.ambient, c.caps.Ambient},
	} {
		if set.found != set.want {
			return fmt.Errorf("%s capabilities are %016x, want %016x", set.name, set.found, set.want)
		}
	}
	if c.noNewPrivs && !s.noNewPrivs {
		return errors.New("no_new_privs is 0, want 1")
	}
	return c.compareFilter(s)
}

// compareFilter compares the seccomp mode alone; a filter that the runtime was started with stays.
func (c *confirmation) compareFilter(s *status) error {
	if c.seccomp && s.seccomp != seccompFilter && s.seccomp != seccompDead {
		return fmt.Errorf("seccomp mode is %d, want %d (filter)", s.seccomp, seccompFilter)
	}
	return nil
}

// Modes of the kernel's seccomp.h. A process that its filter is killing is dead.
const (
	seccompFilter = 2
	seccompDead   = 3
)

// compareCgroups looks whether the process is in its container's group, or below it, in every hierarchy.
func (c *confirmation) compareCgroups(pid int) error {
	if c.cgroups == nil || c.cgroups.Unit != nil { // systemd moves processes of its units
		return nil
	}
	text, err := readProc(pid, "cgroup")
	if err != nil {
		return err
	}
	return inGroup(text, c.cgroups)
}

// inGroup compares the text of /proc/PID/cgroup. Its paths begin at the root of the reader's cgroup namespace, the
// group's at the mount point.
func inGroup(text string, g *cgroup.Group) error {
	for i := range g.Dirs {
		d := &g.Dirs[i]
		if d.Unified && g.Mode != cgroup.V2 || d.Path == "/" {
			continue
		}
		list := strings.Join(d.Controllers, ",")
		switch {
		case d.Unified:
			list = ""
		case d.Name != "":
			list = "name=" + d.Name
		}
		found := false
		for line := range strings.Lines(text) {
			f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
			if len(f) != 3 || f[1] != list {
				continue
			}
			if found = strings.Contains(f[2]+"/", d.Path+"/"); !found {
				return fmt.Errorf("cgroup of %s is %q, want %q", d.Label(), f[2], d.Path)
			}
		}
		if !found {
			return fmt.Errorf("it has no cgroup of %s, want %q", d.Label(), d.Path)
		}
	}
	return nil
}

// compareLabel compares the SELinux label that execve(2) will give. AppArmor shows its profile to the process itself
// only: for another one reading the file is EINVAL (security/apparmor/lsm.c), so a profile is not compared.
func (c *confirmation) compareLabel(pid int) error {
	if c.label == "" {
		return nil
	}
	text, err := readProc(pid, "attr/exec")
	if err != nil {
		return err
	}
	return sameLabel(text, c.label)
}

// checkFilter looks whether a filter that was loaded last is in force now that the program runs: nothing takes it away.
// A program that has ended already is past that.
func (c *confirmation) checkFilter(pid int) error {
	if !c.late {
		return nil
	}
	text, err := readProc(pid, "status")
	if err != nil {
		return nil
	}
	s, err := parseStatus(text)
	if err != nil {
		return nil
	}
	late := confirmation{seccomp: true}
	if err = late.compareFilter(s); err == nil {
		return nil
	}
	if ending(pid) {
		return nil
	}
	return fmt.Errorf("%w: %w", errReadBack, err)
}

// finish lets a process that is not started by start go on, once it is what it must be.
func (c *confirmation) finish(child *launch.Child) error {
	if err := child.Ready(); err != nil {
		return err
	}
	if err := c.check(child.PID); err != nil {
		return err
	}
	return child.Go()
}
