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

	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// freezerDir is the directory whose freezer is used: version 1's where it is mounted, else cgroup2's.
func (g *Group) freezerDir() (*Dir, error) {
	if d := g.find("freezer"); d != nil {
		return d, nil
	}
	if d := g.unified(); d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("freeze cgroup: no freezer is mounted: %w", errors.ErrUnsupported)
}

// Freeze stops all processes of the group and returns when they have stopped. When ctx ends before (10 s without a
// deadline), they run on and the error says so: the group is never left half frozen.
func (g *Group) Freeze(ctx context.Context) error {
	d, err := g.freezerDir()
	if err != nil {
		return err
	}
	ctx, cancel := withTimeout(ctx, freezeTimeout)
	defer cancel()
	if err := d.setFrozen(ctx, true); err != nil {
		undo, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if back := d.setFrozen(undo, false); back != nil {
			return fmt.Errorf("%w (and thawing: %v)", err, back)
		}
		return err
	}
	return nil
}

// Thaw lets the processes go on, and returns when they do. A frozen parent that keeps them stopped is an error at once.
func (g *Group) Thaw(ctx context.Context) error {
	d, err := g.freezerDir()
	if err != nil {
		return err
	}
	ctx, cancel := withTimeout(ctx, freezeTimeout)
	defer cancel()
	return d.setFrozen(ctx, false)
}

// Frozen tells whether the group itself was asked to be frozen. A group that is gone is not.
func (g *Group) Frozen() (bool, error) {
	d, err := g.freezerDir()
	if err != nil {
		return false, err
	}
	name := pick(d.Unified, "cgroup.freeze", "freezer.self_freezing")
	b, err := cgroupfs.ReadFile(d.file(name), 64)
	if err == syscall.ENOENT || err == syscall.ENODEV {
		return false, nil
	}
	if err != nil {
		return false, &fileError{op: "read", path: d.file(name), err: err}
	}
	return strings.HasPrefix(string(b), "1"), nil
}

// setFrozen writes the wish until the state is there. Version 1 may stay FREEZING while processes come and go; writing
// again makes it look again (cgroup-v1/freezer-subsystem.rst).
func (d *Dir) setFrozen(ctx context.Context, frozen bool) error {
	file, value := d.file("freezer.state"), pick(frozen, "FROZEN", "THAWED")
	if d.Unified {
		file, value = d.file("cgroup.freeze"), bit(frozen)
	}
	for wait := 20 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		if _, err := cgroupfs.WriteFile(file, value); err != nil {
			return &fileError{op: "write", path: file, value: value, err: err}
		}
		done, err := d.isFrozen()
		if err != nil || done == frozen {
			return err
		}
		if at := d.frozenAt(path.Dir(d.Path)); !frozen && at != "" {
			return &fileError{op: "write", path: file, value: value, hint: d.MountPoint + at + " above it is frozen", err: syscall.EBUSY}
		}
		if err := sleep(ctx, wait); err != nil {
			hint := pick(frozen, "a process does not stop", "a parent cgroup is frozen")
			return &fileError{op: "wait for", path: file, value: value, hint: hint, err: err}
		}
	}
}

// isFrozen tells whether all processes have stopped. The state between counts as the one it leaves.
func (d *Dir) isFrozen() (bool, error) {
	name := pick(d.Unified, "cgroup.events", "freezer.state")
	b, err := cgroupfs.ReadFile(d.file(name), 4096)
	if err != nil {
		return false, &fileError{op: "read", path: d.file(name), err: err}
	}
	if d.Unified {
		return strings.Contains(string(b), "frozen 1"), nil
	}
	return strings.HasPrefix(string(b), "FROZEN"), nil
}

// Kill sends a signal to every process of the group and the groups below. SIGKILL goes through cgroup.kill where
// cgroup2 is mounted (Linux 5.14), so no fork escapes it; otherwise the group is frozen while it is signalled. A frozen
// group is thawed for SIGKILL, which it could not die of; other signals wait in it.
func (g *Group) Kill(sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), freezeTimeout)
	defer cancel()
	d := g.primary()
	if d == nil {
		return ErrNoCgroups
	}
	if u := g.unified(); u != nil && sig == syscall.SIGKILL {
		_, err := cgroupfs.WriteFile(u.file("cgroup.kill"), "1")
		if d.Unified && (err == nil || err == syscall.ENOENT && !cgroupfs.Exists(u.dir())) {
			return nil
		} // on a hybrid the version 1 groups may hold more processes
	}
	return g.signal(ctx, d, sig)
}

// signal freezes the group, signals what is in it and thaws it again. Without a working freezer it signals until no
// new process appears.
func (g *Group) signal(ctx context.Context, d *Dir, sig syscall.Signal) error {
	was, _ := g.Frozen()
	if !was {
		fctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_ = g.Freeze(fctx) // a refusal leaves the rounds below
	}
	sent := map[int]bool{}
	var failed error
	for round := 0; round < 100; round++ {
		pids, err := d.allProcs()
		if err != nil {
			failed = err
			break
		}
		pids = slices.DeleteFunc(pids, func(p int) bool { return sent[p] })
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			sent[pid] = true
			if err := cgroupfs.Kill(pid, sig); err != nil && err != syscall.ESRCH {
				failed = fmt.Errorf("send signal %d to process %d: %w", int(sig), pid, err)
			}
		}
	}
	if was && sig != syscall.SIGKILL || !cgroupfs.Exists(d.dir()) {
		return failed
	}
	if sig == syscall.SIGKILL {
		g.ThawBelow()
	}
	if err := g.Thaw(ctx); err != nil && failed == nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, errors.ErrUnsupported) {
		failed = err
	}
	return failed
}

// killIn kills what one hierarchy still holds: usually the group's own processes, else those that left the group in
// the other hierarchies.
func (g *Group) killIn(ctx context.Context, d *Dir) error {
	pids, err := d.allProcs()
	if err != nil || len(pids) == 0 {
		return err
	}
	if d.Unified {
		if _, err := cgroupfs.WriteFile(d.file("cgroup.kill"), "1"); err == nil {
			return nil
		}
	}
	if err := g.signal(ctx, d, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill processes of cgroup %s: %w", d.dir(), err)
	}
	return nil
}
