package launch

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// lowerHostProgram translates what only programs that work on a container from outside need.
func (p *program) lowerHostProgram(op plan.Op) error {
	switch o := op.(type) {
	case plan.HostRoot:
		p.openRoot()
	case plan.KeepOpen:
		if o.Index >= len(p.res.Keep) {
			return fmt.Errorf("%s: no descriptor was given", o.What())
		}
		p.sys(unix.SYS_FCNTL, val(p.res.Keep[o.Index].Fd()), val(unix.F_SETFD), val(0))
	case plan.CloneMount:
		p.cloneMount(o)
	case plan.PrivateTmp:
		p.privateTmp(o)
	}
	return nil
}

// cloneMount fetches a mount from the namespace of the process to join: the clone has its flags, id mapping and peers. What leads through
// a link is refused: the paths are those of the mount table, which has none.
func (p *program) cloneMount(o plan.CloneMount) {
	if !o.Own {
		p.sysTo(slotNull, unix.SYS_OPENAT, cwd, p.str("/proc/thread-self/ns/mnt"), val(unix.O_RDONLY|unix.O_CLOEXEC), val(0))
		p.sys(unix.SYS_SETNS, fd(slotPIDFD), val(unix.CLONE_NEWNS))
	}
	p.sysTo(slotT0, unix.SYS_OPENAT, cwd, p.str("/"), val(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), val(0))
	p.resolve(slotT2, slotT0, o.Path, resolveOpen, 0, unix.RESOLVE_NO_SYMLINKS)
	p.sysTo(slotT1, unix.SYS_OPEN_TREE, fd(slotT2), p.str(""), val(unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.O_CLOEXEC))
	p.close(slotT0, slotT2)
	if !o.Own {
		p.sys(unix.SYS_SETNS, fd(slotNull), val(unix.CLONE_NEWNS))
		p.close(slotNull)
	}
	p.resolve(slotT2, slotRoot, o.Dest, resolveLike, slotT1, 0)
	p.move(slotT1, slotT2)
	p.close(slotT1, slotT2)
}

// privateTmp clones the root before it covers /tmp, below which it may lie.
func (p *program) privateTmp(o plan.PrivateTmp) {
	if o.Root {
		p.sysTo(slotT2, unix.SYS_OPEN_TREE, fd(slotRoot), p.str(""),
			val(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE|unix.OPEN_TREE_CLONE|unix.O_CLOEXEC))
	}
	p.sysTo(slotT0, unix.SYS_FSOPEN, p.str("tmpfs"), val(unix.FSOPEN_CLOEXEC))
	p.fsOptions([]string{"mode=755"})
	p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_CMD_CREATE), val(0), val(0), val(0))
	p.sysTo(slotT1, unix.SYS_FSMOUNT, fd(slotT0), val(unix.FSMOUNT_CLOEXEC), val(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV))
	p.sys(unix.SYS_MKDIRAT, fd(slotT1), p.str("tare"), val(0o755))
	p.sys(unix.SYS_MOVE_MOUNT, fd(slotT1), p.str(""), cwd, p.str("/tmp"), val(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS))
	if o.Root {
		p.sys(unix.SYS_MOVE_MOUNT, fd(slotT2), p.str(""), cwd, p.str(plan.PrivateDir), val(unix.MOVE_MOUNT_F_EMPTY_PATH))
		p.close(slotT2)
	}
	p.close(slotT0, slotT1)
}
