package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// PruneOptions say what Prune removes besides what nothing holds.
type PruneOptions struct {
	DryRun bool // only report

	// Which entries of index.json lose their place: those without a name, or all. What a lease holds stays, and what was used
	// at UnusedSince or later, if that is set, and what Keep, if it is set, returns true for.
	Unnamed, All bool
	UnusedSince  time.Time
	Keep         func(Named) bool

	// Partial is how old a download must be that nobody goes on with; 0 is a day.
	Partial time.Duration

	// Grace spares blobs younger than this: other tools that write into the layout take no lease. tare's own are held until
	// they are named, and need none.
	Grace time.Duration

	// Layers, if it is set, is called with the diff IDs of all unpacked layers that are held, while nobody can hold more: to
	// remove the others, unless dryRun. It must not use the store.
	Layers func(ctx context.Context, held map[digest.Digest]bool, dryRun bool) error
}

// PruneReport says what Prune removed, or would remove.
type PruneReport struct {
	Untagged []Named           // entries of index.json
	Blobs    []v1.Descriptor   // Digest and Size
	Partial  []PartialDownload // of blobs
	Bytes    int64             // of Blobs and Partial: what the files held
}

// PartialDownload is an unfinished download.
type PartialDownload struct {
	Name  string // of the file
	Bytes int64
	Time  time.Time // of the last byte
}

const defaultPartial = 24 * time.Hour

// Prune removes garbage: what no name, no entry of index.json and no lease holds, directly or through manifests; manifests
// whose subject is kept are kept. Pulls and pushes may be under way: what they have seen or stored they hold. If a manifest
// that is held is damaged, nothing is removed, since what it holds is not known: Fsck first.
func (s *Store) Prune(ctx context.Context, opts PruneOptions) (PruneReport, error) {
	lock, err := s.alone(ctx)
	if err != nil {
		return PruneReport{}, err
	}
	defer lock.Close()
	p := pruner{s: s, opts: opts}
	if err := p.run(ctx); err != nil {
		return p.report, fmt.Errorf("prune: %w", err)
	}
	return p.report, nil
}

type pruner struct {
	s      *Store
	opts   PruneOptions
	leases []node
	layers []digest.Digest
	report PruneReport
}

func (p *pruner) run(ctx context.Context) error {
	if err := p.readLeases(ctx); err != nil {
		return err
	}
	roots, err := p.roots(ctx)
	if err != nil {
		return err
	}
	g := newGraph(p.s)
	g.configs = p.opts.Layers != nil
	if err := g.mark(append(roots, p.leases...)...); err != nil {
		return err
	}
	if err := g.markReferrers(ctx); err != nil {
		return err
	}
	if err := p.untag(ctx); err != nil {
		return err
	}
	if err := p.sweep(ctx, g); err != nil {
		return err
	}
	if err := p.sweepUsed(ctx); err != nil {
		return err
	}
	if err := p.sweepIngest(); err != nil {
		return err
	}
	if p.opts.Layers == nil {
		return nil
	}
	held := map[digest.Digest]bool{}
	for n := range g.marked {
		if n.kind == kindUnpacked {
			held[n.digest] = true
		}
	}
	for _, d := range p.layers {
		held[d] = true
	}
	return p.opts.Layers(ctx, held, p.opts.DryRun)
}

// readLeases collects what leases hold, and removes those that are over.
func (p *pruner) readLeases(ctx context.Context) error {
	if !p.opts.DryRun {
		if err := p.s.buryLeases(0); err != nil {
			return err
		}
		if err := p.s.removeExpired(); err != nil {
			return err
		}
	}
	leases, err := p.s.Leases(ctx)
	if err != nil {
		return err
	}
	for _, l := range leases {
		for _, d := range l.Digests {
			p.leases = append(p.leases, node{d, kindUnknown})
		}
		p.layers = append(p.layers, l.Layers...)
	}
	return nil
}

