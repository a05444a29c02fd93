package launch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// emptyPath is "" for calls that take AT_EMPTY_PATH.
var emptyPath [1]byte

// at is AT_FDCWD as an argument.
const at = ^uintptr(99)

//go:nosplit
//go:norace
func stat(m *machine, fd uintptr) uintptr {
	_, _, e := syscall.RawSyscall6(unix.SYS_STATX, fd, uintptr(unsafe.Pointer(&emptyPath)),
		unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, uintptr(unsafe.Pointer(&m.statx)), 0)
	return uintptr(e)
}

// openIn opens a path below root as if root were "/", without magic links.
//
//go:nosplit
//go:norace
func openIn(m *machine, root, path uintptr, more uint64) (uintptr, uintptr) {
	m.how.Flags = unix.O_PATH | unix.O_CLOEXEC
	m.how.Resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | more
	return openat2(m, root, path)
}

// openat2 opens a path as m.how says. While something is renamed or mounted anywhere in the system the kernel cannot tell where
// ".." leads, and says EAGAIN (openat2(2)): it is asked again.
//
//go:nosplit
//go:norace
func openat2(m *machine, root, path uintptr) (uintptr, uintptr) {
	for try := 0; ; try++ {
		r, _, e := syscall.RawSyscall6(unix.SYS_OPENAT2, root, path, uintptr(unsafe.Pointer(&m.how)), unsafe.Sizeof(m.how), 0, 0)
		if e != unix.EAGAIN || try == 1000 {
			return r, uintptr(e)
		}
	}
}

//go:nosplit
//go:norace
func closeFD(fd uintptr) { syscall.RawSyscall6(unix.SYS_CLOSE, fd, 0, 0, 0, 0, 0) }

// resolve opens a path inside a root and makes what is missing, one component at a time, each by its name in a directory that
// was opened inside the root: a link put in the way by another process leads nowhere but inside (CVE-2021-30465, CVE-2024-45310).
//
//go:nosplit
//go:norace
func resolve(m *machine, in *instr, root uintptr) (uintptr, uintptr) {
	m.made = 0
	fd, errno := openIn(m, root, in.a[1], uint64(in.a[4]))
	if errno != uintptr(unix.ENOENT) || in.a[2] == resolveOpen {
		return fd, errno
	}
	file := in.a[2] == resolveFile
	if in.a[2] == resolveLike {
		if errno := stat(m, m.slots[in.a[3]&(maxSlots-1)]); errno != 0 {
			return 0, errno
		}
		file = m.statx.Mode&unix.S_IFMT != unix.S_IFDIR
	}
	n := uintptr(0)
	for src := word(in, 1); ; n++ {
		c := *(*byte)(unsafe.Add(src, n))
		if n == pathMax {
			return 0, uintptr(unix.ENAMETOOLONG)
		}
		m.path[n&(pathMax-1)] = c
		if c == 0 {
			break
		}
	}
	// A dangling link is followed to the place inside the root that it names; the number of links is the kernel's limit.
	for links := 0; links < 40; links++ {
		again, errno := makePath(m, root, file)
		if errno != 0 {
			return 0, errno
		}
		if !again {
			return openIn(m, root, uintptr(unsafe.Pointer(&m.path)), uint64(in.a[4]))
		}
	}
	return 0, uintptr(unix.ELOOP)
}

// makePath makes the missing components of m.path. It returns true when it met a dangling link and put its target into m.path.
//
//go:nosplit
//go:norace
func makePath(m *machine, root uintptr, file bool) (again bool, errno uintptr) {
	parent := root
	start := uintptr(0) // of the component
	for i := uintptr(0); i < pathMax; i++ {
		c := m.path[i&(pathMax-1)]
		if c != '/' && c != 0 {
			continue
		}
		if i == start { // a slash of its own
			start = i + 1
			if c == 0 {
				break
			}
			continue
		}
		m.path[i&(pathMax-1)] = 0
		fd, e := openIn(m, root, uintptr(unsafe.Pointer(&m.path)), 0)
		if e == uintptr(unix.ENOENT) {
			e = makeOne(m, parent, start, file && c == 0)
			if e == uintptr(unix.EEXIST) {
				e = spliceLink(m, parent, start, i, c)
				m.drop(parent, root)
				return e == 0, e
			}
			if e == 0 {
				m.made = 1
				fd, e = openIn(m, root, uintptr(unsafe.Pointer(&m.path)), 0)
			}
		}
		m.path[i&(pathMax-1)] = c
		m.drop(parent, root)
		if e != 0 {
			return false, e
		}
		parent = fd
		if c == 0 {
			break
		}
		start = i + 1
	}
	m.drop(parent, root)
	return false, 0
}

