package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tare-oci/tare/internal/sys/scheduler"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/rdt"
	"github.com/tare-oci/tare/runtime/state"
)

// Event is one line that "events" prints, in runc's form.
type Event struct {
	Type string     `json:"type"` // "stats" or "oom"
	ID   string     `json:"id"`
	Data *EventData `json:"data,omitempty"` // nil with "oom"
}

// EventData is what "stats" has: the cgroup's, the class of service's, and one that runc has and we do not.
type EventData struct {
	*cgroup.Stats
	IntelRdt          *rdt.Stats `json:"intel_rdt"`
	NetworkInterfaces []string   `json:"network_interfaces"`
}

// notRunning is ErrNotRunning in the words that runc has for events.
type notRunning string

func (id notRunning) Error() string { return "container with id " + string(id) + " is not running" }

// Unwrap gives ErrNotRunning.
func (notRunning) Unwrap() error { return ErrNotRunning }

// errEnded ends Events without an error.
var errEnded = errors.New("container has ended")

// Events calls emit, from one goroutine, with statistics of a container at once and then every interval, and whenever it ran
// out of memory. It returns when the container has stopped, when emit gives an error, or with ctx's error. With once it
// returns after the first statistics.
func (r *Runtime) Events(ctx context.Context, id string, interval time.Duration, once bool, emit func(Event) error) error {
	c, err := state.Load(r.Root, id)
	if err != nil {
		return err
	}
	if s := c.Status(); s == state.Stopped || s == state.Creating {
		return notRunning(id)
	}
	if interval <= 0 {
		return fmt.Errorf("print events of container %s: duration interval must be greater than 0, not %v", id, interval)
	}
	g, err := r.cgroup(c)
	if err != nil {
		return err
	}
	if g == nil && once { // a line of zeros, as runc has it: callers look at every container
		class, err := r.rdtStats(c)
		if err != nil {
			return err
		}
		return emit(Event{"stats", id, &EventData{Stats: new(cgroup.Stats), IntelRdt: class}})
	}
	if g == nil {
		return fmt.Errorf("print events of container %s: %w", id, errNoCgroup)
	}
	stats := func() error {
		s, err := g.Stats()
		if err != nil {
			return err
		}
		class, err := r.rdtStats(c)
		if err != nil {
			return err
		}
		return emit(Event{"stats", id, &EventData{Stats: s, IntelRdt: class}})
	}
	if err := stats(); err != nil || once {
		return err
	}
	return r.follow(ctx, c, g, interval, stats, emit)
}

func (r *Runtime) follow(ctx context.Context, c *state.Container, g group, interval time.Duration, stats func() error, emit func(Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	scheduler.Concurrent()
	go r.awaitEnd(ctx, c, cancel)
	oom := make(chan struct{})
	go func() {
		err := g.OOMEvents(ctx, func() {
			select {
			case oom <- struct{}{}:
			case <-ctx.Done():
			}
		})
		if err == nil {
			err = errEnded // the cgroup is gone
		}
		if errors.Is(err, errors.ErrUnsupported) {
			r.Warn(fmt.Sprintf("out of memory events: %v", err))
			return
		}
		cancel(err)
	}()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		var err error
		select {
		case <-oom:
			err = emit(Event{Type: "oom", ID: c.ID})
		case <-ticker.C:
			err = stats()
		case <-ctx.Done():
			if err := context.Cause(ctx); err != errEnded {
				return err
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// lateEvents is how long after a container's end out of memory events are awaited that caused it.
const lateEvents = 100 * time.Millisecond

// awaitEnd calls end when the container's init has exited.
func (r *Runtime) awaitEnd(ctx context.Context, c *state.Container, end context.CancelCauseFunc) {
	fd, err := open(c.Init)
	if errors.Is(err, ErrNotRunning) {
		end(errEnded)
		return
	}
	if err != nil {
		end(err)
		return
	}
	defer fd.Close()
	if err := fd.Wait(ctx); err != nil {
		end(err)
		return
	}
	time.Sleep(lateEvents)
	end(errEnded)
}
