// Package jsonw appends JSON to a byte slice, for what is written at every start of a program: encoding/json first builds an
// encoder for each type, which takes longer than the writing.
package jsonw

import (
	"strconv"
	"unicode/utf8"
)

// String appends s as a JSON string. Bytes that are no UTF-8 become U+FFFD, as encoding/json writes them.
func String(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += size
			continue
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
		i++
	}
	return append(b, '"')
}

// Strings appends a list of strings, null for nil.
func Strings(b []byte, list []string) []byte {
	if list == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = String(b, s)
	}
	return append(b, ']')
}

// Key appends a member's name and colon, with a comma before unless it is the first of its object.
func Key(b []byte, name string) []byte {
	if len(b) > 0 && b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(String(b, name), ':')
}

// Bool appends a member with a truth value.
func Bool(b []byte, name string, v bool) []byte { return strconv.AppendBool(Key(b, name), v) }

// Text appends a member with a string.
func Text(b []byte, name, v string) []byte { return String(Key(b, name), v) }

// Uint appends a member with a number.
func Uint(b []byte, name string, v uint64) []byte { return strconv.AppendUint(Key(b, name), v, 10) }
