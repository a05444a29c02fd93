package state

import (
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/procfs"
)

// Status says where in its life a container is: the specification's states, and "paused".
type Status string

// The states. Paused is created or running with a frozen cgroup, which this package does not look at.
const (
	Creating Status = "creating"
	Created  Status = "created"
	Running  Status = "running"
	Paused   Status = "paused"
	Stopped  Status = "stopped"
)

// Status derives the container's state from its processes, without Paused. A container whose creation was killed is stopped:
// it can be deleted.
func (c *Container) Status() Status {
	switch {
	case c.Creating && c.Creator.Alive():
		return Creating
	case c.Creating:
		return Stopped
	}
	init, alive := procfs.Running(c.Init.Pid, c.Init.StartTime)
	switch {
	case !alive:
		return Stopped
	case init.Forked && c.hasSocket():
		return Created
	}
	return Running
}

// hasSocket tells whether the socket is there, on which the first process waits for start. One whose start was killed
// is there while the program runs; a container that was restored never had one.
func (c *Container) hasSocket() bool {
	_, err := os.Lstat(c.Path(StartSocket))
	return err == nil
}

// Output is what "state" prints, with the keys in the order in which runc has them.
type Output struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"` // 0 when stopped
	Status      Status            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Owner       string            `json:"owner"` // name of the user, or its number
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Output returns what "state" prints of a container in the given state.
func (c *Container) Output(s Status) Output {
	o := Output{
		Version: specs.Version, ID: c.ID, Pid: c.Init.Pid, Status: s, Bundle: c.Bundle, Rootfs: c.Rootfs,
		Created: c.State.Created, Owner: userName(c.Owner), Annotations: c.Annotations,
	}
	if s == Stopped {
		o.Pid = 0
	}
	return o
}

// OCI returns the state that the specification gives to hooks. pid is the container's init as the hook sees it, 0 for none.
func (c *Container) OCI(s Status, pid int) *specs.State {
	return &specs.State{
		Version: specs.Version, ID: c.ID, Status: specs.ContainerState(s), Pid: pid, Bundle: c.Bundle, Annotations: c.Annotations,
	}
}
