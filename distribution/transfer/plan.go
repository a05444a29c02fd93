package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
)

// A plan is what will be copied.
type plan struct {
	blobs  []v1.Descriptor   // the largest first
	levels [][]v1.Descriptor // manifests and indexes: what is in a level refers to blobs and to levels before it
	sparse bool              // an index names what is not in the plan
	// referrers are the documents that are in the plan for their subjects: each is in a later level than its subject.
	referrers map[digest.Digest]bool
}

// A walk visits a graph, level by level from its roots, so that the documents of a level can be read side by side. The paths
// in a graph may be as many as two to the power of its depth (CVE-2026-53493): each thing is visited once.
type walk struct {
	lib      *library
	o        *Options
	wanted   map[digest.Digest]bool // the only entries of indexes to copy; nil: all
	children map[digest.Digest][]v1.Descriptor
	subjects map[digest.Digest][]v1.Descriptor // what a referrer was found by
	seen     map[digest.Digest]bool
	order    []v1.Descriptor // documents, as they were found
	plan     *plan
}

// plan finds out what has to be copied.
func (l *library) plan(ctx context.Context, root v1.Descriptor, o *Options) (*plan, error) {
	w := &walk{lib: l, o: o, children: map[digest.Digest][]v1.Descriptor{}, subjects: map[digest.Digest][]v1.Descriptor{},
		seen: map[digest.Digest]bool{}, plan: &plan{referrers: map[digest.Digest]bool{}}}
	if err := w.choose(ctx, root); err != nil {
		return nil, err
	}
	roots := []v1.Descriptor{root}
	for depth := int64(0); len(roots) > 0; depth++ {
		if depth > l.limits.Depth {
			return nil, &LimitError{"Depth", l.limits.Depth}
		}
		before := len(w.order)
		if err := w.visit(ctx, roots); err != nil {
			return nil, err
		}
		if !o.Referrers {
			break
		}
		var err error
		if roots, err = w.referrers(ctx, w.order[before:]); err != nil {
			return nil, err
		}
		w.wanted = nil // an index that refers to the image is for every platform
	}
	w.arrange()
	return w.plan, nil
}

// choose fills in wanted.
func (w *walk) choose(ctx context.Context, root v1.Descriptor) error {
	if len(w.o.Platforms) == 0 {
		return nil
	}
	w.wanted = map[digest.Digest]bool{}
	for _, p := range w.o.Platforms {
		img, err := w.lib.choose(ctx, root, p)
		if errors.Is(err, ErrNotImage) && !manifest.IsIndex(root.MediaType) {
			return nil // an artifact is for every platform
		}
		if err != nil {
			return err
		}
		for _, d := range img.Path {
			w.wanted[d.Digest] = true
		}
	}
	return nil
}

// visit adds everything below roots to the plan.
func (w *walk) visit(ctx context.Context, roots []v1.Descriptor) error {
	level := roots
	for depth := int64(0); len(level) > 0; depth++ {
		if depth >= w.lib.limits.Depth {
			return &LimitError{"Depth", w.lib.limits.Depth}
		}
		var documents []v1.Descriptor
		for _, d := range level {
			if _, err := w.lib.meet(d); err != nil {
				return err
			}
			if w.seen[d.Digest] {
				continue
			}
			w.seen[d.Digest] = true
			if err := w.lib.charge(d); err != nil {
				return err
			}
			if !manifest.IsDocument(d.MediaType) {
				if _, err := manifest.Refer(nil, d.MediaType); err != nil {
					return err
				}
				w.plan.blobs = append(w.plan.blobs, d)
				continue
			}
			documents = append(documents, d)
		}
		var err error
		if level, err = w.open(ctx, documents, depth == 0); err != nil {
			return err
		}
	}
	return nil
}

// open reads documents of one level, side by side, and returns what they refer to that is to be copied.
func (w *walk) open(ctx context.Context, documents []v1.Descriptor, atRoot bool) ([]v1.Descriptor, error) {
	all := make([]manifest.References, len(documents))
	missing := make([]bool, len(documents))
	err := parallel(ctx, w.o.jobs(), len(documents), func(ctx context.Context, i int) (err error) {
		all[i], err = w.lib.refer(ctx, documents[i])
		if w.o.Sparse && !atRoot && errors.Is(err, content.ErrNotFound) {
			missing[i], err = true, nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var next []v1.Descriptor
	for i, d := range documents {
		if missing[i] {
			w.plan.sparse = true
			continue
		}
		w.order = append(w.order, d)
		for _, child := range all[i].Children {
			if manifest.IsIndex(d.MediaType) && w.wanted != nil && !w.wanted[child.Digest] {
				w.plan.sparse = true
				continue
			}
			if w.o.SkipNonDistributable && manifest.IsNonDistributable(child.MediaType) {
				continue
			}
			w.children[d.Digest] = append(w.children[d.Digest], child)
			next = append(next, child)
		}
	}
	return next, nil
}

// referrers returns what refers to one of subjects.
func (w *walk) referrers(ctx context.Context, subjects []v1.Descriptor) ([]v1.Descriptor, error) {
	src, ok := w.lib.src.(Referrer)
	if !ok {
		return nil, errors.New("list referrers: this source cannot")
	}
	all := make([][]v1.Descriptor, len(subjects))
	err := parallel(ctx, w.o.jobs(), len(subjects), func(ctx context.Context, i int) (err error) {
		if all[i], err = src.Referrers(ctx, subjects[i], ""); err != nil {
			return fmt.Errorf("list referrers of %s: %w", subjects[i].Digest, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, subject := range subjects {
		for _, d := range all[i] {
			// Who lists referrers may lie, and list what is below the subject. What is seen for the first time now is not: so what
			// refers to what has no circles.
			if !w.seen[d.Digest] {
				w.subjects[d.Digest] = append(w.subjects[d.Digest], subject)
				w.plan.referrers[d.Digest] = true
			}
		}
	}
	return slices.Concat(all...), nil
}

// arrange sorts documents into levels by their height above the blobs, referrers above their subjects, and blobs by their size.
func (w *walk) arrange() {
	height := map[digest.Digest]int{}
	// Children were found after their parents or in the same visit at the latest; a digest cannot contain itself, so that this
	// comes to an end, but one may be the child of parents on several levels.
	var measure func(d v1.Descriptor) int
	measure = func(d v1.Descriptor) int {
		if h, ok := height[d.Digest]; ok {
			return h
		}
		h := 0
		for _, child := range slices.Concat(w.children[d.Digest], w.subjects[d.Digest]) {
			if manifest.IsDocument(child.MediaType) {
				h = max(h, 1+measure(child))
			}
		}
		height[d.Digest] = h
		return h
	}
	for _, d := range w.order {
		h := measure(d)
		for len(w.plan.levels) <= h {
			w.plan.levels = append(w.plan.levels, nil)
		}
		w.plan.levels[h] = append(w.plan.levels[h], d)
	}
	slices.SortStableFunc(w.plan.blobs, func(a, b v1.Descriptor) int {
		switch {
		case a.Size > b.Size:
			return -1
		case a.Size < b.Size:
			return 1
		}
		return 0
	})
}
