// Package directory keeps a registry in a directory of one machine, for any number of server processes at once. There is no
// database: every fact is a file, which is written under another name, synced and renamed.
//
//	format                               what the directory is: "tare-registry 1"
//	blobs/ALG/XX/DIGEST                  the bytes of a blob, once; XX are the first digits
//	pending/BOOT/DIGEST                  the same before they are synced
//	uploads/BOOT/ID/{data,state}         an upload: its bytes, and what is known of it with the state of its hash
//	repositories/NAME/blobs/DIGEST       empty: the blob can be read in the repository; its time is its last use
//	repositories/NAME/manifests/DIGEST   a line of JSON (record), then the bytes of the manifest
//	repositories/NAME/referrers/SUBJECT/DIGEST   empty: the manifest has that subject
//	repositories/NAME/tags/TAG           the digest that the tag names
//	locks/…                              see locks.go
//
// In NAME the slashes are "+", which no name has, so that repositories are siblings. BOOT is the kernel's boot id: what was not
// synced when the machine went down is under an id that is not this machine's any more, and is not trusted without hashing it.
// So the answer to a blob's upload need not wait for the disk. That to a manifest does: before it, the manifest and all blobs
// that it refers to are synced.
package directory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	// The hash functions that go-digest finds by crypto.Hash have to be linked.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/internal/atomicfile"
	"github.com/tare-oci/tare/internal/sys/fsat"
)

const (
	format  = "tare-registry 1\n"
	dirPerm = 0o700
	perm    = 0o600
)

// Dir is a storage.Storage in a directory.
type Dir struct {
	root    string
	handle  *os.File // of root
	fd      int      // of root
	boot    string   // boot id
	names   *indexes
	cache   *cache
	turn    turn
	syncing sync.WaitGroup // promotions that run behind answers
	slots   chan struct{}  // of promotions at once
}

var _ storage.Storage = (*Dir)(nil)

