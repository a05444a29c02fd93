package fsat

import (
	"os"

	"golang.org/x/sys/unix"
)

// OpenDirInRoot opens the directory that path names below root for reading, links resolved as OpenRegularInRoot resolves
// them. The caller closes the result with Close.
func OpenDirInRoot(root *os.File, path string) (int, error) {
	fd := -1
	err := withFd(root, func(dir int) (err error) {
		fd, err = openInRoot(dir, path, unix.O_RDONLY|unix.O_DIRECTORY)
		return err
	})
	return fd, err
}
