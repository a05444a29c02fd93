package directory

import (
	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/internal/sys/flock"
)

// Locks are flock(2) on files below locks/, so they hold between processes, and the kernel frees those of a process that dies.
// They are taken in this order, never the other way round:
//
//	repository-NAME  manifests and tags of a repository, and which blobs are linked while a collection looks
//	repositories     the list of repositories
//	content-XX       links to the blobs whose digest begins with XX, and whether their bytes are there
//
// Reading takes none: a name that is read is either there or not.
func (d *Dir) lock(name string) (unlock func(), err error) {
	l, err := flock.Acquire(d.path("locks/" + name))
	if err != nil {
		return nil, fault("lock registry", err)
	}
	return l.Release, nil
}

func (d *Dir) lockRepo(name string) (unlock func(), err error) {
	return d.lock("repository-" + repo(name)[len("repositories/"):])
}

func (d *Dir) lockContent(blob digest.Digest) (unlock func(), err error) {
	return d.lock("content-" + shard(blob))
}

// shard is the first two digits of a digest.
func shard(blob digest.Digest) string { return blob.Encoded()[:2] }
