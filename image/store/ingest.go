package store

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/internal/sys/filelock"
	"github.com/tare-oci/tare/internal/sys/writeback"
)

// ErrMismatch is wrapped by errors that say that content is not what its digest says.
var ErrMismatch = errors.New("content does not match")

type ingestState int

const (
	ingestOpen     ingestState = iota
	ingestVerified             // everything is there and right; only syncing and renaming is left
	ingestFailed
)

// Ingest is a blob that is being written. One goroutine writes, commits and closes; any number of Readers follow.
type Ingest struct {
	s    *Store
	want v1.Descriptor
	path string
	file *os.File
	hash hash.Hash

	mu     sync.Mutex
	more   sync.Cond // offset, state or a reader has changed
	offset int64
	begun  int64 // up to here writing to the disk has begun
	state  ingestState
	err    error // for readers, when state is ingestFailed
}

// Ingest begins to write the blob d, and holds it as Exists does. If another process or goroutine is writing it, Ingest waits
// until that one ends or ctx does. The error wraps content.ErrExists if d is there, then or already before. What an
// interrupted ingest of d has left is taken over: see Offset. The caller ends it by Commit, Discard, Close or Fail.
func (s *Store) Ingest(ctx context.Context, d v1.Descriptor) (*Ingest, error) {
	if err := checkBlob(d); err != nil {
		return nil, err
	}
	if err := s.hold(ctx, d.Digest); err != nil {
		return nil, err
	}
	path := s.path("ingest", d.Digest.Algorithm().String()+"-"+d.Digest.Encoded())
	f, err := s.lockIngest(ctx, d, path)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	in := &Ingest{s: s, want: d, path: path, file: f, hash: d.Digest.Algorithm().Hash()}
	in.more.L = &in.mu
	if err := in.resume(ctx); err != nil {
		f.Close()
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return in, nil
}

// lockIngest opens the file of an unfinished blob and waits for its lock. The lock is on the file itself, which Commit renames:
// who waited for it sees then that it got another file than path names.
func (s *Store) lockIngest(ctx context.Context, d v1.Descriptor, path string) (*os.File, error) {
	for try := 0; ; try++ {
		if there, err := s.has(d); err != nil {
			return nil, err
		} else if there {
			return nil, content.ErrExists
		}
		if err := s.may("create", path); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, fileMode)
		if err != nil {
			return nil, err
		}
		err = filelock.Try(f)
		same := false
		if err == nil {
			same, err = named(f, path)
		}
		there := false
		if same {
			there, err = s.has(d)
		}
		switch {
		case there:
			err = errors.Join(content.ErrExists, os.Remove(path))
		case same:
			return f, err
		case err == nil: // renamed or removed while we waited
			err = ctx.Err()
		case errors.Is(err, syscall.EWOULDBLOCK):
			err = wait(ctx, try)
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// resume hashes what is in the file.
func (in *Ingest) resume(ctx context.Context) error {
	info, err := in.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", in.path)
	}
	if info.Size() > in.want.Size {
		return in.restart()
	}
	n, err := io.Copy(in.hash, &contextReader{ctx, in.file})
	in.offset = n
	return err
}

// restart begins anew with no byte.
func (in *Ingest) restart() error {
	if err := in.file.Truncate(0); err != nil {
		return err
	}
	if _, err := in.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	in.hash.Reset()
	in.offset = 0
	return nil
}

// Descriptor returns what is being written.
func (in *Ingest) Descriptor() v1.Descriptor { return in.want }

// Offset returns how many bytes there are: the next Write begins there. They are hashed, which says whether they are right
// only at Commit.
func (in *Ingest) Offset() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.offset
}

// Write appends p. After an error, n bytes of it are there, and the next Write may go on with the rest. More bytes than the
// descriptor says are refused.
func (in *Ingest) Write(p []byte) (n int, err error) {
	if int64(len(p)) > in.want.Size-in.offset { // only the writer changes offset
		return 0, fmt.Errorf("blob %s goes on after its %d bytes: %w", in.want.Digest, in.want.Size, ErrMismatch)
	}
	if err := in.s.may("write", in.path); err != nil {
		return 0, err
	}
	n, err = in.file.Write(p)
	in.hash.Write(p[:n])
	in.mu.Lock()
	in.offset += int64(n)
	in.mu.Unlock()
	in.more.Broadcast()
	in.begun = startWriteback(in.file, in.begun, in.offset)
	if err != nil {
		return n, fmt.Errorf("write blob %s: %w", in.want.Digest, err)
	}
	return n, nil
}

// startWriteback begins to write what has come since begun to the disk, if it is worth a call, so that syncing takes no time in
// the end. An error there is none here: whatever keeps the file from the disk is reported by syncing it.
func startWriteback(f *os.File, begun, size int64) int64 {
	if size-begun < 8<<20 || writeback.Start(f, begun, size-begun) != nil {
		return begun
	}
	return size
}

// fill writes all that r yields, from the first byte on.
func (in *Ingest) fill(ctx context.Context, r io.Reader) error {
	if in.offset > 0 {
		if err := in.restart(); err != nil {
			return err
		}
	}
	_, err := io.CopyBuffer(struct{ io.Writer }{in}, &contextReader{ctx, r}, make([]byte, min(in.want.Size+1, 256<<10)))
	return err
}

// Commit makes the blob visible: its size and digest are verified, readers see its end, then it is synced and renamed into
// place. The ingest is over, whatever Commit returns. The error wraps ErrMismatch if the content is wrong: it is removed then,
// so that the next Ingest begins anew. If bytes are missing it wraps io.ErrUnexpectedEOF, and the next Ingest goes on.
func (in *Ingest) Commit() error {
	if in.offset < in.want.Size {
		err := fmt.Errorf("blob %s ends after %d of %d bytes: %w", in.want.Digest, in.offset, in.want.Size, io.ErrUnexpectedEOF)
		in.Fail(err)
		return err
	}
	if got := fmt.Sprintf("%s:%x", in.want.Digest.Algorithm(), in.hash.Sum(nil)); got != in.want.Digest.String() {
		err := fmt.Errorf("blob %s: content is %s: %w", in.want.Digest, got, ErrMismatch)
		return errors.Join(err, in.discard(err))
	}
	in.end(ingestVerified, nil)
	defer in.file.Close()
	if err := in.s.publish(in.file, in.path, in.want); err != nil {
		return fmt.Errorf("store blob %s: %w", in.want.Digest, err)
	}
	return nil
}

// publish syncs the complete file f and renames it from path to where the blob d belongs. The directory is synced by Tag, for
// all blobs at once: as long as nothing names a blob, a power cut may take it.
func (s *Store) publish(f *os.File, path string, d v1.Descriptor) error {
	if err := s.may("sync", path); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	to := s.blobPath(d.Digest)
	if err := s.may("rename", to); err != nil {
		return err
	}
	err := os.Rename(path, to)
	if errors.Is(err, os.ErrNotExist) { // the first of its algorithm
		if err = os.MkdirAll(filepath.Dir(to), dirMode); err == nil {
			err = os.Rename(path, to)
		}
	}
	return err
}

// syncBlobs makes the names of all blobs outlive a power cut.
func (s *Store) syncBlobs() error {
	dirs, err := filepath.Glob(filepath.Join(s.dir, v1.ImageBlobsDir, "*"))
	if err != nil {
		return err
	}
	for _, dir := range append(dirs, filepath.Join(s.dir, v1.ImageBlobsDir)) {
		if err := s.may("syncdir", dir); err != nil {
			return err
		}
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// Discard removes what was written: the next Ingest begins anew. After Commit, Close or Fail it does nothing.
func (in *Ingest) Discard() error {
	return in.discard(fmt.Errorf("blob %s: given up: %w", in.want.Digest, io.ErrUnexpectedEOF))
}

func (in *Ingest) discard(err error) error {
	if !in.end(ingestFailed, err) {
		return nil
	}
	defer in.file.Close()
	return os.Remove(in.path)
}

// Close ends an ingest that was not committed and keeps what was written for the next one. After Commit or Discard it does
// nothing, so that it can be deferred.
func (in *Ingest) Close() error {
	in.Fail(fmt.Errorf("blob %s: given up: %w", in.want.Digest, io.ErrUnexpectedEOF))
	return nil
}

// Fail is Close with an error for the readers to return.
func (in *Ingest) Fail(err error) {
	if in.end(ingestFailed, err) {
		in.file.Close()
	}
}

// end leaves ingestOpen, and reports whether it was so.
func (in *Ingest) end(state ingestState, err error) bool {
	in.mu.Lock()
	was := in.state
	if was == ingestOpen {
		in.state, in.err = state, err
	}
	in.mu.Unlock()
	in.more.Broadcast()
	return was == ingestOpen
}

// Reader returns a reader of the blob from its first byte, which waits where nothing more is written yet. It returns io.EOF
// only after the whole content was verified, and the error of Fail if the ingest ends before. The caller closes it, which
// also ends a Read that waits; it may be used after the ingest.
func (in *Ingest) Reader() (io.ReadCloser, error) {
	// A descriptor of its own: in.file is closed at the end.
	f, err := os.Open(in.path)
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.Open(in.s.blobPath(in.want.Digest))
	}
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", in.want.Digest, err)
	}
	return &follower{in: in, file: f}, nil
}

// follower reads a file that grows.
type follower struct {
	in     *Ingest
	file   *os.File
	pos    int64
	closed bool // below in.mu
}

func (r *follower) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	end, err := r.wait()
	if err != nil {
		return 0, err
	}
	n, err := r.file.ReadAt(p[:min(int64(len(p)), end-r.pos)], r.pos)
	r.pos += int64(n)
	if n > 0 || err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) { // somebody truncated the file
		err = io.ErrUnexpectedEOF
	}
	return 0, fmt.Errorf("read blob %s: %w", r.in.want.Digest, err)
}

// wait returns up to where the file can be read, which is beyond r.pos.
func (r *follower) wait() (int64, error) {
	in := r.in
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		switch {
		case r.closed:
			return 0, os.ErrClosed
		case in.offset > r.pos:
			return in.offset, nil
		case in.state == ingestVerified:
			return 0, io.EOF
		case in.state == ingestFailed:
			return 0, in.err
		}
		in.more.Wait()
	}
}

// Close ends the reader.
func (r *follower) Close() error {
	r.in.mu.Lock()
	r.closed = true
	r.in.mu.Unlock()
	r.in.more.Broadcast()
	return r.file.Close()
}

// contextReader ends with its context's error.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
