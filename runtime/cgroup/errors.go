package cgroup

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrNotPermitted is wrapped by errors of Create, Join and Apply when the caller may not write to a hierarchy. A
// rootless caller whose container asks for no limits may go on without a cgroup.
var ErrNotPermitted = errors.New("cgroup is not writable for this user")

// ErrUnfit is wrapped by errors of Create when the group is in use or frozen (runtime-spec, "Cgroups Path").
var ErrUnfit = errors.New("cgroup is not usable")

// fileError is a failed access to a control file. Its text names the file, the value, the property of
// linux.resources it stands for, the usual cause, and ends in the kernel's word.
type fileError struct {
	op    string // read, write, mkdir …
	path  string
	value string
	prop  string // property of config.json, or empty
	hint  string // the usual cause, or empty
	err   error
}

func (e *fileError) Error() string {
	s := e.op
	if e.value != "" {
		s += fmt.Sprintf(" %q to", short(e.value))
	}
	s += " " + e.path
	if e.prop != "" {
		s = "set " + e.prop + ": " + s
	}
	if e.hint != "" {
		s += " (" + e.hint + ")"
	}
	return s + ": " + e.err.Error()
}

// Unwrap gives the errno, and ErrNotPermitted for a lack of rights.
func (e *fileError) Unwrap() []error {
	switch e.err {
	case syscall.EACCES, syscall.EPERM, syscall.EROFS:
		return []error{e.err, ErrNotPermitted}
	}
	return []error{e.err}
}

func short(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}

// unsupported says that a property cannot be honoured here.
func unsupported(prop, why string) error {
	return fmt.Errorf("set %s: %s: %w", prop, why, errors.ErrUnsupported)
}

// invalid says that a property's value is wrong whatever the host.
func invalid(prop, format string, args ...any) error {
	return fmt.Errorf("set %s: %s: %w", prop, fmt.Sprintf(format, args...), syscall.EINVAL)
}

// bare strips the path that os wraps around an errno.
func bare(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
