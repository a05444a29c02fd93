package directory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/internal/atomicfile"
	"github.com/tare-oci/tare/internal/sys/fsat"
)

// record is the line before the bytes of a manifest.
type record struct {
	Descriptor v1.Descriptor   `json:"descriptor"`
	Subject    digest.Digest   `json:"subject,omitempty"`
	Blobs      []digest.Digest `json:"blobs,omitempty"`
	Manifests  []digest.Digest `json:"manifests,omitempty"`
}

func manifestFile(name string, m digest.Digest) string {
	return repo(name) + "/manifests/" + string(m)
}

func (d *Dir) tagsDir(name string) string { return d.path(repo(name) + "/tags") }

func (d *Dir) referrersDir(name string, subject digest.Digest) string {
	return d.path(repo(name) + "/referrers/" + string(subject))
}

// PutManifest implements storage.Manifests.
func (d *Dir) PutManifest(ctx context.Context, repo string, m storage.Manifest, opts storage.PutOptions) error {
	if len(opts.RequireBlobs) > 0 && !d.hasRepo(repo) {
		return &storage.MissingError{Digests: opts.RequireBlobs}
	}
	if err := d.makeRepo(repo); err != nil {
		return err
	}
	for _, blob := range m.Blobs { // without the lock: it may take long
		if err := d.promote(blob); err != nil && !errors.Is(err, storage.ErrBlobUnknown) {
			return err
		}
	}
	unlock, err := d.lockRepo(repo)
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.require(repo, opts); err != nil {
		return err
	}
	before := map[string]digest.Digest{}
	for _, tag := range opts.Tags {
		now, err := d.readTag(repo, tag)
		if err != nil && !errors.Is(err, storage.ErrTagUnknown) {
			return err
		}
		if before[tag] = now; opts.Expect != nil && !opts.Expect(tag, now) {
			return fmt.Errorf("tag %s: %w", tag, storage.ErrConditionFailed)
		}
	}
	if err := d.writeManifest(ctx, repo, m); err != nil {
		return err
	}
	if err := d.writeTags(repo, opts.Tags, m.Descriptor.Digest); err != nil {
		return errors.Join(err, d.restoreTags(repo, before))
	}
	return nil
}

// require checks what a manifest must not be without, and syncs the names of its blobs.
func (d *Dir) require(repo string, opts storage.PutOptions) error {
	var missing []digest.Digest
	for _, blob := range opts.RequireBlobs {
		_, err := fsat.Lstat(d.fd, link(repo, blob))
		if err == nil {
			err = d.promote(blob) // what was pushed since the first look
		}
		switch {
		case err == nil:
		case absent(err) || errors.Is(err, storage.ErrBlobUnknown):
			missing = append(missing, blob)
		default:
			return fault("find blob", err)
		}
	}
	for _, m := range opts.RequireManifests {
		if _, err := fsat.Lstat(d.fd, manifestFile(repo, m)); err != nil {
			if !absent(err) {
				return fault("find manifest", err)
			}
			missing = append(missing, m)
		}
	}
	if len(missing) > 0 {
		return &storage.MissingError{Digests: missing}
	}
	return nil
}

// writeManifest writes a manifest and its entry as a referrer, the entry first: one without a manifest does not count.
func (d *Dir) writeManifest(ctx context.Context, name string, m storage.Manifest) error {
	if err := syncDir(d.path(repo(name) + "/blobs")); err != nil {
		return fault("sync blobs", err)
	}
	// Who only adds a tag pushes a manifest that is there, and need not wait for the disk again.
	if old, err := d.GetManifest(ctx, name, m.Descriptor.Digest); err == nil && same(old, m) {
		now := time.Now()
		return fault("write manifest", os.Chtimes(d.path(manifestFile(name, m.Descriptor.Digest)), now, now))
	}
	if m.Subject != "" {
		if err := d.addReferrer(name, m.Subject, m.Descriptor.Digest); err != nil {
			return fault("add referrer", err)
		}
	}
	head, err := json.Marshal(record{m.Descriptor, m.Subject, m.Blobs, m.Manifests})
	if err != nil {
		return fault("write manifest", err)
	}
	data := append(append(head, '\n'), m.Raw...)
	return fault("write manifest", atomicfile.Write(d.path(manifestFile(name, m.Descriptor.Digest)), data, perm))
}

// same reports whether two manifests of one digest would be the same file, and the same entry as a referrer.
func same(a, b storage.Manifest) bool {
	return a.Descriptor.MediaType == b.Descriptor.MediaType && a.Descriptor.ArtifactType == b.Descriptor.ArtifactType &&
		a.Subject == b.Subject && slices.Equal(a.Blobs, b.Blobs) && slices.Equal(a.Manifests, b.Manifests)
}