//go:nosplit
//go:norace
func (m *machine) drop(fd, keep uintptr) {
	if fd != keep {
		closeFD(fd)
	}
}

//go:nosplit
//go:norace
func makeOne(m *machine, parent, start uintptr, file bool) uintptr {
	name := uintptr(unsafe.Pointer(&m.path)) + start
	var e syscall.Errno
	if file {
		_, _, e = syscall.RawSyscall6(unix.SYS_MKNODAT, parent, name, unix.S_IFREG|0o755, 0, 0, 0)
	} else {
		_, _, e = syscall.RawSyscall6(unix.SYS_MKDIRAT, parent, name, 0o755, 0, 0, 0)
	}
	return uintptr(e)
}

// spliceLink replaces the component from start to end of m.path, a dangling link, by its target; last is the byte that stood
// at end.
//
//go:nosplit
//go:norace
func spliceLink(m *machine, parent, start, end uintptr, last byte) uintptr {
	n, _, e := syscall.RawSyscall6(unix.SYS_READLINKAT, parent, uintptr(unsafe.Pointer(&m.path))+start,
		uintptr(unsafe.Pointer(&m.link)), pathMax-1, 0, 0)
	if e != 0 {
		return uintptr(unix.ENOTDIR) // made by somebody else meanwhile, or no link
	}
	m.path[end&(pathMax-1)] = last
	k := uintptr(0)
	if m.link[0] != '/' {
		for ; k < start; k++ {
			m.joined[k&(pathMax-1)] = m.path[k&(pathMax-1)]
		}
	}
	for i := uintptr(0); i < n && k < pathMax-1; i++ {
		m.joined[k&(pathMax-1)] = m.link[i&(pathMax-1)]
		k++
	}
	for i := end; i < pathMax && k < pathMax-1; i++ {
		m.joined[k&(pathMax-1)] = m.path[i&(pathMax-1)]
		k++
		if m.path[i&(pathMax-1)] == 0 {
			m.path = m.joined
			return 0
		}
	}
	return uintptr(unix.ENAMETOOLONG)
}

// check compares an existing node with the one that is wanted.
//
//go:nosplit
//go:norace
func check(m *machine, in *instr, fd uintptr) uintptr {
	if errno := stat(m, fd); errno != 0 {
		return errno
	}
	if uintptr(m.statx.Mode&unix.S_IFMT) != in.a[1] ||
		in.a[1] != unix.S_IFIFO && (uintptr(m.statx.Rdev_major) != in.a[2] || uintptr(m.statx.Rdev_minor) != in.a[3]) {
		return uintptr(unix.EEXIST)
	}
	return 0
}

// copyMode gives the root of a mount the mode of the directory that it will cover, if that was there before.
//
//go:nosplit
//go:norace
func copyMode(m *machine, dir, mount uintptr) uintptr {
	if m.made != 0 {
		return 0
	}
	if errno := stat(m, dir); errno != 0 {
		return errno
	}
	fd, _, e := syscall.RawSyscall6(unix.SYS_OPENAT, mount, uintptr(unsafe.Pointer(&dot)), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC,
		0, 0, 0)
	if e != 0 {
		return uintptr(e)
	}
	_, _, e = syscall.RawSyscall6(unix.SYS_FCHMOD, fd, uintptr(m.statx.Mode)&0o7777, 0, 0, 0, 0)
	closeFD(fd)
	return uintptr(e)
}

var dot = [2]byte{'.', 0}

// find returns the number of the first path that can be executed.
//
//go:nosplit
//go:norace
func find(m *machine, in *instr) (uintptr, uintptr) {
	worst := uintptr(unix.ENOENT)
	for i := uintptr(0); i < in.a[1]; i++ {
		path := *(*uintptr)(unsafe.Add(word(in, 0), i*unsafe.Sizeof(uintptr(0))))
		_, _, e := syscall.RawSyscall6(unix.SYS_STATX, at, path, 0, unix.STATX_BASIC_STATS,
			uintptr(unsafe.Pointer(&m.statx)), 0)
		if e == 0 {
			if m.statx.Mode&unix.S_IFMT == unix.S_IFDIR {
				e = unix.EISDIR
			} else {
				_, _, e = syscall.RawSyscall6(unix.SYS_FACCESSAT2, at, path, unix.X_OK, unix.AT_EACCESS, 0, 0)
			}
		}
		if e == 0 {
			return i, 0
		}
		// An unreachable directory of PATH hides nothing that comes later; the most telling error stays.
		if e != unix.ENOENT && e != unix.ENOTDIR || in.a[1] == 1 {
			worst = uintptr(e)
		}
	}
	return 0, worst
}

