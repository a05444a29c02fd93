package protocol

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Range is a range of bytes, inclusive on both ends: 0 ≤ First ≤ Last.
type Range struct{ First, Last int64 }

// Length is the number of bytes in the range.
func (r Range) Length() int64 { return r.Last - r.First + 1 }

// Errors of ParseRange.
var (
	// ErrUnsatisfiable means a range of which the content has nothing: 416.
	ErrUnsatisfiable = errors.New("range is outside of the content")
	// ErrManyRanges means a list of ranges or another unit than bytes; who does not support it sends the whole content.
	ErrManyRanges = errors.New("more than one range, or a unit other than bytes")
)

// ParseRange parses a Range header (RFC 9110 section 14.2) of a request for content of size bytes. The error is
// ErrUnsatisfiable, ErrManyRanges, or says what is malformed.
func ParseRange(header string, size int64) (Range, error) {
	unit, spec, ok := strings.Cut(header, "=")
	if !ok {
		return Range{}, fmt.Errorf("range %.100q is malformed: want bytes=FIRST-LAST", header)
	}
	if !strings.EqualFold(strings.TrimSpace(unit), "bytes") || strings.Contains(spec, ",") {
		return Range{}, ErrManyRanges
	}
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok || first == "" && last == "" {
		return Range{}, fmt.Errorf("range %.100q is malformed: want bytes=FIRST-LAST", header)
	}
	var r Range
	var err error
	if first == "" { // the last so many bytes
		n, err := parsePosition(last)
		if err != nil {
			return Range{}, fmt.Errorf("range %.100q: %w", header, err)
		}
		if n == 0 || size == 0 {
			return Range{}, ErrUnsatisfiable
		}
		return Range{max(size-n, 0), size - 1}, nil
	}
	if r.First, err = parsePosition(first); err != nil {
		return Range{}, fmt.Errorf("range %.100q: %w", header, err)
	}
	r.Last = math.MaxInt64
	if last != "" {
		if r.Last, err = parsePosition(last); err != nil {
			return Range{}, fmt.Errorf("range %.100q: %w", header, err)
		}
	}
	switch {
	case r.Last < r.First:
		return Range{}, fmt.Errorf("range %.100q is malformed: it ends before it begins", header)
	case r.First >= size:
		return Range{}, ErrUnsatisfiable
	}
	r.Last = min(r.Last, size-1)
	return r, nil
}

// FormatRange returns the Range header that asks for everything from offset on.
func FormatRange(offset int64) string { return "bytes=" + strconv.FormatInt(offset, 10) + "-" }

// ParseContentRange parses the Content-Range header of a response, "bytes FIRST-LAST/SIZE" (RFC 9110 section 14.4). The size
// is -1 if the sender does not know it. "bytes */SIZE", which says that a range was not satisfiable, gives the size and
// ErrUnsatisfiable.
func ParseContentRange(header string) (r Range, size int64, err error) {
	bad := func() (Range, int64, error) {
		return Range{}, 0, fmt.Errorf("content range %.100q is malformed: want bytes FIRST-LAST/SIZE", header)
	}
	unit, spec, ok := strings.Cut(header, " ")
	span, total, slash := strings.Cut(spec, "/")
	if !ok || !slash || !strings.EqualFold(unit, "bytes") {
		return bad()
	}
	size = -1
	if total != "*" {
		if size, err = parsePosition(total); err != nil {
			return bad()
		}
	}
	if span == "*" {
		if size < 0 {
			return bad()
		}
		return Range{}, size, ErrUnsatisfiable
	}
	if r, err = ParseUploadRange(span); err != nil || size >= 0 && r.Last >= size {
		return bad()
	}
	return r, size, nil
}

// FormatContentRange returns the Content-Range header of a response with part of size bytes.
func FormatContentRange(r Range, size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", r.First, r.Last, size)
}

// FormatUnsatisfied returns the Content-Range header of a 416 response for content of size bytes.
func FormatUnsatisfied(size int64) string { return "bytes */" + strconv.FormatInt(size, 10) }

// ParseUploadRange parses the Content-Range header of a chunk, or the Range header of the answer, in the form that the
// distribution-spec has for uploads: "FIRST-LAST", digits only.
func ParseUploadRange(header string) (Range, error) {
	first, last, _ := strings.Cut(header, "-")
	a, err := parsePosition(first)
	b, err2 := parsePosition(last)
	if err != nil || err2 != nil || b < a {
		return Range{}, fmt.Errorf("range of chunk %.100q is malformed: want FIRST-LAST, both inclusive", header)
	}
	return Range{a, b}, nil
}

// String returns the form of uploads, "FIRST-LAST".
func (r Range) String() string {
	return strconv.FormatInt(r.First, 10) + "-" + strconv.FormatInt(r.Last, 10)
}

// FormatUploadRange returns the Range header for an upload that has received so many bytes. With none the form has no text of
// its own; "0-0" is what registries send, which also means one byte.
func FormatUploadRange(received int64) string {
	return "0-" + strconv.FormatInt(max(received-1, 0), 10)
}

// parsePosition parses digits only: no sign, no space. Positions stay below MaxInt64 so that lengths do not overflow.
func parsePosition(s string) (int64, error) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, fmt.Errorf("position %.40q is not a number", s)
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n == math.MaxInt64 {
		return 0, fmt.Errorf("position %.40q is not a number or too large", s)
	}
	return n, nil
}
