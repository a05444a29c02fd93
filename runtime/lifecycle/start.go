package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/procfs"
	"github.com/tare-oci/tare/internal/sys/unixsock"
	"github.com/tare-oci/tare/runtime/hooks"
	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/spec"
	"github.com/tare-oci/tare/runtime/state"
)

// Start runs the program of a created container: steps 6 to 9 of the lifecycle in runtime.md. It returns once the program has
// replaced the waiting init; an execve that fails is an error of Start.
func (r *Runtime) Start(ctx context.Context, id string) error {
	c, err := state.Open(ctx, r.Root, id)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := r.status(c)
	if err != nil {
		return err
	}
	switch {
	case s == state.Stopped:
		return errors.New("cannot start a container that has stopped")
	case s == state.Paused:
		return errors.New("cannot start a container in the paused state: resume it first")
	case s != state.Created:
		return errStarted
	case c.NoProcess:
		return fmt.Errorf("cannot start container %s: its configuration has no process", id)
	}
	if r.Seal != nil && len(hooks.Of(c.Hooks, hooks.StartContainer)) > 0 {
		if err := r.Seal(); err != nil {
			return err
		}
	}
	config, err := c.Config()
	if err != nil {
		return err
	}
	sp, _, err := spec.Parse(config)
	if err != nil {
		return fmt.Errorf("%s in the state of %s: %w", spec.ConfigName, id, err)
	}
	proxy, err := r.startNotify(c)
	if err != nil {
		return err
	}
	defer proxy.close()
	r.ended("open the container and read its configuration")
	if err := r.timed(step{"run the hooks of start", func() error { return r.startHooks(ctx, c, sp) }}); err != nil {
		return r.abandon(ctx, c, err)
	}
	if err := r.timed(step{"start the program", func() error { return release(c, sp) }}); err != nil {
		return err
	}
	if err := r.timed(step{"run the hooks after start", func() error { return r.poststart(ctx, c) }}); err != nil {
		return err
	}
	c.Close() // others may work on the container while it gets ready
	proxy.awaitReady(ctx, r, c.Init, c.Init.Pid)
	return nil
}

var errStarted = errors.New("cannot start an already running container")

// startedBefore waits, for a second at most, for the program of a container whose init does not listen any more: it got
// its word from a start that was killed.
func startedBefore(c *state.Container) bool {
	for range 500 {
		if s := c.Status(); s != state.Created {
			return s == state.Running
		}
		time.Sleep(2 * time.Millisecond)
	}
	return false
}

// release lets the waiting init go on to the program.
func release(c *state.Container, s *specs.Spec) error {
	path := c.Path(state.StartSocket)
	conn, err := unixsock.Dial(path)
	if errors.Is(err, syscall.ECONNREFUSED) && startedBefore(c) {
		return errStarted
	}
	if err != nil {
		return fmt.Errorf("reach the container's first process: %w", err)
	}
	defer conn.Close()
	err = launch.Release(conn, s.Process.Args, continueInit(c.Init))
	if err != nil || isTight(s) {
		g, _ := recordedGroup(c) // only to explain the error
		if err = explainShortage(err, g); err == nil {
			err = killedForMemory(c.Init.Pid, s, g)
		}
	}
	if e := os.Remove(path); err == nil && e != nil && !errors.Is(e, os.ErrNotExist) {
		err = e
	}
	return err
}

// continueInit returns what lets a container's first process go on that a signal has stopped before its program runs:
// another container in its pid namespace may send one. It gives up after launch.StopLimit. A stop by ptrace(2) or the
// freezer is left alone. It returns io.EOF when the process has executed its program.
func continueInit(p state.Process) func() error {
	var stopped time.Time
	return func() error {
		st, alive := procfs.Running(p.Pid, p.StartTime)
		switch {
		case !alive:
			return launch.ErrGone
		case !st.Forked:
			return io.EOF
		case st.State != 'T':
			return nil
		}
		if stopped.IsZero() {
			stopped = time.Now()
		} else if time.Since(stopped) > launch.StopLimit {
			return launch.ErrStopped
		}
		fd, err := open(p)
		if err != nil {
			return nil
		}
		defer fd.Close()
		return fd.Signal(syscall.SIGCONT)
	}
}

// startHooks runs startContainer in the container's namespaces.
func (r *Runtime) startHooks(ctx context.Context, c *state.Container, s *specs.Spec) error {
	if len(hooks.Of(c.Hooks, hooks.StartContainer)) == 0 {
		return nil
	}
	in, err := r.inside(c, s)
	if err != nil {
		return err
	}
	defer in.close()
	if err := in.enter(c, nil); err != nil {
		return err
	}
	return in.run(ctx, hooks.StartContainer, c.Hooks, c.OCI(state.Created, in.pid(c.Init.Pid)))
}

// poststart runs its hooks; the specification has the container stopped and destroyed when one fails.
func (r *Runtime) poststart(ctx context.Context, c *state.Container) error {
	if err := hooks.Run(ctx, hooks.Poststart, c.Hooks, c.OCI(state.Running, c.Init.Pid), c.Bundle); err != nil {
		return r.abandon(ctx, c, err)
	}
	return nil
}

// abandon destroys a container whose start failed half-way.
func (r *Runtime) abandon(ctx context.Context, c *state.Container, reason error) error {
	if err := r.destroy(context.WithoutCancel(ctx), c); err != nil {
		return fmt.Errorf("%w (and cleaning up: %v)", reason, err)
	}
	return reason
}
