package flock

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// AcquireContext is Acquire, but gives up with the context's cause. Until the lock's holder is done, a wait that was given up
// costs a thread.
func AcquireContext(ctx context.Context, path string) (*Lock, error) {
	l, err := acquire(ctx, path, os.O_RDWR|os.O_CREATE, unix.LOCK_EX|unix.LOCK_NB)
	if !errors.Is(err, ErrHeld) {
		return l, err
	}
	type result struct {
		lock *Lock
		err  error
	}
	done := make(chan result, 1)
	go func() {
		l, err := acquire(ctx, path, os.O_RDWR|os.O_CREATE, unix.LOCK_EX)
		done <- result{l, err}
	}()
	select {
	case r := <-done:
		return r.lock, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.lock != nil {
				r.lock.Release()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// TryShared takes the lock on the file path, which is there, for reading and together with others that do the same, without
// waiting: ErrHeld when somebody has it for himself alone, fs.ErrNotExist when path is not there.
func TryShared(path string) (*Lock, error) {
	return acquire(context.Background(), path, os.O_RDONLY, unix.LOCK_SH|unix.LOCK_NB)
}

// TryReadOnly is Try on a file that is not to be written, which shared holders of the lock have open likewise.
func TryReadOnly(path string) (*Lock, error) {
	return acquire(context.Background(), path, os.O_RDONLY, unix.LOCK_EX|unix.LOCK_NB)
}
