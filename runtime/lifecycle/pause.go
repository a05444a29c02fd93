package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"github.com/tare-oci/tare/runtime/state"
)

var errNoCgroup = errors.New("the container has no cgroup of its own")

// Pause stops all processes of a running or created container until Resume.
func (r *Runtime) Pause(ctx context.Context, id string) error {
	return r.freeze(ctx, id, func(s state.Status, g group) error {
		if s != state.Running && s != state.Created {
			return ErrNotRunning
		}
		if g == nil {
			return fmt.Errorf("pause container %s: %w", id, errNoCgroup)
		}
		return g.Freeze(ctx)
	})
}

// Resume ends a Pause.
func (r *Runtime) Resume(ctx context.Context, id string) error {
	return r.freeze(ctx, id, func(s state.Status, g group) error {
		if s != state.Paused {
			return ErrNotPaused
		}
		return g.Thaw(ctx)
	})
}

func (r *Runtime) freeze(ctx context.Context, id string, do func(state.Status, group) error) error {
	c, err := state.Open(ctx, r.Root, id)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := r.status(c)
	if err != nil {
		return err
	}
	g, err := r.cgroup(c)
	if err != nil {
		return err
	}
	return do(s, g)
}

// Ps returns the numbers of the container's processes in the runtime's pid namespace.
func (r *Runtime) Ps(id string) ([]int, error) {
	c, err := state.Load(r.Root, id)
	if err != nil {
		return nil, err
	}
	if c.Status() == state.Stopped {
		return []int{}, nil
	}
	g, err := r.cgroup(c)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, fmt.Errorf("list processes of container %s: %w", id, errNoCgroup)
	}
	return g.Procs()
}
