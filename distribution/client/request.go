package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/protocol"
)

// request is one request and what counts as its success.
type request struct {
	op     string // for errors
	method string
	url    *url.URL
	header http.Header
	body   *piece       // nil: none
	accept []int        // statuses that are no error; nil: every 2xx
	scopes []auth.Scope // for tokens
	once   bool         // the caller tries again itself
	login  bool         // it asks whether there is a registry that knows the user
}

// errStalled is why a transfer was given up.
var errStalled = errors.New("transfer stalled")

// send sends r until there is an answer that r accepts, or an error that no further attempt would mend. The caller closes the
// answer's body, which ends with an error if it stalls.
func (c *Client) send(ctx context.Context, r *request) (*http.Response, error) {
	ctx = auth.WithScopes(ctx, r.scopes...)
	for attempt := 1; ; attempt++ {
		resp, err := c.try(ctx, r)
		if err == nil {
			return resp, nil
		}
		if r.once || attempt >= c.opt.Retry.Attempts || !c.passes(err) || !r.body.rewindable() {
			return nil, err
		}
		if waitErr := c.wait(ctx, attempt, err); waitErr != nil {
			return nil, waitErr
		}
	}
}

// try sends r once.
func (c *Client) try(ctx context.Context, r *request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := newWatch(c.opt.Limits, func() { cancel(errStalled) })
	fail := func(err error) error {
		w.stop()
		if errors.Is(context.Cause(ctx), errStalled) {
			err = c.stalled()
		}
		cancel(nil)
		if cause := r.body.cause(); cause != nil {
			err = &refusal{cause} // the content cannot be read, or is not what it should be
		}
		return err
	}
	req, err := c.newRequest(ctx, r, w)
	if err != nil {
		return nil, fail(fmt.Errorf("%s: %w", r.op, err))
	}
	w.start(w.answer(r))
	resp, err := c.http.Do(req)
	if err != nil {
		var inURL *url.Error // says the URL again, which may be signed
		if errors.As(err, &inURL) {
			err = hinted(inURL)
		}
		return nil, fmt.Errorf("%s: %w", r.op, fail(err))
	}
	w.stop()
	c.reached.Store(true)
	resp.Body = &guarded{ReadCloser: resp.Body, w: w, c: c, ctx: ctx, cancel: cancel, left: c.opt.Limits.Stall}
	for _, text := range protocol.ParseWarnings(resp.Header) {
		c.warn(text)
	}
	ok := resp.StatusCode >= 200 && resp.StatusCode < 300
	if r.accept != nil {
		ok = slices.Contains(r.accept, resp.StatusCode)
	}
	if ok {
		return resp, nil
	}
	answer := newError(r, resp, c.origin.Host())
	if after, ok := retryAfter(resp.Header, time.Now()); ok && retryable(resp.StatusCode) {
		return nil, &delayed{answer, after}
	}
	return nil, answer
}

// hinted returns what went wrong without the URL, and what helps where TLS is what fails.
func hinted(err *url.Error) error {
	host := "HOST"
	if u, parseErr := url.Parse(err.URL); parseErr == nil {
		host = u.Host
	}
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err.Err, &authority):
		return fmt.Errorf("%w (if that is right, put the authority's certificate in certs.d/%s/ca.crt)", err.Err, host)
	case strings.Contains(err.Err.Error(), "HTTP response to HTTPS client"):
		return fmt.Errorf("%w (if that is right, set plain-http = true for %s in registries.toml)", err.Err, host)
	}
	return err.Err
}

func (c *Client) newRequest(ctx context.Context, r *request, w *watch) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url.String(), nil)
	if err != nil {
		return nil, err
	}
	if r.header != nil {
		req.Header = r.header.Clone()
	}
	req.Header.Set("User-Agent", c.opt.UserAgent)
	req.Header.Set("Accept-Encoding", "identity")
	if r.body == nil {
		return req, nil
	}
	if req.Body, err = r.body.open(w); err != nil {
		return nil, err
	}
	req.ContentLength = r.body.length
	if r.body.length == 0 {
		req.Body = http.NoBody
	}
	if r.body.content.seek != nil {
		req.GetBody = func() (io.ReadCloser, error) { return r.body.open(w) }
	}
	return req, nil
}

func (c *Client) stalled() error {
	return fmt.Errorf("%w: %s sent or took nothing for too long (limits: %s, %s for an answer)", errStalled, c.origin.Host(),
		c.opt.Limits.Stall, c.opt.Limits.Answer)
}

// delayed is an answer that says when to come back.
type delayed struct {
	answer *Error
	after  time.Duration
}

func (d *delayed) Error() string { return d.answer.Error() }
func (d *delayed) Unwrap() error { return d.answer }

// retryAfter reads a Retry-After header: seconds or a date (RFC 9110 section 10.2.3).
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	text := strings.TrimSpace(h.Get(protocol.HeaderRetryAfter))
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if t, err := http.ParseTime(text); err == nil {
		return max(t.Sub(now), 0), true
	}
	return 0, false
}

