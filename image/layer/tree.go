package layer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// maxOpenDirs is how many directories stay open between entries.
const maxOpenDirs = 64

// dir is an open directory of the tree that is being unpacked. What it must look like in the end (its own mode, and the times
// that it had before its content changed or that its entry gave) is kept here and set when it is closed, so that unpacking needs
// no list of all directories: one that is opened again starts from what the file system says.
type dir struct {
	path         string // canonical: no symbolic links, no "." or "..", no slash at either end; "" is the root
	fd           int
	mode         uint32 // to be set when it is closed, if chmod
	atime, mtime time.Time
	chmod, touch bool
	setgid       bool // files made in it get its group
	opaque       bool // marked so since it was opened
	acl          bool // files made in it may get another mode than they are made with
	pins         int
	used         uint64
}

// defaultACL is the attribute by which a directory decides on the modes of what is made in it, acl(5).
const defaultACL = "system.posix_acl_default"

// dirs keeps directories open by canonical path. A path found here leads through no symbolic link, so most entries need no
// system call to find their parent.
type dirs struct {
	open     map[string]*dir
	root     *dir
	clock    uint64
	rootless bool
}

// add registers an open directory, pinned, and closes the one unused longest if there are too many.
func (ds *dirs) add(path string, fd int) (*dir, error) {
	st, err := fsat.Fstat(fd)
	if err != nil {
		fsat.Close(fd)
		return nil, err
	}
	d := &dir{path: path, fd: fd, mode: st.Mode & 0o7777, atime: st.Atime, mtime: st.Mtime, setgid: st.Mode&syscall.S_ISGID != 0,
		acl: fsat.HasXattr(fd, defaultACL)}
	if ds.rootless && d.mode&0o700 != 0o700 {
		if err := fsat.Fchmod(fd, d.mode|0o700); err != nil {
			fsat.Close(fd)
			return nil, err
		}
		d.chmod = true
	}
	ds.open[path] = d
	ds.pin(d)
	if len(ds.open) > maxOpenDirs {
		return d, ds.evict()
	}
	return d, nil
}

func (ds *dirs) pin(d *dir) *dir {
	ds.clock++
	d.used = ds.clock
	d.pins++
	return d
}

// evict closes the half that was unused longest of the directories that are not in use.
func (ds *dirs) evict() error {
	idle := make([]*dir, 0, len(ds.open))
	for _, d := range ds.open {
		if d.pins == 0 && d != ds.root {
			idle = append(idle, d)
		}
	}
	slices.SortFunc(idle, func(a, b *dir) int { return cmp.Compare(a.used, b.used) })
	for _, d := range idle[:len(idle)/2] {
		if err := ds.shut(d); err != nil {
			return err
		}
	}
	return nil
}

// shut gives d its attributes and closes it.
func (ds *dirs) shut(d *dir) error {
	delete(ds.open, d.path)
	err := d.finish()
	if d != ds.root {
		fsat.Close(d.fd)
	}
	return err
}

func (d *dir) finish() error {
	if d.chmod {
		if err := fsat.Fchmod(d.fd, d.mode); err != nil {
			return fmt.Errorf("set mode of directory %q: %w", shorten(d.path), err)
		}
	}
	if d.touch {
		if err := setTimes(d.fd, "", d.atime, d.mtime); err != nil {
			return fmt.Errorf("set times of directory %q: %w", shorten(d.path), err)
		}
	}
	d.chmod, d.touch = false, false
	return nil
}

// forget closes the directories at path and below it, which are about to be removed, without caring for their attributes.
func (ds *dirs) forget(path string) {
	for p, d := range ds.open {
		if d != ds.root && (p == path || strings.HasPrefix(p, path+"/")) {
			delete(ds.open, p)
			fsat.Close(d.fd)
		}
	}
}

// flush gives all open directories their attributes.
func (ds *dirs) flush() error {
	for _, d := range ds.open {
		if err := ds.shut(d); err != nil {
			return err
		}
	}
	return nil
}

// drop closes what is still open after an error.
func (ds *dirs) drop() {
	for _, d := range ds.open {
		if d != ds.root {
			fsat.Close(d.fd)
		}
	}
	ds.open = nil
}

func join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "/" + name
}

