package descriptor

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ptsMajor and the seven after it are the device numbers of pseudo terminals (Documentation/admin-guide/devices.txt).
const ptsMajor = 136

// Name says what descriptor fd of process pid is connected with, in the words of criu(8): "pipe:[INODE]" and "socket:[INODE]" as the
// kernel writes them, "file[MOUNT:INODE]" in hexadecimal for a file, the path of a terminal, empty for a descriptor that is not open.
func Name(pid, fd int) string {
	path := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
	name, err := os.Readlink(path)
	if err != nil || !strings.HasPrefix(name, "/") {
		return name
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return ""
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev_major >= ptsMajor && st.Rdev_major < ptsMajor+8 {
		return name
	}
	return fmt.Sprintf("file[%x:%x]", st.Mnt_id, st.Ino)
}

// Dup returns another descriptor of what fd of this process refers to, closed on exec, with a number from 10 on. The caller closes it.
func Dup(fd int) (*os.File, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 10)
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor %d: %w", fd, err)
	}
	return os.NewFile(uintptr(n), fmt.Sprintf("descriptor %d", fd)), nil
}

// Memory returns a new file without a name, in memory, closed on exec. The caller closes it.
func Memory(label string) (*os.File, error) {
	n, err := unix.MemfdCreate(label, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make file in memory: %w", err)
	}
	return os.NewFile(uintptr(n), label), nil
}
