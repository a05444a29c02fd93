package directory

import (
	"context"
	"crypto/rand"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/internal/atomicfile"
	"github.com/tare-oci/tare/internal/sys/filelock"
)

// state is what is kept of an upload beside its bytes. Bytes beyond Received are of a request that did not end well.
type state struct {
	Repository string
	Algorithm  digest.Algorithm
	Received   int64
	Hash       []byte // of what was received, in the form of the hash's encoding.BinaryMarshaler
}

// session is an upload that this request alone writes to.
type session struct {
	state
	dir  string
	file *os.File // data, locked
	hash hash.Hash
}

func (d *Dir) uploadDir(id string) string { return d.path("uploads/" + d.boot + "/" + id) }

// validID knows the form of newID.
func validID(unsafe string) bool {
	return len(unsafe) == 36 && strings.Trim(unsafe, "0123456789abcdef-") == ""
}

// newID is a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// StartUpload implements storage.Uploads.
func (d *Dir) StartUpload(_ context.Context, repo string, alg digest.Algorithm) (string, error) {
	id := newID()
	dir := d.uploadDir(id)
	if err := os.Mkdir(dir, dirPerm); err != nil {
		return "", fault("start upload", err)
	}
	f, err := os.OpenFile(dir+"/data", os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err == nil {
		f.Close()
		s := session{state: state{Repository: repo, Algorithm: alg}, dir: dir, hash: alg.Hash()}
		err = s.save()
	}
	if err != nil {
		os.RemoveAll(dir)
		return "", fault("start upload", err)
	}
	return id, nil
}

// readState reads the state of an upload of the repository.
func (d *Dir) readState(repo, unsafeID string) (s state, changed time.Time, err error) {
	if !validID(unsafeID) {
		return s, changed, storage.ErrUploadUnknown
	}
	file := d.uploadDir(unsafeID) + "/state"
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, changed, storage.ErrUploadUnknown
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return s, changed, fault("read upload", err)
	}
	if repo != "" && s.Repository != repo {
		return s, changed, storage.ErrUploadUnknown
	}
	st, err := os.Stat(file)
	if err != nil {
		return s, changed, storage.ErrUploadUnknown
	}
	return s, st.ModTime(), nil
}

// StatUpload implements storage.Uploads.
func (d *Dir) StatUpload(_ context.Context, repo, id string) (storage.Upload, error) {
	s, changed, err := d.readState(repo, id)
	return storage.Upload{Repository: s.Repository, ID: id, Algorithm: s.Algorithm, Received: s.Received, Changed: changed}, err
}

// openSession opens an upload for writing. The caller closes it.
func (d *Dir) openSession(repo, unsafeID string) (*session, error) {
	if !validID(unsafeID) {
		return nil, storage.ErrUploadUnknown
	}
	s := &session{dir: d.uploadDir(unsafeID)}
	var err error
	if s.file, err = os.OpenFile(s.dir+"/data", os.O_RDWR, 0); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = storage.ErrUploadUnknown
		}
		return nil, fault("open upload", err)
	}
	err = filelock.Try(s.file)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = storage.ErrUploadBusy
	}
	if err == nil { // only now it cannot change any more
		s.state, _, err = d.readState(repo, unsafeID)
	}
	if err == nil {
		err = s.restore()
	}
	if err != nil {
		s.file.Close()
		return nil, fault("open upload", err)
	}
	return s, nil
}

// restore continues the hash where the last request left it.
func (s *session) restore() error {
	s.hash = s.Algorithm.Hash()
	if err := s.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(s.Hash); err != nil {
		return err
	}
	if st, err := s.file.Stat(); err != nil {
		return err
	} else if st.Size() > s.Received {
		if err := s.file.Truncate(s.Received); err != nil {
			return err
		}
	}
	_, err := s.file.Seek(s.Received, io.SeekStart)
	return err
}

// save writes the state. It needs no sync: after a power cut the upload is forgotten.
func (s *session) save() error {
	var err error
	if s.Hash, err = s.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return err
	}
	data, err := json.Marshal(s.state)
	if err != nil {
		return err
	}
	return atomicfile.Write(s.dir+"/state", data, perm, atomicfile.NoSync)
}

