package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
)

// An Endpoint is one place that answers for a name: a registry, or a mirror of it.
type Endpoint struct {
	Name   string // for people
	Source content.Source
}

// Endpoints are a source of one content in several places: each is asked in order until one has it. Who has given bytes once is
// asked first from then on. Use a pointer; it may be used from several goroutines at once.
type Endpoints struct {
	List []Endpoint
	// Tell is told of each endpoint that was asked in vain, and of the one that answered: err is nil then. Nil: nobody is.
	Tell func(endpoint, what string, err error)

	mu   sync.Mutex
	best int
}

// order returns the endpoints, the best first, the others in their order.
func (e *Endpoints) order() []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	var order []int
	if e.best < len(e.List) {
		order = append(order, e.best)
	}
	for i := range e.List {
		if i != e.best {
			order = append(order, i)
		}
	}
	return order
}

// ask asks one endpoint after the other until one answers.
func (e *Endpoints) ask(ctx context.Context, what string, do func(content.Source) error) error {
	var all []error
	for _, i := range e.order() {
		err := do(e.List[i].Source)
		if e.Tell != nil {
			e.Tell(e.List[i].Name, what, err)
		}
		if err == nil {
			e.mu.Lock()
			e.best = i
			e.mu.Unlock()
			return nil
		}
		all = append(all, err)
		if ctx.Err() != nil {
			break
		}
	}
	switch len(all) {
	case 0:
		return errors.New("no endpoint answers for it")
	case 1:
		return all[0]
	}
	return fmt.Errorf("%d endpoints failed: %w", len(all), errors.Join(all...))
}

// Resolve returns what ref names at the first endpoint that knows it.
func (e *Endpoints) Resolve(ctx context.Context, ref string) (d v1.Descriptor, err error) {
	err = e.ask(ctx, "resolve "+ref, func(s content.Source) error {
		d, err = s.Resolve(ctx, ref)
		return err
	})
	return d, err
}

// Fetch opens d where it is to be had. Where the stream breaks for good, the next endpoint goes on with it.
func (e *Endpoints) Fetch(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	var r io.ReadCloser
	err := e.ask(ctx, "fetch "+d.Digest.String(), func(s content.Source) (err error) {
		r, err = s.Fetch(ctx, d, offset)
		return err
	})
	if err != nil || len(e.List) == 1 {
		return r, err
	}
	return &relay{ctx: ctx, e: e, d: d, at: offset, r: r, left: len(e.List) - 1}, nil
}

// Referrers lists what refers to d at the first endpoint that can tell.
func (e *Endpoints) Referrers(ctx context.Context, d v1.Descriptor, artifactType string) (list []v1.Descriptor, err error) {
	err = e.ask(ctx, "list referrers of "+d.Digest.String(), func(s content.Source) error {
		r, ok := s.(Referrer)
		if !ok {
			return errors.New("it cannot list referrers")
		}
		list, err = r.Referrers(ctx, d, artifactType)
		return err
	})
	return list, err
}

// A relay reads a blob from one endpoint after the other.
type relay struct {
	ctx  context.Context //nolint:containedctx // that of Fetch, for further requests
	e    *Endpoints
	d    v1.Descriptor
	at   int64
	r    io.ReadCloser
	left int // endpoints that may still be tried
}

func (r *relay) Read(p []byte) (int, error) {
	for {
		n, err := r.r.Read(p)
		r.at += int64(n)
		if n > 0 || err == nil {
			if errors.Is(err, io.EOF) && r.at >= r.d.Size {
				return n, err
			}
			return n, nil // an error shows again
		}
		if errors.Is(err, io.EOF) && r.at >= r.d.Size || r.ctx.Err() != nil || r.left == 0 {
			return 0, err
		}
		r.left--
		next, e := r.next(err)
		if e != nil {
			return 0, errors.Join(err, e)
		}
		r.r.Close()
		r.r = next
	}
}

// next opens the rest at another endpoint than the best.
func (r *relay) next(because error) (io.ReadCloser, error) {
	r.e.mu.Lock()
	broken := r.e.best
	r.e.best = (broken + 1) % len(r.e.List)
	r.e.mu.Unlock()
	if r.e.Tell != nil {
		r.e.Tell(r.e.List[broken].Name, fmt.Sprintf("read %s beyond byte %d", r.d.Digest, r.at), because)
	}
	var out io.ReadCloser
	err := r.e.ask(r.ctx, "fetch the rest of "+r.d.Digest.String(), func(s content.Source) (err error) {
		out, err = s.Fetch(r.ctx, r.d, r.at)
		return err
	})
	return out, err
}

func (r *relay) Close() error { return r.r.Close() }
