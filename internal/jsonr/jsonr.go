// Package jsonr reads JSON from a text in one pass into variables that the caller names, without reflection:
// encoding/json first builds a decoder for each type, which takes a fresh process longer than the reading.
package jsonr

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth limits how deep arrays and objects may be nested. The specification needs eight.
const maxDepth = 64

// manyNames is the number of members from which an object's names are kept in a map: up to there comparing is faster,
// beyond it would be quadratic in a hostile object.
const manyNames = 48

// segment is one step of a JSON path: a name, or an index if the name is not set.
type segment struct {
	name   string
	index  int
	isName bool
}

// Decoder reads JSON (RFC 8259) in one pass. The first error sticks and moves the position to the end of the text, so
// that callers need not look at it between values. Decoded strings share memory with the text.
type Decoder struct {
	s     string
	fold  func(name string) string // nil: names count to the letter
	pos   int
	depth int
	path  []segment
	names []string // of the members already read, of all open objects, innermost last
	err   error

	skipping int // depth of values that are skipped
	skipped  int // 1 + where the value began that was skipped last
}

// New returns a decoder of text. For the name of a member that was skipped, fold returns the known name that is meant,
// "" for none; nil: names count to the letter.
func New(text string, fold func(name string) string) *Decoder { return &Decoder{s: text, fold: fold} }

// End checks that nothing follows the value and returns the first error.
func (d *Decoder) End() error {
	if d.peek(); d.pos < len(d.s) {
		d.syntax("the end of the text")
	}
	return d.err
}

// Err returns the first error so far.
func (d *Decoder) Err() error { return d.err }

// Fail records the error of the value at the current path.
func (d *Decoder) Fail(format string, args ...any) {
	if d.err == nil {
		msg := fmt.Sprintf(format, args...)
		if p := formatPath(d.path); p != "" {
			msg = p + ": " + msg
		}
		d.err = errors.New(msg)
	}
	d.pos = len(d.s)
}

// syntax records that the text is not JSON, with the place, since a path would often not be meaningful.
func (d *Decoder) syntax(want string) {
	if d.err == nil {
		line := 1 + strings.Count(d.s[:d.pos], "\n")
		col := d.pos - strings.LastIndexByte(d.s[:d.pos], '\n')
		got := "the end of the text"
		if d.pos < len(d.s) {
			r, _ := utf8.DecodeRuneInString(d.s[d.pos:])
			got = strconv.QuoteRune(r)
		}
		d.err = fmt.Errorf("line %d, column %d: want %s, got %s", line, col, want, got)
	}
	d.pos = len(d.s)
}

func formatPath(path []segment) string {
	var b strings.Builder
	for i, s := range path {
		switch {
		case !s.isName:
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
		case !IsIdentifier(s.name):
			b.WriteString("[" + Quote(s.name) + "]")
		default:
			if i > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.name)
		}
	}
	return b.String()
}

