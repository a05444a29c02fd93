package fsat

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// CopyContent copies the content of the open file src to the empty open file dst: by sharing blocks where the file system can,
// else in the kernel, else by reading and writing. Holes stay holes.
func CopyContent(dst, src int) error {
	if err := unix.IoctlFileClone(dst, src); err == nil {
		return nil
	}
	st, err := Fstat(src)
	if err != nil {
		return err
	}
	for at := int64(0); at < st.Size; {
		from, to, err := nextData(src, at, st.Size)
		if err != nil {
			return err
		}
		if from < to {
			if err := copyRange(dst, src, from, to); err != nil {
				return err
			}
		}
		at = to
	}
	return Truncate(dst, st.Size)
}

// nextData finds the next data at or after at; from == to at the end of the file.
func nextData(fd int, at, size int64) (from, to int64, err error) {
	from, err = unix.Seek(fd, at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if errors.Is(err, unix.EINVAL) { // the file system does not know
		return at, size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	to, err = unix.Seek(fd, from, unix.SEEK_HOLE)
	return from, to, err
}

func copyRange(dst, src int, from, to int64) error {
	for from < to {
		in, out := from, from
		n, err := unix.CopyFileRange(src, &in, dst, &out, int(min(to-from, 1<<30)), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return copyBytes(dst, src, from, to)
		}
		from += int64(n)
	}
	return nil
}

func copyBytes(dst, src int, from, to int64) error {
	buf := make([]byte, min(to-from, 256<<10))
	for from < to {
		n, err := unix.Pread(src, buf[:min(int64(len(buf)), to-from)], from)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		for done := 0; done < n; {
			m, err := unix.Pwrite(dst, buf[done:n], from+int64(done))
			if err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
			done += max(m, 0)
		}
		from += int64(n)
	}
	return nil
}

// LinkPath gives the file that path (several components, none a symbolic link) names below the directory root the second name
// newName in newDir.
func LinkPath(root int, path string, newDir int, newName string) error {
	fd, err := openat2(root, path, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if errors.Is(err, unix.ELOOP) { // the last component is a symbolic link itself
		fd, err = OpenPathNoLinks(root, path)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// CAP_DAC_READ_SEARCH is needed for an empty path, so through /proc.
	return unix.Linkat(unix.AT_FDCWD, fdPath(fd), newDir, newName, unix.AT_SYMLINK_FOLLOW)
}
