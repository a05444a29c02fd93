package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"os"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/internal/sys/filelock"
)

// NewBlob is a blob whose digest is known only when all of it is written: a layer or a manifest that tare makes. One goroutine
// uses it.
type NewBlob struct {
	s    *Store
	ctx  context.Context
	path string
	file *os.File // nil after Commit and Close
	alg  digest.Algorithm
	hash hash.Hash
	size int64

	begun int64 // up to here writing to the disk has begun
}

// NewBlob begins a blob. Its digest will be of alg, sha256 if that is empty. The caller ends it by Commit or Close. ctx is for
// all of it.
func (s *Store) NewBlob(ctx context.Context, alg digest.Algorithm) (*NewBlob, error) {
	if alg == "" {
		alg = digest.SHA256
	}
	if alg != digest.SHA256 && alg != digest.SHA512 {
		return nil, fmt.Errorf("new blob: algorithm %.64q is neither sha256 nor sha512", alg)
	}
	for {
		path := s.path("ingest", "new-"+strings.ToLower(rand.Text()[:16]))
		if err := s.may("create", path); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
		if err != nil {
			return nil, fmt.Errorf("new blob: %w", err)
		}
		// The lock says to Prune that it is being written. One that is told to remove even the youngest may have been faster.
		err = filelock.Try(f)
		same := false
		if err == nil {
			same, err = named(f, path)
		}
		if same {
			return &NewBlob{s: s, ctx: ctx, path: path, file: f, alg: alg, hash: alg.Hash()}, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("new blob: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// Write appends p.
func (b *NewBlob) Write(p []byte) (int, error) {
	if b.file == nil {
		return 0, os.ErrClosed
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if err := b.s.may("write", b.path); err != nil {
		return 0, err
	}
	n, err := b.file.Write(p)
	b.hash.Write(p[:n])
	b.size += int64(n)
	b.begun = startWriteback(b.file, b.begun, b.size)
	if err != nil {
		return n, fmt.Errorf("write new blob: %w", err)
	}
	return n, nil
}

// Commit holds the blob, as Store.Exists does, stores it and describes it. After an error nothing of it is left.
func (b *NewBlob) Commit(mediaType string) (v1.Descriptor, error) {
	if b.file == nil {
		return v1.Descriptor{}, os.ErrClosed
	}
	defer b.Close()
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.NewDigest(b.alg, b.hash), Size: b.size}
	err := b.s.hold(b.ctx, d.Digest)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if there, err := b.s.has(d); err != nil {
		return v1.Descriptor{}, fmt.Errorf("store blob %s: %w", d.Digest, err)
	} else if there {
		return d, nil
	}
	if err := b.s.publish(b.file, b.path, d); err != nil {
		return v1.Descriptor{}, fmt.Errorf("store blob %s: %w", d.Digest, err)
	}
	return d, nil
}

// Close gives up what was not committed. After Commit it does nothing, so that it can be deferred.
func (b *NewBlob) Close() error {
	if b.file == nil {
		return nil
	}
	err := os.Remove(b.path)
	if errors.Is(err, os.ErrNotExist) { // renamed
		err = nil
	}
	b.file.Close()
	b.file = nil
	return err
}
