package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/internal/sys/flock"
	"github.com/tare-oci/tare/internal/sys/fsat"
)

// Entry is one directory of the store.
type Entry struct {
	Info
	Usage int64 // bytes on disk, the directory's own included
}

// List tells about all unpacked layers, in no order. A layer that needs those below it has an entry for itself and one for each
// stack that it was unpacked above (Info.Chain). The usage is counted anew, file by file.
func (s *Store) List(ctx context.Context) ([]Entry, error) {
	dirs, err := s.dirs()
	if err != nil {
		return nil, err
	}
	var all []Entry
	for _, dir := range dirs {
		h, err := s.hold(dir)
		if errors.Is(err, errAbsent) {
			continue
		}
		if err != nil {
			return nil, err
		}
		n, err := usage(ctx, h.path)
		h.release()
		if err != nil {
			return nil, err
		}
		all = append(all, Entry{Info: h.info, Usage: n})
	}
	return all, nil
}

// dirs lists the directories of all layers, below the store's.
func (s *Store) dirs() ([]string, error) {
	var dirs []string
	for _, pattern := range []string{"*/*", "chain/*/*"} {
		paths, err := filepath.Glob(s.path(pattern, infoFile))
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			dir, err := filepath.Rel(s.dir, filepath.Dir(p))
			if err != nil {
				return nil, err
			}
			if filepath.Ext(dir) == "" { // else it is half made or half removed
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs, nil
}

// Size returns the bytes that the layer takes on disk; 0 if it is not there. Directories of the same layer above others are not
// counted.
func (s *Store) Size(ctx context.Context, diffID digest.Digest) (int64, error) {
	if err := checkDiffID(diffID); err != nil {
		return 0, err
	}
	h, err := s.hold(layerDir(diffID))
	if errors.Is(err, errAbsent) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer h.release()
	return usage(ctx, h.path)
}

// Removed is what Remove and Prune did, or would do.
type Removed struct {
	DiffIDs []digest.Digest // of the directories that went, once each
	Bytes   int64           // that became free
	Kept    int             // directories that were to go but are in use
}

// Remove removes the layers, and what was unpacked above them. What somebody holds (Image) stays; a layer that is not there is no
// error.
func (s *Store) Remove(ctx context.Context, diffIDs ...digest.Digest) (Removed, error) {
	doomed := map[digest.Digest]bool{}
	for _, d := range diffIDs {
		doomed[d] = true
	}
	return s.Prune(ctx, func(d digest.Digest) bool { return !doomed[d] }, false)
}

// Prune removes the layers of which keep says false, by diff ID, layers that were unpacked above such ones, and layers that may
// not have survived a power cut. What somebody holds stays. With dryRun nothing is removed, and the result says what would be.
func (s *Store) Prune(ctx context.Context, keep func(digest.Digest) bool, dryRun bool) (Removed, error) {
	dirs, err := s.dirs()
	if err != nil {
		return Removed{}, err
	}
	var result Removed
	seen := map[digest.Digest]bool{}
	for _, dir := range dirs {
		h, err := s.hold(dir)
		dead := errors.Is(err, errAbsent)
		if err != nil && !dead {
			return result, err
		}
		if !dead {
			h.release()
			if stays(&h.info, keep) {
				continue
			}
		}
		n, gone, err := s.remove(ctx, dir, dead, dryRun)
		switch {
		case err != nil:
			return result, fmt.Errorf("remove layer %s: %w", dir, err)
		case gone:
			result.Bytes += n
			if !dead && !seen[h.info.DiffID] {
				seen[h.info.DiffID] = true
				result.DiffIDs = append(result.DiffIDs, h.info.DiffID)
			}
		case !dead:
			result.Kept++
		}
	}
	return result, nil
}

// stays says whether keep keeps the layer and all that it was unpacked above.
func stays(info *Info, keep func(digest.Digest) bool) bool {
	return keep(info.DiffID) && !slices.ContainsFunc(info.Chain, func(d digest.Digest) bool { return !keep(d) })
}

// remove removes the layer in dir unless somebody holds it, and if it is dead, only if it still is. It loses its name at once, and
// its files then.
func (s *Store) remove(ctx context.Context, dir string, dead, dryRun bool) (bytes int64, gone bool, err error) {
	path := s.path(dir)
	lock, err := flock.AcquireContext(ctx, path+lockSuffix)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, clean(path), lock.Remove()) }()
	if err := clean(path); err != nil {
		return 0, false, err
	}
	alone, err := flock.TryReadOnly(filepath.Join(path, infoFile))
	if errors.Is(err, flock.ErrHeld) || errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer alone.Release()
	if _, err := s.read(alone.File(), path); dead && !errors.Is(err, errAbsent) {
		return 0, false, err
	}
	n, err := usage(ctx, path)
	if err != nil || dryRun {
		return n, err == nil, err
	}
	return n, true, os.Rename(path, path+goneSuffix)
}

// usage counts the bytes that the tree at path takes on disk. A file with several names in it is counted once.
func usage(ctx context.Context, path string) (int64, error) {
	dir, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	fd, err := fsat.Fd(dir)
	if err != nil {
		return 0, err
	}
	n, err := fsat.Usage(ctx, fd)
	if err != nil {
		return 0, fmt.Errorf("count bytes of %s: %w", path, err)
	}
	return n, nil
}

// Sweep removes what killed processes left half done. It costs a listing of directories, and does not touch what others work on.
func (s *Store) Sweep() error {
	var all []error
	for _, pattern := range []string{"*/*", "chain/*/*"} {
		locks, err := filepath.Glob(s.path(pattern + lockSuffix))
		if err != nil {
			return err
		}
		for _, name := range locks {
			all = append(all, sweepLayer(name))
		}
	}
	return errors.Join(all...)
}

func sweepLayer(lockName string) error {
	lock, err := flock.Try(lockName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, flock.ErrHeld) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(clean(strings.TrimSuffix(lockName, lockSuffix)), lock.Remove())
}
