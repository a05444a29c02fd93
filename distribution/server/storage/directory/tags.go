package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/internal/atomicfile"
	"github.com/tare-oci/tare/internal/sys/fsat"
)

// readTag reads what a tag names.
func (d *Dir) readTag(name, tag string) (digest.Digest, error) {
	data, err := os.ReadFile(d.tagsDir(name) + "/" + tag)
	if err != nil {
		if absent(err) {
			err = storage.ErrTagUnknown
		}
		return "", fault("find tag "+tag, err)
	}
	found := digest.Digest(strings.TrimSuffix(string(data), "\n"))
	if err := found.Validate(); err != nil {
		return "", fmt.Errorf("read tag %s: %w", tag, err)
	}
	return found, nil
}

// readTags reads all tags of a repository, whose lock is held.
func (d *Dir) readTags(name string) (map[string]storage.TagInfo, error) {
	list, err := names(d.tagsDir(name))
	if err != nil {
		return nil, err
	}
	tags := make(map[string]storage.TagInfo, len(list))
	for _, tag := range list {
		found, err := d.readTag(name, tag)
		if err != nil {
			return nil, err
		}
		st, err := os.Stat(d.tagsDir(name) + "/" + tag)
		if err != nil {
			return nil, err
		}
		tags[tag] = storage.TagInfo{Digest: found, Changed: st.ModTime()}
	}
	return tags, nil
}

// writeTags makes tags name a manifest.
func (d *Dir) writeTags(name string, tags []string, m digest.Digest) error {
	if len(tags) == 0 {
		return nil
	}
	dir := d.tagsDir(name)
	return fault("write tag", d.names.change(dir, func() (added, removed []string, err error) {
		for _, tag := range tags {
			if err := atomicfile.Write(dir+"/"+tag, []byte(string(m)+"\n"), perm); err != nil {
				return nil, nil, err
			}
		}
		return tags, nil, nil
	}))
}

// restoreTags takes back what could be written of several tags.
func (d *Dir) restoreTags(name string, before map[string]digest.Digest) error {
	var errs []error
	for tag, m := range before {
		if m == "" {
			errs = append(errs, d.removeTags(name, []string{tag}))
		} else if now, err := d.readTag(name, tag); err != nil || now != m {
			errs = append(errs, d.writeTags(name, []string{tag}, m))
		}
	}
	return errors.Join(errs...)
}

// removeTags removes tags, those that are there.
func (d *Dir) removeTags(name string, tags []string) error {
	if len(tags) == 0 {
		return nil
	}
	dir := d.tagsDir(name)
	return fault("delete tag", d.names.change(dir, func() (added, removed []string, err error) {
		for _, tag := range tags {
			if err := os.Remove(dir + "/" + tag); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, nil, err
			}
		}
		return nil, tags, syncDir(dir)
	}))
}

// GetTag implements storage.Manifests.
func (d *Dir) GetTag(_ context.Context, name, tag string) (digest.Digest, error) {
	key := cacheKey{name, tag}
	st, err := fsat.Lstat(d.fd, repo(name)+"/tags/"+tag)
	if err == nil {
		if found, ok := d.cache.get(key, st).(digest.Digest); ok {
			return found, nil
		}
	}
	found, err := d.readTag(name, tag)
	if errors.Is(err, storage.ErrTagUnknown) {
		err = fault("find tag "+tag, d.unknown(name, storage.ErrTagUnknown))
	}
	if err == nil {
		d.cache.put(key, st, found)
	}
	return found, err
}

// DeleteTag implements storage.Manifests.
func (d *Dir) DeleteTag(ctx context.Context, name, tag string, expect func(digest.Digest) bool) error {
	if !d.hasRepo(name) {
		return storage.ErrRepositoryUnknown
	}
	unlock, err := d.lockRepo(name)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := d.GetTag(ctx, name, tag)
	if err != nil {
		return err
	}
	if expect != nil && !expect(now) {
		return fmt.Errorf("tag %s: %w", tag, storage.ErrConditionFailed)
	}
	return d.removeTags(name, []string{tag})
}

// ListTags implements storage.Manifests.
func (d *Dir) ListTags(_ context.Context, name, after string, n int) ([]string, bool, error) {
	if !d.hasRepo(name) {
		return nil, false, storage.ErrRepositoryUnknown
	}
	page, more, err := d.names.list(d.tagsDir(name), after, n)
	return page, more, fault("list tags", err)
}