func parentOf(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// nearest returns the open directory that is the longest prefix of path, and the rest of path. It is not pinned.
func (ds *dirs) nearest(path string) (d *dir, rest string) {
	for p := path; p != ""; p, _ = parentOf(p) {
		if d := ds.open[p]; d != nil {
			return d, strings.TrimPrefix(path[len(p):], "/")
		}
	}
	return ds.root, path
}

// errAbsent says that a directory is not there and was not to be made.
var errAbsent = errors.New("no such directory in the layer")

// maxLinks is how many symbolic links one name may lead through, as in the kernel.
const maxLinks = 40

// missing says what resolve does about a directory that is not there.
type missing int

const (
	fail      missing = iota // errAbsent
	copyDown                 // make it if a layer below has it, else errAbsent
	hideBelow                // make it if a layer below may have it, else errAbsent
	create                   // make it, like the one in a layer below if there is one
)

// walk is the way to one directory.
type walk struct {
	missing missing
	links   int
}

// resolve returns the directory that path, lexically clean and relative, names, with symbolic links followed inside the root.
// The caller unpins it.
func (u *unpacker) resolve(path string, m missing) (*dir, error) {
	cur, rest := u.dirs.nearest(path)
	u.dirs.pin(cur)
	w := walk{missing: m}
	for rest != "" {
		name, after, _ := strings.Cut(rest, "/")
		rest = after
		next, err := u.step(&w, cur, name, &rest)
		cur.pins--
		if err != nil {
			return nil, err
		}
		cur = next
	}
	return cur, nil
}

// step returns the directory, pinned, that name in cur leads to. If name is a symbolic link, rest becomes the link's text and
// what was left, and the directory is the one where that begins.
func (u *unpacker) step(w *walk, cur *dir, name string, rest *string) (*dir, error) {
	switch name {
	case "", ".":
		return u.dirs.pin(cur), nil
	case "..":
		if cur.path == "" {
			return u.dirs.pin(cur), nil // as in "/"
		}
		up, _ := parentOf(cur.path)
		return u.resolve(up, fail) // canonical, so it exists and has no links
	}
	path := join(cur.path, name)
	d, err := u.openChild(cur, name)
	switch {
	case err == nil:
		return d, nil
	case errors.Is(err, syscall.ENOENT):
		return u.stepBelow(w, cur, name, rest)
	case !errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("open directory %q: %w", shorten(path), err)
	}
	target, err := fsat.Readlink(cur.fd, name)
	if err == nil {
		return u.follow(w, cur, target, rest)
	}
	if st, err := fsat.Lstat(cur.fd, name); err == nil && st.IsWhiteout() {
		if w.missing != create {
			return nil, errAbsent
		}
		return u.makeDir(cur, name) // replaces the whiteout
	}
	return nil, fmt.Errorf("%q is not a directory: %w", shorten(path), syscall.ENOTDIR)
}

// openChild opens the directory name in parent and returns it pinned. Without root's rights one whose mode forbids that is made
// accessible until it is finished.
func (u *unpacker) openChild(parent *dir, name string) (*dir, error) {
	path := join(parent.path, name)
	if d := u.dirs.open[path]; d != nil {
		return u.dirs.pin(d), nil
	}
	fd, err := fsat.OpenDir(parent.fd, name)
	if err == nil {
		return u.dirs.add(path, fd)
	}
	if !errors.Is(err, syscall.EACCES) || !u.o.Rootless {
		return nil, err
	}
	st, err := fsat.Lstat(parent.fd, name)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, syscall.ENOTDIR
	}
	mode := st.Mode & 0o7777
	if err := fsat.ChmodAt(parent.fd, name, mode|0o700); err != nil {
		return nil, err
	}
	if fd, err = fsat.OpenDir(parent.fd, name); err != nil {
		return nil, err
	}
	d, err := u.dirs.add(path, fd)
	if err == nil {
		d.mode, d.chmod = mode, true
	}
	return d, err
}

// follow goes on at a symbolic link's target.
func (u *unpacker) follow(w *walk, cur *dir, target string, rest *string) (*dir, error) {
	w.links++
	if w.links > maxLinks || int64(len(target)+1+len(*rest)) > 2*u.limits.PathLength {
		return nil, fmt.Errorf("symbolic links in the parent directories: %w", syscall.ELOOP)
	}
	if *rest == "" {
		*rest = target
	} else {
		*rest = target + "/" + *rest
	}
	if strings.HasPrefix(target, "/") {
		cur = u.dirs.root
	}
	return u.dirs.pin(cur), nil
}
