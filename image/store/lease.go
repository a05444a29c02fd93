package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/internal/atomicfile"
	"github.com/tare-oci/tare/internal/sys/filelock"
)

// A lease file is a sequence of JSON objects, one a line: the first is a LeaseInfo, the others what was added or dropped
// since, as leaseChange. A line without its end is one that is being written, or never was complete.
//
//	KIND.ID.json         of SaveLease: holds until DeleteLease
//	KIND.ID.RANDOM.live  of Lease: holds as long as the process that wrote it has its lock
//	new-RANDOM           one of these before it has its lock
const (
	persistent = ".json"
	live       = ".live"
	maxLease   = 64 << 20 // bytes of a lease file
	maxDead    = 64       // lease files of dead processes that are not worth a cleaning
)

// LeaseInfo says what a lease holds.
type LeaseInfo struct {
	Kind    string          `json:"kind"`              // pull, push, build, container, …: lower-case letters
	ID      string          `json:"id"`                // of what holds: letters, digits, _ . -
	Digests []digest.Digest `json:"digests,omitempty"` // blobs; manifests hold what they refer to
	Layers  []digest.Digest `json:"layers,omitempty"`  // unpacked layers, by diff ID
	Created time.Time       `json:"created"`
	Expires time.Time       `json:"expires,omitzero"` // zero: never
	Live    bool            `json:"-"`                // of a running process, which ends it with its own end
	// Volatile leaves out syncing to disk in SaveLease: for what a power cut ends anyway.
	Volatile bool `json:"-"`
}

type leaseChange struct {
	Digests []digest.Digest `json:"digests,omitempty"`
	Layers  []digest.Digest `json:"layers,omitempty"`
	Drop    []digest.Digest `json:"drop,omitempty"`
}

// Lease holds content for this process, until Release or the process's end, however it ends. Its methods may be called from
// several goroutines at once.
type Lease struct {
	s    *Store
	path string

	mu     sync.Mutex
	file   *os.File // open and locked; nil after Release
	size   int64    // bytes of complete lines
	blobs  map[digest.Digest]bool
	layers map[digest.Digest]bool
}

// Lease begins a lease. kind says what for (pull, push, build, …), id for which; there may be several of the same. An empty id
// becomes the process's number.
func (s *Store) Lease(ctx context.Context, kind, id string) (*Lease, error) {
	if id == "" {
		id = fmt.Sprint(os.Getpid())
	}
	info := LeaseInfo{Kind: kind, ID: id, Created: time.Now().UTC()}
	if err := info.check(); err != nil {
		return nil, err
	}
	shared, err := s.share(ctx)
	if err != nil {
		return nil, err
	}
	defer shared.Close()
	l, err := s.newLease(info)
	if err != nil {
		return nil, fmt.Errorf("make lease %s: %w", kind, err)
	}
	return l, nil
}

func (s *Store) newLease(info LeaseInfo) (*Lease, error) {
	random := strings.ToLower(rand.Text()[:16])
	temporary := s.path("leases", "new-"+random)
	if err := s.may("create", temporary); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, err
	}
	l := &Lease{s: s, path: s.path("leases", info.Kind+"."+info.ID+"."+random+live), file: f,
		blobs: map[digest.Digest]bool{}, layers: map[digest.Digest]bool{}}
	if err = filelock.Try(f); err == nil {
		err = l.append(info)
	}
	if err == nil {
		if err = s.may("rename", l.path); err == nil {
			err = os.Rename(temporary, l.path)
		}
	}
	if err != nil {
		os.Remove(temporary)
		f.Close()
		return nil, err
	}
	return l, s.buryLeases(maxDead)
}

// append writes a line. After an error the file is as before.
func (l *Lease) append(v any) error {
	if l.file == nil {
		return fmt.Errorf("lease is released")
	}
	line, err := encodeJSON(v)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if l.size+int64(len(line)) > maxLease {
		return fmt.Errorf("lease would have more than %d bytes, the limit", maxLease)
	}
	if err = l.s.may("write", l.path); err == nil {
		_, err = l.file.WriteAt(line, l.size)
	}
	if err != nil {
		return errors.Join(err, l.file.Truncate(l.size))
	}
	l.size += int64(len(line))
	return nil
}

