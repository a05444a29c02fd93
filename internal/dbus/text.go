package dbus

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Parse reads a value in the text form of GVariant, as people write it in annotations and for gdbus(1): "true", "uint64 5", "'text'",
// "['a', 'b']", "@as []", "('a', 1)". Without a type an integer has 32 bits with a sign, another number is a double, and the first
// element decides for the others of an array. Dictionaries are not supported.
func Parse(text string) (Value, error) {
	p := parser{s: text}
	v, err := p.value("", 0)
	if err == nil && p.peek() != 0 {
		err = fmt.Errorf("unexpected %.20q", p.s)
	}
	if err == nil {
		var e encoder
		if e.value(v); e.err != nil {
			err = e.err
		}
	}
	if err != nil {
		return Value{}, err
	}
	return v, nil
}

// parser holds what is left of the text.
type parser struct{ s string }

// peek skips spaces and returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.s = strings.TrimLeft(p.s, " \t\n"); p.s == "" {
		return 0
	}
	return p.s[0]
}

// word takes a run of letters and digits, with what else numbers have in them.
func (p *parser) word(more string) string {
	n := 0
	for n < len(p.s) && (isAlnum(p.s[n]) || strings.IndexByte(more, p.s[n]) >= 0) {
		n++
	}
	w := p.s[:n]
	p.s = p.s[n:]
	return w
}

