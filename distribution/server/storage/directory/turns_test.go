package directory

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// turns has every call served by the other of two storages.
type turns struct {
	one, other storage.Storage
	calls      atomic.Uint32
}

func (t *turns) next() storage.Storage {
	if t.calls.Add(1)%2 == 0 {
		return t.one
	}
	return t.other
}

func (t *turns) StatBlob(c context.Context, r string, d digest.Digest) (storage.BlobInfo, error) {
	return t.next().StatBlob(c, r, d)
}

func (t *turns) OpenBlob(c context.Context, r string, d digest.Digest) (storage.Blob, error) {
	return t.next().OpenBlob(c, r, d)
}

func (t *turns) TouchBlob(c context.Context, r string, d digest.Digest) (storage.BlobInfo, error) {
	return t.next().TouchBlob(c, r, d)
}

func (t *turns) LinkBlob(c context.Context, from, to string, d digest.Digest) (storage.BlobInfo, error) {
	return t.next().LinkBlob(c, from, to, d)
}

func (t *turns) UnlinkBlob(c context.Context, r string, d digest.Digest) error {
	return t.next().UnlinkBlob(c, r, d)
}

func (t *turns) StartUpload(c context.Context, r string, a digest.Algorithm) (string, error) {
	return t.next().StartUpload(c, r, a)
}

func (t *turns) StatUpload(c context.Context, r, id string) (storage.Upload, error) {
	return t.next().StatUpload(c, r, id)
}

func (t *turns) AppendUpload(c context.Context, r, id string, o int64, b io.Reader) (int64, error) {
	return t.next().AppendUpload(c, r, id, o, b)
}

func (t *turns) CommitUpload(c context.Context, r, id string, o int64, b io.Reader, d digest.Digest) (storage.BlobInfo, error) {
	return t.next().CommitUpload(c, r, id, o, b, d)
}

func (t *turns) AbortUpload(c context.Context, r, id string) error {
	return t.next().AbortUpload(c, r, id)
}

func (t *turns) PutManifest(c context.Context, r string, m storage.Manifest, o storage.PutOptions) error {
	return t.next().PutManifest(c, r, m, o)
}

func (t *turns) GetManifest(c context.Context, r string, d digest.Digest) (storage.Manifest, error) {
	return t.next().GetManifest(c, r, d)
}

func (t *turns) DeleteManifest(c context.Context, r string, d digest.Digest) error {
	return t.next().DeleteManifest(c, r, d)
}

func (t *turns) GetTag(c context.Context, r, tag string) (digest.Digest, error) {
	return t.next().GetTag(c, r, tag)
}

func (t *turns) DeleteTag(c context.Context, r, tag string, e func(digest.Digest) bool) error {
	return t.next().DeleteTag(c, r, tag, e)
}

func (t *turns) ListTags(c context.Context, r, after string, n int) ([]string, bool, error) {
	return t.next().ListTags(c, r, after, n)
}

func (t *turns) ListReferrers(c context.Context, r string, d digest.Digest, after string, n int) ([]v1.Descriptor, bool, error) {
	return t.next().ListReferrers(c, r, d, after, n)
}

func (t *turns) ListRepositories(c context.Context, after string, n int) ([]string, bool, error) {
	return t.next().ListRepositories(c, after, n)
}

func (t *turns) Sweep(c context.Context, r string, d func(storage.Contents) (storage.Removal, error)) error {
	return t.next().Sweep(c, r, d)
}

func (t *turns) Contents(c context.Context, each func(storage.BlobInfo) error) error {
	return t.next().Contents(c, each)
}

func (t *turns) RemoveContent(c context.Context, d digest.Digest, notAfter time.Time) (bool, error) {
	return t.next().RemoveContent(c, d, notAfter)
}

func (t *turns) ListUploads(c context.Context, each func(storage.Upload) error) error {
	return t.next().ListUploads(c, each)
}
