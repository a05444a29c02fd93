package launch

import (
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// copyTree copies what directory from holds into directory to, by descriptors, never through a link: the tree is the image's.
func copyTree(from, to int) error {
	dir, err := unix.Openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	target, err := unix.Openat(to, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(dir)
		return err
	}
	defer unix.Close(target)
	d := os.NewFile(uintptr(dir), ".")
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyEntry(dir, target, name); err != nil {
			return &os.PathError{Op: "copy", Path: name, Err: err}
		}
	}
	return nil
}

func copyEntry(from, to int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = copyDir(from, to, name, &st)
	case unix.S_IFREG:
		err = copyFile(from, to, name, &st)
	case unix.S_IFLNK:
		return copyLink(from, to, name, &st)
	default:
		err = unix.Mknodat(to, name, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	return setOwner(to, name, &st)
}

// setOwner gives what was just made its owner and mode, by a descriptor: no name is resolved twice.
func setOwner(dir int, name string, st *unix.Stat_t) error {
	made, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(made)
	var now unix.Stat_t
	if err := unix.Fstat(made, &now); err != nil {
		return err
	}
	if now.Mode&unix.S_IFMT != st.Mode&unix.S_IFMT {
		return unix.ESTALE
	}
	if err := unix.Fchownat(made, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(made), st.Mode&0o7777)
}

// copyDir makes a directory and copies what is in the other; st becomes what the directory that was opened has.
func copyDir(from, to int, name string, st *unix.Stat_t) error {
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return err
	}
	flags := unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	src, err := unix.Openat(from, name, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	if err := unix.Fstat(src, st); err != nil {
		return err
	}
	dst, err := unix.Openat(to, name, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	return copyTree(src, dst)
}

// copyFile copies a file; st becomes what the file that was opened has: its name may lead to another one since.
func copyFile(from, to int, name string, st *unix.Stat_t) error {
	in, err := openRegular(from, name)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(in), name)
	defer src.Close()
	if err := unix.Fstat(in, st); err != nil {
		return err
	}
	out, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(out), name)
	err = copyData(src, dst)
	if e := dst.Close(); err == nil {
		err = e
	}
	return err
}

// copyData copies what a file holds, and leaves its holes: they take no memory.
func copyData(src, dst *os.File) error {
	for at := int64(0); ; {
		from, err := src.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // the file system does not tell
			_, err = dst.ReadFrom(src)
			return err
		}
		if err != nil {
			return err
		}
		to, err := src.Seek(from, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err = src.Seek(from, io.SeekStart); err == nil {
			_, err = dst.Seek(from, io.SeekStart)
		}
		if err != nil {
			return err
		}
		if n, err := io.CopyN(dst, src, to-from); err != nil && err != io.EOF {
			return err
		} else if n == 0 { // it was cut meanwhile
			break
		}
		at = to
	}
	size, err := src.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	return dst.Truncate(size)
}

// errLeased is a file that another process keeps from being opened.
var errLeased = errors.New("another process holds a lease on the file (F_SETLEASE, fcntl(2))")

// openRegular opens a regular file and nothing else: another container may exchange it for a device node, which must
// not be opened with the host's rights, whatever opening it does.
func openRegular(dir int, name string) (int, error) {
	path, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(path)
	var st unix.Stat_t
	if err := unix.Fstat(path, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, unix.ESTALE
	}
	// A process that holds a lease on it would keep a blocking open waiting for 45 s (lease-break-time), for each file.
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(path), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.EWOULDBLOCK {
		return -1, errLeased
	}
	if err != nil {
		return -1, err
	}
	return fd, unix.SetNonblock(fd, false)
}

func copyLink(from, to int, name string, st *unix.Stat_t) error {
	buf := make([]byte, pathMax)
	n, err := unix.Readlinkat(from, name, buf)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(buf[:n]), to, name); err != nil {
		return err
	}
	return unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
}
