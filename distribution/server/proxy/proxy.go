// Package proxy makes a registry a pull-through cache of others: a storage that fetches from upstream what the storage below it
// does not have, and keeps it. It cannot be pushed to. What a client has shown to this registry never goes upstream: a storage
// does not see requests; and the credential for an upstream goes there and to the token servers that package auth lets it.
package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/client"
	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/image/content"
)

const (
	// fetchTimeout is how long a manifest or a list may take, with all attempts.
	fetchTimeout = 2 * time.Minute
	// downFor is how long an upstream that did not answer is not asked about a tag again that we have.
	downFor = 10 * time.Second
	// maxKnown is how many sizes, tags and lists are kept in memory, each.
	maxKnown = 100_000
)

// Upstream is a registry that is fetched from.
type Upstream struct {
	Address string // https://host
	// Namespace is how clients call it: with ns=, and as the first parts of repositories' names. Empty if there is only one.
	Namespace          string
	Username, Password string        // empty: anonymous
	CA                 string        // file with certificates in PEM, beside the system's; empty for none
	TTL                time.Duration // how long what a tag names is believed without asking again
}

// upstream is an Upstream that can be asked.
type upstream struct {
	Upstream
	base   *url.URL
	client *client.Client
	http   *http.Client
}

// Options are what a Store works with.
type Options struct {
	Local     storage.Storage // what is fetched is kept here
	Upstreams []Upstream
	Temp      string // directory for blobs on their way; is made if it is not there
	MaxBlob   int64  // bytes of a blob; 0 for no limit
	// Warn is told when an upstream does not answer as it should, and what we have is served instead; may be nil.
	Warn func(error)
}

// Store is a storage.Storage that cannot be written to.
type Store struct {
	storage.Collector
	opts      Options
	local     storage.Storage
	upstreams []*upstream
	now       func() time.Time
	stop      context.Context // ends when the store is closed
	cancel    context.CancelFunc
	running   sync.WaitGroup // fetches of blobs

	flights flights
	mu      sync.Mutex
	sizes   map[digest.Digest]int64
	checked map[string]time.Time // until when a tag is believed
	lists   map[string]list
	loads   map[string]*load
}

var _ storage.Storage = (*Store)(nil)

// New returns a storage that fetches from the upstreams. They are not asked yet.
func New(o Options) (*Store, error) {
	if err := os.MkdirAll(o.Temp, 0o700); err != nil {
		return nil, fmt.Errorf("open proxy: %w", err)
	}
	s := &Store{Collector: o.Local, opts: o, local: o.Local, now: time.Now, sizes: map[digest.Digest]int64{}, checked: map[string]time.Time{},
		lists: map[string]list{}, loads: map[string]*load{}}
	s.stop, s.cancel = context.WithCancel(context.Background())
	s.flights.stop = s.stop
	for _, u := range o.Upstreams {
		if u.Namespace != "" && protocol.CheckName(u.Namespace) != nil {
			return nil, fmt.Errorf("open proxy: namespace %q cannot begin the name of a repository", u.Namespace)
		}
		up, err := connect(u)
		if err != nil {
			return nil, fmt.Errorf("open proxy of %s: %w", u.Address, err)
		}
		s.upstreams = append(s.upstreams, up)
	}
	return s, nil
}

// Close ends the fetches under way, and waits for them. The storage below is not closed.
func (s *Store) Close() {
	s.cancel()
	s.running.Wait()
	s.flights.running.Wait()
}

// detached returns a context that ends with stop and not with the request that it is of: others may wait for the same.
func detached(ctx, stop context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	undo := context.AfterFunc(stop, cancel)
	return ctx, func() { undo(); cancel() }
}

