package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/snapshot"
	"github.com/tare-oci/tare/image/store"
)

// PullOptions says what is pulled. The zero value pulls what this machine runs and unpacks it.
type PullOptions struct {
	Platforms []manifest.Platform // whose images are pulled; none: manifest.Host()
	All       bool                // every platform's
	Sparse    bool                // as in Options
	Referrers bool                // as in Options
	NoUnpack  bool                // only store, and do not unpack layers

	Name     string // in the store; empty: the digest only
	Jobs     int
	Limits   Limits
	Progress func(Event)
}

// A Pulled is what Pull has stored.
type Pulled struct {
	Root  v1.Descriptor // what Name stands for now
	Image *Image        // that was unpacked, or would be; nil for what is no container image, or not for the platform
}

// Pull copies root, and what belongs to it, from src to st and unpacks its layers to layers while they are downloaded. Each
// download is written to a file that grows, which the unpacker follows, so that neither waits for the other longer than it
// must; what an earlier Pull has left is continued; what another process is downloading or unpacking is waited for. Names
// change when everything is there.
//
// A lease holds everything until the name does.
func Pull(ctx context.Context, src content.Fetcher, st *store.Store, layers *snapshot.Store, root v1.Descriptor, o PullOptions) (*Pulled, error) {
	lease, err := st.Lease(ctx, "pull", "")
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	ctx = store.WithLease(ctx, lease)
	near := nearFirst{st, src}
	p := &puller{st: st, layers: layers, lease: lease, o: &o, progress: newProgress(o.Progress),
		lib: newLibrary(near, o.Limits), slots: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))}
	p.lib.early = near.store
	pulled, err := p.pull(ctx, root)
	if err != nil {
		return nil, err
	}
	if err := st.Tag(ctx, root, o.Name); err != nil {
		return nil, fmt.Errorf("tag %s: %w", root.Digest, err)
	}
	return pulled, nil
}

// nearFirst is a source that reads documents from the store if they are there.
type nearFirst struct {
	st *store.Store
	content.Fetcher
}

func (n nearFirst) Fetch(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	if offset == 0 {
		there, err := n.st.Exists(ctx, d) // which holds it
		if err != nil {
			return nil, err
		}
		if there {
			if raw, err := content.ReadAll(ctx, n.st, d, manifest.MaxConfig); err == nil {
				return readCloser(raw), nil
			}
			// A damaged blob is fetched again by Fsck only; what is read here is right.
		}
	}
	return n.Fetcher.Fetch(ctx, d, offset)
}

