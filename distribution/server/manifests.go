package server

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/image/reference"
)

// maxTags is how many tags one request may push. The specification wants at least 10.
const maxTags = 100

// getManifest serves a manifest by tag or digest or, for HEAD, what is known about it (end-3).
func (s *Server) getManifest(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	d, err := s.resolve(r, p)
	if err != nil {
		return err
	}
	m, err := s.storage.GetManifest(r.Context(), p.Name, d)
	if err != nil {
		return err
	}
	h := w.Header()
	texts := [2]string{m.Descriptor.MediaType, strconv.Itoa(len(m.Raw))}
	h["Content-Type"] = texts[0:1:1]
	h["X-Content-Type-Options"] = nosniff
	if notModified(h, r, d) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h["Content-Length"] = texts[1:2:2]
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(m.Raw)
	}
	return nil
}

// resolve finds the digest that a path names, itself or by a tag.
func (s *Server) resolve(r *http.Request, p protocol.Path) (digest.Digest, error) {
	if strings.IndexByte(p.UnsafeReference, ':') >= 0 {
		return parseDigest(p.UnsafeReference)
	}
	if err := reference.CheckTag(p.UnsafeReference); err != nil {
		return "", refuse(http.StatusNotFound, protocol.CodeManifestUnknown, "%v", err)
	}
	return s.storage.GetTag(r.Context(), p.Name, p.UnsafeReference)
}

// putManifest stores a manifest (end-7a) and names it by tags (end-7b).
func (s *Server) putManifest(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	d, tags, err := pushNames(r, p)
	if err != nil {
		return err
	}
	raw, err := s.readManifest(r)
	if err != nil {
		return err
	}
	alg := digest.SHA256
	if d != "" {
		alg = d.Algorithm()
	}
	computed := alg.FromBytes(raw)
	if d != "" && d != computed {
		return refuse(http.StatusBadRequest, protocol.CodeDigestInvalid, "the manifest's digest is %s, the request says %s", computed, d)
	}
	m, require, err := parse(raw, protocol.MediaType(r.Header.Get("Content-Type")), computed)
	if err != nil {
		return refuse(http.StatusBadRequest, protocol.CodeManifestInvalid, "%v", err)
	}
	if !s.opts.RequireBlobs {
		require = nil
	}
	opts := storage.PutOptions{Tags: tags, RequireBlobs: require, Expect: s.expectation(r, p.Name, computed)}
	if err := s.storage.PutManifest(r.Context(), p.Name, m, opts); err != nil {
		return s.overwriteRefused(r, p.Name, err)
	}
	h := w.Header()
	h.Set("Location", protocol.ManifestPath(p.Name, string(computed)))
	h[protocol.HeaderContentDigest] = []string{string(computed)}
	h["Etag"] = []string{etag(computed)}
	if m.Subject != "" {
		h[protocol.HeaderSubject] = []string{string(m.Subject)}
	}
	if d != "" && len(tags) > 0 {
		h[protocol.HeaderTag] = tags
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// pushNames returns the digest by which a manifest is pushed, or empty, and the tags that it gets.
func pushNames(r *http.Request, p protocol.Path) (d digest.Digest, tags []string, err error) {
	unsafeTags := []string{p.UnsafeReference}
	if strings.Contains(p.UnsafeReference, ":") {
		if d, err = parseDigest(p.UnsafeReference); err != nil {
			return "", nil, err
		}
		unsafeTags = r.URL.Query()[protocol.QueryTag]
	}
	if len(unsafeTags) > maxTags {
		return "", nil, refuse(http.StatusRequestURITooLong, protocol.CodeUnsupported, "%d tags in one request, the limit is %d",
			len(unsafeTags), maxTags)
	}
	seen := map[string]bool{}
	for _, tag := range unsafeTags {
		if err := reference.CheckTag(tag); err != nil {
			return "", nil, refuse(http.StatusBadRequest, protocol.CodeManifestInvalid, "%v", err)
		}
		if !seen[tag] {
			seen[tag] = true
			tags = append(tags, tag)
		}
	}
	return d, tags, nil
}

// readManifest reads the body, of which no more than the limit is ever in memory (CVE-2017-11468).
func (s *Server) readManifest(r *http.Request) ([]byte, error) {
	limit := s.opts.MaxManifest
	tooLarge := refuse(http.StatusRequestEntityTooLarge, protocol.CodeSizeInvalid, "manifest is too large: the limit is %d bytes", limit)
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	b := newBody(r, limit)
	raw, err := io.ReadAll(b)
	if errors.Is(err, errTooLarge) {
		return nil, tooLarge
	}
	return raw, b.explain(err, limit, protocol.CodeManifestInvalid)
}

// expectation is what the tags of a push must name before: as the request's conditions say (RFC 9110 section 13.1), and
// nothing else than before if its sender may not overwrite (CVE-2026-31801). Nil if all may be.
func (s *Server) expectation(r *http.Request, repo string, pushed digest.Digest) func(string, digest.Digest) bool {
	match, noneMatch := r.Header["If-Match"], r.Header["If-None-Match"]
	frozen := !s.may(r, Overwrite, repo)
	if len(match) == 0 && len(noneMatch) == 0 && !frozen {
		return nil
	}
	return func(_ string, now digest.Digest) bool {
		switch {
		case len(match) > 0 && (now == "" || !matches(match, now)),
			len(noneMatch) > 0 && now != "" && matches(noneMatch, now):
			return false
		}
		return !frozen || now == "" || now == pushed
	}
}

// overwriteRefused is the error of a push: if its sender stated no condition, it was the right to overwrite that is missing.
func (s *Server) overwriteRefused(r *http.Request, repo string, err error) error {
	stated := len(r.Header["If-Match"]) > 0 || len(r.Header["If-None-Match"]) > 0
	if !errors.Is(err, storage.ErrConditionFailed) || stated || s.opts.Authorizer == nil {
		return err
	}
	if denied := s.opts.Authorizer.Authorize(r, Access{Overwrite, repo}); denied != nil {
		return denied
	}
	return err
}

// deleteManifest deletes a tag, or a manifest with its tags (end-9).
func (s *Server) deleteManifest(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	var err error
	if strings.Contains(p.UnsafeReference, ":") {
		var d digest.Digest
		if d, err = parseDigest(p.UnsafeReference); err == nil {
			err = s.storage.DeleteManifest(r.Context(), p.Name, d)
		}
	} else if err = reference.CheckTag(p.UnsafeReference); err != nil {
		err = refuse(http.StatusNotFound, protocol.CodeManifestUnknown, "%v", err)
	} else {
		var expect func(digest.Digest) bool
		if match := r.Header["If-Match"]; len(match) > 0 {
			expect = func(now digest.Digest) bool { return matches(match, now) }
		}
		err = s.storage.DeleteTag(r.Context(), p.Name, p.UnsafeReference, expect)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
