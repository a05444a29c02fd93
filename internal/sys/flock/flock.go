// Package flock takes advisory locks on files that may be removed while they are held.
package flock

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrHeld says that another open file description holds the lock.
var ErrHeld = errors.New("lock is held")

// A Lock is an flock(2) on a file. The kernel drops it when the process dies, however it dies.
type Lock struct {
	file *os.File
}

// Acquire makes path if it is not there, and waits for the exclusive lock on it. The returned lock is always on the file
// that path names: one whose name was removed in the meantime is given up and the wait begins again.
func Acquire(path string) (*Lock, error) {
	return acquire(context.Background(), path, os.O_RDWR|os.O_CREATE, unix.LOCK_EX)
}

// Try is Acquire without waiting and without making the file: ErrHeld when somebody has the lock, fs.ErrNotExist when path
// is not there.
func Try(path string) (*Lock, error) {
	return acquire(context.Background(), path, os.O_RDWR, unix.LOCK_EX|unix.LOCK_NB)
}

// Existing waits for the lock on a file that is there; fs.ErrNotExist when path is not there, also if it went away during
// the wait.
func Existing(path string) (*Lock, error) {
	return acquire(context.Background(), path, os.O_RDWR, unix.LOCK_EX)
}

// acquire opens and locks path. A wait goes on when ctx ends, but does not begin again.
func acquire(ctx context.Context, path string, flags, how int) (*Lock, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		f, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			return nil, err
		}
		if err := lockFile(f, how); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock %s: %w", path, ErrHeld)
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		same, err := stillNamed(f, path)
		if err != nil {
			f.Close()
			return nil, err
		}
		if same {
			return &Lock{file: f}, nil
		}
		f.Close()
	}
}

func lockFile(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// stillNamed reports whether path names the file f: the holder before us may have removed it.
func stillNamed(f *os.File, path string) (bool, error) {
	locked, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(locked, named), nil
}

// File is the locked file, to be handed to a child process: the lock then holds until the child has closed it too. It stays
// the lock's.
func (l *Lock) File() *os.File { return l.file }

// Release gives the lock up and leaves the file.
func (l *Lock) Release() {
	l.file.Close()
}

// Remove removes the file and then gives the lock up, so that nobody can hold a lock on a removed name unknowingly.
func (l *Lock) Remove() error {
	err := os.Remove(l.file.Name())
	l.file.Close()
	return err
}
