package launch

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// MountOwner returns the inodes of a process's user namespace, and of the one that owns its mount namespace (ioctl_ns(2)).
func MountOwner(pid int) (user, owner uint64, err error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/ns/"
	var st unix.Stat_t
	if err := unix.Stat(dir+"user", &st); err != nil {
		return 0, 0, fmt.Errorf("look at the user namespace of process %d: %w", pid, err)
	}
	user = st.Ino
	mnt, err := unix.Open(dir+"mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("open the mount namespace of process %d: %w", pid, err)
	}
	defer unix.Close(mnt)
	fd, err := unix.IoctlRetInt(mnt, unix.NS_GET_USERNS)
	if err != nil {
		return 0, 0, fmt.Errorf("find the owner of the mount namespace of process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, fmt.Errorf("look at the owner of the mount namespace of process %d: %w", pid, err)
	}
	return user, st.Ino, nil
}
