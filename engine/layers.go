package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/tare-oci/tare/image/archive"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/internal/sys/flock"
	"github.com/tare-oci/tare/internal/sys/mount"
)

// layerInfo is layer.json, beside the files of an unpacked layer.
type layerInfo struct {
	RootEntry  bool `json:"rootEntry"`  // the archive said what the root directory is like
	NeedsLower bool `json:"needsLower"` // unpacked alone it may be wrong above another layer
	// Problem is why it could not be unpacked alone at all; there are no files then.
	Problem string `json:"problem,omitempty"`
}

// unpack makes sure that every layer of img is unpacked, each once however many processes ask for it at the same time, and
// fills in img.Dirs.
func (e *Engine) unpack(ctx context.Context, img *image) error {
	if img.Dirs != nil {
		return nil
	}
	if err := e.sweepLayers(); err != nil {
		return err
	}
	a, err := archive.Open(img.source)
	if err != nil {
		return err
	}
	defer a.Close()
	found, err := a.Image(ctx, manifest.Platform{})
	if err != nil {
		return err
	}
	if found.ID.String() != img.ID {
		return fmt.Errorf("image %s was replaced while it was read", img.source)
	}
	infos, err := e.unpackAlone(ctx, found)
	if err != nil {
		return err
	}
	img.Dirs = make([]string, len(found.Layers))
	for i := range found.Layers {
		l := &found.Layers[i]
		img.Dirs[i] = layerDir(l.DiffID)
		if i == 0 && infos[i].Problem != "" {
			return fmt.Errorf("layer %.19s: %s", l.DiffID, infos[i].Problem)
		}
		if i > 0 && infos[i].NeedsLower {
			if img.Dirs[i], err = e.unpackAbove(ctx, found, img.Dirs[:i]); err != nil {
				return err
			}
		}
		if infos[i].RootEntry {
			img.RootFrom = img.Dirs[i]
		}
	}
	return e.remember(img)
}

// unpackAlone unpacks the layers side by side, a few at a time.
func (e *Engine) unpackAlone(ctx context.Context, img *archive.Image) ([]layerInfo, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	infos := make([]layerInfo, len(img.Layers))
	slots := make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	var wg sync.WaitGroup
	for i := range img.Layers {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			l := &img.Layers[i]
			info, err := e.unpackLayer(ctx, l, layerDir(l.DiffID), nil)
			if err != nil {
				cancel(err)
			}
			infos[i] = info
		})
	}
	wg.Wait()
	return infos, context.Cause(ctx)
}

// unpackAbove unpacks the layer above those in lower, which it depends on, into a directory that is named by all of them.
func (e *Engine) unpackAbove(ctx context.Context, img *archive.Image, lower []string) (string, error) {
	n := len(lower)
	diffIDs := make([]digest.Digest, n+1)
	for i := range diffIDs {
		diffIDs[i] = img.Layers[i].DiffID
	}
	dir := filepath.Join("chain", layerDir(identity.ChainID(diffIDs)))
	_, err := e.unpackLayer(ctx, &img.Layers[n], dir, lower)
	return dir, err
}

// unpackLayer unpacks l into dir below ROOT/layers unless it is there. It is made under another name, and gets its own when
// it is complete and on disk.
func (e *Engine) unpackLayer(ctx context.Context, l *archive.Layer, dir string, lower []string) (layerInfo, error) {
	path := e.path("layers", dir)
	if info, err := readLayerInfo(path); err == nil {
		return info, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return layerInfo{}, err
	}
	lock, err := flock.Acquire(path + ".lock")
	if err != nil {
		return layerInfo{}, err
	}
	info, err := readLayerInfo(path)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = e.makeLayer(ctx, l, path, lower)
		if e := removeTree(path + ".part"); err == nil {
			err = e
		}
	}
	if e := lock.Remove(); err == nil {
		err = e
	}
	if err != nil {
		return layerInfo{}, fmt.Errorf("layer %.19s: %w", l.DiffID, err)
	}
	return info, nil
}