// receive appends what r yields.
func (s *session) receive(offset int64, r io.Reader) error {
	if offset >= 0 && offset != s.Received {
		return &storage.OffsetError{Received: s.Received}
	}
	if r == nil {
		return nil
	}
	n, err := pump(s.file, s.hash, r)
	s.Received += n
	return fault("receive upload", err)
}

// AppendUpload implements storage.Uploads.
func (d *Dir) AppendUpload(_ context.Context, repo, id string, offset int64, r io.Reader) (int64, error) {
	s, err := d.openSession(repo, id)
	if err != nil {
		return 0, err
	}
	defer s.file.Close()
	err = s.receive(offset, r)
	var order *storage.OffsetError
	if errors.As(err, &order) {
		return s.Received, err
	}
	if saved := s.save(); saved != nil {
		err = errors.Join(err, fault("save upload", saved))
	}
	return s.Received, err
}

// CommitUpload implements storage.Uploads.
func (d *Dir) CommitUpload(_ context.Context, repo, id string, offset int64, r io.Reader, blob digest.Digest) (storage.BlobInfo, error) {
	s, err := d.openSession(repo, id)
	if err != nil {
		return storage.BlobInfo{}, err
	}
	defer s.file.Close()
	if s.Received == 0 {
		s.Algorithm, s.hash = blob.Algorithm(), blob.Algorithm().Hash()
	}
	if err := s.receive(offset, r); err != nil {
		var order *storage.OffsetError
		if !errors.As(err, &order) {
			err = errors.Join(err, s.save())
		}
		return storage.BlobInfo{}, err
	}
	got := digest.NewDigest(s.Algorithm, s.hash)
	if s.Algorithm != blob.Algorithm() {
		if got, err = s.rehash(blob.Algorithm()); err != nil {
			return storage.BlobInfo{}, fault("read upload", err)
		}
	}
	if got != blob {
		err := fmt.Errorf("%w: received %d bytes with %s, not %s", storage.ErrDigestMismatch, s.Received, got, blob)
		return storage.BlobInfo{}, errors.Join(err, os.RemoveAll(s.dir))
	}
	info, err := d.keep(s, repo, blob)
	if err != nil {
		return storage.BlobInfo{}, err
	}
	return info, fault("finish upload", os.RemoveAll(s.dir))
}

// rehash reads what was received again: the client did not say the algorithm when it began.
func (s *session) rehash(alg digest.Algorithm) (digest.Digest, error) {
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return alg.FromReader(s.file)
}

// keep makes the bytes of an upload those of the blob, unless it is there already, and links it.
func (d *Dir) keep(s *session, repo string, blob digest.Digest) (storage.BlobInfo, error) {
	if err := d.makeRepo(repo); err != nil {
		return storage.BlobInfo{}, err
	}
	unlock, err := d.lockContent(blob)
	if err != nil {
		return storage.BlobInfo{}, err
	}
	defer unlock()
	if _, _, err := d.content(blob); errors.Is(err, storage.ErrBlobUnknown) {
		if err := os.Rename(s.dir+"/data", d.path(d.pendingFile(blob))); err != nil {
			return storage.BlobInfo{}, fault("finish upload", err)
		}
		d.syncBehind(blob)
	} else if err != nil {
		return storage.BlobInfo{}, fault("finish upload", err)
	}
	return d.linkLocked(repo, blob)
}

// AbortUpload implements storage.Uploads.
func (d *Dir) AbortUpload(_ context.Context, repo, id string) error {
	if _, _, err := d.readState(repo, id); err != nil {
		return err
	}
	s, err := d.openSession(repo, id)
	if errors.Is(err, storage.ErrUploadUnknown) {
		// A process that died had made a blob of the bytes: the rest goes, too.
		return errors.Join(err, os.RemoveAll(d.uploadDir(id)))
	}
	if err != nil {
		return err
	}
	defer s.file.Close()
	return fault("cancel upload", os.RemoveAll(s.dir))
}

// ListUploads implements storage.Collector.
func (d *Dir) ListUploads(ctx context.Context, each func(storage.Upload) error) error {
	ids, err := names(d.path("uploads/" + d.boot))
	if err != nil {
		return fault("list uploads", err)
	}
	for _, id := range ids {
		u, err := d.StatUpload(ctx, "", id)
		if errors.Is(err, storage.ErrUploadUnknown) {
			continue
		}
		if err == nil {
			err = each(u)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
