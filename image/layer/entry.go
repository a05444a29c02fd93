package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// unpacker is the state of one Unpack.
type unpacker struct {
	o            Options
	limits       Limits
	ctx          context.Context
	in           *pipe
	tar          *tar.Reader
	dirs         dirs
	lower        []int
	made, pruned *paths // of whiteouts in place
	uid, gid     int    // ours: new files have them without chown
	umask        uint32
	bytes        int64 // of file contents
	buf          []byte
	result       Result
}

func newUnpacker(ctx context.Context, root *os.File, in *pipe, o Options, limits Limits) (*unpacker, error) {
	u := &unpacker{
		ctx: ctx, o: o, limits: limits, in: in, uid: os.Geteuid(), gid: os.Getegid(), umask: fsat.Umask(), buf: make([]byte, 256<<10),
		dirs: dirs{open: map[string]*dir{}, rootless: o.Rootless}, made: newPaths(), pruned: newPaths(),
	}
	if o.Whiteouts != InPlace {
		for _, f := range o.Lower {
			fd, err := fsat.Fd(f)
			if err != nil {
				return nil, fmt.Errorf("lower layer: %w", err)
			}
			u.lower = append(u.lower, fd)
		}
	}
	fd, err := fsat.Fd(root)
	if err != nil {
		return nil, fmt.Errorf("root directory: %w", err)
	}
	st, err := fsat.Fstat(fd)
	if err == nil && !st.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, fmt.Errorf("root directory: %w", err)
	}
	u.dirs.root = &dir{fd: fd, mode: st.Mode & 0o7777, atime: st.Atime, mtime: st.Mtime, setgid: st.Mode&syscall.S_ISGID != 0,
		acl: fsat.HasXattr(fd, defaultACL), pins: 1}
	u.dirs.open[""] = u.dirs.root
	if o.Whiteouts != InPlace {
		u.dirs.root.mode, u.dirs.root.chmod = 0o755, true
		if len(u.lower) > 0 {
			if err := u.copyDirAttributes(u.dirs.root, u.lower[0], "."); err != nil {
				return nil, fmt.Errorf("copy attributes of the lower layer's root directory: %w", err)
			}
		}
	}
	return u, nil
}

func (u *unpacker) close() { u.dirs.drop() }

// attributes of a file other than its content.
type attributes struct {
	uid, gid     uint32
	mode         uint32 // 07777
	atime, mtime time.Time
	xattrs       map[string]string
}

// clean makes a name of the archive relative to the root, lexically, as docker and containerd do: "" is the root itself.
func (u *unpacker) clean(unsafeName string) (string, error) {
	if int64(len(unsafeName)) > u.limits.PathLength {
		return "", &LimitError{"PathLength", u.limits.PathLength}
	}
	if strings.IndexByte(unsafeName, 0) >= 0 {
		return "", errors.New("name with a zero byte")
	}
	p := path.Clean("/" + unsafeName)[1:]
	if int64(strings.Count(p, "/")) >= u.limits.Depth {
		return "", &LimitError{"Depth", u.limits.Depth}
	}
	return p, nil
}

// entry unpacks one entry of the archive.
func (u *unpacker) entry(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	p, err := u.clean(h.Name)
	if err != nil {
		return err
	}
	parentPath, name := parentOf(p)
	if strings.Contains(p, whiteoutPrefix) {
		if is, ignored := reserved(parentPath); ignored {
			return nil
		} else if is {
			return fmt.Errorf("a directory whose name begins with %q", whiteoutPrefix)
		}
		if strings.HasPrefix(name, whiteoutPrefix) {
			return u.whiteout(parentPath, name)
		}
	}
	a, err := u.attributes(h)
	if err != nil {
		return err
	}
	if p == "" {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the root is not a directory")
		}
		u.result.RootEntry = true
		return u.adopt(u.dirs.root, a, true)
	}
	parent, err := u.resolve(parentPath, create)
	if err != nil {
		return err
	}
	defer func() { parent.pins-- }()
	if err := u.make(parent, name, h, a); err != nil {
		return err
	}
	u.mark(join(parent.path, name))
	return nil
}

