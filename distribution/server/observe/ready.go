package observe

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// readyTimeout is how long the storage may take to answer.
const readyTimeout = 5 * time.Second

// readiness is what the storage has answered last.
type readiness struct {
	mu   sync.Mutex
	at   time.Time
	err  error
	now  func() time.Time
	told bool
}

// ask returns the last answer, or asks again if it is too old. fresh says that it was asked now.
func (q *readiness) ask(ctx context.Context, check func(context.Context) error) (fresh bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.told && q.now().Sub(q.at) < readyFor {
		return false, q.err
	}
	// Who asks may go away while others wait for the same answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
	defer cancel()
	q.err = check(ctx)
	q.at, q.told = q.now(), true
	return true, q.err
}

// serveReady says whether requests should be sent here. Why not is told to whoever runs the registry, not to who asks.
func (o *Observer) serveReady(w http.ResponseWriter, r *http.Request) {
	if o.ending.Load() {
		plain(w, http.StatusServiceUnavailable, "shutting down\n")
		return
	}
	if o.opts.Ready != nil {
		fresh, err := o.ready.ask(r.Context(), o.opts.Ready)
		if err != nil {
			if fresh && o.opts.Fault != nil {
				o.opts.Fault(err)
			}
			plain(w, http.StatusServiceUnavailable, "the storage does not answer\n")
			return
		}
	}
	plain(w, http.StatusOK, "ok\n")
}
