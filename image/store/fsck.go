package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/reference"
)

// The kinds of problems that Fsck finds.
const (
	ProblemLayout   = "layout"   // oci-layout is missing or damaged
	ProblemIndex    = "index"    // index.json is missing or damaged
	ProblemEntry    = "entry"    // an entry of index.json is malformed, or has the name of an earlier one: nothing uses it
	ProblemMissing  = "missing"  // a blob that an image needs is not there
	ProblemCorrupt  = "corrupt"  // a blob is not what its digest says
	ProblemSize     = "size"     // a blob is right, but a manifest says another size of it: the image was made so
	ProblemLease    = "lease"    // a lease file is damaged
	ProblemLeftover = "leftover" // an old file of a process that was killed
	ProblemMode     = "mode"     // others may write a file, or look into a directory
	ProblemUnknown  = "unknown"  // a file in blobs/ that is no blob
)

// Problem is something that is wrong in the store.
type Problem struct {
	Kind     string
	Path     string        // relative to the store's directory
	Digest   digest.Digest // of a blob
	Names    []string      // of the images that need it
	Detail   string        // for people
	Harmless bool          // no image suffers from it
	Repaired bool
	Err      error // why it could not be repaired; nil if that was not asked for
}

// FsckOptions say how Fsck works.
type FsckOptions struct {
	Quick  bool // compare sizes and do not read the blobs
	Repair bool

	// Fetch opens a blob anew from its first byte, for Repair. names are the images that need it, and may be none. If it is nil,
	// damaged blobs are only put away, so that a pull fetches them.
	Fetch func(ctx context.Context, d v1.Descriptor, names []string) (io.ReadCloser, error)

	// Progress, if it is set, is called with the bytes read so far, by one goroutine at a time.
	Progress func(done, total int64)
}

// FsckReport is what Fsck found.
type FsckReport struct {
	Problems []Problem
	Blobs    int   // checked
	Bytes    int64 // of these
}

// OK reports whether every image in the store is whole, perhaps after repair.
func (r *FsckReport) OK() bool {
	for _, p := range r.Problems {
		if !p.Harmless && !p.Repaired {
			return false
		}
	}
	return true
}

// Fsck checks the store, and repairs it if asked to. Nothing that is good is ever removed: damaged blobs are moved to
// .tare/broken, from where Prune removes them after a day. Others may use the store meanwhile; Prune waits. The error is
// for what kept Fsck from checking; what it found wrong is in the report.
func (s *Store) Fsck(ctx context.Context, opts FsckOptions) (FsckReport, error) {
	shared, err := s.share(ctx)
	if err != nil {
		return FsckReport{}, err
	}
	defer shared.Close()
	c := checker{s: s, opts: opts, bad: map[digest.Digest]string{}}
	if opts.Repair {
		l, err := s.Lease(ctx, "fsck", "")
		if err != nil {
			return FsckReport{}, fmt.Errorf("fsck: %w", err)
		}
		defer l.Release()
		ctx = WithLease(ctx, l)
	}
	for _, step := range []func(context.Context) error{c.layout, c.modes, c.blobs, c.index, c.leases, c.graph, c.unreferenced, c.leftovers} {
		if err := step(ctx); err != nil {
			return c.report, fmt.Errorf("fsck: %w", err)
		}
	}
	return c.report, nil
}

type checker struct {
	s      *Store
	opts   FsckOptions
	report FsckReport

	found []foundBlob
	bad   map[digest.Digest]string // what is wrong with damaged blobs

	list    []Named
	pending []pending
	visited map[node]bool
	holders map[node][]node
	names   map[node][]string // of roots
}

// pending is a problem of the blob that edge refers to, before it is known who else needs it.
type pending struct {
	problem Problem
	edge    edge
}

type foundBlob struct {
	digest digest.Digest
	size   int64
}

// problem adds a problem; repair, if it is set and repairing was asked for, mends it.
func (c *checker) problem(p Problem, repair func() error) {
	if c.opts.Repair && repair != nil {
		p.Err = repair()
		p.Repaired = p.Err == nil
	}
	c.report.Problems = append(c.report.Problems, p)
}