// Hold holds blobs, whether they are there yet or not; an index or a manifest holds what it refers to. When Hold has returned,
// no garbage collection removes them.
func (l *Lease) Hold(ctx context.Context, blobs ...digest.Digest) error {
	return l.add(ctx, l.blobs, blobs, func(d []digest.Digest) leaseChange { return leaseChange{Digests: d} })
}

// HoldLayers holds unpacked layers by their diff IDs, whether they are there yet or not.
func (l *Lease) HoldLayers(ctx context.Context, diffIDs ...digest.Digest) error {
	return l.add(ctx, l.layers, diffIDs, func(d []digest.Digest) leaseChange { return leaseChange{Layers: d} })
}

func (l *Lease) add(ctx context.Context, held map[digest.Digest]bool, wanted []digest.Digest, change func([]digest.Digest) leaseChange) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var added []digest.Digest
	for _, d := range wanted {
		if err := reference.CheckDigest(d); err != nil {
			return fmt.Errorf("lease: %w", err)
		}
		if !held[d] {
			added = append(added, d)
		}
	}
	if len(added) == 0 {
		return nil
	}
	shared, err := l.s.share(ctx)
	if err != nil {
		return err
	}
	defer shared.Close()
	if err := l.append(change(added)); err != nil {
		return fmt.Errorf("write lease: %w", err)
	}
	for _, d := range added {
		held[d] = true
	}
	return nil
}

// drop ends the hold of blobs, or leaves it as it is where the file cannot be written.
func (l *Lease) drop(blobs []digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := slices.DeleteFunc(blobs, func(d digest.Digest) bool { return !l.blobs[d] })
	if len(held) == 0 || l.append(leaseChange{Drop: held}) != nil {
		return
	}
	for _, d := range held {
		delete(l.blobs, d)
	}
}

// Release ends the lease. Releasing it twice is no error.
func (l *Lease) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return
	}
	os.Remove(l.path) // if it stays, it is that of a dead process
	l.file.Close()
	l.file = nil
}

type leaseKey struct{}

// WithLease returns a context in which Exists, Push, Ingest and NewBlob of l's store hold by l what they see or store, instead
// of by the process until Tag. Whoever moves an image begins a lease, moves, tags and releases it.
func WithLease(ctx context.Context, l *Lease) context.Context {
	return context.WithValue(ctx, leaseKey{}, l)
}

// hold holds d by the context's lease, or else by the process's own.
func (s *Store) hold(ctx context.Context, d digest.Digest) error {
	if l, ok := ctx.Value(leaseKey{}).(*Lease); ok && l.s.dir == s.dir {
		return l.Hold(ctx, d)
	}
	s.mu.Lock()
	l := s.session
	s.mu.Unlock()
	if l == nil {
		made, err := s.Lease(ctx, "process", "")
		if err != nil {
			return err
		}
		s.mu.Lock()
		if l = s.session; l == nil {
			s.session, l, made = made, made, nil
		}
		s.mu.Unlock()
		if made != nil {
			made.Release()
		}
	}
	return l.Hold(ctx, d)
}

// unhold ends the process's own hold of what a name holds now. If that fails, it is held until Close: no reason to say that Tag
// has not tagged.
func (s *Store) unhold(d v1.Descriptor) {
	s.mu.Lock()
	l := s.session
	s.mu.Unlock()
	if l == nil {
		return
	}
	g := newGraph(s)
	if err := g.mark(node{d.Digest, kindOf(d.MediaType)}); err == nil {
		l.drop(g.digests())
	}
}

// SaveLease makes or replaces the lease of a kind and id, which holds until DeleteLease or its time to expire: for what
// outlives processes, such as containers.
func (s *Store) SaveLease(ctx context.Context, info LeaseInfo) error {
	if err := info.check(); err != nil {
		return err
	}
	if info.Created.IsZero() {
		info.Created = time.Now().UTC()
	}
	data, err := encodeJSON(info)
	if err != nil {
		return err
	}
	shared, err := s.share(ctx)
	if err != nil {
		return err
	}
	defer shared.Close()
	path := s.leasePath(info.Kind, info.ID)
	var opts []atomicfile.Option
	if info.Volatile {
		opts = append(opts, atomicfile.NoSync)
	}
	if err = s.may("write", path); err == nil {
		err = atomicfile.Write(path, append(data, '\n'), fileMode, opts...)
	}
	if err != nil {
		return fmt.Errorf("save lease of %s %s: %w", info.Kind, info.ID, err)
	}
	return nil
}

