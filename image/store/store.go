// Package store keeps images on the local disk: an OCI image layout that skopeo, umoci and every other reader of layouts can
// use at any moment, and beside it, in the directory .tare, what a layout has no place for.
//
//	oci-layout, index.json      as image-layout.md says; index.json is the list of names, replaced atomically
//	blobs/ALGORITHM/ENCODED     complete and verified, or not there
//	.tare/lock                  held shared to change what is held, and alone to collect garbage
//	.tare/index.lock            held alone to replace index.json
//	.tare/index.json.bak        index.json before its last change
//	.tare/ingest/               downloads that are not complete; who writes one has its lock (flock(2))
//	.tare/leases/               what processes and containers hold besides the names, one file each
//	.tare/used/                 when a name was last used: the time of an empty file
//	.tare/broken/               blobs that Fsck took out of the way
//
// What is in the store is held by names (entries of index.json), and by leases; what neither holds directly or through
// manifests is garbage, which only Prune removes. Who is about to refer to a blob holds it first by a lease: see WithLease.
//
// Every change is made by writing beside, syncing and renaming, so that a process killed or a power cut at any moment leaves
// a valid store. All methods may be called from several goroutines and processes at once.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/internal/sys/beneath"
)

const (
	private   = ".tare"
	dirMode   = 0o700 // images may be private: nobody else looks in
	fileMode  = 0o600
	layoutDoc = `{"imageLayoutVersion":"` + v1.ImageLayoutVersion + `"}`
)

// Store is an open store. Close it.
type Store struct {
	dir  string
	root *beneath.Dir

	// inject, which only tests set, may fail the change op that is about to be made to path.
	inject func(op, path string) error

	mu      sync.Mutex
	cached  *index // as parsed last; never changed after
	session *Lease // what this process holds without a lease of the caller's; nil until needed

	subjectsMu sync.Mutex
	subjects   subjects
}

// Open opens the store in the directory dir, which it makes if it is not there.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := create(dir); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // it may be on another disk
		return nil, fmt.Errorf("open store: %w", err)
	}
	root, err := beneath.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{dir: dir, root: root}
	if err := s.checkLayout(); err != nil {
		root.Close()
		return nil, err
	}
	return s, nil
}

// create makes what a store has of directories and files and dir has not. A process that dies in between is no harm: the next
// one goes on. index.json is made only for a store without blobs: one that was lost is Fsck's to bring back.
func create(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, private, "used")); err != nil { // the last that is made
		for _, sub := range []string{"", "blobs/sha256", private, private + "/ingest", private + "/leases", private + "/broken"} {
			if err := os.MkdirAll(filepath.Join(dir, sub), dirMode); err != nil {
				return err
			}
		}
		if err := createFile(filepath.Join(dir, v1.ImageLayoutFile), layoutDoc); err != nil {
			return err
		}
		if blobs, err := os.ReadDir(filepath.Join(dir, "blobs/sha256")); err != nil {
			return err
		} else if len(blobs) == 0 {
			if err := createFile(filepath.Join(dir, v1.ImageIndexFile), emptyIndex); err != nil {
				return err
			}
		}
		return os.MkdirAll(filepath.Join(dir, private, "used"), dirMode)
	}
	return nil
}

// createFile makes a file with content, if it is not there, so that nobody sees it without.
func createFile(path, text string) error {
	if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Join(filepath.Dir(path), private, "ingest"), "create-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Link(f.Name(), path) // never in place of what another process has made
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// checkLayout refuses a layout of a version that is not known.
func (s *Store) checkLayout() error {
	f, size, err := s.root.OpenFile(v1.ImageLayoutFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // Fsck's
	}
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	defer f.Close()
	if size > 4096 {
		return fmt.Errorf("open store %s: %s has %d bytes, the limit is 4096", s.dir, v1.ImageLayoutFile, size)
	}
	raw, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if version, err := layoutVersion(raw); err == nil && version != v1.ImageLayoutVersion {
		return fmt.Errorf("open store %s: layout version %.64q is not supported, want %s", s.dir, version, v1.ImageLayoutVersion)
	}
	return nil
}

// Close gives up what this process holds. Readers and ingests stay usable.
func (s *Store) Close() error {
	s.mu.Lock()
	session := s.session
	s.session = nil
	s.mu.Unlock()
	if session != nil {
		session.Release()
	}
	return s.root.Close()
}

// Dir returns the absolute path of the store's directory, without symbolic links.
func (s *Store) Dir() string { return s.dir }

// path returns the path of a file in the store's own directory.
func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir, private}, parts...)...)
}

