package diff

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// file writes the file name in dir, which st describes, as path. EXDEV says that something is mounted on it; nothing was written.
func (t *tarWriter) file(path string, dir int, name string, st *fsat.Stat) error {
	h := &tar.Header{Name: path, Mode: int64(st.Mode & 0o7777), Uid: int(st.UID), Gid: int(st.GID), ModTime: st.Mtime}
	kind := st.Mode & syscall.S_IFMT
	if kind == syscall.S_IFREG {
		return t.regular(h, dir, name, st)
	}
	switch kind {
	case syscall.S_IFDIR:
		h.Typeflag = tar.TypeDir
		if h.Name += "/"; path == "" {
			h.Name = "./"
		}
	case syscall.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		var err error
		if h.Linkname, err = fsat.Readlink(dir, name); err != nil {
			return err
		}
	case syscall.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case syscall.S_IFCHR, syscall.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if kind == syscall.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		major, minor := fsat.Device(st.Rdev)
		h.Devmajor, h.Devminor = int64(major), int64(minor)
	default:
		return fmt.Errorf("type of file %#o is unknown", kind)
	}
	if linked, err := t.linked(h, path, st); linked || err != nil {
		return err
	}
	x, err := fsat.XattrsAt(dir, name)
	if err != nil {
		return err
	}
	addXattrs(h, x)
	return t.header(h)
}

// linked writes a further name of a file that is there already as a hard link, and remembers the first name.
func (t *tarWriter) linked(h *tar.Header, path string, st *fsat.Stat) (bool, error) {
	if st.IsDir() || st.Nlink < 2 {
		return false, nil
	}
	id := [2]uint64{st.Dev, st.Ino}
	first, ok := t.links[id]
	if !ok {
		t.links[id] = path
		return false, nil
	}
	h.Typeflag, h.Linkname, h.Size, h.Devmajor, h.Devminor = tar.TypeLink, first, 0, 0, 0
	return true, t.header(h)
}

func addXattrs(h *tar.Header, x xattrs) {
	for attr, value := range kept(x) {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+attr] = value
	}
}

// regular writes a regular file. All that the header says is of the file that is open and read.
func (t *tarWriter) regular(h *tar.Header, dir int, name string, seen *fsat.Stat) error {
	h.Typeflag = tar.TypeReg
	fd, err := fsat.OpenRegularSameMount(dir, name)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENXIO) {
		err = errors.New("it was replaced while it was read: stop or pause what writes there")
	}
	if err != nil {
		return err
	}
	defer fsat.Close(fd)
	st, err := fsat.Fstat(fd)
	if err != nil {
		return err
	}
	if st.Dev != seen.Dev || st.Ino != seen.Ino {
		return errors.New("it was replaced while it was read: stop or pause what writes there")
	}
	h.Mode, h.Uid, h.Gid, h.ModTime, h.Size = int64(st.Mode&0o7777), int(st.UID), int(st.GID), st.Mtime, st.Size
	if linked, err := t.linked(h, h.Name, &st); linked || err != nil {
		return err
	}
	x, err := fsat.Fxattrs(fd)
	if err != nil {
		return err
	}
	addXattrs(h, x)
	if t.bytes += st.Size; t.bytes > t.limits.Bytes {
		return fmt.Errorf("with it the files have more than %d bytes, the limit (Limits.Bytes)", t.limits.Bytes)
	}
	if err := t.header(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{t.tar}, io.LimitReader(&fdReader{t, fd}, st.Size), t.buf)
	if err == nil && n < st.Size {
		err = fmt.Errorf("it became shorter than %d bytes while it was read: stop or pause what writes there", st.Size)
	}
	return err
}

// fdReader reads a descriptor until the context is at an end.
type fdReader struct {
	t  *tarWriter
	fd int
}

func (r *fdReader) Read(p []byte) (int, error) {
	if err := r.t.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := fsat.Read(r.fd, p)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}
