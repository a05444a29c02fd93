package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Headers that many responses share; nobody changes them.
var (
	octetStream  = []string{protocol.OctetStream}
	acceptRanges = []string{"bytes"}
	nosniff      = []string{"nosniff"}
)

// getBlob serves a blob or, for HEAD, what is known about it (end-2).
func (s *Server) getBlob(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	d, err := parseDigest(p.UnsafeReference)
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		info, err := s.storage.TouchBlob(r.Context(), p.Name, d)
		if err != nil {
			return err
		}
		return s.sendBlob(w, r, storage.Blob{BlobInfo: info})
	}
	if s.opts.Redirect {
		if done, err := s.redirectBlob(w, r, p.Name, d); done || err != nil {
			return err
		}
	}
	blob, err := s.storage.OpenBlob(r.Context(), p.Name, d)
	if err != nil {
		return err
	}
	defer blob.Content.Close()
	return s.sendBlob(w, r, blob)
}

// redirectBlob sends the client to where the storage serves the blob itself.
func (s *Server) redirectBlob(w http.ResponseWriter, r *http.Request, repo string, d digest.Digest) (bool, error) {
	to, ok := s.storage.(storage.Redirector)
	if !ok {
		return false, nil
	}
	url, err := to.BlobURL(r.Context(), repo, d, r.Method)
	if err != nil || url == "" {
		return false, err
	}
	h := w.Header()
	h.Set("Location", url)
	h[protocol.HeaderContentDigest] = []string{string(d)}
	w.WriteHeader(http.StatusTemporaryRedirect)
	return true, nil
}

// sendBlob sends a blob or the part of it that the request asks for. The kernel copies if the content is a file.
func (s *Server) sendBlob(w http.ResponseWriter, r *http.Request, blob storage.Blob) error {
	h := w.Header()
	h["Content-Type"] = octetStream
	h["Accept-Ranges"] = acceptRanges
	h["X-Content-Type-Options"] = nosniff // a blob may be a web page
	if notModified(h, r, blob.Digest) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	length, status := blob.Size, http.StatusOK
	part, partial, err := wantedRange(r, blob.BlobInfo)
	if err != nil {
		h.Set("Content-Range", protocol.FormatUnsatisfied(blob.Size))
		return err
	}
	if partial {
		length, status = part.Length(), http.StatusPartialContent
		h.Set("Content-Range", protocol.FormatContentRange(part, blob.Size))
		if blob.Content != nil && part.First > 0 {
			if _, err := blob.Content.Seek(part.First, io.SeekStart); err != nil {
				return fmt.Errorf("seek in blob %s: %w", blob.Digest, err)
			}
		}
	}
	h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	w.WriteHeader(status)
	if blob.Content == nil || length == 0 {
		return nil
	}
	if n, err := io.CopyN(w, blob.Content, length); err != nil {
		// It is too late for another answer. The connection is cut, so that the client does not take the part for the whole.
		if s.opts.Fault != nil && r.Context().Err() == nil {
			s.opts.Fault(r, fmt.Errorf("send blob %s: after %d of %d bytes: %w", blob.Digest, n, length, err))
		}
		panic(http.ErrAbortHandler)
	}
	return nil
}

// wantedRange is the part of a blob that a request wants. Several ranges at once are as none, a malformed one is refused: RFC
// 9110 section 14.2 allows either.
func wantedRange(r *http.Request, blob storage.BlobInfo) (part protocol.Range, partial bool, err error) {
	header := r.Header.Get("Range")
	if header == "" || r.Method == http.MethodHead {
		return part, false, nil
	}
	if tag := r.Header.Get("If-Range"); tag != "" && tag != etag(blob.Digest) {
		return part, false, nil
	}
	part, err = protocol.ParseRange(header, blob.Size)
	switch {
	case errors.Is(err, protocol.ErrManyRanges):
		return part, false, nil
	case err != nil:
		return part, false, refuse(http.StatusRequestedRangeNotSatisfiable, protocol.CodeSizeInvalid, "%v: the blob has %d bytes", err, blob.Size)
	}
	return part, true, nil
}

// etag is the entity tag of content: its digest.
func etag(d digest.Digest) string { return `"` + string(d) + `"` }

// notModified sets the headers that name the content, and reports whether the client has it already.
func notModified(h http.Header, r *http.Request, d digest.Digest) bool {
	both := [2]string{string(d), etag(d)}
	h[protocol.HeaderContentDigest] = both[0:1:1]
	h["Etag"] = both[1:2:2]
	have := r.Header["If-None-Match"]
	return len(have) > 0 && matches(have, d)
}

// matches reports whether the entity tags of a condition have that of d among them. Weak tags count too (RFC 9110 section
// 8.8.3.2): content of one digest does not differ.
func matches(values []string, d digest.Digest) bool {
	for _, value := range values {
		for tag := range strings.SplitSeq(value, ",") {
			if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == etag(d) || tag == "*" {
				return true
			}
		}
	}
	return false
}

// deleteBlob takes a blob from the repository (end-10).
func (s *Server) deleteBlob(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	d, err := parseDigest(p.UnsafeReference)
	if err != nil {
		return err
	}
	if err := s.storage.UnlinkBlob(r.Context(), p.Name, d); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