func isAlnum(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' }

// typeWord returns the type that a word names, or nothing.
func typeWord(w string) string {
	switch w {
	case "boolean":
		return "b"
	case "byte":
		return "y"
	case "int16":
		return "n"
	case "uint16":
		return "q"
	case "int32":
		return "i"
	case "uint32":
		return "u"
	case "int64":
		return "x"
	case "uint64":
		return "t"
	case "double":
		return "d"
	case "string":
		return "s"
	case "objectpath":
		return "o"
	case "signature":
		return "g"
	}
	return ""
}

// value reads one value; sig is the type that it must have, empty for any.
func (p *parser) value(sig string, depth int) (Value, error) {
	if depth > maxDepth {
		return Value{}, errors.New("too deep")
	}
	switch c := p.peek(); {
	case c == 0:
		return Value{}, errors.New("a value is missing")
	case c == '@':
		p.s = p.s[1:]
		given := p.word("(){}")
		types, err := split(given)
		if err != nil || len(types) != 1 {
			return Value{}, fmt.Errorf("invalid type %.40q", given)
		}
		return p.typed(given, sig, depth)
	case c == '[':
		return p.array(sig, depth)
	case c == '(':
		return p.tuple(sig, depth)
	case c == '<':
		return p.variant(sig, depth)
	case c == '\'' || c == '"':
		s, err := p.quoted()
		return text(s, sig, err)
	case c == 'b' && len(p.s) > 1 && (p.s[1] == '\'' || p.s[1] == '"'):
		p.s = p.s[1:]
		s, err := p.quoted()
		if err == nil && sig != "" && sig != "ay" {
			err = fmt.Errorf("bytes where type %s is wanted", sig)
		}
		return Bytes(append([]byte(s), 0)), err
	case c|0x20 >= 'a' && c|0x20 <= 'z':
		w := p.word("")
		if t := typeWord(w); t != "" {
			return p.typed(t, sig, depth)
		}
		if (w == "true" || w == "false") && (sig == "" || sig == "b") {
			return Bool(w == "true"), nil
		}
		return Value{}, fmt.Errorf("unexpected word %.20q", w)
	}
	return number(p.word("+-."), sig)
}

// typed reads a value whose type was given before it.
func (p *parser) typed(given, sig string, depth int) (Value, error) {
	if sig != "" && sig != given {
		return Value{}, fmt.Errorf("type %s where %s is wanted", given, sig)
	}
	return p.value(given, depth+1)
}

func text(s, sig string, err error) (Value, error) {
	switch sig {
	case "", "s":
		return String(s), err
	case "o":
		if err == nil && !strings.HasPrefix(s, "/") {
			err = fmt.Errorf("object path %.40q", s)
		}
		return Value{Sig: sig, Str: s}, err
	case "g":
		if err == nil {
			_, err = split(s)
		}
		return Value{Sig: sig, Str: s}, err
	}
	return Value{}, errors.Join(err, fmt.Errorf("a string where type %s is wanted", sig))
}

// list reads values up to the closing byte; next says what the type of the one after those is.
func (p *parser) list(end byte, depth int, next func(before []Value) (string, error)) ([]Value, error) {
	p.s = p.s[1:]
	var items []Value
	for p.peek() != end {
		if len(items) > 0 {
			if p.peek() != ',' {
				return nil, fmt.Errorf("a list does not go on with ',' or %q", end)
			}
			if p.s = p.s[1:]; p.peek() == end {
				break
			}
		}
		sig, err := next(items)
		if err != nil {
			return nil, err
		}
		v, err := p.value(sig, depth+1)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	p.s = p.s[1:]
	return items, nil
}

func (p *parser) array(sig string, depth int) (Value, error) {
	if sig != "" && sig[0] != 'a' || strings.HasPrefix(sig, "a{") {
		return Value{}, fmt.Errorf("an array where type %s is wanted", sig)
	}
	items, err := p.list(']', depth, func(before []Value) (string, error) {
		switch {
		case sig != "":
			return sig[1:], nil
		case len(before) > 0:
			return before[0].Sig, nil
		}
		return "", nil
	})
	if err != nil {
		return Value{}, err
	}
	if sig == "" {
		if len(items) == 0 {
			return Value{}, errors.New("an empty array needs a type: @as []")
		}
		sig = "a" + items[0].Sig
	}
	return Value{Sig: sig, Items: items}, nil
}

func (p *parser) tuple(sig string, depth int) (Value, error) {
	var want []string
	if sig != "" {
		var err error
		if sig[0] != '(' {
			return Value{}, fmt.Errorf("a struct where type %s is wanted", sig)
		}
		if want, err = members(sig); err != nil {
			return Value{}, err
		}
	}
	items, err := p.list(')', depth, func(before []Value) (string, error) {
		switch {
		case sig == "":
			return "", nil
		case len(before) < len(want):
			return want[len(before)], nil
		}
		return "", fmt.Errorf("too many members for type %s", sig)
	})
	if err == nil && (len(items) == 0 || sig != "" && len(items) != len(want)) {
		err = errors.New("members of a struct are missing")
	}
	if err != nil {
		return Value{}, err
	}
	return Struct(items...), nil
}

func (p *parser) variant(sig string, depth int) (Value, error) {
	if sig != "" && sig != "v" {
		return Value{}, fmt.Errorf("a variant where type %s is wanted", sig)
	}
	p.s = p.s[1:]
	v, err := p.value("", depth+1)
	if err != nil {
		return Value{}, err
	}
	if p.peek() != '>' {
		return Value{}, errors.New("a variant does not end with '>'")
	}
	p.s = p.s[1:]
	return Variant(v), nil
}

// quoted reads a string in either kind of quotes.
func (p *parser) quoted() (string, error) {
	quote := p.s[0]
	var b strings.Builder
	for i := 1; i < len(p.s); i++ {
		c := p.s[i]
		if c == quote {
			p.s = p.s[i+1:]
			return b.String(), nil
		}
		if c != '\\' {
			b.WriteByte(c)
			continue
		}
		n, err := escape(&b, p.s[i+1:])
		if err != nil {
			return "", err
		}
		i += n
	}
	return "", errors.New("a string does not end")
}

// escape writes what is meant after a backslash and returns how many bytes that took.
func escape(b *strings.Builder, s string) (int, error) {
	if s == "" {
		return 0, errors.New("a string does not end")
	}
	digits := map[byte]int{'u': 4, 'U': 8}[s[0]]
	if digits == 0 {
		if i := strings.IndexByte("abfnrtv", s[0]); i >= 0 {
			b.WriteByte("\a\b\f\n\r\t\v"[i])
		} else {
			b.WriteByte(s[0])
		}
		return 1, nil
	}
	if len(s) <= digits {
		return 0, errors.New("a string does not end")
	}
	r, err := strconv.ParseUint(s[1:1+digits], 16, 32)
	if err != nil || r == 0 || r > utf8.MaxRune {
		return 0, fmt.Errorf("invalid escape \\%.9s", s)
	}
	b.WriteRune(rune(r))
	return 1 + digits, nil
}

// number reads a number in decimal, octal or hexadecimal form.
func number(w, sig string) (Value, error) {
	if sig == "" {
		sig = "i"
		if strings.ContainsAny(w, ".") || strings.ContainsAny(w, "eE") && !strings.ContainsAny(w, "xX") {
			sig = "d"
		}
	}
	bits, signed := 0, false
	switch sig {
	case "y":
		bits = 8
	case "q":
		bits = 16
	case "u":
		bits = 32
	case "t":
		bits = 64
	case "n":
		bits, signed = 16, true
	case "i":
		bits, signed = 32, true
	case "x":
		bits, signed = 64, true
	case "d":
		f, err := strconv.ParseFloat(w, 64)
		if err != nil {
			return Value{}, fmt.Errorf("invalid number %.40q", w)
		}
		return Value{Sig: sig, Num: math.Float64bits(f)}, nil
	default:
		return Value{}, fmt.Errorf("%.40q where type %s is wanted", w, sig)
	}
	if strings.IndexByte(w, '_') >= 0 {
		return Value{}, fmt.Errorf("invalid number %.40q", w)
	}
	if signed {
		n, err := strconv.ParseInt(w, 0, bits)
		if err != nil {
			return Value{}, fmt.Errorf("%.40q is not a number of type %s", w, sig)
		}
		return Value{Sig: sig, Num: uint64(n)}, nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(w, "+"), 0, bits)
	if err != nil {
		return Value{}, fmt.Errorf("%.40q is not a number of type %s", w, sig)
	}
	return Value{Sig: sig, Num: n}, nil
}
