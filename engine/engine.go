// Package engine keeps containers as people know them: by name, made from an image, run in the foreground, listed and
// removed. It is daemonless: everything is files under one directory, and an OCI runtime, driven by its command line, does
// the rest.
//
//	ROOT/lock                    held for a moment while names and ids change
//	ROOT/names/NAME              symbolic link to the container's id
//	ROOT/running/ID              locked by the tare and the runtime that run the container; removed when it has ended
//	ROOT/containers/ID/          everything of one container; container.json is its record
//	ROOT/containers/.ID          a container that is being removed
//	ROOT/store/                  images by name, see package store
//	ROOT/layers/                 unpacked layers, see package snapshot
//	ROOT/images/HEX.json         what an image file held when it was last read, valid as long as that file is unchanged
//
// A process may be killed between any two system calls: the locks die with it, and the next command that takes them finds
// what is half done by its name and removes it. A container whose tare is killed runs on as long as its runtime does.
package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tare-oci/tare/image/snapshot"
	"github.com/tare-oci/tare/image/store"
	"github.com/tare-oci/tare/internal/sys/flock"
)

// An Engine works on the files under one root directory. Any number of engines, in any number of processes, may work on the
// same root at the same time.
type Engine struct {
	root   string
	layers *snapshot.Store
	limits outside
	// imageStore opens the store of images when it is needed for the first time: it stays open.
	imageStore func() (*store.Store, error)
}

// DefaultRoot is where containers live unless the caller says otherwise: /var/lib/tare for root, else tare in the XDG data
// directory.
func DefaultRoot() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/tare", nil
	}
	if d := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "tare"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local/share/tare"), nil
}

// Open makes an engine over the directory root, which it creates, open to its owner only.
func Open(root string) (*Engine, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	e := &Engine{root: root}
	if e.limits, err = readLimits(); err != nil {
		return nil, err
	}
	e.imageStore = sync.OnceValues(func() (*store.Store, error) { return store.Open(e.path("store")) })
	for _, d := range []string{"names", "running", "containers", "images"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			return nil, fmt.Errorf("open %s: %w", root, err)
		}
	}
	if e.layers, err = snapshot.Open(e.path("layers"), snapshot.Options{Limits: e.limits.layer}); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Engine) path(elem ...string) string {
	return filepath.Join(append([]string{e.root}, elem...)...)
}

// lock keeps others from making, naming or giving up containers until the result is released.
func (e *Engine) lock() (*flock.Lock, error) {
	return flock.Acquire(e.path("lock"))
}

// ErrNotFound says that no container has the name or id that was asked for.
var ErrNotFound = errors.New("no such container")

// find returns the id of the container that ref names: by its name, its id, or the beginning of its id if only one begins
// so.
func (e *Engine) find(ref string) (string, error) {
	if checkName(ref) != nil {
		return "", fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	if id, err := os.Readlink(e.path("names", ref)); err == nil && e.exists(id) {
		return id, nil
	}
	entries, err := os.ReadDir(e.path("containers"))
	if err != nil {
		return "", err
	}
	found := ""
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ref) {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("%s is the beginning of more than one container's id", ref)
		}
		found = entry.Name()
	}
	if found == "" {
		return "", fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	return found, nil
}

func (e *Engine) exists(id string) bool {
	_, err := os.Lstat(e.path("containers", id))
	return err == nil
}

// Sweep cleans up after processes that were killed: containers whose process is gone are ended, and removed if that was
// their wish; removals that stopped half way are finished. It costs one directory listing and one try per running
// container. What cannot be cleaned up stays for the next time, and is in the error.
func (e *Engine) Sweep() error {
	entries, err := os.ReadDir(e.path("running"))
	if err != nil {
		return err
	}
	var all []error
	for _, entry := range entries {
		if err := e.sweepOne(entry.Name()); err != nil {
			all = append(all, fmt.Errorf("clean up after container %.12s: %w", entry.Name(), err))
		}
	}
	return errors.Join(append(all, e.finishRemovals())...)
}

func (e *Engine) sweepOne(id string) error {
	held, err := e.tryOwn(id)
	if errors.Is(err, flock.ErrHeld) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := e.load(id)
	switch {
	case errors.Is(err, fs.ErrNotExist): // killed before there was a record: nothing ever ran
		c = &Container{engine: e, record: record{ID: id, AutoRemove: true}}
	case err != nil: // a power cut took the record; what the container wrote may still be wanted
		c = &Container{engine: e, record: record{ID: id, Name: id[:min(12, len(id))]}}
	}
	c.own = held
	return c.end(Outcome{Code: 137, Error: "tare was killed before it ended"})
}

// tryOwn takes the lock of the container id if nobody has it. The store's lock keeps it from catching a container between
// the making of its file and its locking.
func (e *Engine) tryOwn(id string) (*flock.Lock, error) {
	store, err := e.lock()
	if err != nil {
		return nil, err
	}
	defer store.Release()
	return flock.Try(e.path("running", id))
}
