package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/image/content"
)

// Error is a registry's answer that something cannot be done. errors.Is finds content.ErrNotFound in one that says that
// something is not there.
type Error struct {
	Op     string          // what was tried, e.g. "get manifest 3.20 of library/alpine"
	Status int             // of HTTP
	Errors protocol.Errors // what the registry says; may be empty
	Text   string          // the beginning of an answer that is no error document; printable, one line, may be empty
	Host   string          // of the registry
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s says %d %s", e.Op, e.Host, e.Status, strings.ToLower(http.StatusText(e.Status)))
	for i, one := range e.Errors {
		if i == 3 {
			fmt.Fprintf(&b, "; and %d more", len(e.Errors)-i)
			break
		}
		b.WriteString(": " + shorten(one.Error(), 300))
	}
	if e.Text != "" {
		b.WriteString(": " + e.Text)
	}
	switch e.Status {
	case http.StatusUnauthorized:
		b.WriteString(" (run \"tare login " + e.Host + "\")")
	case http.StatusForbidden:
		b.WriteString(" (the account may not do this; \"tare login " + e.Host + "\" changes it)")
	case http.StatusTooManyRequests:
		b.WriteString(" (wait, or log in for a higher limit)")
	}
	return b.String()
}

// Is makes errors.Is(err, content.ErrNotFound) true for what is not there.
func (e *Error) Is(target error) bool {
	if target != content.ErrNotFound {
		return false
	}
	return e.Status == http.StatusNotFound || e.Status == http.StatusGone
}

// newError reads the error document of a response, and closes its body.
func newError(op string, resp *http.Response, host string) *Error {
	defer resp.Body.Close()
	e := &Error{Op: op, Status: resp.StatusCode, Host: host}
	body, err := io.ReadAll(io.LimitReader(resp.Body, protocol.MaxErrorBody))
	if err != nil && len(body) == 0 {
		return e
	}
	if e.Errors = protocol.DecodeErrors(body); len(e.Errors) == 0 && !strings.Contains(resp.Header.Get("Content-Type"), "html") {
		e.Text = shorten(string(body), 200)
	}
	return e
}

// shorten makes one printable line of at most limit bytes of a stranger's text.
func shorten(unsafe string, limit int) string {
	cut := len(unsafe) > limit
	if cut {
		unsafe = unsafe[:limit]
	}
	line := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, unsafe)
	line = strings.Join(strings.Fields(line), " ")
	if cut {
		line += "…"
	}
	return line
}

// status returns the status of the registry's answer in err, 0 if there is none.
func status(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}
