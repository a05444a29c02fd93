package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// A lock is an object that only one can make. Who holds it writes it again while it works; one that was not written for so long
// is of a server that died. The clocks of servers that share a bucket must agree within lockSkew.
const (
	lockFor   = 30 * time.Second
	lockRenew = 8 * time.Second
	lockSkew  = 30 * time.Second
)

// errLost is why the work of a holder ends that could not renew its lock.
var errLost = errors.New("the lock is lost: the object store did not answer in time")

// held is what the object of a lock says.
type held struct {
	Until time.Time
	Nonce string // so that no two writes are equal
}

// lock takes a lock, or waits for it. The work must use the context that is returned, and call release.
func (s *Store) lock(ctx context.Context, name string) (context.Context, func(), error) {
	leave, err := s.inside.enter(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		work, release, err := s.take(ctx, name)
		if err == nil {
			return work, func() { release(); leave() }, nil
		}
		if errors.Is(err, errConflict) {
			select {
			case <-time.After(wait):
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		leave()
		return nil, nil, fmt.Errorf("lock %s: %w", name, err)
	}
}

// tryLock takes a lock that nobody has, otherwise storage.ErrUploadBusy.
func (s *Store) tryLock(ctx context.Context, name string) (context.Context, func(), error) {
	leave, ok := s.inside.try(name)
	if !ok {
		return nil, nil, storage.ErrUploadBusy
	}
	work, release, err := s.take(ctx, name)
	if err != nil {
		leave()
		if errors.Is(err, errConflict) {
			err = storage.ErrUploadBusy
		}
		return nil, nil, err
	}
	return work, func() { release(); leave() }, nil
}

// take tries once to make the object of a lock, or to take it over from who is dead.
func (s *Store) take(ctx context.Context, name string) (context.Context, func(), error) {
	key := "locks/" + name
	etag, err := s.putJSON(ctx, key, newHeld(), onlyNew)
	if errors.Is(err, errConflict) {
		var h held
		var old string
		if old, err = s.getJSON(ctx, key, &h); errors.Is(err, errAbsent) {
			return nil, nil, errConflict // released just now: try again
		}
		if err == nil && time.Now().Before(h.Until.Add(lockSkew)) {
			return nil, nil, errConflict
		}
		if err == nil {
			etag, err = s.putJSON(ctx, key, newHeld(), old)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	work, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	var renewing sync.WaitGroup
	renewing.Go(func() { s.renew(work, key, etag, done, cancel) })
	return work, func() {
		close(done)
		renewing.Wait()
		if context.Cause(work) != errLost {
			_ = s.remove(context.WithoutCancel(ctx), key) // otherwise it ends by itself
		}
		cancel(nil)
	}, nil
}

func newHeld() held { return held{time.Now().Add(lockFor), rand.Text()} }

// renew writes the object of a lock again and again. If that fails for as long as others believe in it, the work is ended.
func (s *Store) renew(work context.Context, key, etag string, done <-chan struct{}, cancel context.CancelCauseFunc) {
	written := time.Now()
	for {
		select {
		case <-done:
			return
		case <-time.After(lockRenew):
		}
		ctx, stop := context.WithTimeout(context.WithoutCancel(work), lockRenew)
		now := time.Now()
		next, err := s.putJSON(ctx, key, newHeld(), etag)
		stop()
		if err == nil {
			etag, written = next, now
		} else if errors.Is(err, errConflict) || time.Since(written) > lockFor {
			cancel(errLost)
			return
		}
	}
}

// keyed are mutexes by name.
type keyed struct {
	mu   sync.Mutex
	wait map[string]chan struct{} // closed when its holder leaves
}

// enter waits until nobody else is inside.
func (k *keyed) enter(ctx context.Context, name string) (leave func(), err error) {
	for {
		k.mu.Lock()
		c, taken := k.wait[name]
		if !taken {
			leave := k.hold(name)
			k.mu.Unlock()
			return leave, nil
		}
		k.mu.Unlock()
		select {
		case <-c:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// try enters if nobody else is inside.
func (k *keyed) try(name string) (leave func(), ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, taken := k.wait[name]; taken {
		return nil, false
	}
	return k.hold(name), true
}

// hold marks a name as taken; k.mu is held.
func (k *keyed) hold(name string) (leave func()) {
	if k.wait == nil {
		k.wait = map[string]chan struct{}{}
	}
	c := make(chan struct{})
	k.wait[name] = c
	return func() {
		k.mu.Lock()
		delete(k.wait, name)
		k.mu.Unlock()
		close(c)
	}
}
