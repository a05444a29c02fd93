// Package state keeps what the runtime remembers of a container between two commands: one directory per container under a
// root, with small files in it, and a lock.
package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/atomicfile"
	"github.com/tare-oci/tare/internal/procfs"
	"github.com/tare-oci/tare/internal/sys/filelock"
)

// Errors that callers of the runtime know by their text (requirement rows 8.2, 8.3).
var (
	ErrNotExist  = errors.New("container does not exist")
	ErrExists    = errors.New("container with given ID already exists")
	ErrInvalidID = errors.New("invalid container ID format")
)

// Names of files in a container's directory.
const (
	stateFile  = "state.json"
	configFile = "config.json"

	// StartSocket is the listening unix socket that the container's init holds while it waits for start. Whoever starts
	// the container removes it. A container is created while its socket exists and its init has executed no program: a
	// start that was killed leaves the socket behind.
	StartSocket = "start.sock"
)

// State is the content of state.json.
type State struct {
	Version      string            `json:"ociVersion"`
	ID           string            `json:"id"`
	Creating     bool              `json:"creating"`     // create has not finished
	Creator      Process           `json:"creator"`      // the process that creates it
	Init         Process           `json:"init"`         // the container's first process; Pid 0: none yet
	Bundle       string            `json:"bundle"`       // absolute
	Rootfs       string            `json:"rootfs"`       // absolute
	Created      time.Time         `json:"created"`      // UTC
	Owner        uint32            `json:"owner"`        // user id of who created it
	Annotations  map[string]string `json:"annotations"`  // of the config
	Hooks        *specs.Hooks      `json:"hooks"`        // of the config at create: later edits have no effect
	Cgroup       json.RawMessage   `json:"cgroup"`       // a cgroup.Group; null: none yet
	IntelRdt     json.RawMessage   `json:"intelRdt"`     // an rdt.Group; null: none
	NoPivot      bool              `json:"noPivot"`      // the root was moved, not pivoted
	OwnPidNS     bool              `json:"ownPidNS"`     // Init is process 1 of its pid namespace: its death is everybody's
	Rootless     bool              `json:"rootless"`     // cgroup permission errors were ignored
	NoProcess    bool              `json:"noProcess"`    // the config had no process: it cannot be started
	NoNewKeyring bool              `json:"noNewKeyring"` // the session keyring is the creator's
	Streams      []string          `json:"streams"`      // what Init's standard streams are connected with; for checkpoint
	Facts        Facts             `json:"facts"`        // decided at create, for every later process
}

// Facts are what create has decided about the host and every later process of the container must be built by.
type Facts struct {
	// IDMapHelpers: newuidmap(1) and newgidmap(1) wrote the id maps, so that processes may set supplementary groups.
	IDMapHelpers bool `json:"idMapHelpers"`
	// SameNamespaces are namespaces (CLONE_NEW* flags) that the configuration gives by the path of the creator's own.
	SameNamespaces uint64 `json:"sameNamespaces"`
	// UserNamespace is the inode of the container's user namespace, 0 if not known: what later processes join must belong
	// to it.
	UserNamespace uint64 `json:"userNamespace"`
	// MountOwner is the inode of the user namespace that owns the mount namespace which the container has joined, 0 if it
	// has its own or it is not known: what later processes join must belong to it.
	MountOwner uint64 `json:"mountOwner"`
}

// Process names one process for good: a number alone is reused.
type Process struct {
	Pid       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // clock ticks after boot (field 22 of /proc/PID/stat)
}

// Find returns the Process that now has number pid.
func Find(pid int) (Process, error) {
	s, err := procfs.ReadStat(pid)
	if err != nil {
		return Process{}, err
	}
	return Process{pid, s.StartTime}, nil
}

// Alive tells whether p still runs; a zombie does not.
func (p Process) Alive() bool {
	_, alive := procfs.Running(p.Pid, p.StartTime)
	return alive
}

// Container is one container's state and its directory. It is not safe for concurrent use.
type Container struct {
	State
	path string
	lock *os.File // nil: not locked
}

// Reserve creates the directory of a new container, with a state that says that this process creates it. At once with its
// existence it has that state and the lock, so nobody ever sees a half of it. ErrExists, ErrInvalidID.
// The caller calls Close, and Remove when the creation does not succeed. The lock lives as long as any copy of its
// descriptor: a child that does not execute must close it.
func Reserve(root, id string) (*Container, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	creator, err := Find(os.Getpid())
	if err != nil {
		return nil, err
	}
	c := &Container{path: filepath.Join(root, id), State: State{
		Version: specs.Version, ID: id, Creating: true, Creator: creator,
		Created: time.Now().UTC(), Owner: uint32(os.Geteuid()),
	}}
	if st, err := os.Lstat(c.path); err == nil && (!st.IsDir() || os.Remove(c.path) != nil) { // empty: a Remove that was cut short
		return nil, ErrExists
	}
	// No id has a tilde.
	tmp := filepath.Join(root, "~"+strconv.Itoa(os.Getpid())+tmpSuffix(id))
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	if err := c.fill(tmp); err != nil {
		os.RemoveAll(tmp)
		c.Close()
		return nil, err
	}
	return c, nil
}

func tmpSuffix(id string) string { return "~" + id[:min(len(id), 200)] }

