package transfer

import (
	"io"
	"sync"
	"time"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// Kind is what an Event tells.
type Kind string

// The kinds of events. Planned comes first; of the others the last one is Exists, Mounted, Skipped, Done or Unpacked.
const (
	Planned  Kind = "planned"  // it will be looked for
	Copying  Kind = "copying"  // Done bytes have been moved
	Waiting  Kind = "waiting"  // another process is at it
	Exists   Kind = "exists"   // it was there already
	Mounted  Kind = "mounted"  // it was taken over from another repository
	Skipped  Kind = "skipped"  // it may be missing, and is
	Done     Kind = "done"     // it is there, complete
	Unpacked Kind = "unpacked" // a layer is unpacked
	Tried    Kind = "tried"    // an endpoint was tried: Note says which and what came of it
)

// An Event tells what happens to one thing of a graph.
type Event struct {
	Kind       Kind
	Descriptor v1.Descriptor
	Done       int64 // bytes that are there now, those of an earlier, broken download included
	Note       string
}

// progress passes events on one at a time.
type progress struct {
	mu   sync.Mutex
	tell func(Event)
}

func newProgress(tell func(Event)) *progress {
	if tell == nil {
		tell = func(Event) {}
	}
	return &progress{tell: tell}
}

func (p *progress) say(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell(e)
}

// interval is how often the bytes of one thing are told.
const interval = 100 * time.Millisecond

// reader tells how far the reading of d, from byte at on, has come. If r can be sought, so can the result: a push that broke
// begins again.
func (p *progress) reader(r io.Reader, d v1.Descriptor, at int64) io.Reader {
	c := &counter{r: r, p: p, d: d, at: at}
	if s, ok := r.(io.Seeker); ok {
		return &seekingCounter{c, s, at}
	}
	return c
}

type counter struct {
	r    io.Reader
	p    *progress
	d    v1.Descriptor
	at   int64
	last time.Time
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.at += int64(n)
	if now := time.Now(); now.Sub(c.last) >= interval && n > 0 {
		c.last = now
		c.p.say(Event{Kind: Copying, Descriptor: c.d, Done: c.at})
	}
	return n, err
}

type seekingCounter struct {
	*counter
	s     io.Seeker
	begin int64
}

func (c *seekingCounter) Seek(offset int64, whence int) (int64, error) {
	at, err := c.s.Seek(offset, whence)
	if err == nil {
		c.at = c.begin + at
	}
	return at, err
}
