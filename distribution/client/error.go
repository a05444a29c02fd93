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
	Hint   string          // what usually helps; may be empty
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
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// hint says what usually helps against a status.
func hint(status int, host string, login bool) string {
	switch {
	case login && status == http.StatusUnauthorized:
		return "user name or password is wrong"
	case login && status == http.StatusNotFound:
		return "there is no registry at this address, or one that speaks only version 1 of the API"
	case status == http.StatusUnauthorized:
		return "run \"tare login " + host + "\"; or there is no such repository"
	case status == http.StatusForbidden:
		return "the account may not do this; \"tare login " + host + "\" changes it"
	case status == http.StatusTooManyRequests:
		return "wait, or log in for a higher limit"
	}
	return ""
}

// Is makes errors.Is(err, content.ErrNotFound) true for what is not there.
func (e *Error) Is(target error) bool {
	if target != content.ErrNotFound {
		return false
	}
	return e.Status == http.StatusNotFound || e.Status == http.StatusGone
}

// newError reads the error document of a response to r, and closes its body.
func newError(r *request, resp *http.Response, host string) *Error {
	defer resp.Body.Close()
	e := &Error{Op: r.op, Status: resp.StatusCode, Host: host, Hint: hint(resp.StatusCode, host, r.login)}
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
