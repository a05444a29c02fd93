package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// Limits of a page of referrers. Annotations can make a descriptor as large as a manifest.
const (
	maxReferrers     = 1000
	maxReferrersSize = 2 << 20 // bytes of the descriptors of a page, unless one alone has more
)

// listReferrers lists the manifests whose subject is a digest (end-12).
func (s *Server) listReferrers(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	subject, err := parseDigest(p.UnsafeReference)
	if err != nil {
		return err
	}
	n, last, err := page(r)
	if err != nil {
		return err
	}
	n = max(min(n, maxReferrers), 1)
	filter := r.URL.Query().Get(protocol.QueryArtifactType)
	entries, more, err := s.referrersPage(r.Context(), p.Name, subject, filter, last, n)
	if err != nil {
		return err
	}
	if more {
		next(w, r, string(entries[len(entries)-1].Digest), n)
	}
	if filter != "" {
		w.Header()[protocol.HeaderFiltersApplied] = []string{protocol.QueryArtifactType}
	}
	idx := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: entries}
	data, err := json.Marshal(idx)
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, v1.MediaTypeImageIndex, data)
}

// referrersPage collects what fits into a page. more is only true if there is at least one entry.
func (s *Server) referrersPage(ctx context.Context, repo string, subject digest.Digest, filter, after string, n int) ([]v1.Descriptor, bool, error) {
	old, err := s.oldReferrers(ctx, repo, subject)
	if err != nil {
		return nil, false, err
	}
	entries, size := []v1.Descriptor{}, 0
	for {
		found, more, err := s.storage.ListReferrers(ctx, repo, subject, after, n)
		// "The registry MUST NOT return a 404": nor for a repository that is not known yet.
		if err := ignore(err, storage.ErrRepositoryUnknown); err != nil {
			return nil, false, err
		}
		found = merge(found, old, after, more)
		for i, d := range found {
			if filter != "" && d.ArtifactType != filter {
				continue
			}
			text, err := json.Marshal(d)
			if err != nil {
				return nil, false, err
			}
			if size += len(text); len(entries) == n || len(entries) > 0 && size > maxReferrersSize {
				return entries, true, nil
			}
			entries = append(entries, found[i])
		}
		if !more {
			return entries, false, nil
		}
		if len(entries) == n && filter == "" {
			return entries, true, nil
		}
		after = string(found[len(found)-1].Digest)
	}
}

// merge adds the entries of old that belong to a page of found: those after a text, and if more pages follow, before its end.
func merge(found, old []v1.Descriptor, after string, more bool) []v1.Descriptor {
	if len(old) == 0 {
		return found
	}
	end := len(found)
	for _, d := range old {
		fits := string(d.Digest) > after && (!more || d.Digest < found[end-1].Digest)
		if fits && !slices.ContainsFunc(found[:end], func(f v1.Descriptor) bool { return f.Digest == d.Digest }) {
			found = append(found, d)
		}
	}
	slices.SortFunc(found, func(a, b v1.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return found
}

// oldReferrers are the referrers that an index under the tag of the fallback lists. They count if they were pushed when there
// was no list of referrers (distribution-spec "Enabling the Referrers API"); what is in the list already is in both.
func (s *Server) oldReferrers(ctx context.Context, repo string, subject digest.Digest) ([]v1.Descriptor, error) {
	d, err := s.storage.GetTag(ctx, repo, protocol.ReferrersTag(subject))
	if err != nil {
		return nil, ignore(err, storage.ErrTagUnknown, storage.ErrRepositoryUnknown)
	}
	m, err := s.storage.GetManifest(ctx, repo, d)
	if err != nil {
		return nil, ignore(err, storage.ErrManifestUnknown, storage.ErrRepositoryUnknown)
	}
	if !manifest.IsIndex(m.Descriptor.MediaType) {
		return nil, nil
	}
	var old []v1.Descriptor
	for _, listed := range m.Manifests[:min(len(m.Manifests), maxReferrers)] {
		if reference.CheckVerifiable(listed) != nil {
			continue
		}
		referrer, err := s.storage.GetManifest(ctx, repo, listed)
		if err != nil {
			if err := ignore(err, storage.ErrManifestUnknown, storage.ErrRepositoryUnknown); err != nil {
				return nil, err
			}
			continue
		}
		if referrer.Subject == subject {
			old = append(old, referrer.Descriptor)
		}
	}
	return old, nil
}

// ignore returns nil for an error that wraps one of kinds.
func ignore(err error, kinds ...error) error {
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return nil
		}
	}
	return err
}
