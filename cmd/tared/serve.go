package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/access"
	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/distribution/server/listen"
	"github.com/tare-oci/tare/distribution/server/observe"
	"github.com/tare-oci/tare/distribution/server/proxy"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/web"
)

// complain tells whoever runs the registry what no client has caused.
func complain(err error) { fmt.Fprintln(os.Stderr, "tared: "+err.Error()) }

// registry is everything that runs.
type registry struct {
	config  *config.Config
	storage storage.Storage
	guard   *access.Guard // nil if everybody may do everything
	watch   *observe.Observer
	log     *logFile // nil for none
	figures *figures // nil without metrics
}

// serve serves until SIGINT or SIGTERM. again reads the configuration anew, for SIGHUP.
func serve(c *config.Config, again func() (*config.Config, error)) (err error) {
	relaxGC()
	store, closeStore, err := openStorage(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	x := &registry{config: c, storage: store}
	if x.log, err = openLog(c.Log.Access); err != nil {
		return err
	}
	defer x.log.Close()
	handler, err := x.handler()
	if err != nil {
		return err
	}
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(stop, cancel) // the second signal kills
	defer func() { cancel(); x.figures.wait() }()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	if err := x.serveMetrics(stop); err != nil {
		return err
	}
	l, err := x.listen()
	if err != nil {
		return err
	}
	go x.reload(stop, hup, again)
	collected := x.collectBehind(stop)
	err = listen.Serve(stop, l, handler, x.times(x.watch.End))
	cancel()
	<-collected
	return err
}

func (x *registry) times(ending func()) listen.Options {
	l := x.config.Limits
	return listen.Options{Header: time.Duration(l.Header), Idle: time.Duration(l.Idle), Grace: time.Duration(l.Shutdown), Ending: ending, Fault: complain}
}

// handler puts the registry together, from the outside to the inside: what watches, what keeps browsers of strangers out, who may
// what, and what is there.
func (x *registry) handler() (http.Handler, error) {
	c := x.config
	o := observe.Options{Common: c.Log.Format == "common", Requests: c.Limits.Requests, Stall: time.Duration(c.Limits.Stall), Ready: x.ready, Fault: complain}
	if x.log != nil {
		o.Log = x.log
	}
	x.watch = observe.New(o)
	var err error
	if x.guard, err = newGuard(c, x.storage); err != nil {
		return nil, err
	}
	fault := func(r *http.Request, err error) { complain(fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, err)) }
	opts := server.Options{Storage: x.storage, ReadOnly: c.ReadOnly || len(c.Proxies) > 0, NoDelete: !c.Delete, MaxManifest: int64(c.Limits.Manifest), MaxBlob: int64(c.Limits.Blob),
		Redirect: c.S3.Redirect, Fault: fault}
	if x.guard != nil {
		opts.Authorizer = x.guard
	}
	var h http.Handler = x.pages(server.New(opts), fault)
	if x.guard != nil {
		h = x.guard.Wrap(h)
	}
	if cache, ok := x.storage.(*proxy.Store); ok {
		h = cache.Wrap(h)
	}
	// A page of a stranger must not use the password that a browser remembers, or that a registry on loopback needs none.
	return x.watch.Wrap(http.NewCrossOriginProtection().Handler(h)), nil
}

// pages serves what is beside the API, if it is wanted.
func (x *registry) pages(api http.Handler, fault func(*http.Request, error)) http.Handler {
	if !x.config.Web.Enabled {
		return api
	}
	o := web.Options{Storage: x.storage, Title: x.config.Web.Title, Fault: fault}
	if x.guard != nil {
		o.CanPull = x.guard.CanPull
	}
	if x.config.Auth.Htpasswd != "" {
		o.User = access.User
	}
	pages := web.New(o)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/") {
			api.ServeHTTP(w, r)
			return
		}
		pages.ServeHTTP(w, r)
	})
}