func (e *Engine) makeLayer(ctx context.Context, l *archive.Layer, path string, lower []string) (layerInfo, error) {
	part := path + ".part"
	if err := removeTree(part); err != nil {
		return layerInfo{}, err
	}
	if err := os.MkdirAll(filepath.Join(part, "fs"), 0o755); err != nil {
		return layerInfo{}, err
	}
	root, err := os.Open(filepath.Join(part, "fs"))
	if err != nil {
		return layerInfo{}, err
	}
	defer root.Close()
	opts := layer.Options{DiffID: l.DiffID}
	for i := len(lower) - 1; i >= 0; i-- {
		d, err := os.Open(e.path("layers", lower[i], "fs"))
		if err != nil {
			return layerInfo{}, err
		}
		defer d.Close()
		opts.Lower = append(opts.Lower, d)
	}
	info, err := readLayer(ctx, l, root, opts)
	if err != nil {
		return layerInfo{}, err
	}
	data, err := json.Marshal(info)
	if err != nil {
		return layerInfo{}, err
	}
	if err := os.WriteFile(filepath.Join(part, "layer.json"), data, 0o600); err != nil {
		return layerInfo{}, err
	}
	if err := mount.SyncFS(root); err != nil {
		return layerInfo{}, err
	}
	return info, os.Rename(part, path)
}

// readLayer unpacks l into root and verifies its stored bytes to their end. A layer that cannot be unpacked without those
// below it is left empty, with the mark that it needs them.
func readLayer(ctx context.Context, l *archive.Layer, root *os.File, opts layer.Options) (layerInfo, error) {
	r, err := l.Open()
	if err != nil {
		return layerInfo{}, err
	}
	defer r.Close()
	result, err := layer.Unpack(ctx, root, r, opts)
	if errors.Is(err, layer.ErrNeedsLower) && opts.Lower == nil {
		return layerInfo{RootEntry: result.RootEntry, NeedsLower: true, Problem: err.Error()}, removeContent(root)
	}
	if err != nil {
		return layerInfo{}, err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return layerInfo{}, err
	}
	return layerInfo{RootEntry: result.RootEntry, NeedsLower: result.NeedsLower}, nil
}

// removeContent empties the directory dir.
func removeContent(dir *os.File) error {
	names, err := os.ReadDir(dir.Name())
	for _, n := range names {
		if err == nil {
			err = removeTree(filepath.Join(dir.Name(), n.Name()))
		}
	}
	return err
}

func readLayerInfo(path string) (layerInfo, error) {
	data, err := os.ReadFile(filepath.Join(path, "layer.json"))
	if err != nil {
		return layerInfo{}, err
	}
	var info layerInfo
	if err := json.Unmarshal(data, &info); err != nil {
		return layerInfo{}, fmt.Errorf("read %s: %w", path, err)
	}
	return info, nil
}

// sweepLayers removes what killed processes left half unpacked, or half written in ROOT/images.
func (e *Engine) sweepLayers() error {
	for _, pattern := range []string{"layers/*/*.lock", "layers/chain/*/*.lock"} {
		locks, err := filepath.Glob(e.path(pattern))
		if err != nil {
			return err
		}
		for _, name := range locks {
			if err := sweepLayer(name); err != nil {
				return err
			}
		}
	}
	entries, err := os.ReadDir(e.path("images"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !strings.HasPrefix(entry.Name(), ".") || time.Since(info.ModTime()) < time.Minute {
			continue // complete, gone, or being written
		}
		if err := os.Remove(e.path("images", entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func sweepLayer(lockName string) error {
	lock, err := flock.Try(lockName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, flock.ErrHeld) {
		return nil
	}
	if err != nil {
		return err
	}
	err = removeTree(strings.TrimSuffix(lockName, ".lock") + ".part")
	return errors.Join(err, lock.Remove())
}