// IsIdentifier tells whether a name needs no quotes in a path.
func IsIdentifier(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// Quote quotes a value from outside for a message, and cuts a long one.
func Quote(s string) string {
	if len(s) > 80 {
		return strconv.Quote(strings.ToValidUTF8(s[:80], "")) + "…"
	}
	return strconv.Quote(s)
}

// peek skips white space and returns the next byte, or 0 at the end.
func (d *Decoder) peek() byte {
	for d.pos < len(d.s) {
		switch c := d.s[d.pos]; c {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return c
		}
	}
	return 0
}

// wrong records that the next value has another type than the specification wants.
func (d *Decoder) wrong(want string) {
	if d.err != nil {
		return
	}
	var got string
	switch d.peek() {
	case '{':
		got = "an object"
	case '[':
		got = "an array"
	default:
		start := d.pos
		d.Skip()
		if d.err != nil {
			return
		}
		got = d.s[start:d.pos]
		if len(got) > 80 {
			got = strings.ToValidUTF8(got[:80], "") + "…"
		}
	}
	d.Fail("want %s, got %s", want, got)
}

// open enters an array or object.
func (d *Decoder) open(bracket byte, want string) bool {
	if d.peek() != bracket {
		d.wrong(want)
		return false
	}
	if d.depth++; d.depth > maxDepth {
		d.Fail("nested deeper than %d levels", maxDepth)
		return false
	}
	d.pos++
	return true
}

// more reports whether another element follows and consumes the comma before it, or the closing bracket.
func (d *Decoder) more(first bool, bracket byte) bool {
	switch c := d.peek(); {
	case c == bracket:
		d.pos++
		d.depth--
		return false
	case first:
		return d.err == nil
	case c == ',':
		d.pos++
		return true
	}
	d.syntax("',' or '" + string(rune(bracket)) + "'")
	return false
}

// Object reads an object and calls member, which must consume the value, for each name whose value is not null.
func (d *Decoder) Object(member func(name string)) {
	if !d.open('{', "an object") {
		return
	}
	base := len(d.names)
	var many map[string]struct{}
	for first := true; d.more(first, '}'); first = false {
		if d.peek() != '"' {
			d.syntax("a property name")
			return
		}
		name := d.quoted()
		if d.peek() != ':' {
			d.syntax("':'")
			return
		}
		d.pos++
		d.path = append(d.path, segment{name: name, isName: true})
		many = d.unique(name, base, many)
		if d.peek() == 'n' {
			d.literal("null")
		} else {
			start := d.pos
			member(name)
			if d.fold != nil && d.skipped == start+1 && d.skipping == 0 {
				many = d.again(name, start, base, many, member)
			}
		}
		d.path = d.path[:len(d.path)-1]
		if d.err != nil {
			return
		}
	}
	d.names = d.names[:base]
}

// again reads the value of an unknown property once more if its name is one that is known when case does not count.
func (d *Decoder) again(name string, start, base int, many map[string]struct{}, member func(name string)) map[string]struct{} {
	known := d.fold(name)
	if known == "" || d.err != nil {
		return many
	}
	many = d.unique(known, base, many)
	if d.err == nil {
		d.pos = start
		member(known)
	}
	return many
}

// unique refuses a name that the object already has: which of the two values counts differs between parsers, so a check
// that another program made may have looked at the other one.
func (d *Decoder) unique(name string, base int, many map[string]struct{}) map[string]struct{} {
	seen := false
	switch have := d.names[base:]; {
	case many != nil:
		_, seen = many[name]
		many[name] = struct{}{}
	case len(have) == manyNames:
		many = make(map[string]struct{}, 2*manyNames)
		for _, n := range have {
			many[n] = struct{}{}
		}
		return d.unique(name, base, many)
	default:
		for _, n := range have {
			seen = seen || n == name
		}
		d.names = append(d.names, name)
	}
	if seen {
		d.Fail("duplicate name")
	}
	return many
}

// List reads an array. A given empty array is not nil, because absent and empty differ for some properties.
func List[T any](d *Decoder, dst *[]T, elem func(*Decoder, *T)) {
	if !d.open('[', "an array") {
		return
	}
	out := []T{}
	for first := true; d.more(first, ']'); first = false {
		var zero T
		out = append(out, zero)
		d.path = append(d.path, segment{index: len(out) - 1})
		elem(d, &out[len(out)-1])
		d.path = d.path[:len(d.path)-1]
		if d.err != nil {
			return
		}
	}
	*dst = out
}

// Dict reads an object whose names are data.
func Dict[T any](d *Decoder, dst *map[string]T, elem func(*Decoder, *T)) {
	out := map[string]T{}
	d.Object(func(name string) {
		var e T
		if strings.IndexByte(name, 0) >= 0 {
			d.Fail("name contains a NUL byte")
		}
		elem(d, &e)
		out[name] = e
	})
	*dst = out
}

// Skip reads a value of any type.
func (d *Decoder) Skip() {
	d.peek()
	start := d.pos
	d.skipping++
	d.skipValue()
	d.skipping--
	if d.skipping == 0 {
		d.skipped = start + 1
	}
}

// Raw reads a value of any type and stores its text.
func Raw[T ~[]byte](d *Decoder, dst *T) {
	d.peek()
	start := d.pos
	d.Skip()
	if d.err == nil {
		*dst = T(d.s[start:d.pos])
	}
}

func (d *Decoder) skipValue() {
	switch c := d.peek(); {
	case c == '{':
		d.Object(func(string) { d.Skip() })
	case c == '[':
		var ignored []struct{}
		List(d, &ignored, func(d *Decoder, _ *struct{}) { d.Skip() })
	case c == '"':
		d.quoted()
	case c == 't':
		d.literal("true")
	case c == 'f':
		d.literal("false")
	case c == 'n':
		d.literal("null")
	case c == '-' || c >= '0' && c <= '9':
		d.number()
	default:
		d.syntax("a value")
	}
}

func (d *Decoder) literal(word string) {
	if !strings.HasPrefix(d.s[d.pos:], word) {
		d.syntax("a value")
		return
	}
	d.pos += len(word)
}

// number reads a number and returns its text.
func (d *Decoder) number() string {
	start := d.pos
	digits := func() {
		if d.pos >= len(d.s) || d.s[d.pos] < '0' || d.s[d.pos] > '9' {
			d.syntax("a digit")
		}
		for d.pos < len(d.s) && d.s[d.pos] >= '0' && d.s[d.pos] <= '9' {
			d.pos++
		}
	}
	at := func(chars string) bool {
		if d.pos < len(d.s) && strings.IndexByte(chars, d.s[d.pos]) >= 0 {
			d.pos++
			return true
		}
		return false
	}
	at("-")
	if !at("0") {
		digits()
	}
	if at(".") {
		digits()
	}
	if at("eE") {
		at("+-")
		digits()
	}
	return d.s[start:d.pos]
}

// quoted reads a string. The text between the quotes is returned as it is if nothing in it is escaped.
func (d *Decoder) quoted() string {
	d.pos++
	start, ascii := d.pos, true
	for ; d.pos < len(d.s); d.pos++ {
		switch c := d.s[d.pos]; {
		case c == '"':
			s := d.s[start:d.pos]
			if !ascii && !utf8.ValidString(s) {
				d.syntax("UTF-8 in the string before")
			}
			d.pos++
			return s
		case c == '\\':
			return d.escaped(start)
		case c < 0x20:
			d.syntax("an escape sequence instead of a control character")
			return ""
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	d.syntax("'\"'")
	return ""
}

// escaped reads the rest of a string from its first escape sequence on.
func (d *Decoder) escaped(start int) string {
	b := []byte(d.s[start:d.pos])
	for d.pos < len(d.s) {
		c := d.s[d.pos]
		switch {
		case c == '"':
			if !utf8.Valid(b) {
				d.syntax("UTF-8 in the string before")
			}
			d.pos++
			return string(b)
		case c == '\\':
			b = d.escape(b)
		case c < 0x20:
			d.syntax("an escape sequence instead of a control character")
		default:
			b = append(b, c)
			d.pos++
		}
	}
	d.syntax("'\"'")
	return ""
}

// escape appends the character that the escape sequence at the position stands for.
func (d *Decoder) escape(b []byte) []byte {
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if d.pos++; d.pos < len(d.s) {
		if i := strings.IndexByte(from, d.s[d.pos]); i >= 0 {
			d.pos++
			return append(b, to[i])
		}
		if d.s[d.pos] == 'u' {
			r := d.hex4()
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if strings.HasPrefix(d.s[d.pos:], `\u`) {
					d.pos++
					low = d.hex4()
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					d.syntax("a pair of surrogates before")
				}
			}
			return utf8.AppendRune(b, r)
		}
	}
	d.syntax("an escape sequence")
	return b
}

// hex4 reads uXXXX.
func (d *Decoder) hex4() rune {
	d.pos++
	if d.pos+4 <= len(d.s) {
		if n, err := strconv.ParseUint(d.s[d.pos:d.pos+4], 16, 16); err == nil {
			d.pos += 4
			return rune(n)
		}
	}
	d.syntax("four hexadecimal digits")
	return 0
}

// Text reads a string that is data and may contain any character.
func Text(d *Decoder, dst *string) {
	if d.peek() != '"' {
		d.wrong("a string")
		return
	}
	*dst = d.quoted()
}

// Str reads a string that may become an argument of a system call, where a NUL byte would end it early.
func Str[T ~string](d *Decoder, dst *T) {
	var s string
	Text(d, &s)
	if strings.IndexByte(s, 0) >= 0 {
		d.Fail("%s contains a NUL byte", Quote(s))
	}
	*dst = T(s)
}

// Boolean reads true or false.
func Boolean(d *Decoder, dst *bool) {
	switch d.peek() {
	case 't':
		d.literal("true")
		*dst = true
	case 'f':
		d.literal("false")
	default:
		d.wrong("true or false")
	}
}

// integer returns the text of a number without fraction and exponent.
func (d *Decoder) integer(want string) string {
	if c := d.peek(); c != '-' && (c < '0' || c > '9') {
		d.wrong(want)
		return ""
	}
	start := d.pos
	s := d.number()
	if d.err == nil && strings.ContainsAny(s, ".eE") {
		d.pos = start
		d.wrong(want)
		return ""
	}
	return s
}

// Signed reads an integer.
func Signed[T int | int32 | int64](d *Decoder, dst *T) {
	s := d.integer("an integer")
	if d.err != nil {
		return
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if *dst = T(n); err != nil || int64(*dst) != n {
		d.Fail("%s is out of range", s)
	}
}

// Unsigned reads an integer of at least 0.
func Unsigned[T ~uint | ~uint16 | ~uint32 | ~uint64](d *Decoder, dst *T) {
	limit := uint64(^T(0))
	s := d.integer("an integer of at least 0")
	if d.err != nil {
		return
	}
	if s == "-0" {
		s = "0"
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > limit {
		d.Fail("want an integer from 0 to %d, got %s", limit, s)
		return
	}
	*dst = T(n)
}

// Alloc makes an optional value present.
func Alloc[T any](p **T) *T {
	*p = new(T)
	return *p
}

// Need fails at a member of the current object that is required but was not there.
func (d *Decoder) Need(seen bool, name string) {
	if !seen && d.err == nil {
		d.path = append(d.path, segment{name: name, isName: true})
		d.Fail("missing")
	}
}
