// Package cgroupfs holds the few system calls that a cgroup manager makes: file systems told apart by magic number, one
// read or one write per control file, directories by descriptor, notifications.
//
// Nothing here knows what a control file means; runtime/cgroup does. Errors are bare syscall.Errno values, so that the
// caller, who knows the file and the value, writes the sentence.
package cgroupfs

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kind says which file system a directory belongs to.
type Kind int

// The kinds that a cgroup manager tells apart (statfs(2), linux/magic.h).
const (
	KindOther Kind = iota // anything else, or nothing there
	KindV1                // CGROUP_SUPER_MAGIC: one version 1 hierarchy
	KindV2                // CGROUP2_SUPER_MAGIC: the unified hierarchy
)

// KindOf answers for the file system that holds path. A path that cannot be looked at is KindOther.
func KindOf(path string) Kind {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Statfs(path, &st) })
	switch {
	case err != nil:
		return KindOther
	case uint32(st.Type) == unix.CGROUP_SUPER_MAGIC:
		return KindV1
	case uint32(st.Type) == unix.CGROUP2_SUPER_MAGIC:
		return KindV2
	}
	return KindOther
}

// OPath is O_PATH for OpenBeneath, which package syscall does not have.
const OPath = unix.O_PATH

// Exists tells whether path can be looked up, without opening it.
func Exists(path string) bool {
	return retry(func() error { return unix.Faccessat(unix.AT_FDCWD, path, unix.F_OK, 0) }) == nil
}

// IsDir tells whether path is a directory.
func IsDir(path string) bool {
	var st unix.Stat_t
	err := retry(func() error { return unix.Lstat(path, &st) })
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// Inode returns the inode number of path itself.
func Inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Lstat(path, &st) }); err != nil {
		return 0, err
	}
	return uint64(st.Ino), nil
}

// ReadFile returns the content of a control file, at most limit bytes; a longer one is EFBIG.
func ReadFile(path string, limit int) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd, limit)
}

func readAll(fd, limit int) ([]byte, error) {
	buf := make([]byte, min(4096, limit+1))
	n := 0
	for {
		var m int
		err := retry(func() (e error) { m, e = unix.Read(fd, buf[n:]); return e })
		if err != nil {
			return nil, err
		}
		if m == 0 {
			return buf[:n], nil
		}
		if n += m; n > limit {
			return nil, unix.EFBIG
		}
		if n == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

// WriteFile writes each value with one write(2) of its own into the existing file path, which is opened once. The
// kernel parses every write as a whole, so a value is never split. It reports how many values were taken.
func WriteFile(path string, values ...string) (int, error) {
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	for i, v := range values {
		if err := writeAll(fd, v); err != nil {
			return i, err
		}
	}
	return len(values), nil
}

func writeAll(fd int, value string) error {
	n := 0
	err := retry(func() (e error) { n, e = unix.Write(fd, []byte(value)); return e })
	if err == nil && n != len(value) {
		err = unix.EIO
	}
	return err
}

// OpenRead opens a control file for reading. The caller closes it.
func OpenRead(path string) (*os.File, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenWrite opens a control file for writing. The caller closes it.
func OpenWrite(path string) (*os.File, error) {
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenDir opens a directory with O_PATH: good for CLONE_INTO_CGROUP (clone3(2)), as a base for *at calls and for
// nothing else. The caller closes it.
func OpenDir(path string) (*os.File, error) {
	fd, err := open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenDirFD opens a directory for reading: bpf(2) takes no O_PATH descriptor. The caller closes it.
func OpenDirFD(path string) (*os.File, error) {
	fd, err := open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Unprivileged tells whether this process has no power over the machine's devices: it is not root, or root of a user
// namespace other than the first one (user_namespaces(7): the first one maps every id to itself).
func Unprivileged() bool {
	if unix.Geteuid() != 0 {
		return true
	}
	m, err := ReadFile("/proc/self/uid_map", 1<<20)
	return err == nil && strings.Join(strings.Fields(string(m)), " ") != "0 0 4294967295"
}

// OpenBeneath opens name below dir with openat2(2); no component of it may leave dir ("..", links, mount points). With
// O_PATH|O_DIRECTORY it is a base for more, with O_WRONLY a control file. The caller closes it.
func OpenBeneath(dir *os.File, name string, flags int) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd := -1
	err := retry(func() (e error) { fd, e = unix.Openat2(int(dir.Fd()), name, &how); return e })
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir.Name()+"/"+name), nil
}

// Mkdir makes one directory with mode 0755.
func Mkdir(path string) error { return retry(func() error { return unix.Mkdir(path, 0o755) }) }

// Rmdir removes one directory; a cgroup's control files do not count as content.
func Rmdir(path string) error { return retry(func() error { return unix.Rmdir(path) }) }

// Chown changes the owner of a file and leaves its group; links are not followed.
func Chown(path string, uid int) error {
	return retry(func() error { return unix.Lchown(path, uid, -1) })
}

// Kill sends a signal to a process.
func Kill(pid int, sig syscall.Signal) error { return unix.Kill(pid, sig) }

// EventFD returns a non-blocking eventfd(2), whose Read waits in Go's poller. The caller closes it.
func EventFD() (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "eventfd"), nil
}

// Watch returns an inotify(7) descriptor that becomes readable when the kernel notifies a change of one of the files
// (cgroup.events, memory.events) and when one is removed. Its Read waits in Go's poller; the caller closes it.
func Watch(paths ...string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	for _, p := range paths {
		if _, err := unix.InotifyAddWatch(fd, p, unix.IN_MODIFY|unix.IN_DELETE_SELF); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

// Drain waits for the next event on a descriptor of Watch or EventFD and takes it. Closing the file from another
// goroutine ends the wait with os.ErrClosed.
func Drain(f *os.File) error {
	var buf [4096]byte
	_, err := f.Read(buf[:])
	return err
}

func open(path string, flags int) (fd int, err error) { return openAt(unix.AT_FDCWD, path, flags) }

func openAt(dir int, name string, flags int) (fd int, err error) {
	err = retry(func() (e error) { fd, e = unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0); return e })
	return fd, err
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
