package launch

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// nodeType is the file type of a device of config.json.
func nodeType(t string) uint32 {
	switch t {
	case "b":
		return unix.S_IFBLK
	case "p":
		return unix.S_IFIFO
	}
	return unix.S_IFCHR
}

// openDev opens the directory for default devices and links, and decides by the mount that it lies in whether it is the container's
// own: links of an image may lead a bind of the host's directory to /dev, or /dev to such a bind.
func (p *program) openDev() {
	p.dev = p.places[markDev]
	out, mark := slotT0, uintptr(markDev)
	if p.dev == 0 {
		p.dev = p.slot(0)
		out, mark = p.dev, markRoot
	}
	p.resolve(out, slotRoot, "dev", resolveDir, 0, 0)
	own := p.do(doIfIn, noSlot, uintptr(out), mark)
	p.do(doSet, slotForeign, 1)
	p.land(own)
	if out == slotT0 {
		p.close(slotT0)
	}
}

// parent opens the directory in which a file is made. Outside of the root file system and the container's own /dev it must not be
// reached by a link, which could lead into a directory of the host's that is bound somewhere.
func (p *program) parent(dir string) int {
	if dir == "/dev/" {
		return p.dev
	}
	p.resolve(slotT0, slotRoot, dir, resolveDir, 0, 0)
	inRoot := p.do(doIfIn, noSlot, slotT0, markRoot)
	inDev := p.do(doIfIn, noSlot, slotT0, markDev)
	p.close(slotT0)
	p.detail(p.resolve(slotT0, slotRoot, dir, resolveDir, 0, unix.RESOLVE_NO_SYMLINKS), "its directory is on another mount, through a link")
	p.outside(slotT0, "its directory")
	p.land(inRoot, inDev)
	return slotT0
}

// unlessForeign starts what is left out when /dev is not the container's own; land ends it. It returns -1 for paths elsewhere.
func (p *program) unlessForeign(name string) int {
	if !strings.HasPrefix(name, "/dev/") {
		return -1
	}
	return p.do(doIfSlot, noSlot, slotForeign)
}

func (p *program) device(o plan.Device) {
	dir, name := path.Split(o.Path)
	typ := nodeType(o.Type)
	if o.Helped {
		p.ask(slotT1) // always: the helper answers in order
	}
	foreign := p.unlessForeign(o.Path)
	base := p.parent(dir)
	if o.Bind {
		p.bindDevice(o, base, name, typ)
	} else {
		p.makeDevice(o, base, name, typ)
	}
	if base == slotT0 {
		p.close(slotT0)
	}
	p.land(foreign)
	if o.Helped {
		p.close(slotT1)
	}
}

func (p *program) makeDevice(o plan.Device, base int, name string, typ uint32) {
	made := p.sys(unix.SYS_MKNODAT, fd(base), p.str(name), val(typ|o.Mode), val(unix.Mkdev(uint32(o.Major), uint32(o.Minor))))
	p.ignore(made, unix.EEXIST)
	if o.UID != 0 || o.GID != 0 {
		p.sys(unix.SYS_FCHOWNAT, fd(base), p.str(name), val(o.UID), val(o.GID), val(unix.AT_SYMLINK_NOFOLLOW))
	}
	over := p.do(doJump, noSlot)
	p.land(made)
	p.sysTo(slotT1, unix.SYS_OPENAT, fd(base), p.str(name), val(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC), val(0))
	mounted := p.unlessMounted(o, slotT1)
	i := p.do(doCheck, noSlot, slotT1, uintptr(typ), uintptr(o.Major), uintptr(o.Minor))
	p.detail(i, "something else is there")
	p.land(mounted)
	p.close(slotT1)
	p.land(over)
}

// unlessMounted starts what is left out for a default device when the configuration mounted something there; land ends it.
func (p *program) unlessMounted(o plan.Device, slot int) int {
	if !o.Default {
		return -1
	}
	return p.do(doIfMounted, noSlot, uintptr(slot))
}

