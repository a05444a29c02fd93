package launch

import "golang.org/x/sys/unix"

// ProcByDescriptor reports whether the kernel mounts a procfs of a pid namespace that is given by a descriptor (Linux
// 6.17). Older ones mount that of the calling process's own namespace.
func ProcByDescriptor() bool {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fs)
	return unix.FsconfigSetString(fs, "pidns", "/proc/self/ns/pid") == nil
}
