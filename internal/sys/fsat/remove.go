package fsat

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxOpenLevels is how deep RemoveAll descends before it moves what lies deeper up to the top, so that a tree of any depth
// takes a bounded number of descriptors (a container can make its own tree a million levels deep).
const maxOpenLevels = 64

// RemoveAll removes name from dir with everything below it; a missing name is no error. It never follows a symbolic link and
// never crosses into another mount (EXDEV or EBUSY): what is mounted there belongs to somebody else. A directory without
// permission bits is made accessible first, which matters without root's rights.
func RemoveAll(dir int, name string) error {
	return new(remover).remove(dir, name, 0)
}

type remover struct {
	top   int // the directory that RemoveAll was asked to remove; deep ones are moved into it
	moved int // how many names were tried for that
}

func (r *remover) remove(dir int, name string, level int) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s: %w", name, err)
	}
	// Empty directories, the most common ones, need no opening.
	removed := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	if removed == nil || errors.Is(removed, unix.ENOENT) {
		return nil
	}
	if errors.Is(removed, unix.ENOTDIR) {
		return fmt.Errorf("%s: %w", name, err) // EPERM of a file that is immutable, say
	}
	if !errors.Is(removed, unix.ENOTEMPTY) && !errors.Is(removed, unix.EEXIST) {
		return fmt.Errorf("%s: %w", name, removed)
	}
	if level >= maxOpenLevels {
		return r.moveUp(dir, name)
	}
	return r.empty(dir, name, level)
}

// empty removes what the directory name contains, then the directory.
func (r *remover) empty(dir int, name string, level int) error {
	fd, err := openSameMount(dir, name)
	if errors.Is(err, unix.EACCES) && ChmodAt(dir, name, 0o700) == nil {
		fd, err = openSameMount(dir, name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(fd)
	if level == 0 {
		r.top = fd
	}
	opened := false
	for {
		n := 0
		err := Names(fd, func(child string) error {
			n++
			err := r.remove(fd, child, level+1)
			if errors.Is(err, unix.EACCES) && !opened {
				opened = true
				if Fchmod(fd, 0o700) == nil {
					err = r.remove(fd, child, level+1)
				}
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%s/%w", name, err)
		}
		err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		// Another round, as long as a round finds something: for directories that moveUp put here, and for file systems that
		// skip names while others are removed.
		if errors.Is(err, unix.ENOTEMPTY) && n > 0 {
			continue
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
}

// moveUp renames a deep directory into the top one, where the next round finds it.
func (r *remover) moveUp(dir int, name string) error {
	for {
		r.moved++
		err := Rename(dir, name, r.top, ".tare-removing-"+strconv.Itoa(r.moved))
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
}

// openSameMount opens the directory name in dir for reading; EXDEV if something is mounted on it.
func openSameMount(dir int, name string) (int, error) {
	return openat2(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
}
