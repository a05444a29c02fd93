package launch

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// onThread runs the plan's first part, in the parent.
func onThread(p *plan.Plan, res *Resources, prog *program) error {
	for _, op := range p.Thread {
		var err error
		switch o := op.(type) {
		case plan.OpenTree:
			err = openTree(o, res, prog)
		default:
			err = errLower(op)
		}
		if err != nil {
			return fmt.Errorf("%s: %w%s", op.What(), err, threadHint(op, err))
		}
	}
	return nil
}

func threadHint(op plan.Op, err error) string {
	if errno, ok := err.(unix.Errno); ok {
		return hint(op, errno)
	}
	return ""
}

// openTree opens a bind source with the runtime's rights and gives it its id mapping.
func openTree(o plan.OpenTree, res *Resources, prog *program) error {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if o.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, o.Source, flags)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(tree), o.Source)
	res.opened = append(res.opened, f)
	res.trees = append(res.trees, prog.slot(f.Fd()))
	if len(o.UID) == 0 {
		return nil
	}
	ns, err := mappedNamespace(plan.MapIDs{UID: o.UID, GID: o.GID})
	if err != nil {
		return err
	}
	defer ns.Close()
	at := uint(unix.AT_EMPTY_PATH)
	if o.IDRecursive {
		at |= unix.AT_RECURSIVE
	}
	err = unix.MountSetattr(tree, "", at, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
	if err == unix.EINVAL {
		return fmt.Errorf("%w (its file system cannot map ids)", err)
	}
	return err
}

// mappedNamespace makes a user namespace with the mappings and returns its descriptor; no process stays in it.
func mappedNamespace(o plan.MapIDs) (*os.File, error) {
	c, err := Start(&plan.Plan{Flags: plan.NewUser, Child: []plan.Op{plan.Wait{For: "the id mappings are read"}}}, &Resources{})
	if err != nil {
		return nil, err
	}
	defer c.Abort()
	if err := c.mapIDs(o); err != nil {
		return nil, err
	}
	return os.Open("/proc/" + strconv.Itoa(c.PID) + "/ns/user")
}
