package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/rdt"
	"github.com/tare-oci/tare/runtime/state"
)

// lookRdt checks that the container can get its class of service, before anything is touched.
func (k *creation) lookRdt() (err error) {
	if k.spec.Linux == nil || k.spec.Linux.IntelRdt == nil {
		return nil
	}
	if k.resctrl, err = k.r.resctrl(); err == nil {
		k.rdt, err = k.resctrl.Plan(k.spec.Linux.IntelRdt, k.o.ID)
	}
	if err != nil {
		return fmt.Errorf("linux.intelRdt: %w", err)
	}
	return nil
}

// enterRdt makes the class of service. It is in the state before, for a delete after this process was killed.
func (k *creation) enterRdt() error {
	if k.rdt == nil {
		return nil
	}
	if err := saveRdt(k.c, k.rdt); err != nil {
		return err
	}
	if err := k.resctrl.Create(k.rdt, k.spec.Linux.IntelRdt); err != nil {
		return fmt.Errorf("linux.intelRdt: %w", err)
	}
	return nil
}

// joinRdt puts the container's process, which has one thread, into the class of service.
func (k *creation) joinRdt() error {
	if k.rdt == nil {
		return nil
	}
	err := k.resctrl.Join(k.rdt, k.child.PID)
	if errors.Is(err, syscall.ESRCH) {
		return k.childError(err)
	}
	return err
}

// undoRdt removes all that create has made, a class of service with a name too.
func (k *creation) undoRdt() error {
	if k.rdt == nil || k.c.IntelRdt == nil {
		return nil
	}
	if err := k.resctrl.Destroy(k.rdt, false); err != nil {
		return err
	}
	k.c.IntelRdt = nil
	return nil
}

func saveRdt(c *state.Container, g *rdt.Group) (err error) {
	if c.IntelRdt, err = json.Marshal(g); err != nil {
		return err
	}
	return c.Save()
}

// rdtGroup returns the container's class of service, nil if it has none.
func rdtGroup(c *state.Container) (*rdt.Group, error) {
	if len(c.IntelRdt) == 0 || string(c.IntelRdt) == "null" {
		return nil, nil
	}
	g := new(rdt.Group)
	if err := json.Unmarshal(c.IntelRdt, g); err != nil {
		return nil, fmt.Errorf("decode class of service in the state of %s: %w", c.ID, err)
	}
	return g, nil
}

// joinContainerRdt puts a process that joins the container into its class of service.
func (r *Runtime) joinContainerRdt(c *state.Container, pid int) error {
	g, err := rdtGroup(c)
	if g == nil || err != nil {
		return err
	}
	f, err := r.resctrl()
	if err != nil {
		return err
	}
	return f.Join(g, pid)
}

// destroyRdt removes what create has made of the container's class of service.
func (r *Runtime) destroyRdt(c *state.Container) error {
	g, err := rdtGroup(c)
	if g == nil || err != nil {
		return err
	}
	f, err := r.resctrl()
	if errors.Is(err, rdt.ErrNotMounted) {
		return nil // it went with the file system
	}
	if err != nil {
		return err
	}
	return f.Destroy(g, !c.Creating)
}

// updateRdt changes the schemata of the locked container's class of service. A container without one gets its own, with all its
// threads. The function that it returns takes back a change of the schemata.
func (r *Runtime) updateRdt(c *state.Container, want *specs.LinuxIntelRdt) (undo func() error, err error) {
	f, err := r.resctrl()
	if err != nil {
		return nil, err
	}
	g, err := rdtGroup(c)
	if err != nil {
		return nil, err
	}
	if g != nil {
		return f.Update(g, want)
	}
	if g, err = f.Plan(want, c.ID); err != nil {
		return nil, err
	}
	undo = func() error {
		if err := f.Destroy(g, false); err != nil { // its threads go to the default class of service
			return err
		}
		c.IntelRdt = nil
		return c.Save()
	}
	if err = saveRdt(c, g); err == nil {
		err = f.Create(g, want)
	}
	if err == nil {
		err = r.joinThreads(c, f, g)
	}
	if err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// joinThreads puts every thread of the container into the class of service.
func (r *Runtime) joinThreads(c *state.Container, f *rdt.FS, g *rdt.Group) error {
	pids := []int{c.Init.Pid}
	cg, err := r.cgroup(c)
	if err != nil {
		return err
	}
	if cg != nil {
		if pids, err = cg.Procs(); err != nil {
			return err
		}
	}
	for _, pid := range pids {
		tasks, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		if err != nil {
			continue // it has exited
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			if err := f.Join(g, tid); err != nil && !errors.Is(err, syscall.ESRCH) { // it has exited
				return err
			}
		}
	}
	return nil
}

// rdtStats is what "events" tells of the container's class of service.
func (r *Runtime) rdtStats(c *state.Container) (*rdt.Stats, error) {
	g, err := rdtGroup(c)
	if g == nil || err != nil {
		return &rdt.Stats{}, err
	}
	f, err := r.resctrl()
	if err != nil {
		return nil, err
	}
	return f.Stats(g)
}
