package ocitest

// WorkDir returns the suite's own directory: mode 0755, removed at the end of the suite. Its base name marks the suite's cgroups:
// the oracle finds, and Main at the end removes, every cgroup that has it in its path.
func WorkDir() string { return workDir }

// Reap waits for dead children that were re-parented to the suite.
func Reap() { reapOnce() }
