package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"time"

	"crypto/sha256"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// Named is an entry of the store's index.json.
type Named struct {
	// Name is the full name, as reference.Name.String gives it, or what another tool has written. It is empty for content
	// that was stored by digest, and for an entry whose name an earlier entry has: the first one counts.
	Name       string
	Descriptor v1.Descriptor
	Used       time.Time // when it was tagged or Touch was called last; zero if that is not known
}

// List returns what the store's index.json lists, in its order. Entries that are not descriptors are left out: Fsck reports
// them. No manifest is read.
func (s *Store) List(context.Context) ([]Named, error) {
	idx, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	used, err := s.usedTimes()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	list := make([]Named, 0, len(idx.entries()))
	for _, e := range idx.entries() {
		if e.err == nil {
			list = append(list, Named{Name: e.name, Descriptor: e.desc, Used: used[usedName(e.name, e.desc.Digest)]})
		}
	}
	return list, nil
}

// Resolve returns the descriptor that ref stands for: a name to the letter, a name in any form that reference.ParseName
// completes, or a digest, alone or behind a name; of a name with tag and digest the digest counts. Content that is there and
// has no name is found by its digest if it is an index or a manifest. The error wraps content.ErrNotFound.
func (s *Store) Resolve(_ context.Context, ref string) (v1.Descriptor, error) {
	idx, err := s.readIndex()
	if err != nil {
		return v1.Descriptor{}, err
	}
	if d, ok := isDigest(ref); ok {
		return s.byDigest(idx, d)
	}
	if d, ok := idx.find(ref); ok {
		return d, nil
	}
	name, err := reference.ParseName(ref)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("%w: %w in the store", err, content.ErrNotFound)
	}
	if d, ok := idx.find(name.String()); ok {
		return d, nil
	}
	if name.Digest != "" {
		return s.byDigest(idx, name.Digest)
	}
	return v1.Descriptor{}, fmt.Errorf("image %s: %w in the store", name, content.ErrNotFound)
}

// isDigest tells a digest from a name: by the grammar of digests of unknown algorithms, ubuntu:22 could be one too.
func isDigest(ref string) (digest.Digest, bool) {
	d := digest.Digest(ref)
	return d, reference.CheckVerifiable(d) == nil
}

func (idx *index) find(name string) (v1.Descriptor, bool) {
	if name == "" {
		return v1.Descriptor{}, false
	}
	return idx.first(name, func(e entry) bool { return e.name == name })
}

// byDigest finds an entry of index.json by its digest, or describes an index or a manifest that is there without one.
func (s *Store) byDigest(idx *index, d digest.Digest) (v1.Descriptor, error) {
	if found, ok := idx.first(d.String(), func(e entry) bool { return e.desc.Digest == d }); ok {
		return found, nil
	}
	raw, err := s.readDoc(d, manifest.MaxManifest)
	if err != nil {
		return v1.Descriptor{}, err
	}
	doc, ok := parseDocument(raw)
	if !ok {
		return v1.Descriptor{}, fmt.Errorf("blob %s is neither an index nor a manifest: no image by that digest: %w", d, content.ErrNotFound)
	}
	return v1.Descriptor{MediaType: doc.mediaType(), Digest: d, Size: int64(len(raw))}, nil
}

// Tag makes ref a name of d, in place of what it named before. ref is completed as reference.ParseName does. An empty ref
// lists d without a name, unless it is listed already. d and what it refers to are held by the name from then on, and no
// longer by this process, unless by a lease. The error wraps content.ErrNotFound if d is not there.
func (s *Store) Tag(ctx context.Context, d v1.Descriptor, ref string) error {
	name := ""
	if ref != "" {
		n, err := reference.ParseName(ref)
		if err != nil {
			return fmt.Errorf("tag: %w", err)
		}
		name = n.String()
	}
	e, err := newEntry(d, name)
	if err != nil {
		return fmt.Errorf("tag: %w", err)
	}
	shared, err := s.share(ctx)
	if err != nil {
		return err
	}
	defer shared.Close()
	if there, err := s.has(d); err != nil {
		return fmt.Errorf("tag: %w", err)
	} else if !there {
		return fmt.Errorf("tag %s as %s: %w in the store", d.Digest, name, content.ErrNotFound)
	}
	if err := errors.Join(s.syncBlobs(), s.touch(name, d.Digest)); err != nil {
		return fmt.Errorf("tag %s: %w", name, err)
	}
	err = s.change(ctx, func(old []entry) ([]entry, bool, error) { return replaceEntry(old, e) })
	if err != nil {
		return fmt.Errorf("tag %s: %w", name, err)
	}
	s.unhold(d)
	return nil
}