// Open opens the storage in the directory root, which is made if it is not there. A directory that is not empty and not a
// storage is refused. Close waits for what is still being synced.
func Open(root string) (*Dir, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if err := prepare(root); err != nil {
		return nil, fmt.Errorf("open registry %s: %w", root, err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, fmt.Errorf("open registry %s: %w", root, err)
	}
	d := &Dir{root: root, boot: boot, names: newIndexes(), cache: newCache(cacheSize), turn: turn{names: map[string]*waiters{}},
		slots: make(chan struct{}, 2)}
	for _, sub := range []string{"blobs", "repositories", "locks", "uploads/" + boot, "pending/" + boot} {
		if err := os.MkdirAll(d.path(sub), dirPerm); err != nil {
			return nil, fmt.Errorf("open registry %s: %w", root, err)
		}
	}
	if d.handle, err = os.Open(root); err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	if d.fd, err = fsat.Fd(d.handle); err != nil {
		d.handle.Close()
		return nil, fmt.Errorf("open registry %s: %w", root, err)
	}
	if err := d.recover(); err != nil {
		d.handle.Close()
		return nil, fmt.Errorf("recover registry %s: %w", root, err)
	}
	return d, nil
}

// prepare makes an empty directory a storage.
func prepare(root string) error {
	file := filepath.Join(root, "format")
	found, err := os.ReadFile(file)
	if err == nil {
		if string(found) != format {
			return fmt.Errorf("its format is %.40q, this version knows %q", found, format)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(root, dirPerm); err != nil {
		return err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != "lost+found" && !strings.HasPrefix(name, ".format.") {
			return fmt.Errorf("directory is not empty and not a registry of tare: it has %s", name)
		}
	}
	return atomicfile.Write(file, []byte(format), perm)
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// Close waits until all blobs are synced and gives up what the storage holds. The storage must not be used any more.
func (d *Dir) Close() error {
	d.syncing.Wait()
	return d.handle.Close()
}

// recover looks after what other processes have left behind: blobs of this boot are synced, those of another are checked.
func (d *Dir) recover() error {
	boots, err := names(d.path("pending"))
	if err != nil {
		return err
	}
	for _, boot := range boots {
		blobs, err := names(d.path("pending/" + boot))
		if err != nil {
			return err
		}
		for _, name := range blobs {
			if err := d.recoverBlob(boot, digest.Digest(name)); err != nil {
				return err
			}
		}
		if boot != d.boot {
			if err := os.Remove(d.path("pending/" + boot)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := d.forgetUploads(); err != nil {
		return err
	}
	return d.forgetRepositories()
}

// forgetRepositories removes repositories that were never finished.
func (d *Dir) forgetRepositories() error {
	unlock, err := d.lock("repositories")
	if err != nil {
		return err
	}
	defer unlock()
	unfinished, err := filepath.Glob(d.path("repositories/.new-*"))
	for _, dir := range unfinished {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// recoverBlob syncs a pending blob. One of another boot may have lost its bytes to a power cut.
func (d *Dir) recoverBlob(boot string, blob digest.Digest) error {
	file := d.path("pending/" + boot + "/" + string(blob))
	if boot != d.boot {
		ok, err := hasDigest(file, blob)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !ok {
			if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
	}
	_, err := d.promoteFile(file, blob)
	return err
}

func hasDigest(file string, want digest.Digest) (bool, error) {
	if want.Validate() != nil {
		return false, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	got, err := want.Algorithm().FromReader(f)
	return got == want, err
}

// forgetUploads removes uploads that were under way when the machine went down: their bytes are not to be trusted.
func (d *Dir) forgetUploads() error {
	boots, err := names(d.path("uploads"))
	for _, boot := range boots {
		if boot != d.boot && err == nil {
			err = os.RemoveAll(d.path("uploads/" + boot))
		}
	}
	return err
}

func (d *Dir) path(name string) string { return d.root + "/" + name }

// repo is the directory of a repository, relative to the root.
func repo(name string) string { return "repositories/" + strings.ReplaceAll(name, "/", "+") }

// hasRepo reports whether the repository is there.
func (d *Dir) hasRepo(name string) bool {
	_, err := fsat.Lstat(d.fd, repo(name))
	return err == nil
}

// unknown is the error for something that is not in a repository: what, or ErrRepositoryUnknown if that is not there.
func (d *Dir) unknown(name string, what error) error {
	if !d.hasRepo(name) {
		return storage.ErrRepositoryUnknown
	}
	return what
}

// makeRepo makes a repository if it is not there, whole or not at all.
func (d *Dir) makeRepo(name string) error {
	if d.hasRepo(name) {
		return nil
	}
	unlock, err := d.lock("repositories")
	if err != nil {
		return err
	}
	defer unlock()
	if d.hasRepo(name) {
		return nil
	}
	tmp, err := os.MkdirTemp(d.path("repositories"), ".new-")
	if err != nil {
		return fault("make repository", err)
	}
	defer os.RemoveAll(tmp) // after the rename it is not there any more
	for _, sub := range []string{"blobs", "manifests", "referrers", "tags"} {
		if err := os.Mkdir(tmp+"/"+sub, dirPerm); err != nil {
			return fault("make repository", err)
		}
	}
	return d.names.change(d.path("repositories"), func() (added, removed []string, err error) {
		if err := os.Rename(tmp, d.path(repo(name))); err != nil {
			return nil, nil, fault("make repository", err)
		}
		return []string{name}, nil, syncDir(d.path("repositories"))
	})
}

// names lists a directory without what is on its way in or out; none if it is not there. The order is the directory's.
func names(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.Readdirnames(-1)
	kept := all[:0]
	for _, name := range all {
		if name[0] != '.' {
			kept = append(kept, name)
		}
	}
	return kept, err
}

// syncDir makes the names in a directory outlast a power cut.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// fault says what the storage could not do. A disk that is full is told apart: it is not the program's fault.
func fault(verb string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%s: %w: %w", verb, storage.ErrNoSpace, err)
	}
	return fmt.Errorf("%s: %w", verb, err)
}

// absent reports whether an error says that a file is not there. A name that is too long cannot be there either.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG)
}
