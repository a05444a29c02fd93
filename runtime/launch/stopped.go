package launch

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/procfs"
)

// A child that is born in a container's pid namespace can be stopped by any of its processes that may send it a signal,
// before it becomes the program that the caller wants. It is told to go on, for a while; then the caller gets an error.
// The freezer and ptrace(2) stop a process in other ways, which waitid(2) does not tell its parent, and have no limit.
// A process with CAP_SYS_PTRACE may also keep a copy of the child's socket: then its end is looked for.
const (
	stopLook  = 50 * time.Millisecond // how often a silent child is looked at
	StopLimit = 10 * time.Second      // how long a child may be stopped again and again
)

// ErrStopped is a child that is not let go.
var ErrStopped = errors.New("a process of the container stops it again and again (SIGSTOP)")

// errSender is a child whose listener nothing will send any more: it would wait for the answer.
var errSender = errors.New("the process that sends the listener of the seccomp filter was killed")

// watchStops has the wait for the child's next record end now and then, so that it can be looked at.
func (c *Child) watchStops() error {
	look := unix.NsecToTimeval(int64(stopLook))
	return unix.SetsockoptTimeval(c.sync, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &look)
}

// lookAt lets a child go on that a signal has stopped. io.EOF: the child has ended or executed its program, and has
// sent all that it had to say; a process of the container that has taken the child's socket keeps its end from showing
// there.
func (c *Child) lookAt() error {
	if c.sender != nil && ended(c.sender) && !c.pending() {
		return errSender
	}
	pidfd := int(c.PIDFD.Fd())
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	st, e := procfs.ReadStat(c.PID)
	switch {
	case err != nil || e != nil:
		return nil // its end shows on the socket
	case st.Dead() || !st.Forked:
		if c.pending() {
			return nil
		}
		return io.EOF
	case info.Signo == 0:
		return nil
	case c.stopped.IsZero():
		c.stopped = time.Now()
	case time.Since(c.stopped) > StopLimit:
		return ErrStopped
	}
	unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WSTOPPED|unix.WNOHANG, nil) // the next stop is another one
	return unix.PidfdSendSignal(pidfd, unix.SIGCONT, nil, 0)
}

// ended reports whether the process of a pidfd has ended.
func ended(pidfd *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// pending reports whether a record can be received without a wait.
func (c *Child) pending() bool {
	fds := []unix.PollFd{{Fd: int32(c.sync), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}
