package snapshot

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/internal/imagetest"
)

const killFiles = 150

// killLayers are layers that take a while, one of which needs those below it.
func killLayers(t *testing.T) []Layer {
	t.Helper()
	var layers []Layer
	for l := range 3 {
		var entries []imagetest.Entry
		if l < 2 {
			entries = append(entries, file("d/", ""))
		}
		for i := range killFiles {
			entries = append(entries, file(fmt.Sprintf("d/%d-%d", l, i), strings.Repeat("x", i)))
		}
		layers = append(layers, layerOf(t, nil, entries...))
	}
	return layers
}

// TestKilled kills a process that unpacks and removes layers again and again, at random points. Whatever is visible then is whole,
// and the next call heals the rest.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("SNAPSHOT_KILL"); dir != "" {
		s, err := Open(dir, Options{})
		for err == nil {
			var r *Rootfs
			if r, err = s.Image(context.Background(), killLayers(t)); err == nil {
				r.Close()
				_, err = s.Prune(context.Background(), func(digest.Digest) bool { return false }, false)
			}
		}
		t.Fatal(err)
	}
	// In memory: ext4 is slow to make files where it has just removed many (recently_deleted in fs/ext4/ialloc.c).
	dir, err := os.MkdirTemp("/dev/shm", "tare-snapshot-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	layers := killLayers(t)
	seen := map[int]int{} // how many layers were visible after a kill
	for round := range 100 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "SNAPSHOT_KILL="+s.dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond) // the moment is the point: any one will do
		cmd.Process.Kill()
		cmd.Wait() //nolint:errcheck // it was killed
		list, err := s.List(context.Background())
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		seen[len(list)]++
		for _, e := range list {
			if e.Entries < killFiles || e.Usage < 4096 {
				t.Errorf("round %d: %+v", round, e)
			}
		}
		whole(t, s)
		if err := s.Sweep(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		onlyWhole(t, s)
		r, err := s.Image(context.Background(), layers)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		whole(t, s)
		r.Close()
		if round%2 == 0 {
			if _, err := s.Prune(context.Background(), func(digest.Digest) bool { return false }, false); err != nil {
				t.Fatal(err)
			}
		}
		onlyWhole(t, s)
	}
	if len(seen) < 3 {
		t.Errorf("the kills hit few states: %v", seen)
	}
}

// whole checks that every directory with a layer's name has all of its files.
func whole(t *testing.T, s *Store) {
	t.Helper()
	dirs, err := s.dirs()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		files, err := filepath.Glob(s.path(d, "fs/d/*"))
		if err != nil || len(files) != killFiles {
			t.Errorf("%s has %d files, %v", d, len(files), err)
		}
	}
}
