package directory

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/internal/sys/fsat"
)

// Sweep implements storage.Collector.
func (d *Dir) Sweep(ctx context.Context, name string, decide func(storage.Contents) (storage.Removal, error)) error {
	if !d.hasRepo(name) {
		return storage.ErrRepositoryUnknown
	}
	unlock, err := d.lockRepo(name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := removeTemporary(d.path(repo(name))); err != nil {
		return fault("clean repository "+name, err)
	}
	has, err := d.inventory(ctx, name)
	if err != nil {
		return fault("list repository "+name, err)
	}
	removal, err := decide(has)
	if err != nil {
		return err
	}
	if err := d.removeTags(name, removal.Tags); err != nil {
		return err
	}
	for _, m := range removal.Manifests {
		if err := d.deleteManifest(ctx, name, m, has.Tags); err != nil && !errors.Is(err, storage.ErrManifestUnknown) {
			return err
		}
	}
	used := make(map[digest.Digest]time.Time, len(has.Blobs))
	for _, b := range has.Blobs {
		used[b.Digest] = b.Used
	}
	for _, blob := range removal.Blobs {
		if err := d.unlinkUnused(name, blob, used[blob]); err != nil {
			return fault("unlink blob", err)
		}
	}
	return fault("unlink blobs", syncDir(d.path(repo(name)+"/blobs")))
}

// removeTemporary removes what processes that died were about to write in a repository, whose lock is held.
func removeTemporary(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			err = os.Remove(dir + "/" + e.Name())
		} else if e.IsDir() && e.Name() != "blobs" { // where nothing has another name first
			err = removeTemporary(dir + "/" + e.Name())
		}
		if err != nil && !absent(err) {
			return err
		}
	}
	return nil
}

// inventory lists what a repository has. Its lock is held, but blobs come and go without it.
func (d *Dir) inventory(ctx context.Context, name string) (has storage.Contents, err error) {
	if has.Tags, err = d.readTags(name); err != nil {
		return has, err
	}
	manifests, err := names(d.path(repo(name) + "/manifests"))
	if err != nil {
		return has, err
	}
	for _, m := range manifests {
		if err := ctx.Err(); err != nil {
			return has, err
		}
		found, _, err := d.readManifest(manifestFile(name, digest.Digest(m)))
		if err != nil {
			return has, err
		}
		found.Raw = nil
		has.Manifests = append(has.Manifests, found)
	}
	blobs, err := names(d.path(repo(name) + "/blobs"))
	if err != nil {
		return has, err
	}
	for _, blob := range blobs {
		info, err := d.StatBlob(ctx, name, digest.Digest(blob))
		if errors.Is(err, storage.ErrBlobUnknown) {
			st, gone := fsat.Lstat(d.fd, link(name, digest.Digest(blob)))
			if gone != nil {
				continue
			}
			// A name without bytes, which only a power cut or a person leaves behind, is as good as a blob of no size.
			info, err = storage.BlobInfo{Digest: digest.Digest(blob), Used: st.Mtime}, nil
		}
		if err != nil {
			return has, err
		}
		has.Blobs = append(has.Blobs, info)
	}
	return has, nil
}

// unlinkUnused takes a blob from a repository unless it was used since.
func (d *Dir) unlinkUnused(name string, blob digest.Digest, seen time.Time) error {
	unlock, err := d.lockContent(blob)
	if err != nil {
		return err
	}
	defer unlock()
	st, err := fsat.Lstat(d.fd, link(name, blob))
	if err != nil {
		if absent(err) {
			err = nil
		}
		return err
	}
	if !st.Mtime.Equal(seen) {
		return nil
	}
	return os.Remove(filepath.Join(d.root, link(name, blob)))
}
