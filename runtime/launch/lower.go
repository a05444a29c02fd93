package launch

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

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
		if o.Stage == plan.StageMounts {
			p.sendNamespaces(slotSync)
		}
		if o.Stage == plan.StageCreated && p.res.Listen != nil {
			p.closeInherited(slotSync) // a caller that sees the container created finds no descriptor of the host in it
		}
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
		p.protect(o)
	case plan.Device:
		p.device(o)
	case plan.OpenDev:
		p.openDev()
	case plan.Symlink:
		p.symlink(o)
	case plan.Terminal:
		p.terminal(o)
	case plan.Sysctl:
		p.sysctl(o)
	case plan.MakeCwd:
		made := p.resolve(slotT0, slotRoot, o.Path, resolveDir, 0, 0)
		p.ignore(made, anyErrno) // entering it tells
		p.close(slotT0)
		p.land(made)
	case plan.StillThere:
		p.stillThere(o)
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
	case plan.EnterRoot:
		p.enterRoot()
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
	// A link in its place would make a directory of the host the root.
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC}
	if o.Bundle == "" {
		p.sysTo(slotT1, unix.SYS_OPENAT2, cwd, p.str(o.Path), arg{v: put(p.mem, how)}, val(unix.SizeofOpenHow))
	} else {
		how.Resolve = unix.RESOLVE_NO_SYMLINKS
		p.sysTo(slotT0, unix.SYS_OPENAT, cwd, p.str(o.Bundle), val(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), val(0))
		below := strings.TrimPrefix(strings.TrimPrefix(o.Path, o.Bundle), "/")
		p.sysTo(slotT1, unix.SYS_OPENAT2, fd(slotT0), p.str(below), arg{v: put(p.mem, how)}, val(unix.SizeofOpenHow))
		p.close(slotT0)
	}
	p.sysTo(slotRoot, unix.SYS_OPEN_TREE, fd(slotT1), p.str(""), val(unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.O_CLOEXEC|unix.AT_RECURSIVE))
	// The clone of a shared mount is its peer: what is mounted inside would appear in the host's tree too.
	p.setattr(slotRoot, unix.AT_RECURSIVE, unix.MountAttr{Propagation: unix.MS_SLAVE})
	if !o.Detached {
		p.move(slotRoot, slotT1)
	}
	p.close(slotT1)
	p.do(doMark, noSlot, slotRoot, markRoot)
}

