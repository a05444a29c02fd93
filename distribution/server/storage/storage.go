// Package storage says what the registry needs of the place where it keeps things. A directory (storage/directory) and an
// object store implement it; package storagetest checks that they do.
//
// Repositories share the bytes of blobs but not the right to read them: a blob can be read in a repository if it is linked to
// it, which an upload or a mount does. So a blob deleted from one repository is gone there, at once and whatever is cached,
// and stays in the others (CVE-2026-35172).
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// Errors that the methods of a Storage wrap. What wraps none of them is a fault of the storage, not of the request.
var (
	ErrRepositoryUnknown = errors.New("repository is not known")
	ErrBlobUnknown       = errors.New("blob is not in the repository")
	ErrManifestUnknown   = errors.New("manifest is not in the repository")
	ErrTagUnknown        = errors.New("tag is not in the repository")
	ErrUploadUnknown     = errors.New("upload is not known: finished, cancelled or expired")
	ErrUploadBusy        = errors.New("another request is writing to the upload")
	ErrDigestMismatch    = errors.New("content has another digest")
	ErrConditionFailed   = errors.New("tag names something else by now")
	ErrNoSpace           = errors.New("no space left in the storage")
	// ErrReadOnly is for a storage that cannot be written to, such as a mirror of another registry.
	ErrReadOnly = errors.New("storage is read-only")
)

// An OffsetError says that a chunk does not begin where the upload ends.
type OffsetError struct{ Received int64 } // bytes that the upload has

func (e *OffsetError) Error() string {
	return fmt.Sprintf("chunk is out of order: the upload has %d bytes", e.Received)
}

// A MissingError says that a manifest requires what the repository does not have.
type MissingError struct{ Digests []digest.Digest }

func (e *MissingError) Error() string {
	return fmt.Sprintf("manifest refers to %d blobs or manifests that the repository does not have, first %s", len(e.Digests), e.Digests[0])
}

// BlobInfo is what is known about a blob without reading it.
type BlobInfo struct {
	Digest digest.Digest
	Size   int64
	// Used is when the blob was last linked to the repository, or asked for by Touch; for Contents, to any repository. Until
	// some time after it the blob is not garbage though no manifest refers to it.
	Used time.Time
}

// Blob is a blob that is open. The caller closes Content.
type Blob struct {
	BlobInfo
	// Content is at its first byte. It is an *os.File where there is one, so that the kernel can send it.
	Content io.ReadSeekCloser
}

// Manifest is a manifest or an index, with what the storage has to know of it. Nothing in it is changed after it was passed.
type Manifest struct {
	// Descriptor has media type, digest and size, and artifact type and annotations in the form that a list of referrers shows.
	Descriptor v1.Descriptor
	Raw        []byte          // the bytes as they were pushed
	Subject    digest.Digest   // empty if it has none
	Blobs      []digest.Digest // config and layers, each once
	Manifests  []digest.Digest // what an index lists, each once
	Pushed     time.Time       // set by the storage: when it was last pushed
}

// PutOptions goes with a manifest that is put.
type PutOptions struct {
	// Require lists blobs and manifests that the repository must have, or a MissingError is returned.
	RequireBlobs, RequireManifests []digest.Digest
	// Tags name the manifest afterwards, all or none of them.
	Tags []string
	// Expect, if not nil, is called for each tag with what the tag names before, empty for nothing. If it returns false,
	// nothing is changed and ErrConditionFailed returned. No tag changes between the call and the change.
	Expect func(tag string, now digest.Digest) bool
}

// Upload is the state of an upload that is under way.
type Upload struct {
	Repository string
	ID         string
	Algorithm  digest.Algorithm // with which what is received is hashed
	Received   int64            // bytes
	Changed    time.Time        // when something was last received
}

// Storage keeps repositories. Methods may be called from several goroutines, and for a directory from several processes, at
// once. Names, tags and digests are valid by their grammars and digests are verifiable; an upload's id may be any text
// without a slash. What a method that changes something has returned from without an error is seen by all calls that begin
// afterwards.
type Storage interface {
	Blobs
	Uploads
	Manifests
	Collector
}

// Blobs is the part of Storage for the blobs of a repository.
type Blobs interface {
	// StatBlob wraps ErrBlobUnknown if the blob is not linked to the repository.
	StatBlob(ctx context.Context, repo string, d digest.Digest) (BlobInfo, error)
	// OpenBlob opens a blob that is linked to the repository.
	OpenBlob(ctx context.Context, repo string, d digest.Digest) (Blob, error)
	// TouchBlob is StatBlob and keeps the blob from being garbage for a while: somebody who asks whether it is there is about
	// to push a manifest that refers to it.
	TouchBlob(ctx context.Context, repo string, d digest.Digest) (BlobInfo, error)
	// LinkBlob links a blob of the repository from to the repository to, which is made if it is not there. With an empty from
	// it links any blob that the storage has: only for callers who may read all repositories.
	LinkBlob(ctx context.Context, from, to string, d digest.Digest) (BlobInfo, error)
	// UnlinkBlob takes the blob from the repository. Its bytes stay for the other repositories and until they are collected.
	UnlinkBlob(ctx context.Context, repo string, d digest.Digest) error
}

