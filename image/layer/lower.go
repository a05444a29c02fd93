package layer

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// stepBelow goes on where the directory name is not in cur: in an overlay layer it may be in a layer below.
func (u *unpacker) stepBelow(w *walk, cur *dir, name string, rest *string) (*dir, error) {
	hidden := u.marked(cur, name)
	if len(u.lower) == 0 || hidden {
		if w.missing < hideBelow || hidden && w.missing != create {
			return nil, errAbsent
		}
		if u.o.Whiteouts != InPlace && u.o.Lower == nil && !hidden {
			u.result.NeedsLower = true
		}
		return u.makeDir(cur, name)
	}
	path := join(cur.path, name)
	low, err := u.below(path)
	if errors.Is(err, errAbsent) && w.missing == create {
		return u.makeDir(cur, name)
	}
	if err != nil {
		return nil, err
	}
	defer fsat.Close(low.dir)
	switch {
	case low.IsSymlink():
		target, err := fsat.Readlink(low.dir, low.name)
		if err != nil {
			return nil, fmt.Errorf("read link %q of a lower layer: %w", shorten(path), err)
		}
		return u.follow(w, cur, target, rest)
	case !low.IsDir():
		return nil, fmt.Errorf("%q of a lower layer is not a directory: %w", shorten(path), syscall.ENOTDIR)
	case w.missing == fail:
		return nil, errAbsent
	}
	d, err := u.makeDir(cur, name)
	if err != nil {
		return nil, err
	}
	if err := u.copyDirAttributes(d, low.dir, low.name); err != nil {
		d.pins--
		return nil, fmt.Errorf("copy attributes of directory %q from a lower layer: %w", shorten(path), err)
	}
	return d, nil
}

// makeDir makes a directory that the archive has no entry for (yet), and returns it pinned.
func (u *unpacker) makeDir(parent *dir, name string) (*dir, error) {
	path := join(parent.path, name)
	d, _, err := u.mkdir(parent, name)
	if err != nil {
		return nil, fmt.Errorf("make directory %q: %w", shorten(path), err)
	}
	d.mode, d.chmod = 0o755, true
	d.atime, d.mtime, d.touch = time.Unix(0, 0), time.Unix(0, 0), true // the same whenever the layer is unpacked
	if !u.o.Rootless && parent.setgid {
		err = fsat.Fchown(d.fd, uint32(u.uid), uint32(u.gid))
	}
	if err != nil {
		d.pins--
		return nil, fmt.Errorf("own directory %q: %w", shorten(path), err)
	}
	return d, nil
}

// lowerFile is a file as the layers below, merged, show it. The caller closes dir.
type lowerFile struct {
	fsat.Stat
	dir  int // of the directory that has it in its layer
	name string
}

// below finds path, canonical, in the merged layers below; errAbsent if they do not show it.
func (u *unpacker) below(path string) (*lowerFile, error) {
	for _, layer := range u.lower {
		f, hidden, err := u.inLayer(layer, path)
		if err != nil {
			return nil, fmt.Errorf("look up %q in a lower layer: %w", shorten(path), err)
		}
		if f != nil {
			return f, nil
		}
		if hidden {
			break
		}
	}
	return nil, errAbsent
}

// inLayer finds path in one layer; hidden says that it is not there and that this layer hides it in those below.
func (u *unpacker) inLayer(layer int, path string) (f *lowerFile, hidden bool, err error) {
	cur, err := fsat.OpenDir(layer, ".")
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if f == nil {
			fsat.Close(cur)
		}
	}()
	opaque := false
	for {
		name, rest, more := strings.Cut(path, "/")
		st, err := fsat.Lstat(cur, name)
		switch {
		case errors.Is(err, syscall.ENOENT):
			return nil, opaque || u.markedIn(cur, name), nil
		case err != nil:
			return nil, false, err
		case st.IsWhiteout():
			return nil, true, nil
		case !more:
			return &lowerFile{st, cur, name}, false, nil
		case !st.IsDir():
			return nil, true, nil
		}
		next, err := fsat.OpenDir(cur, name)
		if err != nil {
			return nil, false, err
		}
		opaque = opaque || u.markedIn(cur, name)
		fsat.Close(cur)
		cur, path = next, rest
		x, err := fsat.Fxattrs(cur)
		if err != nil {
			return nil, false, err
		}
		opaque = opaque || x[u.opaqueAttr()] == "y" || u.markedIn(cur, aufsOpaque)
	}
}

// copyDirAttributes makes d look like the directory name in lower.
func (u *unpacker) copyDirAttributes(d *dir, lower int, name string) error {
	fd, err := fsat.OpenDir(lower, name)
	if err != nil {
		return err
	}
	defer fsat.Close(fd)
	st, err := fsat.Fstat(fd)
	if err != nil {
		return err
	}
	x, err := fsat.Fxattrs(fd)
	if err != nil {
		return err
	}
	d.mode, d.chmod = st.Mode&0o7777, true
	d.atime, d.mtime, d.touch = st.Atime, st.Mtime, true
	if !u.o.Rootless {
		if err := fsat.Fchown(d.fd, st.UID, st.GID); err != nil {
			return err
		}
	}
	return u.setXattrs(d.path, foreign(x), func(attr string, value []byte) error { return fsat.Fsetxattr(d.fd, attr, value) })
}

// foreign drops overlayfs's own attributes.
func foreign(x map[string]string) map[string]string {
	for attr := range x {
		if isOverlayAttr(attr) {
			delete(x, attr)
		}
	}
	return x
}

// copyUp brings the file path, canonical and missing in parent, up from the layers below, so that it can be linked to.
func (u *unpacker) copyUp(parent *dir, name string) error {
	low, err := u.below(join(parent.path, name))
	if err != nil {
		return err
	}
	defer fsat.Close(low.dir)
	x, err := fsat.XattrsAt(low.dir, low.name)
	if err != nil {
		return err
	}
	a := attributes{uid: low.UID, gid: low.GID, mode: low.Mode & 0o7777, atime: low.Atime, mtime: low.Mtime, xattrs: foreign(x)}
	switch kind := low.Mode & syscall.S_IFMT; kind {
	case syscall.S_IFREG:
		if err := u.account(low.Size); err != nil {
			return err
		}
		fd, err := fsat.OpenRegular(low.dir, low.name)
		if err != nil {
			return err
		}
		defer fsat.Close(fd)
		return u.regular(parent, name, a, fdReader(fd), false)
	case syscall.S_IFLNK:
		target, err := fsat.Readlink(low.dir, low.name)
		if err != nil {
			return err
		}
		return u.special(parent, name, a, true, func() error { return fsat.Symlink(target, parent.fd, name) })
	case syscall.S_IFDIR:
		return syscall.EPERM
	default:
		major, minor := fsat.Device(low.Rdev)
		return u.special(parent, name, a, false, func() error { return fsat.Mknod(parent.fd, name, kind|0o600, major, minor) })
	}
}
