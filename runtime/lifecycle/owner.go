package lifecycle

import (
	"errors"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/state"
)

// errNotOwner is a first process that has left the container's namespaces.
var errNotOwner = errors.New("the container's first process has moved into a user or mount namespace that is not the container's own: " +
	"an exec would run what is mounted there")

// checkOwner refuses an exec whose process, which has joined the namespaces of the container's first process and runs
// nothing yet, is not where that was created. Any process may make a user namespace and a mount namespace that belongs
// to it, and put other files in the place of the container's programs, which an exec would run with its own user and
// capabilities. A mount namespace that belongs to the container's user namespace is another matter: it took
// CAP_SYS_ADMIN in the container to make it.
func (in *inside) checkOwner(c *state.Container, pid int) error {
	if c.Facts.UserNamespace == 0 {
		return nil
	}
	if c.Rootless { // who is not root may not look at the new process
		if len(in.held) > 0 {
			return nil // of a first process that runs nothing yet
		}
		pid = c.Init.Pid
	}
	user, owner, err := launch.MountOwner(pid)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH) || c.Rootless && errors.Is(err, syscall.EACCES) {
		return nil // it has ended, and the next step tells why
	}
	if err != nil {
		return err
	}
	if in.namespaces&plan.NewUser != 0 && user != c.Facts.UserNamespace || in.mountsOf(c) != 0 && owner != in.mountsOf(c) {
		return errNotOwner
	}
	return nil
}

// mountsOf returns the user namespace that must own the mount namespace which an exec joins; 0: any, or it joins none.
func (in *inside) mountsOf(c *state.Container) uint64 {
	switch path, has := mountNamespace(in.spec); {
	case !has || path != "" && in.namespaces&plan.NewMount == 0:
		return 0
	case path != "":
		return c.Facts.MountOwner
	}
	return c.Facts.UserNamespace
}

// mountNamespace returns the path of the mount namespace that a container joins, empty for one of its own, and whether
// it has one.
func mountNamespace(s *specs.Spec) (path string, has bool) {
	if s.Linux == nil {
		return "", false
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.MountNamespace {
			return ns.Path, true
		}
	}
	return "", false
}

// joinedMounts returns the owner of the mount namespace that a container joins; 0: it joins none, or may not know its
// owner.
func joinedMounts(s *specs.Spec) (uint64, error) {
	path, _ := mountNamespace(s)
	if path == "" {
		return 0, nil
	}
	owner, err := launch.NamespaceOwner(path)
	if errors.Is(err, syscall.EPERM) {
		return 0, nil
	}
	return owner, err
}
