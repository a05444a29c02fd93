package s3

import (
	"context"
	"crypto/rand"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// state is what is kept of an upload beside its bytes.
type state struct {
	Repository string
	Algorithm  digest.Algorithm
	Received   int64
	Hash       []byte // of what was received, in the form of the hash's encoding.BinaryMarshaler
	Multipart  string // id of the store's own upload, which has the parts; empty without parts
	Parts      []part
	Tail       string // key of the bytes after the last part, which are too few for one; empty for none
	TailSize   int64
	Digest     digest.Digest // of the blob, once it is being committed
	Changed    time.Time
}

// part is a part of the store's own upload, numbered from 1 by its place.
type part struct {
	ETag string
	Size int64
}

// newID is a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// validID knows the form of newID.
func validID(unsafe string) bool {
	return len(unsafe) == 36 && strings.Trim(unsafe, "0123456789abcdef-") == ""
}

func stateKey(id string) string { return "uploads/" + id + "/state" }
func dataKey(id string) string  { return "data/" + id }

// StartUpload implements storage.Uploads.
func (s *Store) StartUpload(ctx context.Context, repo string, alg digest.Algorithm) (string, error) {
	id := newID()
	u := &session{s: s, id: id, state: state{Repository: repo, Algorithm: alg}, hash: alg.Hash()}
	return id, u.save(ctx)
}

// readState reads the state of an upload of the repository; "" is any.
func (s *Store) readState(ctx context.Context, repo, unsafeID string) (st state, err error) {
	if !validID(unsafeID) {
		return st, storage.ErrUploadUnknown
	}
	_, err = s.getJSON(ctx, stateKey(unsafeID), &st)
	if errors.Is(err, errAbsent) || err == nil && repo != "" && st.Repository != repo {
		return state{}, storage.ErrUploadUnknown
	}
	return st, err
}

// StatUpload implements storage.Uploads.
func (s *Store) StatUpload(ctx context.Context, repo, id string) (storage.Upload, error) {
	st, err := s.readState(ctx, repo, id)
	return st.upload(id), err
}

func (st state) upload(id string) storage.Upload {
	return storage.Upload{Repository: st.Repository, ID: id, Algorithm: st.Algorithm, Received: st.Received, Changed: st.Changed}
}

// ListUploads implements storage.Collector.
func (s *Store) ListUploads(ctx context.Context, each func(storage.Upload) error) error {
	return s.list(ctx, "uploads/", "", func(rest string) (bool, error) {
		id, ok := strings.CutSuffix(rest, "/state")
		if !ok {
			return true, nil
		}
		st, err := s.readState(ctx, "", id)
		if errors.Is(err, storage.ErrUploadUnknown) {
			return true, nil
		}
		if err == nil {
			err = each(st.upload(id))
		}
		return true, err
	})
}

// session is an upload that this request alone writes to.
type session struct {
	s *Store
	state
	id    string
	hash  hash.Hash
	alone func() // releases the lock
	buffer
}

// openSession opens an upload for writing. The caller closes it. What the session does to the store goes on when the client has
// gone: the context that is returned ends with the lock only.
func (s *Store) openSession(ctx context.Context, repo, unsafeID string) (*session, context.Context, error) {
	if !validID(unsafeID) {
		return nil, nil, storage.ErrUploadUnknown
	}
	if _, err := s.readState(ctx, repo, unsafeID); err != nil {
		return nil, nil, err
	}
	work, release, err := s.tryLock(context.WithoutCancel(ctx), "upload-"+unsafeID)
	if err != nil {
		return nil, nil, err
	}
	u := &session{s: s, id: unsafeID, alone: release}
	if u.state, err = s.readState(ctx, repo, unsafeID); err == nil { // only now it cannot change any more
		err = u.restore()
	}
	if err != nil {
		u.close()
		return nil, nil, err
	}
	return u, work, nil
}

func (u *session) close() {
	u.buffer.close()
	u.alone()
}

// restore continues the hash where the last request left it.
func (u *session) restore() error {
	u.hash = u.Algorithm.Hash()
	if len(u.Hash) == 0 {
		return nil
	}
	h, ok := u.hash.(encoding.BinaryUnmarshaler)
	if !ok {
		return fmt.Errorf("resume upload: the hash %s cannot be resumed", u.Algorithm)
	}
	if err := h.UnmarshalBinary(u.Hash); err != nil {
		return fmt.Errorf("resume upload: %w", err)
	}
	return nil
}

// save writes the state.
func (u *session) save(ctx context.Context) error {
	h, ok := u.hash.(encoding.BinaryMarshaler)
	if !ok {
		return fmt.Errorf("save upload: the hash %s cannot be kept", u.Algorithm)
	}
	var err error
	if u.Hash, err = h.MarshalBinary(); err != nil {
		return fmt.Errorf("save upload: %w", err)
	}
	u.Changed = time.Now().UTC()
	_, err = u.s.putJSON(ctx, stateKey(u.id), u.state, anyway)
	return err
}

// abort removes everything of the upload but bytes that have become a blob.
func (u *session) abort(ctx context.Context) error {
	return u.s.removeUpload(ctx, u.id, u.state)
}

// removeUpload removes an upload, its state last, so that what is left of a failed try can be found.
func (s *Store) removeUpload(ctx context.Context, id string, st state) error {
	keep := false
	if st.Digest != "" { // a server died while it committed
		r, _, err := s.read(ctx, contentKey(st.Digest))
		if err != nil && !errors.Is(err, errAbsent) {
			return err
		}
		keep = err == nil && r.Data == dataKey(id)
	}
	if st.Multipart != "" && !keep {
		err := s.client.AbortMultipartUpload(ctx, s.opts.Bucket, s.opts.Prefix+dataKey(id), st.Multipart)
		if err = translate("abort", err); err != nil && !errors.Is(err, errAbsent) {
			return err
		}
	}
	var keys []string
	if st.Digest != "" && !keep {
		keys = append(keys, dataKey(id))
	}
	err := s.list(ctx, "uploads/"+id+"/", "", func(rest string) (bool, error) {
		if rest != "state" {
			keys = append(keys, "uploads/"+id+"/"+rest)
		}
		return true, nil
	})
	for _, key := range append(keys, stateKey(id)) {
		if err == nil {
			err = s.remove(ctx, key)
		}
	}
	return err
}

// AbortUpload implements storage.Uploads.
func (s *Store) AbortUpload(ctx context.Context, repo, id string) error {
	u, work, err := s.openSession(ctx, repo, id)
	if err != nil {
		return err
	}
	defer u.close()
	return u.abort(work)
}
