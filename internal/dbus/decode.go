package dbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxMessage bounds a message in bytes. What systemd answers to the calls that are made here has a few hundred.
const maxMessage = 128 << 10

var errShort = errors.New("it ends early")

// decoder reads a part of a message that begins at a multiple of 8.
type decoder struct {
	b     []byte
	at    int
	order binary.ByteOrder
	err   error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// take returns the next n bytes after alignment, nil after an error.
func (d *decoder) take(n, align int) []byte {
	at := (d.at + align - 1) / align * align
	if d.err == nil && (n < 0 || at > len(d.b) || n > len(d.b)-at) {
		d.fail(errShort)
	}
	if d.err != nil {
		return nil
	}
	d.at = at + n
	return d.b[at:d.at]
}

func (d *decoder) uint32() uint32 {
	if b := d.take(4, 4); b != nil {
		return d.order.Uint32(b)
	}
	return 0
}

func (d *decoder) text(n int) string {
	b := d.take(n, 1)
	if z := d.take(1, 1); z != nil && z[0] != 0 || !utf8.Valid(b) {
		d.fail(errors.New("a string is not valid"))
	}
	return string(b)
}

func (d *decoder) signature() string {
	if b := d.take(1, 1); b != nil {
		return d.text(int(b[0]))
	}
	return ""
}

// value reads a value of one complete type.
func (d *decoder) value(sig string, depth int) Value {
	v := Value{Sig: sig}
	if depth > maxDepth {
		d.fail(errors.New("it is too deep"))
	}
	if d.err != nil {
		return v
	}
	switch sig[0] {
	case 'y':
		if b := d.take(1, 1); b != nil {
			v.Num = uint64(b[0])
		}
	case 'n':
		if b := d.take(2, 2); b != nil {
			v.Num = uint64(int16(d.order.Uint16(b)))
		}
	case 'q':
		if b := d.take(2, 2); b != nil {
			v.Num = uint64(d.order.Uint16(b))
		}
	case 'i':
		v.Num = uint64(int32(d.uint32()))
	case 'b', 'u':
		v.Num = uint64(d.uint32())
	case 'x', 't', 'd':
		if b := d.take(8, 8); b != nil {
			v.Num = d.order.Uint64(b)
		}
	case 's', 'o':
		v.Str = d.text(int(d.uint32()))
	case 'g':
		v.Str = d.signature()
	case 'v':
		inner, err := split(d.signature())
		if err == nil && len(inner) != 1 {
			err = errors.New("a variant is not one value")
		}
		if err != nil {
			d.fail(err)
			return v
		}
		v.Items = []Value{d.value(inner[0], depth+1)}
	case '(', '{':
		d.members(&v, depth)
	case 'a':
		d.array(&v, depth)
	}
	return v
}

func (d *decoder) members(v *Value, depth int) {
	types, err := members(v.Sig)
	if err != nil {
		d.fail(err)
	}
	d.take(0, 8)
	for _, t := range types {
		v.Items = append(v.Items, d.value(t, depth+1))
	}
}

func (d *decoder) array(v *Value, depth int) {
	n := int(d.uint32())
	d.take(0, alignment(v.Sig[1:]))
	end := d.at + n
	if d.err == nil && (n < 0 || n > len(d.b)-d.at) {
		d.fail(errShort)
	}
	for d.err == nil && d.at < end {
		v.Items = append(v.Items, d.value(v.Sig[1:], depth+1))
	}
	if d.err == nil && d.at != end {
		d.fail(errors.New("an array's length is wrong"))
	}
}

// read reads one message.
func read(r io.Reader) (*Message, error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[0] == 'B' {
		order = binary.BigEndian
	} else if head[0] != 'l' {
		return nil, fmt.Errorf("invalid message: byte order %q", head[0])
	}
	body, fields := order.Uint32(head[4:]), order.Uint32(head[12:])
	if head[3] != 1 || body > maxMessage || fields > maxMessage {
		return nil, fmt.Errorf("invalid message: version %d, %d bytes after a header of %d, the limit is %d", head[3], body, fields, maxMessage)
	}
	padded := (int(fields) + 7) &^ 7
	rest := make([]byte, 16+padded+int(body))
	copy(rest, head[:])
	if _, err := io.ReadFull(r, rest[16:]); err != nil {
		return nil, err
	}
	m := &Message{Type: head[1], Flags: head[2], Serial: order.Uint32(head[8:])}
	sig, err := m.fields(&decoder{b: rest[:16+padded], at: 12, order: order})
	if err != nil {
		return nil, fmt.Errorf("invalid message header: %w", err)
	}
	types, err := split(sig)
	if err != nil {
		return nil, fmt.Errorf("invalid message: %w", err)
	}
	d := &decoder{b: rest[16+padded:], order: order}
	for _, t := range types {
		m.Body = append(m.Body, d.value(t, 0))
	}
	if d.err != nil {
		return nil, fmt.Errorf("invalid message body of type %q: %w", sig, d.err)
	}
	return m, nil
}

// fields takes the header fields over and returns the body's signature.
func (m *Message) fields(d *decoder) (sig string, err error) {
	for _, f := range d.value("a(yv)", 0).Items {
		if d.err != nil || len(f.Items) != 2 || len(f.Items[1].Items) != 1 {
			break
		}
		v := f.Items[1].Items[0]
		switch f.Items[0].Num {
		case fieldPath:
			m.Path = v.Str
		case fieldInterface:
			m.Interface = v.Str
		case fieldMember:
			m.Member = v.Str
		case fieldErrorName:
			m.ErrorName = v.Str
		case fieldReplySerial:
			m.ReplySerial = uint32(v.Num)
		case fieldDestination:
			m.Destination = v.Str
		case fieldSender:
			m.Sender = v.Str
		case fieldSignature:
			sig = v.Str
		}
	}
	return sig, d.err
}