func (p *program) mount(o plan.Mount) {
	open := p.sysTo(slotT0, unix.SYS_FSOPEN, p.str(o.Type), val(unix.FSOPEN_CLOEXEC))
	if o.Source != "" {
		p.detail(p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_SET_STRING), p.str("source"), p.str(o.Source), val(0)),
			"source=%s", o.Source)
	}
	if o.Joined {
		p.detail(p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_SET_FD), p.str("pidns"), val(0), fd(p.pidNS)), "pidns")
	}
	p.fsOptions(o.Data)
	create := p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_CMD_CREATE), val(0), val(0), val(0))
	if len(o.Data) > 0 {
		p.detail(create, "%s", strings.Join(o.Data, ","))
	}
	mount, keep := slotT1, false
	if markOf(o.At) != noMark || o.Name != "" {
		mount, keep = p.slot(0), true
	}
	if o.Name != "" {
		p.named[o.Name] = mount
	}
	made := p.sysTo(mount, unix.SYS_FSMOUNT, fd(slotT0), val(unix.FSMOUNT_CLOEXEC), val(o.Attr.Set))
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
	opened := p.destination(o.Dest, o.At, resolveDir, 0, o.NoSymlink)
	if o.NoSymlink {
		const words = "filesystem %q must be mounted on ordinary directory" // clients of runc look for them
		p.detail(opened, words, o.Type)
		isDir := p.do(doIfDir, noSlot, slotT2)
		p.detail(p.do(doFail, noSlot, uintptr(unix.ENOTDIR)), words, o.Type)
		p.land(isDir)
	}
	if o.TakeMode {
		p.do(doMode, noSlot, slotT2, uintptr(mount))
	}
	if o.CopyUp {
		p.copyUp(mount)
	}
	p.attributes(mount, o.Attr)
	p.move(mount, slotT2)
	p.close(slotT2)
	if o.Type == "devtmpfs" {
		p.keep(o.At, 0) // it is the host's, whoever mounts it
	} else {
		p.keep(o.At, mount)
	}
	if !keep {
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

// copyUp lets the parent fill a tmpfs: it has the rights to keep owners, and walking a tree is no work for the machine.
func (p *program) copyUp(mount int) {
	for _, slot := range []int{slotT2, mount} {
		p.due[recordCopyUp]++
		msg, ctl := p.message(record{kind: recordCopyUp})
		p.do(doSend, noSlot, uintptr(slot), msg, ctl, slotSync)
	}
	p.asked = true
	p.wait()
}

// attributes sets what cannot be given with the mount: for all below it, and propagation.
func (p *program) attributes(mount int, a plan.Attr) {
	if a.RecSet|a.RecClear != 0 {
		p.detail(p.setattr(mount, unix.AT_RECURSIVE, unix.MountAttr{Attr_set: a.RecSet, Attr_clr: a.RecClear}), lockedFlags)
	}
	for _, prop := range a.Propagation {
		p.setattr(mount, recursive(prop), unix.MountAttr{Propagation: prop &^ unix.MS_REC})
	}
}

// lockedFlags says what refuses a change of flags.
const lockedFlags = "change its flags (those that the source's mount has are locked in a user namespace)"

// flags changes the flags that the configuration names, set or cleared, and no other. The kernel refuses to clear a locked one
// (mount_namespaces(7)), and so to change a locked access time.
func (p *program) flags(mount int, a plan.Attr) {
	attr := unix.MountAttr{Attr_set: a.Set, Attr_clr: a.Clear}
	if a.AtimeIf != 0 {
		rest := unix.MountAttr{Attr_set: a.Set &^ unix.MOUNT_ATTR__ATIME, Attr_clr: a.Clear &^ unix.MOUNT_ATTR__ATIME}
		same := p.do(doIfAtime, noSlot, uintptr(mount), uintptr(a.AtimeIf))
		if rest.Attr_set|rest.Attr_clr != 0 {
			p.detail(p.setattr(mount, 0, rest), lockedFlags)
		}
		over := p.do(doJump, noSlot)
		p.land(same)
		defer p.land(over)
	}
	if attr.Attr_set|attr.Attr_clr != 0 {
		p.detail(p.setattr(mount, 0, attr), lockedFlags)
	}
}

func (p *program) bind(o plan.Bind) {
	mount, keep := slotT1, o.At == plan.OnProc || o.At == plan.OnSys
	if keep {
		mount = p.slot(0)
	}
	if o.Helped {
		p.ask(mount)
	} else {
		i := p.here()
		p.openTree(mount, plan.OpenTree{Source: o.Source, Recursive: o.Recursive, Map: o.Map, MapRecursive: o.MapRecursive})
		p.labels[i] += ": open " + o.Source // not the destination
	}
	if o.At == plan.OnProc {
		i := p.do(doType, noSlot, uintptr(mount), uintptr(unix.EINVAL), procMagic)
		p.detail(i, "the source is not a proc file system")
	}
	if o.In != "" {
		p.resolve(slotT2, p.named[o.In], path.Base(o.Dest), resolveLike, mount, unix.RESOLVE_NO_SYMLINKS)
	} else {
		p.destination(o.Dest, o.At, resolveLike, mount, o.NoSymlink)
	}
	p.flags(mount, o.Attr)
	p.attributes(mount, o.Attr)
	p.detail(p.do(doSameKind, noSlot, uintptr(mount), slotT2), "one is a directory and the other a file")
	p.move(mount, slotT2)
	p.close(slotT2)
	if keep {
		p.keep(o.At, mount)
		return
	}
	p.keep(o.At, 0)
	p.close(mount)
}

func (p *program) remount(o plan.Remount) {
	p.destination(o.Dest, o.At, resolveOpen, 0, ordinary(o.At))
	mounted := p.do(doIfMounted, noSlot, slotT2)
	p.detail(p.do(doFail, noSlot, uintptr(unix.EINVAL)), "nothing is mounted there")
	p.land(mounted)
	if !o.Bind && len(o.Data) > 0 {
		p.sysTo(slotT0, unix.SYS_FSPICK, fd(slotT2), p.str(""), val(unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH))
		p.fsOptions(o.Data)
		p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_CMD_RECONFIGURE), val(0), val(0), val(0))
		p.close(slotT0)
	}
	p.flags(slotT2, o.Attr)
	p.attributes(slotT2, o.Attr)
	p.close(slotT2)
}

// sysctl writes through the runtime's own /proc, before the pivot: no file of the image can take its place (CVE-2025-52881).
// What a file of /proc/sys means depends on the writer's namespaces, not on the mount.
func (p *program) sysctl(o plan.Sysctl) {
	p.sysTo(slotT0, unix.SYS_OPENAT, cwd, p.str("/proc/sys/"+o.Path), val(unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW), val(0))
	i := p.sys(unix.SYS_WRITE, fd(slotT0), p.str(o.Value), val(len(o.Value)))
	p.code[i].want = uint32(len(o.Value))
	p.close(slotT0)
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

// protect makes a mount read-only after something was put into it. The mount itself can be changed only in the
// process's own mount namespace; in a tree that is attached nowhere its file system is, which was made for the
// container.
func (p *program) protect(o plan.Protect) {
	mount := p.named[o.Name]
	if o.FileSystem {
		p.sysTo(slotT0, unix.SYS_FSPICK, fd(mount), p.str(""), val(unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH))
		p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_SET_FLAG), p.str("ro"), val(0), val(0))
		p.sys(unix.SYS_FSCONFIG, fd(slotT0), val(unix.FSCONFIG_CMD_RECONFIGURE), val(0), val(0), val(0))
		p.close(slotT0)
	} else {
		p.setattr(mount, 0, unix.MountAttr{Attr_set: o.Set})
	}
	p.close(mount)
}

// enterRoot changes the root of a process in the host's mount namespace: the container's tree is attached nowhere, and
// lives as long as a process has its root in it.
func (p *program) enterRoot() {
	if p.res.Root != nil {
		p.slots[slotTree] = p.res.Root.Fd()
		p.sys(unix.SYS_FCHDIR, fd(slotTree))
	} else {
		p.sys(unix.SYS_FCHDIR, fd(slotRoot))
	}
	p.sys(unix.SYS_CHROOT, p.str("."))
	p.sys(unix.SYS_CHDIR, p.str("/"))
	if p.res.Root != nil {
		p.openRoot()
	}
}

func errLower(op plan.Op) error {
	return fmt.Errorf("%s: the launcher knows no %s", op.What(), plan.Kind(op))
}
