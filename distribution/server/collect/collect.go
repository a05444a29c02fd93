// Package collect removes from a registry what nothing holds, while it serves. Tags hold manifests, an index holds what it
// lists, a manifest holds its blobs, and what has a manifest as its subject (signatures, lists of contents) is held by it.
// Rules of retention say which tags go. The bytes of a blob go when no repository has it any more.
//
// Nothing that a push under way needs is lost: while manifests of a repository are looked at no other comes in, and what was
// pushed, mounted or asked for within the grace period stays.
package collect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// Policy says what is garbage. The zero value would remove blobs at once that are pushed before their manifest: Grace should be
// longer than any push takes.
type Policy struct {
	Grace     time.Duration // blobs and manifests that were used within it stay
	Uploads   time.Duration // uploads that stood still for so long are dropped; 0: none
	Untagged  bool          // manifests that nothing holds are garbage, not only what lost its tag by retention
	Retention []Rule
}

// A Rule says which tags stay. A tag that some rule is about and no rule keeps goes.
type Rule struct {
	Repositories []string      // patterns by access.Match
	Tags         []string      // patterns of the tags that the rule is about; none: all
	KeepLast     int           // that many of them, those that were pushed last
	KeepWithin   time.Duration // those that were pushed in the time before now; 0: none for that
	KeepTags     []string      // patterns of tags that stay in any case
}

// Kind is what was freed.
type Kind string

// What a collection frees.
const (
	Tag      Kind = "tag"
	Manifest Kind = "manifest"
	Link     Kind = "link" // a blob in one repository; its bytes may stay
	Blob     Kind = "blob" // the bytes of a blob, in no repository
	Upload   Kind = "upload"
)

// Freed is one thing that was freed, or with DryRun would be.
type Freed struct {
	Kind       Kind   `json:"kind"`
	Repository string `json:"repository,omitempty"` // none for Blob
	Name       string `json:"name"`                 // tag, digest, or id of an upload
	Bytes      int64  `json:"bytes"`                // that the storage has more afterwards: 0 for Tag and Link
}

// Options is how a collection runs.
type Options struct {
	Policy
	// DryRun removes nothing and reports exactly what would be removed if nobody used the registry meanwhile.
	DryRun bool
	// Each is called for everything that is freed. May be nil.
	Each func(Freed)
}

// Report is what a collection freed, or with DryRun would have freed.
type Report struct {
	Repositories int          `json:"repositories"` // that were looked at
	Count        map[Kind]int `json:"count"`
	Bytes        int64        `json:"bytes"`
}

func (r *Report) add(f Freed, each func(Freed)) {
	r.Count[f.Kind]++
	r.Bytes += f.Bytes
	if each != nil {
		each(f)
	}
}

// pageSize is how many repositories are listed at once.
const pageSize = 1000

// Run collects garbage once. If a repository cannot be looked at the others are, but no bytes of blobs are removed, since that
// one may have them; the report is what was done. Two collections at once do no harm.
func Run(ctx context.Context, s storage.Storage, opts Options) (Report, error) {
	start := time.Now()
	c := &collection{s: s, opts: opts, now: start, old: start.Add(-opts.Grace), linked: map[digest.Digest]bool{},
		report: Report{Count: map[Kind]int{}}}
	if err := c.uploads(ctx); err != nil {
		return c.report, err
	}
	var errs []error
	after := ""
	for more := true; more; {
		var names []string
		var err error
		if names, more, err = s.ListRepositories(ctx, after, pageSize); err != nil {
			return c.report, errors.Join(append(errs, err)...)
		}
		for _, name := range names {
			if err := c.repository(ctx, name); err != nil {
				errs = append(errs, fmt.Errorf("collect in repository %s: %w", name, err))
			}
			after = name
		}
		if err := ctx.Err(); err != nil {
			return c.report, err
		}
	}
	if len(errs) == 0 {
		errs = append(errs, c.contents(ctx))
	}
	return c.report, errors.Join(errs...)
}

// Uploads drops the uploads that stood still for longer than age, and does nothing else.
func Uploads(ctx context.Context, s storage.Storage, age time.Duration) (Report, error) {
	c := &collection{s: s, now: time.Now(), opts: Options{Policy: Policy{Uploads: age}}, report: Report{Count: map[Kind]int{}}}
	err := c.uploads(ctx)
	return c.report, err
}

type collection struct {
	s      storage.Storage
	opts   Options
	now    time.Time
	old    time.Time // what was used later stays
	linked map[digest.Digest]bool
	report Report
}

func (c *collection) free(f Freed) { c.report.add(f, c.opts.Each) }

// uploads drops uploads that nobody goes on with.
func (c *collection) uploads(ctx context.Context) error {
	if c.opts.Uploads <= 0 {
		return nil
	}
	return c.s.ListUploads(ctx, func(u storage.Upload) error {
		if u.Changed.After(c.now.Add(-c.opts.Uploads)) {
			return nil
		}
		if !c.opts.DryRun {
			err := c.s.AbortUpload(ctx, u.Repository, u.ID)
			if errors.Is(err, storage.ErrUploadBusy) || errors.Is(err, storage.ErrUploadUnknown) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("drop upload %s: %w", u.ID, err)
			}
		}
		c.free(Freed{Upload, u.Repository, u.ID, u.Received})
		return nil
	})
}

// repository collects in one repository and notes which blobs it has afterwards.
func (c *collection) repository(ctx context.Context, name string) error {
	var freed []Freed
	err := c.s.Sweep(ctx, name, func(has storage.Contents) (storage.Removal, error) {
		removal := decide(name, has, c.opts.Policy, c.now)
		freed = list(name, has, removal)
		gone := set(removal.Blobs)
		for _, b := range has.Blobs {
			// What is not unlinked because somebody uses it just now has bytes that are used just now.
			if !gone[b.Digest] {
				c.linked[b.Digest] = true
			}
		}
		if c.opts.DryRun {
			removal = storage.Removal{}
		}
		return removal, nil
	})
	if errors.Is(err, storage.ErrRepositoryUnknown) { // it went away
		return nil
	}
	if err != nil {
		return err
	}
	c.report.Repositories++
	for _, f := range freed {
		c.free(f)
	}
	return nil
}

// list says what a removal frees.
func list(name string, has storage.Contents, removal storage.Removal) []Freed {
	var freed []Freed
	for _, tag := range removal.Tags {
		freed = append(freed, Freed{Tag, name, tag, 0})
	}
	gone := set(removal.Manifests)
	for _, m := range has.Manifests {
		if gone[m.Descriptor.Digest] {
			freed = append(freed, Freed{Manifest, name, string(m.Descriptor.Digest), m.Descriptor.Size})
		}
	}
	for _, blob := range removal.Blobs {
		freed = append(freed, Freed{Link, name, string(blob), 0})
	}
	return freed
}

// contents removes the bytes of blobs that no repository has.
func (c *collection) contents(ctx context.Context) error {
	return c.s.Contents(ctx, func(b storage.BlobInfo) error {
		if c.linked[b.Digest] || b.Used.After(c.old) {
			return nil
		}
		if !c.opts.DryRun {
			removed, err := c.s.RemoveContent(ctx, b.Digest, c.old)
			if err != nil || !removed {
				return err
			}
		}
		c.free(Freed{Blob, "", string(b.Digest), b.Size})
		return nil
	})
}

func set(list []digest.Digest) map[digest.Digest]bool {
	m := make(map[digest.Digest]bool, len(list))
	for _, d := range list {
		m[d] = true
	}
	return m
}