func (u *unpacker) make(parent *dir, name string, h *tar.Header, a attributes) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		if err := u.account(h.Size); err != nil {
			return err
		}
		return u.regular(parent, name, a, u.tar, isSparse(h))
	case tar.TypeDir:
		d, existed, err := u.mkdir(parent, name)
		if err != nil {
			return err
		}
		defer func() { d.pins-- }()
		return u.adopt(d, a, existed)
	case tar.TypeSymlink:
		if int64(len(h.Linkname)) > u.limits.PathLength {
			return &LimitError{"PathLength", u.limits.PathLength}
		}
		return u.special(parent, name, a, true, func() error { return fsat.Symlink(h.Linkname, parent.fd, name) })
	case tar.TypeLink:
		return u.hardlink(parent, name, h.Linkname)
	case tar.TypeFifo:
		return u.special(parent, name, a, false, func() error { return fsat.Mknod(parent.fd, name, syscall.S_IFIFO|0o600, 0, 0) })
	case tar.TypeChar:
		return u.device(parent, name, h, a, syscall.S_IFCHR)
	case tar.TypeBlock:
		return u.device(parent, name, h, a, syscall.S_IFBLK)
	}
	return fmt.Errorf("entry type %q is not one of the image specification's", h.Typeflag)
}

func isSparse(h *tar.Header) bool {
	_, major := h.PAXRecords["GNU.sparse.major"]
	_, blocks := h.PAXRecords["GNU.sparse.numblocks"]
	return h.Typeflag == tar.TypeGNUSparse || major || blocks
}

// account counts the bytes of file contents against their limit before any is written.
func (u *unpacker) account(size int64) error {
	if size < 0 || size > u.limits.TotalBytes-u.bytes {
		return &LimitError{"TotalBytes", u.limits.TotalBytes}
	}
	u.bytes += size
	return nil
}

const xattrRecord = "SCHILY.xattr."

func (u *unpacker) attributes(h *tar.Header) (attributes, error) {
	a := attributes{mode: uint32(h.Mode) & 0o7777, mtime: h.ModTime, atime: h.AccessTime}
	if a.atime.IsZero() {
		a.atime = a.mtime
	}
	// The last number means "no change" to chown.
	if h.Uid < 0 || h.Gid < 0 || uint64(h.Uid) >= math.MaxUint32 || uint64(h.Gid) >= math.MaxUint32 {
		return a, fmt.Errorf("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	a.uid, a.gid = uint32(h.Uid), uint32(h.Gid)
	total := int64(0)
	for record, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(record, xattrRecord)
		if !ok {
			continue
		}
		if total += int64(len(attr) + len(value)); total > u.limits.XattrBytes {
			return a, &LimitError{"XattrBytes", u.limits.XattrBytes}
		}
		if isOverlayAttr(attr) {
			u.skip("%s: extended attribute %s is overlayfs's own", shorten(h.Name), attr)
			continue
		}
		if a.xattrs == nil {
			a.xattrs = map[string]string{}
		}
		a.xattrs[attr] = value
	}
	return a, nil
}

// setXattrs sets attributes of name, in a fixed order. One that the file system or the kind of file does not take is skipped,
// except for file capabilities, without which a program does not work.
func (u *unpacker) setXattrs(name string, x map[string]string, set func(attr string, value []byte) error) error {
	if len(x) == 0 {
		return nil
	}
	for _, attr := range slices.Sorted(maps.Keys(x)) {
		if u.o.Rootless && !strings.HasPrefix(attr, "user.") {
			u.skip("%s: extended attribute %s needs root", shorten(name), attr)
			continue
		}
		err := set(attr, []byte(x[attr]))
		refused := errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EPERM) && strings.HasPrefix(attr, "user.")
		if refused && attr != "security.capability" {
			u.skip("%s: extended attribute %s: %v", shorten(name), attr, err)
		} else if err != nil {
			return fmt.Errorf("set extended attribute %s: %w", attr, err)
		}
	}
	return nil
}

// setTimes sets the times of the open file fd if name is empty, else of name in the directory fd.
func setTimes(fd int, name string, atime, mtime time.Time) error {
	if name == "" {
		return fsat.Futimes(fd, atime, mtime)
	}
	return fsat.UtimesAt(fd, name, atime, mtime)
}

// chowns says whether a new file in parent needs chown to belong to a's owner.
func (u *unpacker) chowns(parent *dir, a attributes) bool {
	return !u.o.Rootless && (parent.setgid || uint32(u.uid) != a.uid || uint32(u.gid) != a.gid)
}

// fdReader reads a descriptor.
type fdReader int

func (f fdReader) Read(p []byte) (int, error) {
	n, err := fsat.Read(int(f), p)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}
