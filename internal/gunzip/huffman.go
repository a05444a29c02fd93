package gunzip

import "math/bits"

// A table decodes the next bits of the stream: those of a code word, lowest first, are the index of an entry. Longer code
// words go through a second table, which an entry of the first leads to. An entry is
//
//	bits 0-7    how many bits it takes from the stream, extra bits included; of a link, those of the first table
//	bits 8-12   how many of them are the code word's; of a link, how many bits index the second table
//	bit 13      end of the block
//	bit 14      link to a second table, whose first entry is in bits 16-30
//	bit 15      none of literal, length and distance: a link, an end, or (with neither) an invalid code word
//	bits 16-30  the literal, or the base of the length or distance
//	bit 31      literal
const (
	litBits  = 11
	distBits = 8
	preBits  = 7
	maxBits  = 15

	// How many entries all tables may have; larger than what a complete code needs (zlib's "enough").
	litEntries  = 2400
	distEntries = 512
	preEntries  = 128

	isEnd     = 1 << 13
	isLink    = 1 << 14
	isSpecial = 1 << 15
	isLiteral = 1 << 31
)

// The meaning of symbols without the lengths of their code words; RFC 1951 section 3.2.5.
var litSymbols, distSymbols, preSymbols = func() (lit [288]uint32, dist [32]uint32, pre [19]uint32) {
	for i := range 256 {
		lit[i] = isLiteral | uint32(i)<<16
	}
	lit[256] = isSpecial | isEnd
	base := uint32(3)
	for i := range 28 {
		extra := uint32(max(0, i/4-1))
		lit[257+i] = base<<16 | extra
		base += 1 << extra
	}
	lit[285] = 258 << 16
	lit[286], lit[287] = isSpecial, isSpecial
	base = 1
	for i := range 30 {
		extra := uint32(max(0, i/2-1))
		dist[i] = base<<16 | extra
		base += 1 << extra
	}
	dist[30], dist[31] = isSpecial, isSpecial
	for i := range 19 {
		pre[i] = uint32(i) << 16
	}
	return lit, dist, pre
}()

// build makes the table of the code whose words have lens bits, symbol by symbol (0: the symbol does not occur). tableBits index
// its first part. It is false for a code that is no prefix code, or not complete, unless it has one word of one bit only.
func build(table []uint32, tableBits int, lens []uint8, symbols []uint32) bool {
	var count [maxBits + 1]int
	for _, n := range lens {
		count[n]++
	}
	count[0] = 0
	var next [maxBits + 2]uint32
	left := 1
	for n := 1; n <= maxBits; n++ {
		if left = left<<1 - count[n]; left < 0 {
			return false
		}
		next[n+1] = (next[n] + uint32(count[n])) << 1
	}
	for i := range table[:1<<tableBits] {
		table[i] = isSpecial
	}
	if left > 0 && (left != 1<<(maxBits-1) || count[1] != 1) && left != 1<<maxBits {
		return false
	}
	var deepest [1 << litBits]uint8 // the longest code word that begins with these bits
	words := next
	for _, n := range lens {
		if int(n) > tableBits {
			first := reverse(words[n], n) & (1<<tableBits - 1)
			deepest[first] = max(deepest[first], n)
		}
		words[n]++
	}
	end := 1 << tableBits
	for sym, n := range lens {
		if n == 0 {
			continue
		}
		word := reverse(next[n], n)
		next[n]++
		e := symbols[sym]
		if int(n) <= tableBits {
			e += uint32(n) | uint32(n)<<8
			for i := word; i < 1<<tableBits; i += 1 << n {
				table[i] = e
			}
			continue
		}
		first := word & (1<<tableBits - 1)
		if table[first]&isLink == 0 {
			more := int(deepest[first]) - tableBits
			if end+1<<more > len(table) {
				return false
			}
			table[first] = uint32(end)<<16 | isSpecial | isLink | uint32(more)<<8 | uint32(tableBits)
			end += 1 << more
		}
		link := table[first]
		rest := uint32(n) - uint32(tableBits)
		e += rest | rest<<8
		start := link >> 16
		for i := word >> tableBits; i < 1<<(link>>8&0x1f); i += 1 << rest {
			table[start+i] = e
		}
	}
	return true
}

// reverse gives the n bits of word in the order in which the stream has them.
func reverse(word uint32, n uint8) uint32 { return bits.Reverse32(word) >> (32 - n) }
