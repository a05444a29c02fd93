package launch

import (
	"errors"

	"golang.org/x/sys/unix"
)

// due counts, by kind, the records that a plan's processes still have to send. The child is born among a container's
// processes with its end of the socket pair, which one that may trace it can take (pidfd_getfd(2)) and write to: what
// the plan does not send is not obeyed. What an intermediate process sends has come before there is such a child.
type due [recordKinds]int

// errForged is a record that the plan does not send, or one about a process that is not this one's child.
var errForged = errors.New("the container's process sent a record that its plan does not have (a process of the container may have taken its socket)")

// receive returns the child's next record and its descriptor, -1 where the kind has none.
func (c *Child) receive() (record, int, error) {
	r, descriptor, err := receive(c.sync)
	if err != nil {
		return r, descriptor, err
	}
	if !c.due.take(r.kind, descriptor >= 0) {
		if descriptor >= 0 {
			unix.Close(descriptor)
		}
		return r, -1, errForged
	}
	return r, descriptor, nil
}

// take reports whether a record may come, and counts it. An error may come instead of anything.
func (d *due) take(kind uint32, descriptor bool) bool {
	if kind == recordError {
		return !descriptor
	}
	if kind >= recordKinds || d[kind] == 0 {
		return false
	}
	d[kind]--
	switch kind {
	case recordStage, recordPID:
		return !descriptor
	}
	return descriptor
}

// ownChild reports whether a process is a child of this one that was not waited for: its number cannot be another
// process's meanwhile.
func ownChild(pid int) bool {
	var info unix.Siginfo
	return unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == nil
}
