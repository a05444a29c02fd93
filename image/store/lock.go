package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/tare-oci/tare/internal/sys/filelock"
)

// Locks are flock(2)s: the kernel gives them up when their process dies. They are polled for rather than waited for in the
// kernel, so that a context ends the wait.

// wait sleeps before the next try, longer each time, or returns the context's error.
func wait(ctx context.Context, try int) error {
	t := time.NewTimer(min(time.Millisecond<<min(try, 10), 20*time.Millisecond))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// lock opens the lock file name and waits for its lock. Closing the file gives it up.
func (s *Store) lock(ctx context.Context, name string, take func(*os.File) error) (*os.File, error) {
	f, err := os.OpenFile(s.path(name), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, fileMode)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		if err = take(f); err == nil {
			return f, nil
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = wait(ctx, try)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("wait for the store's %s: %w", name, err)
		}
	}
}

// share keeps garbage collection out until the returned file is closed. It is held shortly.
func (s *Store) share(ctx context.Context) (*os.File, error) {
	return s.lock(ctx, "lock", filelock.TryShared)
}

// alone keeps everybody out who changes what is held.
func (s *Store) alone(ctx context.Context) (*os.File, error) {
	return s.lock(ctx, "lock", filelock.Try)
}

// lockIndex keeps others from changing index.json. Whoever takes both locks takes this one last.
func (s *Store) lockIndex(ctx context.Context) (*os.File, error) {
	return s.lock(ctx, "index.lock", filelock.Try)
}

// named reports whether path still is the name of the open file f: its holder before may have renamed or removed it.
func named(f *os.File, path string) (bool, error) {
	own, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(own, there), err
}

// removeFree removes the file at path if nobody has its lock.
func removeFree(path string) (removed bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := filelock.Try(f); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return false, nil
		}
		return false, err
	}
	if same, err := named(f, path); err != nil || !same {
		return false, err
	}
	return true, os.Remove(path)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
