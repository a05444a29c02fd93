package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// OOMEvents calls notify once for every notification that the group ran out of memory, from this goroutine, until ctx
// ends (then its error is returned) or the group is removed (then nil).
func (g *Group) OOMEvents(ctx context.Context, notify func()) error {
	d := g.find("memory")
	if d == nil {
		return unsupported("memory", "no memory cgroup is mounted")
	}
	events, poll, err := d.watchOOM()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer func() {
		if stop() {
			events.Close()
		}
	}()
	for {
		err := cgroupfs.Drain(events)
		switch {
		case errors.Is(err, os.ErrClosed):
			return ctx.Err()
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("wait for out of memory events of %s: %w", d.dir(), bare(err))
		}
		happened, gone, err := poll()
		if err != nil || gone {
			return err
		}
		for range happened {
			notify()
		}
	}
}

// watchOOM opens a descriptor that becomes readable, and a function that then tells what happened.
func (d *Dir) watchOOM() (events *os.File, poll func() (n uint64, gone bool, err error), err error) {
	if !d.Unified {
		events, err = d.watchOOMv1()
		return events, func() (uint64, bool, error) {
			// The kernel also notifies when the group is removed (cgroup-v1/memory.rst, section 9).
			gone := !cgroupfs.Exists(d.file("memory.oom_control"))
			return 1, gone, nil
		}, err
	}
	file, populated := d.file("memory.events"), d.file("cgroup.events")
	events, err = cgroupfs.Watch(file, populated)
	if err != nil {
		return nil, nil, &fileError{op: "watch", path: file, err: err}
	}
	var r reader
	last := r.keyed(d, "memory.events")["oom_kill"]
	return events, func() (uint64, bool, error) {
		if !cgroupfs.Exists(file) {
			return 0, true, nil
		}
		// A removal is not notified, only that the last process left, which comes before: then look again and again.
		again := time.Time{}
		if r.keyed(d, "cgroup.events")["populated"] == 0 {
			again = time.Now().Add(50 * time.Millisecond)
		}
		if err := events.SetReadDeadline(again); err != nil && !errors.Is(err, os.ErrClosed) {
			return 0, false, err
		}
		now := r.keyed(d, "memory.events")["oom_kill"]
		n := now - min(last, now)
		last = now
		return n, false, r.err
	}, nil
}

// watchOOMv1 registers an eventfd for memory.oom_control (cgroup-v1/memory.rst, section 10).
func (d *Dir) watchOOMv1() (*os.File, error) {
	control, err := cgroupfs.OpenRead(d.file("memory.oom_control"))
	if err != nil {
		return nil, &fileError{op: "open", path: d.file("memory.oom_control"), err: err}
	}
	defer control.Close()
	events, err := cgroupfs.EventFD()
	if err != nil {
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	raw, err := events.SyscallConn()
	if err != nil {
		events.Close()
		return nil, fmt.Errorf("use eventfd: %w", err)
	}
	file := d.file("cgroup.event_control")
	var werr error
	err = raw.Control(func(fd uintptr) { // not Fd(), which would make it blocking
		_, werr = cgroupfs.WriteFile(file, fmt.Sprintf("%d %d", fd, control.Fd()))
	})
	if err = errors.Join(err, werr); err != nil {
		events.Close()
		return nil, &fileError{op: "write", path: file, err: bare(err)}
	}
	return events, nil
}
