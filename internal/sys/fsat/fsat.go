// Package fsat makes file system calls relative to directory descriptors, for trees whose names come from somebody else.
//
// A name is one path component unless a function says otherwise, and its last component is never followed when it is a
// symbolic link. Nothing here takes an absolute path, so what a tree contains cannot lead a call out of it. Descriptors are
// plain numbers (the caller closes them with Close) because a tree of small files costs few system calls and no finalizers.
// Errors are bare errno values: the caller knows the verb and the object. All functions may be called at the same time.
package fsat

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Stat is what lstat tells about a file, with the same widths on every port.
type Stat struct {
	Dev, Ino, Rdev uint64
	Mode           uint32 // type and permission bits as in stat(2)
	UID, GID       uint32
	Nlink          uint64
	Size           int64 // bytes
	Atime, Mtime   time.Time
}

// IsDir says whether the file is a directory.
func (s *Stat) IsDir() bool { return s.Mode&unix.S_IFMT == unix.S_IFDIR }

// IsRegular says whether the file is a regular file.
func (s *Stat) IsRegular() bool { return s.Mode&unix.S_IFMT == unix.S_IFREG }

// IsSymlink says whether the file is a symbolic link.
func (s *Stat) IsSymlink() bool { return s.Mode&unix.S_IFMT == unix.S_IFLNK }

// IsWhiteout says whether the file is overlayfs's mark for a removed name: a character device 0:0.
func (s *Stat) IsWhiteout() bool { return s.Mode&unix.S_IFMT == unix.S_IFCHR && s.Rdev == 0 }

func fromUnix(st *unix.Stat_t) Stat {
	return Stat{
		Dev: uint64(st.Dev), Ino: uint64(st.Ino), Rdev: uint64(st.Rdev), Mode: uint32(st.Mode), //nolint:unconvert // widths differ by port
		UID: uint32(st.Uid), GID: uint32(st.Gid), Nlink: uint64(st.Nlink), Size: int64(st.Size),
		Atime: time.Unix(int64(st.Atim.Sec), int64(st.Atim.Nsec)), Mtime: time.Unix(int64(st.Mtim.Sec), int64(st.Mtim.Nsec)),
	}
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Close closes a descriptor that one of this package's functions returned.
func Close(fd int) error { return unix.Close(fd) }

// Lstat describes name in dir.
func Lstat(dir int, name string) (Stat, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return fromUnix(&st), err
}

// Fstat describes an open file.
func Fstat(fd int) (Stat, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(fd, &st) })
	return fromUnix(&st), err
}

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// OpenDir opens the directory name in dir for reading. A symbolic link or other file gives ENOTDIR.
func OpenDir(dir int, name string) (int, error) {
	return openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// Create makes the regular file name in dir, mode 0600, and opens it for writing. EEXIST if anything has that name.
func Create(dir int, name string) (int, error) {
	return openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
}

// CreateMode is Create with another mode, from which the umask takes bits, or a default ACL of dir does instead of it.
func CreateMode(dir int, name string, mode uint32) (int, error) {
	return openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, mode&0o777)
}

// OpenRegular opens the regular file name in dir for reading. Another kind of file is never opened (opening a device or a
// FIFO can have effects or block) and gives ENXIO.
func OpenRegular(dir int, name string) (int, error) {
	probe, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(probe)
	return reopenRegular(probe, func() (int, error) {
		return openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	})
}

// OpenRegularInRoot opens the regular file that path (several components, absolute or not) names below root, for reading.
// Symbolic links, absolute ones and ".." included, are resolved as if root were "/" (openat2 with RESOLVE_IN_ROOT). Another
// kind of file is never opened and gives ENXIO. The caller closes the result.
func OpenRegularInRoot(root *os.File, path string) (*os.File, error) {
	var fd int
	err := withFd(root, func(dir int) (err error) {
		probe, err := openInRoot(dir, path, unix.O_PATH)
		if err != nil {
			return err
		}
		defer unix.Close(probe)
		fd, err = reopenRegular(probe, func() (int, error) {
			return openInRoot(dir, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// StatInRoot describes what path names below root, links resolved as OpenRegularInRoot resolves them.
func StatInRoot(root *os.File, path string) (Stat, error) {
	var st Stat
	err := withFd(root, func(dir int) error {
		fd, err := openInRoot(dir, path, unix.O_PATH)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		st, err = Fstat(fd)
		return err
	})
	return st, err
}

// withFd runs call with f's descriptor, which stays open meanwhile and keeps its blocking mode.
func withFd(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = call(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// reopenRegular opens the file behind probe again, if it is a regular file and still the same one.
func reopenRegular(probe int, open func() (int, error)) (int, error) {
	want, err := Fstat(probe)
	if err != nil {
		return -1, err
	}
	if !want.IsRegular() {
		return -1, unix.ENXIO
	}
	fd, err := open()
	if err != nil {
		return -1, err
	}
	got, err := Fstat(fd)
	if err == nil && (got.Dev != want.Dev || got.Ino != want.Ino) {
		err = unix.EAGAIN
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func openInRoot(root int, path string, flags uint64) (int, error) {
	return openat2(root, path, flags, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

// OpenPathNoLinks opens path (several components, relative) below dir as an O_PATH descriptor; any symbolic link before the
// last component gives ELOOP, ".." that leaves dir gives EXDEV. The last component is not followed.
func OpenPathNoLinks(dir int, path string) (int, error) {
	return openat2(dir, path, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
}

func openat2(dir int, path string, flags, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dir, path, &how)
		// EAGAIN: the kernel could not prove that ".." stays inside because something was renamed meanwhile.
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) && try < 32 {
			continue
		}
		return fd, err
	}
}

// Readlink returns the text of the symbolic link name in dir; EINVAL if it is something else.
func Readlink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// Write writes all of p to fd.
func Write(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			p = p[n:]
		} else if err == nil {
			return io.ErrShortWrite
		}
	}
	return nil
}

// Read reads up to len(p) bytes from fd; 0 and no error is the end of the file.
func Read(fd int, p []byte) (n int, err error) {
	err = retry(func() error { n, err = unix.Read(fd, p); return err })
	return max(n, 0), err
}

// Skip moves the position of fd forward by n bytes, which leaves a hole in a file that is being written.
func Skip(fd int, n int64) error {
	_, err := unix.Seek(fd, n, io.SeekCurrent)
	return err
}

// Truncate sets the size of the open file fd in bytes.
func Truncate(fd int, size int64) error {
	return retry(func() error { return unix.Ftruncate(fd, size) })
}

// Names calls each with the name of every file in the directory fd, "." and ".." left out, in the directory's own order and
// without holding more than a batch of them. each may remove the file it is given.
func Names(fd int, each func(name string) error) error {
	own, err := OpenDir(fd, ".") // a position of its own
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(own), "directory")
	defer f.Close()
	for {
		names, err := f.Readdirnames(1024)
		for _, n := range names {
			if err := each(n); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errors.Unwrap(err)
		}
	}
}
