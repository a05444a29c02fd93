package launch

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// mask hides a path behind the host's /dev/null, or a directory behind an empty tmpfs. The image's own /dev/null is not used: it
// may be a link to a file that must not become writable (CVE-2025-31133). The mount is read-only, which does not keep from writing
// to a device but keeps the container's root from changing the mode and owner of the host's /dev/null.
func (p *program) mask(o plan.Mask) {
	if p.slots[slotNull] == 0 {
		p.slots[slotNull] = noSlot // made by the program, once
		p.sysTo(slotNull, unix.SYS_OPENAT, cwd, p.str("/dev/null"), val(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC), val(0))
		p.do(doCheck, noSlot, slotNull, unix.S_IFCHR, 1, 3)
		p.sysTo(slotT0, unix.SYS_FSOPEN, p.str("tmpfs"), val(unix.FSOPEN_CLOEXEC))
		p.fsOptions([]string{"nr_inodes=1", "mode=755"})
		p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_CMD_CREATE), val(0), val(0), val(0))
		p.sysTo(slotMask, unix.SYS_FSMOUNT, fd(slotT0), val(unix.FSMOUNT_CLOEXEC),
			val(unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC))
		p.close(slotT0)
	}
	missing := p.covered(o.Path, o.At)
	isDir := p.do(doIfDir, noSlot, slotT2)
	p.sysTo(slotT1, unix.SYS_OPEN_TREE, fd(slotNull), p.str(""), val(unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.O_CLOEXEC))
	p.setattr(slotT1, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC})
	over := p.do(doJump, noSlot)
	p.land(isDir)
	p.do(doMask, slotT1)
	p.land(over)
	p.move(slotT1, slotT2)
	p.close(slotT1, slotT2)
	p.land(missing)
}

// covered opens a masked or read-only path into slotT2; what is not there is left out. Below /proc and /sys it is looked for beneath
// what was mounted there: another process that shares the root file system may exchange /proc meanwhile, which would leave the
// container's procfs without masks.
func (p *program) covered(path string, at plan.Place) int {
	mark := below(at)
	if mark == noMark || p.places[mark] == 0 {
		missing := p.resolve(slotT2, slotRoot, path, resolveOpen, 0, 0)
		p.ignore(missing, unix.ENOENT, unix.ENOTDIR)
		if mark == noMark {
			p.outside(slotT2, "the path")
		}
		return missing
	}
	missing := p.resolve(slotT2, p.places[mark], strings.TrimPrefix(path, "/"+placeNames[mark]), resolveOpen, 0, 0)
	p.ignore(missing, unix.ENOENT, unix.ENOTDIR)
	return missing
}

func (p *program) readOnly(o plan.ReadOnly) {
	missing := p.covered(o.Path, o.At)
	p.sysTo(slotT1, unix.SYS_OPEN_TREE, fd(slotT2), p.str(""),
		val(unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.O_CLOEXEC|unix.AT_RECURSIVE))
	p.setattr(slotT1, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	p.move(slotT1, slotT2)
	p.close(slotT2)
	if mark := markOf(o.At); mark == markProc || mark == markSys {
		if p.places[mark] != 0 { // masks go on top
			p.sys(unix.SYS_DUP3, fd(slotT1), fd(p.places[mark]), val(unix.O_CLOEXEC))
		}
	}
	p.close(slotT1)
	p.land(missing)
}
