// Package kernel says which system calls that tare needs the running kernel does not have.
package kernel

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Oldest is the oldest version of Linux that has all that tare needs.
const Oldest = "5.14"

// invalid is an argument that every probed call refuses: a descriptor that cannot be open, flags that do not exist.
const invalid = ^uintptr(0)

// Missing returns the names of the system calls that answer ENOSYS, because the kernel is older than Oldest or because
// a seccomp filter that this process has inherited answers in its place. Every call is made with arguments for which it
// does nothing.
func Missing() []string {
	var missing []string
	for _, c := range [...]struct {
		name   string
		number uintptr
		args   [4]uintptr
	}{
		{"clone3", unix.SYS_CLONE3, [4]uintptr{}},                      // a structure of 0 bytes
		{"close_range", unix.SYS_CLOSE_RANGE, [4]uintptr{1}},           // from 1 to 0
		{"faccessat2", unix.SYS_FACCESSAT2, [4]uintptr{3: invalid}},    // flags
		{"fsconfig", unix.SYS_FSCONFIG, [4]uintptr{invalid, invalid}},  // descriptor, command
		{"fsmount", unix.SYS_FSMOUNT, [4]uintptr{invalid, invalid}},    // descriptor, flags
		{"fsopen", unix.SYS_FSOPEN, [4]uintptr{1: invalid}},            // flags
		{"fspick", unix.SYS_FSPICK, [4]uintptr{invalid, 0, invalid}},   // descriptor, flags
		{"mount_setattr", unix.SYS_MOUNT_SETATTR, [4]uintptr{invalid}}, // descriptor, a structure of 0 bytes
		{"move_mount", unix.SYS_MOVE_MOUNT, [4]uintptr{invalid}},       // descriptor, no path
		{"open_tree", unix.SYS_OPEN_TREE, [4]uintptr{2: invalid}},      // flags
		{"openat2", unix.SYS_OPENAT2, [4]uintptr{invalid}},             // descriptor, a structure of 0 bytes
		{"pidfd_open", unix.SYS_PIDFD_OPEN, [4]uintptr{0}},             // pid
		{"pidfd_send_signal", unix.SYS_PIDFD_SEND_SIGNAL, [4]uintptr{invalid}},
		{"statx", unix.SYS_STATX, [4]uintptr{invalid}}, // descriptor, no path
	} {
		if _, _, errno := unix.RawSyscall6(c.number, c.args[0], c.args[1], c.args[2], c.args[3], 0, 0); errno == unix.ENOSYS {
			missing = append(missing, c.name)
		}
	}
	return missing
}

// Hint explains ENOSYS to the reader of an error: which calls are missing, and what is needed. It is empty if none is.
func Hint() string {
	missing := Missing()
	if len(missing) == 0 {
		return ""
	}
	return " (missing system calls: " + strings.Join(missing, ", ") + "; tare needs Linux " + Oldest +
		" or newer, without a seccomp filter that hides them)"
}
