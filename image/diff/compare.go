package diff

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// isWhiteout tells whether name in dir is overlayfs's mark for a removed name.
func (w *walker) isWhiteout(dir int, name string) (bool, error) {
	st, err := fsat.Lstat(dir, name)
	if err != nil {
		return false, err
	}
	return w.isWhiteoutStat(dir, name, &st)
}

// isWhiteoutStat knows both forms: a character device 0:0, and an empty file with an attribute (Linux 6.7, for overlayfs in
// overlayfs).
func (w *walker) isWhiteoutStat(dir int, name string, st *fsat.Stat) (bool, error) {
	if st.IsWhiteout() {
		return true, nil
	}
	if !st.IsRegular() || st.Size > 0 {
		return false, nil
	}
	x, err := fsat.XattrsAt(dir, name)
	if errors.Is(err, syscall.ENOENT) {
		return false, nil
	}
	_, marked := x[w.prefix+"whiteout"]
	return marked, err
}

// below finds name in merged directories, the nearest first, and returns the directory that has it. ENOENT if none shows it.
func (w *walker) below(lower []int, name string) (*fsat.Stat, int, error) {
	for _, dir := range lower {
		st, err := fsat.Lstat(dir, name)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return nil, -1, err
		}
		if w.in.Overlay {
			hidden, err := w.isWhiteoutStat(dir, name, &st)
			if err != nil {
				return nil, -1, err
			}
			if hidden {
				break
			}
		}
		return &st, dir, nil
	}
	return nil, -1, syscall.ENOENT
}

// descend opens the directories name of merged directories that are merged in turn.
func (w *walker) descend(lower []int, name string) (fds []int, closeAll func(), err error) {
	closeAll = func() {
		for _, fd := range fds {
			fsat.Close(fd)
		}
	}
	for _, dir := range lower {
		st, err := fsat.Lstat(dir, name)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err == nil && !st.IsDir() {
			break
		}
		fd := -1
		if err == nil {
			fd, err = fsat.OpenDirSameMount(dir, name)
		}
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		fds = append(fds, fd)
		marks, err := w.ownMarks(fd, name)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		if marks["opaque"] == "y" {
			break
		}
	}
	return fds, closeAll, nil
}

// mergedNames returns the names that merged directories show, sorted.
func (w *walker) mergedNames(lower []int) ([]string, error) {
	set := map[string]bool{} // false: hidden
	for _, dir := range lower {
		err := fsat.Names(dir, func(name string) error {
			if _, known := set[name]; known {
				return nil
			}
			hidden := false
			var err error
			if w.in.Overlay {
				hidden, err = w.isWhiteout(dir, name)
			}
			set[name] = !hidden
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	maps.DeleteFunc(set, func(_ string, shown bool) bool { return !shown })
	return slices.Sorted(maps.Keys(set)), nil
}

// sameFile tells whether e is the file low in lowDir: attributes, link and, where it is compared, content. Whether what is in a
// directory is the same is not asked.
func (w *walker) sameFile(e *event, low *fsat.Stat, lowDir int) (bool, error) {
	if !e.IsDir() && (w.in.Overlay && e.Nlink > 1 || w.links && e.Nlink != low.Nlink) {
		return false, nil // the names of one file have to be in one layer
	}
	same, err := w.same(&e.Stat, low,
		func() (xattrs, error) { x, err := fsat.XattrsAt(e.dir, e.name); return kept(x), err },
		func() (xattrs, error) { x, err := fsat.XattrsAt(lowDir, e.name); return kept(x), err })
	if err != nil || !same {
		return false, err
	}
	switch {
	case e.IsSymlink():
		a, err := fsat.Readlink(e.dir, e.name)
		if err != nil {
			return false, err
		}
		b, err := fsat.Readlink(lowDir, e.name)
		return a == b, err
	case e.IsRegular() && (w.in.Content || w.in.Overlay):
		return w.sameContent(e, lowDir)
	}
	return true, nil
}

// same compares attributes (row LY12): type, mode, owner, time of modification, device number, size of a regular file, extended
// attributes.
func (w *walker) same(a, b *fsat.Stat, ax, bx func() (xattrs, error)) (bool, error) {
	device := a.Mode&syscall.S_IFMT == syscall.S_IFCHR || a.Mode&syscall.S_IFMT == syscall.S_IFBLK
	if a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || !a.Mtime.Equal(b.Mtime) || a.IsRegular() && a.Size != b.Size || device && a.Rdev != b.Rdev {
		return false, nil
	}
	x, err := ax()
	if err != nil {
		return false, err
	}
	y, err := bx()
	return maps.Equal(x, y), err
}

// sameContent compares the bytes of two regular files of equal size.
func (w *walker) sameContent(e *event, lowDir int) (bool, error) {
	a, err := fsat.OpenRegular(e.dir, e.name)
	if err != nil {
		return false, err
	}
	defer fsat.Close(a)
	b, err := fsat.OpenRegular(lowDir, e.name)
	if err != nil {
		return false, err
	}
	defer fsat.Close(b)
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		if err := w.ctx.Err(); err != nil {
			return false, err
		}
		n, err := readFull(a, x)
		if err != nil {
			return false, err
		}
		m, err := readFull(b, y)
		if err != nil {
			return false, fmt.Errorf("lower file: %w", err)
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if n < len(x) {
			return true, nil
		}
	}
}

// readFull reads until p is full or the file ends.
func readFull(fd int, p []byte) (n int, err error) {
	for n < len(p) {
		m, err := fsat.Read(fd, p[n:])
		if err != nil {
			return n, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}
