package proxy

import (
	"context"
	"sync"
)

// flights are questions to upstreams under way: who asks the same waits for the same answer.
type flights struct {
	stop    context.Context // ends them
	running sync.WaitGroup
	mu      sync.Mutex
	m       map[string]*flight
}

type flight struct {
	done chan struct{}
	err  error
}

// do runs ask, or waits for one that runs. ask goes on when who waits for it leaves: others may wait, too.
func (f *flights) do(ctx context.Context, key string, ask func(context.Context) error) error {
	f.mu.Lock()
	one, ok := f.m[key]
	if !ok {
		if f.m == nil {
			f.m = map[string]*flight{}
		}
		one = &flight{done: make(chan struct{})}
		f.m[key] = one
		f.running.Go(func() {
			ctx, end := detached(ctx, f.stop)
			defer end()
			ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
			defer cancel()
			one.err = ask(ctx)
			f.mu.Lock()
			delete(f.m, key)
			f.mu.Unlock()
			close(one.done)
		})
	}
	f.mu.Unlock()
	select {
	case <-one.done:
		return one.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
