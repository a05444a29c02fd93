package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// Sizes of the parts of the store's own uploads. A store takes 10 000 of them, and none but the last below 5 MiB.
const (
	partSize = 16 << 20
	minPart  = 5 << 20
	maxParts = 10_000
	copySize = 256 << 10
)

// buffer is a file for the bytes of a part: the store wants to know their number first, and a slow client must not hold memory.
type buffer struct {
	file *os.File
	n    int64
}

func (b *buffer) open(dir string) error {
	if b.file != nil {
		return nil
	}
	f, err := os.CreateTemp(dir, "part-")
	if err != nil {
		return fmt.Errorf("buffer upload: %w", err)
	}
	b.file = f
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("buffer upload: %w", err)
	}
	return nil
}

func (b *buffer) close() {
	if b.file != nil {
		b.file.Close()
		b.file = nil
	}
}

func (b *buffer) write(p []byte) error {
	if _, err := b.file.WriteAt(p, b.n); err != nil {
		return fmt.Errorf("buffer upload: %w", err)
	}
	b.n += int64(len(p))
	return nil
}

func (b *buffer) reader() io.Reader { return io.NewSectionReader(b.file, 0, b.n) }

// AppendUpload implements storage.Uploads.
func (s *Store) AppendUpload(ctx context.Context, repo, id string, offset int64, r io.Reader) (int64, error) {
	u, work, err := s.openSession(ctx, repo, id)
	if err != nil {
		return 0, err
	}
	defer u.close()
	if offset >= 0 && offset != u.Received {
		return u.Received, &storage.OffsetError{Received: u.Received}
	}
	before := u.state
	if err := u.receive(work, r); err != nil {
		return u.Received, err
	}
	return u.Received, u.rest(work, before)
}

// receive takes what r yields: full parts go to the store, and the rest stays in the buffer. If r breaks, what came before is
// kept as if it had ended.
func (u *session) receive(ctx context.Context, r io.Reader) error {
	before := u.state
	if err := u.fill(ctx); err != nil {
		return err
	}
	if r == nil {
		return nil
	}
	p := make([]byte, copySize)
	for {
		n, rerr := r.Read(p[:min(copySize, partSize-u.n)])
		if n > 0 {
			u.hash.Write(p[:n])
			if err := u.write(p[:n]); err != nil {
				return err
			}
			u.Received += int64(n)
		}
		if u.n == partSize {
			if err := u.flush(ctx); err != nil {
				return err
			}
		}
		if errors.Is(rerr, io.EOF) {
			return nil
		}
		if rerr != nil {
			if err := u.rest(ctx, before); err != nil {
				return err
			}
			return fmt.Errorf("receive upload: %w", rerr)
		}
	}
}

// fill begins the buffer with the bytes after the last part.
func (u *session) fill(ctx context.Context) error {
	if err := u.open(u.s.opts.Temp); err != nil || u.Tail == "" {
		return err
	}
	data, _, err := u.s.get(ctx, u.Tail)
	if err == nil && int64(len(data)) != u.TailSize {
		err = fmt.Errorf("resume upload: %d bytes after the last part, want %d", len(data), u.TailSize)
	}
	if err != nil {
		return err
	}
	return u.write(data)
}

// flush makes what is in the buffer a part.
func (u *session) flush(ctx context.Context) error {
	if len(u.Parts) == maxParts {
		return fmt.Errorf("upload has more than %d parts of %d bytes, which is all that the object store takes", maxParts, partSize)
	}
	bucket, key := u.s.opts.Bucket, u.s.opts.Prefix+dataKey(u.id)
	if u.Multipart == "" {
		var err error
		if u.Multipart, err = u.s.client.NewMultipartUpload(ctx, bucket, key, minio.PutObjectOptions{}); err != nil {
			return translate("begin", err)
		}
		if err := u.note(ctx); err != nil {
			return err
		}
	}
	p, err := u.s.client.PutObjectPart(ctx, bucket, key, u.Multipart, len(u.Parts)+1, u.reader(), u.n, minio.PutObjectPartOptions{})
	if err != nil {
		return translate("write", err)
	}
	u.Parts = append(u.Parts, part{p.ETag, u.n})
	u.n = 0
	return nil
}

// note writes down the store's own upload at once: nothing else knows of it, and its parts cost money.
func (u *session) note(ctx context.Context) error {
	st, err := u.s.readState(ctx, "", u.id)
	if err != nil {
		return err
	}
	st.Multipart = u.Multipart
	_, err = u.s.putJSON(ctx, stateKey(u.id), st, anyway)
	return err
}

