package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// Sweep implements storage.Collector. Links are removed on the condition that nobody has written to them since they were shown.
func (s *Store) Sweep(ctx context.Context, repo string, decide func(storage.Contents) (storage.Removal, error)) error {
	if err := s.unknown(ctx, repo, nil); err != nil {
		return err
	}
	return s.alone(ctx, repo, func(ctx context.Context) error {
		has, links, err := s.contents(ctx, repo)
		if err != nil {
			return err
		}
		remove, err := decide(has)
		if err != nil {
			return err
		}
		for _, tag := range remove.Tags {
			if err := s.dropTag(ctx, repo, tag, has.Tags[tag].Digest); err != nil {
				return err
			}
		}
		for _, d := range remove.Manifests {
			m, err := s.GetManifest(ctx, repo, d)
			if err == nil {
				err = s.dropManifest(ctx, repo, m)
			}
			if err != nil && !errors.Is(err, storage.ErrManifestUnknown) {
				return err
			}
		}
		for _, d := range remove.Blobs {
			if err := s.unlinkUnused(ctx, repo, d, links[d]); err != nil {
				return err
			}
		}
		return nil
	})
}

// unlinkUnused unlinks a blob whose link is still the one with this ETag.
func (s *Store) unlinkUnused(ctx context.Context, repo string, d digest.Digest, etag string) error {
	if etag == "" {
		return nil
	}
	leave, err := s.inside.enter(ctx, linkKey(repo, d))
	if err != nil {
		return err
	}
	defer leave()
	_, err = s.putJSON(ctx, linkKey(repo, d), record{Gone: true, Used: time.Now().UTC(), Nonce: rand.Text()}, etag)
	if errors.Is(err, errConflict) {
		return nil
	}
	return err
}

// contents reads all that a repository has, and the ETags of its links.
func (s *Store) contents(ctx context.Context, repo string) (has storage.Contents, links map[digest.Digest]string, err error) {
	has.Tags, links = map[string]storage.TagInfo{}, map[digest.Digest]string{}
	err = s.list(ctx, repoKey(repo)+"tags/", "", func(tag string) (bool, error) {
		t, err := s.tag(ctx, repo, tag)
		if err == nil {
			has.Tags[tag] = storage.TagInfo{Digest: t.Digest, Changed: t.Changed}
		}
		return true, present(err)
	})
	if err != nil {
		return has, nil, err
	}
	err = s.list(ctx, repoKey(repo)+"manifests/", "", func(rest string) (bool, error) {
		d, ok := digestOf(rest)
		if !ok {
			return true, nil
		}
		m, err := s.GetManifest(ctx, repo, d)
		if err == nil {
			m.Raw = nil
			has.Manifests = append(has.Manifests, m)
		}
		return true, present(err)
	})
	if err != nil {
		return has, nil, err
	}
	err = s.list(ctx, repoKey(repo)+"blobs/", "", func(rest string) (bool, error) {
		d, ok := digestOf(rest)
		if !ok {
			return true, nil
		}
		r, etag, err := s.read(ctx, linkKey(repo, d))
		if err == nil {
			has.Blobs, links[d] = append(has.Blobs, r.info(d)), etag
		}
		return true, present(err)
	})
	return has, links, err
}

// present drops the error of what is gone.
func present(err error) error {
	if errors.Is(err, errAbsent) || errors.Is(err, storage.ErrManifestUnknown) {
		return nil
	}
	return err
}

// Contents implements storage.Collector.
func (s *Store) Contents(ctx context.Context, each func(storage.BlobInfo) error) error {
	return s.list(ctx, "content/", "", func(rest string) (bool, error) {
		d, ok := digestOf(rest)
		if !ok || strings.Count(rest, "/") != 1 {
			return true, nil
		}
		r, _, err := s.read(ctx, contentKey(d))
		if err == nil {
			err = each(r.info(d))
		}
		return true, present(err)
	})
}

// RemoveContent implements storage.Collector. The record that the content is gone decides; after it nobody can link the bytes.
func (s *Store) RemoveContent(ctx context.Context, d digest.Digest, notAfter time.Time) (bool, error) {
	leave, err := s.inside.enter(ctx, contentKey(d))
	if err != nil {
		return false, err
	}
	defer leave()
	r, etag, err := s.read(ctx, contentKey(d))
	if err != nil || r.Used.After(notAfter) {
		return false, present(err)
	}
	_, err = s.putJSON(ctx, contentKey(d), record{Gone: true, Used: time.Now().UTC(), Nonce: rand.Text()}, etag)
	if errors.Is(err, errConflict) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, s.remove(ctx, r.Data)
}
