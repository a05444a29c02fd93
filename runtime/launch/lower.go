package launch

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// procMagic is PROC_SUPER_MAGIC.
const procMagic = 0x9fa0

// lower translates one operation of the child.
func (p *program) lower(op plan.Op) error {
	p.begin(op)
	switch o := op.(type) {
	case plan.Wait:
		if p.asked && o.For == plan.ForLimits {
			p.tell(record{kind: recordStage, value: uint32(stageReady)})
		}
		p.wait()
	case plan.Tell:
		p.tell(record{kind: recordStage, value: uint32(o.Stage)})
	case plan.Propagate:
		p.sys(unix.SYS_MOUNT, p.str(""), p.str(o.Path), p.str(""), val(o.Flags), val(0))
	case plan.Root:
		p.root(o)
	case plan.Mount:
		p.mount(o)
	case plan.Bind:
		p.bind(o)
	case plan.Remount:
		p.remount(o)
	case plan.Protect:
		p.setattr(p.named[o.Name], 0, unix.MountAttr{Attr_set: o.Set})
		p.close(p.named[o.Name])
	case plan.Device:
		p.device(o)
	case plan.Symlink:
		p.symlink(o)
	case plan.Terminal:
		p.terminal(o)
	case plan.Sysctl:
		p.sysctl(o)
	case plan.Mask:
		p.mask(o)
	case plan.ReadOnly:
		p.readOnly(o)
	case plan.RootReadOnly:
		p.setattr(slotRoot, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	case plan.HideMount:
		p.hideMount(o)
	case plan.Pivot:
		p.pivot(o)
	case plan.RootPropagation:
		p.setattr(slotRoot, recursive(o.Flags), unix.MountAttr{Propagation: o.Flags &^ unix.MS_REC})
	default:
		return p.lowerNamespace(op)
	}
	return nil
}

// recursive is AT_RECURSIVE when the propagation flags have MS_REC.
func recursive(flags uint64) uintptr {
	if flags&unix.MS_REC != 0 {
		return unix.AT_RECURSIVE
	}
	return 0
}

// root makes the root a mount of its own: pivot_root(2) wants one, and everything later is resolved from its descriptor.
func (p *program) root(o plan.Root) {
	p.sysTo(slotRoot, unix.SYS_OPEN_TREE, cwd, p.str(o.Path), val(unix.OPEN_TREE_CLONE|unix.O_CLOEXEC|unix.AT_RECURSIVE))
	// The clone of a shared mount is its peer: what is mounted inside would appear in the host's tree too.
	p.setattr(slotRoot, unix.AT_RECURSIVE, unix.MountAttr{Propagation: unix.MS_SLAVE})
	p.sys(unix.SYS_MOVE_MOUNT, fd(slotRoot), p.str(""), cwd, p.str(o.Path),
		val(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS))
}

func (p *program) mount(o plan.Mount) {
	open := p.sysTo(slotT0, unix.SYS_FSOPEN, p.str(o.Type), val(unix.FSOPEN_CLOEXEC))
	if o.Source != "" {
		p.detail(p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_SET_STRING), p.str("source"), p.str(o.Source), val(0)),
			"source=%s", o.Source)
	}
	p.fsOptions(o.Data)
	create := p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_CMD_CREATE), val(0), val(0), val(0))
	if len(o.Data) > 0 {
		p.detail(create, "%s", strings.Join(o.Data, ","))
	}
	mount := slotT1
	if o.Name != "" {
		mount = p.slot(0)
		p.named[o.Name] = mount
	}
	attr, later := o.Attr.Set, uint64(0)
	if o.TakeMode || o.CopyUp {
		later = attr & unix.MOUNT_ATTR_RDONLY
		attr &^= later
	}
	made := p.sysTo(mount, unix.SYS_FSMOUNT, fd(slotT0), val(unix.FSMOUNT_CLOEXEC), val(attr))
	p.close(slotT0)
	if o.MayBindSys {
		over := p.do(doJump, noSlot)
		for _, i := range []int{open, create, made} {
			p.ignore(i, unix.EPERM)
			p.land(i)
		}
		p.sysTo(mount, unix.SYS_OPEN_TREE, cwd, p.str("/sys"), val(unix.OPEN_TREE_CLONE|unix.O_CLOEXEC|unix.AT_RECURSIVE))
		p.setattr(mount, unix.AT_RECURSIVE, unix.MountAttr{Attr_set: o.Attr.Set})
		p.land(over)
	}
	for _, dir := range o.Dirs {
		p.sys(unix.SYS_MKDIRAT, fd(mount), p.str(dir), val(0o755))
	}
	p.destination(o.Dest, resolveDir, 0, o.NoSymlink, strings.HasPrefix(o.Dest, "/proc"))
	if o.TakeMode {
		p.do(doMode, noSlot, slotT2, uintptr(mount))
	}
	if o.CopyUp {
		p.copyUp(mount)
	}
	if later != 0 {
		p.setattr(mount, 0, unix.MountAttr{Attr_set: later})
	}
	p.attributes(mount, o.Attr, false)
	p.move(mount, slotT2)
	p.close(slotT2)
	if o.Name == "" {
		p.close(slotT1)
	}
}