// own gives a standard stream to the process's user, so that it can open /dev/stdout: a pipe or a socket, and the terminal that was
// made for the container. What cannot be owned (a read-only file system, an unmapped owner) is left alone, and so is what else the
// caller has as a stream: files, devices and its own terminal stay its own. A /dev/null is shared by all and is not owned, but replaced
// by the container's own.
//
//go:nosplit
//go:norace
func own(m *machine, in *instr) uintptr {
	if errno := stat(m, in.a[0]); errno != 0 {
		return 0 // closed by the caller
	}
	if isNull(m) {
		return reopenNull(m, in.a[0])
	}
	kind := m.statx.Mode & unix.S_IFMT
	if kind != unix.S_IFIFO && kind != unix.S_IFSOCK && (kind != unix.S_IFCHR || in.a[2] == 0) {
		return 0
	}
	if uintptr(m.statx.Uid) == in.a[1] {
		return 0
	}
	_, _, e := syscall.RawSyscall6(sysFchown, in.a[0], in.a[1], ^uintptr(0), 0, 0, 0)
	switch e {
	case unix.EPERM, unix.EROFS, unix.EINVAL, unix.EBADF, unix.ENOSYS, unix.EACCES, unix.EOVERFLOW:
		return 0
	}
	return uintptr(e)
}

// isNull reports whether the file that was looked at last is the null device.
//
//go:nosplit
//go:norace
func isNull(m *machine) bool {
	return m.statx.Mode&unix.S_IFMT == unix.S_IFCHR && m.statx.Rdev_major == 1 && m.statx.Rdev_minor == 3
}

// reopenNull replaces a descriptor of the host's /dev/null: with it the container's root could change the mode and the owner of
// the file that every process of the host uses. Where the container has no /dev/null the caller's stays. An image's file of that
// name is looked at before it is opened.
//
//go:nosplit
//go:norace
func reopenNull(m *machine, fd uintptr) uintptr {
	path := uintptr(unsafe.Pointer(&nullPath))
	_, _, e := syscall.RawSyscall6(unix.SYS_STATX, at, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS,
		uintptr(unsafe.Pointer(&m.statx)), 0)
	if e != 0 || !isNull(m) {
		return 0
	}
	null, _, e := syscall.RawSyscall6(unix.SYS_OPENAT, at, path, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0, 0, 0)
	if e != 0 {
		return 0
	}
	if stat(m, null) == 0 && isNull(m) {
		_, _, e = syscall.RawSyscall(unix.SYS_DUP3, null, fd, 0)
	}
	closeFD(null)
	return uintptr(e)
}

var nullPath = [10]byte{'/', 'd', 'e', 'v', '/', 'n', 'u', 'l', 'l', 0}

// cloneChild is the end of the intermediate process: its child goes on with the next instruction, it tells the pid and exits.
//
//go:nosplit
//go:norace
func cloneChild(m *machine, in *instr) uintptr {
	// clone(2) and not clone3(2), whose flags lie in memory that a seccomp filter cannot see: many refuse it.
	first, second := in.a[0], uintptr(0)
	if stackFirst {
		first, second = second, first
	}
	pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE, first, second, in.a[1], 0, 0, 0)
	if e != 0 || pid == 0 {
		return uintptr(e)
	}
	m.record = record{kind: recordPID, value: uint32(pid)}
	syscall.RawSyscall6(unix.SYS_WRITE, m.slots[slotSync], uintptr(unsafe.Pointer(&m.record)), unsafe.Sizeof(m.record), 0, 0, 0)
	exit(0)
	return 0
}

// maskSource returns a mount for the next masked directory. All share one empty tmpfs; it is cloned only after it was attached,
// because kernels before 6.15 clone no detached mount.
//
//go:nosplit
//go:norace
func maskSource(m *machine) (uintptr, uintptr) {
	if m.maskUsed == 0 {
		m.maskUsed = 1
		r, _, e := syscall.RawSyscall6(unix.SYS_DUP, m.slots[slotMask], 0, 0, 0, 0, 0)
		return r, uintptr(e)
	}
	r, _, e := syscall.RawSyscall6(unix.SYS_OPEN_TREE, m.slots[slotMask], uintptr(unsafe.Pointer(&emptyPath)),
		unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.O_CLOEXEC, 0, 0, 0)
	return r, uintptr(e)
}

