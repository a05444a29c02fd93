package dbus

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"
)

// encoder builds a part of a message that begins at a multiple of 8.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) uint32(n uint32) {
	e.align(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, n)
}

func (e *encoder) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
}

// text writes a string, which has a length before and a zero byte after it.
func (e *encoder) text(s string) {
	if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		e.fail("string %.40q is not UTF-8 without zero bytes", s)
	}
	e.uint32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) signature(s string) {
	if len(s) > maxSignature {
		e.fail("signature of %d bytes", len(s))
		return
	}
	e.b = append(append(append(e.b, byte(len(s))), s...), 0)
}

func (e *encoder) value(v Value) {
	if v.Sig == "" {
		e.fail("a value without a type")
		return
	}
	switch v.Sig[0] {
	case 'y':
		e.b = append(e.b, byte(v.Num))
	case 'n', 'q':
		e.align(2)
		e.b = binary.LittleEndian.AppendUint16(e.b, uint16(v.Num))
	case 'b', 'i', 'u':
		e.uint32(uint32(v.Num))
	case 'x', 't', 'd':
		e.align(8)
		e.b = binary.LittleEndian.AppendUint64(e.b, v.Num)
	case 's', 'o':
		e.text(v.Str)
	case 'g':
		e.signature(v.Str)
	case 'v':
		if len(v.Items) != 1 {
			e.fail("a variant with %d values", len(v.Items))
			return
		}
		e.signature(v.Items[0].Sig)
		e.value(v.Items[0])
	case '(', '{':
		e.align(8)
		for _, m := range v.Items {
			e.value(m)
		}
	case 'a':
		e.array(v)
	default:
		e.fail("a value of type %q", v.Sig)
	}
}

// array writes the length in bytes, which does not count the padding before the first element.
func (e *encoder) array(v Value) {
	e.uint32(0)
	at := len(e.b)
	e.align(alignment(v.Sig[1:]))
	begin := len(e.b)
	for _, item := range v.Items {
		if item.Sig != v.Sig[1:] {
			e.fail("%q in an array of %q", item.Sig, v.Sig[1:])
		}
		e.value(item)
	}
	binary.LittleEndian.PutUint32(e.b[at-4:], uint32(len(e.b)-begin))
}

// Types of messages and header fields ("Message Format").
const (
	typeCall   = 1
	typeReply  = 2
	typeError  = 3
	typeSignal = 4

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSender      = 7
	fieldSignature   = 8

	flagNoReply = 1
)

// Message is one message of the bus.
type Message struct {
	Type, Flags             byte
	Serial, ReplySerial     uint32
	Path, Interface, Member string
	ErrorName               string
	Destination, Sender     string
	Body                    []Value
}

// encode returns the message's bytes, little-endian.
func (m *Message) encode() ([]byte, error) {
	var body encoder
	sig := ""
	for _, v := range m.Body {
		body.value(v)
		sig += v.Sig
	}
	var fields []Value
	add := func(code byte, typ, s string) {
		if s != "" {
			fields = append(fields, Struct(Value{Sig: "y", Num: uint64(code)}, Variant(Value{Sig: typ, Str: s})))
		}
	}
	add(fieldPath, "o", m.Path)
	add(fieldInterface, "s", m.Interface)
	add(fieldMember, "s", m.Member)
	add(fieldErrorName, "s", m.ErrorName)
	if m.ReplySerial != 0 {
		fields = append(fields, Struct(Value{Sig: "y", Num: fieldReplySerial}, Variant(Uint32(m.ReplySerial))))
	}
	add(fieldDestination, "s", m.Destination)
	add(fieldSender, "s", m.Sender)
	add(fieldSignature, "g", sig)
	head := encoder{b: []byte{'l', m.Type, m.Flags, 1}}
	head.uint32(uint32(len(body.b)))
	head.uint32(m.Serial)
	head.value(Array("(yv)", fields...))
	head.align(8)
	switch {
	case body.err != nil:
		return nil, body.err
	case head.err != nil:
		return nil, head.err
	case len(head.b)+len(body.b) > maxMessage:
		return nil, fmt.Errorf("a message of %d bytes, the limit is %d", len(head.b)+len(body.b), maxMessage)
	}
	return append(head.b, body.b...), nil
}
