package directory

import (
	"container/list"
	"sync"
	"time"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// Limits of the cache, in bytes.
const (
	cacheSize  = 16 << 20
	cacheEntry = 1 << 20
)

// settled is how old a file must be to be kept in memory. One that is younger could be replaced by another that has the same
// inode number and, as the kernel's clock ticks, the same time.
const settled = time.Second

// cache keeps manifests and tags that were read lately. Each belongs to a repository, and counts only while the file that it
// was read from is there and the same: a manifest that anybody has deleted is not served from memory (CVE-2026-35172).
type cache struct {
	mu      sync.Mutex
	left    int
	entries map[cacheKey]*list.Element
	recent  *list.List // of *cached, the latest first
}

type cacheKey struct {
	repo, name string // the name is a digest or a tag
}

type cached struct {
	key   cacheKey
	stat  fsat.Stat // of the file
	value any       // storage.Manifest or digest.Digest
	size  int
}

func newCache(size int) *cache {
	return &cache{left: size, entries: map[cacheKey]*list.Element{}, recent: list.New()}
}

// get returns what is kept for a file that is as st says.
func (c *cache) get(key cacheKey, st fsat.Stat) (value any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil
	}
	entry := e.Value.(*cached)
	if entry.stat.Ino != st.Ino || entry.stat.Size != st.Size || !entry.stat.Mtime.Equal(st.Mtime) {
		c.drop(e)
		return nil
	}
	c.recent.MoveToFront(e)
	return entry.value
}

func (c *cache) put(key cacheKey, st fsat.Stat, value any) {
	entry := &cached{key, st, value, int(st.Size) + 512}
	if entry.size > cacheEntry || time.Since(st.Mtime) < settled {
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
