package diff

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"

	"github.com/klauspost/compress/flate"
)

// Parameters of gzip. They decide about the bytes, so that none may depend on the machine.
const (
	gzipLevel  = 6
	gzipBlock  = 1 << 20  // bytes that are compressed by themselves
	gzipWindow = 32 << 10 // of the block before, which a block may refer to
)

// gzipWriter writes one gzip member (RFC 1952) whose blocks are compressed side by side. Where blocks end depends on the content
// alone, so the bytes are the same however many processors there are.
type gzipWriter struct {
	w       io.Writer
	block   []byte
	window  []byte
	crc     uint32
	size    uint32
	started bool
	waiting []chan gzipped // blocks that are being compressed, the first first
	err     error
}

type gzipped struct {
	data []byte
	err  error
}

func newGzip(w io.Writer) *gzipWriter { return &gzipWriter{w: w, block: make([]byte, 0, gzipBlock)} }

func (g *gzipWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 && g.err == nil {
		n := min(len(p), gzipBlock-len(g.block))
		g.block = append(g.block, p[:n]...)
		p, written = p[n:], written+n
		if len(g.block) == gzipBlock {
			g.compress(false)
		}
	}
	return written, g.err
}

// compress hands the block to a goroutine of its own, and writes the oldest results while there are enough.
func (g *gzipWriter) compress(last bool) {
	g.crc = crc32.Update(g.crc, crc32.IEEETable, g.block)
	g.size += uint32(len(g.block))
	block, window, done := g.block, g.window, make(chan gzipped, 1)
	go func() { done <- deflate(block, window, last) }()
	g.window = block[max(0, len(block)-gzipWindow):]
	g.block = make([]byte, 0, gzipBlock)
	g.waiting = append(g.waiting, done)
	for len(g.waiting) > runtime.GOMAXPROCS(0) || last && len(g.waiting) > 0 {
		g.next()
	}
}

// next writes the oldest block.
func (g *gzipWriter) next() {
	result := <-g.waiting[0]
	g.waiting = g.waiting[1:]
	if g.err == nil {
		g.err = result.err
	}
	if g.err == nil && !g.started {
		g.started = true // no name, no time, unknown system (RFC 1952 section 2.3)
		_, g.err = g.w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff})
	}
	if g.err == nil {
		_, g.err = g.w.Write(result.data)
	}
}

// deflate compresses a block that follows window. All but the last end at a byte's border, by an empty block (RFC 1951 section
// 3.2.4).
func deflate(block, window []byte, last bool) gzipped {
	var b bytes.Buffer
	z, err := flate.NewWriterDict(&b, gzipLevel, window)
	if err == nil {
		_, err = z.Write(block)
	}
	if err == nil && last {
		err = z.Close()
	} else if err == nil {
		err = z.Flush()
	}
	return gzipped{b.Bytes(), err}
}

func (g *gzipWriter) Close() error {
	if g.err == nil {
		g.compress(true)
	}
	g.abort()
	if g.err != nil {
		return g.err
	}
	var tail []byte
	tail = binary.LittleEndian.AppendUint32(tail, g.crc)
	tail = binary.LittleEndian.AppendUint32(tail, g.size)
	_, err := g.w.Write(tail)
	g.err = errors.New("gzip stream is closed")
	return err
}

// abort waits for the goroutines.
func (g *gzipWriter) abort() {
	for _, done := range g.waiting {
		<-done
	}
	g.waiting = nil
}