// fsOptions hands options to the file system context in slotT0.
func (p *program) fsOptions(data []string) {
	for _, d := range data {
		var i int
		if key, value, ok := strings.Cut(d, "="); ok {
			i = p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_SET_STRING), p.str(key), p.str(value), val(0))
		} else {
			i = p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_SET_FLAG), p.str(d), val(0), val(0))
		}
		p.detail(i, "%s", d)
	}
}

// destination opens a mount point into slotT2. What leads into a procfs by a link of the image is refused: the check of the
// path alone cannot see that.
func (p *program) destination(dest string, mode, like int, noSymlink, mayBeProc bool) {
	more := uint64(0)
	if noSymlink {
		more = unix.RESOLVE_NO_SYMLINKS
	}
	p.resolve(slotT2, slotRoot, dest, mode, like, more)
	if !mayBeProc {
		i := p.do(doPrivate, noSlot, slotT2, uintptr(unix.EPERM), procMagic, 0)
		p.detail(i, "the destination leads into /proc")
	}
}

// copyUp lets the parent fill a tmpfs: it has the rights to keep owners, and walking a tree is no work for the machine.
func (p *program) copyUp(mount int) {
	for _, slot := range []int{slotT2, mount} {
		msg, ctl := p.message(record{kind: recordCopyUp})
		p.do(doSend, noSlot, uintptr(slot), msg, ctl, slotSync)
	}
	p.asked = true
	p.wait()
}

// attributes sets what cannot be given with the mount: for all below it, and propagation.
func (p *program) attributes(mount int, a plan.Attr, keepLocked bool) {
	if a.RecSet|a.RecClear != 0 {
		i := p.setattr(mount, unix.AT_RECURSIVE, unix.MountAttr{Attr_set: a.RecSet, Attr_clr: a.RecClear})
		if keepLocked && a.RecSet == 0 {
			p.ignore(i, unix.EPERM)
		}
	}
	for _, prop := range a.Propagation {
		p.setattr(mount, recursive(prop), unix.MountAttr{Propagation: prop &^ unix.MS_REC})
	}
}

func (p *program) bind(o plan.Bind) {
	mount := slotT1
	if o.Helped {
		p.ask(mount)
	} else {
		p.openTree(plan.OpenTree{Source: o.Source, Recursive: o.Recursive, Map: o.Map, MapRecursive: o.MapRecursive})
	}
	if o.InProc && o.Dest == "/proc" {
		i := p.do(doPrivate, noSlot, uintptr(mount), uintptr(unix.EINVAL), procMagic, 1)
		p.detail(i, "the source is no proc file system")
	}
	p.destination(o.Dest, resolveLike, mount, o.NoSymlink, o.InProc)
	if clear := o.Attr.Clear; clear != 0 && o.KeepLocked {
		// Flags of the source that the user namespace may not change stay as they are.
		p.ignore(p.setattr(mount, 0, unix.MountAttr{Attr_clr: clear, Attr_set: o.Attr.Set & unix.MOUNT_ATTR__ATIME}), unix.EPERM)
		if set := o.Attr.Set &^ unix.MOUNT_ATTR__ATIME; set != 0 {
			p.setattr(mount, 0, unix.MountAttr{Attr_set: set})
		}
	} else if o.Attr.Set|o.Attr.Clear != 0 {
		p.setattr(mount, 0, unix.MountAttr{Attr_set: o.Attr.Set, Attr_clr: o.Attr.Clear})
	}
	p.attributes(mount, o.Attr, o.KeepLocked)
	p.move(mount, slotT2)
	p.close(mount, slotT2)
}

