package flock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestAcquireContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := AcquireContext(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	gaveUp := make(chan error)
	go func() {
		_, err := AcquireContext(ctx, path)
		gaveUp <- err
	}()
	patient := make(chan *Lock)
	go func() {
		l, err := AcquireContext(context.Background(), path)
		if err != nil {
			t.Error(err)
		}
		patient <- l
	}()
	cancel(cause)
	if err := <-gaveUp; !errors.Is(err, cause) {
		t.Errorf("error %v", err)
	}
	if err := held.Remove(); err != nil {
		t.Fatal(err)
	}
	l := <-patient
	if err := l.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := AcquireContext(ctx, path); !errors.Is(err, cause) {
		t.Errorf("ended before: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock file is there: %v", err)
	}
}

func TestShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if _, err := TryShared(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	one, err := TryShared(path)
	if err != nil {
		t.Fatal(err)
	}
	two, err := TryShared(path)
	if err != nil {
		t.Fatal(err)
	}
	one.Release()
	if _, err := TryReadOnly(path); !errors.Is(err, ErrHeld) {
		t.Errorf("held by two: %v", err)
	}
	two.Release()
	alone, err := TryReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryShared(path); !errors.Is(err, ErrHeld) {
		t.Errorf("held by one alone: %v", err)
	}
	alone.Release()
}