// blobName returns where a layout keeps a blob. The digest passed CheckDigest, so no part of it leads elsewhere.
func blobName(d digest.Digest) string {
	return v1.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

func (s *Store) blobPath(d digest.Digest) string { return filepath.Join(s.dir, blobName(d)) }

// may asks a test's hook whether the change op of path is to fail.
func (s *Store) may(op, path string) error {
	if s.inject == nil {
		return nil
	}
	return s.inject(op, path)
}

// stat returns the size of a blob; fs.ErrNotExist.
func (s *Store) stat(d digest.Digest) (int64, error) {
	info, err := os.Lstat(s.blobPath(d))
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("blob %s is not a regular file", d)
	}
	return info.Size(), nil
}

// has reports whether the blob is there with the size that d says.
func (s *Store) has(d v1.Descriptor) (bool, error) {
	size, err := s.stat(d.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && size == d.Size, err
}

// Exists reports whether d is there with its size, and holds it: by the context's lease (WithLease), or else until Tag has
// named what refers to it or the store is closed.
func (s *Store) Exists(ctx context.Context, d v1.Descriptor) (bool, error) {
	if err := checkBlob(d); err != nil {
		return false, err
	}
	if err := s.hold(ctx, d.Digest); err != nil {
		return false, err
	}
	return s.has(d)
}

// Fetch opens the bytes that d names from offset on. They were verified when they were stored, not now. The error wraps
// content.ErrNotFound if they are not there, or are of another size. The caller closes the reader, which stays good when the
// blob is removed.
func (s *Store) Fetch(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := reference.CheckDigest(d.Digest); err != nil {
		return nil, err
	}
	f, size, err := s.open(d.Digest)
	if err != nil {
		return nil, err
	}
	if size != d.Size {
		err = fmt.Errorf("blob %s: %w with %d bytes: the file in the store has %d", d.Digest, content.ErrNotFound, d.Size, size)
	} else if offset < 0 || offset > size {
		err = fmt.Errorf("blob %s: offset %d is outside of its %d bytes", d.Digest, offset, size)
	} else if offset > 0 {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// open opens a blob, whatever its size.
func (s *Store) open(d digest.Digest) (*os.File, int64, error) {
	f, size, err := s.root.OpenFile(blobName(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("blob %s: %w in the store", d, content.ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", d, err)
	}
	return f, size, nil
}

// Push stores what r yields, verified, and holds it as Exists does. Nothing is read from r if it is there.
func (s *Store) Push(ctx context.Context, d v1.Descriptor, r io.Reader) error {
	in, err := s.Ingest(ctx, d)
	if errors.Is(err, content.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := in.fill(ctx, r); err != nil {
		return errors.Join(err, in.Discard())
	}
	return in.Commit()
}

func checkBlob(d v1.Descriptor) error {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 {
		return fmt.Errorf("blob %s: size %d is negative", d.Digest, d.Size)
	}
	return nil
}

// readDoc returns the verified bytes of an index, manifest or configuration.
func (s *Store) readDoc(d digest.Digest, limit int64) ([]byte, error) {
	f, size, err := s.open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("blob %s has %d bytes, the limit is %d", d, size, limit)
	}
	checked, err := content.Verify(f, v1.Descriptor{Digest: d, Size: size})
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(checked)
	if err != nil {
		return nil, &brokenError{d, err}
	}
	return raw, nil
}

// brokenError says that a blob's content is not what its name says.
type brokenError struct {
	digest digest.Digest
	err    error
}

func (e *brokenError) Error() string {
	return fmt.Sprintf("%v (the file in the store is damaged: tare image fsck --repair fetches it again)", e.err)
}

func (e *brokenError) Unwrap() error { return e.err }

// isDocument tells whether a media type is that of an index or a manifest, which refer to other content.
func isDocument(mediaType string) bool {
	return manifest.IsIndex(mediaType) || manifest.IsManifest(mediaType)
}