// newEntry describes d under a name for index.json.
func newEntry(d v1.Descriptor, name string) (entry, error) {
	d.Data = nil // the blob is there
	d.Annotations = maps.Clone(d.Annotations)
	delete(d.Annotations, containerdName) // another place's name
	delete(d.Annotations, v1.AnnotationRefName)
	if name != "" {
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[v1.AnnotationRefName] = name
	}
	if err := manifest.CheckDescriptor(d); err != nil {
		return entry{}, err
	}
	raw, err := encodeJSON(d)
	return entry{raw: raw, desc: d, name: name}, err
}

// replaceEntry puts e in place of what has its name, and of an entry without a name for the same content.
func replaceEntry(old []entry, e entry) (changed []entry, keep bool, err error) {
	placed := false
	for _, o := range old {
		same := o.err == nil && o.desc.Digest == e.desc.Digest
		if e.name == "" && same {
			return nil, true, nil // it is listed
		}
		o.name = o.desc.Annotations[v1.AnnotationRefName] // also of duplicates
		switch {
		case o.err != nil || o.name != e.name && (o.name != "" || !same):
			changed = append(changed, o)
		case !placed:
			changed, placed = append(changed, e), true
		}
	}
	if !placed {
		changed = append(changed, e)
	}
	return changed, false, nil
}

// Untag removes a name, in any form that Resolve takes, and returns what it named; for a digest, the entry without a name. The
// content stays until Prune finds that nothing else holds it. The error wraps content.ErrNotFound.
func (s *Store) Untag(ctx context.Context, ref string) (v1.Descriptor, error) {
	shared, err := s.share(ctx)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer shared.Close()
	var removed v1.Descriptor
	var name string
	err = s.change(ctx, func(old []entry) ([]entry, bool, error) {
		match, err := matchEntry(old, ref)
		if err != nil {
			return nil, false, err
		}
		var changed []entry
		for _, e := range old {
			if e.err != nil || !match(e) {
				changed = append(changed, e)
			} else if removed.Digest == "" {
				removed, name = e.desc, e.name
			}
		}
		return changed, false, nil
	})
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("untag: %w", err)
	}
	if err := os.Remove(s.path("used", usedName(name, removed.Digest))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return removed, fmt.Errorf("untag %s: %w", ref, err)
	}
	return removed, nil
}

// matchEntry returns what tells the entries that ref means, of which there is one at least.
func matchEntry(entries []entry, ref string) (func(entry) bool, error) {
	tests := []func(e entry) bool{}
	if d, ok := isDigest(ref); ok {
		tests = append(tests, func(e entry) bool { return e.name == "" && e.desc.Digest == d })
	} else {
		tests = append(tests, func(e entry) bool { return ref != "" && e.desc.Annotations[v1.AnnotationRefName] == ref })
		if name, err := reference.ParseName(ref); err == nil {
			tests = append(tests, func(e entry) bool { return e.desc.Annotations[v1.AnnotationRefName] == name.String() })
		}
	}
	for _, test := range tests {
		for _, e := range entries {
			if e.err == nil && test(e) {
				return test, nil
			}
		}
	}
	return nil, fmt.Errorf("image %.300q: %w in the store", ref, content.ErrNotFound)
}

// Touch records that a name, or the entry without a name of a digest, was used now.
func (s *Store) Touch(_ context.Context, n Named) error {
	return s.touch(n.Name, n.Descriptor.Digest)
}

// touch is not synced: after a power cut an older time is as good.
func (s *Store) touch(name string, d digest.Digest) error {
	path := s.path("used", usedName(name, d))
	if err := s.may("touch", path); err != nil {
		return err
	}
	now := time.Now()
	err := os.Chtimes(path, now, now)
	if errors.Is(err, fs.ErrNotExist) {
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, fileMode); err == nil {
			err = f.Close()
		}
	}
	return err
}

// usedName returns the name of the file whose time is the last use: names have characters and lengths that files cannot have.
func usedName(name string, d digest.Digest) string {
	if name == "" {
		name = d.String()
	}
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:16])
}

// usedTimes returns the times of all files of usedName.
func (s *Store) usedTimes() (map[string]time.Time, error) {
	list, err := os.ReadDir(s.path("used"))
	if err != nil {
		return nil, err
	}
	times := make(map[string]time.Time, len(list))
	for _, e := range list {
		if info, err := e.Info(); err == nil { // it may have been removed meanwhile
			times[e.Name()] = info.ModTime()
		}
	}
	return times, nil
}
