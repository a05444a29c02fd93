package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/directory"
)

// TestCollectBehind has a registry collect by itself, and end when it is told to.
func TestCollectBehind(t *testing.T) {
	dir, err := directory.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	d := digest.FromString("garbage")
	id, err := dir.StartUpload(t.Context(), "a", digest.SHA256)
	if err == nil {
		_, err = dir.CommitUpload(t.Context(), "a", id, 0, strings.NewReader("garbage"), d)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.GC.Interval, c.GC.Grace = config.Duration(time.Millisecond), 0
	stop, cancel := context.WithCancel(t.Context())
	defer cancel()
	x := &registry{config: c, storage: dir}
	ended := x.collectBehind(stop)
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := dir.StatBlob(t.Context(), "a", d); errors.Is(err, storage.ErrBlobUnknown) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing is collected")
		}
	}
	cancel()
	<-ended
	c.GC.Interval, c.ReadOnly = 0, true
	<-x.collectBehind(t.Context())
}
