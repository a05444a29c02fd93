package prefault

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Range maps the pages from the beginning of b on, which may go on behind it.
func Range(b []byte, bytes int) {
	page := uintptr(os.Getpagesize())
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(b))) &^ (page - 1)
	unix.RawSyscall(unix.SYS_MADVISE, begin, uintptr(bytes), unix.MADV_POPULATE_WRITE)
}
