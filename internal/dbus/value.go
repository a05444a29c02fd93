package dbus

import (
	"fmt"
	"math"
	"strings"
)

// Value is a value of D-Bus's type system: a tree of plain data with its signature ("Type System" of the D-Bus specification). The
// constructors make valid ones; the zero Value is none.
type Value struct {
	Sig   string  // one complete type
	Num   uint64  // integers, booleans (0 or 1), the bits of a double; negative numbers in two's complement
	Str   string  // strings, object paths, signatures
	Items []Value // elements of an array, members of a struct or dictionary entry, the one content of a variant
}

// Bool returns a boolean.
func Bool(v bool) Value {
	n := uint64(0)
	if v {
		n = 1
	}
	return Value{Sig: "b", Num: n}
}

// Uint32 returns an unsigned number of 32 bits.
func Uint32(v uint32) Value { return Value{Sig: "u", Num: uint64(v)} }

// Uint64 returns an unsigned number of 64 bits.
func Uint64(v uint64) Value { return Value{Sig: "t", Num: v} }

// String returns a string; one with a zero byte, or that is not UTF-8, makes Call fail.
func String(s string) Value { return Value{Sig: "s", Str: s} }

// Variant returns a value that carries its own signature.
func Variant(v Value) Value { return Value{Sig: "v", Items: []Value{v}} }

// Struct returns a struct.
func Struct(members ...Value) Value {
	sig := "("
	for _, m := range members {
		sig += m.Sig
	}
	return Value{Sig: sig + ")", Items: members}
}

// Array returns an array of elements that all have the signature elem.
func Array(elem string, items ...Value) Value { return Value{Sig: "a" + elem, Items: items} }

// Strings returns an array of strings.
func Strings(list ...string) Value {
	a := Array("s")
	for _, s := range list {
		a.Items = append(a.Items, String(s))
	}
	return a
}

// Bytes returns an array of bytes.
func Bytes(list []byte) Value {
	a := Array("y")
	for _, b := range list {
		a.Items = append(a.Items, Value{Sig: "y", Num: uint64(b)})
	}
	return a
}

// Uint32s returns an array of unsigned numbers of 32 bits.
func Uint32s(list ...uint32) Value {
	a := Array("u")
	for _, n := range list {
		a.Items = append(a.Items, Uint32(n))
	}
	return a
}

// limits of a signature and of a value's depth, as the specification has them.
const (
	maxSignature = 255
	maxDepth     = 32
)

// cut splits the first complete type off a signature.
func cut(sig string, depth int) (first, rest string, err error) {
	if sig == "" || depth > maxDepth {
		return "", "", fmt.Errorf("signature ends early or is too deep")
	}
	switch c := sig[0]; {
	case strings.IndexByte("ybnqiuxtdsogv", c) >= 0:
		return sig[:1], sig[1:], nil
	case c == 'a' && len(sig) > 1 && sig[1] == '{':
		inner := sig[2:]
		for range 2 {
			if _, inner, err = cut(inner, depth+1); err != nil {
				return "", "", err
			}
		}
		if inner == "" || inner[0] != '}' {
			return "", "", fmt.Errorf("signature %q: a dictionary entry has a key and a value", sig)
		}
		n := len(sig) - len(inner) + 1
		return sig[:n], sig[n:], nil
	case c == 'a':
		elem, rest, err := cut(sig[1:], depth+1)
		return sig[:1+len(elem)], rest, err
	case c == '(' && len(sig) > 1 && sig[1] != ')':
		inner := sig[1:]
		for inner != "" && inner[0] != ')' {
			if _, inner, err = cut(inner, depth+1); err != nil {
				return "", "", err
			}
		}
		if inner == "" {
			return "", "", fmt.Errorf("signature %q: the struct does not end", sig)
		}
		n := len(sig) - len(inner) + 1
		return sig[:n], sig[n:], nil
	}
	return "", "", fmt.Errorf("signature %q: unknown type", sig)
}

// split splits a signature into its complete types.
func split(sig string) (types []string, err error) {
	if len(sig) > maxSignature {
		return nil, fmt.Errorf("signature of %d bytes", len(sig))
	}
	for sig != "" {
		var first string
		if first, sig, err = cut(sig, 0); err != nil {
			return nil, err
		}
		types = append(types, first)
	}
	return types, nil
}

// members are the types within a struct, or of a dictionary entry.
func members(sig string) ([]string, error) { return split(sig[1 : len(sig)-1]) }

// alignment of a type in bytes.
func alignment(sig string) int {
	switch sig[0] {
	case 'y', 'g', 'v':
		return 1
	case 'n', 'q':
		return 2
	case 'x', 't', 'd', '(', '{':
		return 8
	}
	return 4
}

// Seconds returns the value, a number, in microseconds as an unsigned number of 64 bits: how systemd takes times.
func (v Value) Seconds() (Value, error) {
	const second = 1000000
	switch v.Sig {
	case "y", "q", "u", "t":
		if v.Num > math.MaxUint64/second {
			return Value{}, fmt.Errorf("%d seconds are too many", v.Num)
		}
		return Uint64(v.Num * second), nil
	case "n", "i", "x":
		if n := int64(v.Num); n < 0 || n > math.MaxInt64/second {
			return Value{}, fmt.Errorf("%d seconds", n)
		}
		return Uint64(v.Num * second), nil
	case "d":
		if f := math.Float64frombits(v.Num); f >= 0 && f < math.MaxInt64/second {
			return Uint64(uint64(f * second)), nil
		}
		return Value{}, fmt.Errorf("not a number of seconds")
	}
	return Value{}, fmt.Errorf("not a number")
}