// DeleteLease removes what SaveLease made. Removing what is not there is no error.
func (s *Store) DeleteLease(_ context.Context, kind, id string) error {
	if err := (LeaseInfo{Kind: kind, ID: id}).check(); err != nil {
		return err
	}
	if err := os.Remove(s.leasePath(kind, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete lease: %w", err)
	}
	return nil
}

func (s *Store) leasePath(kind, id string) string {
	return s.path("leases", kind+"."+id+persistent)
}

// check checks what becomes part of a file's name, and the digests.
func (l LeaseInfo) check() error {
	const lower, more = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
	if l.Kind == "" || len(l.Kind) > 32 || strings.Trim(l.Kind, lower) != "" {
		return fmt.Errorf("lease: kind %.40q: want up to 32 lower-case letters", l.Kind)
	}
	if l.ID == "" || len(l.ID) > 128 || strings.Trim(l.ID, lower+more) != "" {
		return fmt.Errorf("lease: id %.140q: want up to 128 letters, digits, _ . -", l.ID)
	}
	for _, list := range [][]digest.Digest{l.Digests, l.Layers} {
		for _, d := range list {
			if err := reference.CheckDigest(d); err != nil {
				return fmt.Errorf("lease: %w", err)
			}
		}
	}
	return nil
}

// Leases lists the leases that hold something now.
func (s *Store) Leases(context.Context) ([]LeaseInfo, error) {
	entries, err := os.ReadDir(s.path("leases"))
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var list []LeaseInfo
	for _, e := range entries {
		isLive := strings.HasSuffix(e.Name(), live)
		if !isLive && !strings.HasSuffix(e.Name(), persistent) || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := s.path("leases", e.Name())
		if isLive {
			if dead, err := isFree(path); err != nil || dead {
				if err != nil {
					return nil, fmt.Errorf("list leases: %w", err)
				}
				continue
			}
		}
		info, err := readLease(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read lease %s: %w", e.Name(), err)
		}
		if info.Live = isLive; info.Expires.IsZero() || time.Now().Before(info.Expires) {
			list = append(list, info)
		}
	}
	return list, nil
}

// isFree reports whether nobody has the lock of a file, or it is gone.
func isFree(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = filelock.TryShared(f)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// readLease reads a lease file.
func readLease(path string) (LeaseInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return LeaseInfo{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxLease+1))
	if err != nil {
		return LeaseInfo{}, err
	}
	if len(data) > maxLease {
		return LeaseInfo{}, fmt.Errorf("it has more than %d bytes, the limit", maxLease)
	}
	return parseLease(data)
}

func parseLease(data []byte) (LeaseInfo, error) {
	var info LeaseInfo
	first, rest, ok := bytes.Cut(data, []byte("\n"))
	if !ok {
		return LeaseInfo{}, io.ErrUnexpectedEOF
	}
	if err := json.Unmarshal(first, &info); err != nil {
		return LeaseInfo{}, err
	}
	blobs, layers := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	hold := func(c leaseChange) {
		for _, d := range c.Digests {
			blobs[d] = true
		}
		for _, d := range c.Layers {
			layers[d] = true
		}
		for _, d := range c.Drop {
			delete(blobs, d)
		}
	}
	hold(leaseChange{Digests: info.Digests, Layers: info.Layers})
	for {
		var line []byte
		if line, rest, ok = bytes.Cut(rest, []byte("\n")); !ok {
			break
		}
		var c leaseChange
		if err := json.Unmarshal(line, &c); err != nil {
			return LeaseInfo{}, err
		}
		hold(c)
	}
	info.Digests, info.Layers = sorted(blobs), sorted(layers)
	return info, info.check()
}

func sorted(set map[digest.Digest]bool) []digest.Digest {
	list := make([]digest.Digest, 0, len(set))
	for d := range set {
		list = append(list, d)
	}
	slices.Sort(list)
	return list
}

// buryLeases removes the lease files of dead processes if there are more than few lease files at all. The caller has share or
// alone.
func (s *Store) buryLeases(few int) error {
	paths, err := filepath.Glob(s.path("leases", "*"+live))
	if err != nil || len(paths) <= few {
		return err
	}
	for _, p := range paths {
		if _, err := removeFree(p); err != nil {
			return err
		}
	}
	return nil
}
