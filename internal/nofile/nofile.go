// Package nofile remembers the limit of open files with which this process was started.
//
// Package syscall raises the soft limit in its init function and keeps the old value to itself and for os/exec. A runtime that
// clones by itself must give its container the limit that the caller set. This package imports nothing, so the linker
// initialises it before all others that are not part of the runtime.
package nofile

// Start is the soft and the hard limit at the start, as numbers of descriptors; 0, 0 where it is not known (architectures
// without an assembly file here).
var Start = atStart()

func atStart() (limit [2]uint64) {
	get(&limit)
	return limit
}
