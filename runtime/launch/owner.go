package launch

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// MountOwner returns the inodes of a process's user namespace, and of the one that owns its mount namespace
// (ioctl_ns(2)).
func MountOwner(pid int) (user, owner uint64, err error) {
	if user, err = UserNamespace(pid); err != nil {
		return 0, 0, err
	}
	owner, err = NamespaceOwner("/proc/" + strconv.Itoa(pid) + "/ns/mnt")
	return user, owner, err
}

// UserNamespace returns the inode of a process's user namespace.
func UserNamespace(pid int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/user", &st); err != nil {
		return 0, fmt.Errorf("look at the user namespace of process %d: %w", pid, err)
	}
	return st.Ino, nil
}

// NamespaceOwner returns the inode of the user namespace that owns the namespace at path. EPERM: the caller may not
// know it.
func NamespaceOwner(path string) (uint64, error) {
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open namespace %s: %w", path, err)
	}
	defer unix.Close(ns)
	fd, err := unix.IoctlRetInt(ns, unix.NS_GET_USERNS)
	if err != nil {
		return 0, fmt.Errorf("find the owner of namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("look at the owner of namespace %s: %w", path, err)
	}
	return st.Ino, nil
}
