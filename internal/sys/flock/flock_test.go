package flock

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

func TestTry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if _, err := Try(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Try without a file: %v", err)
	}
	l, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Try(path); !errors.Is(err, ErrHeld) {
		t.Fatalf("Try while held: %v", err)
	}
	l.Release()
	l, err = Try(path)
	if err != nil {
		t.Fatalf("Try after release: %v", err)
	}
	if err := l.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := Existing(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Existing after remove: %v", err)
	}
}

// Holders remove the file each time: whoever waits must never end up with a lock on a removed name beside another holder.
func TestAcquireExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var inside, total atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				l, err := Acquire(path)
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two holders at once")
				}
				total.Add(1)
				inside.Add(-1)
				if err := l.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if total.Load() != 400 {
		t.Errorf("%d of 400 rounds", total.Load())
	}
}