// newGuard returns what decides who may do what, or nil if the configuration knows no users.
func newGuard(c *config.Config, store storage.Storage) (*access.Guard, error) {
	if c.Auth.Htpasswd == "" && len(c.Auth.Issuers) == 0 {
		return nil, nil
	}
	a := access.Config{Service: c.Auth.Service, URL: c.URL, Repositories: store.ListRepositories, Warn: complain, Seen: observe.SetUser}
	var err error
	if c.Auth.Htpasswd != "" {
		if a.Users, err = access.OpenUsers(c.Auth.Htpasswd); err != nil {
			return nil, err
		}
		if c.Auth.Tokens {
			if a.Issuer, err = access.NewIssuer(c.Auth.Service, c.Auth.TokenKey); err != nil {
				return nil, err
			}
		}
	}
	if c.Auth.Groups != "" {
		if a.Groups, err = access.OpenGroups(c.Auth.Groups); err != nil {
			return nil, err
		}
	}
	for _, i := range c.Auth.Issuers {
		v, err := access.NewVerifier(i.Name, c.Auth.Service, i.Keys...)
		if err != nil {
			return nil, err
		}
		a.Tokens, a.TokenURL = append(a.Tokens, v), i.URL
	}
	return access.New(a, c.Policy())
}

// ready asks the storage for something that is cheap and needs all of it.
func (x *registry) ready(ctx context.Context) error {
	_, _, err := x.storage.ListRepositories(ctx, "", 1)
	return err
}

// listen opens the registry's address, and says which it is: with port 0 the kernel chooses.
func (x *registry) listen() (net.Listener, error) {
	l, err := net.Listen("tcp", x.config.Listen)
	if err != nil {
		return nil, err
	}
	scheme := "http"
	if t := x.config.TLS; t.Certificate != "" {
		conf, err := listen.TLS(t.Certificate, t.Key, t.ClientCA, complain)
		if err != nil {
			l.Close()
			return nil, err
		}
		l, scheme = tls.NewListener(l, conf), "https"
	}
	fmt.Fprintf(os.Stderr, "tared: registry on %s://%s\n", scheme, l.Addr())
	if host, _, err := net.SplitHostPort(l.Addr().String()); err == nil && x.guard == nil && !net.ParseIP(host).IsLoopback() {
		complain(errors.New("warning: there are no users (--htpasswd): everybody who reaches this address may do everything"))
	}
	return l, nil
}

// serveMetrics serves the metrics on an address of their own, as they are not for who uses the registry.
func (x *registry) serveMetrics(stop context.Context) error {
	if x.config.Metrics.Listen == "" {
		return nil
	}
	l, err := net.Listen("tcp", x.config.Metrics.Listen)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	x.figures = &figures{storage: x.storage, stop: stop}
	x.watch.Gauge("tared_uploads_under_way", x.figures.uploads)
	x.watch.Gauge("tared_storage_bytes", x.figures.bytes)
	x.watch.Gauge("tared_storage_blobs", x.figures.blobs)
	fmt.Fprintf(os.Stderr, "tared: metrics on http://%s/metrics\n", l.Addr())
	mux := http.NewServeMux()
	mux.Handle("/metrics", x.watch.MetricsHandler())
	times := x.times(nil)
	go func() {
		if err := listen.Serve(stop, l, mux, times); err != nil {
			complain(fmt.Errorf("metrics: %w", err))
		}
	}()
	return nil
}

// reload puts the permissions of the file in force again at each SIGHUP, and opens the log anew.
func (x *registry) reload(stop context.Context, hup <-chan os.Signal, again func() (*config.Config, error)) {
	for {
		select {
		case <-stop.Done():
			return
		case <-hup:
		}
		c, err := again()
		if err == nil && x.guard != nil {
			err = x.guard.SetPolicy(c.Policy())
		}
		if err = errors.Join(err, x.log.reopen()); err != nil {
			complain(fmt.Errorf("reload: %w", err))
			continue
		}
		complain(errors.New("reloaded the permissions; other keys of the configuration count from the next start"))
	}
}
