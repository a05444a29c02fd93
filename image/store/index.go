package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/internal/ijson"
)

const (
	emptyIndex = `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `","manifests":[]}`

	maxIndex   = 64 << 20 // bytes of index.json
	maxEntries = 50000    // of index.json

	// containerdName is where containerd and Docker put the full name of an index.json entry.
	containerdName = "io.containerd.image.name"
)

// ErrIndex is wrapped by errors that say that index.json is missing or cannot be read. Fsck repairs it.
var ErrIndex = errors.New("the store's index.json is damaged: tare image fsck --repair restores it")

// index is index.json: what we know of it beside what somebody else may have written there, which stays as it is. It is not
// changed once it is parsed.
type index struct {
	info   os.FileInfo // of the file that was read
	fields map[string]json.RawMessage
	raws   []json.RawMessage // the manifests

	lookups atomic.Int32
	once    sync.Once
	parsed  []entry
}

// entry is one of index.json's manifests.
type entry struct {
	raw  json.RawMessage
	desc v1.Descriptor
	name string // empty: none, or an earlier entry has it
	err  error  // what is wrong with the entry; then desc is not to be used
}

// readIndex returns index.json, parsed once as long as it is not replaced. What it returns is not to be changed.
func (s *Store) readIndex() (*index, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(s.dir, v1.ImageIndexFile)
	if s.cached != nil {
		if info, err := os.Lstat(path); err == nil && sameVersion(info, s.cached.info) {
			return s.cached, nil
		}
	}
	idx, err := s.loadIndex(v1.ImageIndexFile)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrIndex, err)
	}
	s.cached = idx
	return idx, nil
}

