package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// Repository is one repository of a registry, a content.Source and a content.Target. Its methods may be called from several
// goroutines at once. Names of content are tags and digests.
type Repository struct {
	c    *Client
	name string

	mu     sync.Mutex
	recent []document // what was read or pushed last: a tag is given to what was just pushed
}

var (
	_ content.Source = (*Repository)(nil)
	_ content.Target = (*Repository)(nil)
)

// document is a manifest or an index, verified.
type document struct {
	desc v1.Descriptor
	raw  []byte
}

// maxRecent bounds the documents that a Repository keeps; each is at most Limits.Manifest long.
const maxRecent = 8

// Name returns the repository's name.
func (r *Repository) Name() string { return r.name }

// String returns HOST/NAME.
func (r *Repository) String() string { return r.c.origin.Host() + "/" + r.name }

func (r *Repository) remember(doc document) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.recent) >= maxRecent {
		r.recent = r.recent[1:]
	}
	r.recent = append(r.recent[:len(r.recent):len(r.recent)], doc)
}

// remembered returns a document that meets what is set of want.
func (r *Repository) remembered(want v1.Descriptor) (document, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, doc := range r.recent {
		if doc.desc.Digest == want.Digest && (want.Size < 0 || want.Size == doc.desc.Size) &&
			(want.MediaType == "" || want.MediaType == doc.desc.MediaType) {
			return doc, true
		}
	}
	return document{}, false
}

func (r *Repository) forget(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var kept []document
	for _, doc := range r.recent {
		if doc.desc.Digest != d {
			kept = append(kept, doc)
		}
	}
	r.recent = kept
}

// request prepares a request for the repository. actions are what a token must allow.
func (r *Repository) request(what, method string, u *url.URL, actions ...string) *request {
	return &request{op: what + " of " + r.String(), method: method, url: u, scopes: []auth.Scope{auth.Repository(r.name, actions...)}}
}

// isDocument reports whether what has this media type is kept as a manifest rather than as a blob.
func isDocument(mediaType string) bool {
	return manifest.IsIndex(mediaType) || manifest.IsManifest(mediaType) ||
		mediaType == "application/vnd.oci.artifact.manifest.v1+json" // of image-spec 1.1's release candidates
}

// checkReference tells a tag from a digest.
func checkReference(ref string) (digest.Digest, error) {
	if !isDigest(ref) {
		return "", reference.CheckTag(ref)
	}
	return digest.Digest(ref), reference.CheckVerifiable(digest.Digest(ref))
}

// Exists implements content.Target.
func (r *Repository) Exists(ctx context.Context, d v1.Descriptor) (bool, error) {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return false, err
	}
	path, what := protocol.BlobPath(r.name, d.Digest), "look for blob "
	if isDocument(d.MediaType) {
		path, what = protocol.ManifestPath(r.name, d.Digest.String()), "look for manifest "
	}
	req := r.request(what+d.Digest.String(), http.MethodHead, r.c.url(path), "pull")
	req.header = http.Header{"Accept": accepts(d.MediaType)}
	resp, err := r.c.send(ctx, req)
	if errors.Is(err, content.ErrNotFound) || refusesHead(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	discard(resp)
	// Another size is the sign of something broken there, which a push may mend.
	return resp.ContentLength < 0 || resp.ContentLength == d.Size, nil
}

// refusesHead reports whether err says that HEAD is not for this registry.
func refusesHead(err error) bool {
	switch status(err) {
	case http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusBadRequest, http.StatusNotAcceptable:
		return true
	}
	return false
}

// DeleteBlob deletes a blob from the repository. The error wraps content.ErrNotFound if it is not there.
func (r *Repository) DeleteBlob(ctx context.Context, d digest.Digest) error {
	if err := reference.CheckVerifiable(d); err != nil {
		return err
	}
	return r.delete(ctx, "delete blob "+d.String(), r.c.url(protocol.BlobPath(r.name, d)))
}

// DeleteTag deletes a tag; what it names stays. Registries of before distribution-spec 1.0 cannot do that.
func (r *Repository) DeleteTag(ctx context.Context, tag string) error {
	if err := reference.CheckTag(tag); err != nil {
		return err
	}
	return r.delete(ctx, "delete tag "+tag, r.c.url(protocol.ManifestPath(r.name, tag)))
}

// DeleteManifest deletes a manifest or index, and with it the tags that name it. Where the registry has no referrers API, it
// leaves the index of its subject's referrers, too.
func (r *Repository) DeleteManifest(ctx context.Context, d v1.Descriptor) error {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return err
	}
	subject, err := r.subjectOf(ctx, d)
	if err != nil {
		return err
	}
	r.forget(d.Digest)
	if err := r.delete(ctx, "delete manifest "+d.Digest.String(), r.c.url(protocol.ManifestPath(r.name, d.Digest.String()))); err != nil {
		return err
	}
	if subject == nil {
		return nil
	}
	if _, err := r.referrersPage(ctx, r.c.url(protocol.ReferrersPath(r.name, subject.Digest))); !errors.Is(err, errNoReferrers) {
		return err
	}
	return r.updateReferrersTag(ctx, subject.Digest, d, false)
}

func (r *Repository) delete(ctx context.Context, what string, u *url.URL) error {
	req := r.request(what, http.MethodDelete, u, "delete", "pull", "push")
	req.once = true
	for attempt := 1; ; attempt++ {
		resp, err := r.c.send(ctx, req)
		switch {
		case err == nil:
			discard(resp)
			return nil
		case errors.Is(err, content.ErrNotFound) && attempt > 1: // by an attempt whose answer was lost
			return nil
		case status(err) == http.StatusMethodNotAllowed:
			return fmt.Errorf("%w (this registry, or its configuration, deletes nothing)", err)
		case attempt >= r.c.opt.Retry.Attempts || !r.c.passes(err):
			return err
		}
		if err := r.c.wait(ctx, attempt, err); err != nil {
			return err
		}
	}
}
