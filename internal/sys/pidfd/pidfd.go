// Package pidfd signals and awaits processes through descriptors, so that a process which took over a dead one's number is
// never hit.
package pidfd

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Pidfd refers to one process for as long as it is open, whatever becomes of its number (pidfd_open(2), Linux 5.3).
type Pidfd struct{ fd int }

// Open returns a descriptor of the process with number pid, which the caller closes. ESRCH: no such process.
func Open(pid int) (*Pidfd, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &Pidfd{fd}, nil
}

// Check returns ENOSYS if processes cannot be opened or signalled here, so that no process is started that could not be
// ended.
func Check() error {
	if _, err := unix.PidfdOpen(0, 0); err == unix.ENOSYS {
		return fmt.Errorf("open processes by pidfd_open: %w", err)
	}
	if err := unix.PidfdSendSignal(-1, 0, nil, 0); err == unix.ENOSYS {
		return fmt.Errorf("signal processes by pidfd_send_signal: %w", err)
	}
	return nil
}

// Fd returns the descriptor's number; it stays p's.
func (p *Pidfd) Fd() int { return p.fd }

// Close closes the descriptor.
func (p *Pidfd) Close() error { return unix.Close(p.fd) }

// Signal sends sig to the process. ESRCH: it is gone, or it is a zombie that was reaped.
func (p *Pidfd) Signal(sig syscall.Signal) error {
	if err := unix.PidfdSendSignal(p.fd, sig, nil, 0); err != nil {
		return fmt.Errorf("send signal %d: %w", int(sig), err)
	}
	return nil
}

// Wait returns when the process has exited (it may be a zombie still), or with ctx's error when that comes first.
func (p *Pidfd) Wait(ctx context.Context) error {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	step := 10 * time.Millisecond // how late a cancellation may be noticed; an exit is noticed at once
	for {
		n, err := unix.Poll(fds, int(step.Milliseconds()))
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("await process: %w", err)
		}
		if n > 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		step = min(2*step, 100*time.Millisecond)
	}
}
