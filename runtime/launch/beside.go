package launch

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// Begin does the parent's part that comes before anything else in the child: id maps, and what the child may lack the right for.
func (c *Child) Begin() error {
	for _, op := range c.plan.Beside {
		var err error
		switch o := op.(type) {
		case plan.MapIDs:
			if err = c.mapIDs(o); err == nil {
				err = c.Go()
			}
		case plan.OOMScore:
			err = c.oomScore(o)
		case plan.RaiseLimit:
			err = c.raiseLimit(o)
		case plan.Scheduler:
			err = c.schedule(o)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", op.What(), err)
		}
	}
	return nil
}

// raiseLimit raises the child's hard limit, which it has from this process, to what the child will lower it to.
func (c *Child) raiseLimit(o plan.RaiseLimit) error {
	var now unix.Rlimit
	err := unix.Prlimit(0, o.Number, nil, &now)
	if err == nil && o.Hard > now.Max {
		now.Max = o.Hard
		err = unix.Prlimit(c.PID, o.Number, &now, nil)
	}
	if err == unix.EPERM {
		return fmt.Errorf("%w (raising a hard limit needs CAP_SYS_RESOURCE)", err)
	}
	return err
}

func (c *Child) schedule(o plan.Scheduler) error {
	attr := schedAttr(o)
	return unix.SchedSetAttr(c.PID, &attr, 0)
}

func (c *Child) oomScore(o plan.OOMScore) error {
	err := writeProc(c.PID, "oom_score_adj", strconv.Itoa(o.Score))
	if err == unix.EACCES && os.Geteuid() != 0 {
		return nil // lowering it needs rights that a rootless runtime has not; the score stays as it was
	}
	if err == unix.EACCES {
		return fmt.Errorf("%w (lowering it needs CAP_SYS_RESOURCE)", err)
	}
	return err
}

// writeProc writes a file of the runtime's own /proc about the child.
func writeProc(pid int, file, text string) error {
	f, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/"+file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(f, []byte(text))
	unix.Close(f)
	return err
}
