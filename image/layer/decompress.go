package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Compression of a stored layer.
type Compression string

// The compressions that Decompress reads.
const (
	Plain Compression = "none"
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Bzip2 Compression = "bzip2"
	Xz    Compression = "xz"
)

// maxWindow bounds the memory of the zstd decoder, in bytes. The format asks for 8 MiB; zstd --ultra -21 makes 64 MiB.
const maxWindow = 64 << 20

// Decompress returns the uncompressed content of r, told by its first bytes: gzip (with several members, and with zeros or
// garbage after the last, as gzip(1) reads it), zstd (with several frames and skippable ones), bzip2, xz (with several
// streams and blocks, LZMA2 only), or anything else unchanged. A stream that ends too early gives io.ErrUnexpectedEOF. Close
// frees the decoder and stops its goroutines, at once even if the stream is broken; it does not close r. Reading to the end
// reads r to its end.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	b := bufio.NewReaderSize(r, 128<<10)
	magic, err := b.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, "", fmt.Errorf("read layer: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, "", fmt.Errorf("read gzip header: %w", unexpected(err))
		}
		z.Multistream(false)
		return &gzipReader{z: z, b: b}, Gzip, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), isSkippable(magic):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, "", fmt.Errorf("read zstd: %w", err)
		}
		return zstdReader{z}, Zstd, nil
	case bytes.HasPrefix(magic, []byte("BZh")):
		return io.NopCloser(prefixErrors{bzip2.NewReader(b), "read bzip2"}), Bzip2, nil
	case bytes.Equal(magic, xzMagic):
		z, err := newXz(b)
		if err != nil {
			return nil, "", fmt.Errorf("read xz header: %w", err)
		}
		return struct {
			io.Reader
			io.Closer
		}{prefixErrors{z, "read xz"}, z}, Xz, nil
	}
	return io.NopCloser(b), Plain, nil
}

// isSkippable knows the 16 magic numbers of zstd's skippable frames, RFC 8878 section 3.1.2.
func isSkippable(m []byte) bool {
	return len(m) >= 4 && m[0]&0xf0 == 0x50 && m[1] == 0x2a && m[2] == 0x4d && m[3] == 0x18
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// prefixErrors says which codec an error comes from.
type prefixErrors struct {
	r    io.Reader
	verb string
}

func (p prefixErrors) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: %w", p.verb, err)
	}
	return n, err
}

// gzipReader reads members one by one, because a decoder that looks for the next member by itself takes trailing zeros for a
// broken header.
type gzipReader struct {
	z   *gzip.Reader
	b   *bufio.Reader
	err error
}

func (g *gzipReader) Read(p []byte) (int, error) {
	for g.err == nil {
		n, err := g.z.Read(p)
		if err == nil || n > 0 && errors.Is(err, io.EOF) {
			return n, nil // the end comes again with the next call
		}
		if !errors.Is(err, io.EOF) {
			g.err = fmt.Errorf("read gzip: %w", err)
			return n, g.err
		}
		g.err = g.next()
	}
	return 0, g.err
}

// next starts the next member; io.EOF if there is none.
func (g *gzipReader) next() error {
	magic, err := g.b.Peek(2)
	if len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		if err := g.z.Reset(g.b); err != nil {
			return fmt.Errorf("read gzip header: %w", unexpected(err))
		}
		g.z.Multistream(false)
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if _, err := io.Copy(io.Discard, g.b); err != nil {
		return err
	}
	return io.EOF
}

func (g *gzipReader) Close() error {
	g.err = io.ErrClosedPipe
	g.z.Close() // repeats the error of the last Read
	return nil
}

type zstdReader struct{ z *zstd.Decoder }

func (r zstdReader) Read(p []byte) (int, error) {
	n, err := r.z.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = fmt.Errorf("window larger than %d bytes: %w", maxWindow, err)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("read zstd: %w", err)
	}
	return n, err
}

func (r zstdReader) Close() error {
	r.z.Close()
	return nil
}
