// Package client speaks the distribution-spec to one endpoint of a registry: it pulls, pushes, lists, mounts, finds referrers
// and deletes. A Repository is a content.Source and a content.Target.
//
// Everything that an endpoint answers is hostile until it is checked: digests, sizes, media types, addresses, ranges. Sizes,
// counts and times have Limits. This package never has a credential: auth.Transport adds it to requests to its own origin,
// so that no server can get one sent anywhere by naming an address (CVE-2020-15157, CVE-2022-23538, CVE-2026-50151).
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/protocol"
)

// Options say which endpoint a Client talks to, and how. Only Base is required.
type Options struct {
	// Base is the endpoint: scheme and host, and a path if the API is below one (BASE/v2/…).
	Base *url.URL
	// HTTP asks the endpoint. Of it only the Transport is used, which adds what authenticates (auth.Transport), TLS and proxies.
	// nil: NewTransport, anonymous.
	HTTP *http.Client
	// Elsewhere asks all other origins, to which the endpoint refers. nil: HTTP's Transport, which must not authenticate there
	// (that of package hosts does not), and without one NewTransport, guarded by auth.Guard.
	Elsewhere http.RoundTripper
	UserAgent string // empty: tare
	Limits    Limits
	Retry     Retry
	// ChunkSize is the size in bytes of the chunks in which blobs are uploaded. 0: in one piece, which is the fastest and continued
	// where it broke if the registry can.
	ChunkSize int64
	// Warn is called with each different Warning of the registry once, and with what else is odd but no error. The texts are
	// printable. nil: nobody wants to know. It may be called from several goroutines at once.
	Warn func(text string)
}

// Limits bound what an endpoint may send and how long it may take. Zero fields have the default.
type Limits struct {
	Manifest  int64         // bytes of a manifest or index; default 4 MiB, protocol.MaxManifest
	List      int64         // bytes of one page of a list; default 8 MiB, protocol.MaxList
	Entries   int           // entries of a whole list: tags, repositories, referrers; default 100000
	Pages     int           // pages of a list; default 10000
	Redirects int           // of one request; default 10
	Stall     time.Duration // in which at least 64 KiB of a longer answer, or something of a request, get through; default 60 s
	Answer    time.Duration // from the end of a request that changes something to the answer's head; default 10 min
}

// A LimitError says that an endpoint sends more than a limit allows. Name is the field of Limits by which a caller who trusts the
// registry raises it.
type LimitError struct {
	Name string
	Text string // what exceeds it, with the limit
}

func (e *LimitError) Error() string {
	return e.Text + "; to allow it raise the registry limit " + e.Name
}

func tooMuch(name, format string, args ...any) error {
	return &LimitError{name, fmt.Sprintf(format, args...)}
}

func (l *Limits) fill() {
	set(&l.Manifest, protocol.MaxManifest)
	set(&l.List, protocol.MaxList)
	set(&l.Entries, 100_000)
	set(&l.Pages, 10_000)
	set(&l.Redirects, 10)
	set(&l.Stall, time.Minute)
	set(&l.Answer, 10*time.Minute)
}

func set[T int | int64 | time.Duration](v *T, fallback T) {
	if *v == 0 {
		*v = fallback
	}
}

// Retry says how often and after which time something is tried again that failed for a reason that may pass: a broken
// connection, a stalled transfer, status 408, 429 and 5xx. Zero fields have the default.
type Retry struct {
	Attempts int           // including the first; 1 is never again; default 6
	Wait     time.Duration // before the second attempt; doubles each time, half of it is random; default 500 ms
	MaxWait  time.Duration // the longest wait; a registry that asks for more (Retry-After) is an error; default 2 min
	// Notify is called before each wait with what failed. nil: nobody wants to know. From several goroutines at once.
	Notify func(err error, wait time.Duration)
}

func (r *Retry) fill() {
	set(&r.Attempts, 6)
	set(&r.Wait, 500*time.Millisecond)
	set(&r.MaxWait, 2*time.Minute)
}

// Client talks to one endpoint. Its methods may be called from several goroutines at once.
type Client struct {
	opt     Options
	base    *url.URL
	origin  auth.Origin
	http    *http.Client
	reached atomic.Bool   // the endpoint has answered once
	listing chan struct{} // held by who changes a tag for referrers

	mu     sync.Mutex
	warned map[string]bool
}

