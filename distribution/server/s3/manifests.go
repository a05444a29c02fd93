package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server/storage"
)

func manifestKey(repo string, d digest.Digest) string { return repoKey(repo) + "manifests/" + hex(d) }
func tagKey(repo, tag string) string                  { return repoKey(repo) + "tags/" + tag }
func taggedKey(repo string, d digest.Digest) string   { return repoKey(repo) + "tagged/" + hex(d) + "/" }
func referrersKey(repo string, subject digest.Digest) string {
	return repoKey(repo) + "referrers/" + hex(subject) + "/"
}

// meta is the first line of a manifest's object.
type meta struct {
	Descriptor v1.Descriptor
	Subject    digest.Digest
	Blobs      []digest.Digest
	Manifests  []digest.Digest
	Pushed     time.Time
}

// tagged is the object of a tag.
type tagged struct {
	Digest  digest.Digest
	Changed time.Time
}

// GetManifest implements storage.Manifests.
func (s *Store) GetManifest(ctx context.Context, repo string, d digest.Digest) (storage.Manifest, error) {
	data, _, err := s.get(ctx, manifestKey(repo, d))
	if errors.Is(err, errAbsent) {
		err = s.unknown(ctx, repo, storage.ErrManifestUnknown)
	}
	if err != nil {
		return storage.Manifest{}, err
	}
	line, raw, ok := bytes.Cut(data, []byte("\n"))
	var m meta
	if err := json.Unmarshal(line, &m); err != nil || !ok {
		return storage.Manifest{}, fmt.Errorf("read manifest %s: it has no head", d)
	}
	return storage.Manifest{Descriptor: m.Descriptor, Raw: raw, Subject: m.Subject, Blobs: m.Blobs, Manifests: m.Manifests, Pushed: m.Pushed}, nil
}

// alone runs work while nobody else changes manifests and tags of a repository.
func (s *Store) alone(ctx context.Context, repo string, work func(context.Context) error) error {
	held, release, err := s.lock(ctx, "repository-"+encode(repo))
	if err != nil {
		return err
	}
	defer release()
	err = work(held)
	if cause := context.Cause(held); err != nil && errors.Is(cause, errLost) {
		return cause
	}
	return err
}

