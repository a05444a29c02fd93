package engine

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/internal/atomicfile"
	"github.com/tare-oci/tare/internal/sys/flock"
)

// A Container is one container under an engine's root.
type Container struct {
	engine *Engine
	own    *flock.Lock // held by the process that runs it, or cleans up after it
	record record
}

// record is what container.json holds.
type record struct {
	ID      string `json:"id"`
	Name    string `json:"name,omitempty"`
	Image   string `json:"image"`   // as the user wrote it
	ImageID string `json:"imageId"` // digest of the image's configuration
	// Of an image in the store: the digest of its index or manifest, and the full name that it had there.
	ImageDigest digest.Digest   `json:"imageDigest,omitempty"`
	ImageName   string          `json:"imageName,omitempty"`
	Args        []string        `json:"args"`
	Layers      []digest.Digest `json:"layers"` // diff IDs, the lowest first
	Runtime     string          `json:"runtime"`
	Boot        string          `json:"boot"` // the kernel's boot id: processes of another boot are gone
	AutoRemove  bool            `json:"autoRemove,omitempty"`
	Created     time.Time       `json:"created"`
	Finished    *time.Time      `json:"finished,omitempty"`
	ExitCode    *int            `json:"exitCode,omitempty"`
	Error       string          `json:"error,omitempty"`
}

// An Outcome is how a container's process ended.
type Outcome struct {
	Code  int    // exit status: the process's, or 128 plus the signal that ended it; 125 to 127 when it did not start
	Error string // why it did not start, or that nobody saw it end
}

// Status is what ps tells about one container.
type Status struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Image   string `json:"image"`
	ImageID string `json:"imageId"`
	// ImageDigest is that of the index or manifest of an image in the store; else empty.
	ImageDigest digest.Digest `json:"imageDigest,omitempty"`
	Args        []string      `json:"args"`
	State       string        `json:"state"` // "running" or "exited"
	Created     time.Time     `json:"created"`
	Finished    *time.Time    `json:"finished,omitempty"`
	ExitCode    *int          `json:"exitCode,omitempty"`
	Error       string        `json:"error,omitempty"`
}