func sameVersion(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// loadIndex reads and parses the file name, which is index.json or a copy of it.
func (s *Store) loadIndex(name string) (*index, error) {
	f, size, err := s.root.OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxIndex {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d", name, size, maxIndex)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	idx, err := parseIndex(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	idx.info = info
	return idx, nil
}

// parseIndex parses index.json as far as where its entries begin: who looks for one needs not parse a thousand. It is not read
// as strictly as what comes from a registry: whoever can write it owns the store.
func parseIndex(raw []byte) (*index, error) {
	idx := &index{}
	if err := json.Unmarshal(raw, &idx.fields); err != nil {
		return nil, err
	}
	var version int
	if err := json.Unmarshal(idx.fields["schemaVersion"], &version); err != nil || version != 2 {
		return nil, fmt.Errorf("schemaVersion is %.20q, want 2", idx.fields["schemaVersion"])
	}
	if err := json.Unmarshal(idx.fields["manifests"], &idx.raws); err != nil {
		return nil, fmt.Errorf("manifests: %w", err)
	}
	if len(idx.raws) > maxEntries {
		return nil, fmt.Errorf("%d manifests, the limit is %d", len(idx.raws), maxEntries)
	}
	return idx, nil
}

// entries returns all entries. One that is wrong does not make the others unreadable. The result is not to be changed.
func (idx *index) entries() []entry {
	idx.once.Do(func() {
		idx.parsed = make([]entry, len(idx.raws))
		taken := make(map[string]bool, len(idx.raws))
		for i, raw := range idx.raws {
			e := parseEntry(raw)
			if taken[e.name] {
				e.name = ""
			}
			if e.name != "" {
				taken[e.name] = true
			}
			idx.parsed[i] = e
		}
	})
	return idx.parsed
}

func parseEntry(raw json.RawMessage) entry {
	e := entry{raw: raw}
	if e.err = json.Unmarshal(raw, &e.desc); e.err == nil {
		e.err = manifest.CheckDescriptor(e.desc)
	}
	if e.err == nil {
		e.name = e.desc.Annotations[v1.AnnotationRefName]
	}
	return e
}

// first returns the first entry that is what is wanted, of those that have the string word, which
// all have that are wanted.
func (idx *index) first(word string, wanted func(entry) bool) (v1.Descriptor, bool) {
	if idx.lookups.Add(1) > 8 {
		for _, e := range idx.entries() { // parsed once, for who looks for many
			if e.err == nil && wanted(e) {
				return e.desc, true
			}
		}
		return v1.Descriptor{}, false
	}
	quoted := []byte(`"` + word + `"`)
	for _, raw := range idx.raws {
		// A word that is written with escapes is not seen.
		if !bytes.Contains(raw, quoted) && bytes.IndexByte(raw, '\\') < 0 {
			continue
		}
		if e := parseEntry(raw); e.err == nil && wanted(e) {
			return e.desc, true
		}
	}
	return v1.Descriptor{}, false
}

// encode returns the text of an index.json with the entries.
func (idx *index) encode(entries []entry) ([]byte, error) {
	raws := make([]json.RawMessage, len(entries))
	for i, e := range entries {
		raws[i] = e.raw
	}
	list, err := encodeJSON(raws)
	if err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{}
	for k, v := range idx.fields {
		fields[k] = v
	}
	fields["manifests"] = list
	data, err := encodeJSON(fields)
	if err == nil && len(data) > maxIndex {
		err = fmt.Errorf("%s would have %d bytes, the limit is %d", v1.ImageIndexFile, len(data), maxIndex)
	}
	if err == nil && len(entries) > maxEntries {
		err = fmt.Errorf("%s would have %d manifests, the limit is %d: remove images", v1.ImageIndexFile, len(entries), maxEntries)
	}
	return data, err
}

// encodeJSON encodes v and leaves <, > and & as they are.
func encodeJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}

// change replaces index.json by one with the entries that edit returns, or leaves it when edit returns an error or keep. The
// caller has share or alone.
func (s *Store) change(ctx context.Context, edit func(entries []entry) (changed []entry, keep bool, err error)) error {
	lock, err := s.lockIndex(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	idx, err := s.readIndex()
	if err != nil {
		return err
	}
	entries, keep, err := edit(slices.Clone(idx.entries()))
	if err != nil || keep {
		return err
	}
	data, err := idx.encode(entries)
	if err != nil {
		return err
	}
	return s.writeIndex(data)
}

// writeIndex replaces index.json. The caller has its lock, so that the temporary names are its own: what one that was killed
// left is written over.
func (s *Store) writeIndex(data []byte) error {
	path, next, old := filepath.Join(s.dir, v1.ImageIndexFile), s.path("index.json.new"), s.path("index.json.old")
	err := s.writeSynced(next, data)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// A full disk is when names are removed: the backup makes room for as much.
		if os.Remove(s.path("index.json.bak")) == nil {
			err = s.writeSynced(next, data)
		}
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", v1.ImageIndexFile, err)
	}
	// The backup gets its new name before index.json loses the old content.
	if err := s.may("backup", path); err != nil {
		return err
	}
	if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err = os.Link(path, old); err == nil {
		err = os.Rename(old, s.path("index.json.bak"))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.may("rename", path); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	if err := s.may("syncdir", path); err != nil {
		return err
	}
	return syncDir(s.dir)
}

// writeSynced makes or replaces the content of a temporary file.
func (s *Store) writeSynced(path string, data []byte) error {
	if err := s.may("create", path); err != nil {
		return err
	}
	// A name that a killed process left may be linked to a file in use: never written through.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, fileMode)
	if err != nil {
		return err
	}
	defer f.Close()
	if err = s.may("write", path); err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		if err = s.may("sync", path); err == nil {
			err = f.Sync()
		}
	}
	if err != nil {
		return errors.Join(err, os.Remove(path)) // it may fill the disk
	}
	return nil
}

// layoutVersion returns the version that an oci-layout file says.
func layoutVersion(raw []byte) (string, error) {
	var layout v1.ImageLayout
	err := ijson.Unmarshal(raw, &layout)
	return layout.Version, err
}
