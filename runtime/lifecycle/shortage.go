package lifecycle

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/state"
)

// tightMemory is the memory limit below which a process may not survive its own start: for containers with one the
// runtime looks whether the program lives. A static program of a shell's size starts with 0.5 MiB.
const tightMemory = 16 << 20

// isTight reports whether a container's memory limit is that low.
func isTight(s *specs.Spec) bool {
	if s.Linux == nil || s.Linux.Resources == nil || s.Linux.Resources.Memory == nil || s.Linux.Resources.Memory.Limit == nil {
		return false
	}
	limit := *s.Linux.Resources.Memory.Limit
	return limit > 0 && limit < tightMemory
}

// explainShortage adds the memory limit of the group to the error of a process that was killed, or got no memory,
// because of it.
func explainShortage(err error, g *cgroup.Group) error {
	if err == nil || g == nil || !errors.Is(err, launch.ErrGone) && !errors.Is(err, syscall.ENOMEM) {
		return err
	}
	if s := g.Shortage(); s.Kills > 0 || s.Failures > 0 {
		return fmt.Errorf("%w: the memory limit of its cgroup, %d bytes, is too low (linux.resources.memory.limit)", err, s.Limit)
	}
	return err
}

// dyingForMemory is how long a program that has met its memory limit when it was executed is watched.
const dyingForMemory = 50 * time.Millisecond

// killedForMemory is the error about process pid, which should run its program now, if the kernel has killed it for the
// memory limit of its group. A program that has met the limit already is watched for a moment.
func killedForMemory(pid int, s *specs.Spec, g *cgroup.Group) error {
	if !isTight(s) || g == nil {
		return nil
	}
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		short := g.Shortage()
		switch {
		case ending(pid) && short.Kills > 0:
			return shortageError{short.Limit}
		case short.Kills+short.Failures == 0 || ending(pid) || time.Since(begin) > dyingForMemory:
			return nil
		}
	}
}

// explainStatus says why a process in the foreground was killed, if it was for the memory limit of its group.
func (r *Runtime) explainStatus(status int, s *specs.Spec, g *cgroup.Group) {
	if status != 128+int(syscall.SIGKILL) || !isTight(s) || g == nil {
		return
	}
	if short := g.Shortage(); short.Kills > 0 {
		r.Warn(shortageError{short.Limit}.Error())
	}
}

// shortageError is a process that was killed for a memory limit.
type shortageError struct{ limit uint64 }

func (e shortageError) Error() string {
	return fmt.Sprintf("the kernel has killed the process: the memory limit of its cgroup, %d bytes, is too low (linux.resources.memory.limit)", e.limit)
}

// recordedGroup returns the cgroup that the state of a container names, nil if it names none.
func recordedGroup(c *state.Container) (*cgroup.Group, error) {
	if len(c.Cgroup) == 0 || string(c.Cgroup) == "null" {
		return nil, nil
	}
	g, err := cgroup.DecodeGroup(c.Cgroup)
	if err != nil {
		return nil, fmt.Errorf("decode cgroup in the state of %s: %w", c.ID, err)
	}
	return g, nil
}