// connect makes the clients of an upstream.
func connect(u Upstream) (*upstream, error) {
	base, err := url.Parse(u.Address)
	if err != nil {
		return nil, errors.New("the address is not understood")
	}
	origin, err := auth.OriginOf(base)
	if err != nil {
		return nil, err
	}
	transport := client.NewTransport()
	if u.CA != "" {
		data, err := os.ReadFile(u.CA)
		if err != nil {
			return nil, err
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s: no certificate in it", u.CA)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	var keys auth.Static
	if u.Username != "" {
		if keys.Credential, err = auth.NewCredential(origin, auth.Secret{Username: u.Username, Password: u.Password}, "the registry's configuration"); err != nil {
			return nil, err
		}
	}
	elsewhere := auth.Guard(origin, client.NewTransport())
	authenticated, err := auth.NewTransport(auth.Config{Origin: origin, Base: transport, Other: elsewhere, Keychain: keys, UserAgent: "tared"})
	if err != nil {
		return nil, err
	}
	up := &upstream{Upstream: u, base: base, http: &http.Client{Transport: authenticated}}
	up.client, err = client.New(client.Options{Base: base, HTTP: up.http, Elsewhere: elsewhere, UserAgent: "tared",
		Retry: client.Retry{Attempts: 3, MaxWait: 10 * time.Second}, Limits: client.Limits{Stall: 30 * time.Second}})
	return up, err
}

// find returns the upstream of a repository, and what the repository is called there.
func (s *Store) find(repo string) (*upstream, *client.Repository, error) {
	for _, u := range s.upstreams {
		name := repo
		if u.Namespace != "" {
			var ok bool
			if name, ok = strings.CutPrefix(repo, u.Namespace+"/"); !ok {
				continue
			}
		}
		r, err := u.client.Repository(name)
		if err != nil {
			return nil, nil, storage.ErrRepositoryUnknown
		}
		return u, r, nil
	}
	return nil, nil, storage.ErrRepositoryUnknown
}

func (s *Store) warn(format string, args ...any) {
	if s.opts.Warn != nil {
		s.opts.Warn(fmt.Errorf(format, args...))
	}
}

// verdict is what an upstream's error means.
type verdict int

const (
	down   verdict = iota // it did not answer, or not as it should
	gone                  // it does not have that
	denied                // it does not give that to us
)

func judge(err error) verdict {
	var e *client.Error
	switch {
	case errors.Is(err, content.ErrNotFound):
		return gone
	case errors.As(err, &e) && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden):
		return denied
	}
	return down
}

// absent makes an upstream's error what a client of ours is told: what says where somebody would have to log in is for who runs
// this registry. Some registries answer 401 for what is not there.
func (s *Store) absent(repo string, err, unknown error) error {
	switch judge(err) {
	case gone:
		return unknown
	case denied:
		s.warn("fetch for %s: %w", repo, err)
		return unknown
	}
	return fmt.Errorf("fetch for %s: %w", repo, err)
}

// missing reports whether a local error says only that something is not there.
func missing(err error) bool {
	for _, e := range []error{storage.ErrRepositoryUnknown, storage.ErrBlobUnknown, storage.ErrManifestUnknown, storage.ErrTagUnknown} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// bound keeps a map from growing for ever: what falls out is asked for again.
func bound[K comparable, V any](m map[K]V) {
	for k := range m {
		if len(m) < maxKnown {
			return
		}
		delete(m, k)
	}
}

// The methods that would change something.

// LinkBlob returns storage.ErrReadOnly.
func (s *Store) LinkBlob(context.Context, string, string, digest.Digest) (storage.BlobInfo, error) {
	return storage.BlobInfo{}, storage.ErrReadOnly
}

// UnlinkBlob returns storage.ErrReadOnly.
func (s *Store) UnlinkBlob(context.Context, string, digest.Digest) error { return storage.ErrReadOnly }

// PutManifest returns storage.ErrReadOnly.
func (s *Store) PutManifest(context.Context, string, storage.Manifest, storage.PutOptions) error {
	return storage.ErrReadOnly
}

// DeleteManifest returns storage.ErrReadOnly.
func (s *Store) DeleteManifest(context.Context, string, digest.Digest) error {
	return storage.ErrReadOnly
}

// DeleteTag returns storage.ErrReadOnly.
func (s *Store) DeleteTag(context.Context, string, string, func(digest.Digest) bool) error {
	return storage.ErrReadOnly
}

// ListRepositories lists the repositories that something was fetched of.
func (s *Store) ListRepositories(ctx context.Context, after string, n int) ([]string, bool, error) {
	return s.local.ListRepositories(ctx, after, n)
}

// list is a list that an upstream gave.
type list struct {
	until       time.Time
	tags        []string
	descriptors []v1.Descriptor
}
