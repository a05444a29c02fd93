package vm

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
)

// archive writes an initramfs: cpio in "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	w    io.Writer
	ino  int
	made map[string]bool
	err  error
}

func newArchive(w io.Writer) *archive {
	return &archive{w: w, made: map[string]bool{"": true, ".": true, "/": true}}
}

// add writes one entry; data is size bytes long. Missing parents are made.
func (a *archive) add(name string, mode, size, dev uint32, data io.Reader) {
	name = path.Clean("/" + name)[1:]
	if a.err != nil || mode&syscall.S_IFMT == syscall.S_IFDIR && a.made[name] {
		return
	}
	if dir := path.Dir(name); !a.made[dir] {
		a.add(dir, syscall.S_IFDIR|0o755, 0, 0, nil)
	}
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		a.made[name] = true
	}
	a.ino++
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.ino, mode, 0, 0, 1, 0, size, 0, 0, dev>>8, dev&0xff, len(name)+1, 0, name)
	a.write([]byte(head))
	a.write(make([]byte, -len(head)&3))
	if data != nil && a.err == nil {
		n, err := io.Copy(a.w, io.LimitReader(data, int64(size)))
		if a.err = err; err == nil && n != int64(size) {
			a.err = fmt.Errorf("add %s: %d bytes of %d: %w", name, n, size, io.ErrUnexpectedEOF)
		}
	}
	a.write(make([]byte, -size&3))
}

func (a *archive) write(b []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(b)
	}
}

// tree adds a file or a directory of the host as name. Links are kept as links, apart from the top one; owners become
// root; other kinds of files are left out.
func (a *archive) tree(name, host string) {
	host, err := filepath.EvalSymlinks(host)
	if err != nil {
		a.err = err
		return
	}
	err = filepath.WalkDir(host, func(p string, d fs.DirEntry, err error) error {
		if err != nil || a.err != nil {
			return err
		}
		rel, err := filepath.Rel(host, p)
		if err != nil {
			return err
		}
		return a.entry(path.Join(name, rel), p)
	})
	if a.err == nil {
		a.err = err
	}
}

func (a *archive) entry(name, host string) error {
	st, err := os.Lstat(host)
	if err != nil {
		return err
	}
	perm := st.Sys().(*syscall.Stat_t).Mode & 0o7777
	switch {
	case st.IsDir():
		a.add(name, syscall.S_IFDIR|perm, 0, 0, nil)
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(host)
		if err != nil {
			return err
		}
		a.add(name, syscall.S_IFLNK|0o777, uint32(len(target)), 0, stringReader(target))
	case st.Mode().IsRegular():
		f, err := os.Open(host)
		if err != nil {
			return err
		}
		defer f.Close()
		a.add(name, syscall.S_IFREG|perm, uint32(st.Size()), 0, f)
	}
	return a.err
}

// close ends the archive.
func (a *archive) close() error {
	a.add("TRAILER!!!", 0, 0, 0, nil)
	return a.err
}
