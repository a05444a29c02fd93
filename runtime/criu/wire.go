package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Wire types of the protocol buffers encoding. The other two, of groups, are not used by anybody any more.
const (
	wireVarint = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

// message is an encoded protocol buffers message under construction.
type message []byte

// number appends a field of type int32, uint32, uint64, bool or enum. Negative numbers take ten bytes, as the encoding wants it.
func (m message) number(field int, v int64) message {
	m = binary.AppendUvarint(m, uint64(field)<<3|wireVarint)
	return binary.AppendUvarint(m, uint64(v))
}

// flag appends a bool that is true and leaves out one that is false: all defaults of criu are false.
func (m message) flag(field int, v bool) message {
	if !v {
		return m
	}
	return m.number(field, 1)
}

// text appends a string, unless it is empty.
func (m message) text(field int, s string) message {
	if s == "" {
		return m
	}
	m = binary.AppendUvarint(m, uint64(field)<<3|wireBytes)
	m = binary.AppendUvarint(m, uint64(len(s)))
	return append(m, s...)
}

// nested appends a message within the message.
func (m message) nested(field int, inner message) message {
	m = binary.AppendUvarint(m, uint64(field)<<3|wireBytes)
	m = binary.AppendUvarint(m, uint64(len(inner)))
	return append(m, inner...)
}

// errTruncated is what a message that ends within a field gives.
var errTruncated = errors.New("message ends within a field")

// field is one decoded field: a number, or bytes that are a string, bytes, a message or packed numbers.
type field struct {
	id    int
	value uint64
	bytes []byte // aliases the message; nil for numbers
}

// decode calls use for each field of data in order and stops at its first error.
func decode(data []byte, use func(f field) error) error {
	for len(data) > 0 {
		f, n, err := next(data)
		if err != nil {
			return err
		}
		if err := use(f); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// next decodes the field at the start of data and returns its length with its key.
func next(data []byte) (f field, size int, err error) {
	key, n := binary.Uvarint(data)
	if n <= 0 {
		return f, 0, errTruncated
	}
	if key>>3 == 0 || key>>3 > 1<<29 {
		return f, 0, fmt.Errorf("invalid field number %d", key>>3)
	}
	f.id = int(key >> 3)
	rest := data[n:]
	switch key & 7 {
	case wireVarint:
		v, m := binary.Uvarint(rest)
		if m <= 0 {
			return f, 0, errTruncated
		}
		f.value = v
		return f, n + m, nil
	case wire64:
		if len(rest) < 8 {
			return f, 0, errTruncated
		}
		f.value = binary.LittleEndian.Uint64(rest)
		return f, n + 8, nil
	case wire32:
		if len(rest) < 4 {
			return f, 0, errTruncated
		}
		f.value = uint64(binary.LittleEndian.Uint32(rest))
		return f, n + 4, nil
	case wireBytes:
		v, m := binary.Uvarint(rest)
		if m <= 0 || v > uint64(len(rest)-m) {
			return f, 0, errTruncated
		}
		f.bytes = rest[m : m+int(v) : m+int(v)]
		return f, n + m + int(v), nil
	}
	return f, 0, fmt.Errorf("field %d has unknown wire type %d", f.id, key&7)
}
