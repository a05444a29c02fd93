package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// errExecuted is a child that runs its program although its socket is open.
var errExecuted = errors.New("the program runs")

// Release lets a child that waits for start, at the other end of conn, go on to its program, whose arguments are args
// for the error sentence. It returns when the program runs. Each time that the child has said nothing for a while look
// is called, whose error ends the wait; io.EOF tells that the program runs, whose start does not show when a process of
// the container keeps the child's socket.
func Release(conn *os.File, args []string, look func() error) error {
	every := unix.NsecToTimeval(int64(stopLook))
	if err := unix.SetsockoptTimeval(int(conn.Fd()), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &every); err != nil {
		return fmt.Errorf("limit the wait for the container's process: %w", err)
	}
	next := func() (record, error) {
		for {
			r, _, err := receive(int(conn.Fd()))
			if err != unix.EAGAIN {
				return r, err
			}
			switch err := look(); err {
			case nil:
			case io.EOF:
				return r, errExecuted
			default:
				return r, err
			}
		}
	}
	if _, err := conn.Write([]byte{1}); err != nil {
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
			return ErrGone
		}
		return fmt.Errorf("speak to the container's process: %w", err)
	}
	// An end without the first record is a process that was killed before it got the word; after it, it is execve(2)'s.
	ready := false
	r, err := next()
	if err == nil && r.kind == recordStage {
		ready = true
		r, err = next()
	}
	if err == errExecuted {
		return nil
	}
	if err == io.EOF {
		if !ready {
			return ErrGone
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen to the container's process: %w", err)
	}
	e := &StepError{Op: plan.WaitStart{}, Index: int(r.index), Errno: syscall.Errno(r.errno)}
	switch r.value {
	case valueExec:
		e.Op = plan.Exec{Args: args}
	case valueSeccomp:
		e.Op, e.Step = plan.Seccomp{}, "load the seccomp filter"
	default:
		e.Step = e.Op.What()
	}
	return e
}