func newID() (string, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make container id: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// create makes a container's directory and reserves its name. The caller owns it until end.
func (e *Engine) create(r record) (*Container, error) {
	id, err := newID()
	if err != nil {
		return nil, err
	}
	r.ID, r.Created, r.Boot = id, time.Now().UTC(), bootID()
	c := &Container{engine: e, record: r}
	store, err := e.lock()
	if err != nil {
		return nil, err
	}
	defer store.Release()
	if c.own, err = flock.Acquire(e.path("running", id)); err != nil {
		return nil, err
	}
	if err = c.register(); err != nil {
		if e := c.discard(); e != nil {
			err = fmt.Errorf("%w; and then: %w", err, e)
		}
		return nil, err
	}
	return c, nil
}

// register makes the directory and reserves the name, under the store's lock. There is no record before there is something
// to tell: a container without one has never run.
func (c *Container) register() error {
	if err := os.Mkdir(c.path(), 0o700); err != nil {
		return err
	}
	if c.record.Name == "" { // the beginning of the id, which needs no reservation
		c.record.Name = c.record.ID[:12]
		return nil
	}
	link := c.engine.path("names", c.record.Name)
	if id, err := os.Readlink(link); err == nil {
		if c.engine.exists(id) {
			return fmt.Errorf("name %s is in use by container %.12s (tare rm %s frees it)", c.record.Name, id, c.record.Name)
		}
		if err := os.Remove(link); err != nil {
			return err
		}
	}
	return os.Symlink(c.record.ID, link)
}

func (c *Container) path(elem ...string) string {
	return c.engine.path(append([]string{"containers", c.record.ID}, elem...)...)
}

func (c *Container) save(opts ...atomicfile.Option) error {
	data, err := json.MarshalIndent(c.record, "", "\t")
	if err != nil {
		return err
	}
	return atomicfile.Write(c.path("container.json"), append(data, '\n'), 0o600, opts...)
}

func (e *Engine) load(id string) (*Container, error) {
	data, err := os.ReadFile(e.path("containers", id, "container.json"))
	if err != nil {
		return nil, err
	}
	c := &Container{engine: e}
	if err := json.Unmarshal(data, &c.record); err != nil {
		return nil, fmt.Errorf("read record of container %.12s: %w", id, err)
	}
	if c.record.ID != id {
		return nil, fmt.Errorf("read record of container %.12s: it is another container's", id)
	}
	return c, nil
}

// end makes sure that nothing of the container runs any more, records the outcome or removes the container if it was to be
// removed, and gives it up.
func (c *Container) end(o Outcome) error {
	if c.record.AutoRemove {
		return c.discard()
	}
	if err := c.deleteFromRuntime(); err != nil {
		c.own.Release()
		return err
	}
	now := time.Now().UTC()
	c.record.Finished, c.record.ExitCode, c.record.Error = &now, &o.Code, o.Error
	err := errors.Join(c.lease(false), c.save(), os.RemoveAll(c.path("work")))
	if err != nil {
		c.own.Release()
		return err
	}
	return c.own.Remove()
}

// discard removes the container and its name, and gives it up.
func (c *Container) discard() error {
	e := c.engine
	if err := c.deleteFromRuntime(); err != nil {
		c.own.Release() // the next command tries again
		return err
	}
	link := e.path("names", c.record.Name)
	if id, err := os.Readlink(link); err == nil && id == c.record.ID {
		if err := os.Remove(link); err != nil {
			return err
		}
	}
	if err := c.unlease(); err != nil {
		return err
	}
	grave := e.path("containers", "."+c.record.ID)
	if err := os.Rename(c.path(), grave); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := removeTree(grave); err != nil {
		return err
	}
	return c.own.Remove()
}

// finishRemovals removes containers whose removal was begun.
func (e *Engine) finishRemovals() error {
	entries, err := os.ReadDir(e.path("containers"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		id, doomed := strings.CutPrefix(entry.Name(), ".")
		if !doomed {
			continue
		}
		if _, err := os.Lstat(e.path("running", id)); err == nil {
			continue // its owner is at it
		}
		if err := removeTree(e.path("containers", entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes path and everything below it, whatever a container left there: descriptors only, no depth limit. A
// tree that is not there, or that somebody else removes at the same time, is no error.
func removeTree(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return layer.Remove(dir, filepath.Base(path))
}

// List tells about all containers, the newest first.
func (e *Engine) List() ([]Status, error) {
	entries, err := os.ReadDir(e.path("containers"))
	if err != nil {
		return nil, err
	}
	list := []Status{}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		c, err := e.load(entry.Name())
		if errors.Is(err, fs.ErrNotExist) { // just made, or just removed
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, c.status())
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Created.After(list[j].Created) })
	return list, nil
}

func (c *Container) status() Status {
	r := &c.record
	s := Status{ID: r.ID, Name: r.Name, Image: r.Image, ImageID: r.ImageID, ImageDigest: r.ImageDigest, Args: r.Args, State: "running",
		Created: r.Created, Finished: r.Finished, ExitCode: r.ExitCode, Error: r.Error}
	if r.Finished != nil {
		s.State = "exited"
	}
	return s
}

// Remove removes the container that ref names. A running one is an error unless force, which kills it.
func (e *Engine) Remove(ref string, force bool) error {
	id, err := e.find(ref)
	if err != nil {
		return err
	}
	own, err := e.tryOwn(id)
	if errors.Is(err, flock.ErrHeld) {
		if !force {
			return fmt.Errorf("container %s is running: stop it, or use --force", ref)
		}
		own, err = e.takeOver(id)
	}
	if errors.Is(err, fs.ErrNotExist) {
		own, err = flock.Acquire(e.path("running", id))
	}
	if err != nil {
		return err
	}
	c, err := e.load(id)
	if errors.Is(err, fs.ErrNotExist) { // it was --rm and has removed itself
		return own.Remove()
	}
	if err != nil {
		own.Release()
		return err
	}
	c.own = own
	return c.discard()
}

// takeOver kills a running container and waits until the process that ran it has recorded its end. A container that is only
// being made is killed as soon as it runs.
func (e *Engine) takeOver(id string) (*flock.Lock, error) {
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		c, killErr := e.load(id)
		if killErr == nil {
			killErr = c.kill()
		}
		own, err := e.tryOwn(id)
		if !errors.Is(err, flock.ErrHeld) {
			return own, err
		}
		if time.Since(start) > 20*time.Second {
			return nil, fmt.Errorf("container %.12s does not end: %w", id, errors.Join(killErr, err))
		}
	}
}

// bootID tells one boot of the kernel from another.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
