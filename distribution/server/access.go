package server

import (
	"net/http"

	"github.com/tare-oci/tare/distribution/protocol"
)

// Action is what a request wants to do.
type Action uint8

// The actions. A request needs one, or more where it says so: a mount needs Pull on the repository that it takes from.
const (
	// Pull reads blobs, manifests, tags and referrers.
	Pull Action = iota + 1
	// Push uploads blobs, sees and cancels the uploads, and pushes manifests and new tags.
	Push
	// Overwrite lets a tag that is there name something else. It is asked for in addition to Push.
	Overwrite
	// Delete deletes manifests, tags and blobs.
	Delete
	// List lists all repositories; there is no Repository with it.
	List
	// Enter is GET /v2/, by which clients find out how to log in; there is no Repository with it.
	Enter
)

// Access is an action on a repository.
type Access struct {
	Action     Action
	Repository string // valid by its grammar
}

// An Authorizer decides on requests. It is called from several goroutines at once.
type Authorizer interface {
	// Authorize returns nil if who sent r may do what a says; the request's body must not be read. Otherwise it returns an
	// *AccessError, or another error if it cannot tell, which is answered with 500. For Overwrite, and for the Pull of a mount,
	// the refusal is not answered with its error but restricts what the request does.
	Authorize(r *http.Request, a Access) error
}

// AccessError refuses a request.
type AccessError struct {
	Status     int      // 401, 403 or 429
	Challenges []string // WWW-Authenticate headers, with 401
	RetryAfter string   // Retry-After header, with 429
	Message    string   // for the client
}

func (e *AccessError) Error() string { return e.Message }

// code is the error code that goes with the status.
func (e *AccessError) code() protocol.Code {
	switch e.Status {
	case http.StatusUnauthorized:
		return protocol.CodeUnauthorized
	case http.StatusTooManyRequests:
		return protocol.CodeTooManyRequests
	}
	return protocol.CodeDenied
}

// access is what a path and an action need.
func access(p protocol.Path, action Action) Access {
	switch p.Kind {
	case protocol.Base:
		return Access{Action: Enter}
	case protocol.Catalog:
		return Access{Action: List}
	}
	return Access{action, p.Name}
}

// may reports whether the request's sender may do something that the request does not depend on.
func (s *Server) may(r *http.Request, action Action, repo string) bool {
	return s.opts.Authorizer == nil || s.opts.Authorizer.Authorize(r, Access{action, repo}) == nil
}
