package proxy

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// StartUpload returns storage.ErrReadOnly.
func (s *Store) StartUpload(context.Context, string, digest.Algorithm) (string, error) {
	return "", storage.ErrReadOnly
}

// StatUpload returns storage.ErrReadOnly.
func (s *Store) StatUpload(context.Context, string, string) (storage.Upload, error) {
	return storage.Upload{}, storage.ErrReadOnly
}

// AppendUpload returns storage.ErrReadOnly.
func (s *Store) AppendUpload(context.Context, string, string, int64, io.Reader) (int64, error) {
	return 0, storage.ErrReadOnly
}

// CommitUpload returns storage.ErrReadOnly.
func (s *Store) CommitUpload(context.Context, string, string, int64, io.Reader, digest.Digest) (storage.BlobInfo, error) {
	return storage.BlobInfo{}, storage.ErrReadOnly
}

// AbortUpload passes the end of an upload on: of one that a fetch has left, which the garbage collection ends.
func (s *Store) AbortUpload(ctx context.Context, repo, id string) error {
	return s.local.AbortUpload(ctx, repo, id)
}