// removeExpired removes the files of leases that are past their time, and of those that were never completely written. The
// caller has alone, so nobody is writing one.
func (s *Store) removeExpired() error {
	entries, err := os.ReadDir(s.path("leases"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := s.path("leases", e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."), strings.HasPrefix(e.Name(), "new-"):
			err = os.Remove(path)
		case strings.HasSuffix(e.Name(), persistent):
			var info LeaseInfo
			if info, err = readLease(path); err == nil && !info.Expires.IsZero() && time.Now().After(info.Expires) {
				err = os.Remove(path)
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("lease %s: %w", e.Name(), err)
		}
	}
	return nil
}

// roots returns what index.json holds after the options were obeyed, and notes in the report what loses its place.
func (p *pruner) roots(ctx context.Context) ([]node, error) {
	list, err := p.s.List(ctx)
	if err != nil {
		return nil, err
	}
	leased := map[digest.Digest]bool{}
	for _, n := range p.leases {
		leased[n.digest] = true
	}
	var roots []node
	for _, n := range list {
		drop, err := p.drops(n, leased)
		if err != nil {
			return nil, err
		}
		if drop {
			p.report.Untagged = append(p.report.Untagged, n)
		} else {
			roots = append(roots, node{n.Descriptor.Digest, kindOf(n.Descriptor.MediaType)})
		}
	}
	return roots, nil
}

// drops decides whether an entry of index.json loses its place.
func (p *pruner) drops(n Named, leased map[digest.Digest]bool) (bool, error) {
	o := &p.opts
	if !o.All && !(o.Unnamed && n.Name == "") || !o.UnusedSince.IsZero() && !n.Used.Before(o.UnusedSince) || o.Keep != nil && o.Keep(n) {
		return false, nil
	}
	// In use is an image of which a lease holds the index, a manifest or the configuration: layers are shared by many.
	g := newGraph(p.s)
	if err := g.mark(node{n.Descriptor.Digest, kindOf(n.Descriptor.MediaType)}); err != nil {
		return false, err
	}
	for held := range g.marked {
		if held.kind != kindLayer && leased[held.digest] {
			return false, nil
		}
	}
	return true, nil
}

// untag removes the entries of index.json that the report lists. It comes before the blobs: a killed prune leaves garbage, and
// no names of nothing.
func (p *pruner) untag(ctx context.Context) error {
	if p.opts.DryRun || len(p.report.Untagged) == 0 {
		return nil
	}
	type key struct {
		name   string
		digest digest.Digest
	}
	drop := map[key]bool{}
	for _, n := range p.report.Untagged {
		drop[key{n.Name, n.Descriptor.Digest}] = true
	}
	err := p.s.change(ctx, func(old []entry) (changed []entry, keep bool, err error) {
		for _, e := range old {
			if e.err != nil || !drop[key{e.name, e.desc.Digest}] {
				changed = append(changed, e)
			}
		}
		return changed, false, nil
	})
	if err != nil {
		return err
	}
	return nil
}

// sweepUsed removes the times of use of names that are no more.
func (p *pruner) sweepUsed(ctx context.Context) error {
	if p.opts.DryRun {
		return nil
	}
	list, err := p.s.List(ctx)
	if err != nil {
		return err
	}
	times, err := p.s.usedTimes()
	if err != nil {
		return err
	}
	for _, n := range list {
		delete(times, usedName(n.Name, n.Descriptor.Digest))
	}
	for name := range times {
		if err := os.Remove(p.s.path("used", name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// sweep removes the blobs that are not marked.
func (p *pruner) sweep(ctx context.Context, g *graph) error {
	held := map[digest.Digest]bool{}
	for n := range g.marked {
		if n.kind != kindUnpacked {
			held[n.digest] = true
		}
	}
	return p.s.eachBlob(ctx, func(d digest.Digest, info os.FileInfo) error {
		if held[d] || p.opts.Grace > 0 && time.Since(info.ModTime()) < p.opts.Grace {
			return nil
		}
		if !p.opts.DryRun {
			path := p.s.blobPath(d)
			if err := p.s.may("remove", path); err != nil {
				return err
			}
			if err := os.Remove(path); err != nil {
				return err
			}
		}
		p.report.Blobs = append(p.report.Blobs, v1.Descriptor{Digest: d, Size: info.Size()})
		p.report.Bytes += info.Size()
		return nil
	})
}

// sweepIngest removes downloads that nobody goes on with, and what Fsck put away as long ago.
func (p *pruner) sweepIngest() error {
	age := p.opts.Partial
	if age == 0 {
		age = defaultPartial
	}
	for _, sub := range []string{"ingest", "broken"} {
		entries, err := os.ReadDir(p.s.path(sub))
		if err != nil {
			return err
		}
		for _, e := range entries {
			info, err := e.Info()
			least := age
			if strings.HasPrefix(e.Name(), "create-") { // of Open, which takes no lock
				least = max(age, time.Hour)
			}
			if errors.Is(err, fs.ErrNotExist) || err == nil && time.Since(info.ModTime()) < least {
				continue
			}
			path := p.s.path(sub, e.Name())
			removed := false
			if err == nil && p.opts.DryRun {
				removed, err = isFree(path)
			} else if err == nil {
				removed, err = removeFree(path)
			}
			if err != nil {
				return err
			}
			if removed {
				p.report.Partial = append(p.report.Partial, PartialDownload{e.Name(), info.Size(), info.ModTime()})
				p.report.Bytes += info.Size()
			}
		}
	}
	return nil
}

// eachBlob calls each for every regular file in blobs/ whose name is a digest.
func (s *Store) eachBlob(ctx context.Context, each func(d digest.Digest, info os.FileInfo) error) error {
	algorithms, err := os.ReadDir(filepath.Join(s.dir, v1.ImageBlobsDir))
	if err != nil {
		return err
	}
	for _, alg := range algorithms {
		if !alg.IsDir() {
			continue
		}
		blobs, err := os.ReadDir(filepath.Join(s.dir, v1.ImageBlobsDir, alg.Name()))
		if err != nil {
			return err
		}
		for _, b := range blobs {
			if err := ctx.Err(); err != nil {
				return err
			}
			d := digest.Digest(alg.Name() + ":" + b.Name())
			if reference.CheckDigest(d) != nil || !b.Type().IsRegular() {
				continue
			}
			info, err := b.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = each(d, info)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// markReferrers marks the manifests whose subject is marked, and what they hold.
func (g *graph) markReferrers(ctx context.Context) (err error) {
	if g.referrers, err = g.findReferrers(ctx); err != nil {
		return err
	}
	var roots []node
	for n := range g.marked {
		for _, r := range g.referrers[n.digest] {
			if g.visit != nil {
				g.visit(n, r)
			}
			roots = append(roots, r)
		}
	}
	return g.mark(roots...)
}

// findReferrers returns the manifests that are not marked by their subjects. Nothing points to them, so every blob that may be a
// manifest is looked at.
func (g *graph) findReferrers(ctx context.Context) (map[digest.Digest][]node, error) {
	seen := map[digest.Digest]bool{}
	for n := range g.marked {
		seen[n.digest] = true
	}
	referrers := map[digest.Digest][]node{}
	err := g.s.eachBlob(ctx, func(d digest.Digest, info os.FileInfo) error {
		if seen[d] || info.Size() > manifest.MaxManifest || reference.CheckVerifiable(d) != nil {
			return nil
		}
		if subject, k := g.s.subject(d); subject != "" {
			referrers[subject] = append(referrers[subject], node{d, k})
		}
		return nil
	})
	return referrers, err
}

// subject returns what a blob, if it is a manifest or index, says is its subject, and as what it is referred to. A blob that
// is damaged or none of these has no subject.
func (s *Store) subject(d digest.Digest) (digest.Digest, kind) {
	f, _, err := s.open(d)
	if err != nil {
		return "", kindUnknown
	}
	var first [1]byte
	_, err = io.ReadFull(f, first[:])
	f.Close()
	if err != nil || !strings.ContainsAny(string(first[:]), "{ \t\r\n") {
		return "", kindUnknown // most are layers
	}
	raw, err := s.readDoc(d, manifest.MaxManifest)
	if err != nil {
		return "", kindUnknown
	}
	doc, ok := parseDocument(raw)
	if !ok || doc.Subject == nil {
		return "", kindUnknown
	}
	return doc.Subject.Digest, doc.kind()
}

// Usage is how much the store holds.
type Usage struct {
	Blobs   int
	Bytes   int64 // of the blobs
	Partial int64 // bytes of unfinished downloads, and of damaged blobs that Fsck put away
}

// Size adds up what is in the store.
func (s *Store) Size(ctx context.Context) (Usage, error) {
	var u Usage
	err := s.eachBlob(ctx, func(_ digest.Digest, info os.FileInfo) error {
		u.Blobs++
		u.Bytes += info.Size()
		return nil
	})
	if err != nil {
		return Usage{}, fmt.Errorf("size of the store: %w", err)
	}
	for _, sub := range []string{"ingest", "broken"} {
		entries, err := os.ReadDir(s.path(sub))
		if err != nil {
			return Usage{}, fmt.Errorf("size of the store: %w", err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil {
				u.Partial += info.Size()
			}
		}
	}
	return u, nil
}
