package ocitest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Kernel reports whether the running kernel is Linux major.minor or newer.
func Kernel(major, minor int) bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}
