// Package atomicfile replaces small files so that a reader, and the disk after a power cut, sees the old content or the new
// one and nothing between.
package atomicfile

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
)

// Option changes how Write works.
type Option int

// NoSync leaves out the two fsync calls: for files below a tmpfs such as /run, which no power cut survives.
const NoSync Option = 1

// Write puts data into path with mode perm by writing a temporary file in the same directory and renaming it over path.
// On an error path is as it was and the temporary file is gone. It may be called by several processes at once: the last
// rename wins.
func Write(path string, data []byte, perm os.FileMode, opts ...Option) error {
	sync := true
	for _, o := range opts {
		if o == NoSync {
			sync = false
		}
	}
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	tmp, err := writeNew(filepath.Join(dir, "."+base+"."), data, perm, sync)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	if !sync {
		return nil
	}
	return syncDir(dir)
}

// writeNew writes data to a file of a new name, which O_EXCL guarantees: the numbers need not be secret.
func writeNew(prefix string, data []byte, perm os.FileMode, sync bool) (tmp string, err error) {
	for range 100 {
		tmp = prefix + strconv.FormatUint(rand.Uint64(), 36)
		f, e := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
		if err = e; errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			if err = fill(f, data, perm, sync); err != nil {
				os.Remove(tmp)
			}
		}
		return tmp, err
	}
	return tmp, err
}

// fill writes and closes f.
func fill(f *os.File, data []byte, perm os.FileMode, sync bool) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm) // the mode is the caller's, whatever its umask
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	d.Close()
	return err
}