// checkType compares a file system's magic number.
//
//go:nosplit
//go:norace
func checkType(m *machine, in *instr, fd uintptr) uintptr {
	if in.kind == doNotProc && (m.statx.Mnt_id == m.marks[markRoot] || m.statx.Mnt_id == m.marks[markDev]) {
		return 0
	}
	if errno := fstatfs(m, fd); errno != 0 {
		return errno
	}
	if in.kind == doType {
		if uintptr(m.statfs.Type) != in.a[2] {
			return in.a[1]
		}
		return 0
	}
	if uintptr(m.statfs.Type) == procMagic && (m.marks[markProc] == 0 || m.statx.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0) {
		return uintptr(unix.EPERM)
	}
	return 0
}

// hasAtime compares how a mount treats access times: statfs(2) tells noatime and relatime; what is neither is strict.
//
//go:nosplit
//go:norace
func hasAtime(m *machine, in *instr, mount uintptr) (errno uintptr, same bool) {
	if errno := fstatfs(m, mount); errno != 0 {
		return errno, false
	}
	now := uintptr(unix.MOUNT_ATTR_STRICTATIME)
	if m.statfs.Flags&unix.ST_NOATIME != 0 {
		now = unix.MOUNT_ATTR_NOATIME
	} else if m.statfs.Flags&unix.ST_RELATIME != 0 {
		now = unix.MOUNT_ATTR__ATIME
	}
	return 0, now == in.a[1]
}

// identify remembers mounts and compares them by their ids, which stay the same while the mount exists and are in no path.
//
//go:nosplit
//go:norace
func identify(m *machine, in *instr, fd uintptr) (errno uintptr, jump bool) {
	mark := in.a[1] & 3
	switch in.kind {
	case doUnmark:
		m.marks[mark] = 0
		return 0, false
	case doNotIn:
		if id := m.marks[in.a[0]&3]; id != 0 && id == m.statx.Mnt_id {
			return uintptr(unix.EPERM), false
		}
		return 0, false
	}
	if errno := stat(m, fd); errno != 0 {
		return errno, false
	}
	switch in.kind {
	case doMark:
		m.marks[mark] = m.statx.Mnt_id
		if mark == markRoot {
			m.rootFile = m.statx.Ino
		}
	case doNotRoot:
		if m.statx.Mnt_id == m.marks[markRoot] && m.statx.Ino == m.rootFile {
			return uintptr(unix.EBUSY), false
		}
	case doIfIn:
		jump = m.marks[mark] != 0 && m.statx.Mnt_id == m.marks[mark]
	case doIfMounted:
		jump = m.statx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	}
	return 0, jump
}

// stackKept is how much of the memory around the machine's stack pointer stays, in both directions.
const stackKept = 64 << 10

// sameKind compares whether two files are directories: mounts put one only on the other of its kind, and the kernel
// says EINVAL.
//
//go:nosplit
//go:norace
func sameKind(m *machine, a, b uintptr) uintptr {
	if errno := stat(m, a); errno != 0 {
		return errno
	}
	dir := m.statx.Mode&unix.S_IFMT == unix.S_IFDIR
	if errno := stat(m, b); errno != 0 {
		return errno
	}
	if dir != (m.statx.Mode&unix.S_IFMT == unix.S_IFDIR) {
		return uintptr(unix.ENOTDIR)
	}
	return 0
}

// forget gives memory back, but not the stack on which it runs.
//
//go:nosplit
//go:norace
func forget(in *instr) uintptr {
	var here byte
	sp := uintptr(unsafe.Pointer(&here))
	lo, hi := in.a[0], in.a[1]
	if sp+stackKept <= lo || sp-stackKept >= hi {
		return dontNeed(lo, hi)
	}
	if errno := dontNeed(lo, (sp-stackKept)&^4095); errno != 0 {
		return errno
	}
	return dontNeed((sp+stackKept+4095)&^4095, hi)
}

//go:nosplit
//go:norace
func dontNeed(lo, hi uintptr) uintptr {
	if lo >= hi {
		return 0
	}
	_, _, e := syscall.RawSyscall6(unix.SYS_MADVISE, lo, hi-lo, unix.MADV_DONTNEED, 0, 0, 0)
	if e == unix.ENOMEM { // the parent has kept some of it from the child: see cloneRun
		e = 0
	}
	return uintptr(e)
}
