package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/tare-oci/tare/internal/sys/beneath"
)

// source is where an archive's files are. Its methods may be called from several goroutines at once.
type source interface {
	// open opens a regular file for reading; name is clean, relative and inside. No link is followed. The error is
	// fs.ErrNotExist for a file that is not there, and names it. The caller closes the file.
	open(name string) (*file, error)
	// resolve follows the links of a tar file to the name of a regular file inside. A directory has no links.
	resolve(name string) (string, error)
	io.Closer
}

// file is an open file of known size in bytes.
type file struct {
	io.ReadSeeker
	io.Closer
	size int64
}

// dir is a source in a directory.
type dir struct{ *beneath.Dir }

func openDir(path string) (source, error) {
	d, err := beneath.Open(path)
	if err != nil {
		if info, statErr := os.Stat(path); statErr == nil && info.Mode().IsRegular() {
			return nil, fmt.Errorf("%w; for a tar file use oci-archive:%s", err, path)
		}
		return nil, err
	}
	return dir{d}, nil
}

func (d dir) open(name string) (*file, error) {
	f, size, err := d.OpenFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(name)
	}
	if err != nil {
		return nil, err
	}
	return &file{f, f, size}, nil
}

func (d dir) resolve(name string) (string, error) { return name, nil }

// missing returns the error for a file that is not in the archive.
func missing(name string) error {
	return fmt.Errorf("%q is missing: %w", name, fs.ErrNotExist)
}
