package layer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"hash/maphash"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The container of xz streams is read here and not by the library, which allocates whatever dictionary a block's header asks for
// (up to 4 GiB), for each block anew, and keeps a record of every block. https://tukaani.org/xz/xz-file-format-1.0.4.txt

// maxXzDict bounds the decoder's memory, in bytes: xz -9 makes 64 MiB.
const maxXzDict = 64 << 20

// Blocks that are small for their dictionaries are slow to decode, because each gets a new one: xz makes blocks of three
// times the dictionary's size. In sum dictionaries may have freeXzDict bytes and xzDictRatio times the bytes that came of them.
const (
	freeXzDict  = 1 << 30
	xzDictRatio = 64
)

var (
	xzMagic       = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	xzFooterMagic = []byte{'Y', 'Z'}
	errXz         = errors.New("stream is corrupt")
	crc64Table    = crc64.MakeTable(crc64.ECMA)
)

// xzReader decodes streams with any number of blocks, one after the other, with padding between them.
type xzReader struct {
	in          *counter
	flags       [2]byte
	newCheck    func() hash.Hash
	check       hash.Hash
	block       io.Reader // nil between blocks
	start       int64     // of the block's header in in
	size        int64     // of the block, uncompressed so far
	wantPacked  int64     // as the block's header says; -1: it does not
	wantSize    int64
	data        int64 // where the block's data begins in in
	blocks      uint64
	records     maphash.Hash // of the blocks' sizes, to be compared with the index
	dicts, made int64        // bytes of all dictionaries, and of what came of them
	err         error
}

