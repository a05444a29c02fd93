package gunzip

import "encoding/binary"

// codes decodes code words until the block ends, the input runs low or the output is full. This is where the time goes: the state
// is in local variables, up to three literals are decoded from one word of input, and matches are copied by words.
func (d *inflater) codes() error {
	in, pos, bb, bc := d.in, d.pos, d.bits, d.nbits
	out, o := d.out, d.o
	lit, dist := &d.lit, &d.dist
	inEnd, outEnd, low := len(in)-padding, len(out)-slack, d.low
	if d.padded { // one step at a time, for decode to see where the input ended
		outEnd = min(outEnd, o)
	}
	var err error
	for pos <= inEnd && o <= outEnd {
		bb |= binary.LittleEndian.Uint64(in[pos:]) << (bc & 63)
		pos += int((63 - bc) >> 3)
		bc |= 56
		e := lit[bb&(1<<litBits-1)]
		if e >= isLiteral {
			bb, bc = bb>>(e&63), bc-uint(e&0xff)
			out[o] = byte(e >> 16)
			o++
			e = lit[bb&(1<<litBits-1)]
			if e >= isLiteral {
				bb, bc = bb>>(e&63), bc-uint(e&0xff)
				out[o] = byte(e >> 16)
				o++
				e = lit[bb&(1<<litBits-1)]
				if e >= isLiteral {
					bb, bc = bb>>(e&63), bc-uint(e&0xff)
					out[o] = byte(e >> 16)
					o++
					continue
				}
			}
		}
		if e&isLink != 0 {
			bb >>= litBits
			bc -= litBits
			e = lit[(uint64(e>>16)+bb&(1<<(e>>8&0x1f)-1))%litEntries]
			if e >= isLiteral {
				bb, bc = bb>>(e&63), bc-uint(e&0xff)
				out[o] = byte(e >> 16)
				o++
				continue
			}
		}
		length := int(e>>16) + int(bb&(1<<(e&63)-1)>>(e>>8&0x1f))
		bb, bc = bb>>(e&63), bc-uint(e&0xff)
		if e&isSpecial != 0 {
			if e&isEnd == 0 {
				err = errCorrupt
			} else {
				d.endBlock()
			}
			break
		}
		bb |= binary.LittleEndian.Uint64(in[pos:]) << (bc & 63)
		pos += int((63 - bc) >> 3)
		bc |= 56
		e = dist[bb&(1<<distBits-1)]
		if e&isLink != 0 {
			bb >>= distBits
			bc -= distBits
			e = dist[(uint64(e>>16)+bb&(1<<(e>>8&0x1f)-1))%distEntries]
		}
		back := int(e>>16) + int(bb&(1<<(e&63)-1)>>(e>>8&0x1f))
		bb, bc = bb>>(e&63), bc-uint(e&0xff)
		if e&isSpecial != 0 || back > o-low {
			err = errCorrupt
			break
		}
		if back >= 8 && length <= 16 { // most are
			to, from := (*[16]byte)(out[o:]), (*[16]byte)(out[o-back:])
			binary.LittleEndian.PutUint64(to[:8], binary.LittleEndian.Uint64(from[:8]))
			binary.LittleEndian.PutUint64(to[8:], binary.LittleEndian.Uint64(from[8:]))
		} else {
			match(out, o, back, length)
		}
		o += length
	}
	d.pos, d.bits, d.nbits, d.o = pos, bb, bc, o
	return err
}

// match copies length bytes from back bytes before o; up to 7 bytes behind them are overwritten (and up to 13 by codes itself).
func match(out []byte, o, back, length int) {
	from, to := out[o-back:], out[o:]
	switch {
	case back >= 8:
		for i := 0; i < length; i += 8 {
			binary.LittleEndian.PutUint64(to[i:], binary.LittleEndian.Uint64(from[i:]))
		}
	case back == 1:
		word := uint64(from[0]) * 0x0101010101010101
		for i := 0; i < length; i += 8 {
			binary.LittleEndian.PutUint64(to[i:], word)
		}
	default:
		for i := range length {
			to[i] = from[i]
		}
	}
}
