package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/image/reference"
)

// refusal is an error that is the client's.
type refusal struct {
	status int
	entry  protocol.Error
}

func (r *refusal) Error() string { return r.entry.Error() }

func refuse(status int, code protocol.Code, format string, args ...any) error {
	return &refusal{status, protocol.Error{Code: code, Message: fmt.Sprintf(format, args...)}}
}

// fail answers with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var denied *AccessError
	if errors.As(err, &denied) {
		for _, challenge := range denied.Challenges {
			w.Header().Add("WWW-Authenticate", challenge)
		}
		if denied.RetryAfter != "" {
			w.Header().Set(protocol.HeaderRetryAfter, denied.RetryAfter)
		}
		err = refuse(denied.Status, denied.code(), "%s", denied.Message)
	}
	var no *refusal
	if !errors.As(err, &no) {
		no = translate(err)
	}
	if no == nil {
		s.fault(w, r, err)
		return
	}
	// An error to a HEAD request has no body, as any other answer.
	_ = writeJSON(w, r, no.status, "application/json", protocol.Errors{no.entry}.Encode())
}

// translate gives the errors of a storage their status and code; nil for what is not the client's fault.
func translate(err error) *refusal {
	status, code := 0, protocol.Code("")
	var missing *storage.MissingError
	switch {
	case errors.Is(err, storage.ErrRepositoryUnknown):
		status, code = http.StatusNotFound, protocol.CodeNameUnknown
	case errors.Is(err, storage.ErrBlobUnknown):
		status, code = http.StatusNotFound, protocol.CodeBlobUnknown
	case errors.Is(err, storage.ErrManifestUnknown), errors.Is(err, storage.ErrTagUnknown):
		status, code = http.StatusNotFound, protocol.CodeManifestUnknown
	case errors.Is(err, storage.ErrUploadUnknown):
		status, code = http.StatusNotFound, protocol.CodeBlobUploadUnknown
	case errors.Is(err, storage.ErrUploadBusy):
		status, code = http.StatusConflict, protocol.CodeBlobUploadInvalid
	case errors.Is(err, storage.ErrDigestMismatch):
		status, code = http.StatusBadRequest, protocol.CodeDigestInvalid
	case errors.Is(err, storage.ErrConditionFailed):
		status, code = http.StatusPreconditionFailed, protocol.CodeDenied
	case errors.Is(err, storage.ErrReadOnly):
		status, code = http.StatusMethodNotAllowed, protocol.CodeUnsupported
	case errors.As(err, &missing):
		status, code = http.StatusNotFound, protocol.CodeManifestBlobUnknown
	default:
		return nil
	}
	return &refusal{status, protocol.Error{Code: code, Message: err.Error()}}
}

// fault answers with a status of our own fault and without the error's text, which may tell of paths or addresses.
func (s *Server) fault(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	switch {
	case r.Context().Err() != nil || errors.Is(err, context.Canceled): // the client is gone
		status = http.StatusServiceUnavailable
	case errors.Is(err, storage.ErrNoSpace):
		status = http.StatusInsufficientStorage
	}
	if s.opts.Fault != nil {
		s.opts.Fault(r, err)
	}
	http.Error(w, http.StatusText(status), status)
}

// writeJSON writes an answer with a body, or for HEAD its headers. An error of the connection is of no use to anybody.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, mediaType string, body []byte) error {
	h := w.Header()
	h["Content-Type"] = []string{mediaType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
	return nil
}

// printable is a client's text for a message.
func printable(unsafe string) string {
	if len(unsafe) > 128 {
		unsafe = unsafe[:128] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, unsafe)
}

// parseDigest checks a digest that a client wrote.
func parseDigest(unsafe string) (digest.Digest, error) {
	d := digest.Digest(unsafe)
	if err := reference.CheckVerifiable(d); err != nil {
		return "", refuse(http.StatusBadRequest, protocol.CodeDigestInvalid, "%v", err)
	}
	return d, nil
}

// A body is what a request brings. It remembers how reading ended: an error of a storage may only repeat it.
type body struct {
	r    io.Reader
	left int64 // bytes until the limit is exceeded; negative: it was
	err  error
}

// newBody limits the body to that many bytes.
func newBody(r *http.Request, limit int64) *body { return &body{r: r.Body, left: limit} }

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		n, err = 0, errTooLarge
	}
	b.err = err
	return n, err
}

var errTooLarge = errors.New("body is larger than allowed")

// explain returns a refusal if reading the body went wrong, otherwise err.
func (b *body) explain(err error, limit int64, code protocol.Code) error {
	if err == nil || b.err == nil || errors.Is(b.err, io.EOF) {
		return err
	}
	if errors.Is(b.err, errTooLarge) {
		return refuse(http.StatusRequestEntityTooLarge, protocol.CodeSizeInvalid, "%v: the limit is %d bytes", errTooLarge, limit)
	}
	return refuse(http.StatusBadRequest, code, "read body: %v", b.err)
}
