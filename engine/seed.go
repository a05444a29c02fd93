package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// maxSeedDepth is how deep a directory may be that a fresh volume begins with: an unpacked image is no deeper.
const maxSeedDepth = 512

// seed makes dir on the host what the image has at path in root: the directory's owner and mode, and its content. An image
// that has no directory there leaves dir as it is.
func seed(dir string, root *os.File, unsafePath string) error {
	from, err := fsat.OpenDirInRoot(root, strings.TrimPrefix(unsafePath, "/"))
	if err != nil {
		if st, e := fsat.StatInRoot(root, strings.TrimPrefix(unsafePath, "/")); e != nil || !st.IsDir() {
			return nil //nolint:nilerr // nothing there, or a file, that the mount will complain about
		}
		return fmt.Errorf("open %s in the image: %w", unsafePath, err)
	}
	defer fsat.Close(from)
	target, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer target.Close()
	to, err := fsat.Fd(target)
	if err != nil {
		return err
	}
	if err := copyContent(from, to, 0); err != nil {
		return fmt.Errorf("copy %s of the image into a volume: %w", unsafePath, err)
	}
	return nil
}

// copyContent copies what is in the directory from into the empty directory to, and then from's own attributes.
func copyContent(from, to, depth int) error {
	if depth > maxSeedDepth {
		return errors.New("it is too deep")
	}
	err := fsat.Names(from, func(name string) error {
		if err := copyEntry(from, to, name, depth); err != nil {
			return fmt.Errorf("%s: %w", path.Join(name), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	st, err := fsat.Fstat(from)
	if err != nil {
		return err
	}
	attrs, err := fsat.Fxattrs(from)
	if err != nil {
		return err
	}
	return dress(to, st, attrs)
}

// dress gives an open file its attributes, in the order in which none takes away another.
func dress(fd int, st fsat.Stat, attrs map[string]string) error {
	if err := fsat.Fchown(fd, st.UID, st.GID); err != nil {
		return err
	}
	if err := fsat.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	for name, value := range attrs {
		if strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		if err := fsat.Fsetxattr(fd, name, []byte(value)); err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return fsat.Futimes(fd, st.Atime, st.Mtime)
}

func copyEntry(from, to int, name string, depth int) error {
	st, err := fsat.Lstat(from, name)
	if err != nil {
		return err
	}
	switch {
	case st.IsDir():
		if err := fsat.Mkdir(to, name); err != nil {
			return err
		}
		src, err := fsat.OpenDir(from, name)
		if err != nil {
			return err
		}
		defer fsat.Close(src)
		dst, err := fsat.OpenDir(to, name)
		if err != nil {
			return err
		}
		defer fsat.Close(dst)
		return copyContent(src, dst, depth+1)
	case st.IsRegular():
		return copyRegular(from, to, name, st)
	case st.IsSymlink():
		target, err := fsat.Readlink(from, name)
		if err != nil {
			return err
		}
		if err := fsat.Symlink(target, to, name); err != nil {
			return err
		}
	default:
		major, minor := fsat.Device(st.Rdev)
		if err := fsat.Mknod(to, name, st.Mode, major, minor); err != nil {
			return err
		}
		if err := fsat.ChmodAt(to, name, st.Mode&0o7777); err != nil {
			return err
		}
	}
	if err := fsat.ChownAt(to, name, st.UID, st.GID); err != nil {
		return err
	}
	return fsat.UtimesAt(to, name, st.Atime, st.Mtime)
}

func copyRegular(from, to int, name string, st fsat.Stat) error {
	srcFd, err := fsat.OpenRegular(from, name)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(srcFd), name)
	defer src.Close()
	dstFd, err := fsat.Create(to, name)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(dstFd), name)
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	attrs, err := fsat.Fxattrs(srcFd)
	if err != nil {
		return err
	}
	return dress(dstFd, st, attrs)
}