func (p *program) remount(o plan.Remount) {
	p.resolve(slotT2, slotRoot, o.Dest, resolveOpen, 0, 0)
	if !o.Bind && len(o.Data) > 0 {
		p.sysTo(slotT0, unix.SYS_FSPICK, fd(slotT2), p.str(""), val(unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH))
		p.fsOptions(o.Data)
		p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_CMD_RECONFIGURE), val(0), val(0), val(0))
		p.close(slotT0)
	}
	p.setattr(slotT2, 0, unix.MountAttr{Attr_set: o.Attr.Set, Attr_clr: o.Attr.Clear})
	p.attributes(slotT2, o.Attr, false)
	p.close(slotT2)
}

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

func (p *program) device(o plan.Device) {
	dir, name := path.Split(o.Path)
	typ := nodeType(o.Type)
	p.resolve(slotT0, slotRoot, dir, resolveDir, 0, 0)
	if o.Bind {
		p.bindDevice(o, name, typ)
		return
	}
	made := p.sys(unix.SYS_MKNODAT, fd(slotT0), p.str(name), val(typ|o.Mode), val(unix.Mkdev(uint32(o.Major), uint32(o.Minor))))
	p.ignore(made, unix.EEXIST)
	if o.UID != 0 || o.GID != 0 {
		p.sys(unix.SYS_FCHOWNAT, fd(slotT0), p.str(name), val(o.UID), val(o.GID), val(unix.AT_SYMLINK_NOFOLLOW))
	}
	over := p.do(doJump, noSlot)
	p.land(made)
	p.sysTo(slotT1, unix.SYS_OPENAT, fd(slotT0), p.str(name), val(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC), val(0))
	i := p.do(doCheck, noSlot, slotT1, uintptr(typ), uintptr(o.Major), uintptr(o.Minor))
	p.detail(i, "something else is there")
	p.close(slotT1)
	p.land(over)
	p.close(slotT0)
}

// bindDevice binds the host's node of the same path, after it was compared with what the configuration says.
func (p *program) bindDevice(o plan.Device, name string, typ uint32) {
	p.sysTo(slotT1, unix.SYS_OPEN_TREE, cwd, p.str(o.Path), val(unix.OPEN_TREE_CLONE|unix.O_CLOEXEC))
	i := p.do(doCheck, noSlot, slotT1, uintptr(typ), uintptr(o.Major), uintptr(o.Minor))
	p.detail(i, "the host's node is another device")
	p.resolve(slotT2, slotT0, name, resolveFile, 0, unix.RESOLVE_NO_SYMLINKS)
	p.move(slotT1, slotT2)
	p.close(slotT0, slotT1, slotT2)
}

func (p *program) symlink(o plan.Symlink) {
	var missing int = -1
	if o.IfExists != "" {
		missing = p.resolve(slotT1, slotRoot, o.IfExists, resolveOpen, 0, 0)
		p.ignore(missing, unix.ENOENT, unix.ENOTDIR, unix.EACCES)
		p.close(slotT1)
	}
	dir, name := path.Split(o.Path)
	p.resolve(slotT0, slotRoot, dir, resolveDir, 0, 0)
	if o.Replace {
		p.ignore(p.sys(unix.SYS_UNLINKAT, fd(slotT0), p.str(name), val(0)), unix.ENOENT, unix.EISDIR)
	}
	p.ignore(p.sys(unix.SYS_SYMLINKAT, p.str(o.Target), fd(slotT0), p.str(name)), unix.EEXIST)
	p.close(slotT0)
	if missing >= 0 {
		p.land(missing)
	}
}

// sysctl writes through the runtime's own /proc, before the pivot: no file of the image can take its place (CVE-2025-52881).
// What a file of /proc/sys means depends on the writer's namespaces, not on the mount.
func (p *program) sysctl(o plan.Sysctl) {
	p.sysTo(slotT0, unix.SYS_OPENAT, cwd, p.str("/proc/sys/"+o.Path), val(unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW), val(0))
	i := p.sys(unix.SYS_WRITE, fd(slotT0), p.str(o.Value), val(len(o.Value)))
	p.code[i].want = uint32(len(o.Value))
	p.close(slotT0)
}

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
	missing := p.resolve(slotT2, slotRoot, o.Path, resolveOpen, 0, 0)
	p.ignore(missing, unix.ENOENT, unix.ENOTDIR)
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

