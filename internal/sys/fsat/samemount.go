package fsat

import "golang.org/x/sys/unix"

// OpenDirSameMount is OpenDir, and gives EXDEV if something is mounted on the directory.
func OpenDirSameMount(dir int, name string) (int, error) { return openSameMount(dir, name) }

// OpenRegularSameMount is OpenRegular, and gives EXDEV if something is mounted on the file.
func OpenRegularSameMount(dir int, name string) (int, error) {
	const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV
	probe, err := openat2(dir, name, unix.O_PATH|unix.O_NOFOLLOW, resolve)
	if err != nil {
		return -1, err
	}
	defer unix.Close(probe)
	return reopenRegular(probe, func() (int, error) {
		return openat2(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, resolve)
	})
}