// layout checks the file oci-layout and that the store's own directories are there.
func (c *checker) layout(context.Context) error {
	for _, sub := range []string{"ingest", "leases", "broken", "used"} {
		if _, err := os.Lstat(c.s.path(sub)); errors.Is(err, fs.ErrNotExist) {
			c.problem(Problem{Kind: ProblemLayout, Path: private + "/" + sub, Detail: "the directory is missing"}, func() error {
				return os.MkdirAll(c.s.path(sub), dirMode)
			})
			if !c.opts.Repair {
				return fmt.Errorf("directory %s is missing: repair makes it", c.s.path(sub))
			}
		}
	}
	path := filepath.Join(c.s.dir, v1.ImageLayoutFile)
	raw, err := os.ReadFile(path)
	if err == nil {
		_, err = layoutVersion(raw)
	}
	if err == nil {
		return nil
	}
	c.problem(Problem{Kind: ProblemLayout, Path: v1.ImageLayoutFile, Detail: err.Error()}, func() error {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return createFile(path, layoutDoc)
	})
	return nil
}

// modes looks for what others could change or read, and for what is in the place of blobs and is none.
func (c *checker) modes(ctx context.Context) error {
	return filepath.WalkDir(c.s.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) && path != c.s.dir {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(c.s.dir, path)
		if err != nil {
			return err
		}
		c.mode(path, rel, info)
		return c.place(path, rel, info)
	})
}

func (c *checker) mode(path, rel string, info os.FileInfo) {
	bits, now := os.FileMode(0o022), info.Mode().Perm()
	if info.IsDir() {
		bits = 0o077
	} else if !info.Mode().IsRegular() {
		return // links have no mode
	}
	if now&bits != 0 {
		detail := fmt.Sprintf("mode %04o, want at most %04o", now, now&^bits)
		c.problem(Problem{Kind: ProblemMode, Path: rel, Detail: detail}, func() error { return os.Chmod(path, now&^bits) })
	}
}

// place reports files below blobs/ that are not blobs. One that has a blob's name is in its way.
func (c *checker) place(path, rel string, info os.FileInfo) error {
	parts := strings.Split(rel, string(filepath.Separator))
	if parts[0] != v1.ImageBlobsDir || len(parts) == 1 || len(parts) == 2 && info.IsDir() {
		return nil
	}
	var d digest.Digest
	if len(parts) == 3 {
		d = digest.Digest(parts[1] + ":" + parts[2])
	}
	blob := reference.CheckDigest(d) == nil
	if blob && info.Mode().IsRegular() {
		return nil
	}
	p := Problem{Kind: ProblemUnknown, Path: rel, Detail: "not a blob", Harmless: !blob}
	if blob {
		p.Digest = d
		c.problem(p, func() error { return moveAway(path, c.s.brokenPath(d)) })
	} else {
		c.problem(p, nil)
	}
	if info.IsDir() {
		return filepath.SkipDir
	}
	return nil
}

// blobs hashes all blobs, on two processors at most: somebody else wants to work too.
func (c *checker) blobs(ctx context.Context) error {
	var total int64
	err := c.s.eachBlob(ctx, func(d digest.Digest, info os.FileInfo) error {
		c.found = append(c.found, foundBlob{d, info.Size()})
		total += info.Size()
		return nil
	})
	c.report.Blobs, c.report.Bytes = len(c.found), total
	if err != nil || c.opts.Quick {
		return err
	}
	var mu sync.Mutex
	var group sync.WaitGroup
	var done int64
	var first error
	work := make(chan foundBlob)
	for range min(2, runtime.GOMAXPROCS(0)) {
		group.Go(func() {
			buf := make([]byte, 1<<20)
			for b := range work {
				wrong, err := c.s.checkBlob(ctx, b.digest, buf)
				mu.Lock()
				if err != nil && first == nil {
					first = err
				}
				if wrong != "" {
					c.bad[b.digest] = wrong
				}
				if done += b.size; c.opts.Progress != nil {
					c.opts.Progress(done, total)
				}
				mu.Unlock()
			}
		})
	}
	for _, b := range c.found {
		if ctx.Err() != nil {
			break
		}
		work <- b
	}
	close(work)
	group.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return first
}

