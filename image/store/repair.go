package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
)

// graph checks that what images refer to is there and right, from the names down. A document that was fetched anew is followed
// as if it had been there.
func (c *checker) graph(ctx context.Context) error {
	c.visited, c.holders, c.names = map[node]bool{}, map[node][]node{}, map[node][]string{}
	var roots []edge
	for _, n := range c.list {
		e := edgeTo(n.Descriptor)
		if n.Name != "" {
			c.names[e.to] = append(c.names[e.to], n.Name)
		}
		if !c.visited[e.to] {
			c.visited[e.to] = true
			roots = append(roots, e)
			if err := c.need(e, true); err != nil {
				return err
			}
		}
	}
	leases, err := c.s.Leases(ctx)
	if err != nil {
		leases = nil // reported already
	}
	for _, l := range leases {
		for _, d := range l.Digests {
			n := node{d, kindUnknown}
			if size, err := c.s.stat(d); err == nil && !c.visited[n] { // what is not there is on its way
				c.visited[n] = true
				roots = append(roots, edge{n, v1.Descriptor{Digest: d, Size: size}})
			}
		}
	}
	if err := c.walk(ctx, roots, nil); err != nil {
		return err
	}
	if err := c.settle(ctx); err != nil {
		return err
	}
	g := newGraph(c.s)
	g.marked = c.visited
	referrers, err := g.findReferrers(ctx)
	if err != nil || len(referrers) == 0 {
		return err
	}
	var more []edge
	for n := range maps.Clone(c.visited) {
		more = append(more, c.follow(n, referrers[n.digest])...)
	}
	if err := c.walk(ctx, more, referrers); err != nil {
		return err
	}
	return c.settle(ctx)
}

// settle reports what walk found wrong, and repairs it and what is found behind the repaired, when all is known who needs it.
func (c *checker) settle(ctx context.Context) error {
	for len(c.pending) > 0 {
		now := c.pending
		c.pending = nil
		var again []edge
		for _, p := range now {
			p.problem.Names = c.namesOf(p.edge.to)
			c.problem(p.problem, func() error { return c.refetch(ctx, p.edge.desc, p.problem.Names) })
			if err := ctx.Err(); err != nil {
				return err
			}
			if c.report.Problems[len(c.report.Problems)-1].Repaired {
				again = append(again, p.edge)
			}
		}
		if err := c.walk(ctx, again, nil); err != nil {
			return err
		}
	}
	return nil
}

// walk follows edges whose ends are visited and checked.
func (c *checker) walk(ctx context.Context, todo []edge, referrers map[digest.Digest][]node) error {
	for edges := 0; len(todo) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		from := todo[len(todo)-1].to
		todo = todo[:len(todo)-1]
		held, err := newGraph(c.s).holds(from)
		if err != nil {
			continue // damaged, and reported
		}
		todo = append(todo, c.follow(from, referrers[from.digest])...)
		if edges += len(held); edges > maxEdges {
			return fmt.Errorf("the manifests in the store have more than %d references, the limit", maxEdges)
		}
		for _, e := range held {
			c.holders[e.to] = append(c.holders[e.to], from)
			if c.visited[e.to] {
				continue
			}
			c.visited[e.to] = true
			// An index may list what was not pulled.
			if err := c.need(e, from.kind == kindManifest); err != nil {
				return err
			}
			todo = append(todo, e)
		}
	}
	return nil
}

// follow notes that n holds its referrers, and returns those that were not visited.
func (c *checker) follow(n node, referrers []node) []edge {
	var more []edge
	for _, to := range referrers {
		c.holders[to] = append(c.holders[to], n)
		if !c.visited[to] {
			c.visited[to] = true
			more = append(more, edge{to: to}) // it was read already: it is good
		}
	}
	return more
}

// need checks the blob that e refers to.
func (c *checker) need(e edge, must bool) error {
	d := e.desc
	if e.to.kind == kindUnpacked || reference.CheckVerifiable(d.Digest) != nil {
		return nil
	}
	p := Problem{Path: blobName(d.Digest), Digest: d.Digest}
	wrong, damaged := c.bad[d.Digest]
	size, err := c.s.stat(d.Digest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !must || manifest.IsNonDistributable(d.MediaType) {
			return nil
		}
		p.Kind, p.Detail = ProblemMissing, fmt.Sprintf("%s of %d bytes is not there", d.MediaType, d.Size)
	case err != nil:
		return err
	case damaged, c.opts.Quick && size < d.Size:
		p.Kind, p.Detail = ProblemCorrupt, wrong
		if size < d.Size {
			p.Detail = strings.TrimPrefix(wrong+"; ", "; ") + fmt.Sprintf("the file has %d of %d bytes", size, d.Size)
		}
		delete(c.bad, d.Digest)
	case size != d.Size:
		p.Kind, p.Harmless, p.Detail = ProblemSize, true, fmt.Sprintf("it has %d bytes, who refers to it says %d", size, d.Size)
		c.problem(p, nil)
		return nil
	default:
		return nil
	}
	c.pending = append(c.pending, pending{p, e})
	return nil
}

