// Package server is the registry: an http.Handler that speaks distribution-spec, its development version included, over a
// storage. Who may do what is decided by an Authorizer. The handler keeps nothing itself, so that several servers may have one
// storage.
package server

import (
	"errors"
	"net/http"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Options is how a registry behaves. Only Storage is needed.
type Options struct {
	Storage storage.Storage
	// Authorizer decides on every request; nil allows everything, and lets everybody mount any blob without naming where from.
	Authorizer Authorizer
	// ReadOnly refuses everything but GET and HEAD with 405.
	ReadOnly bool
	// NoDelete refuses to delete manifests, tags and blobs with 405. Uploads can be cancelled by who may push.
	NoDelete bool
	// MaxManifest is the largest manifest in bytes, at most and by default protocol.MaxManifest; a larger one is refused with 413.
	MaxManifest int64
	// MaxBlob is the largest blob in bytes, 0 for no limit; a larger one is refused with 413.
	MaxBlob int64
	// RequireBlobs refuses an image manifest unless its config and layers are in the repository, but for those that need not
	// come with an image. Without it sparse images can be pushed. What an index lists may always come later or never.
	RequireBlobs bool
	// Redirect sends clients to the storage for blobs, if it is a storage.Redirector.
	Redirect bool
	// Warnings returns texts for the Warning headers of a response, 4096 bytes at most together; what is over is left out.
	Warnings func(r *http.Request, p protocol.Path) []string
	// Fault is called with an error that is not the client's, which gets a 5xx without its text.
	Fault func(r *http.Request, err error)
}

// Server is the registry. It serves any number of requests at once.
type Server struct {
	opts    Options
	storage storage.Storage
}

// New returns a registry.
func New(opts Options) *Server {
	if opts.MaxManifest <= 0 || opts.MaxManifest > protocol.MaxManifest {
		opts.MaxManifest = protocol.MaxManifest
	}
	return &Server{opts: opts, storage: opts.Storage}
}

// ServeHTTP serves the paths below /v2/; others are answered with 404.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()[protocol.HeaderAPIVersion] = apiVersion
	p, err := protocol.ParsePath(r.URL.Path)
	if err == nil {
		s.warn(w, r, p)
		err = s.route(w, r, p)
	} else if errors.Is(err, protocol.ErrNotAPI) {
		err = refuse(http.StatusNotFound, protocol.CodeNameUnknown, "%v", err)
	} else {
		err = refuse(http.StatusBadRequest, protocol.CodeNameInvalid, "%v", err)
	}
	if err != nil {
		s.fail(w, r, err)
	}
}

// apiVersion is shared by all responses; nobody changes it.
var apiVersion = []string{protocol.APIVersion}

// An endpoint serves one kind of path. Before it has written something it may return an error instead of an answer.
type endpoint func(s *Server, w http.ResponseWriter, r *http.Request, p protocol.Path) error

func (s *Server) route(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	var serve endpoint
	action := Pull
	allow := "GET, HEAD"
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		serve = reading(p.Kind)
		if p.Kind == protocol.Upload {
			action = Push
		}
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		serve, action = writing(p.Kind, r.Method), Push
	case http.MethodDelete:
		if serve, action = deleting(p.Kind), Delete; p.Kind == protocol.Upload {
			action = Push
		}
		if s.opts.NoDelete && action == Delete {
			serve = nil
		}
	}
	if s.opts.ReadOnly && r.Method != http.MethodGet && r.Method != http.MethodHead {
		serve = nil
	}
	if serve == nil {
		if !s.opts.ReadOnly {
			allow = allowed(p.Kind, s.opts.NoDelete)
		}
		w.Header().Set("Allow", allow)
		return refuse(http.StatusMethodNotAllowed, protocol.CodeUnsupported, "%s is not possible here", printable(r.Method))
	}
	if s.opts.Authorizer != nil {
		if err := s.opts.Authorizer.Authorize(r, access(p, action)); err != nil {
			return err
		}
	}
	return serve(s, w, r, p)
}

func reading(k protocol.Kind) endpoint {
	switch k {
	case protocol.Base:
		return (*Server).base
	case protocol.Catalog:
		return (*Server).catalog
	case protocol.Blob:
		return (*Server).getBlob
	case protocol.Manifest:
		return (*Server).getManifest
	case protocol.Upload:
		return (*Server).statUpload
	case protocol.Tags:
		return (*Server).listTags
	case protocol.Referrers:
		return (*Server).listReferrers
	}
	return nil
}

func writing(k protocol.Kind, method string) endpoint {
	switch {
	case k == protocol.Uploads && method == http.MethodPost:
		return (*Server).startUpload
	case k == protocol.Upload && method == http.MethodPatch:
		return (*Server).appendUpload
	case k == protocol.Upload && method == http.MethodPut:
		return (*Server).commitUpload
	case k == protocol.Manifest && method == http.MethodPut:
		return (*Server).putManifest
	}
	return nil
}

func deleting(k protocol.Kind) endpoint {
	switch k {
	case protocol.Blob:
		return (*Server).deleteBlob
	case protocol.Manifest:
		return (*Server).deleteManifest
	case protocol.Upload:
		return (*Server).abortUpload
	}
	return nil
}

// allowed is the Allow header for a kind of path (RFC 9110 section 10.2.1).
func allowed(k protocol.Kind, noDelete bool) string {
	allow := "GET, HEAD"
	switch k {
	case protocol.Uploads:
		return "POST"
	case protocol.Upload:
		return "GET, HEAD, PATCH, PUT, DELETE"
	case protocol.Manifest:
		allow = "GET, HEAD, PUT"
	case protocol.Blob:
	default:
		return allow
	}
	if noDelete {
		return allow
	}
	return allow + ", DELETE"
}

// base answers whether this is a registry (end-1).
func (s *Server) base(w http.ResponseWriter, r *http.Request, _ protocol.Path) error {
	return writeJSON(w, r, http.StatusOK, "application/json", []byte("{}"))
}

// warn adds the Warning headers.
func (s *Server) warn(w http.ResponseWriter, r *http.Request, p protocol.Path) {
	if s.opts.Warnings == nil {
		return
	}
	left := protocol.MaxWarnings
	for _, text := range s.opts.Warnings(r, p) {
		value := protocol.FormatWarning(text)
		if left -= len(value); left < 0 {
			return
		}
		w.Header().Add(protocol.HeaderWarning, value)
	}
}
