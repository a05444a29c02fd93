package lifecycle

import (
	"context"
	"errors"
	"syscall"

	"github.com/tare-oci/tare/runtime/state"
)

// Kill sends sig to the container's init. With all, and for a SIGKILL to a container whose processes would outlive its init
// because they share a pid namespace, it goes to every process in the container's cgroup. A SIGKILL wakes a paused container:
// it must die. ErrNotRunning for a stopped container, but not with all, which kills what is left in its cgroup.
func (r *Runtime) Kill(ctx context.Context, id string, sig syscall.Signal, all bool) error {
	c, err := state.Load(r.Root, id)
	if err != nil {
		return err
	}
	g, err := r.cgroup(c)
	if err != nil {
		return err
	}
	if c.Status() == state.Stopped && !all {
		return ErrNotRunning
	}
	if g != nil && (all || sig == syscall.SIGKILL && !c.OwnPidNS) {
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