func (p *program) readOnly(o plan.ReadOnly) {
	missing := p.resolve(slotT2, slotRoot, o.Path, resolveOpen, 0, 0)
	p.ignore(missing, unix.ENOENT, unix.ENOTDIR)
	p.sysTo(slotT1, unix.SYS_OPEN_TREE, fd(slotT2), p.str(""),
		val(unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.O_CLOEXEC|unix.AT_RECURSIVE))
	p.setattr(slotT1, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	p.move(slotT1, slotT2)
	p.close(slotT1, slotT2)
	p.land(missing)
}

// hideMount detaches a mount by its path. One that came with a copy of the host's mount namespace into a user namespace is locked
// (EINVAL): it is covered, which the kernel takes for as good.
func (p *program) hideMount(o plan.HideMount) {
	detach := p.sys(unix.SYS_UMOUNT2, p.str(o.Path), val(unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	p.ignore(detach, unix.EINVAL, unix.EPERM)
	over := p.do(doJump, noSlot)
	p.land(detach)
	p.sys(unix.SYS_MOUNT, p.str("tmpfs"), p.str(o.Path), p.str("tmpfs"),
		val(unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC), p.str("nr_inodes=1,mode=755"))
	p.land(over)
}

// pivot changes the root. The old root hangs below the current directory afterwards and is detached at once; it is made a slave
// first, so that this does not reach the host.
func (p *program) pivot(o plan.Pivot) {
	if o.Chroot {
		p.sys(unix.SYS_FCHDIR, fd(slotRoot))
		p.sys(unix.SYS_MOVE_MOUNT, fd(slotRoot), p.str(""), cwd, p.str("/"), val(unix.MOVE_MOUNT_F_EMPTY_PATH))
		p.sys(unix.SYS_CHROOT, p.str("."))
		p.sys(unix.SYS_CHDIR, p.str("/"))
		return
	}
	p.sysTo(slotT0, unix.SYS_OPENAT, cwd, p.str("/"), val(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), val(0))
	p.sys(unix.SYS_FCHDIR, fd(slotRoot))
	p.sys(unix.SYS_PIVOT_ROOT, p.str("."), p.str("."))
	p.sys(unix.SYS_FCHDIR, fd(slotT0))
	p.sys(unix.SYS_MOUNT, p.str(""), p.str("."), p.str(""), val(unix.MS_SLAVE|unix.MS_REC), val(0))
	p.sys(unix.SYS_UMOUNT2, p.str("."), val(unix.MNT_DETACH))
	p.close(slotT0)
	p.sys(unix.SYS_CHDIR, p.str("/"))
}

// terminal opens a pseudo terminal by descriptors only: ptmx inside the root, its peer from it, never by its name
// (CVE-2025-52565).
func (p *program) terminal(o plan.Terminal) {
	how := put(p.mem, unix.OpenHow{Flags: unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT |
		unix.RESOLVE_NO_MAGICLINKS})
	p.sysTo(slotMaster, unix.SYS_OPENAT2, fd(slotRoot), p.str("dev/pts/ptmx"), arg{v: how}, val(unix.SizeofOpenHow))
	p.do(doCheck, noSlot, slotMaster, unix.S_IFCHR, 5, 2)
	p.sys(unix.SYS_IOCTL, fd(slotMaster), val(unix.TIOCSPTLCK), arg{v: put(p.mem, int32(0))})
	p.sysTo(slotSlave, unix.SYS_IOCTL, fd(slotMaster), val(unix.TIOCGPTPEER), val(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
	if o.Width != 0 || o.Height != 0 {
		p.sys(unix.SYS_IOCTL, fd(slotMaster), val(unix.TIOCSWINSZ), arg{v: put(p.mem, unix.Winsize{Row: o.Height, Col: o.Width})})
	}
	if o.Console {
		p.resolve(slotT0, slotRoot, "dev", resolveDir, 0, 0)
		p.resolve(slotT2, slotT0, "console", resolveFile, 0, unix.RESOLVE_NO_SYMLINKS)
		p.sysTo(slotT1, unix.SYS_OPEN_TREE, fd(slotSlave), p.str(""), val(unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.O_CLOEXEC))
		p.move(slotT1, slotT2)
		p.close(slotT0, slotT1, slotT2)
	}
	msg, ctl := p.message(record{kind: recordDescriptor})
	p.do(doSend, noSlot, slotMaster, msg, ctl, slotSync)
	p.close(slotMaster)
}

func errLower(op plan.Op) error {
	return fmt.Errorf("%s: the launcher knows no %s", op.What(), plan.Kind(op))
}
