package launch

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// StepError is a step of a plan that failed in the child.
type StepError struct {
	Op    plan.Op
	Index int    // of the instruction
	Step  string // what was being done, in the words of the plan
	Errno syscall.Errno
}

// Error is one sentence: the step, the object, the cause, and what usually causes it where that is something else.
func (e *StepError) Error() string {
	if find, ok := e.Op.(plan.FindProgram); ok {
		return e.notFound(find)
	}
	if ex, ok := e.Op.(plan.Exec); ok {
		return fmt.Sprintf("exec %s: %v%s", first(ex), e.Errno, execHint(e.Errno))
	}
	return fmt.Sprintf("%s: %v%s", e.Step, e.Errno, hint(e.Op, e.Errno))
}

// Unwrap gives the kernel's error.
func (e *StepError) Unwrap() error { return e.Errno }

// notFound uses the words that Docker, Podman and Kubernetes look for.
func (e *StepError) notFound(find plan.FindProgram) string {
	if hint, ok := pathHint(e.Errno); ok && !strings.Contains(find.Arg, "/") {
		return fmt.Sprintf("exec: %q: executable file not found in $PATH%s", find.Arg, hint)
	}
	switch e.Errno {
	case unix.EACCES:
		return fmt.Sprintf("exec: %q: permission denied", find.Arg)
	case unix.EISDIR: // what newer versions of runc say, and what execve(2) and older ones do
		return fmt.Sprintf("exec: %q: %v: %v", find.Arg, unix.EISDIR, unix.EACCES)
	}
	return fmt.Sprintf("exec: %q: stat %s: %v", find.Arg, find.Arg, e.Errno)
}

// pathHint tells whether an error means that PATH leads to no program, and what has its name instead. It does not use
// the kernel's words, which would make Podman take this for another error.
func pathHint(errno syscall.Errno) (hint string, ok bool) {
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		return "", true
	case unix.EACCES:
		return " (a file of that name is not executable)", true
	case unix.EISDIR:
		return " (a directory has that name)", true
	case unix.ELOOP:
		return " (a symbolic link of that name leads to itself)", true
	}
	return "", false
}

func first(ex plan.Exec) string {
	if len(ex.Args) > 0 {
		return ex.Args[0]
	}
	return ex.Path
}

func execHint(errno syscall.Errno) string {
	switch errno {
	case unix.ENOENT:
		return " (the interpreter that its first line or its ELF header names does not exist in the root file system)"
	case unix.ENOEXEC:
		return " (not a program for this machine, or a script without #! line)"
	case unix.EACCES:
		return " (not executable, or on a file system mounted noexec)"
	}
	return ""
}

func hint(op plan.Op, errno syscall.Errno) string {
	switch o := op.(type) {
	case plan.OpenTree:
		switch {
		case errno == unix.EINVAL && o.Map > 0:
			return " (its file system may not map ids)"
		case errno == unix.EINVAL && !o.Recursive:
			return " (in a user namespace what is mounted below it comes along: use rbind)"
		}
	case plan.Bind:
		if errno == unix.ENOTDIR {
			return " (source and destination must both be directories or both be files)"
		}
	case plan.Mount:
		switch {
		case errno == unix.ENODEV:
			return fmt.Sprintf(" (the kernel knows no file system %s)", o.Type)
		case errno == unix.EPERM && o.Type == "sysfs":
			return " (in a user namespace sysfs needs a network namespace of its own)"
		case errno == unix.EPERM && o.Type == "proc":
			return " (in a user namespace the runtime's own /proc must not be covered by other mounts)"
		}
	case plan.Join:
		if errno == unix.EINVAL {
			return fmt.Sprintf(" (%s is no %s namespace)", o.Path, o.Type)
		}
	case plan.Root:
		if errno == unix.EACCES {
			return " (the root of the user namespace must be able to reach it)"
		}
	case plan.Seccomp:
		if errno == unix.EAGAIN && o.Notify {
			return " (pids.limit or RLIMIT_NPROC must leave room for one more process until the listener is sent)"
		}
	case plan.MemoryPolicy:
		if errno == unix.EINVAL {
			return " (the kernel may not know the mode, or not have the nodes)"
		}
	case plan.Sysctl:
		if errno == unix.ENOENT {
			return " (the kernel has no such setting)"
		}
	case plan.CloneChild:
		if errno == unix.EAGAIN {
			return " (the container's pids.limit or the user's RLIMIT_NPROC may be reached)"
		}
	case plan.JoinCgroup:
		if errno == unix.ENOSPC {
			return " (its cpuset has no CPUs or memory nodes)"
		}
	}
	return ""
}

// ErrGone is a child that ended before it could say anything.
var ErrGone = errors.New("the container's first process was killed while it was being set up")
