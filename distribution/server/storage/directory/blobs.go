package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/internal/sys/fsat"
)

func blobFile(blob digest.Digest) string {
	return "blobs/" + blob.Algorithm().String() + "/" + shard(blob) + "/" + string(blob)
}

func (d *Dir) pendingFile(blob digest.Digest) string { return "pending/" + d.boot + "/" + string(blob) }

func link(name string, blob digest.Digest) string { return repo(name) + "/blobs/" + string(blob) }

// content finds the file with the bytes of a blob, whatever repository it is in.
func (d *Dir) content(blob digest.Digest) (file string, st fsat.Stat, err error) {
	// A blob that is synced between the first two looks is there at the third.
	for _, file = range []string{blobFile(blob), d.pendingFile(blob), blobFile(blob)} {
		if st, err = fsat.Lstat(d.fd, file); err == nil || !absent(err) {
			break
		}
	}
	if err != nil && absent(err) {
		err = storage.ErrBlobUnknown
	}
	return file, st, err
}

// StatBlob implements storage.Blobs.
func (d *Dir) StatBlob(_ context.Context, repo string, blob digest.Digest) (storage.BlobInfo, error) {
	st, err := fsat.Lstat(d.fd, link(repo, blob))
	if err != nil {
		return storage.BlobInfo{}, d.linkError(repo, blob, err)
	}
	_, bytes, err := d.content(blob)
	if err != nil {
		return storage.BlobInfo{}, fault("find blob "+string(blob), err)
	}
	return storage.BlobInfo{Digest: blob, Size: bytes.Size, Used: st.Mtime}, nil
}

func (d *Dir) linkError(repo string, blob digest.Digest, err error) error {
	if absent(err) {
		err = d.unknown(repo, storage.ErrBlobUnknown)
	}
	return fault("find blob "+string(blob), err)
}

// OpenBlob implements storage.Blobs.
func (d *Dir) OpenBlob(ctx context.Context, repo string, blob digest.Digest) (storage.Blob, error) {
	for range 3 { // the file may move between the two calls, once
		info, err := d.StatBlob(ctx, repo, blob)
		if err != nil {
			return storage.Blob{}, err
		}
		file, _, err := d.content(blob)
		if err != nil {
			return storage.Blob{}, fault("find blob "+string(blob), err)
		}
		f, err := os.Open(d.path(file))
		if err == nil {
			return storage.Blob{BlobInfo: info, Content: f}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return storage.Blob{}, fault("open blob", err)
		}
	}
	return storage.Blob{}, fault("open blob "+string(blob), storage.ErrBlobUnknown)
}

// TouchBlob implements storage.Blobs.
func (d *Dir) TouchBlob(ctx context.Context, repo string, blob digest.Digest) (storage.BlobInfo, error) {
	if _, err := fsat.Lstat(d.fd, link(repo, blob)); err != nil {
		return storage.BlobInfo{}, d.linkError(repo, blob, err)
	}
	unlock, err := d.lockContent(blob)
	if err != nil {
		return storage.BlobInfo{}, err
	}
	defer unlock()
	if err := touch(d.path(link(repo, blob))); err != nil {
		return storage.BlobInfo{}, d.linkError(repo, blob, err)
	}
	return d.StatBlob(ctx, repo, blob)
}

func touch(file string) error {
	t := time.Now()
	return os.Chtimes(file, t, t)
}

// LinkBlob implements storage.Blobs.
func (d *Dir) LinkBlob(ctx context.Context, from, to string, blob digest.Digest) (storage.BlobInfo, error) {
	if from != "" {
		if _, err := d.StatBlob(ctx, from, blob); err != nil {
			return storage.BlobInfo{}, err
		}
	} else if _, _, err := d.content(blob); err != nil {
		return storage.BlobInfo{}, fault("find blob "+string(blob), err)
	}
	if err := d.makeRepo(to); err != nil {
		return storage.BlobInfo{}, err
	}
	unlock, err := d.lockContent(blob)
	if err != nil {
		return storage.BlobInfo{}, err
	}
	defer unlock()
	if from != "" {
		if _, err := d.StatBlob(ctx, from, blob); err != nil {
			return storage.BlobInfo{}, err
		}
	}
	return d.linkLocked(to, blob)
}

