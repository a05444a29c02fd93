package directory

import (
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/internal/sys/flock"
)

// Locks are flock(2) on files below locks/, so they hold between processes, and the kernel frees those of a process that dies.
// They are taken in this order, never the other way round:
//
//	repository-NAME  manifests and tags of a repository, and which blobs are linked while a collection looks
//	repositories     the list of repositories
//	content-XX       links to the blobs whose digest begins with XX, and whether their bytes are there
//
// Reading takes none: a name that is read is either there or not.
func (d *Dir) lock(name string) (unlock func(), err error) {
	release := d.turn.wait(name)
	l, err := flock.Acquire(d.path("locks/" + name))
	if err != nil {
		release()
		return nil, fault("lock registry", err)
	}
	return func() { l.Release(); release() }, nil
}

// turn lets one goroutine at a time wait for a lock of a name: who waits in flock(2) keeps a thread, and a thousand pushes of one
// blob would keep a thousand.
type turn struct {
	mu    sync.Mutex
	names map[string]*waiters
}

type waiters struct {
	mu    sync.Mutex
	count int // that hold mu or want it
}

func (t *turn) wait(name string) (release func()) {
	t.mu.Lock()
	w := t.names[name]
	if w == nil {
		w = &waiters{}
		t.names[name] = w
	}
	w.count++
	t.mu.Unlock()
	w.mu.Lock()
	return func() {
		w.mu.Unlock()
		t.mu.Lock()
		defer t.mu.Unlock()
		if w.count--; w.count == 0 {
			delete(t.names, name)
		}
	}
}

func (d *Dir) lockRepo(name string) (unlock func(), err error) {
	return d.lock("repository-" + repo(name)[len("repositories/"):])
}

func (d *Dir) lockContent(blob digest.Digest) (unlock func(), err error) {
	return d.lock("content-" + shard(blob))
}

// shard is the first two digits of a digest.
func shard(blob digest.Digest) string { return blob.Encoded()[:2] }
