package gunzip

import (
	"encoding/binary"
	"io"
)

const (
	window   = 32 << 10  // bytes that a match may reach back
	chunk    = 256 << 10 // bytes that are decoded at a time
	maxMatch = 258
	slack    = maxMatch + 16 // bytes at the end of the window's buffer: for a match and a word that overshoots it
	inSize   = 128 << 10
	padding  = 16 // zero bytes after the input's end, so that whole words can be read
)

// inflater decodes a deflate stream, RFC 1951, into buf.
type inflater struct {
	src    io.Reader
	in     []byte // input that was read, and padding after its end
	inBuf  []byte
	pos    int // in in; bytes before it are in bits already, or used
	real   int // length of in without the padding
	padded bool
	srcErr error
	bits   uint64 // of which nbits are valid; those above are what the next refill gives
	nbits  uint

	out   []byte
	o     int // where the next byte goes
	low   int // the first byte that a match may refer to
	state int
	last  bool // block
	std   bool // lit and dist are those of fixed
	left  int  // bytes of a stored block

	lit  [litEntries]uint32
	dist [distEntries]uint32
	lens [288 + 32 + 138]uint8
}

// States of the inflater.
const (
	atHeader = iota
	inStored
	inCodes
	atEnd
)

// fill makes sure that there are some bytes of input at pos, or zeros after its end. It fails if more has been used than there is.
func (d *inflater) fill() error {
	if d.padded {
		return io.ErrUnexpectedEOF
	}
	if len(d.inBuf) == 0 {
		d.inBuf = make([]byte, inSize+padding)
	}
	d.unread()
	n := copy(d.inBuf, d.in[d.pos:])
	d.pos = 0
	for n < 2*padding && d.srcErr == nil {
		var m int
		m, d.srcErr = d.src.Read(d.inBuf[n:inSize])
		n += m
	}
	d.real = n
	if n < 2*padding {
		if d.srcErr != io.EOF {
			return d.srcErr
		}
		clear(d.inBuf[n : n+padding])
		d.padded = true
		n += padding
	}
	d.in = d.inBuf[:n]
	return nil
}

// unread gives whole bytes back from the bits.
func (d *inflater) unread() {
	d.pos -= int(d.nbits >> 3)
	d.nbits &= 7
	d.bits &= 1<<d.nbits - 1
}

// need makes sure that n bits are in d.bits, n ≤ 48.
func (d *inflater) need(n uint) error {
	if d.nbits >= n {
		return nil
	}
	for d.pos+8 > len(d.in) {
		if err := d.fill(); err != nil {
			return err
		}
	}
	d.bits |= binary.LittleEndian.Uint64(d.in[d.pos:]) << d.nbits
	d.pos += int((63 - d.nbits) >> 3)
	d.nbits |= 56
	return nil
}

// take takes n bits, n ≤ 48.
func (d *inflater) take(n uint) (uint, error) {
	if err := d.need(n); err != nil {
		return 0, err
	}
	v := uint(d.bits & (1<<n - 1))
	d.bits >>= n
	d.nbits -= n
	return v, nil
}

