package directory

import (
	"container/list"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/internal/sys/fsat"
)

// Limits of the cache of manifests, in bytes.
const (
	cacheSize  = 64 << 20
	cacheEntry = 1 << 20
)

// cache keeps manifests that were read lately. Each belongs to a repository, and counts only while the file that it was read
// from is there and the same: a manifest that anybody has deleted is not served from memory (CVE-2026-35172).
type cache struct {
	mu      sync.Mutex
	left    int
	entries map[cacheKey]*list.Element
	recent  *list.List // of *cached, the latest first
}

type cacheKey struct {
	repo     string
	manifest digest.Digest
}

type cached struct {
	key      cacheKey
	stat     fsat.Stat // of the file
	manifest storage.Manifest
	size     int
}

func newCache(size int) *cache {
	return &cache{left: size, entries: map[cacheKey]*list.Element{}, recent: list.New()}
}

// get returns what is kept for a file that is as st says.
func (c *cache) get(key cacheKey, st fsat.Stat) (storage.Manifest, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return storage.Manifest{}, false
	}
	entry := e.Value.(*cached)
	if entry.stat.Ino != st.Ino || entry.stat.Size != st.Size || !entry.stat.Mtime.Equal(st.Mtime) {
		c.drop(e)
		return storage.Manifest{}, false
	}
	c.recent.MoveToFront(e)
	return entry.manifest, true
}

func (c *cache) put(key cacheKey, st fsat.Stat, m storage.Manifest) {
	entry := &cached{key, st, m, int(st.Size) + 512}
	if entry.size > cacheEntry {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.entries[key]; old != nil {
		c.drop(old)
	}
	c.entries[key] = c.recent.PushFront(entry)
	for c.left -= entry.size; c.left < 0; {
		c.drop(c.recent.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	entry := e.Value.(*cached)
	c.recent.Remove(e)
	delete(c.entries, entry.key)
	c.left += entry.size
}
