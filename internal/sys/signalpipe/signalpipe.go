// Package signalpipe has the signals that reach this process written to a pipe, so that one thread can wait for them and for the ends of
// child processes with one blocking read. os/signal takes a goroutine, a thread and three futex calls for each signal instead.
package signalpipe

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// skipped are the signals that keep the action they have: KILL and STOP cannot be caught, URG is the Go runtime's own, WINCH is the
// terminal's (runtime/console), a read of the terminal that TTIN or TTOU interrupts would begin again for ever, and C libraries
// use 32 to 34. PIPE is ignored from Catch on, so that a write to a broken
// pipe returns an error.
const skipped uint64 = 1<<syscall.SIGKILL | 1<<syscall.SIGSTOP | 1<<syscall.SIGURG | 1<<syscall.SIGWINCH | 1<<syscall.SIGTTIN | 1<<syscall.SIGTTOU |
	1<<syscall.SIGPIPE | 1<<32 | 1<<33 | 1<<34

// Pipe receives signals. There is at most one at a time.
type Pipe struct {
	read    int
	restore func()
	buf     [64]byte
	pending []byte
}

// Catch has every signal that can be handed on, and SIGCHLD, written to the pipe from now on, also those that this process ignored.
// The caller calls Close.
func Catch() (*Pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make pipe for signals: %w", err)
	}
	// A handler never waits: what does not fit, beyond 65536 signals, is lost.
	if err := unix.SetNonblock(fds[1], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, fmt.Errorf("make pipe for signals: %w", err)
	}
	p := &Pipe{read: fds[0]}
	p.restore = catch(fds[1])
	return p, nil
}

// Next waits for a signal and returns it.
func (p *Pipe) Next() (syscall.Signal, error) {
	for len(p.pending) == 0 {
		n, err := unix.Read(p.read, p.buf[:])
		if err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("read signals: %w", os.NewSyscallError("read", err))
		}
		p.pending = p.buf[:max(n, 0)]
	}
	sig := syscall.Signal(p.pending[0])
	p.pending = p.pending[1:]
	return sig, nil
}

// Close gives the signals back the actions that they had. The pipe stays open: a handler may be running.
func (p *Pipe) Close() { p.restore() }
