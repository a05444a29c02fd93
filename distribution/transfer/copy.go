package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
)

func (o *Options) jobs() int {
	if o.Jobs > 0 {
		return o.Jobs
	}
	return DefaultJobs
}

// parallel calls do for 0 to n-1, at most jobs at a time, in order. After an error no more are begun and the context of those
// that run is cancelled; the first error is returned when all have ended.
func parallel(ctx context.Context, jobs, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	slots := make(chan struct{}, jobs)
	for i := range n {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := do(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// A copier carries out a plan.
type copier struct {
	src      *library
	dst      content.Target
	o        *Options
	progress *progress
	guesses  guesses
}

func (c *copier) copy(ctx context.Context, p *plan) error {
	for _, d := range p.blobs {
		c.progress.say(Event{Kind: Planned, Descriptor: d})
	}
	err := parallel(ctx, c.o.jobs(), len(p.blobs), func(ctx context.Context, i int) error {
		return c.blob(ctx, p.blobs[i])
	})
	if err != nil {
		return err
	}
	return c.documents(ctx, p)
}

// documents copies the manifests and indexes of a plan whose blobs are there.
func (c *copier) documents(ctx context.Context, p *plan) error {
	for _, level := range p.levels {
		err := parallel(ctx, c.o.jobs(), len(level), func(ctx context.Context, i int) error {
			return c.document(ctx, level[i], p)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// blob copies one blob unless it is there, without its bytes if that is possible.
func (c *copier) blob(ctx context.Context, d v1.Descriptor) error {
	there, err := c.dst.Exists(ctx, d)
	if err != nil {
		return fmt.Errorf("look for %s: %w", d.Digest, err)
	}
	if there {
		c.progress.say(Event{Kind: Exists, Descriptor: d, Done: d.Size})
		return nil
	}
	if mounted, err := c.mount(ctx, d); err != nil || mounted {
		return err
	}
	r, err := c.src.Fetch(ctx, d, 0)
	if errors.Is(err, content.ErrNotFound) && manifest.IsNonDistributable(d.MediaType) {
		c.progress.say(Event{Kind: Skipped, Descriptor: d})
		return nil // that these may be missing is what they are for
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if err := c.push(ctx, d, r); err != nil {
		return err
	}
	c.progress.say(Event{Kind: Done, Descriptor: d, Done: d.Size})
	return nil
}

// mount takes d over from the source without its bytes, if both ends can do that.
func (c *copier) mount(ctx context.Context, d v1.Descriptor) (bool, error) {
	m, ok := c.dst.(Mounter)
	if !ok {
		return false, nil
	}
	from := []content.Fetcher{c.src.src}
	if e, ok := c.src.src.(*Endpoints); ok {
		from = nil
		for _, one := range e.List {
			from = append(from, one.Source)
		}
	}
	for _, src := range from {
		if mounted, err := c.tryMount(ctx, m, d, src); err != nil || mounted {
			return mounted, err
		}
	}
	return c.mountElsewhere(ctx, m, d)
}

// tryMount takes d over from src. Nobody asked for that: what goes wrong, such as a token server that refuses a token for two
// repositories at once, need not hinder the upload, which tells if it does.
func (c *copier) tryMount(ctx context.Context, m Mounter, d v1.Descriptor, src content.Fetcher) (bool, error) {
	mounted, err := m.MountFrom(ctx, d, src)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err != nil || !mounted {
		return false, nil //nolint:nilerr // as said
	}
	c.progress.say(Event{Kind: Mounted, Descriptor: d, Done: d.Size})
	return true, nil
}

// mountElsewhere takes d over from one of the places where it may be.
func (c *copier) mountElsewhere(ctx context.Context, m Mounter, d v1.Descriptor) (bool, error) {
	if c.o.Elsewhere == nil {
		return false, nil
	}
	src := c.guesses.best(c.o.Elsewhere(d))
	if src == nil {
		return false, nil
	}
	mounted, err := c.tryMount(ctx, m, d, src)
	if err == nil {
		c.guesses.tell(src, mounted)
	}
	return mounted, err
}

// maxRefused is how often a place may refuse before it has given anything.
const maxRefused = 3

// guesses remembers how good the places are from which blobs were to be taken over.
type guesses struct {
	mu    sync.Mutex
	given map[content.Fetcher]int // blobs; negative: so many were refused, and none given
}

// best returns the place that gave most, the first of equals; nil if there is none worth a try.
func (g *guesses) best(all []content.Fetcher) (found content.Fetcher) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range all {
		if n := g.given[one]; n > -maxRefused && (found == nil || n > g.given[found]) {
			found = one
		}
	}
	return found
}

func (g *guesses) tell(one content.Fetcher, mounted bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.given == nil {
		g.given = map[content.Fetcher]int{}
	}
	switch n := g.given[one]; {
	case mounted:
		g.given[one] = max(n, 0) + 1
	case n <= 0:
		g.given[one] = n - 1
	}
}

func (c *copier) push(ctx context.Context, d v1.Descriptor, r io.Reader) error {
	if err := c.dst.Push(ctx, d, c.progress.reader(r, d, 0)); err != nil {
		return fmt.Errorf("copy %s: %w", d.Digest, err)
	}
	return nil
}

// document copies an index or a manifest, after everything that it refers to.
func (c *copier) document(ctx context.Context, d v1.Descriptor, p *plan) error {
	there, err := c.dst.Exists(ctx, d)
	if err != nil {
		return fmt.Errorf("look for %s: %w", d.Digest, err)
	}
	// A referrer is pushed again: a registry without the API has its list under a tag, where a push that broke off did not put it.
	if there && !p.referrers[d.Digest] {
		c.progress.say(Event{Kind: Exists, Descriptor: d, Done: d.Size})
		return nil
	}
	r, err := c.src.Fetch(ctx, d, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	err = c.push(ctx, d, r)
	if err != nil && p.sparse && manifest.IsIndex(d.MediaType) && ctx.Err() == nil {
		return fmt.Errorf("%w (the index was to be copied with some of its images only, which not every place takes: copy all of them, or one image without the index)", err)
	}
	if err != nil {
		return err
	}
	c.progress.say(Event{Kind: Done, Descriptor: d, Done: d.Size})
	return nil
}
