package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/client"
	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/image/content"
)

// StatBlob implements storage.Blobs.
func (s *Store) StatBlob(ctx context.Context, repo string, d digest.Digest) (storage.BlobInfo, error) {
	info, err := s.local.StatBlob(ctx, repo, d)
	return s.orUpstream(ctx, repo, d, info, err)
}

// TouchBlob implements storage.Blobs.
func (s *Store) TouchBlob(ctx context.Context, repo string, d digest.Digest) (storage.BlobInfo, error) {
	info, err := s.local.TouchBlob(ctx, repo, d)
	return s.orUpstream(ctx, repo, d, info, err)
}

// orUpstream asks upstream about a blob that is not here.
func (s *Store) orUpstream(ctx context.Context, repo string, d digest.Digest, info storage.BlobInfo, err error) (storage.BlobInfo, error) {
	if err == nil || !missing(err) {
		return info, err
	}
	u, from, err := s.find(repo)
	if err != nil {
		return info, err
	}
	size, err := s.size(ctx, u, from, d)
	if err != nil {
		return info, s.absent(repo, err, storage.ErrBlobUnknown)
	}
	return storage.BlobInfo{Digest: d, Size: size, Used: s.now()}, nil
}

// size returns the size of a blob as a manifest says it, otherwise as upstream does. For a repository that may not have it:
// that the size is known means nothing.
func (s *Store) size(ctx context.Context, u *upstream, from *client.Repository, d digest.Digest) (int64, error) {
	ctx = auth.WithScopes(ctx, auth.Repository(from.Name(), "pull"))
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	at := *u.base
	at.Path += protocol.BlobPath(from.Name(), d)
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, at.String(), nil)
	if err != nil {
		return 0, fmt.Errorf("ask for blob %s: %w", d, err)
	}
	r.Header.Set("User-Agent", "tared")
	a, err := u.http.Do(r)
	if err != nil {
		return 0, fmt.Errorf("ask for blob %s: %w", d, err)
	}
	a.Body.Close()
	s.mu.Lock()
	known, ok := s.sizes[d]
	s.mu.Unlock()
	switch {
	case a.StatusCode == http.StatusNotFound:
		return 0, content.ErrNotFound
	case a.StatusCode != http.StatusOK:
		return 0, &client.Error{Op: "ask for blob " + d.String(), Status: a.StatusCode, Host: u.base.Host}
	case ok:
		return known, nil
	case a.ContentLength < 0:
		return 0, fmt.Errorf("ask for blob %s: %s does not say its size", d, u.base.Host)
	}
	return a.ContentLength, nil
}

// OpenBlob implements storage.Blobs. A blob that is not here is fetched, and can be read while it comes; one fetch is enough for
// all who want it.
func (s *Store) OpenBlob(ctx context.Context, repo string, d digest.Digest) (storage.Blob, error) {
	b, err := s.local.OpenBlob(ctx, repo, d)
	if err == nil || !missing(err) {
		return b, err
	}
	u, from, err := s.find(repo)
	if err != nil {
		return b, err
	}
	l, err := s.join(ctx, u, from, repo, d)
	if err != nil {
		return b, s.absent(repo, err, storage.ErrBlobUnknown)
	}
	return storage.Blob{BlobInfo: storage.BlobInfo{Digest: d, Size: l.want.Size, Used: s.now()}, Content: l.reader(ctx)}, nil
}

// join returns the download of a blob, which it begins if there is none.
func (s *Store) join(ctx context.Context, u *upstream, from *client.Repository, repo string, d digest.Digest) (*load, error) {
	key := repo + "@" + string(d)
	if l := s.loading(key); l != nil {
		return l, nil
	}
	size, err := s.size(ctx, u, from, d)
	if err != nil {
		return nil, err
	}
	if s.opts.MaxBlob > 0 && size > s.opts.MaxBlob {
		return nil, fmt.Errorf("blob %s has %d bytes, the limit (limits: blob) is %d", d, size, s.opts.MaxBlob)
	}
	spool, err := os.CreateTemp(s.opts.Temp, "blob-")
	if err != nil {
		return nil, fmt.Errorf("fetch blob: %w", err)
	}
	if err := os.Remove(spool.Name()); err != nil {
		spool.Close()
		return nil, fmt.Errorf("fetch blob: %w", err)
	}
	l := &load{want: v1.Descriptor{MediaType: protocol.OctetStream, Digest: d, Size: size}, spool: spool, users: 1}
	l.grown.L = &l.mu
	s.mu.Lock()
	if other := s.loads[key]; other != nil && other.use() {
		s.mu.Unlock()
		l.leave()
		return other, nil
	}
	s.loads[key] = l
	l.users++ // for the reader
	s.mu.Unlock()
	s.running.Go(func() {
		ctx, end := detached(ctx, s.stop)
		defer end()
		err := s.run(ctx, l, from, repo)
		s.mu.Lock()
		if s.loads[key] == l {
			delete(s.loads, key)
		}
		s.mu.Unlock()
		l.end(err)
		l.leave()
		if err != nil {
			s.warn("fetch blob %s for %s: %w", d, repo, err)
		}
	})
	return l, nil
}

