// Package observe stands around the registry and watches: it counts and times requests for Prometheus, writes the access log,
// answers questions about health, and ends what takes too long or is too much at once. Nothing that it writes has a password,
// a token, or a query that could be one.
package observe

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tare-oci/tare/distribution/protocol"
)

// The paths that are answered here, before any login.
const (
	LivePath  = "/healthz" // whether the process answers
	ReadyPath = "/readyz"  // whether the storage does, too
)

// readyFor is how long an answer of the storage is good: nobody can wear it out by asking.
const readyFor = time.Second

// Options are what an Observer does. The zero value only counts.
type Options struct {
	Log      io.Writer // access log; nil for none. Each request is one Write.
	Common   bool      // in the common log format instead of JSON lines
	Requests int       // at once; 0 for no limit. More are answered with 429.
	// Stall is how long a client may let a transfer stand still; 0 for ever. A transfer that goes on may take any time.
	Stall time.Duration
	Ready func(context.Context) error // asks the storage; nil if it is always ready
	Fault func(error)                 // told why the registry is not ready, and of errors of the log; may be nil
}

// Observer wraps handlers. It serves any number of requests at once.
type Observer struct {
	opts    Options
	slots   chan struct{}
	metrics *meter
	ending  atomic.Bool
	ready   readiness
	now     func() time.Time
}

// New returns an observer.
func New(o Options) *Observer {
	w := &Observer{opts: o, metrics: newMeter(), now: time.Now}
	if o.Requests > 0 {
		w.slots = make(chan struct{}, o.Requests)
	}
	w.ready.now = func() time.Time { return w.now() }
	return w
}

// End makes ReadyPath say that this server is about to go, so that no new requests are sent to it.
func (o *Observer) End() { o.ending.Store(true) }

// record is what is known about a request under way.
type record struct {
	user  string
	begin time.Time
	in    int64 // bytes of the body that were read
}

type recordKey struct{}

// SetUser notes who a request is from, for the log. It does nothing for a request that no Observer has seen.
func SetUser(r *http.Request, user string) {
	if rec, ok := r.Context().Value(recordKey{}).(*record); ok {
		rec.user = user
	}
}

// Wrap returns a handler that watches next.
func (o *Observer) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case LivePath:
			plain(w, http.StatusOK, "ok\n")
			return
		case ReadyPath:
			o.serveReady(w, r)
			return
		}
		rec := &record{begin: o.now()}
		out := &writer{ResponseWriter: w, control: http.NewResponseController(w), stall: o.opts.Stall, now: o.now, streams: r.ProtoMajor == 2}
		out.extend()
		var in *reader
		if r.Body != nil && r.Body != http.NoBody {
			in = &reader{ReadCloser: r.Body, control: out.control, stall: o.opts.Stall, now: o.now, streams: out.streams}
		}
		seen := r
		if o.opts.Log != nil { // only the log wants to know who it was
			seen = r.WithContext(context.WithValue(r.Context(), recordKey{}, rec))
		}
		if in != nil {
			seen.Body = in
		}
		o.metrics.underWay.Add(1)
		done := false
		defer func() {
			if !done && out.status == 0 {
				out.status = http.StatusInternalServerError // next panics; the connection ends without an answer
			}
			o.metrics.underWay.Add(-1)
			out.last()
			if in != nil {
				rec.in = in.n
			}
			o.finish(r, rec, out)
		}()
		if !o.acquire() {
			w.Header().Set(protocol.HeaderRetryAfter, "1")
			w.Header().Set("Content-Type", "application/json")
			out.WriteHeader(http.StatusTooManyRequests)
			_, _ = out.Write(protocol.Errors{{Code: protocol.CodeTooManyRequests, Message: "too many requests at once"}}.Encode())
			done = true
			return
		}
		defer o.release()
		next.ServeHTTP(out, seen)
		done = true
	})
}

func (o *Observer) acquire() bool {
	if o.slots == nil {
		return true
	}
	select {
	case o.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (o *Observer) release() {
	if o.slots != nil {
		<-o.slots
	}
}

// finish counts a request and writes its line.
func (o *Observer) finish(r *http.Request, rec *record, w *writer) {
	status := w.status
	if status == 0 {
		status = http.StatusOK // as net/http answers where a handler says nothing
	}
	took := o.now().Sub(rec.begin)
	o.metrics.count(routeOf(r.URL.Path), r.Method, status, rec.in, w.n, took)
	if o.opts.Log == nil {
		return
	}
	if _, err := o.opts.Log.Write(o.line(r, rec, status, w.n, took)); err != nil && o.opts.Fault != nil {
		o.opts.Fault(err)
	}
}

// routeOf gives paths of the same kind one name: there are as many paths as clients can think of.
func routeOf(path string) route {
	if !strings.HasPrefix(path, "/v2") {
		switch path {
		case "/token":
			return routeToken
		case "/":
			return routePages
		}
		if strings.HasPrefix(path, "/r/") {
			return routePages
		}
		return routeOther
	}
	switch path {
	case "/v2", "/v2/":
		return route(protocol.Base)
	case "/v2/_catalog":
		return route(protocol.Catalog)
	}
	i := strings.LastIndexByte(path, '/')
	before, last := path[:i], path[i+1:]
	for _, end := range ends {
		if strings.HasSuffix(before, end.before) && (end.last == "*" && last != "" || end.last == last) {
			return end.route
		}
	}
	return routeOther
}

// ends are how paths of the API end. Whether their names are valid is none of our business.
var ends = [...]struct {
	before, last string
	route        route
}{
	{"/manifests", "*", route(protocol.Manifest)}, {"/blobs/uploads", "", route(protocol.Uploads)}, {"/blobs/uploads", "*", route(protocol.Upload)},
	{"/blobs", "uploads", route(protocol.Uploads)}, {"/blobs", "*", route(protocol.Blob)}, {"/tags", "list", route(protocol.Tags)}, {"/referrers", "*", route(protocol.Referrers)},
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}
