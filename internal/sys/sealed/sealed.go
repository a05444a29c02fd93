// Package sealed keeps a program's own file from being overwritten by what it starts.
//
// A process of a container can reach the file of the runtime that started it through /proc/PID/exe, or by being
// "#!/proc/self/exe", and write to it once the runtime has ended (CVE-2019-5736).
package sealed

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// seals of a memfd that nobody can change any more.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// Protected tells whether this program's file cannot be written by anybody who finds it through /proc: it lies on a read-only
// mount, is a sealed memfd, or this user has no right to write it.
func Protected() (bool, error) {
	fd, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("open own program: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false, fmt.Errorf("look at own program: %w", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return true, nil
	}
	if have, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err == nil && have&seals == seals {
		return true, nil
	}
	return unix.Faccessat(unix.AT_FDCWD, "/proc/self/exe", unix.W_OK, unix.AT_EACCESS) != nil, nil
}

// Exec replaces this process by the same program with the same arguments, executed from a sealed copy in memory. It returns
// only on an error.
func Exec() error {
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("open own program: %w", err)
	}
	defer src.Close()
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("tare-runtime", flags|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 every memfd could be executed
		fd, err = unix.MemfdCreate("tare-runtime", flags)
	}
	if err != nil {
		return fmt.Errorf("make memory for a copy of own program: %w", err)
	}
	dst := os.NewFile(uintptr(fd), "memfd:tare-runtime")
	defer dst.Close()
	if _, err := dst.ReadFrom(src); err != nil {
		return fmt.Errorf("copy own program: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("seal copy of own program: %w", err)
	}
	argv, err := syscall.SlicePtrFromStrings(os.Args)
	if err != nil {
		return err
	}
	envp, err := syscall.SlicePtrFromStrings(os.Environ())
	if err != nil {
		return err
	}
	return execve(fd, argv, envp)
}
