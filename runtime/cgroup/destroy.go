package cgroup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// Deadlines for a context without one.
const (
	destroyTimeout = 10 * time.Second
	freezeTimeout  = 10 * time.Second
)

// Destroy kills the processes that are left in the group and removes it from every hierarchy, with the groups below it.
// Only directories that Create made are removed; of the parents among them those that nobody uses. It waits until ctx
// ends (10 s without a deadline) and then names the processes that would not go. It may be repeated; a group that is
// gone is no error. What is systemd's of a unit is emptied only.
func (g *Group) Destroy(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx, destroyTimeout)
	defer cancel()
	replaced := g.replaced()
	for i := range g.Dirs {
		d := &g.Dirs[i]
		if replaced {
			if !g.Managed(d) && d.own() {
				_, _ = d.removeTree() // what nothing is in
			}
			continue
		}
		if g.Managed(d) {
			if err := g.emptyUnit(ctx, d); err != nil {
				return err
			}
			continue
		}
		if err := g.destroy(ctx, d); err != nil {
			return err
		}
		if !d.own() {
			continue
		}
		for _, p := range slices.Backward(d.Made) {
			if p == d.Path {
				continue
			}
			if err := cgroupfs.Rmdir(d.MountPoint + p); err != nil && err != syscall.ENOENT {
				break // in use by another container
			}
		}
	}
	return nil
}

// destroy empties one directory and removes it if it is ours. The first rmdir is all that a container that ended in
// order needs.
func (g *Group) destroy(ctx context.Context, d *Dir) error {
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 20*time.Millisecond) {
		done, err := d.remove()
		if done || err != nil {
			return err
		}
		if err := g.killIn(ctx, d); err != nil {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return d.stuck(err)
		}
	}
}

// remove tries to remove the subtree. A directory that was there before is done when it is empty.
func (d *Dir) remove() (bool, error) {
	if d.own() {
		err := cgroupfs.Rmdir(d.dir())
		switch err {
		case nil, syscall.ENOENT:
			return true, nil
		case syscall.EBUSY, syscall.ENOTEMPTY:
		default:
			return false, &fileError{op: "rmdir", path: d.dir(), err: err}
		}
	}
	if !d.own() {
		pids, err := d.allProcs()
		return len(pids) == 0, err
	}
	return d.removeTree()
}

// removeTree tries to remove the directory and all below it, deepest first.
func (d *Dir) removeTree() (done bool, err error) {
	for {
		removed := 0
		whole, err := cgroupfs.Walk(d.dir(), maxRemoved, nil, func(parent cgroupfs.Group, name string) error {
			if parent.Rmdir(name) == nil {
				removed++
			}
			return nil
		})
		if err != nil {
			return false, &fileError{op: "remove cgroups below", path: d.dir(), err: err}
		}
		if whole || removed == 0 {
			break
		}
	}
	err = cgroupfs.Rmdir(d.dir())
	return err == nil || err == syscall.ENOENT, nil
}

// stuck names what keeps a directory from being removed, with what each process waits for (proc(5), wchan).
func (d *Dir) stuck(cause error) error {
	pids, _ := d.allProcs()
	if len(pids) == 0 {
		return &fileError{op: "rmdir", path: d.dir(), hint: "it holds no process; a lower cgroup or the kernel keeps it", err: cause}
	}
	var who []string
	for _, pid := range pids[:min(len(pids), 8)] {
		who = append(who, describe(pid))
	}
	return fmt.Errorf("rmdir %s: %d processes are left after SIGKILL (%s): %w", d.dir(), len(pids), strings.Join(who, ", "), cause)
}

// describe names a process: pid, command, state, and the kernel function that it sleeps in.
func describe(pid int) string {
	base := fmt.Sprintf("/proc/%d/", pid)
	stat, _ := cgroupfs.ReadFile(base+"stat", 4096)
	wchan, _ := cgroupfs.ReadFile(base+"wchan", 256)
	s := string(stat)
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open || end+3 > len(s) {
		return fmt.Sprintf("%d", pid)
	}
	return fmt.Sprintf("%d %q state %c in %s", pid, s[open+1:end], s[end+2], or(strings.Trim(string(wchan), "0"), "user space"))
}

func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

// sleep waits, or ends with the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
