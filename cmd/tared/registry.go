package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage/directory"
	"github.com/tare-oci/tare/internal/getopt"
)

// Times of the server. A body may take as long as it needs: layers are large and networks slow.
const (
	headerTimeout = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	drainTimeout  = 30 * time.Second // for requests under way when the server is told to stop
)

var registryCommand = command{
	name:    "registry",
	summary: "Serve images by the distribution-spec",
	setup: func(set *getopt.Set) func() error {
		listen, root := "127.0.0.1:5000", ""
		set.String(&listen, "listen", 0, "ADDR", "address and port (127.0.0.1:5000)")
		set.String(&root, "root", 0, "DIR", "directory where everything is kept")
		return func() error {
			if root == "" {
				return errors.New("registry: --root is missing (tared registry --help)")
			}
			return serve(listen, root)
		}
	},
}

// serve serves until SIGINT or SIGTERM.
func serve(listen, root string) (err error) {
	dir, err := directory.Open(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "tared: registry on http://%s\n", l.Addr())
	s := &http.Server{
		Handler: server.New(server.Options{Storage: dir, Fault: func(r *http.Request, err error) {
			fmt.Fprintf(os.Stderr, "tared: %s %s: %v\n", r.Method, r.URL.Path, err)
		}}),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
	}
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-stop.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	return s.Shutdown(ctx)
}
