// Package listen runs an HTTP server: with certificates that are read again when they change, with limits against clients that
// never finish a header, and with an end at which uploads under way are finished.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// maxHeader is the most bytes of a request's header; tokens of large organizations have tens of kilobytes.
const maxHeader = 64 << 10

// Options are the times of a server.
type Options struct {
	Header time.Duration // for the header of a request
	Idle   time.Duration // between requests of a connection
	Grace  time.Duration // for requests under way at the end
	// Ending is called when the end begins, before connections are refused; may be nil.
	Ending func()
	// Fault is told what went wrong with a connection; may be nil.
	Fault func(error)
}

// Serve serves h on l, which it closes, until ctx is done; then no connection is accepted any more, and what is under way has
// the time of grace to be finished. The error says what did not end by itself, or why nothing could be served.
func Serve(ctx context.Context, l net.Listener, h http.Handler, o Options) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: o.Header, IdleTimeout: o.Idle, MaxHeaderBytes: maxHeader, ErrorLog: logger(o.Fault)}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	if o.Ending != nil {
		o.Ending()
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.Grace)
	defer cancel()
	err := s.Shutdown(last)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.Join(fmt.Errorf("stop: cut off what was still under way after %s", o.Grace), s.Close())
	}
	<-done
	return err
}
