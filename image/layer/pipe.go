package layer

import (
	"context"
	"errors"
	"hash"
	"io"
	"sync"
	"sync/atomic"
)

// A layer is decompressed, hashed and written at the same time, each by a goroutine of its own:
//
//	stored bytes ─► decompress ─┬─► blocks ─► tar reader ─► files
//	                            └─► blocks ─► hash
//
// Blocks are shared by both readers and go back to a pool after the second.

const (
	blockSize = 256 << 10 // bytes: a few thousand hand-overs for each gigabyte
	ahead     = 4         // blocks that either reader may be behind
)

type block struct {
	data  []byte
	err   error // after the data
	users atomic.Int32
}

var blocks = sync.Pool{New: func() any { return &block{data: make([]byte, blockSize)} }}

func (b *block) release() {
	if b.users.Add(-1) == 0 {
		b.data, b.err = b.data[:blockSize], nil
		blocks.Put(b)
	}
}

// pipe reads ahead in a stream, and hashes it.
type pipe struct {
	stream io.ReadCloser
	meter  *meter
	hash   hash.Hash
	toTar  chan *block
	toHash chan *block
	stop   chan struct{}
	wg     sync.WaitGroup
	cur    *block // which the tar reader is in
	rest   []byte
	err    error
}

// newPipe starts to read stream, which it closes in the end.
func newPipe(ctx context.Context, stream io.ReadCloser, m *meter, h hash.Hash) *pipe {
	p := &pipe{stream: stream, meter: m, hash: h,
		toTar: make(chan *block, ahead), toHash: make(chan *block, ahead), stop: make(chan struct{})}
	p.wg.Go(func() { p.decompress(ctx) })
	p.wg.Go(func() {
		for b := range p.toHash {
			p.hash.Write(b.data)
			b.release()
		}
	})
	return p
}

func (p *pipe) decompress(ctx context.Context) {
	defer p.stream.Close()
	defer close(p.toHash)
	defer close(p.toTar)
	for {
		b := blocks.Get().(*block)
		b.users.Store(2)
		n, err := readFull(ctx, p.stream, b.data)
		if e := p.meter.decompressed(n); e != nil {
			err = e
		}
		b.data, b.err = b.data[:n], err
		for _, c := range []chan *block{p.toHash, p.toTar} {
			select {
			case c <- b:
			case <-p.stop:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// readFull reads until b is full, or an error, which may be io.EOF.
func readFull(ctx context.Context, r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		if err = context.Cause(ctx); err == nil {
			var m int
			m, err = r.Read(b[n:])
			n += m
		}
	}
	return n, err
}

// Read gives the uncompressed stream.
func (p *pipe) Read(dst []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		if p.cur != nil {
			p.err = p.cur.err
			p.cur.release()
			p.cur = nil
			continue
		}
		b, ok := <-p.toTar
		if !ok {
			p.err = io.ErrUnexpectedEOF
			continue
		}
		p.cur, p.rest = b, b.data
		if err := p.meter.taken(len(b.data)); err != nil {
			p.err, p.rest = err, nil
		}
	}
	n := copy(dst, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// ended says that the archive's end mark has been read: what follows is limited.
func (p *pipe) ended() { p.meter.ended(len(p.rest)) }

// drain reads the stream to its end; the hash is complete then.
func (p *pipe) drain() error {
	for {
		p.rest = nil
		if _, err := p.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	p.wg.Wait()
	return nil
}

// close stops the goroutines and waits for them; a read of the stored bytes that is under way ends first.
func (p *pipe) close() {
	close(p.stop)
	p.wg.Wait()
}