// store brings a configuration into the store as soon as it is wanted: then of several processes one asks for it.
func (n nearFirst) store(ctx context.Context, d v1.Descriptor) error {
	in, err := n.st.Ingest(ctx, d)
	if errors.Is(err, content.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	raw, err := content.ReadAll(ctx, n.Fetcher, d, manifest.MaxConfig)
	if err != nil {
		return err
	}
	if _, err := in.Write(raw[min(in.Offset(), int64(len(raw))):]); err != nil {
		return err
	}
	return in.Commit()
}

func (n nearFirst) Referrers(ctx context.Context, d v1.Descriptor, artifactType string) ([]v1.Descriptor, error) {
	r, ok := n.Fetcher.(Referrer)
	if !ok {
		return nil, errors.New("this source cannot list referrers")
	}
	return r.Referrers(ctx, d, artifactType)
}

// A puller carries out one Pull.
type puller struct {
	st       *store.Store
	layers   *snapshot.Store
	lease    *store.Lease
	o        *PullOptions
	progress *progress
	lib      *library
	slots    chan struct{} // for unpackers that have something to do

	unpacking sync.WaitGroup
	ctx       context.Context //nolint:containedctx // of what is unpacked, which goes on when its download has ended
	fail      context.CancelCauseFunc
}

func (p *puller) pull(ctx context.Context, root v1.Descriptor) (*Pulled, error) {
	o := Options{Sparse: p.o.Sparse, Referrers: p.o.Referrers, Jobs: p.o.Jobs, Platforms: p.o.Platforms}
	if len(o.Platforms) == 0 {
		o.Platforms = []manifest.Platform{manifest.Host()}
	}
	img, err := p.lib.choose(ctx, root, o.Platforms[0])
	if artifact := errors.Is(err, ErrNotImage); err != nil && !artifact && !p.o.All {
		return nil, err
	}
	if p.o.All {
		o.Platforms = nil
	}
	plan, err := p.lib.plan(ctx, root, &o)
	if err != nil {
		return nil, err
	}
	if err := p.fetch(ctx, plan, img, o.jobs()); err != nil {
		return nil, err
	}
	c := &copier{src: p.lib, dst: p.st, o: &o, progress: p.progress}
	return &Pulled{Root: root, Image: img}, c.documents(ctx, plan)
}

// fetch downloads the blobs, a few at a time, the largest first, and unpacks the layers of img at the same time.
func (p *puller) fetch(ctx context.Context, plan *plan, img *Image, jobs int) error {
	work := p.works(plan, img)
	for _, w := range work {
		p.progress.say(Event{Kind: Planned, Descriptor: w.d})
	}
	for _, w := range work {
		if err := p.lease.HoldLayers(ctx, w.diffIDs...); err != nil {
			return err
		}
	}
	ctx, p.fail = context.WithCancelCause(ctx)
	p.ctx = ctx
	defer p.fail(nil)
	err := parallel(ctx, jobs, len(work), func(ctx context.Context, i int) error {
		err := p.blob(ctx, work[i])
		if err != nil {
			p.fail(err)
		}
		return err
	})
	p.unpacking.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil || img == nil || p.o.NoUnpack {
		return err
	}
	return p.stack(ctx, img)
}

// A work is one blob of a plan.
type work struct {
	d       v1.Descriptor
	diffIDs []digest.Digest // of the layer to unpack; none for what is not unpacked
	stored  chan struct{}   // closed when it is in the store
}

func (p *puller) works(plan *plan, img *Image) []*work {
	var all []*work
	by := map[digest.Digest]*work{}
	for _, d := range plan.blobs {
		w := &work{d: d, stored: make(chan struct{})}
		by[d.Digest] = w
		all = append(all, w)
	}
	if img == nil || p.o.NoUnpack {
		return all
	}
	for i, d := range img.Manifest.Layers {
		w, id := by[d.Digest], img.Config.RootFS.DiffIDs[i]
		if w != nil && !slices.Contains(w.diffIDs, id) {
			w.diffIDs = append(w.diffIDs, id)
		}
	}
	return all
}

// blob makes sure that a blob is in the store, and begins to unpack it.
func (p *puller) blob(ctx context.Context, w *work) error {
	slow := time.AfterFunc(time.Second, func() { p.progress.say(Event{Kind: Waiting, Descriptor: w.d}) })
	in, err := p.st.Ingest(ctx, w.d)
	slow.Stop()
	if errors.Is(err, content.ErrExists) {
		p.progress.say(Event{Kind: Exists, Descriptor: w.d, Done: w.d.Size})
		close(w.stored)
		p.unpack(w, func() (io.ReadCloser, error) { return p.stored(p.ctx, w.d) })
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	before := in.Offset()
	if before == 0 { // what an earlier download has left may be wrong: the unpacker waits until it is known to be right
		p.unpack(w, func() (io.ReadCloser, error) { return p.growing(in) })
	}
	err = p.download(ctx, in)
	switch {
	case err == nil:
		p.progress.say(Event{Kind: Done, Descriptor: w.d, Done: w.d.Size})
		close(w.stored)
		if before > 0 {
			p.unpack(w, func() (io.ReadCloser, error) { return p.stored(p.ctx, w.d) })
		}
		return nil
	case before > 0 && errors.Is(err, store.ErrMismatch):
		return p.blob(ctx, w) // it was removed: this time everything is fetched
	case errors.Is(err, content.ErrNotFound) && manifest.IsNonDistributable(w.d.MediaType) && len(w.diffIDs) == 0:
		p.progress.say(Event{Kind: Skipped, Descriptor: w.d})
		return errors.Join(in.Discard())
	}
	return err
}

// download fetches what is missing of a blob.
func (p *puller) download(ctx context.Context, in *store.Ingest) error {
	d, at := in.Descriptor(), in.Offset()
	if at < d.Size {
		r, err := p.lib.Fetch(ctx, d, at)
		if err == nil {
			_, err = io.CopyBuffer(onlyWriter{in}, onlyReader{p.progress.reader(r, d, at)}, make([]byte, 256<<10))
			r.Close()
		}
		if err != nil {
			in.Fail(err) // what is there stays for the next time
			return fmt.Errorf("download %s: %w", d.Digest, err)
		}
	}
	return in.Commit()
}

// onlyWriter and onlyReader hide what would make io.CopyBuffer ignore the buffer.
type onlyWriter struct{ io.Writer }

type onlyReader struct{ io.Reader }

// stored opens a blob that is in the store, with its verification.
func (p *puller) stored(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	f, err := p.st.Fetch(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	checked, err := content.Verify(f, d)
	if err != nil {
		f.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{checked, f}, nil
}

// unpack unpacks a layer beside everything else.
func (p *puller) unpack(w *work, open func() (io.ReadCloser, error)) {
	for _, id := range w.diffIDs {
		p.unpacking.Go(func() {
			if !p.enter() {
				return
			}
			_, err := p.layers.Layer(p.ctx, id, open)
			p.leave()
			if err != nil {
				p.fail(fmt.Errorf("unpack %s: %w", w.d.Digest, err))
				return
			}
			select { // syncing a small blob may take longer than unpacking it
			case <-w.stored:
				p.progress.say(Event{Kind: Unpacked, Descriptor: w.d, Done: w.d.Size})
			case <-p.ctx.Done():
			}
		})
	}
}

// enter waits for a slot; false if the pull has failed meanwhile.
func (p *puller) enter() bool {
	select {
	case p.slots <- struct{}{}:
		return true
	case <-p.ctx.Done():
		return false
	}
}

func (p *puller) leave() { <-p.slots }

// growing opens a blob that is being downloaded. While a read waits for bytes its unpacker gives its slot away: with a slow
// network all unpackers follow their downloads, and with a fast one there are as many at work as processors, the largest
// layer first.
func (p *puller) growing(in *store.Ingest) (io.ReadCloser, error) {
	r, err := in.Reader()
	if err != nil {
		return nil, err
	}
	return &polite{r, p, in, 0}, nil
}

type polite struct {
	io.ReadCloser
	p  *puller
	in *store.Ingest
	at int64
}

func (r *polite) Read(b []byte) (int, error) {
	waits := r.in.Offset() <= r.at
	if waits {
		r.p.leave()
	}
	n, err := r.ReadCloser.Read(b)
	r.at += int64(n)
	if waits {
		r.p.slots <- struct{}{} // not with the context: the slot is given back by who holds it
	}
	return n, err
}

// stack puts the unpacked layers together once: some may have to be unpacked again above those below them.
func (p *puller) stack(ctx context.Context, img *Image) error {
	var all []snapshot.Layer
	for i, d := range img.Manifest.Layers {
		all = append(all, snapshot.Layer{DiffID: img.Config.RootFS.DiffIDs[i], Digest: d.Digest,
			Open: func() (io.ReadCloser, error) { return p.stored(ctx, d) }})
	}
	root, err := p.layers.Image(ctx, all)
	if err != nil {
		return err
	}
	root.Close()
	return nil
}