func (s *Store) loading(key string) *load {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.loads[key]; l != nil && l.use() {
		return l
	}
	return nil
}

// run fetches a blob into the storage, and by the way into the file that its readers read.
func (s *Store) run(ctx context.Context, l *load, from *client.Repository, repo string) error {
	body, err := from.Fetch(ctx, l.want, 0)
	if err != nil {
		return err
	}
	defer body.Close()
	checked, err := content.Verify(body, l.want)
	if err != nil {
		return err
	}
	id, err := s.local.StartUpload(ctx, repo, l.want.Digest.Algorithm())
	if err != nil {
		return fmt.Errorf("keep it: %w", err)
	}
	if _, err := s.local.CommitUpload(ctx, repo, id, 0, io.TeeReader(checked, l), l.want.Digest); err != nil {
		if aborted := s.local.AbortUpload(ctx, repo, id); aborted != nil && !errors.Is(aborted, storage.ErrUploadUnknown) {
			err = errors.Join(err, aborted)
		}
		return err
	}
	return nil
}

// load is a blob on its way: a file that grows, and who reads it.
type load struct {
	want  v1.Descriptor
	spool *os.File // without a name

	mu    sync.Mutex
	grown sync.Cond
	have  int64
	done  bool
	err   error
	users int
}

// Write adds what has come.
func (l *load) Write(p []byte) (int, error) {
	n, err := l.spool.WriteAt(p, l.have) // nobody else changes have
	l.mu.Lock()
	l.have += int64(n)
	l.mu.Unlock()
	l.grown.Broadcast()
	return n, err
}

func (l *load) end(err error) {
	l.mu.Lock()
	l.done, l.err = true, err
	l.mu.Unlock()
	l.grown.Broadcast()
}

// use adds a user, unless the last one has left already.
func (l *load) use() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users == 0 {
		return false
	}
	l.users++
	return true
}

// leave takes a user off; the last one closes the file.
func (l *load) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 {
		l.spool.Close()
	}
}

// reader returns a reader that is a user already.
func (l *load) reader(ctx context.Context) *reader {
	r := &reader{load: l, ctx: ctx}
	r.stop = context.AfterFunc(ctx, func() {
		l.mu.Lock() // so that nobody is between looking and waiting
		defer l.mu.Unlock()
		l.grown.Broadcast()
	})
	return r
}

// reader reads a load from wherever it was sought to, and waits for what has not come.
type reader struct {
	*load
	ctx    context.Context
	stop   func() bool
	off    int64
	closed bool
}

// Read holds the last byte back until all is verified: who has the whole has it right, and who has not sees it.
func (r *reader) Read(p []byte) (int, error) {
	if r.off >= r.want.Size {
		return 0, io.EOF
	}
	r.mu.Lock()
	for !r.done && r.off >= min(r.have, r.want.Size-1) && r.ctx.Err() == nil {
		r.grown.Wait()
	}
	ready, err := min(r.have, r.want.Size-1), r.err
	if r.done && err == nil {
		ready = r.have
	}
	r.mu.Unlock()
	if cause := r.ctx.Err(); cause != nil {
		return 0, cause
	}
	if r.off >= ready {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return 0, fmt.Errorf("fetch blob %s: %w", r.want.Digest, err)
	}
	n, err := r.spool.ReadAt(p[:min(int64(len(p)), ready-r.off)], r.off)
	r.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += r.want.Size
	}
	if offset < 0 {
		return 0, errors.New("seek blob: before its beginning")
	}
	r.off = offset
	return offset, nil
}

func (r *reader) Close() error {
	if !r.closed {
		r.closed = true
		r.stop()
		r.leave()
	}
	return nil
}
