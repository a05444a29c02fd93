package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// replacing calls make; if something has the name, it is removed and make is called again.
func (u *unpacker) replacing(parent *dir, name string, make func() error) error {
	parent.touch = true
	err := make()
	if !errors.Is(err, syscall.EEXIST) {
		return err
	}
	if err := u.clear(parent, name); err != nil {
		return err
	}
	return make()
}

// regular makes a regular file. Owner, mode, attributes and times are set in this order: chown takes set-id bits and file
// capabilities away, and everything changes the times. Most files have an ordinary mode, with which they are made.
func (u *unpacker) regular(parent *dir, name string, a attributes, content io.Reader, sparse bool) error {
	mode, chmod := a.mode, a.mode&^0o777 != 0 || a.mode&u.umask != 0 || parent.acl
	if u.o.Rootless && len(a.xattrs) > 0 {
		mode, chmod = 0o600, true // without root's rights a read-only file takes no attributes
	}
	var fd int
	err := u.replacing(parent, name, func() (err error) {
		fd, err = fsat.CreateMode(parent.fd, name, mode)
		return err
	})
	if err != nil {
		return err
	}
	defer fsat.Close(fd)
	if err := u.copy(fd, content, sparse); err != nil {
		return err
	}
	if u.chowns(parent, a) {
		if err := fsat.Fchown(fd, a.uid, a.gid); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if chmod && !u.o.Rootless {
		err = fsat.Fchmod(fd, a.mode)
	}
	if err == nil && len(a.xattrs) > 0 {
		err = u.setXattrs(name, a.xattrs, func(attr string, value []byte) error { return fsat.Fsetxattr(fd, attr, value) })
	}
	if err == nil && chmod && u.o.Rootless {
		err = fsat.Fchmod(fd, a.mode)
	}
	if err != nil {
		return fmt.Errorf("set mode and attributes: %w", err)
	}
	if err := setTimes(fd, "", a.atime, a.mtime); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// copy writes content to fd; in a sparse file blocks of zeros become holes.
func (u *unpacker) copy(fd int, content io.Reader, sparse bool) error {
	size := int64(0)
	for {
		n, end, err := fill(content, u.buf)
		if err != nil {
			return fmt.Errorf("read content: %w", err)
		}
		if err := context.Cause(u.ctx); err != nil {
			return err
		}
		size += int64(n)
		if sparse && n > 0 && allZero(u.buf[:n]) {
			err = fsat.Skip(fd, int64(n))
		} else {
			err = fsat.Write(fd, u.buf[:n])
		}
		if err != nil {
			return fmt.Errorf("write content: %w", err)
		}
		if end {
			break
		}
	}
	if sparse {
		return fsat.Truncate(fd, size)
	}
	return nil
}

// fill reads until p is full or the content ends. (io.ReadFull's error cannot tell the end from an archive that is cut short.)
func fill(r io.Reader, p []byte) (n int, end bool, err error) {
	for n < len(p) {
		m, err := r.Read(p[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// adopt gives the directory d attributes of an entry. What its file system entry must look like in the end, mode and times, is
// set when it is closed; extended attributes that the entry does not have go.
func (u *unpacker) adopt(d *dir, a attributes, existed bool) error {
	d.mode, d.chmod = a.mode, true
	d.atime, d.mtime, d.touch = a.atime, a.mtime, true
	if existed && !u.o.Rootless || u.chowns(d, a) { // a set-group-id directory has its parent's group
		if err := fsat.Fchown(d.fd, a.uid, a.gid); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	d.acl = d.acl || a.xattrs[defaultACL] != ""
	if existed {
		if err := u.dropXattrs(d.fd, a.xattrs); err != nil {
			return err
		}
	}
	return u.setXattrs(d.path, a.xattrs, func(attr string, value []byte) error { return fsat.Fsetxattr(d.fd, attr, value) })
}

// dropXattrs removes attributes of the directory fd that are not in keep. The host's own stay: overlayfs's, and labels of
// security modules.
func (u *unpacker) dropXattrs(fd int, keep map[string]string) error {
	found, err := fsat.Fxattrs(fd)
	if err != nil {
		return err
	}
	for attr := range foreign(found) {
		if _, ok := keep[attr]; ok || attr == "security.selinux" || attr == "security.SMACK64" || attr == "security.ima" || attr == "security.evm" {
			continue
		}
		err := fsat.Fremovexattr(fd, attr)
		if err != nil && !errors.Is(err, syscall.ENODATA) {
			return fmt.Errorf("remove extended attribute %s: %w", attr, err)
		}
	}
	return nil
}

// mkdir returns the directory name in parent, pinned, and whether it existed. Anything else with the name is removed; then an
// overlay layer must not show a directory below through the new one.
func (u *unpacker) mkdir(parent *dir, name string) (d *dir, existed bool, err error) {
	err = fsat.Mkdir(parent.fd, name)
	replaced := false
	if errors.Is(err, syscall.EEXIST) {
		d, err := u.openChild(parent, name)
		if !errors.Is(err, syscall.ENOTDIR) {
			return d, true, err
		}
		replaced = true
		if err := u.clear(parent, name); err != nil {
			return nil, false, err
		}
		if err := fsat.Mkdir(parent.fd, name); err != nil {
			return nil, false, err
		}
	} else if err != nil {
		return nil, false, err
	}
	parent.touch = true
	u.mark(join(parent.path, name))
	if d, err = u.openChild(parent, name); err != nil {
		return nil, false, err
	}
	if replaced && u.o.Whiteouts != InPlace {
		if err := u.setOpaque(d); err != nil {
			d.pins--
			return nil, false, err
		}
	}
	return d, false, nil
}

// special makes a file that is not opened: a symbolic link (which has no mode), FIFO or device.
func (u *unpacker) special(parent *dir, name string, a attributes, symlink bool, make func() error) error {
	if err := u.replacing(parent, name, make); err != nil {
		return err
	}
	if u.chowns(parent, a) {
		if err := fsat.ChownAt(parent.fd, name, a.uid, a.gid); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if !symlink {
		if err := fsat.ChmodAt(parent.fd, name, a.mode); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	set := func(attr string, value []byte) error { return fsat.SetxattrAt(parent.fd, name, attr, value) }
	if err := u.setXattrs(name, a.xattrs, set); err != nil {
		return err
	}
	if err := setTimes(parent.fd, name, a.atime, a.mtime); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// device makes a device node. The runtime's device rules, not the layer, decide whether it can be opened in a container.
func (u *unpacker) device(parent *dir, name string, h *tar.Header, a attributes, kind uint32) error {
	if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
		return fmt.Errorf("device number %d:%d is out of range", h.Devmajor, h.Devminor)
	}
	if kind == syscall.S_IFCHR && h.Devmajor == 0 && h.Devminor == 0 {
		return errors.New("character device 0:0 is overlayfs's mark for a removed file and is not allowed in a layer")
	}
	if u.o.Rootless {
		u.skip("%s: a device node needs root", shorten(h.Name))
		return u.clear(parent, name)
	}
	return u.special(parent, name, a, false, func() error {
		return fsat.Mknod(parent.fd, name, kind|0o600, uint32(h.Devmajor), uint32(h.Devminor))
	})
}

// hardlink gives a file of this layer, or of one below, another name. Attributes of the entry say nothing new: the file has
// them already.
func (u *unpacker) hardlink(parent *dir, name, unsafeTarget string) error {
	target, err := u.clean(unsafeTarget)
	if err != nil {
		return err
	}
	if target == "" {
		return errors.New("hard link to the root directory")
	}
	if is, ignored := reserved(target); is || ignored {
		return linkError(unsafeTarget, syscall.ENOENT, false)
	}
	same, err := u.link(parent, name, target)
	if !errors.Is(err, syscall.EEXIST) || same {
		return linkError(unsafeTarget, err, same)
	}
	// What has the name may be a directory that contains the target, so the target is looked up again.
	if err := u.clear(parent, name); err != nil {
		return err
	}
	_, err = u.link(parent, name, target)
	return linkError(unsafeTarget, err, false)
}

func linkError(target string, err error, same bool) error {
	if err == nil || same {
		return nil
	}
	return fmt.Errorf("hard link to %q: %w", shorten(target), err)
}

// link makes the link; same says that the name is the target's already.
func (u *unpacker) link(parent *dir, name, target string) (same bool, err error) {
	m := fail
	if len(u.lower) > 0 {
		m = copyDown
	}
	targetParent, targetName := parentOf(target)
	from, err := u.resolve(targetParent, m)
	if errors.Is(err, errAbsent) {
		return false, u.noTarget()
	}
	if err != nil {
		return false, err
	}
	defer func() { from.pins-- }()
	st, err := fsat.Lstat(from.fd, targetName)
	if errors.Is(err, syscall.ENOENT) {
		if u.marked(from, targetName) {
			return false, syscall.ENOENT
		}
		if err := u.copyUp(from, targetName); errors.Is(err, errAbsent) {
			return false, u.noTarget()
		} else if err != nil {
			return false, fmt.Errorf("copy from a lower layer: %w", err)
		}
		st, err = fsat.Lstat(from.fd, targetName)
	}
	if err != nil {
		return false, err
	}
	if st.IsWhiteout() {
		return false, syscall.ENOENT
	}
	parent.touch = true
	err = fsat.Link(from.fd, targetName, parent.fd, name)
	if errors.Is(err, syscall.EEXIST) {
		now, statErr := fsat.Lstat(parent.fd, name)
		same = statErr == nil && now.Dev == st.Dev && now.Ino == st.Ino
	}
	return same, err
}

func (u *unpacker) noTarget() error {
	if u.o.Whiteouts != InPlace && u.o.Lower == nil {
		return fmt.Errorf("%w: %w", ErrNeedsLower, syscall.ENOENT)
	}
	return syscall.ENOENT
}
