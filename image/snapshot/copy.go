package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/internal/sys/fsat"
)

// copyTo copies the merged layers into the directory dir, which is new and empty: the lowest first, each over those below it.
func (r *Rootfs) copyTo(ctx context.Context, dir string) error {
	to, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer to.Close()
	toFd, err := fsat.Fd(to)
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(to)
	for _, lower := range slices.Backward(r.Lower) {
		from, err := os.Open(lower)
		if err != nil {
			return err
		}
		fromFd, err := fsat.Fd(from)
		if err == nil {
			c := copier{ctx: ctx, root: toFd, chown: !r.store.rootless, links: map[uint64]string{}}
			err = c.content(fromFd, toFd, "")
		}
		from.Close()
		if err != nil {
			return fmt.Errorf("copy layer %s: %w", filepath.Base(filepath.Dir(lower)), err)
		}
	}
	return nil
}

// copier copies one layer. Its trees are nobody else's, and no deeper than a layer may be.
type copier struct {
	ctx   context.Context
	root  int
	chown bool
	links map[uint64]string // by inode: where files that have several names were copied to
}

// content copies what is in the directory from, of the layer, to the directory to, at path below the root. First everything goes
// that the layer hides; what it has itself comes after that.
func (c *copier) content(from, to int, at string) error {
	var names []string
	err := fsat.Names(from, func(name string) error {
		hidden, opaque := layer.Whiteout(name)
		switch {
		case opaque:
			return fsat.Names(to, func(old string) error { return fsat.RemoveAll(to, old) })
		case hidden != "":
			return fsat.RemoveAll(to, hidden)
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := context.Cause(c.ctx); err != nil {
			return err
		}
		if err := c.entry(from, to, name, path.Join(at, name)); err != nil {
			if !errors.As(err, new(*os.PathError)) {
				err = &os.PathError{Op: "copy", Path: path.Join(at, name), Err: err}
			}
			return err
		}
	}
	return nil
}

func (c *copier) entry(from, to int, name, at string) error {
	st, err := fsat.Lstat(from, name)
	if err != nil {
		return err
	}
	if st.IsDir() {
		err := c.dir(from, to, name, at, &st)
		if !c.chown && st.Mode&0o700 != 0o700 {
			err = errors.Join(err, fsat.ChmodAt(from, name, st.Mode&0o7777))
		}
		return err
	}
	if err := fsat.RemoveAll(to, name); err != nil {
		return err
	}
	if st.Nlink > 1 {
		if first, ok := c.links[st.Ino]; ok {
			return fsat.LinkPath(c.root, first, to, name)
		}
		c.links[st.Ino] = at
	}
	if st.IsRegular() {
		return c.regular(from, to, name, &st)
	}
	return c.special(from, to, name, &st)
}

// dir copies a directory onto one that may be there.
func (c *copier) dir(from, to int, name, at string, st *fsat.Stat) error {
	err := fsat.Mkdir(to, name)
	if errors.Is(err, syscall.EEXIST) {
		var there fsat.Stat
		if there, err = fsat.Lstat(to, name); err != nil {
			return err
		}
		if !there.IsDir() {
			if err := fsat.RemoveAll(to, name); err != nil {
				return err
			}
			err = fsat.Mkdir(to, name)
		} else if !c.chown {
			err = fsat.ChmodAt(to, name, there.Mode&0o7777|0o700)
		}
	}
	if err != nil {
		return err
	}
	src, err := c.open(from, name, st, fsat.OpenDir)
	if err != nil {
		return err
	}
	defer fsat.Close(src)
	dst, err := fsat.OpenDir(to, name)
	if err != nil {
		return err
	}
	defer fsat.Close(dst)
	if err := c.content(src, dst, at); err != nil {
		return err
	}
	return c.dress(src, dst, st)
}

// open opens a file of the layer. Without root's rights one whose mode forbids that is made accessible for a moment; what is
// open stays so.
func (c *copier) open(dir int, name string, st *fsat.Stat, open func(dir int, name string) (int, error)) (int, error) {
	fd, err := open(dir, name)
	if !errors.Is(err, syscall.EACCES) || c.chown {
		return fd, err
	}
	if err := fsat.ChmodAt(dir, name, st.Mode&0o7777|0o700); err != nil {
		return -1, err
	}
	fd, err = open(dir, name)
	if err == nil && !st.IsDir() { // a directory has to stay accessible as long as it is read
		err = fsat.ChmodAt(dir, name, st.Mode&0o7777)
	}
	return fd, err
}

func (c *copier) regular(from, to int, name string, st *fsat.Stat) error {
	src, err := c.open(from, name, st, fsat.OpenRegular)
	if err != nil {
		return err
	}
	defer fsat.Close(src)
	dst, err := fsat.Create(to, name)
	if err != nil {
		return err
	}
	defer fsat.Close(dst)
	if err := fsat.CopyContent(dst, src); err != nil {
		return err
	}
	return c.dress(src, dst, st)
}

// dress gives an open file the attributes of another, in the order in which none takes away another.
func (c *copier) dress(src, dst int, st *fsat.Stat) error {
	if c.chown {
		if err := fsat.Fchown(dst, st.UID, st.GID); err != nil {
			return err
		}
	}
	want, err := fsat.Fxattrs(src)
	if err != nil {
		return err
	}
	have, err := fsat.Fxattrs(dst)
	if err != nil {
		return err
	}
	for attr := range have {
		if _, ok := want[attr]; !ok && !strings.HasPrefix(attr, "security.") {
			if err := fsat.Fremovexattr(dst, attr); err != nil && !errors.Is(err, syscall.ENODATA) {
				return err
			}
		}
	}
	for attr, value := range want {
		if err := fsat.Fsetxattr(dst, attr, []byte(value)); err != nil {
			return fmt.Errorf("set extended attribute %s: %w", attr, err)
		}
	}
	if err := fsat.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	return fsat.Futimes(dst, st.Atime, st.Mtime)
}

// special copies a symbolic link, FIFO or device.
func (c *copier) special(from, to int, name string, st *fsat.Stat) error {
	if st.IsSymlink() {
		target, err := fsat.Readlink(from, name)
		if err != nil {
			return err
		}
		if err := fsat.Symlink(target, to, name); err != nil {
			return err
		}
	} else {
		major, minor := fsat.Device(st.Rdev)
		if err := fsat.Mknod(to, name, st.Mode&syscall.S_IFMT|0o600, major, minor); err != nil {
			return err
		}
	}
	if c.chown {
		if err := fsat.ChownAt(to, name, st.UID, st.GID); err != nil {
			return err
		}
	}
	x, err := fsat.XattrsAt(from, name)
	if err != nil {
		return err
	}
	for attr, value := range x {
		if err := fsat.SetxattrAt(to, name, attr, []byte(value)); err != nil {
			return fmt.Errorf("set extended attribute %s: %w", attr, err)
		}
	}
	if !st.IsSymlink() {
		if err := fsat.ChmodAt(to, name, st.Mode&0o7777); err != nil {
			return err
		}
	}
	return fsat.UtimesAt(to, name, st.Atime, st.Mtime)
}