// New returns a client for an endpoint. Nothing is sent yet.
func New(opt Options) (*Client, error) {
	origin, err := auth.OriginOf(opt.Base)
	if err != nil {
		return nil, fmt.Errorf("registry address: %w", err)
	}
	if opt.Base.RawQuery != "" || opt.Base.Fragment != "" {
		return nil, fmt.Errorf("registry address %s has a query or a fragment", origin)
	}
	opt.Limits.fill()
	opt.Retry.fill()
	if opt.UserAgent == "" {
		opt.UserAgent = "tare"
	}
	base := *opt.Base
	base.Path, base.RawPath = strings.TrimRight(base.Path, "/"), ""
	c := &Client{opt: opt, base: &base, origin: origin, warned: map[string]bool{}, listing: make(chan struct{}, 1)}
	split := &splitter{origin: origin, elsewhere: opt.Elsewhere}
	if opt.HTTP != nil {
		split.own = opt.HTTP.Transport
	}
	if split.elsewhere == nil {
		split.elsewhere = split.own
	}
	if split.own == nil {
		split.own = NewTransport()
	}
	if split.elsewhere == nil {
		split.elsewhere = auth.Guard(origin, NewTransport())
	}
	c.http = &http.Client{Transport: split, CheckRedirect: c.checkRedirect}
	return c, nil
}

// NewTransport returns a transport without credentials, tuned for blobs: buffers that are large, connections that stay, HTTP/2
// where the server has it. Proxies are those of the environment.
func NewTransport() *http.Transport {
	dial := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dial.DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    30 * time.Second,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConns:           100,
		MaxIdleConnsPerHost:    32,
		MaxResponseHeaderBytes: 64 << 10,
		ReadBufferSize:         64 << 10,
		WriteBufferSize:        64 << 10,
		DisableCompression:     true, // a digest is that of the bytes on the wire
	}
}

// Origin returns the origin of the endpoint.
func (c *Client) Origin() auth.Origin { return c.origin }

// Repository returns a repository of the registry. Nothing is sent yet. The error says what is wrong with the name.
func (c *Client) Repository(name string) (*Repository, error) {
	if err := protocol.CheckName(name); err != nil {
		return nil, err
	}
	return &Repository{c: c, name: name}, nil
}

// Ping asks whether the endpoint has the registry API and whether the credentials, if any, are good: as login does. The error
// wraps an *Error with status 401 if they are not.
func (c *Client) Ping(ctx context.Context) error {
	resp, err := c.send(ctx, &request{op: "ask registry " + c.origin.Host(), method: http.MethodGet, url: c.url("/v2/"), login: true})
	if err != nil {
		return err
	}
	discard(resp)
	return nil
}

// url returns the address of a path of the API; query holds pairs of key and value.
func (c *Client) url(path string, query ...string) *url.URL {
	u := *c.base
	u.Path += path
	q := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		q.Add(query[i], query[i+1])
	}
	u.RawQuery = q.Encode()
	return &u
}

// warn passes text on, once.
func (c *Client) warn(text string) {
	if c.opt.Warn == nil {
		return
	}
	c.mu.Lock()
	known := c.warned[text] || len(c.warned) >= 100 // a registry that invents new ones all the time is not worth reading
	if !known {
		c.warned[text] = true
	}
	c.mu.Unlock()
	if !known {
		c.opt.Warn(text)
	}
}

// splitter sends requests to the endpoint's origin one way and all others another way, which knows no credentials.
type splitter struct {
	origin         auth.Origin
	own, elsewhere http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (s *splitter) RoundTrip(r *http.Request) (*http.Response, error) {
	to, err := auth.OriginOf(r.URL)
	switch {
	case err != nil:
	case to == s.origin:
		return s.own.RoundTrip(r)
	case r.Header.Get("Authorization") == "" && r.Header.Get("Cookie") == "":
		return s.elsewhere.RoundTrip(r)
	default:
		err = errors.New("a credential was about to be sent to " + to.String())
	}
	if r.Body != nil {
		r.Body.Close()
	}
	return nil, &refusal{err}
}

// checkRedirect says whether a redirect is followed. req is what would be sent next.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) > c.opt.Limits.Redirects {
		return &refusal{tooMuch("Redirects", "more than %d redirects", c.opt.Limits.Redirects)}
	}
	if req.Method != first.Method { // 301 and 302 would make a GET of a PUT
		return &refusal{fmt.Errorf("redirect of a %s request that does not keep the method", first.Method)}
	}
	req.Header.Del("Referer") // may hold what is signed
	return c.checkElsewhere(via[len(via)-1].URL, req.URL)
}

// checkElsewhere says whether an answer from the address from may send the client to the address to.
func (c *Client) checkElsewhere(from, to *url.URL) error {
	next, err := auth.OriginOf(to)
	if err != nil {
		return &refusal{err}
	}
	if from.Scheme == "https" && next.Plain() {
		return &refusal{fmt.Errorf("sent from https to %s, which is not encrypted", next)}
	}
	return nil
}

// refusal is an error of our own rules: nothing that a second attempt would mend.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }
