package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/tare-oci/tare/image/archive"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/snapshot"
)

// unpack makes sure that every layer of img is unpacked, each once however many processes ask for it at the same time, and
// holds them. The caller closes the result.
func (e *Engine) unpack(ctx context.Context, img *image) (*snapshot.Rootfs, error) {
	if img.key == "" {
		return e.layers.Image(ctx, img.layers)
	}
	if img.unseen {
		layers := make([]snapshot.Layer, len(img.DiffIDs))
		for i, d := range img.DiffIDs {
			layers[i].DiffID = d
		}
		rootfs, err := e.layers.Image(ctx, layers)
		if !errors.Is(err, content.ErrNotFound) {
			return rootfs, err
		}
	}
	if err := e.layers.Sweep(); err != nil {
		return nil, err
	}
	if err := e.sweepImages(); err != nil {
		return nil, err
	}
	a, err := archive.Open(img.source)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	found, err := a.Image(ctx, manifest.Platform{})
	if err != nil {
		return nil, err
	}
	if found.ID.String() != img.ID {
		return nil, fmt.Errorf("image %s was replaced while it was read", img.source)
	}
	layers := make([]snapshot.Layer, len(found.Layers))
	for i := range found.Layers {
		l := &found.Layers[i]
		layers[i] = snapshot.Layer{DiffID: l.DiffID, Open: l.Open}
	}
	rootfs, err := e.layers.Image(ctx, layers)
	if err != nil {
		return nil, err
	}
	if err := e.remember(img); err != nil {
		rootfs.Close()
		return nil, err
	}
	return rootfs, nil
}

// sweepImages removes what killed processes left half written in ROOT/images.
func (e *Engine) sweepImages() error {
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