// linkLocked links a blob whose bytes are there to a repository that is there. The content's lock is held.
func (d *Dir) linkLocked(repo string, blob digest.Digest) (storage.BlobInfo, error) {
	file, _, err := d.content(blob)
	if err == nil {
		err = touch(d.path(file))
	}
	if errors.Is(err, fs.ErrNotExist) { // it was synced in between
		err = touch(d.path(blobFile(blob)))
	}
	if err != nil {
		return storage.BlobInfo{}, fault("link blob "+string(blob), err)
	}
	f, err := os.OpenFile(d.path(link(repo, blob)), os.O_CREATE|os.O_WRONLY, perm)
	if err != nil {
		return storage.BlobInfo{}, fault("link blob", err)
	}
	f.Close()
	if err := touch(d.path(link(repo, blob))); err != nil {
		return storage.BlobInfo{}, fault("link blob", err)
	}
	return d.StatBlob(context.Background(), repo, blob)
}

// UnlinkBlob implements storage.Blobs.
func (d *Dir) UnlinkBlob(_ context.Context, repo string, blob digest.Digest) error {
	unlock, err := d.lockContent(blob)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(d.path(link(repo, blob))); err != nil {
		return d.linkError(repo, blob, err)
	}
	return fault("delete blob", syncDir(filepath.Dir(d.path(link(repo, blob)))))
}

// promote makes sure that the bytes of a blob outlast a power cut. ErrBlobUnknown if they are not there.
func (d *Dir) promote(blob digest.Digest) error {
	if _, err := fsat.Lstat(d.fd, blobFile(blob)); err == nil {
		return nil
	}
	found, err := d.promoteFile(d.path(d.pendingFile(blob)), blob)
	if err != nil || found {
		return err
	}
	if _, err := fsat.Lstat(d.fd, blobFile(blob)); err != nil {
		return storage.ErrBlobUnknown
	}
	return nil
}

// promoteFile syncs a pending file and renames it to where synced blobs are. found is false if somebody else has moved it.
func (d *Dir) promoteFile(file string, blob digest.Digest) (found bool, err error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fault("sync blob", err)
	}
	err = f.Sync()
	f.Close()
	if err != nil {
		// The kernel has given up on what it could not write, and another fsync would not say so again.
		return false, errors.Join(fault("sync blob", err), os.Remove(file))
	}
	unlock, err := d.lockContent(blob)
	if err != nil {
		return false, err
	}
	defer unlock()
	to := d.path(blobFile(blob))
	if err := d.makeShard(filepath.Dir(to)); err != nil {
		return false, fault("sync blob", err)
	}
	if err := os.Rename(file, to); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, fault("sync blob", err)
	}
	return true, fault("sync blob", syncDir(filepath.Dir(to)))
}

// makeShard makes a directory for blobs, and its name outlast a power cut.
func (d *Dir) makeShard(dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, dirPerm); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	return syncDir(d.path("blobs"))
}

// syncBehind syncs a blob behind the answer. If that fails, the manifest that refers to the blob will tell.
func (d *Dir) syncBehind(blob digest.Digest) {
	d.syncing.Go(func() {
		d.slots <- struct{}{}
		defer func() { <-d.slots }()
		_ = d.promote(blob)
	})
}

// Contents implements storage.Collector.
func (d *Dir) Contents(ctx context.Context, each func(storage.BlobInfo) error) error {
	algorithms, err := names(d.path("blobs"))
	if err != nil {
		return fault("list blobs", err)
	}
	dirs := []string{"pending/" + d.boot}
	for _, alg := range algorithms {
		shards, err := names(d.path("blobs/" + alg))
		if err != nil {
			return fault("list blobs", err)
		}
		for _, s := range shards {
			dirs = append(dirs, "blobs/"+alg+"/"+s)
		}
	}
	for _, dir := range dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		blobs, err := names(d.path(dir))
		if err != nil {
			return fault("list blobs", err)
		}
		for _, name := range blobs {
			st, err := fsat.Lstat(d.fd, dir+"/"+name)
			if err != nil {
				if absent(err) {
					continue
				}
				return fault("list blobs", err)
			}
			if err := each(storage.BlobInfo{Digest: digest.Digest(name), Size: st.Size, Used: st.Mtime}); err != nil {
				return err
			}
		}
	}
	return nil
}

// RemoveContent implements storage.Collector.
func (d *Dir) RemoveContent(_ context.Context, blob digest.Digest, notAfter time.Time) (bool, error) {
	unlock, err := d.lockContent(blob)
	if err != nil {
		return false, err
	}
	defer unlock()
	file, st, err := d.content(blob)
	if errors.Is(err, storage.ErrBlobUnknown) {
		return false, nil
	}
	if err != nil || st.Mtime.After(notAfter) {
		return false, fault("remove blob", err)
	}
	if err := os.Remove(d.path(file)); err != nil {
		return false, fault(fmt.Sprintf("remove blob %s", blob), err)
	}
	return true, nil
}
