package server

import (
	"errors"
	"math"
	"net/http"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// startUpload opens an upload (end-4a, end-4c), takes a whole blob (end-4b) or mounts one (end-11).
func (s *Server) startUpload(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	q := r.URL.Query()
	if q.Has(protocol.QueryMount) {
		if done, err := s.mount(w, r, p.Name, q.Get(protocol.QueryMount), q.Get(protocol.QueryFrom)); done || err != nil {
			return err
		}
	} else if q.Has(protocol.QueryDigest) {
		return s.uploadWhole(w, r, p.Name, q.Get(protocol.QueryDigest))
	}
	alg := digest.SHA256
	if q.Has(protocol.QueryDigestAlgorithm) {
		alg = digest.Algorithm(q.Get(protocol.QueryDigestAlgorithm))
	}
	if alg != digest.SHA256 && alg != digest.SHA512 {
		return refuse(http.StatusBadRequest, protocol.CodeDigestInvalid, "digest algorithm %q: want sha256 or sha512", printable(string(alg)))
	}
	id, err := s.storage.StartUpload(r.Context(), p.Name, alg)
	if err != nil {
		return err
	}
	uploadHeaders(w.Header(), p.Name, id, 0)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// mount links a blob of another repository, if the client may read that (CVE-2024-39897). Otherwise, and if the blob is not
// there, the client uploads it: the answer must not tell which of both it was.
func (s *Server) mount(w http.ResponseWriter, r *http.Request, repo, unsafeDigest, from string) (bool, error) {
	d, err := parseDigest(unsafeDigest)
	if err != nil {
		return false, err
	}
	if from == "" && s.opts.Authorizer != nil {
		return false, nil
	}
	if from != "" {
		if err := protocol.CheckName(from); err != nil {
			return false, refuse(http.StatusBadRequest, protocol.CodeNameInvalid, "%v", err)
		}
		if !s.may(r, Pull, from) {
			return false, nil
		}
	}
	info, err := s.storage.LinkBlob(r.Context(), from, repo, d)
	if errors.Is(err, storage.ErrBlobUnknown) || errors.Is(err, storage.ErrRepositoryUnknown) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	blobCreated(w, repo, info.Digest)
	return true, nil
}

// uploadWhole takes a blob in one request.
func (s *Server) uploadWhole(w http.ResponseWriter, r *http.Request, repo, unsafeDigest string) error {
	d, err := parseDigest(unsafeDigest)
	if err != nil {
		return err
	}
	if err := s.checkLength(r, 0); err != nil {
		return err
	}
	id, err := s.storage.StartUpload(r.Context(), repo, d.Algorithm())
	if err != nil {
		return err
	}
	b := newBody(r, s.maxBlob())
	if _, err := s.storage.CommitUpload(r.Context(), repo, id, 0, b, d); err != nil {
		// What was received is of no use: the client does not know the upload.
		if aborted := s.storage.AbortUpload(r.Context(), repo, id); aborted != nil && !errors.Is(aborted, storage.ErrUploadUnknown) {
			err = errors.Join(err, aborted)
		}
		return b.explain(err, s.maxBlob(), protocol.CodeBlobUploadInvalid)
	}
	blobCreated(w, repo, d)
	return nil
}

// appendUpload takes a chunk, or without a Content-Range a stream (end-5).
func (s *Server) appendUpload(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	offset, err := chunkOffset(r)
	if err != nil {
		return err
	}
	b, err := s.chunk(r, p)
	if err != nil {
		return err
	}
	received, err := s.storage.AppendUpload(r.Context(), p.Name, p.UnsafeReference, offset, b)
	if err != nil {
		return s.chunkRefused(w, p, b, err)
	}
	uploadHeaders(w.Header(), p.Name, p.UnsafeReference, received)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// commitUpload takes what is left, which may be all or nothing, and makes the blob (end-6).
func (s *Server) commitUpload(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	d, err := parseDigest(r.URL.Query().Get(protocol.QueryDigest))
	if err != nil {
		return err
	}
	offset, err := chunkOffset(r)
	if err != nil {
		return err
	}
	b, err := s.chunk(r, p)
	if err != nil {
		return err
	}
	if _, err := s.storage.CommitUpload(r.Context(), p.Name, p.UnsafeReference, offset, b, d); err != nil {
		return s.chunkRefused(w, p, b, err)
	}
	blobCreated(w, p.Name, d)
	return nil
}

// statUpload says how much was received (end-13).
func (s *Server) statUpload(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	u, err := s.storage.StatUpload(r.Context(), p.Name, p.UnsafeReference)
	if err != nil {
		return err
	}
	uploadHeaders(w.Header(), p.Name, u.ID, u.Received)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// abortUpload cancels an upload (end-14).
func (s *Server) abortUpload(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	if err := s.storage.AbortUpload(r.Context(), p.Name, p.UnsafeReference); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// maxBlob is the largest blob.
func (s *Server) maxBlob() int64 {
	if s.opts.MaxBlob <= 0 {
		return math.MaxInt64
	}
	return s.opts.MaxBlob
}

// checkLength refuses a body that says of itself that the blob would be too large with it.
func (s *Server) checkLength(r *http.Request, received int64) error {
	if limit := s.maxBlob(); r.ContentLength > limit-received {
		return refuse(http.StatusRequestEntityTooLarge, protocol.CodeSizeInvalid, "%v: the limit is %d bytes", errTooLarge, limit)
	}
	return nil
}

// chunk is the body of a request to an upload, with what is left to the limit.
func (s *Server) chunk(r *http.Request, p protocol.Path) (*body, error) {
	if s.opts.MaxBlob <= 0 {
		return newBody(r, math.MaxInt64), nil
	}
	u, err := s.storage.StatUpload(r.Context(), p.Name, p.UnsafeReference)
	if err != nil {
		return nil, err
	}
	if err := s.checkLength(r, u.Received); err != nil {
		return nil, err
	}
	return newBody(r, s.opts.MaxBlob-u.Received), nil
}

// chunkOffset is where a chunk begins by its Content-Range; -1 if it has none.
func chunkOffset(r *http.Request) (int64, error) {
	header := r.Header.Get("Content-Range")
	if header == "" {
		return -1, nil
	}
	part, err := protocol.ParseUploadRange(header)
	if err != nil {
		return 0, refuse(http.StatusBadRequest, protocol.CodeBlobUploadInvalid, "%v", err)
	}
	if r.ContentLength >= 0 && r.ContentLength != part.Length() {
		return 0, refuse(http.StatusBadRequest, protocol.CodeSizeInvalid, "content range %s has %d bytes, the body has %d",
			part, part.Length(), r.ContentLength)
	}
	return part.First, nil
}

// chunkRefused is the error for a chunk; with one that is out of order the client learns where to go on.
func (s *Server) chunkRefused(w http.ResponseWriter, p protocol.Path, b *body, err error) error {
	var order *storage.OffsetError
	if errors.As(err, &order) {
		uploadHeaders(w.Header(), p.Name, p.UnsafeReference, order.Received)
		return refuse(http.StatusRequestedRangeNotSatisfiable, protocol.CodeBlobUploadInvalid, "%v", order)
	}
	return b.explain(err, s.maxBlob(), protocol.CodeBlobUploadInvalid)
}

// uploadHeaders says where an upload goes on.
func uploadHeaders(h http.Header, repo, id string, received int64) {
	h.Set("Location", protocol.UploadPath(repo, id))
	h.Set("Range", protocol.FormatUploadRange(received))
	h[protocol.HeaderUploadUUID] = []string{id}
}

// blobCreated answers that the blob is there.
func blobCreated(w http.ResponseWriter, repo string, d digest.Digest) {
	h := w.Header()
	h.Set("Location", protocol.BlobPath(repo, d))
	h[protocol.HeaderContentDigest] = []string{string(d)}
	w.WriteHeader(http.StatusCreated)
}
