package launch

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// A child that is born in a container's pid namespace can be stopped by any of its processes that may send it a signal, before it becomes
// the program that the caller wants. It is told to go on, for a while; then the caller gets an error. The freezer and ptrace(2) stop
// a process in other ways, which waitid(2) does not tell its parent, and have no limit.
const (
	stopLook  = 50 * time.Millisecond // how often a silent child is looked at
	StopLimit = 10 * time.Second      // how long a child may be stopped again and again
)

// ErrStopped is a child that is not let go.
var ErrStopped = errors.New("a process of the container stops it again and again (SIGSTOP)")

// watchStops has the wait for the child's next record end now and then, so that it can be looked at.
func (c *Child) watchStops() error {
	look := unix.NsecToTimeval(int64(stopLook))
	return unix.SetsockoptTimeval(c.sync, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &look)
}

// continueStopped lets a child go on that a signal has stopped.
func (c *Child) continueStopped() error {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PIDFD, int(c.PIDFD.Fd()), &info, unix.WSTOPPED|unix.WNOHANG, nil)
	if err != nil || info.Signo == 0 {
		return nil // its end shows on the socket
	}
	switch {
	case c.stopped.IsZero():
		c.stopped = time.Now()
	case time.Since(c.stopped) > StopLimit:
		return ErrStopped
	}
	return unix.PidfdSendSignal(int(c.PIDFD.Fd()), unix.SIGCONT, nil, 0)
}