func (d *Dir) addReferrer(name string, subject, referrer digest.Digest) error {
	dir := d.referrersDir(name, subject)
	if err := os.Mkdir(dir, dirPerm); err == nil {
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.names.change(dir, func() (added, removed []string, err error) {
		return []string{string(referrer)}, nil, atomicfile.Write(dir+"/"+string(referrer), nil, perm)
	})
}

// GetManifest implements storage.Manifests.
func (d *Dir) GetManifest(_ context.Context, repo string, m digest.Digest) (storage.Manifest, error) {
	st, err := fsat.Lstat(d.fd, manifestFile(repo, m))
	if err != nil {
		return storage.Manifest{}, d.manifestError(repo, m, err)
	}
	key := cacheKey{repo, string(m)}
	if found, ok := d.cache.get(key, st).(storage.Manifest); ok {
		return found, nil
	}
	found, st, err := d.readManifest(manifestFile(repo, m))
	if err != nil {
		return storage.Manifest{}, d.manifestError(repo, m, err)
	}
	d.cache.put(key, st, found)
	return found, nil
}

func (d *Dir) manifestError(repo string, m digest.Digest, err error) error {
	if absent(err) {
		err = d.unknown(repo, storage.ErrManifestUnknown)
	}
	return fault("find manifest "+string(m), err)
}

// readManifest reads a manifest's file, and what the file was.
func (d *Dir) readManifest(file string) (m storage.Manifest, st fsat.Stat, err error) {
	f, err := os.Open(d.path(file))
	if err != nil {
		return m, st, err
	}
	defer f.Close()
	fd, err := fsat.Fd(f)
	if err != nil {
		return m, st, err
	}
	if st, err = fsat.Fstat(fd); err != nil {
		return m, st, err
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return m, st, err
	}
	head, raw, _ := bytes.Cut(data, []byte("\n"))
	var r record
	if err := json.Unmarshal(head, &r); err != nil {
		return m, st, fmt.Errorf("read %s: %w", file, err)
	}
	return storage.Manifest{
		Descriptor: r.Descriptor, Raw: raw, Subject: r.Subject, Blobs: r.Blobs, Manifests: r.Manifests, Pushed: st.Mtime,
	}, st, nil
}

// DeleteManifest implements storage.Manifests.
func (d *Dir) DeleteManifest(ctx context.Context, repo string, m digest.Digest) error {
	if !d.hasRepo(repo) {
		return storage.ErrRepositoryUnknown
	}
	unlock, err := d.lockRepo(repo)
	if err != nil {
		return err
	}
	defer unlock()
	tags, err := d.readTags(repo)
	if err != nil {
		return fault("delete manifest", err)
	}
	return d.deleteManifest(ctx, repo, m, tags)
}

// deleteManifest is DeleteManifest for who holds the repository's lock and knows its tags.
func (d *Dir) deleteManifest(ctx context.Context, repo string, m digest.Digest, all map[string]storage.TagInfo) error {
	found, err := d.GetManifest(ctx, repo, m)
	if err != nil {
		return err
	}
	var tags []string
	for tag, info := range all {
		if info.Digest == m {
			tags = append(tags, tag)
		}
	}
	if err := d.removeTags(repo, tags); err != nil {
		return err
	}
	return d.removeManifest(repo, found)
}

// removeManifest removes a manifest that no tag names, and its entry as a referrer.
func (d *Dir) removeManifest(repo string, m storage.Manifest) error {
	file := d.path(manifestFile(repo, m.Descriptor.Digest))
	if err := os.Remove(file); err != nil && !absent(err) {
		return fault("delete manifest", err)
	}
	if err := syncDir(filepath.Dir(file)); err != nil {
		return fault("delete manifest", err)
	}
	if m.Subject == "" {
		return nil
	}
	dir, entry := d.referrersDir(repo, m.Subject), string(m.Descriptor.Digest)
	if _, err := os.Lstat(dir); absent(err) {
		return nil
	}
	return fault("delete referrer", d.names.change(dir, func() (added, removed []string, err error) {
		if err := os.Remove(dir + "/" + entry); err != nil && !absent(err) {
			return nil, nil, err
		}
		return nil, []string{entry}, nil
	}))
}

// ListReferrers implements storage.Manifests.
func (d *Dir) ListReferrers(ctx context.Context, repo string, subject digest.Digest, after string, n int) ([]v1.Descriptor, bool, error) {
	if !d.hasRepo(repo) {
		return nil, false, storage.ErrRepositoryUnknown
	}
	var list []v1.Descriptor
	for {
		page, more, err := d.names.list(d.referrersDir(repo, subject), after, n)
		if err != nil {
			return nil, false, fault("list referrers", err)
		}
		for _, name := range page {
			m, err := d.GetManifest(ctx, repo, digest.Digest(name))
			if errors.Is(err, storage.ErrManifestUnknown) {
				continue
			}
			if err != nil {
				return nil, false, err
			}
			list = append(list, m.Descriptor)
		}
		if len(list) > 0 || !more {
			return list, more, nil
		}
		after = page[len(page)-1]
	}
}

// ListRepositories implements storage.Manifests.
func (d *Dir) ListRepositories(_ context.Context, after string, n int) ([]string, bool, error) {
	page, more, err := d.names.list(d.path("repositories"), after, n)
	return page, more, fault("list repositories", err)
}
