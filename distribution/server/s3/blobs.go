package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// record says where the bytes of a blob are: of a link, and of content.
type record struct {
	Data  string // key of the bytes
	Size  int64
	Used  time.Time
	Gone  bool   // it was removed, and is only kept so that nobody takes it for one that never was
	Nonce string // so that no two writes are equal
}

func newRecord(data string, size int64) record {
	return record{Data: data, Size: size, Used: time.Now().UTC(), Nonce: rand.Text()}
}

func (r record) info(d digest.Digest) storage.BlobInfo {
	return storage.BlobInfo{Digest: d, Size: r.Size, Used: r.Used}
}

func linkKey(repo string, d digest.Digest) string { return repoKey(repo) + "blobs/" + hex(d) }
func contentKey(d digest.Digest) string           { return "content/" + hex(d) }

// read reads a record; one that is gone is errAbsent, with its ETag.
func (s *Store) read(ctx context.Context, key string) (record, string, error) {
	var r record
	etag, err := s.getJSON(ctx, key, &r)
	if err == nil && r.Gone {
		err = errAbsent
	}
	return r, etag, err
}

// link returns the link of a blob in a repository.
func (s *Store) link(ctx context.Context, repo string, d digest.Digest) (record, string, error) {
	r, etag, err := s.read(ctx, linkKey(repo, d))
	if errors.Is(err, errAbsent) {
		err = s.unknown(ctx, repo, storage.ErrBlobUnknown)
	}
	return r, etag, err
}

// change replaces a record by what next makes of it, until nobody else changes it at the same time. next returns false to leave
// it as it is. A record that is not there or gone is passed as nil.
func (s *Store) change(ctx context.Context, key string, next func(now *record) (record, bool)) (record, error) {
	leave, err := s.inside.enter(ctx, key)
	if err != nil {
		return record{}, err
	}
	defer leave()
	for range 100 {
		now, etag, err := s.read(ctx, key)
		p := &now
		if errors.Is(err, errAbsent) {
			p, err = nil, nil
		}
		if err != nil {
			return record{}, err
		}
		want, write := next(p)
		if !write {
			return now, nil
		}
		condition := etag
		if etag == "" {
			condition = onlyNew
		}
		if _, err = s.putJSON(ctx, key, want, condition); err == nil {
			return want, nil
		}
		if !errors.Is(err, errConflict) {
			return record{}, err
		}
	}
	return record{}, fmt.Errorf("change %s: it is changed by others all the time", key)
}

// StatBlob implements storage.Blobs.
func (s *Store) StatBlob(ctx context.Context, repo string, d digest.Digest) (storage.BlobInfo, error) {
	r, _, err := s.link(ctx, repo, d)
	return r.info(d), err
}

// OpenBlob implements storage.Blobs. The bytes are asked for when they are read.
func (s *Store) OpenBlob(ctx context.Context, repo string, d digest.Digest) (storage.Blob, error) {
	r, _, err := s.link(ctx, repo, d)
	if err != nil {
		return storage.Blob{}, err
	}
	return storage.Blob{BlobInfo: r.info(d), Content: &object{ctx: ctx, s: s, key: r.Data, size: r.Size}}, nil
}

// TouchBlob implements storage.Blobs.
func (s *Store) TouchBlob(ctx context.Context, repo string, d digest.Digest) (storage.BlobInfo, error) {
	found := false
	r, err := s.change(ctx, linkKey(repo, d), func(now *record) (record, bool) {
		if found = now != nil; !found {
			return record{}, false
		}
		return newRecord(now.Data, now.Size), true
	})
	if err == nil && !found {
		err = s.unknown(ctx, repo, storage.ErrBlobUnknown)
	}
	return r.info(d), err
}

// LinkBlob implements storage.Blobs. Before the link is made the content is marked as used, or it is gone.
func (s *Store) LinkBlob(ctx context.Context, from, to string, d digest.Digest) (storage.BlobInfo, error) {
	if from != "" {
		if _, _, err := s.link(ctx, from, d); err != nil {
			return storage.BlobInfo{}, err
		}
	}
	found := false
	r, err := s.change(ctx, contentKey(d), func(now *record) (record, bool) {
		if found = now != nil; !found {
			return record{}, false
		}
		return newRecord(now.Data, now.Size), true
	})
	if err != nil {
		return storage.BlobInfo{}, err
	}
	if !found {
		return storage.BlobInfo{}, storage.ErrBlobUnknown
	}
	return s.makeLink(ctx, to, d, r)
}

// makeLink links content, which was marked as used just now.
func (s *Store) makeLink(ctx context.Context, repo string, d digest.Digest, content record) (storage.BlobInfo, error) {
	if err := s.create(ctx, repo); err != nil {
		return storage.BlobInfo{}, err
	}
	r, err := s.change(ctx, linkKey(repo, d), func(*record) (record, bool) { return newRecord(content.Data, content.Size), true })
	return r.info(d), err
}

// UnlinkBlob implements storage.Blobs.
func (s *Store) UnlinkBlob(ctx context.Context, repo string, d digest.Digest) error {
	found := false
	_, err := s.change(ctx, linkKey(repo, d), func(now *record) (record, bool) {
		found = now != nil
		return record{Gone: true, Used: time.Now().UTC(), Nonce: rand.Text()}, found
	})
	if err == nil && !found {
		err = s.unknown(ctx, repo, storage.ErrBlobUnknown)
	}
	return err
}

// BlobURL implements storage.Redirector. The address has a signature, which is good for this object only.
func (s *Store) BlobURL(ctx context.Context, repo string, d digest.Digest, method string) (string, error) {
	r, _, err := s.link(ctx, repo, d)
	if err != nil {
		return "", err
	}
	q := url.Values{"response-content-type": {protocol.OctetStream}}
	sign := s.client.Client.PresignedGetObject
	if method == http.MethodHead {
		sign = s.client.Client.PresignedHeadObject
	}
	u, err := sign(ctx, s.opts.Bucket, s.opts.Prefix+r.Data, s.opts.Expiry, q)
	if err != nil {
		return "", fmt.Errorf("sign address: %w", err)
	}
	return u.String(), nil
}

// object reads an object from wherever it was sought to.
type object struct {
	ctx       context.Context
	s         *Store
	key       string
	size, off int64
	body      io.ReadCloser
}

func (o *object) Read(p []byte) (int, error) {
	if o.off >= o.size {
		return 0, io.EOF
	}
	if o.body == nil {
		var opts minio.GetObjectOptions
		if err := opts.SetRange(o.off, o.size-1); err != nil {
			return 0, fmt.Errorf("read blob: %w", err)
		}
		body, _, _, err := o.s.client.GetObject(o.ctx, o.s.opts.Bucket, o.s.opts.Prefix+o.key, opts)
		if err != nil {
			return 0, translate("read", err)
		}
		o.body = body
	}
	n, err := o.body.Read(p)
	o.off += int64(n)
	if errors.Is(err, io.EOF) && o.off < o.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.off
	case io.SeekEnd:
		offset += o.size
	}
	if offset < 0 {
		return 0, errors.New("seek blob: before its beginning")
	}
	if offset != o.off {
		err := o.Close()
		o.off, o.body = offset, nil
		return offset, err
	}
	return offset, nil
}

func (o *object) Close() error {
	if o.body == nil {
		return nil
	}
	return o.body.Close()
}