// PutManifest implements storage.Manifests.
func (s *Store) PutManifest(ctx context.Context, repo string, m storage.Manifest, opts storage.PutOptions) error {
	head, err := json.Marshal(meta{m.Descriptor, m.Subject, m.Blobs, m.Manifests, time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	object := append(append(head, '\n'), m.Raw...)
	if len(object) > maxObject {
		return fmt.Errorf("write manifest: %d bytes with what is known of it, at most %d", len(object), maxObject)
	}
	return s.alone(ctx, repo, func(ctx context.Context) error {
		if err := s.require(ctx, repo, opts); err != nil {
			return err
		}
		before := map[string]digest.Digest{}
		for _, tag := range opts.Tags {
			now, err := s.tag(ctx, repo, tag)
			if err != nil && !errors.Is(err, errAbsent) {
				return err
			}
			if before[tag] = now.Digest; opts.Expect != nil && !opts.Expect(tag, now.Digest) {
				return storage.ErrConditionFailed
			}
		}
		if err := s.create(ctx, repo); err != nil {
			return err
		}
		if _, err := s.put(ctx, manifestKey(repo, m.Descriptor.Digest), object, anyway); err != nil {
			return err
		}
		if m.Subject != "" {
			if _, err := s.putJSON(ctx, referrersKey(repo, m.Subject)+hex(m.Descriptor.Digest), m.Descriptor, anyway); err != nil {
				return err
			}
		}
		return s.setTags(ctx, repo, m.Descriptor.Digest, opts.Tags, before)
	})
}

// require reports what a manifest needs and the repository does not have.
func (s *Store) require(ctx context.Context, repo string, opts storage.PutOptions) error {
	var missing []digest.Digest
	for _, d := range opts.RequireBlobs {
		if _, _, err := s.read(ctx, linkKey(repo, d)); errors.Is(err, errAbsent) {
			missing = append(missing, d)
		} else if err != nil {
			return err
		}
	}
	for _, d := range opts.RequireManifests {
		if _, _, err := s.get(ctx, manifestKey(repo, d)); errors.Is(err, errAbsent) {
			missing = append(missing, d)
		} else if err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		return &storage.MissingError{Digests: missing}
	}
	return nil
}

// tag reads what a tag names; errAbsent if it is not there.
func (s *Store) tag(ctx context.Context, repo, tag string) (t tagged, err error) {
	_, err = s.getJSON(ctx, tagKey(repo, tag), &t)
	return t, err
}

// setTags makes tags name d, all of them or, if the store fails in between, those that it takes back again, none.
func (s *Store) setTags(ctx context.Context, repo string, d digest.Digest, tags []string, before map[string]digest.Digest) error {
	for i, tag := range tags {
		err := s.setTag(ctx, repo, tag, d)
		if err == nil {
			continue
		}
		for _, done := range tags[:i] {
			back := s.setTag
			if before[done] == "" {
				back = s.dropTag
			}
			err = errors.Join(err, back(ctx, repo, done, before[done]))
		}
		return err
	}
	for tag, old := range before {
		if old != "" && old != d {
			if err := s.remove(ctx, taggedKey(repo, old)+tag); err != nil {
				return err
			}
		}
	}
	return nil
}

// setTag makes a tag name d. The reverse comes first: an entry too much is looked at once more, one too few would be missed.
func (s *Store) setTag(ctx context.Context, repo, tag string, d digest.Digest) error {
	if _, err := s.put(ctx, taggedKey(repo, d)+tag, []byte(tag), anyway); err != nil {
		return err
	}
	_, err := s.putJSON(ctx, tagKey(repo, tag), tagged{d, time.Now().UTC()}, anyway)
	return err
}

// dropTag removes a tag that names d.
func (s *Store) dropTag(ctx context.Context, repo, tag string, d digest.Digest) error {
	err := s.remove(ctx, tagKey(repo, tag))
	if err == nil && d != "" {
		err = s.remove(ctx, taggedKey(repo, d)+tag)
	}
	return err
}

// GetTag implements storage.Manifests.
func (s *Store) GetTag(ctx context.Context, repo, tag string) (digest.Digest, error) {
	t, err := s.tag(ctx, repo, tag)
	if errors.Is(err, errAbsent) {
		err = s.unknown(ctx, repo, storage.ErrTagUnknown)
	}
	return t.Digest, err
}

// DeleteTag implements storage.Manifests.
func (s *Store) DeleteTag(ctx context.Context, repo, tag string, expect func(now digest.Digest) bool) error {
	return s.alone(ctx, repo, func(ctx context.Context) error {
		now, err := s.GetTag(ctx, repo, tag)
		if err != nil {
			return err
		}
		if expect != nil && !expect(now) {
			return storage.ErrConditionFailed
		}
		return s.dropTag(ctx, repo, tag, now)
	})
}

// DeleteManifest implements storage.Manifests.
func (s *Store) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	return s.alone(ctx, repo, func(ctx context.Context) error {
		m, err := s.GetManifest(ctx, repo, d)
		if err != nil {
			return err
		}
		return s.dropManifest(ctx, repo, m)
	})
}

// dropManifest removes the tags of a manifest, its entry as a referrer, and it.
func (s *Store) dropManifest(ctx context.Context, repo string, m storage.Manifest) error {
	d := m.Descriptor.Digest
	var tags []string
	err := s.list(ctx, taggedKey(repo, d), "", func(tag string) (bool, error) {
		tags = append(tags, tag)
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, tag := range tags {
		now, err := s.tag(ctx, repo, tag)
		switch {
		case err == nil && now.Digest == d:
			err = s.dropTag(ctx, repo, tag, d)
		case err == nil || errors.Is(err, errAbsent): // it was moved, and the entry is left over
			err = s.remove(ctx, taggedKey(repo, d)+tag)
		}
		if err != nil {
			return err
		}
	}
	if m.Subject != "" {
		if err := s.remove(ctx, referrersKey(repo, m.Subject)+hex(d)); err != nil {
			return err
		}
	}
	return s.remove(ctx, manifestKey(repo, d))
}

// ListTags implements storage.Manifests.
func (s *Store) ListTags(ctx context.Context, repo, after string, n int) ([]string, bool, error) {
	tags, more, err := s.page(ctx, repoKey(repo)+"tags/", after, n, func(rest string) (string, bool) { return rest, !strings.Contains(rest, "/") })
	if err == nil && len(tags) == 0 {
		err = s.unknown(ctx, repo, nil)
	}
	return tags, more, err
}

// ListReferrers implements storage.Manifests.
func (s *Store) ListReferrers(ctx context.Context, repo string, subject digest.Digest, after string, n int) (list []v1.Descriptor, more bool, err error) {
	prefix := referrersKey(repo, subject)
	digests, more, err := s.page(ctx, prefix, strings.Replace(after, ":", "/", 1), n, func(rest string) (string, bool) {
		d, ok := digestOf(rest)
		return string(d), ok
	})
	for _, d := range digests {
		var desc v1.Descriptor
		if _, err := s.getJSON(ctx, prefix+hex(digest.Digest(d)), &desc); err == nil {
			list = append(list, desc)
		} else if !errors.Is(err, errAbsent) { // deleted meanwhile
			return nil, false, err
		}
	}
	return list, more && len(list) > 0, err
}