// align goes on at the next whole byte. It fails if more was used than there is.
func (d *inflater) align() error {
	d.unread()
	d.bits, d.nbits = 0, 0
	if d.padded && d.pos > d.real {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// decode decodes until out is full or the stream ends.
func (d *inflater) decode() error {
	for d.state != atEnd && d.o <= len(d.out)-slack {
		before, err := d.o, error(nil)
		switch d.state {
		case atHeader:
			err = d.header()
		case inStored:
			err = d.stored()
		case inCodes:
			if d.pos > len(d.in)-padding {
				if err = d.fill(); err == io.ErrUnexpectedEOF {
					err = d.tail()
				}
			}
			if err == nil {
				err = d.codes()
			}
		}
		if d.padded && d.pos-int(d.nbits>>3) > d.real {
			d.o = before // what is decoded of the padding means nothing
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tail decodes on in the padding for as long as there may be codes in the bits before it: what is left is less than a few words.
func (d *inflater) tail() error {
	d.unread()
	if d.pos > d.real {
		return io.ErrUnexpectedEOF
	}
	rest := d.in[d.pos:]
	more := make([]byte, len(rest)+2*padding)
	copy(more, rest)
	d.real -= d.pos
	d.in, d.pos = more, 0
	return nil
}

func (d *inflater) header() error {
	h, err := d.take(3)
	if err != nil {
		return err
	}
	d.last = h&1 != 0
	switch h >> 1 {
	case 0:
		if err := d.align(); err != nil {
			return err
		}
		n, err := d.take(32)
		if err != nil {
			return err
		}
		if n&0xffff != ^n>>16&0xffff {
			return errCorrupt
		}
		d.state, d.left = inStored, int(n&0xffff)
		return d.align()
	case 1:
		d.fixed()
	case 2:
		return d.dynamic()
	default:
		return errCorrupt
	}
	return nil
}

// endBlock goes on after a block.
func (d *inflater) endBlock() {
	d.state = atHeader
	if d.last {
		d.state = atEnd
	}
}

func (d *inflater) stored() error {
	for d.left > 0 && d.o <= len(d.out)-slack {
		if d.pos >= d.real {
			if err := d.fill(); err != nil {
				return err
			}
			if d.real == 0 {
				return io.ErrUnexpectedEOF
			}
		}
		n := copy(d.out[d.o:len(d.out)-slack+1], d.in[d.pos:d.pos+min(d.left, d.real-d.pos)])
		d.o, d.pos, d.left = d.o+n, d.pos+n, d.left-n
	}
	if d.left == 0 {
		d.endBlock()
	}
	return nil
}

// fixed sets up the code of RFC 1951 section 3.2.6.
func (d *inflater) fixed() {
	d.state = inCodes
	if d.std {
		return
	}
	lens := d.lens[:288+32]
	for i := range lens {
		switch {
		case i < 144 || i >= 280 && i < 288:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		default:
			lens[i] = 5
		}
	}
	build(d.lit[:], litBits, lens[:288], litSymbols[:])
	build(d.dist[:], distBits, lens[288:], distSymbols[:])
	d.std = true
}

var preOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads the codes of a block, section 3.2.7.
func (d *inflater) dynamic() error {
	h, err := d.take(14)
	if err != nil {
		return err
	}
	nlit, ndist, npre := int(h&31)+257, int(h>>5&31)+1, int(h>>10)+4
	if nlit > 286 || ndist > 30 {
		return errCorrupt
	}
	var pre [19]uint8
	for _, i := range preOrder[:npre] {
		n, err := d.take(3)
		if err != nil {
			return err
		}
		pre[i] = uint8(n)
	}
	var table [preEntries]uint32
	if !build(table[:], preBits, pre[:], preSymbols[:]) {
		return errCorrupt
	}
	if err := d.lengths(table[:], nlit+ndist); err != nil {
		return err
	}
	d.std = false
	if d.lens[256] == 0 || !build(d.lit[:], litBits, d.lens[:nlit], litSymbols[:]) ||
		!build(d.dist[:], distBits, d.lens[nlit:nlit+ndist], distSymbols[:]) {
		return errCorrupt
	}
	d.state = inCodes
	return nil
}

// lengths reads the n lengths of code words.
func (d *inflater) lengths(table []uint32, n int) error {
	for i := 0; i < n; {
		if err := d.need(preBits + 7); err != nil {
			return err
		}
		e := table[d.bits&(1<<preBits-1)]
		if e&isSpecial != 0 {
			return errCorrupt
		}
		d.bits >>= e & 63
		d.nbits -= uint(e & 63)
		sym, repeat, value := e>>16, 1, uint8(0)
		switch {
		case sym < 16:
			value = uint8(sym)
		case sym == 16 && i == 0:
			return errCorrupt
		default:
			var extra, base uint
			switch sym {
			case 16:
				extra, base, value = 2, 3, d.lens[i-1]
			case 17:
				extra, base = 3, 3
			case 18:
				extra, base = 7, 11
			}
			more, err := d.take(extra)
			if err != nil {
				return err
			}
			repeat = int(base + more)
		}
		for range repeat {
			d.lens[i] = value
			i++
		}
		if i > n {
			return errCorrupt
		}
	}
	return nil
}
