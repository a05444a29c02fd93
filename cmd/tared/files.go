package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/distribution/server/proxy"
	"github.com/tare-oci/tare/distribution/server/s3"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/directory"
)

// openStorage opens where the registry keeps things, and before that what fetches from other registries.
func openStorage(c *config.Config) (storage.Storage, func() error, error) {
	store, done, err := openKept(c)
	if err != nil || len(c.Proxies) == 0 {
		return store, done, err
	}
	o := proxy.Options{Local: store, Temp: filepath.Join(tempDir(c), "fetches"), MaxBlob: int64(c.Limits.Blob), Warn: complain}
	for _, p := range c.Proxies {
		o.Upstreams = append(o.Upstreams, proxy.Upstream{Address: p.Upstream, Namespace: p.Namespace, Username: p.Username, Password: p.Password.Reveal(), CA: p.CA, TTL: time.Duration(p.TTL)})
	}
	cache, err := proxy.New(o)
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return cache, func() error { cache.Close(); return done() }, nil
}

// tempDir is where parts of blobs are on their way. A directory of the storage has only what the storage put there.
func tempDir(c *config.Config) string { return c.Root + ".tmp" }

// openKept opens a directory or a bucket.
func openKept(c *config.Config) (storage.Storage, func() error, error) {
	if c.S3.Bucket != "" {
		ctx, cancel := context.WithTimeout(context.Background(), openFor)
		defer cancel()
		store, err := s3.Open(ctx, s3.Options{Endpoint: c.S3.Endpoint, Bucket: c.S3.Bucket, Prefix: c.S3.Prefix, Region: c.S3.Region, AccessKey: c.S3.AccessKey.Reveal(),
			SecretKey: c.S3.SecretKey.Reveal(), Temp: filepath.Join(tempDir(c), "parts"), Expiry: time.Duration(c.S3.Expiry)})
		if err != nil {
			return nil, nil, err
		}
		return store, func() error { return nil }, nil
	}
	dir, err := directory.Open(c.Root)
	if err != nil {
		return nil, nil, err
	}
	return dir, dir.Close, nil
}

// logFile is a log that can be moved away while it is written. A nil one is none.
type logFile struct {
	path string
	mu   sync.Mutex
	file *os.File
}

func openLog(path string) (*logFile, error) {
	switch path {
	case "off", "":
		return nil, nil
	case "-":
		return &logFile{file: os.Stdout}, nil
	}
	l := &logFile{path: path}
	return l, l.reopen()
}

// reopen opens the file by its name again.
func (l *logFile) reopen() error {
	if l == nil || l.path == "" {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("open access log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
	}
	l.file = f
	return nil
}

func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Write(p)
}

// Close closes the file.
func (l *logFile) Close() {
	if l != nil && l.path != "" {
		l.file.Close()
	}
}

// openFor is how long an object store may take to answer at the start.
const openFor = time.Minute

// figuresFor is how long a figure that is found by looking at the whole storage is good.
const figuresFor = time.Minute

// figures are what the metrics say about the storage. They are counted behind the answers: a large storage takes longer than who
// reads metrics waits.
type figures struct {
	storage storage.Storage
	stop    context.Context
	running sync.WaitGroup

	mu                    sync.Mutex
	at                    time.Time
	counting              bool
	nUploads, nBlobs, sum float64
}

func (f *figures) uploads() float64 { return f.look(&f.nUploads) }
func (f *figures) blobs() float64   { return f.look(&f.nBlobs) }
func (f *figures) bytes() float64   { return f.look(&f.sum) }

// look returns a figure, and has them counted again if they are too old.
func (f *figures) look(figure *float64) float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.counting && f.stop.Err() == nil && time.Since(f.at) >= figuresFor {
		f.counting = true
		f.running.Go(f.count)
	}
	return *figure
}

// wait waits for a count under way.
func (f *figures) wait() {
	if f != nil {
		f.running.Wait()
	}
}

func (f *figures) count() {
	uploads, blobs, sum := 0, 0, int64(0)
	err := f.storage.ListUploads(f.stop, func(storage.Upload) error { uploads++; return f.stop.Err() })
	if err == nil {
		err = f.storage.Contents(f.stop, func(b storage.BlobInfo) error { blobs++; sum += b.Size; return f.stop.Err() })
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.counting = time.Now(), false
	if err != nil && f.stop.Err() == nil {
		complain(fmt.Errorf("metrics: count what is stored: %w", err))
	}
	if err == nil {
		f.nUploads, f.nBlobs, f.sum = float64(uploads), float64(blobs), float64(sum)
	}
}
