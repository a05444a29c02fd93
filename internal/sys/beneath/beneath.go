// Package beneath opens files below a directory that a stranger filled: by descriptor, through no symbolic link, no magic
// link, and never above the directory, also while somebody renames things there (CVE-2025-11395: image readers that
// followed a layout's links showed the host's files).
package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. Its methods may be called from several goroutines at once.
type Dir struct{ f *os.File }

// Open opens the directory at path, which is trusted: links in it are followed. The caller closes it.
func Open(path string) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Dir{f: os.NewFile(uintptr(fd), path)}, nil
}

// OpenFile opens the regular file name, a slash-separated path relative to the directory, for reading, and returns it with
// its size in bytes. A link anywhere in name is refused (ELOOP), so is a way out of the directory (EXDEV), and whatever
// is not a regular file; opening a FIFO does not block. The caller closes the file.
func (d *Dir) OpenFile(name string) (*os.File, int64, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := d.openat2(name, &how)
	if err != nil {
		err = &fs.PathError{Op: "open", Path: name, Err: err}
		if errors.Is(err, unix.ELOOP) {
			return nil, 0, fmt.Errorf("%w (it is, or lies behind, a symbolic link, which is not followed)", err)
		}
		return nil, 0, err
	}
	f := os.NewFile(uintptr(fd), name)
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, 0, fmt.Errorf("open %s: not a regular file", name)
	}
	return f, info.Size(), nil
}

// openat2 repeats the call while a rename somewhere in the system makes it EAGAIN (openat2(2)) or a signal breaks it off.
func (d *Dir) openat2(name string, how *unix.OpenHow) (fd int, err error) {
	for range 1000 {
		fd, err = unix.Openat2(int(d.f.Fd()), name, how)
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	return fd, err
}

// Close closes the directory; files that it opened stay open.
func (d *Dir) Close() error { return d.f.Close() }
