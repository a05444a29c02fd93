package lifecycle

import (
	"context"
	"errors"
	"syscall"

	"github.com/tare-oci/tare/runtime/state"
)

// Kill sends sig, 0 only to look whether it could, to the container's init. With all, and for a SIGKILL to a container whose processes
// would outlive its init because they share a pid namespace, it goes to every process in the container's cgroup, though the init is
// dead. A SIGKILL wakes a paused container: it must die. ErrNotRunning for a stopped container of which nothing is left, but not with
// all.
func (r *Runtime) Kill(ctx context.Context, id string, sig syscall.Signal, all bool) error {
	c, err := state.Load(r.Root, id)
	if err != nil {
		return err
	}
	g, err := r.cgroup(c)
	if err != nil {
		return err
	}
	everyone := g != nil && (all || sig == syscall.SIGKILL && !c.OwnPidNS)
	switch s := c.Status(); {
	case s == state.Stopped && !all:
		if !everyone || !populated(g) {
			return ErrNotRunning
		}
	case s == state.Created && c.OwnPidNS && endsWaiting(sig):
		// The kernel keeps from the first process of a pid namespace what it has no handler for: but there is nothing yet that
		// could have one, and callers stop a container that they have created only.
		sig = syscall.SIGKILL
	}
	if everyone {
		err = g.Kill(sig)
	} else {
		err = signal(c.Init, sig)
		if all && errors.Is(err, ErrNotRunning) {
			err = nil
		}
	}
	if err != nil || sig != syscall.SIGKILL || g == nil {
		return err
	}
	return thaw(ctx, g)
}

// populated tells whether processes are left in a cgroup.
func populated(g group) bool {
	procs, err := g.Procs()
	return err == nil && len(procs) > 0
}

// endsWaiting tells whether sig ends a container that waits for start: those that end a program without handlers and with which people
// and engines do so. Others (USR1, ALRM) do nothing, as with runc.
func endsWaiting(sig syscall.Signal) bool {
	switch sig {
	case syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGABRT, syscall.SIGBUS, syscall.SIGFPE,
		syscall.SIGSEGV, syscall.SIGTERM, syscall.SIGSYS:
		return true
	}
	return false
}

// signal sends sig to exactly the process p. ErrNotRunning: it has exited.
func signal(p state.Process, sig syscall.Signal) error {
	fd, err := open(p)
	if err != nil {
		return err
	}
	defer fd.Close()
	if err := fd.Signal(sig); errors.Is(err, syscall.ESRCH) {
		return ErrNotRunning
	} else if err != nil {
		return err
	}
	return nil
}

// thaw wakes what is frozen: a version 1 freezer holds back even SIGKILL.
func thaw(ctx context.Context, g group) error {
	frozen, err := g.Frozen()
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil || !frozen {
		return err
	}
	return g.Thaw(ctx)
}
