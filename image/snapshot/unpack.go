package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/internal/sys/flock"
)

// Has reports whether the layer is unpacked.
func (s *Store) Has(diffID digest.Digest) bool {
	if checkDiffID(diffID) != nil {
		return false
	}
	h, err := s.hold(layerDir(diffID))
	if err != nil {
		return false
	}
	h.release()
	return true
}

// Layer makes sure that the layer is unpacked: once, however many goroutines and processes ask for it at the same time. open is
// that of Layer. When ctx ends, the work or the wait for another's does. After an error nothing of the layer is there. Somebody
// else may remove the layer as soon as Layer returns: what must stay is held by Image.
func (s *Store) Layer(ctx context.Context, diffID digest.Digest, open func() (io.ReadCloser, error)) (Info, error) {
	h, err := s.ensure(ctx, &Layer{DiffID: diffID, Open: open}, nil)
	if err != nil {
		return Info{}, err
	}
	defer h.release()
	return h.info, nil
}

// held is a layer's directory that nobody removes before release.
type held struct {
	info Info
	path string
	lock *flock.Lock
}

func (h *held) release() { h.lock.Release() }

// hold takes hold of the layer in dir; errAbsent if it is not there, is being removed, or may not have survived a power cut.
func (s *Store) hold(dir string) (*held, error) {
	path := s.path(dir)
	lock, err := flock.TryShared(filepath.Join(path, infoFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, flock.ErrHeld) {
		return nil, errAbsent
	}
	if err != nil {
		return nil, err
	}
	h := &held{path: path, lock: lock}
	if h.info, err = s.read(lock.File(), path); err != nil {
		lock.Release()
		return nil, err
	}
	return h, nil
}

const (
	infoFile   = "layer.json"
	syncedFile = "synced"
	maxInfo    = 1 << 20
)

// read reads what f, the file infoFile of the layer at path, says; errAbsent if the layer may not have survived a power cut.
func (s *Store) read(f *os.File, path string) (Info, error) {
	data, err := io.ReadAll(io.LimitReader(f, maxInfo))
	if err != nil {
		return Info{}, err
	}
	var info Info
	// A file that was not written to disk may hold anything: ask first whether it can be trusted.
	parseErr := json.Unmarshal(data, &info)
	if parseErr == nil && info.Boot == s.boot && s.boot != "" {
		return info, nil
	}
	if _, err := os.Lstat(filepath.Join(path, syncedFile)); errors.Is(err, fs.ErrNotExist) {
		return Info{}, errAbsent
	} else if err != nil {
		return Info{}, err
	}
	if parseErr != nil {
		return Info{}, fmt.Errorf("read %s: %w", f.Name(), parseErr)
	}
	return info, nil
}

// ensure unpacks l if it is not there, above the layers in lower (the lowest first) unless that is nil, and takes hold of it.
func (s *Store) ensure(ctx context.Context, l *Layer, lower []*held) (*held, error) {
	if err := checkDiffID(l.DiffID); err != nil {
		return nil, err
	}
	dir := layerDir(l.DiffID)
	if lower != nil {
		dir = filepath.Join("chain", layerDir(chainID(lower, l.DiffID)))
	}
	for range 3 {
		h, err := s.hold(dir)
		if !errors.Is(err, errAbsent) {
			return h, err
		}
		if l.Open == nil {
			return nil, fmt.Errorf("%s is not unpacked: %w", l.name(), content.ErrNotFound)
		}
		if err := s.unpack(ctx, l, dir, lower); err != nil {
			return nil, fmt.Errorf("%s: %w", l.name(), err)
		}
		// Whoever removes what nobody uses may come in between.
	}
	return nil, fmt.Errorf("%s: it is removed as soon as it is unpacked", l.name())
}

// unpack unpacks l into dir below the store, or waits until somebody else has. It is made under another name, and gets its own
// when it is complete.
func (s *Store) unpack(ctx context.Context, l *Layer, dir string, lower []*held) error {
	path := s.path(dir)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	lock, err := flock.AcquireContext(ctx, path+".lock")
	if err != nil {
		return err
	}
	h, err := s.hold(dir)
	if errors.Is(err, errAbsent) {
		err = s.replace(ctx, l, path, lower)
	} else if err == nil {
		h.release()
	}
	return errors.Join(err, clean(path), lock.Remove())
}

// replace unpacks l to path, in place of one that did not survive a power cut.
func (s *Store) replace(ctx context.Context, l *Layer, path string, lower []*held) error {
	if err := clean(path); err != nil {
		return err
	}
	if err := removeTree(path); err != nil {
		return err
	}
	if err := s.fill(ctx, l, path+partSuffix, lower); err != nil {
		return err
	}
	return os.Rename(path+partSuffix, path)
}

const (
	lockSuffix = ".lock"
	partSuffix = ".part"
	goneSuffix = ".gone"
)

// clean removes what others may have left half done of the layer at path, whose lock the caller has.
func clean(path string) error {
	return errors.Join(removeTree(path+partSuffix), removeTree(path+goneSuffix))
}

// fill unpacks l below part, which is new.
func (s *Store) fill(ctx context.Context, l *Layer, part string, lower []*held) error {
	if err := os.MkdirAll(filepath.Join(part, "fs"), 0o700); err != nil {
		return err
	}
	root, err := os.Open(filepath.Join(part, "fs"))
	if err != nil {
		return err
	}
	defer root.Close()
	opts := layer.Options{DiffID: l.DiffID, Rootless: s.rootless, Limits: s.opts.Limits}
	if s.driver == Copy {
		opts.Whiteouts = layer.Marks
	}
	info := Info{Boot: s.boot}
	if lower != nil {
		opts.Lower = []*os.File{}
	}
	for _, h := range visible(lower) {
		d, err := os.Open(filepath.Join(h.path, "fs"))
		if err != nil {
			return err
		}
		defer d.Close()
		opts.Lower = append(opts.Lower, d)
	}
	for _, h := range lower {
		info.Chain = append(info.Chain, h.info.DiffID)
	}
	if err := read(ctx, l, root, opts, &info); err != nil {
		return err
	}
	data, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(part, infoFile), data, 0o600); err != nil {
		return err
	}
	if s.boot == "" {
		return markSynced(root, part)
	}
	return nil
}

// read unpacks l into root and reads its stored bytes to their verified end. A layer that cannot be unpacked without those below
// it is left empty, with the mark that it needs them.
func read(ctx context.Context, l *Layer, root *os.File, opts layer.Options, info *Info) error {
	r, err := l.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	info.DiffID = l.DiffID
	result, err := layer.Unpack(ctx, root, r, opts)
	if errors.Is(err, layer.ErrNeedsLower) && opts.Lower == nil {
		info.NeedsLower, info.Problem = true, err.Error()
		return removeContent(root)
	}
	if err != nil {
		return err
	}
	info.Size, info.Entries, info.Whiteouts = result.Size, result.Entries, result.Whiteouts
	info.RootEntry, info.RootOpaque, info.NeedsLower = result.RootEntry, result.RootOpaque, result.NeedsLower
	info.Skipped, info.SkippedCount = result.Skipped, result.SkippedCount
	_, err = io.Copy(io.Discard, r)
	return err
}

// removeContent empties the directory dir.
func removeContent(dir *os.File) error {
	names, err := dir.Readdirnames(-1)
	for _, n := range names {
		if err == nil {
			err = layer.Remove(dir, n)
		}
	}
	return err
}

// removeTree removes path and everything below it: descriptors only, no depth limit. A tree that is not there is no error.
func removeTree(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return layer.Remove(dir, filepath.Base(path))
}