// Sweep removes what a Reserve or a Remove of id that was cut short has left, where there is no container of that id.
func Sweep(root, id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	path := filepath.Join(root, id)
	if st, err := os.Lstat(path); err == nil && st.IsDir() {
		os.Remove(path) // when it is empty
	}
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove state: %w", err)
	}
	for _, e := range entries {
		pid, ok := strings.CutSuffix(e.Name(), tmpSuffix(id))
		n, err := strconv.Atoi(strings.TrimPrefix(pid, "~"))
		if !ok || err != nil {
			continue
		}
		if _, err := procfs.ReadStat(n); err == nil {
			continue // still at work
		}
		if err := os.RemoveAll(filepath.Join(root, e.Name())); err != nil {
			return fmt.Errorf("remove state: %w", err)
		}
	}
	return nil
}

// fill makes tmp a complete container directory and gives it its name. Renaming over a directory that is not empty fails, and
// no container's is empty.
func (c *Container) fill(tmp string) error {
	var err error
	if c.lock, err = lockDir(context.Background(), tmp); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, stateFile), c.State.encode(), 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(tmp, c.path); err != nil {
		if _, e := os.Lstat(c.path); e == nil {
			return ErrExists
		}
		return fmt.Errorf("name state directory: %w", err)
	}
	return nil
}

func lockDir(ctx context.Context, path string) (*os.File, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	if err := waitLock(ctx, d); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// waitLock locks d. flock(2) itself cannot be given up. Who holds the lock is done in milliseconds, mostly.
func waitLock(ctx context.Context, d *os.File) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		err := filelock.Try(d)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("another operation on the container is still at work: %w", ctx.Err())
		case <-time.After(wait):
		}
	}
}

// Load reads a container's state without waiting for its lock. ErrNotExist, ErrInvalidID.
func Load(root, id string) (*Container, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	c := &Container{path: filepath.Join(root, id)}
	data, err := os.ReadFile(filepath.Join(c.path, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	if err := c.State.decode(data); err != nil {
		return nil, fmt.Errorf("decode state %s/%s: %w", c.path, stateFile, err)
	}
	return c, nil
}

// Open waits for the container's lock, at most until ctx is done, then is Load. The caller calls Close.
func Open(ctx context.Context, root, id string) (*Container, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	path := filepath.Join(root, id)
	for {
		lock, err := lockDir(ctx, path)
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNotExist
		}
		if err != nil {
			return nil, err
		}
		// Who held the lock may have removed the directory, and somebody else made a new one of the same name.
		mine, err := lock.Stat()
		if err == nil {
			var named os.FileInfo
			if named, err = os.Lstat(path); err == nil && !os.SameFile(mine, named) {
				lock.Close()
				continue
			}
		}
		var c *Container
		if err == nil {
			c, err = Load(root, id)
		}
		if err != nil {
			lock.Close()
			if errors.Is(err, os.ErrNotExist) {
				err = ErrNotExist
			}
			return nil, err
		}
		c.lock = lock
		return c, nil
	}
}

// Unlock lets others work on the container, whose lock c has, until Lock takes it again.
func (c *Container) Unlock() error { return filelock.Release(c.lock) }

// Lock waits for the lock that Unlock gave up, at most until ctx is done. ErrNotExist: the container was removed meanwhile. c knows
// what it knew before.
func (c *Container) Lock(ctx context.Context) error {
	if err := waitLock(ctx, c.lock); err != nil {
		return err
	}
	mine, err := c.lock.Stat()
	if err != nil {
		return err
	}
	named, err := os.Lstat(c.path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(mine, named) {
		return ErrNotExist
	}
	return err
}

// Close releases the lock, if c has it.
func (c *Container) Close() {
	if c.lock != nil {
		c.lock.Close()
		c.lock = nil
	}
}

// Path returns the path of the file name in the container's directory, or of the directory for "".
func (c *Container) Path(name string) string { return filepath.Join(c.path, name) }

// Save replaces state.json by c.State. The state lives no longer than the processes, so it is not forced to the disk.
func (c *Container) Save() error {
	if err := atomicfile.Write(c.Path(stateFile), c.State.encode(), 0o600, atomicfile.NoSync); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// SaveConfig keeps the container's configuration as it was at create, for exec. It is called once, while nobody else looks: the
// container is still being created.
func (c *Container) SaveConfig(config []byte) error {
	if err := os.WriteFile(c.Path(configFile), config, 0o600); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	return nil
}

// Config returns what SaveConfig kept.
func (c *Container) Config() ([]byte, error) {
	data, err := os.ReadFile(c.Path(configFile))
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return data, nil
}

// Remove removes the container's directory. It may be called again after an error, and when the directory is gone.
func (c *Container) Remove() error {
	// state.json goes last: a removal that was cut short leaves a container that can be deleted again.
	entries, err := os.ReadDir(c.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove state: %w", err)
	}
	for _, e := range entries {
		if e.Name() == stateFile {
			continue
		}
		if err := os.RemoveAll(c.Path(e.Name())); err != nil {
			return fmt.Errorf("remove state: %w", err)
		}
	}
	for _, path := range []string{c.Path(stateFile), c.path} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove state: %w", err)
		}
	}
	return nil
}

// stale is the age at which a directory without a name of its own is nobody's: to give it one takes microseconds.
const stale = time.Minute

// List returns the ids of the containers under root in the order of their bytes. A root that does not exist has none.
func List(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var ids []string
	for _, e := range entries {
		switch {
		case !e.IsDir():
		case e.Name()[0] == '~':
			// A create was killed before its directory had a name.
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > stale {
				os.RemoveAll(filepath.Join(root, e.Name()))
			}
		case CheckID(e.Name()) == nil:
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}