// bindDevice binds the helper's node, or the host's of the same path, after that was compared with what the configuration says.
func (p *program) bindDevice(o plan.Device, base int, name string, typ uint32) {
	if !o.Helped {
		p.sysTo(slotT1, unix.SYS_OPEN_TREE, cwd, p.str(o.Path), val(unix.OPEN_TREE_CLONE|unix.O_CLOEXEC))
		i := p.do(doCheck, noSlot, slotT1, uintptr(typ), uintptr(o.Major), uintptr(o.Minor))
		p.detail(i, "the host's node is another device")
		// It can be used as before, but a root to which the host's is mapped changes neither its mode nor its owner.
		p.setattr(slotT1, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	p.resolve(slotT2, base, name, resolveFile, 0, unix.RESOLVE_NO_SYMLINKS)
	mounted := p.unlessMounted(o, slotT2)
	p.move(slotT1, slotT2)
	p.land(mounted)
	p.close(slotT1, slotT2)
}

func (p *program) symlink(o plan.Symlink) {
	foreign := p.unlessForeign(o.Path)
	if o.IfExists != p.exists {
		p.exists, p.missing = o.IfExists, -1
		if o.IfExists != "" { // links that come one after the other and have the same condition are left out together
			p.missing = p.resolve(slotT1, slotRoot, o.IfExists, resolveOpen, 0, 0)
			p.ignore(p.missing, unix.ENOENT, unix.ENOTDIR, unix.EACCES)
			p.close(slotT1)
		}
	}
	dir, name := path.Split(o.Path)
	base := 0
	if o.In != "" {
		base = p.named[o.In]
	} else {
		base = p.parent(dir)
	}
	if o.Replace {
		p.ignore(p.sys(unix.SYS_UNLINKAT, fd(base), p.str(name), val(0)), unix.ENOENT, unix.EISDIR, unix.EBUSY)
	}
	p.ignore(p.sys(unix.SYS_SYMLINKAT, p.str(o.Target), fd(base), p.str(name)), unix.EEXIST)
	if base == slotT0 {
		p.close(slotT0)
	}
	p.land(foreign, p.missing)
}

// terminal opens a pseudo terminal by descriptors only: ptmx inside the root, its peer from it, never by its name
// (CVE-2025-52565).
func (p *program) terminal(o plan.Terminal) {
	how := put(p.mem, unix.OpenHow{Flags: unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT |
		unix.RESOLVE_NO_MAGICLINKS})
	first := p.sysTo(slotMaster, unix.SYS_OPENAT2, fd(slotRoot), p.str("dev/pts/ptmx"), arg{v: how}, val(unix.SizeofOpenHow))
	p.ignore(first, unix.ENOENT, unix.ENOTDIR, unix.EACCES)
	opened := p.do(doJump, noSlot)
	p.land(first)
	p.sysTo(slotMaster, unix.SYS_OPENAT2, fd(slotRoot), p.str("dev/ptmx"), arg{v: how}, val(unix.SizeofOpenHow))
	p.land(opened)
	p.do(doCheck, noSlot, slotMaster, unix.S_IFCHR, 5, 2)
	p.sys(unix.SYS_IOCTL, fd(slotMaster), val(unix.TIOCSPTLCK), arg{v: put(p.mem, int32(0))})
	p.sysTo(slotSlave, unix.SYS_IOCTL, fd(slotMaster), val(unix.TIOCGPTPEER), val(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
	if o.Width != 0 || o.Height != 0 {
		p.sys(unix.SYS_IOCTL, fd(slotMaster), val(unix.TIOCSWINSZ), arg{v: put(p.mem, unix.Winsize{Row: o.Height, Col: o.Width})})
	}
	if p.res.Foreground {
		p.leaveNewlines()
	}
	if o.Console {
		p.console(o.OwnDev)
	}
	p.due[recordDescriptor]++
	msg, ctl := p.message(record{kind: recordDescriptor})
	p.do(doSend, noSlot, slotMaster, msg, ctl, slotSync)
	p.close(slotMaster)
}

// console binds the terminal on /dev/console, unless the configuration mounted something there. Nothing is made in a directory that
// is not the container's own.
func (p *program) console(own bool) {
	foreign := p.do(doIfSlot, noSlot, slotForeign)
	p.resolve(slotT2, p.dev, "console", resolveFile, 0, unix.RESOLVE_NO_SYMLINKS)
	missing := foreign
	if !own {
		opened := p.do(doJump, noSlot)
		p.land(foreign)
		missing = p.resolve(slotT2, slotRoot, "dev/console", resolveOpen, 0, unix.RESOLVE_NO_SYMLINKS)
		p.ignore(missing, unix.ENOENT, unix.ENOTDIR, unix.ELOOP)
		p.land(opened)
	}
	mounted := p.do(doIfMounted, noSlot, slotT2)
	p.sysTo(slotT1, unix.SYS_OPEN_TREE, fd(slotSlave), p.str(""), val(unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.O_CLOEXEC))
	p.move(slotT1, slotT2)
	p.close(slotT1)
	p.land(mounted)
	p.close(slotT2)
	p.land(missing)
}

// makeNode makes a node in the helper and clones its mount into slotT1. Older kernels clone attached mounts only: the file system of
// the node covers /proc in the child's mount namespace meanwhile, while the child waits for the answer.
func (p *program) makeNode(o plan.MakeNode) {
	p.sysTo(slotT0, unix.SYS_FSOPEN, p.str("tmpfs"), val(unix.FSOPEN_CLOEXEC))
	p.fsOptions([]string{"mode=755"})
	p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_CMD_CREATE), val(0), val(0), val(0))
	p.sysTo(slotT2, unix.SYS_FSMOUNT, fd(slotT0), val(unix.FSMOUNT_CLOEXEC), val(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC))
	name, cover := p.str("node"), p.str("/proc")
	p.sys(unix.SYS_MKNODAT, fd(slotT2), name, val(nodeType(o.Type)), val(unix.Mkdev(uint32(o.Major), uint32(o.Minor))))
	p.sys(unix.SYS_FCHMODAT, fd(slotT2), name, val(o.Mode))
	p.sys(unix.SYS_FCHOWNAT, fd(slotT2), name, val(o.UID), val(o.GID), val(unix.AT_SYMLINK_NOFOLLOW))
	p.sys(unix.SYS_MOVE_MOUNT, fd(slotT2), p.str(""), cwd, cover, val(unix.MOVE_MOUNT_F_EMPTY_PATH))
	p.sysTo(slotT1, unix.SYS_OPEN_TREE, fd(slotT2), name, val(unix.OPEN_TREE_CLONE|unix.O_CLOEXEC))
	p.sys(unix.SYS_UMOUNT2, cover, val(unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	p.close(slotT0, slotT2)
}