// rest stores what is in the buffer until the next request, and then the state. The bytes that the state before names are removed
// last: if this fails half-way, that state is still true.
func (u *session) rest(ctx context.Context, before state) error {
	u.Tail, u.TailSize = "", 0
	if u.n >= minPart {
		if err := u.flush(ctx); err != nil {
			return err
		}
	}
	if u.n > 0 {
		u.Tail, u.TailSize = fmt.Sprintf("uploads/%s/tail-%d", u.id, u.Received), u.n
		if _, err := u.s.client.PutObject(ctx, u.s.opts.Bucket, u.s.opts.Prefix+u.Tail, u.reader(), u.n, "", "", minio.PutObjectOptions{}); err != nil {
			return translate("write", err)
		}
	}
	if err := u.save(ctx); err != nil {
		return err
	}
	if before.Tail != "" && before.Tail != u.Tail {
		return u.s.remove(ctx, before.Tail)
	}
	return nil
}

// CommitUpload implements storage.Uploads.
func (s *Store) CommitUpload(ctx context.Context, repo, id string, offset int64, r io.Reader, d digest.Digest) (storage.BlobInfo, error) {
	u, work, err := s.openSession(ctx, repo, id)
	if err != nil {
		return storage.BlobInfo{}, err
	}
	defer u.close()
	if offset >= 0 && offset != u.Received {
		return storage.BlobInfo{}, &storage.OffsetError{Received: u.Received}
	}
	if u.Received == 0 && d.Algorithm() != u.Algorithm {
		u.Algorithm = d.Algorithm()
		u.hash = u.Algorithm.Hash()
	}
	if err := u.receive(work, r); err != nil {
		return storage.BlobInfo{}, err
	}
	if d.Algorithm() == u.Algorithm && fmt.Sprintf("%x", u.hash.Sum(nil)) != d.Encoded() {
		return storage.BlobInfo{}, errors.Join(storage.ErrDigestMismatch, u.abort(work))
	}
	content, err := u.finish(work, d)
	if err != nil {
		return storage.BlobInfo{}, err
	}
	return s.makeLink(work, repo, d, content)
}

// finish makes the bytes an object, and that the content of d, and removes the upload.
func (u *session) finish(ctx context.Context, d digest.Digest) (record, error) {
	u.Digest = d
	if err := u.s.noteDigest(ctx, u.id, d); err != nil {
		return record{}, err
	}
	if err := u.complete(ctx); err != nil {
		return record{}, err
	}
	if d.Algorithm() != u.Algorithm {
		if err := u.hashAgain(ctx, d); err != nil {
			return record{}, errors.Join(err, u.abort(ctx))
		}
	}
	mine := newRecord(dataKey(u.id), u.Received)
	content, err := u.s.change(ctx, contentKey(d), func(now *record) (record, bool) {
		if now == nil {
			return mine, true
		}
		return newRecord(now.Data, now.Size), true
	})
	if err != nil {
		return record{}, err
	}
	u.Multipart = "" // it is complete
	return content, u.abort(ctx)
}

// noteDigest writes down what the upload is about to become, so that nobody who cleans up removes the bytes of a blob.
func (s *Store) noteDigest(ctx context.Context, id string, d digest.Digest) error {
	st, err := s.readState(ctx, "", id)
	if err != nil {
		return err
	}
	st.Digest, st.Changed = d, time.Now().UTC()
	_, err = s.putJSON(ctx, stateKey(id), st, anyway)
	return err
}

// complete makes parts and buffer one object.
func (u *session) complete(ctx context.Context) error {
	bucket, key := u.s.opts.Bucket, u.s.opts.Prefix+dataKey(u.id)
	if len(u.Parts) == 0 {
		_, err := u.s.client.PutObject(ctx, bucket, key, u.reader(), u.n, "", "", minio.PutObjectOptions{})
		return translate("write", err)
	}
	if u.n > 0 {
		if err := u.flush(ctx); err != nil {
			return err
		}
	}
	parts := make([]minio.CompletePart, len(u.Parts))
	for i, p := range u.Parts {
		parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: p.ETag}
	}
	_, err := u.s.client.CompleteMultipartUpload(ctx, bucket, key, u.Multipart, parts, minio.PutObjectOptions{})
	return translate("complete", err)
}

// hashAgain reads the object, because the upload was begun with another algorithm than its digest has.
func (u *session) hashAgain(ctx context.Context, d digest.Digest) error {
	o := &object{ctx: ctx, s: u.s, key: dataKey(u.id), size: u.Received}
	defer o.Close()
	h := d.Algorithm().Hash()
	if _, err := io.Copy(h, o); err != nil {
		return err
	}
	if fmt.Sprintf("%x", h.Sum(nil)) != d.Encoded() {
		return storage.ErrDigestMismatch
	}
	return nil
}
