package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/client"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// GetManifest implements storage.Manifests: a digest names one content for ever, so that what we have is not asked for again.
func (s *Store) GetManifest(ctx context.Context, repo string, d digest.Digest) (storage.Manifest, error) {
	m, err := s.local.GetManifest(ctx, repo, d)
	if err != nil && missing(err) {
		if err = s.fetchManifest(ctx, repo, d.String()); err == nil {
			m, err = s.local.GetManifest(ctx, repo, d)
		}
	}
	if err == nil {
		s.learn(m)
	}
	return m, err
}

// fetchManifest fetches what a reference names and keeps it, with the tag if it is one. Who asks for the same at the same time
// waits for the same answer.
func (s *Store) fetchManifest(ctx context.Context, repo, ref string) error {
	_, from, err := s.find(repo)
	if err != nil {
		return err
	}
	return s.flights.do(ctx, "manifest "+repo+" "+ref, func(ctx context.Context) error {
		d, raw, err := from.Manifest(ctx, ref)
		if err != nil {
			return s.absent(repo, err, storage.ErrManifestUnknown)
		}
		m, err := describe(raw, d)
		if err != nil {
			return fmt.Errorf("fetch for %s: manifest %s: %w", repo, ref, err)
		}
		var o storage.PutOptions
		if !strings.Contains(ref, ":") {
			o.Tags = []string{ref}
		}
		if err := s.local.PutManifest(ctx, repo, m, o); err != nil {
			return fmt.Errorf("keep manifest %s of %s: %w", ref, repo, err)
		}
		return nil
	})
}

// describe finds what a storage has to know of a manifest.
func describe(raw []byte, d v1.Descriptor) (storage.Manifest, error) {
	m := storage.Manifest{Raw: raw, Descriptor: v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: int64(len(raw))}}
	var subject *v1.Descriptor
	if manifest.IsIndex(d.MediaType) {
		idx, err := manifest.ParseIndex(raw, d.MediaType)
		if err != nil {
			return m, err
		}
		for _, child := range idx.Manifests {
			m.Manifests = add(m.Manifests, child.Digest)
		}
		subject, m.Descriptor.ArtifactType, m.Descriptor.Annotations = idx.Subject, idx.ArtifactType, idx.Annotations
	} else {
		img, err := manifest.ParseManifest(raw, d.MediaType)
		if err != nil {
			return m, err
		}
		for _, blob := range append([]v1.Descriptor{img.Config}, img.Layers...) {
			m.Blobs = add(m.Blobs, blob.Digest)
		}
		subject, m.Descriptor.ArtifactType, m.Descriptor.Annotations = img.Subject, img.ArtifactType, img.Annotations
		if m.Descriptor.ArtifactType == "" {
			m.Descriptor.ArtifactType = img.Config.MediaType
		}
	}
	if subject != nil {
		if err := manifest.CheckDescriptor(*subject); err != nil {
			return m, fmt.Errorf("subject: %w", err)
		}
		m.Subject = subject.Digest
	}
	return m, nil
}

// add adds a digest that can be verified, once.
func add(list []digest.Digest, d digest.Digest) []digest.Digest {
	if slices.Contains(list, d) || reference.CheckVerifiable(d) != nil {
		return list
	}
	return append(list, d)
}

