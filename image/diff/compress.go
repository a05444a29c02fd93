package diff

import (
	_ "crypto/sha256" // of digests
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/layer"
)

// CompressOptions of a Compressor. The zero value compresses nothing, and gives OCI's media types.
type CompressOptions struct {
	Compression layer.Compression // layer.Plain, which empty means, layer.Gzip or layer.Zstd
	// Docker gives Docker's media type, for a manifest of Docker's: a manifest should not mix them. Docker has none for zstd.
	Docker bool
}

// mediaType returns the media type of a layer.
func (o CompressOptions) mediaType() (string, error) {
	types := map[layer.Compression]string{"": v1.MediaTypeImageLayer, layer.Plain: v1.MediaTypeImageLayer,
		layer.Gzip: v1.MediaTypeImageLayerGzip, layer.Zstd: v1.MediaTypeImageLayerZstd}
	if o.Docker {
		const docker = "application/vnd.docker.image.rootfs.diff.tar"
		types = map[layer.Compression]string{"": docker, layer.Plain: docker, layer.Gzip: docker + ".gzip"}
	}
	t, ok := types[o.Compression]
	if !ok && o.Docker && o.Compression == layer.Zstd {
		return "", errors.New("Docker's manifests have no media type for zstd: convert the image to OCI's")
	}
	if !ok {
		return "", fmt.Errorf("cannot compress with %q: want %s, %s or %s", o.Compression, layer.Plain, layer.Gzip, layer.Zstd)
	}
	return t, nil
}

// Compressor compresses what is written to it, always to the same bytes, and tells the digests of both sides. It is for one
// goroutine.
type Compressor struct {
	mediaType string
	in        hash.Hash
	inSize    int64
	out       countWriter
	codec     io.WriteCloser
	abort     func()
	closed    bool
}

// NewCompressor returns a Compressor that writes to w. The caller calls Close at the end, or Abort.
func NewCompressor(w io.Writer, o CompressOptions) (*Compressor, error) {
	mediaType, err := o.mediaType()
	if err != nil {
		return nil, err
	}
	c := &Compressor{mediaType: mediaType, in: digest.SHA256.Hash(), out: countWriter{w: w, hash: digest.SHA256.Hash()}, abort: func() {}}
	switch o.Compression {
	case layer.Gzip:
		z := newGzip(&c.out)
		c.codec, c.abort = z, z.abort
	case layer.Zstd:
		// One goroutine, and a window that every reader takes: RFC 8878 recommends 8 MiB to be supported.
		z, err := zstd.NewWriter(&c.out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(8<<20))
		if err != nil {
			return nil, err
		}
		c.codec = z
	default:
		c.codec = nopCloser{&c.out}
	}
	return c, nil
}

// Write takes bytes of the uncompressed layer.
func (c *Compressor) Write(p []byte) (int, error) {
	n, err := c.codec.Write(p)
	c.in.Write(p[:n])
	c.inSize += int64(n)
	return n, err
}

// Close writes what is left; it does not close the writer below.
func (c *Compressor) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	return c.codec.Close()
}

// Abort frees what the Compressor holds, without completing. After Close it does nothing.
func (c *Compressor) Abort() {
	if !c.closed {
		c.closed = true
		c.abort()
	}
}

// Descriptor returns the descriptor of what was written to the writer below. It is known after Close.
func (c *Compressor) Descriptor() v1.Descriptor {
	return v1.Descriptor{MediaType: c.mediaType, Digest: digest.NewDigest(digest.SHA256, c.out.hash), Size: c.out.n}
}

// DiffID returns the digest of what was written to c.
func (c *Compressor) DiffID() digest.Digest { return digest.NewDigest(digest.SHA256, c.in) }

// Size returns the number of bytes that were written to c.
func (c *Compressor) Size() int64 { return c.inSize }

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// countWriter hashes and counts what it passes on.
type countWriter struct {
	w    io.Writer
	hash hash.Hash
	n    int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.hash.Write(p[:n])
	c.n += int64(n)
	return n, err
}
