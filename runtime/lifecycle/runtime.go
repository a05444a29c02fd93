// Package lifecycle has the operations on containers of the runtime specification, and those that runc added to them, over
// the state directory.
package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/pidfd"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/rdt"
	"github.com/tare-oci/tare/runtime/state"
)

// Errors that callers of the runtime know by their text (requirement row 8.3).
var (
	ErrNotRunning = errors.New("container not running")
	ErrNotPaused  = errors.New("container not paused")
)

// Runtime runs containers whose state is below one directory. Several processes, and several goroutines of one, may work on
// the same containers at once: operations that change one wait for each other.
type Runtime struct {
	Root     string            // the state directory
	Warn     func(text string) // takes sentences about what went wrong without consequence; not nil
	Debug    func(text string) // takes sentences about what is done; not nil
	Verbose  bool              // tell Debug each step and how long it took
	Phase    func(name string) // called at the end of each phase of an operation, which begins where the last one ended; may be nil
	Rootless Rootless
	Systemd  bool // new containers are scopes of systemd

	// Seal makes sure that what this process starts in a container cannot overwrite this program's file; it may replace
	// this process by a copy, which begins anew. Start calls it before its first effect, if it is to start anything. nil:
	// the caller has seen to it.
	Seal func() error

	group   func(json.RawMessage) (group, error) // reads a container's cgroup from its state
	resctrl func() (*rdt.FS, error)              // finds the resctrl file system

	// For tests: 1 + the instruction of the child, and 1 + the step of the parent, that fail.
	fault, parentFault int
	criuFault          int // likewise, of the child that becomes criu
}

// step is a part of an operation. A test can let it fail.
type step struct {
	name string
	do   func() error
}

// take does steps in their order until one fails.
func (r *Runtime) take(steps []step) error {
	for i, s := range steps {
		if r.parentFault == i+1 {
			return errFault
		}
		if err := r.timed(s); err != nil {
			return err
		}
	}
	return nil
}

// timed does one step, and tells Debug about it if that is wanted.
func (r *Runtime) timed(s step) error {
	defer r.ended(s.name)
	if !r.Verbose {
		return s.do()
	}
	begin := time.Now()
	err := s.do()
	took := time.Since(begin).Round(time.Microsecond)
	if err != nil {
		r.Debug(fmt.Sprintf("%s: failed after %v", s.name, took))
	} else {
		r.Debug(fmt.Sprintf("%s: %v", s.name, took))
	}
	return err
}

// ended tells that a phase of an operation has ended.
func (r *Runtime) ended(phase string) {
	if r.Phase != nil {
		r.Phase(phase)
	}
}

// group is what the operations need of a container's cgroup; tests have another.
type group interface {
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	Frozen() (bool, error)
	FrozenAbove() string
	Procs() ([]int, error)
	Kill(sig syscall.Signal) error
	Update(res *specs.LinuxResources) error
	Stats() (*cgroup.Stats, error)
	OOMEvents(ctx context.Context, notify func()) error
	Destroy(ctx context.Context) error
}

// New returns the runtime over the state directory root, an absolute path.
func New(root string, warn func(text string)) *Runtime {
	return &Runtime{Root: root, Warn: warn, Debug: func(string) {}, group: decodeGroup, resctrl: rdt.Detect}
}

func decodeGroup(data json.RawMessage) (group, error) {
	g, err := cgroup.DecodeGroup(data)
	if err != nil {
		return nil, err
	}
	if len(g.Dirs) == 0 {
		return nil, nil
	}
	if g.Unit != nil {
		return unitGroup{g}, nil
	}
	return g, nil
}

// Rootless says whether the runtime may not be allowed to manage cgroups, and goes on without them then.
type Rootless int

// The values of --rootless. Auto means yes for a user who is not root, or root of a user namespace only.
const (
	RootlessAuto Rootless = iota
	RootlessYes
	RootlessNo
)

// ParseRootless reads a value of --rootless.
func ParseRootless(s string) (Rootless, error) {
	if s == "auto" || s == "" {
		return RootlessAuto, nil
	}
	yes, err := strconv.ParseBool(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("invalid value %q for --rootless: want true, false or auto", s)
	case yes:
		return RootlessYes, nil
	}
	return RootlessNo, nil
}

// On decides Auto for this process.
func (r Rootless) On() bool {
	if r != RootlessAuto {
		return r == RootlessYes
	}
	if os.Geteuid() != 0 {
		return true
	}
	// The first user namespace maps all ids to themselves (user_namespaces(7)).
	m, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(m))
	return err == nil && (len(f) != 3 || f[0] != "0" || f[1] != "0" || f[2] != "4294967295")
}

// load returns a container without its lock, and its state with regard to its cgroup.
func (r *Runtime) load(id string) (*state.Container, state.Status, error) {
	c, err := state.Load(r.Root, id)
	if err != nil {
		return nil, "", err
	}
	s, err := r.status(c)
	return c, s, err
}

// status is the container's state, Paused included.
func (r *Runtime) status(c *state.Container) (state.Status, error) {
	s := c.Status()
	if s != state.Running && s != state.Created {
		return s, nil
	}
	g, err := r.cgroup(c)
	if err != nil || g == nil {
		return s, err
	}
	frozen, err := g.Frozen()
	if errors.Is(err, errors.ErrUnsupported) { // no freezer is mounted: nothing is frozen
		return s, nil
	}
	if err != nil {
		if now := c.Status(); now == state.Stopped {
			return now, nil // it went away between the two looks, and its cgroup may have too
		}
		return "", err
	}
	if frozen || g.FrozenAbove() != "" {
		return state.Paused, nil
	}
	return s, nil
}

// cgroup returns the container's cgroup, nil if it has none.
func (r *Runtime) cgroup(c *state.Container) (group, error) {
	if len(c.Cgroup) == 0 || string(c.Cgroup) == "null" {
		return nil, nil
	}
	g, err := r.group(c.Cgroup)
	if err != nil {
		return nil, fmt.Errorf("decode cgroup in the state of %s: %w", c.ID, err)
	}
	return g, nil
}

// open returns a descriptor of exactly the process p, which the caller closes. ErrNotRunning: it has exited.
func open(p state.Process) (*pidfd.Pidfd, error) {
	if p.Pid <= 0 {
		return nil, ErrNotRunning
	}
	fd, err := pidfd.Open(p.Pid)
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL) { // EINVAL: the number is a thread's now
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	// The descriptor keeps the process from being confused from here on: look at whose it is now, not before.
	if !p.Alive() {
		fd.Close()
		return nil, ErrNotRunning
	}
	return fd, nil
}

// State returns what "state" prints of the container id.
func (r *Runtime) State(id string) (state.Output, error) {
	c, s, err := r.load(id)
	if err != nil {
		return state.Output{}, err
	}
	return c.Output(s), nil
}

// List returns the states of all containers in the order of their ids. One that cannot be read is left out with a warning.
func (r *Runtime) List() ([]state.Output, error) {
	ids, err := state.List(r.Root)
	if err != nil {
		return nil, err
	}
	var list []state.Output
	for _, id := range ids {
		o, err := r.State(id)
		switch {
		case errors.Is(err, state.ErrNotExist): // removed meanwhile
		case err != nil:
			r.Warn(fmt.Sprintf("list container %s: %v", id, err))
		default:
			list = append(list, o)
		}
	}
	return list, nil
}