// namesOf returns the names of the images that need n.
func (c *checker) namesOf(n node) []string {
	seen := map[node]bool{n: true}
	set := map[string]bool{}
	for todo := []node{n}; len(todo) > 0; todo = todo[1:] {
		for _, name := range c.names[todo[0]] {
			set[name] = true
		}
		for _, up := range c.holders[todo[0]] {
			if !seen[up] {
				seen[up] = true
				todo = append(todo, up)
			}
		}
	}
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// brokenPath is where damaged blobs are put.
func (s *Store) brokenPath(d digest.Digest) string {
	return s.path("broken", d.Algorithm().String()+"-"+d.Encoded())
}

// putAway moves a damaged blob out of the way, if it still is damaged.
func (c *checker) putAway(ctx context.Context, d digest.Digest) error {
	wrong, err := c.s.checkBlob(ctx, d, make([]byte, 1<<20))
	if err != nil {
		return err
	}
	delete(c.bad, d)
	if wrong == "" {
		return nil
	}
	return moveAway(c.s.blobPath(d), c.s.brokenPath(d))
}

// moveAway moves what is damaged, if it is there, to .tare/broken. Prune counts its age from now.
func moveAway(from, to string) error {
	err := os.Rename(from, to)
	if err == nil {
		now := time.Now()
		err = os.Chtimes(to, now, now)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// refetch brings a blob that is missing or damaged anew.
func (c *checker) refetch(ctx context.Context, d v1.Descriptor, names []string) error {
	if err := c.putAway(ctx, d.Digest); err != nil {
		return err
	}
	err := c.complete(ctx, d)
	if err != nil && !errors.Is(err, content.ErrExists) && c.opts.Fetch == nil {
		return fmt.Errorf("blob %s: nothing says where to fetch it from: pull the image again", d.Digest)
	}
	if err != nil && !errors.Is(err, content.ErrExists) {
		r, err := c.opts.Fetch(ctx, d, names)
		if err != nil {
			return fmt.Errorf("fetch blob %s: %w", d.Digest, err)
		}
		defer r.Close()
		if err := c.s.Push(ctx, d, r); err != nil {
			return fmt.Errorf("fetch blob %s: %w", d.Digest, err)
		}
	}
	if err := os.Remove(c.s.brokenPath(d.Digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// complete ends a download that has all bytes and was killed before it got its name. The error wraps content.ErrExists if the
// blob is there.
func (c *checker) complete(ctx context.Context, d v1.Descriptor) error {
	in, err := c.s.Ingest(ctx, d)
	if err != nil {
		return err
	}
	defer in.Close()
	return in.Commit()
}

// restoreIndex replaces a damaged index.json by what it was before its last change, and lists without a name what that does not
// list: indexes and manifests to which nothing refers.
func (c *checker) restoreIndex(ctx context.Context) error {
	s := c.s
	lock, err := s.lockIndex(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := s.readIndex(); err == nil {
		return nil // somebody was faster
	}
	idx, err := s.loadIndex(private + "/index.json.bak")
	if err != nil {
		if idx, err = parseIndex([]byte(emptyIndex)); err != nil {
			return err
		}
	}
	tops, err := c.tops(ctx)
	if err != nil {
		return err
	}
	entries := slices.Clone(idx.entries())
	for _, d := range tops {
		if slices.ContainsFunc(entries, func(e entry) bool { return e.desc.Digest == d.Digest }) {
			continue
		}
		e, err := newEntry(d, "")
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	data, err := idx.encode(entries)
	if err != nil {
		return err
	}
	old := s.path("broken", "index.json-"+time.Now().UTC().Format("20060102T150405"))
	if err := moveAway(filepath.Join(s.dir, v1.ImageIndexFile), old); err != nil {
		return err
	}
	return s.writeIndex(data)
}

// tops returns the good indexes and manifests that no other one refers to, and that refer to no subject.
func (c *checker) tops(ctx context.Context) ([]v1.Descriptor, error) {
	inner := map[digest.Digest]bool{}
	var tops []v1.Descriptor
	for _, b := range c.found {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if b.size > manifest.MaxManifest || reference.CheckVerifiable(b.digest) != nil {
			continue
		}
		raw, err := c.s.readDoc(b.digest, manifest.MaxManifest)
		if err != nil {
			continue // damaged, and reported
		}
		doc, ok := parseDocument(raw)
		if !ok {
			continue
		}
		for _, e := range doc.edges() {
			inner[e.to.digest] = true
		}
		if doc.Subject == nil {
			tops = append(tops, v1.Descriptor{MediaType: doc.mediaType(), Digest: b.digest, Size: b.size})
		}
	}
	tops = slices.DeleteFunc(tops, func(d v1.Descriptor) bool { return inner[d.Digest] })
	slices.SortFunc(tops, func(a, b v1.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	return tops, nil
}
