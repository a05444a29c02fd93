package directory

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxIndexes is how many directories' names are kept in memory.
const maxIndexes = 256

// indexes keeps the names in directories in order, so that a page of a long list costs no more than one of a short list. An
// index is good as long as the directory's time is the one that was seen when it was read. Who changes a directory holds a
// lock that keeps all other processes from changing it, and afterwards gives it a time that it never had: see change.
type indexes struct {
	mu  sync.Mutex
	dir map[string]*index
}

type index struct {
	mu      sync.Mutex
	version int64 // the directory's time in ns; 0: not read
	names   []string
}

func newIndexes() *indexes { return &indexes{dir: map[string]*index{}} }

func (x *indexes) get(dir string) *index {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := x.dir[dir]
	if i == nil {
		if len(x.dir) >= maxIndexes {
			for other := range x.dir { // any one
				delete(x.dir, other)
				break
			}
		}
		i = &index{}
		x.dir[dir] = i
	}
	return i
}

// list returns up to n names after a text, in order. A directory that is not there has none.
func (x *indexes) list(dir, after string, n int) (page []string, more bool, err error) {
	i := x.get(dir)
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.read(dir); err != nil {
		return nil, false, err
	}
	from, found := slices.BinarySearch(i.names, after)
	if found {
		from++
	}
	to := min(from+n, len(i.names))
	return slices.Clone(i.names[from:to]), to < len(i.names), nil
}

// read reads the directory if it has changed.
func (i *index) read(dir string) error {
	for range 100 {
		version, err := directoryTime(dir)
		if err != nil {
			return err
		}
		if version == i.version && version != 0 {
			return nil
		}
		if i.names, err = names(dir); err != nil {
			return err
		}
		for at, name := range i.names { // of repositories, whose order is that with slashes
			i.names[at] = strings.ReplaceAll(name, "+", "/")
		}
		slices.Sort(i.names)
		if i.version, err = directoryTime(dir); err != nil {
			return err
		}
		if i.version == version {
			return nil
		}
	}
	i.version = 0 // it changes all the time: what was read last is as good as any
	return nil
}

// directoryTime is 0 for a directory that is not there.
func directoryTime(dir string) (int64, error) {
	st, err := os.Stat(dir)
	if err != nil {
		if absent(err) {
			return 0, nil
		}
		return 0, err
	}
	return st.ModTime().UnixNano(), nil
}

// change runs do, which changes the names in dir and says how, under the lock that the directory's changes need.
func (x *indexes) change(dir string, do func() (added, removed []string, err error)) error {
	i := x.get(dir)
	i.mu.Lock()
	defer i.mu.Unlock()
	before, err := directoryTime(dir)
	if err != nil {
		return err
	}
	known := i.version == before && before != 0
	i.version = 0
	added, removed, err := do()
	if err != nil {
		return err
	}
	// The kernel's own time may be the same after two changes within a tick of its clock. This one is new.
	after := time.Unix(0, max(time.Now().UnixNano(), before+1000)).Truncate(time.Microsecond)
	if err := os.Chtimes(dir, after, after); err != nil {
		return fmt.Errorf("mark change: %w", err)
	}
	if !known {
		return nil
	}
	for _, name := range removed {
		if at, found := slices.BinarySearch(i.names, name); found {
			i.names = slices.Delete(i.names, at, at+1)
		}
	}
	for _, name := range added {
		if at, found := slices.BinarySearch(i.names, name); !found {
			i.names = slices.Insert(i.names, at, name)
		}
	}
	i.version, err = directoryTime(dir)
	return err
}
