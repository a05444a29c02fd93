package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Magic numbers of image files (criu's magic.h): the first is that of all, the second that of the kind.
const (
	magicCommon  = 0x54564319
	magicMounts  = 0x55563928
	magicCore    = 0x55053847
	magicSeccomp = 0x64413049
)

// Limits of a directory of images: what exceeds them is not restored.
const (
	maxFiles   = 100_000
	maxCopied  = 16 << 20  // bytes of a file that is copied; larger ones are mounted
	maxTotal   = 512 << 20 // bytes of all copies
	maxParents = 100
)

// checked are the beginnings of the names of the files that are read before criu reads them.
func checked(name string) bool {
	return strings.HasPrefix(name, "mountpoints-") || strings.HasPrefix(name, "core-") || name == "seccomp.img"
}

// Link is a file of the images that is not copied but mounted.
type Link struct{ Path, Name string } // Path is absolute and without links; Name is relative to the copies

// CopyImages makes dir, which exists and is only the runtime's, hold the images of from, and returns the files that are to be mounted
// there. What the runtime looks at before criu does is copied, so that nobody changes it in between; memory pages and large files,
// which are the container's own data, are not. The images of an earlier dump, which criu finds by the name "parent", come along: they
// must lie beside from or below it, because the name comes with the images.
func CopyImages(from, dir string) ([]Link, error) {
	from, err := filepath.EvalSymlinks(from)
	if err == nil {
		from, err = filepath.Abs(from)
	}
	if err != nil {
		return nil, fmt.Errorf("find images: %w", err)
	}
	c := &copying{dir: dir, within: filepath.Dir(from)}
	if err := c.level(from, ""); err != nil {
		return nil, err
	}
	return c.links, nil
}

// copying is a CopyImages in progress.
type copying struct {
	dir, within string
	files       int
	total       int64
	links       []Link
}

// level copies the images of one dump to the directory name below c.dir.
func (c *copying) level(from, name string) error {
	list, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("read images: %w", err)
	}
	if c.files += len(list); c.files > maxFiles {
		return fmt.Errorf("read images: more than %d files", maxFiles)
	}
	for _, e := range list {
		if err := c.file(from, name, e); err != nil {
			return err
		}
	}
	return nil
}

func (c *copying) file(from, name string, e os.DirEntry) error {
	path, to := filepath.Join(from, e.Name()), filepath.Join(name, e.Name())
	if e.Name() == "parent" {
		return c.parent(path, to)
	}
	if !strings.HasSuffix(to, ".img") && to != Descriptors {
		return nil // logs, statistics
	}
	info, err := e.Info()
	if err != nil {
		return fmt.Errorf("read images: %w", err)
	}
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("read images: %s is not a regular file", path)
	case strings.HasPrefix(e.Name(), "pages-") || info.Size() > maxCopied && !checked(e.Name()):
		c.links = append(c.links, Link{path, to})
		return nil
	}
	n, err := copyImage(path, filepath.Join(c.dir, to))
	if err != nil {
		return fmt.Errorf("copy image: %w", err)
	}
	if c.total += n; c.total > maxTotal {
		return fmt.Errorf("copy images: more than %d MiB of descriptions", maxTotal>>20)
	}
	return nil
}

// parent copies the images of the dump before.
func (c *copying) parent(path, to string) error {
	from, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("find parent images: %w", err)
	}
	if !strings.HasPrefix(from, strings.TrimSuffix(c.within, "/")+"/") {
		return fmt.Errorf("find parent images: %s is not below %s", from, c.within)
	}
	if strings.Count(to, "/") > maxParents {
		return fmt.Errorf("find parent images: more than %d dumps before this one", maxParents)
	}
	if err := os.Mkdir(filepath.Join(c.dir, to), 0o755); err != nil {
		return err
	}
	return c.level(from, to)
}

func copyImage(from, to string) (int64, error) {
	src, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(dst, io.LimitReader(src, maxCopied+1))
	if err == nil && n > maxCopied {
		err = fmt.Errorf("%s is larger than %d MiB", from, maxCopied>>20)
	}
	return n, errors.Join(err, dst.Close())
}

// Descriptors is the file beside the images with what the standard streams were, as runc has it.
const Descriptors = "descriptors.json"

// first calls use for the first entry of an image file: criu reads no other where one is expected.
func first(path string, magic uint32, use func(entry []byte) error) error {
	n := 0
	return entries(path, magic, func(entry []byte) error {
		if n++; n > 1 {
			return errors.New("more than one entry")
		}
		return use(entry)
	})
}

// entries calls use for each entry of the image file at path, which has the given magic number.
func entries(path string, magic uint32, use func(entry []byte) error) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(data) < 8 || binary.LittleEndian.Uint32(data) != magicCommon || binary.LittleEndian.Uint32(data[4:]) != magic {
		return fmt.Errorf("%s is not an image of criu of this kind", filepath.Base(path))
	}
	for data = data[8:]; len(data) > 0; {
		if len(data) < 4 {
			return fmt.Errorf("%s: %w", filepath.Base(path), errTruncated)
		}
		size := binary.LittleEndian.Uint32(data)
		if uint64(size) > uint64(len(data)-4) {
			return fmt.Errorf("%s: %w", filepath.Base(path), errTruncated)
		}
		if err := use(data[4 : 4+size]); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		data = data[4+size:]
	}
	return nil
}

// Mount is a mount of the dumped container as the images describe it.
type Mount struct {
	ID, Parent int
	Point      string // absolute, in the container
	Root       string // of the mount within its file system
	Flags      uint64 // MS_* of the mount
	Type       int    // criu's number of the file system; 5 is tmpfs
	FSName     string // where Type has no number for it
	Source     string
	Options    string
	Key        string // of an external mount; empty for others
	External   bool
}