// wait waits before the next attempt. The error is that of ctx, or err if the registry wants more time than there is.
func (c *Client) wait(ctx context.Context, attempt int, err error) error {
	limit := c.opt.Retry.MaxWait
	d := min(c.opt.Retry.Wait<<min(attempt-1, 20), limit)
	if d > 0 {
		d = d/2 + rand.N(d/2+1)
	}
	var later *delayed
	if errors.As(err, &later) {
		if later.after > limit {
			return fmt.Errorf("%w; it asks to wait %s, the limit is %s", err, later.after, limit)
		}
		d = max(d, later.after)
	}
	if c.opt.Retry.Notify != nil {
		c.opt.Retry.Notify(err, d)
	}
	if waitErr := sleep(ctx, d); waitErr != nil {
		return fmt.Errorf("%w (while waiting after: %w)", waitErr, err)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

func retryable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusInsufficientStorage:
		return false
	}
	return status >= 500
}

// passes reports whether what went wrong may be better in a moment.
func (c *Client) passes(err error) bool {
	var ours *refusal
	var answer *Error
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var plain tls.RecordHeaderError
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.Is(err, errStalled):
		return true
	case errors.As(err, &ours), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &plain):
		return false
	case errors.As(err, &answer):
		return retryable(answer.Status)
	case errors.As(err, &dns):
		return !dns.IsNotFound && c.reached.Load()
	case errors.As(err, &op) && op.Op == "dial":
		return c.reached.Load() // else there may be a mirror that is not away
	}
	return broken(err)
}

// broken reports whether err is that of a connection.
func broken(err error) bool {
	var timeout net.Error
	var errno syscall.Errno
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &timeout) || errors.As(err, &errno) ||
		errors.Is(err, net.ErrClosed) {
		return true
	}
	text := err.Error() // net/http does not export its HTTP/2 errors
	for _, part := range [...]string{"server closed idle connection", "http2: ", "stream error", "transport connection broken", "GOAWAY"} {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// watch fires when a transfer does not go on.
type watch struct {
	timer  *time.Timer
	limits Limits
}

func newWatch(limits Limits, fire func()) *watch {
	w := &watch{timer: time.AfterFunc(time.Hour, fire), limits: limits}
	w.timer.Stop()
	return w
}

func (w *watch) start(d time.Duration) { w.timer.Reset(d) }
func (w *watch) stop()                 { w.timer.Stop() }

// answer is how long the answer to r may take when r is sent.
func (w *watch) answer(r *request) time.Duration {
	if r.method == http.MethodGet || r.method == http.MethodHead {
		return w.limits.Stall
	}
	return w.limits.Answer
}

// dripUnit is how many bytes have to come within Limits.Stall: who sends one now and then is as bad as who sends none.
const dripUnit = 64 << 10

// guarded is a body that ends with an error when it stalls. Only the time in Read counts.
type guarded struct {
	io.ReadCloser
	w      *watch
	c      *Client
	ctx    context.Context //nolint:containedctx // of the request that the body belongs to
	cancel context.CancelCauseFunc
	left   time.Duration // until dripUnit bytes have to be there
	bytes  int           // of these
}

// Read implements io.Reader.
func (g *guarded) Read(p []byte) (int, error) {
	begin := time.Now()
	g.w.start(g.left)
	n, err := g.ReadCloser.Read(p)
	g.w.stop()
	if g.bytes += n; g.bytes >= dripUnit {
		g.bytes, g.left = 0, g.w.limits.Stall
	} else {
		g.left -= time.Since(begin)
	}
	if err != nil && err != io.EOF && errors.Is(context.Cause(g.ctx), errStalled) {
		err = g.c.stalled()
	}
	return n, err
}

// Close implements io.Closer.
func (g *guarded) Close() error {
	g.w.stop()
	err := g.ReadCloser.Close()
	g.cancel(nil)
	return err
}

// discard reads the little that may be left of a body, so that the connection can be used again, and closes it.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // an error here says nothing about the answer, which is complete
	resp.Body.Close()
}

// readAll reads a body of at most limit bytes and closes it.
func readAll(resp *http.Response, what string, limit int64) ([]byte, error) {
	defer resp.Body.Close()
	if resp.ContentLength > limit {
		return nil, tooLong(what, "%s has %d bytes, the limit is %d", what, resp.ContentLength, limit)
	}
	size := max(resp.ContentLength, 0)
	data := make([]byte, 0, size+512)
	for {
		n, err := resp.Body.Read(data[len(data):min(int64(cap(data)), limit+1)])
		data = data[:len(data)+n]
		switch {
		case int64(len(data)) > limit:
			return nil, tooLong(what, "%s has more than the limit of %d bytes", what, limit)
		case err == io.EOF:
			return data, nil
		case err != nil:
			return nil, err
		case len(data) == cap(data):
			data = append(data, 0)[:len(data)]
		}
	}
}

// tooLong is the error for a document beyond its limit. That of manifests is the specification's, so it cannot be raised.
func tooLong(what, format string, args ...any) error {
	if what == "list" {
		return &refusal{tooMuch("List", format, args...)}
	}
	return &refusal{fmt.Errorf(format, args...)}
}
