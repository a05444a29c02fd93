package fsat

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mkdir makes the directory name in dir, mode 0700 less the umask.
func Mkdir(dir int, name string) error { return unix.Mkdirat(dir, name, 0o700) }

// Mknod makes the FIFO, socket or device name in dir. mode is the type and the permission bits, of which the umask takes
// away; ChmodAt sets them exactly.
func Mknod(dir int, name string, mode, major, minor uint32) error {
	dev := unix.Mkdev(major, minor)
	if uint64(int(dev)) != dev {
		return unix.EINVAL // a 32-bit port cannot pass it
	}
	return unix.Mknodat(dir, name, mode, int(dev))
}

// Device takes a device number of Stat apart.
func Device(rdev uint64) (major, minor uint32) { return unix.Major(rdev), unix.Minor(rdev) }

// Symlink makes the symbolic link name in dir with the text target.
func Symlink(target string, dir int, name string) error { return unix.Symlinkat(target, dir, name) }

// Link gives the file oldName in oldDir (itself, if it is a symbolic link) the second name newName in newDir.
func Link(oldDir int, oldName string, newDir int, newName string) error {
	return unix.Linkat(oldDir, oldName, newDir, newName, 0)
}

// Rename moves a file; RENAME_NOREPLACE: EEXIST if newName is taken.
func Rename(oldDir int, oldName string, newDir int, newName string) error {
	return unix.Renameat2(oldDir, oldName, newDir, newName, unix.RENAME_NOREPLACE)
}

// Unlink removes name, not a directory, from dir.
func Unlink(dir int, name string) error { return unix.Unlinkat(dir, name, 0) }

// Fchown sets the owner of the open file fd.
func Fchown(fd int, uid, gid uint32) error {
	return retry(func() error { return unix.Fchown(fd, int(uid), int(gid)) })
}

// ChownAt sets the owner of name in dir.
func ChownAt(dir int, name string, uid, gid uint32) error {
	return retry(func() error { return unix.Fchownat(dir, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW) })
}

// Fchmod sets the permission bits (07777) of the open file fd.
func Fchmod(fd int, mode uint32) error {
	return retry(func() error { return unix.Fchmod(fd, mode) })
}

// ChmodAt sets the permission bits (07777) of name in dir, which is not a symbolic link (EOPNOTSUPP).
// Before Linux 6.6 (fchmodat2, kernel commit 09da082b07bb) it goes through /proc/self/fd, as the C library does.
func ChmodAt(dir int, name string, mode uint32) error {
	err := retry(func() error { return unix.Fchmodat(dir, name, mode, unix.AT_SYMLINK_NOFOLLOW) })
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return throughProc(dir, name, func(link string, st Stat) error {
		if st.IsSymlink() {
			return unix.EOPNOTSUPP
		}
		return unix.Chmod(link, mode)
	})
}

// throughProc gives use a path that leads to exactly the file name in dir, whatever it is: the magic link of a descriptor of
// this process.
func throughProc(dir int, name string, use func(link string, st Stat) error) error {
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	st, err := Fstat(fd)
	if err != nil {
		return err
	}
	return use(fdPath(fd), st)
}

// fdPath is a path to exactly the file that fd is.
func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func timespecs(atime, mtime time.Time) ([]unix.Timespec, error) {
	a, err := unix.TimeToTimespec(atime)
	if err != nil {
		return nil, err
	}
	m, err := unix.TimeToTimespec(mtime)
	return []unix.Timespec{a, m}, err
}

// Futimes sets the times of the open file fd, to the nanosecond.
func Futimes(fd int, atime, mtime time.Time) error {
	ts, err := timespecs(atime, mtime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH)
}

// UtimesAt sets the times of name in dir, to the nanosecond.
func UtimesAt(dir int, name string, atime, mtime time.Time) error {
	ts, err := timespecs(atime, mtime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// Fsetxattr sets an extended attribute of the open file fd.
func Fsetxattr(fd int, attr string, value []byte) error {
	return retry(func() error { return unix.Fsetxattr(fd, attr, value, 0) })
}

// SetxattrAt sets an extended attribute of name in dir, which may be a symbolic link or a device.
func SetxattrAt(dir int, name, attr string, value []byte) error {
	return throughProc(dir, name, func(link string, _ Stat) error { return unix.Setxattr(link, attr, value, 0) })
}

// HasXattr reports whether the open file fd has an extended attribute; true if that cannot be known.
func HasXattr(fd int, attr string) bool {
	_, err := unix.Fgetxattr(fd, attr, nil)
	return !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP)
}

// Fremovexattr removes an extended attribute of the open file fd.
func Fremovexattr(fd int, attr string) error {
	return retry(func() error { return unix.Fremovexattr(fd, attr) })
}

// Fxattrs returns the extended attributes of the open file fd that the process may see; none on a file system without them.
func Fxattrs(fd int) (map[string]string, error) {
	return xattrs(
		func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) },
		func(attr string, buf []byte) (int, error) { return unix.Fgetxattr(fd, attr, buf) })
}

// XattrsAt is Fxattrs for name in dir, which may be a symbolic link or a device.
func XattrsAt(dir int, name string) (found map[string]string, err error) {
	err = throughProc(dir, name, func(link string, _ Stat) error {
		found, err = xattrs(
			func(buf []byte) (int, error) { return unix.Listxattr(link, buf) },
			func(attr string, buf []byte) (int, error) { return unix.Getxattr(link, attr, buf) })
		return err
	})
	return found, err
}

// maxXattr is the kernel's own limit for one value and for the list of names (XATTR_SIZE_MAX, XATTR_LIST_MAX), in bytes.
const maxXattr = 64 << 10

func xattrs(list func([]byte) (int, error), get func(string, []byte) (int, error)) (map[string]string, error) {
	n, err := list(nil) // most files have none: ask before a buffer is made
	if n == 0 || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	buf := make([]byte, maxXattr)
	if n, err = list(buf); err != nil {
		return nil, err
	}
	found := map[string]string{}
	value := make([]byte, maxXattr)
	for start, i := 0, 0; i < n; i++ {
		if buf[i] != 0 {
			continue
		}
		attr := string(buf[start:i])
		start = i + 1
		m, err := get(attr, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s: %w", attr, err)
		}
		found[attr] = string(value[:m])
	}
	return found, nil
}

// Umask returns the bits that the process's umask takes from the modes of new files; all of them if /proc does not tell. (The
// system call can only tell by changing it.)
func Umask() uint32 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o777
	}
	_, rest, _ := strings.Cut(string(status), "\nUmask:\t")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(line, 8, 32)
	if err != nil {
		return 0o777
	}
	return uint32(mask)
}

// Fd returns the number of f's descriptor, which stays f's: keep f reachable (runtime.KeepAlive) while the number is used.
func Fd(f *os.File) (int, error) {
	fd := -1
	err := withFd(f, func(n int) error { fd = n; return nil })
	return fd, err
}
