package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/internal/ijson"
)

// errNoReferrers says that the registry has no referrers API.
var errNoReferrers = errors.New("registry has no referrers API")

// errBadReferrers says that what is under the tag for referrers is no index.
var errBadReferrers = errors.New("not an index of referrers")

// Referrers returns what refers to subject as its subject, in the registry's order; with artifactType only what is of that
// type. A registry without the API has the list under a tag (distribution-spec, "Listing Referrers"). None is no error.
func (r *Repository) Referrers(ctx context.Context, subject v1.Descriptor, artifactType string) ([]v1.Descriptor, error) {
	if err := reference.CheckVerifiable(subject.Digest); err != nil {
		return nil, err
	}
	var query []string
	if artifactType != "" {
		query = []string{protocol.QueryArtifactType, artifactType}
	}
	var all []v1.Descriptor
	entries := 0 // also those that are not wanted
	next := r.c.url(protocol.ReferrersPath(r.name, subject.Digest), query...)
	for pages := 0; next != nil; pages++ {
		if pages == r.c.opt.Limits.Pages {
			return nil, tooMuch("Pages", "list referrers of %s: more than the limit of %d pages", subject.Digest, pages)
		}
		page, err := r.referrersPage(ctx, next)
		if errors.Is(err, errNoReferrers) && pages == 0 {
			idx, _, err := r.referrersTag(ctx, subject.Digest)
			if errors.Is(err, errBadReferrers) { // which means none, by the specification
				r.c.warn(err.Error())
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			return filter(idx.Manifests, artifactType), nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, filter(page.list, artifactType)...)
		if entries += len(page.list); entries > r.c.opt.Limits.Entries {
			return nil, tooMuch("Entries", "list referrers of %s: more than the limit of %d entries", subject.Digest, r.c.opt.Limits.Entries)
		}
		if page.next != nil && page.next.String() == next.String() {
			return nil, fmt.Errorf("list referrers of %s: a page names itself as the next one", subject.Digest)
		}
		next = page.next
	}
	return all, nil
}

// filter keeps what is of the type, whether or not the registry has filtered; empty: everything.
func filter(list []v1.Descriptor, artifactType string) []v1.Descriptor {
	if artifactType == "" {
		return list
	}
	var kept []v1.Descriptor
	for _, d := range list {
		if d.ArtifactType == artifactType {
			kept = append(kept, d)
		}
	}
	return kept
}

// page is a page of referrers.
type page struct {
	list []v1.Descriptor
	next *url.URL
}

// referrersPage reads one page. The error is errNoReferrers if there is no such API.
func (r *Repository) referrersPage(ctx context.Context, at *url.URL) (page, error) {
	req := r.request("list referrers", http.MethodGet, at, "pull")
	req.header = http.Header{"Accept": {v1.MediaTypeImageIndex}}
	raw, resp, err := r.c.body(ctx, req, "list", r.c.opt.Limits.List)
	switch {
	case errors.Is(err, content.ErrNotFound), status(err) == http.StatusMethodNotAllowed, status(err) == http.StatusNotImplemented:
		return page{}, errNoReferrers
	case err != nil:
		return page{}, err
	case protocol.MediaType(resp.Header.Get("Content-Type")) != v1.MediaTypeImageIndex:
		return page{}, errNoReferrers // such as a page of HTML with status 200
	}
	idx, err := decodeIndex(raw)
	if err != nil {
		return page{}, fmt.Errorf("%s: %w", req.op, err)
	}
	next, err := r.c.nextPage(resp)
	if err != nil {
		return page{}, fmt.Errorf("%s: %w", req.op, err)
	}
	return page{list: idx.Manifests, next: next}, nil
}

// decodeIndex reads an index that may be larger than a manifest, as a page of referrers may be.
func decodeIndex(raw []byte) (v1.Index, error) {
	var idx v1.Index
	if err := ijson.Unmarshal(raw, &idx); err != nil {
		return idx, err
	}
	for i, d := range idx.Manifests {
		if err := manifest.CheckDescriptor(d); err != nil {
			return idx, fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return idx, nil
}

// referrersTag reads the index under the tag for referrers, and what it is now: the zero document if there is none.
func (r *Repository) referrersTag(ctx context.Context, subject digest.Digest) (v1.Index, document, error) {
	tag := protocol.ReferrersTag(subject)
	doc, err := r.get(ctx, tag, v1.Descriptor{Size: -1})
	if errors.Is(err, content.ErrNotFound) {
		return v1.Index{}, document{}, nil
	}
	if err != nil {
		return v1.Index{}, document{}, err
	}
	if !manifest.IsIndex(doc.desc.MediaType) {
		return v1.Index{}, document{}, fmt.Errorf("tag %s of %s is a %.100q: %w", tag, r, doc.desc.MediaType, errBadReferrers)
	}
	idx, err := decodeIndex(doc.raw)
	if err != nil {
		return idx, doc, fmt.Errorf("tag %s of %s: %w: %w", tag, r, errBadReferrers, err)
	}
	return idx, doc, nil
}

// pushed lists a document that was pushed to a registry that did not say that it keeps referrers (no OCI-Subject).
func (r *Repository) pushed(ctx context.Context, doc document) error {
	d, subject, err := asReferrer(doc)
	if err != nil || subject == nil {
		return err
	}
	return r.updateReferrersTag(ctx, subject.Digest, d, true)
}

// asReferrer returns a document's descriptor as a list of referrers has it, and its subject, nil if it has none.
func asReferrer(doc document) (v1.Descriptor, *v1.Descriptor, error) {
	var head struct {
		ArtifactType string            `json:"artifactType"`
		Config       *v1.Descriptor    `json:"config"`
		Subject      *v1.Descriptor    `json:"subject"`
		Annotations  map[string]string `json:"annotations"`
	}
	if err := ijson.Unmarshal(doc.raw, &head); err != nil {
		return v1.Descriptor{}, nil, fmt.Errorf("manifest %s: %w", doc.desc.Digest, err)
	}
	if head.Subject == nil {
		return v1.Descriptor{}, nil, nil
	}
	if err := manifest.CheckDescriptor(*head.Subject); err != nil {
		return v1.Descriptor{}, nil, fmt.Errorf("manifest %s: subject: %w", doc.desc.Digest, err)
	}
	d := v1.Descriptor{MediaType: doc.desc.MediaType, Digest: doc.desc.Digest, Size: doc.desc.Size, ArtifactType: head.ArtifactType,
		Annotations: head.Annotations}
	if d.ArtifactType == "" && head.Config != nil {
		d.ArtifactType = head.Config.MediaType
	}
	return d, head.Subject, nil
}

// subjectOf returns the subject of a manifest, nil if it has none or is not there.
func (r *Repository) subjectOf(ctx context.Context, d v1.Descriptor) (*v1.Descriptor, error) {
	want := v1.Descriptor{Digest: d.Digest, Size: -1}
	doc, err := r.get(ctx, d.Digest.String(), want)
	if err != nil {
		if errors.Is(err, content.ErrNotFound) {
			return nil, nil
		}
		return nil, err
	}
	_, subject, err := asReferrer(doc)
	return subject, err
}

// updateReferrersTag adds d to the index under the tag for referrers, or removes it (distribution-spec, "Referrers Tag
// Schema"). Registries have no transactions for that: who writes at the same time may overwrite it. So it is read again after
// a while, and written again, until it has lasted. In this process one goroutine at a time does that.
func (r *Repository) updateReferrersTag(ctx context.Context, subject digest.Digest, d v1.Descriptor, add bool) error {
	tag := protocol.ReferrersTag(subject)
	select {
	case r.c.listing <- struct{}{}:
		defer func() { <-r.c.listing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for attempt := 1; ; attempt++ {
		idx, old, err := r.referrersTag(ctx, subject)
		if err != nil {
			return fmt.Errorf("list referrer %s: %w", d.Digest, err)
		}
		raw, changed, err := withReferrer(idx, old.raw, d, add)
		if err != nil {
			return fmt.Errorf("list referrer %s: %w", d.Digest, err)
		}
		if !changed {
			return nil
		}
		if attempt > 2*r.c.opt.Retry.Attempts {
			return fmt.Errorf("list referrer %s under tag %s of %s: others overwrite it again and again", d.Digest, tag, r)
		}
		doc := document{raw: raw, desc: v1.Descriptor{MediaType: v1.MediaTypeImageIndex, Digest: digest.SHA256.FromBytes(raw), Size: int64(len(raw))}}
		if limit := r.c.opt.Limits.Manifest; doc.desc.Size > limit {
			return fmt.Errorf("list referrer %s under tag %s: the index would have %d bytes, the limit is %d", d.Digest, tag, doc.desc.Size, limit)
		}
		if _, err := r.put(ctx, doc, tag, nil); err != nil {
			return fmt.Errorf("list referrer %s: %w", d.Digest, err)
		}
		if err := sleep(ctx, rand.N(r.c.opt.Retry.Wait/2+1)); err != nil {
			return err
		}
	}
}

// withReferrer returns the index with d or without it. What else the old document holds is kept, also what is unknown here.
func withReferrer(idx v1.Index, old []byte, d v1.Descriptor, add bool) (raw []byte, changed bool, err error) {
	at := -1
	for i, m := range idx.Manifests {
		if m.Digest == d.Digest {
			at = i
		}
	}
	if add == (at >= 0) {
		return nil, false, nil
	}
	fields := map[string]json.RawMessage{"schemaVersion": json.RawMessage("2"), "mediaType": json.RawMessage(`"` + v1.MediaTypeImageIndex + `"`)}
	var list []json.RawMessage
	if old != nil {
		if err := ijson.Unmarshal(old, &fields); err != nil {
			return nil, false, err
		}
		if err := json.Unmarshal(fields["manifests"], &list); err != nil {
			return nil, false, fmt.Errorf("manifests: %w", err)
		}
		if strings.Contains(string(fields["mediaType"]), "docker") {
			fields["mediaType"] = json.RawMessage(`"` + v1.MediaTypeImageIndex + `"`)
		}
	}
	if add {
		one, err := json.Marshal(d)
		if err != nil {
			return nil, false, err
		}
		list = append(list, one)
	} else {
		list = append(list[:at:at], list[at+1:]...)
	}
	if list == nil {
		list = []json.RawMessage{}
	}
	if fields["manifests"], err = json.Marshal(list); err != nil {
		return nil, false, err
	}
	raw, err = json.Marshal(fields)
	return raw, true, err
}