// A Redirector is a storage that can say where clients can fetch a blob themselves. Optional.
type Redirector interface {
	// BlobURL returns an absolute URL that serves the bytes of the blob, which is linked to the repository, for some minutes
	// and the method (GET or HEAD); empty if this blob is better served by the registry.
	BlobURL(ctx context.Context, repo string, d digest.Digest, method string) (string, error)
}

// Uploads is the part of Storage for blobs on their way in. Only one request at a time writes to an upload, others get
// ErrUploadBusy. An upload belongs to a repository: in another one it is unknown.
type Uploads interface {
	// StartUpload makes an upload that hashes with alg. Nobody can guess its id. The repository is made when a blob is
	// committed to it.
	StartUpload(ctx context.Context, repo string, alg digest.Algorithm) (id string, err error)
	// StatUpload returns the state of an upload.
	StatUpload(ctx context.Context, repo, id string) (Upload, error)
	// AppendUpload adds what r yields. The offset must be what was received already, or -1 for wherever that is; otherwise an
	// OffsetError is returned and nothing read. If r fails, what it yielded before is kept, counted in received, and its error
	// is wrapped.
	AppendUpload(ctx context.Context, repo, id string, offset int64, r io.Reader) (received int64, err error)
	// CommitUpload appends as AppendUpload does (r may be nil), and makes the whole a blob that is linked to the repository.
	// If its digest is not d, in whatever algorithm, ErrDigestMismatch is returned and the upload is gone.
	CommitUpload(ctx context.Context, repo, id string, offset int64, r io.Reader, d digest.Digest) (BlobInfo, error)
	// AbortUpload removes an upload and what it has received.
	AbortUpload(ctx context.Context, repo, id string) error
}

// Manifests is the part of Storage for manifests, the tags that name them, and their referrers. Lists are in the order of
// their bytes ("ASCIIbetical") and begin after a text that need not be in the list; empty: with the first. They have up to n
// entries, n > 0; more says that there are others. A page costs no more in a long list than in a short one.
type Manifests interface {
	// PutManifest stores a manifest, its tags, and its entry as a referrer of its subject, which need not be there. When it
	// returns, the manifest and all blobs that it refers to outlast a power cut.
	PutManifest(ctx context.Context, repo string, m Manifest, opts PutOptions) error
	// GetManifest returns a manifest of the repository. Raw is shared: callers do not change it.
	GetManifest(ctx context.Context, repo string, d digest.Digest) (Manifest, error)
	// DeleteManifest removes a manifest, the tags that name it, and its entry as a referrer.
	DeleteManifest(ctx context.Context, repo string, d digest.Digest) error

	// GetTag returns what a tag names.
	GetTag(ctx context.Context, repo, tag string) (digest.Digest, error)
	// DeleteTag removes a tag. If expect is not nil and returns false for what it names, ErrConditionFailed.
	DeleteTag(ctx context.Context, repo, tag string, expect func(now digest.Digest) bool) error
	// ListTags lists the tags of a repository; ErrRepositoryUnknown if it never had anything.
	ListTags(ctx context.Context, repo, after string, n int) (tags []string, more bool, err error)
	// ListReferrers lists the descriptors of the manifests whose subject is d, in the order of their digests. None is no error.
	ListReferrers(ctx context.Context, repo string, d digest.Digest, after string, n int) (referrers []v1.Descriptor, more bool, err error)
	// ListRepositories lists the names of all repositories.
	ListRepositories(ctx context.Context, after string, n int) (names []string, more bool, err error)
}

// Collector is the part of Storage for the garbage collection, which runs while pushes do.
type Collector interface {
	// Sweep shows decide what the repository has and removes what it returns. From before decide is called until all is
	// removed no manifest or tag of the repository changes: such changes wait. What only has to do with blobs does not wait, and
	// a blob that TouchBlob, LinkBlob or CommitUpload was called for after decide was shown it is not unlinked.
	Sweep(ctx context.Context, repo string, decide func(Contents) (Removal, error)) error
	// Contents calls each for the bytes of every blob that the storage keeps, linked or not.
	Contents(ctx context.Context, each func(BlobInfo) error) error
	// RemoveContent removes the bytes of a blob, unless it was used after notAfter: the caller knows that at that time it was
	// linked to no repository.
	RemoveContent(ctx context.Context, d digest.Digest, notAfter time.Time) (removed bool, err error)
	// ListUploads calls each for every upload that is under way.
	ListUploads(ctx context.Context, each func(Upload) error) error
}

// Contents is what a repository has, for a garbage collection.
type Contents struct {
	Tags      map[string]TagInfo
	Manifests []Manifest // without Raw
	Blobs     []BlobInfo
}

// TagInfo is what a tag names and since when.
type TagInfo struct {
	Digest  digest.Digest
	Changed time.Time
}

// Removal is what a garbage collection takes from a repository.
type Removal struct {
	Tags      []string
	Manifests []digest.Digest
	Blobs     []digest.Digest
}
