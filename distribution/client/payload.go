package client

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// payload is content on its way to the registry. It is verified while it is sent: its last bytes leave only if size and digest
// are right, so that a registry that does not look itself never gets a whole wrong blob.
type payload struct {
	want  v1.Descriptor
	seek  io.Seeker // nil: src can be read once
	start int64     // position of the content's first byte in src

	mu   sync.Mutex // the transport may still read an old body while a new one is opened
	src  io.Reader
	pos  int64 // of src in the content
	hash hash.Hash
	err  error // of src, or of what it yields; for good
	open *body
}

func newPayload(r io.Reader, d v1.Descriptor) *payload {
	p := &payload{want: d, src: r, hash: d.Digest.Algorithm().Hash()}
	if s, ok := r.(io.Seeker); ok {
		at, err := s.Seek(0, io.SeekCurrent) // a pipe's *os.File is a Seeker, too, but fails
		if err == nil {
			p.seek, p.start = s, at
		}
	}
	return p
}

// piece is a part of a payload as the body of a request.
type piece struct {
	content        *payload
	offset, length int64
}

func (p *payload) piece(offset, length int64) *piece { return &piece{p, offset, length} }

// rewindable reports whether the piece can be sent (again) from its beginning. A nil piece can.
func (b *piece) rewindable() bool {
	if b == nil || b.content.seek != nil {
		return true
	}
	b.content.mu.Lock()
	defer b.content.mu.Unlock()
	return b.content.pos == b.offset
}

// cause returns the error of the content itself, if there is one.
func (b *piece) cause() error {
	if b == nil {
		return nil
	}
	b.content.mu.Lock()
	defer b.content.mu.Unlock()
	return b.content.err
}

// open returns the body. Bodies that were opened before yield nothing more.
func (b *piece) open(w *watch) (io.ReadCloser, error) {
	p := b.content
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil, p.err
	}
	p.open = nil
	if err := p.move(b.offset); err != nil {
		p.err = err
		return nil, err
	}
	p.open = &body{p: p, w: w, left: b.length}
	return p.open, nil
}

// move goes to a position, which is read and hashed anew if it lies behind.
func (p *payload) move(offset int64) error {
	if p.pos == offset {
		return nil
	}
	if p.seek == nil {
		return errors.New("content can be read once only, and was sent in part already")
	}
	if offset < p.pos {
		if _, err := p.seek.Seek(p.start, io.SeekStart); err != nil {
			return fmt.Errorf("read content again: %w", err)
		}
		p.pos = 0
		p.hash.Reset()
	}
	n, err := io.CopyBuffer(p.hash, io.LimitReader(p.src, offset-p.pos), make([]byte, 256<<10))
	p.pos += n
	if err == nil && p.pos < offset {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// body is a reader of a piece.
type body struct {
	p    *payload
	w    *watch
	left int64
}

// Read implements io.Reader.
func (b *body) Read(buf []byte) (int, error) {
	p := b.p
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.open != b:
		return 0, errors.New("body is closed")
	case p.err != nil:
		return 0, p.err
	case b.left == 0:
		return 0, io.EOF
	case len(buf) == 0:
		return 0, nil
	}
	b.w.stop()
	n, err := p.src.Read(buf[:min(int64(len(buf)), b.left)])
	p.hash.Write(buf[:n])
	p.pos += int64(n)
	b.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
		if p.pos < p.want.Size {
			err = fmt.Errorf("%s ends after %d of %d bytes: %w", p.want.Digest, p.pos, p.want.Size, io.ErrUnexpectedEOF)
		}
	}
	if err == nil && p.pos == p.want.Size {
		err = p.verify()
	}
	if err != nil {
		p.err = err
		return 0, err
	}
	if b.left == 0 {
		b.w.start(b.w.limits.Answer)
	} else {
		b.w.start(b.w.limits.Stall)
	}
	return n, nil
}

// verify looks at the end of the content: that there is no more, and its digest.
func (p *payload) verify() error {
	var more [1]byte
	switch n, err := io.ReadFull(p.src, more[:]); {
	case n > 0:
		return fmt.Errorf("%s goes on after its %d bytes", p.want.Digest, p.want.Size)
	case !errors.Is(err, io.EOF):
		return err
	}
	if got := fmt.Sprintf("%s:%x", p.want.Digest.Algorithm(), p.hash.Sum(nil)); got != p.want.Digest.String() {
		return fmt.Errorf("%s: content is %s", p.want.Digest, got)
	}
	return nil
}

// Close implements io.Closer. It waits for a Read that is under way.
func (b *body) Close() error {
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	if b.p.open == b {
		b.p.open = nil
	}
	return nil
}