// mountsFile is the path of the image with the mounts. A container with several mount namespaces has several, and is refused.
func mountsFile(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "mountpoints-*.img"))
	if err != nil {
		return "", err
	}
	if len(files) != 1 {
		return "", fmt.Errorf("the images describe %d mount namespaces: only containers with one are restored", len(files))
	}
	return files[0], nil
}

// ReadMounts returns the mounts of the images in dir.
func ReadMounts(dir string) ([]Mount, error) {
	file, err := mountsFile(dir)
	if err != nil {
		return nil, err
	}
	var list []Mount
	err = entries(file, magicMounts, func(entry []byte) error {
		var m Mount
		err := decode(entry, func(f field) error {
			switch f.id {
			case 1:
				m.Type = int(uint32(f.value))
			case 2:
				m.ID = int(uint32(f.value))
			case 4:
				m.Parent = int(uint32(f.value))
			case 5:
				m.Flags = uint64(uint32(f.value))
			case 6:
				m.Root = string(f.bytes)
			case 7:
				m.Point = string(f.bytes)
			case 8:
				m.Source = string(f.bytes)
			case 9:
				m.Options = string(f.bytes)
			case 13:
				m.External = f.value != 0
			case 14:
				m.FSName = string(f.bytes)
			case 18:
				m.Key = string(f.bytes)
			}
			return nil
		})
		list = append(list, m)
		return err
	})
	return list, err
}

// Sharing says with which mounts one shares what is mounted below it: numbers of groups, 0 for none.
type Sharing struct{ Shared, Master uint32 }

// SetSharing changes the groups of the mounts in the images in dir, which are the runtime's own copies, to what choose returns for
// each; false leaves a mount as it is. The numbers mean nothing but which mounts are of the same group.
func SetSharing(dir string, choose func(m Mount) (Sharing, bool)) error {
	list, err := ReadMounts(dir)
	if err != nil {
		return err
	}
	file, err := mountsFile(dir)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	out, n := data[:8:8], 0
	err = entries(file, magicMounts, func(entry []byte) error {
		if s, ok := choose(list[n]); ok {
			rest, err := without(entry, 10, 11)
			if err != nil {
				return err
			}
			m := message(rest)
			if s.Shared != 0 {
				m = m.number(10, int64(s.Shared))
			}
			if s.Master != 0 {
				m = m.number(11, int64(s.Master))
			}
			entry = m
		}
		n++
		out = append(binary.LittleEndian.AppendUint32(out, uint32(len(entry))), entry...)
		return nil
	})
	if err != nil {
		return err
	}
	return os.WriteFile(file, out, 0o600)
}

// without returns the message without two of its fields.
func without(entry []byte, a, b int) (out []byte, err error) {
	for len(entry) > 0 {
		f, n, err := next(entry)
		if err != nil {
			return nil, err
		}
		if f.id != a && f.id != b {
			out = append(out, entry[:n]...)
		}
		entry = entry[n:]
	}
	return out, nil
}

// seccompFilter is one filter of seccomp.img: a program and the number of the one that was there before it.
type seccompFilter struct {
	program []byte
	prev    int // -1: none
}

// CheckSeccomp makes sure that every thread of the images in dir runs below a filter with exactly this program.
func CheckSeccomp(dir string, program []byte) error {
	filters, err := readSeccomp(filepath.Join(dir, "seccomp.img"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "core-*.img"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("the images have no process")
	}
	for _, file := range files {
		t, err := readThread(file)
		if err != nil {
			return err
		}
		if t.mode != 2 {
			return fmt.Errorf("thread %s of the images has no seccomp filter", threadOf(file))
		}
		if !under(filters, t.filter, program) {
			return fmt.Errorf("thread %s of the images is not below the filter of linux.seccomp: its profile, or the runtime that it "+
				"was made by, was another", threadOf(file))
		}
	}
	return nil
}

func threadOf(file string) string {
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "core-"), ".img")
}

// under tells whether the chain of filters that begins with number n has the program.
func under(filters []seccompFilter, n int, program []byte) bool {
	for steps := 0; n >= 0 && n < len(filters) && steps <= len(filters); steps++ {
		if string(filters[n].program) == string(program) {
			return true
		}
		n = filters[n].prev
	}
	return false
}

func readSeccomp(path string) ([]seccompFilter, error) {
	var list []seccompFilter
	err := first(path, magicSeccomp, func(entry []byte) error {
		return decode(entry, func(f field) error {
			if f.id != 1 {
				return nil
			}
			s := seccompFilter{prev: -1}
			err := decode(f.bytes, func(f field) error {
				switch f.id {
				case 1:
					s.program = f.bytes
				case 2:
					s.prev = int(uint32(f.value))
				}
				return nil
			})
			list = append(list, s)
			return err
		})
	})
	return list, err
}

// thread is what a core image says of a thread's filter.
type thread struct{ mode, filter int }

// readThread reads a core image: the thread's own part, and the process's older one where that has none.
func readThread(path string) (thread, error) {
	old, own := thread{filter: -1}, thread{mode: -1, filter: -1}
	err := first(path, magicCore, func(entry []byte) error {
		return decode(entry, func(f field) error {
			switch f.id {
			case 3:
				return decode(f.bytes, func(f field) error {
					switch f.id {
					case 11:
						old.mode = int(uint32(f.value))
					case 12:
						old.filter = int(uint32(f.value))
					}
					return nil
				})
			case 5:
				return decode(f.bytes, func(f field) error {
					switch f.id {
					case 11:
						own.mode = int(uint32(f.value))
					case 12:
						own.filter = int(uint32(f.value))
					}
					return nil
				})
			}
			return nil
		})
	})
	if own.mode < 0 {
		return old, err
	}
	return own, err
}