// counter counts the bytes that are read, one by one too.
type counter struct {
	b *bufio.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.b.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.b.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

func newXz(b *bufio.Reader) (*xzReader, error) {
	x := &xzReader{in: &counter{b: b}}
	return x, x.header()
}

func (x *xzReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for x.err == nil {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.Read(p)
		x.size += int64(n)
		x.made += int64(n)
		x.check.Write(p[:n])
		if errors.Is(err, io.EOF) {
			err = x.endBlock()
		} else if err == nil && n == 0 {
			err = io.ErrNoProgress
		}
		if err != nil {
			x.err = unexpected(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, x.err
}

func (x *xzReader) Close() error {
	x.err = io.ErrClosedPipe
	return nil
}

func (x *xzReader) full(n int) ([]byte, error) {
	p := make([]byte, n)
	_, err := io.ReadFull(x.in, p)
	return p, unexpected(err)
}

// header reads a stream's header.
func (x *xzReader) header() error {
	h, err := x.full(12)
	if err != nil {
		return err
	}
	if !bytes.Equal(h[:6], xzMagic) || crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]) || h[6] != 0 {
		return errXz
	}
	switch h[7] {
	case 0:
		x.newCheck = func() hash.Hash { return nullHash{} }
	case 1:
		x.newCheck = func() hash.Hash { return crc32.NewIEEE() }
	case 4:
		x.newCheck = func() hash.Hash { return crc64.New(crc64Table) }
	case 10:
		x.newCheck = sha256.New
	default:
		return fmt.Errorf("check method %d is not supported", h[7])
	}
	x.flags, x.blocks = [2]byte(h[6:8]), 0
	x.records.Reset()
	return nil
}

// next begins the next block, or ends the stream and begins the next; io.EOF if there is none.
func (x *xzReader) next() error {
	x.start = x.in.n
	size, err := x.in.ReadByte()
	if err != nil {
		return unexpected(err)
	}
	if size != 0 {
		return x.beginBlock(int(size) * 4)
	}
	if err := x.index(); err != nil {
		return unexpected(err)
	}
	for { // padding is a multiple of four zero bytes
		p, err := x.in.b.Peek(4)
		if len(p) == 0 && errors.Is(err, io.EOF) {
			return io.EOF
		}
		if err != nil {
			return unexpected(err)
		}
		if !bytes.Equal(p, make([]byte, 4)) {
			return x.header()
		}
		if _, err := x.in.b.Discard(4); err != nil {
			return err
		}
	}
}

// beginBlock reads the rest of a block's header, n bytes and a checksum.
func (x *xzReader) beginBlock(n int) error {
	h, err := x.full(n - 1 + 4)
	if err != nil {
		return err
	}
	fields, sum := h[:n-1], binary.LittleEndian.Uint32(h[n-1:])
	if crc32.Update(crc32.ChecksumIEEE([]byte{byte(n / 4)}), crc32.IEEETable, fields) != sum {
		return errXz
	}
	flags := fields[0]
	if flags&0x3f != 0 {
		return errors.New("filters other than LZMA2 are not supported: store the layer with gzip or zstd")
	}
	r := bytes.NewReader(fields[1:])
	x.wantPacked, x.wantSize = -1, -1
	if flags&0x40 != 0 {
		if x.wantPacked, err = xzNumber(r); err != nil {
			return err
		}
	}
	if flags&0x80 != 0 {
		if x.wantSize, err = xzNumber(r); err != nil {
			return err
		}
	}
	dict, err := xzDict(r)
	if err != nil {
		return err
	}
	if x.dicts += dict; x.dicts > freeXzDict+xzDictRatio*x.made {
		return errors.New("blocks are too small for their dictionaries")
	}
	x.data, x.size, x.check = x.in.n, 0, x.newCheck()
	x.block, err = lzma.Reader2Config{DictCap: int(dict)}.NewReader2(x.in)
	return err
}

// xzDict reads a description of the filter LZMA2 and returns the size of its dictionary, which must be the last in r.
func xzDict(r *bytes.Reader) (int64, error) {
	id, err := xzNumber(r)
	if err != nil {
		return 0, err
	}
	if id != 0x21 {
		return 0, fmt.Errorf("filter %#x is not supported: store the layer with gzip or zstd", id)
	}
	size, _ := r.ReadByte()
	bits, err := r.ReadByte()
	if err != nil || size != 1 || bits > 40 {
		return 0, errXz
	}
	for r.Len() > 0 {
		if b, _ := r.ReadByte(); b != 0 {
			return 0, errXz
		}
	}
	dict := int64(2|bits&1) << (bits/2 + 11)
	if dict > maxXzDict {
		return 0, fmt.Errorf("dictionary of %d bytes is larger than %d bytes", dict, maxXzDict)
	}
	return max(dict, lzma.MinDictCap), nil
}

// endBlock reads and checks what follows a block's data.
func (x *xzReader) endBlock() error {
	x.block = nil
	packed := x.in.n - x.data
	if x.wantPacked >= 0 && x.wantPacked != packed || x.wantSize >= 0 && x.wantSize != x.size {
		return errXz
	}
	padding, err := x.full(int(-packed & 3))
	if err != nil {
		return err
	}
	sum, err := x.full(x.check.Size())
	if err != nil {
		return err
	}
	got := x.check.Sum(nil)
	if x.flags[1] != 10 { // the cyclic checks are stored the other way round
		for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
			got[i], got[j] = got[j], got[i]
		}
	}
	if !bytes.Equal(padding, make([]byte, len(padding))) || !bytes.Equal(got, sum) {
		return errXz
	}
	x.blocks++
	record(&x.records, x.in.n-x.start-int64(len(padding)), x.size)
	return nil
}

func record(h *maphash.Hash, unpadded, size int64) {
	var p [16]byte
	binary.LittleEndian.PutUint64(p[:8], uint64(unpadded))
	binary.LittleEndian.PutUint64(p[8:], uint64(size))
	h.Write(p[:])
}

// index reads the index and the footer of a stream and compares them with the blocks that were read.
func (x *xzReader) index() error {
	sum := crc32.NewIEEE()
	sum.Write([]byte{0})
	in := &summed{x.in, sum}
	n, err := xzNumber(in)
	if err != nil {
		return err
	}
	if uint64(n) != x.blocks {
		return errXz
	}
	var records maphash.Hash
	records.SetSeed(x.records.Seed())
	for range n {
		unpadded, err := xzNumber(in)
		if err != nil {
			return err
		}
		size, err := xzNumber(in)
		if err != nil {
			return err
		}
		record(&records, unpadded, size)
	}
	for (x.in.n-x.start)&3 != 0 {
		if b, err := in.ReadByte(); err != nil {
			return err
		} else if b != 0 {
			return errXz
		}
	}
	size := x.in.n - x.start + 4
	tail, err := x.full(4 + 12)
	if err != nil {
		return err
	}
	footer := tail[4:]
	if binary.LittleEndian.Uint32(tail) != sum.Sum32() || records.Sum64() != x.records.Sum64() ||
		binary.LittleEndian.Uint32(footer) != crc32.ChecksumIEEE(footer[4:10]) ||
		(int64(binary.LittleEndian.Uint32(footer[4:]))+1)*4 != size ||
		!bytes.Equal(footer[8:10], x.flags[:]) || !bytes.Equal(footer[10:], xzFooterMagic) {
		return errXz
	}
	return nil
}

// summed is a byte reader that hashes what it reads.
type summed struct {
	r io.ByteReader
	h hash.Hash32
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.h.Write([]byte{b})
	}
	return b, err
}

// xzNumber reads a number of up to 63 bits, 7 in a byte, the lowest first.
func xzNumber(r io.ByteReader) (int64, error) {
	n := int64(0)
	for i := range 9 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		n |= int64(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			if b == 0 && i > 0 {
				return 0, errXz
			}
			return n, nil
		}
	}
	return 0, errXz
}

// nullHash is the check of a stream that has none.
type nullHash struct{}

func (nullHash) Write(p []byte) (int, error) { return len(p), nil }
func (nullHash) Sum(p []byte) []byte         { return p }
func (nullHash) Reset()                      {}
func (nullHash) Size() int                   { return 0 }
func (nullHash) BlockSize() int              { return 1 }