// checkBlob says what is wrong with a blob's content, "" if nothing is, or if it is gone or nobody can tell.
func (s *Store) checkBlob(ctx context.Context, d digest.Digest, buf []byte) (wrong string, err error) {
	if reference.CheckVerifiable(d) != nil {
		return "", nil
	}
	f, size, err := s.open(d)
	if errors.Is(err, content.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := d.Algorithm().Hash()
	if n, err := io.CopyBuffer(h, &contextReader{ctx, f}, buf); ctx.Err() != nil {
		return "", ctx.Err()
	} else if err != nil {
		return fmt.Sprintf("reading stops after %d of %d bytes: %v", n, size, err), nil // a bad disk
	}
	if got := digest.NewDigest(d.Algorithm(), h); got != d {
		return fmt.Sprintf("its %d bytes have digest %s", size, got), nil
	}
	return "", nil
}

// index checks index.json.
func (c *checker) index(ctx context.Context) error {
	idx, err := c.s.readIndex()
	if errors.Is(err, ErrIndex) {
		c.problem(Problem{Kind: ProblemIndex, Path: v1.ImageIndexFile, Detail: err.Error()}, func() error { return c.restoreIndex(ctx) })
		idx, err = c.s.readIndex()
		if errors.Is(err, ErrIndex) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	for i, e := range idx.entries() {
		p := Problem{Kind: ProblemEntry, Path: v1.ImageIndexFile, Harmless: true}
		switch name := e.desc.Annotations[v1.AnnotationRefName]; {
		case e.err != nil:
			p.Detail = fmt.Sprintf("entry %d: %v", i, e.err)
		case name != e.name:
			p.Detail, p.Digest = fmt.Sprintf("entry %d: an earlier one has the name %.300q too", i, name), e.desc.Digest
		default:
			continue
		}
		c.problem(p, nil)
	}
	c.list, err = c.s.List(ctx)
	return err
}

// unreferenced reports damaged blobs that no image needs.
func (c *checker) unreferenced(ctx context.Context) error {
	var rest []digest.Digest
	for d := range c.bad {
		rest = append(rest, d)
	}
	sort.Slice(rest, func(i, j int) bool { return rest[i] < rest[j] })
	for _, d := range rest {
		p := Problem{Kind: ProblemCorrupt, Path: blobName(d), Digest: d, Detail: c.bad[d] + "; no image needs it", Harmless: true}
		c.problem(p, func() error { return c.putAway(ctx, d) })
	}
	return nil
}

// leases reports what is not a lease.
func (c *checker) leases(context.Context) error {
	entries, err := os.ReadDir(c.s.path("leases"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), persistent) {
			continue
		}
		path := c.s.path("leases", e.Name())
		if _, err := readLease(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.problem(Problem{Kind: ProblemLease, Path: private + "/leases/" + e.Name(), Detail: err.Error()}, func() error {
				return moveAway(path, c.s.path("broken", e.Name()))
			})
		}
	}
	return nil
}

// leftovers reports what killed processes have left and nobody will go on with.
func (c *checker) leftovers(ctx context.Context) error {
	for _, sub := range []string{"ingest", "leases"} {
		entries, err := os.ReadDir(c.s.path(sub))
		if err != nil {
			return err
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil { // removed meanwhile
				continue
			}
			path := c.s.path(sub, e.Name())
			if sub == "leases" && strings.HasSuffix(e.Name(), persistent) && !strings.HasPrefix(e.Name(), ".") ||
				time.Since(info.ModTime()) < defaultPartial {
				continue
			}
			if free, err := isFree(path); err != nil || !free {
				continue
			}
			p := Problem{Kind: ProblemLeftover, Path: private + "/" + sub + "/" + e.Name(), Harmless: true,
				Detail: fmt.Sprintf("%d bytes from %s", info.Size(), info.ModTime().Format(time.DateTime))}
			c.problem(p, func() error { _, err := removeFree(path); return err })
		}
	}
	lock, err := c.s.lockIndex(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	for _, name := range []string{"index.json.new", "index.json.old"} {
		if _, err := os.Lstat(c.s.path(name)); err == nil {
			c.problem(Problem{Kind: ProblemLeftover, Path: private + "/" + name, Harmless: true}, func() error { return os.Remove(c.s.path(name)) })
		}
	}
	return nil
}
