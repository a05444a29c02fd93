// Package writeback lets the kernel begin to write a file to the disk while it still grows, so that the fsync at its end has
// little left to wait for.
package writeback

import (
	"os"

	"golang.org/x/sys/unix"
)

// Start begins to write n bytes of f from offset on, and waits only for room in the device's queue. It promises nothing about
// what a power cut leaves: that is fsync's (sync_file_range(2)).
func Start(f *os.File, offset, n int64) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = conn.Control(func(fd uintptr) { inner = unix.SyncFileRange(int(fd), offset, n, unix.SYNC_FILE_RANGE_WRITE) })
	if err != nil {
		return err
	}
	return inner
}
