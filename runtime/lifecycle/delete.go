package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/tare-oci/tare/internal/sys/pidfd"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/hooks"
	"github.com/tare-oci/tare/runtime/state"
)

// dying is how long the death of a killed process is awaited: one in an uninterruptible wait may take for ever.
const dying = 10 * time.Second

// soon is how long a killed process usually takes to die; after that it may be frozen.
const soon = 200 * time.Millisecond

// again is how long after a kill of the whole cgroup the next one comes.
const again = time.Second

// Delete removes a stopped container: what is left of its processes, its cgroup, and its state, then runs its poststop hooks.
// A created container is killed first, because callers rely on it where the specification has an error, and with force so
// is any other. With force a container that does not exist is no error. A Delete that was cut short can be called again.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) error {
	c, s, err := r.load(id)
	if errors.Is(err, state.ErrNotExist) && force {
		return state.Sweep(r.Root, id)
	}
	if err != nil {
		return err
	}
	if s == state.Paused && c.Status() == state.Created {
		s = state.Created
	}
	if s != state.Stopped && s != state.Created && !force {
		return fmt.Errorf("cannot delete container %s that is not stopped: %s", id, s)
	}
	r.ended("open the container")
	// Before the lock: a create or start that hangs holds it, and comes to an end with the init.
	if err := r.end(ctx, c); err != nil {
		return err
	}
	born := c.Created
	limit, cancel := context.WithTimeout(ctx, dying)
	defer cancel()
	if c, err = state.Open(limit, r.Root, id); errors.Is(err, state.ErrNotExist) {
		return nil // another delete, or the create that failed, was faster
	} else if err != nil {
		return err
	}
	defer c.Close()
	r.ended("end the process and lock the container")
	if !c.Created.Equal(born) {
		return nil // and a new one has the name already
	}
	return r.destroy(ctx, c)
}

// destroy undoes all that creating the locked container c did, then runs its poststop hooks, whose failures are warnings, and
// forgets it. Each step may find itself done already.
func (r *Runtime) destroy(ctx context.Context, c *state.Container) error {
	if err := r.end(ctx, c); err != nil {
		return err
	}
	g, err := r.cgroup(c)
	if err != nil {
		return err
	}
	if g != nil {
		limit, cancel := context.WithTimeout(ctx, dying)
		defer cancel()
		if err := g.Destroy(limit); err != nil {
			return err
		}
	}
	r.ended("remove the cgroup")
	if err := r.destroyRdt(c); err != nil {
		return err
	}
	r.ended("remove the class of service")
	if c.Hooks != nil {
		for _, err := range hooks.RunAll(ctx, hooks.Poststop, c.Hooks, c.OCI(state.Stopped, 0), c.Bundle) {
			r.Warn(err.Error())
		}
	}
	r.ended("run the hooks of delete")
	defer r.ended("remove the state")
	return c.Remove()
}

// end kills the container's init and waits until it is dead. Processes that outlive it go with the cgroup.
func (r *Runtime) end(ctx context.Context, c *state.Container) error {
	fd, err := open(c.Init)
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	defer fd.Close()
	if err := fd.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	g, err := r.cgroup(c)
	if err != nil {
		return err
	}
	if g != nil {
		if err := thaw(ctx, g); err != nil {
			return err
		}
	}
	if err = waitFor(ctx, fd, soon); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if err := thawInit(c); err != nil {
		return err
	}
	if err = waitFor(ctx, fd, soon); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return endWithGroup(ctx, c, g, fd)
}

// endWithGroup kills all processes of a container whose killed init does not die: they may freeze it again whenever it
// is thawed.
func endWithGroup(ctx context.Context, c *state.Container, g group, init *pidfd.Pidfd) error {
	limit, cancel := context.WithTimeout(ctx, dying)
	defer cancel()
	for {
		failed := killGroup(c, g)
		err := waitFor(limit, init, again)
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if limit.Err() == nil {
			continue
		}
		err = fmt.Errorf("kill container %s: process %d has not died in %v (it may hang in the kernel: see /proc/%d/stack)",
			c.ID, c.Init.Pid, dying, c.Init.Pid)
		if failed != nil {
			err = fmt.Errorf("%w; kill the others: %w", err, failed)
		}
		return err
	}
}

// killGroup kills what is in the cgroup, if the init is in it: else the cgroup may belong to another container by now.
func killGroup(c *state.Container, g group) error {
	if g == nil {
		return nil
	}
	procs, err := g.Procs()
	if err != nil || !slices.Contains(procs, c.Init.Pid) {
		return err
	}
	return g.Kill(syscall.SIGKILL)
}

// waitFor waits for the end of a process, for a time.
func waitFor(ctx context.Context, p *pidfd.Pidfd, d time.Duration) error {
	limit, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return p.Wait(limit)
}

// thawInit thaws the groups below the container's, in one of which its killed init may be frozen. It is an error if another group
// keeps the init frozen: that is not this container's to thaw.
func thawInit(c *state.Container) error {
	host, err := cgroup.Detect()
	if err != nil {
		return nil // then nothing can be frozen
	}
	g, err := recordedGroup(c)
	if err != nil {
		return err
	}
	if g != nil {
		g.ThawBelow()
	}
	if at := host.FrozenElsewhere(c.Init.Pid, g); at != "" {
		return fmt.Errorf("kill container %s: process %d cannot die: it is frozen by the cgroup %s, which is not the container's: thaw that first",
			c.ID, c.Init.Pid, at)
	}
	return nil
}