// learn remembers the sizes of the blobs of a manifest: who has read it asks for them next.
func (s *Store) learn(m storage.Manifest) {
	if !manifest.IsManifest(m.Descriptor.MediaType) {
		return
	}
	img, err := manifest.ParseManifest(m.Raw, m.Descriptor.MediaType)
	if err != nil {
		return // it was pushed here before this was a proxy, and is served as it is
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	bound(s.sizes)
	for _, blob := range append([]v1.Descriptor{img.Config}, img.Layers...) {
		s.sizes[blob.Digest] = blob.Size
	}
}

// GetTag implements storage.Manifests: it asks upstream what the tag names now, if it was not asked just before.
func (s *Store) GetTag(ctx context.Context, repo, tag string) (digest.Digest, error) {
	have, err := s.local.GetTag(ctx, repo, tag)
	if err != nil && !missing(err) {
		return "", err
	}
	key := repo + ":" + tag
	s.mu.Lock()
	fresh := s.now().Before(s.checked[key])
	s.mu.Unlock()
	if have != "" && fresh {
		return have, nil
	}
	u, from, err := s.find(repo)
	if err != nil {
		return "", err
	}
	err = s.flights.do(ctx, "tag "+key, func(ctx context.Context) error { return s.checkTag(ctx, u, from, repo, tag, have) })
	if err != nil {
		return "", err
	}
	return s.local.GetTag(ctx, repo, tag)
}

// checkTag makes the local tag what it is upstream. If upstream does not answer, what we have stays.
func (s *Store) checkTag(ctx context.Context, u *upstream, from *client.Repository, repo, tag string, have digest.Digest) error {
	d, err := from.Resolve(ctx, tag)
	if err == nil && d.Digest != have {
		err = s.fetchTag(ctx, from, repo, tag, d.Digest)
	}
	believe := u.TTL
	switch {
	case err == nil:
	case judge(err) == gone:
		if have != "" {
			if err := s.local.DeleteTag(ctx, repo, tag, nil); err != nil && !missing(err) {
				return err
			}
		}
		return storage.ErrTagUnknown
	case have == "":
		return s.absent(repo, err, storage.ErrTagUnknown)
	default:
		s.warn("serve what is kept of %s:%s: %w", repo, tag, err)
		believe = max(believe, downFor)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	bound(s.checked)
	s.checked[repo+":"+tag] = s.now().Add(believe)
	return nil
}

// fetchTag keeps the manifest that a tag names now.
func (s *Store) fetchTag(ctx context.Context, from *client.Repository, repo, tag string, d digest.Digest) error {
	m, err := s.local.GetManifest(ctx, repo, d)
	if err != nil && missing(err) {
		desc, raw, err := from.Manifest(ctx, d.String())
		if err != nil {
			return err
		}
		if m, err = describe(raw, desc); err != nil {
			return fmt.Errorf("manifest %s: %w", d, err)
		}
	} else if err != nil {
		return err
	}
	if err := s.local.PutManifest(ctx, repo, m, storage.PutOptions{Tags: []string{tag}}); err != nil {
		return fmt.Errorf("keep manifest %s of %s: %w", tag, repo, err)
	}
	return nil
}

// ListTags implements storage.Manifests: the list is upstream's, or if it does not answer that of the tags that are kept.
func (s *Store) ListTags(ctx context.Context, repo, after string, n int) ([]string, bool, error) {
	u, from, err := s.find(repo)
	if err != nil {
		return nil, false, err
	}
	all, err := s.listed(ctx, u, "tags "+repo, func(ctx context.Context) (l list, err error) {
		err = from.Tags(ctx, "", func(tag string) error { l.tags = append(l.tags, tag); return nil })
		slices.Sort(l.tags)
		return l, err
	})
	if err != nil {
		if judge(err) != down {
			return nil, false, s.absent(repo, err, storage.ErrRepositoryUnknown)
		}
		s.warn("list the kept tags of %s: %w", repo, err)
		return s.local.ListTags(ctx, repo, after, n)
	}
	i, found := slices.BinarySearch(all.tags, after)
	if found {
		i++
	}
	page := all.tags[i:]
	return page[:min(n, len(page))], len(page) > n, nil
}

// ListReferrers implements storage.Manifests, as ListTags.
func (s *Store) ListReferrers(ctx context.Context, repo string, subject digest.Digest, after string, n int) ([]v1.Descriptor, bool, error) {
	u, from, err := s.find(repo)
	if err != nil {
		return nil, false, err
	}
	byDigest := func(a, b v1.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) }
	all, err := s.listed(ctx, u, "referrers "+repo+" "+string(subject), func(ctx context.Context) (l list, err error) {
		l.descriptors, err = from.Referrers(ctx, v1.Descriptor{Digest: subject}, "")
		slices.SortFunc(l.descriptors, byDigest)
		return l, err
	})
	if err != nil {
		if judge(err) != down {
			return nil, false, nil // which is what a registry says of a subject that it does not know
		}
		s.warn("list the kept referrers of %s@%s: %w", repo, subject, err)
		return s.local.ListReferrers(ctx, repo, subject, after, n)
	}
	i, found := slices.BinarySearchFunc(all.descriptors, v1.Descriptor{Digest: digest.Digest(after)}, byDigest)
	if found {
		i++
	}
	page := all.descriptors[i:]
	return page[:min(n, len(page))], len(page) > n, nil
}

// maxLists is how many lists of upstreams are kept: each may have 100 000 entries.
const maxLists = 100

// listed returns a list that upstream gave, at most as old as what is believed of a tag.
func (s *Store) listed(ctx context.Context, u *upstream, key string, ask func(context.Context) (list, error)) (list, error) {
	s.mu.Lock()
	l, ok := s.lists[key]
	s.mu.Unlock()
	if ok && s.now().Before(l.until) {
		return l, nil
	}
	err := s.flights.do(ctx, key, func(ctx context.Context) error {
		l, err := ask(ctx)
		if err != nil {
			return err
		}
		// Even with a TTL of 0 the pages of one walk through the list are of one list.
		l.until = s.now().Add(max(u.TTL, time.Second))
		s.mu.Lock()
		defer s.mu.Unlock()
		for k := range s.lists {
			if len(s.lists) < maxLists {
				break
			}
			delete(s.lists, k)
		}
		s.lists[key] = l
		return nil
	})
	if err != nil {
		return list{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok = s.lists[key]; !ok {
		return list{}, errors.New("the list fell out of memory: too many at once")
	}
	return l, nil
}
