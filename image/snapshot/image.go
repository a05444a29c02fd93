package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/tare-oci/tare/internal/sys/mount"
)

// Rootfs is the root file system of an image: its layers, all there, and nobody removes them before Close.
type Rootfs struct {
	// Lower are the directories of which overlayfs shows the root, absolute paths, the uppermost first: the order of its option
	// lowerdir. None is there twice, and there may be none at all.
	Lower []string
	// RootFrom is the directory whose owner, mode and times are those of the image's root; empty if no layer says anything of it.
	RootFrom string
	// Layers are what is known of the layers, the lowest first, as many as the image has.
	Layers []Info

	store *Store
	mu    sync.Mutex
	held  []*held
}

// Close gives the layers up: whoever has no other word for them may remove them. It may be called twice, and waits for a Sync
// that is under way.
func (r *Rootfs) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	releaseAll(r.held)
	r.held = nil
}

func releaseAll(all []*held) {
	for _, h := range all {
		if h != nil {
			h.release()
		}
	}
}

// Image makes sure that all layers of an image are unpacked, the lowest being the first of layers, and holds them. Layers are
// unpacked side by side. The error wraps content.ErrNotFound if one is not there and has no Open. The caller closes the result.
func (s *Store) Image(ctx context.Context, layers []Layer) (*Rootfs, error) {
	alone, err := s.alone(ctx, layers)
	if err != nil {
		releaseAll(alone)
		return nil, err
	}
	r := &Rootfs{store: s, held: alone}
	if err := r.stack(ctx, layers); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// alone unpacks the layers side by side, a few at a time, each as if it were the only one.
func (s *Store) alone(ctx context.Context, layers []Layer) ([]*held, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all := make([]*held, len(layers))
	slots := make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	var wg sync.WaitGroup
	for i := range layers {
		h, err := s.holdQuickly(&layers[i])
		if err == nil {
			all[i] = h
			continue
		}
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			h, err := s.ensure(ctx, &layers[i], nil)
			if err != nil {
				cancel(err)
			}
			all[i] = h
		})
	}
	wg.Wait()
	return all, context.Cause(ctx)
}

// holdQuickly takes hold of a layer that is there.
func (s *Store) holdQuickly(l *Layer) (*held, error) {
	if err := checkDiffID(l.DiffID); err != nil {
		return nil, err
	}
	return s.hold(layerDir(l.DiffID))
}

// stack puts the layers, unpacked alone, together. Layers that need those below them are unpacked above these.
func (r *Rootfs) stack(ctx context.Context, layers []Layer) error {
	stack := make([]*held, 0, len(layers))
	for i, h := range r.held[:len(layers):len(layers)] {
		if i == 0 && h.info.Problem != "" {
			return fmt.Errorf("%s: %s", layers[0].name(), h.info.Problem)
		}
		// A whiteout in the lowest layer hides nothing, but overlayfs would list it.
		if i > 0 && h.info.NeedsLower || i == 0 && h.info.Whiteouts > 0 {
			above, err := r.store.ensure(ctx, &layers[i], stack)
			if err != nil {
				return err
			}
			r.held = append(r.held, above)
			h = above
		}
		if h.info.RootEntry {
			r.RootFrom = filepath.Join(h.path, "fs")
		}
		stack = append(stack, h)
		r.Layers = append(r.Layers, h.info)
	}
	for _, h := range visible(stack) {
		r.Lower = append(r.Lower, filepath.Join(h.path, "fs"))
	}
	return nil
}

// visible returns those of the layers in stack (the lowest first) that can be seen from above, the uppermost first. Overlayfs
// refuses a directory that it is given twice; a layer that occurs again above hides everything that it has or hides below.
func visible(stack []*held) []*held {
	var seen []*held
	for _, h := range slices.Backward(stack) {
		if !slices.ContainsFunc(seen, func(s *held) bool { return s.path == h.path }) {
			seen = append(seen, h)
		}
		if h.info.RootOpaque {
			break
		}
	}
	return seen
}

// chainID names the layer diffID above those in lower.
func chainID(lower []*held, diffID digest.Digest) digest.Digest {
	ids := make([]digest.Digest, 0, len(lower)+1)
	for _, h := range lower {
		ids = append(ids, h.info.DiffID)
	}
	return identity.ChainID(append(ids, diffID))
}

// Sync waits until the layers are on disk, and remembers it, so that they are still good after a power cut. Nothing depends on
// its being called: without it the layers are unpacked anew after the next start of the system. It costs one system call
// per layer if there is nothing to do, and there is nothing to do after Close.
func (r *Rootfs) Sync() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var missing []string
	for _, h := range r.held {
		if _, err := os.Lstat(filepath.Join(h.path, syncedFile)); errors.Is(err, os.ErrNotExist) {
			missing = append(missing, h.path)
		} else if err != nil {
			return err
		}
	}
	if len(missing) == 0 {
		return nil
	}
	dir, err := os.Open(r.store.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return markSynced(dir, missing...)
}

// markSynced syncs the file system of dir and marks the layers at paths, which are on it.
func markSynced(dir *os.File, paths ...string) error {
	if err := mount.SyncFS(dir); err != nil {
		return err
	}
	for _, p := range paths {
		if err := os.WriteFile(filepath.Join(p, syncedFile), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}
