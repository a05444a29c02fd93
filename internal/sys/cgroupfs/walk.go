package cgroupfs

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Group is a group that a Walk has reached. It is good until the visit ends.
type Group struct{ dir *os.File }

// Read returns the content of one of the group's control files as ReadFile does.
func (g Group) Read(name string, limit int) ([]byte, error) {
	fd, err := openAt(int(g.dir.Fd()), name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd, limit)
}

// Write writes a value into one of the group's control files.
func (g Group) Write(name, value string) error {
	fd, err := openAt(int(g.dir.Fd()), name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return writeAll(fd, value)
}

// Rmdir removes a group right below this one.
func (g Group) Rmdir(name string) error {
	return retry(func() error { return unix.Unlinkat(int(g.dir.Fd()), name, unix.AT_REMOVEDIR) })
}

// Walk visits the group at path and all groups below it: enter is called for each, parents first, and leave, with the
// parent and the group's name in it, when all below a group were visited; not for the first group. Either may be nil.
// Names and the depth are the container's where it may write to its cgroups, so that a path could be longer than the
// kernel takes: groups are opened from their parents. At most limit names are kept at a time; what is beyond is not
// visited, and whole is false. A group that is gone has nothing below.
func Walk(path string, limit int, enter func(Group) error, leave func(parent Group, name string) error) (whole bool, err error) {
	fd, err := open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return true, gone(err)
	}
	w := walk{dir: os.NewFile(uintptr(fd), "cgroup"), left: limit, whole: true, enter: enter, leave: leave}
	defer func() { w.dir.Close() }()
	if err := w.arrive(""); err != nil {
		return false, err
	}
	for len(w.above) > 0 {
		if err := w.step(); err != nil {
			return false, err
		}
	}
	return w.whole, nil
}

// walk is a Walk in progress.
type walk struct {
	dir   *os.File // the present group
	above []level  // from the first group to the present one
	left  int      // how many more names may be kept
	whole bool
	enter func(Group) error
	leave func(Group, string) error
}

// level is a group on the way to the present one, that one too.
type level struct {
	name string   // in its parent
	rest []string // groups below that were not visited
}

// arrive visits the present group and lists what is right below.
func (w *walk) arrive(name string) error {
	if w.enter != nil {
		if err := w.enter(Group{w.dir}); err != nil {
			return err
		}
	}
	l := level{name: name}
	for w.left > 0 {
		entries, err := w.dir.ReadDir(min(w.left, 1024))
		for _, e := range entries {
			if e.IsDir() {
				l.rest = append(l.rest, e.Name())
				w.left--
			}
		}
		if err != nil {
			if err := gone(err); err != nil && err != io.EOF {
				return err
			}
			break
		}
	}
	w.whole = w.whole && w.left > 0
	w.above = append(w.above, l)
	return nil
}

// step goes one group down, or up where nothing is left below.
func (w *walk) step() error {
	here := &w.above[len(w.above)-1]
	if n := len(here.rest); n > 0 {
		name := here.rest[n-1]
		here.rest = here.rest[:n-1]
		w.left++
		switch err := w.change(name); {
		case err == nil:
			return w.arrive(name)
		default:
			return gone(err)
		}
	}
	name := here.name
	w.above = w.above[:len(w.above)-1]
	if len(w.above) == 0 {
		return nil
	}
	if err := w.change(".."); err != nil {
		return err
	}
	if w.leave == nil {
		return nil
	}
	return w.leave(Group{w.dir}, name)
}

// change makes a neighbour the present group.
func (w *walk) change(name string) error {
	fd, err := openAt(int(w.dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	w.dir.Close()
	w.dir = os.NewFile(uintptr(fd), "cgroup")
	return nil
}

// gone is the errno of err, or nil if it says that a group was removed.
func gone(err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	if errno == unix.ENOENT || errno == unix.ENODEV {
		return nil
	}
	return errno
}
