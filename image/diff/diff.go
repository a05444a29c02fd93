// Package diff tells what changed between two file trees, and writes it as an image layer: the same bytes whenever the same
// changes are written. It is the counterpart of package layer.
//
// The trees are a stranger's (a container's, which may still be running and rename things meanwhile): everything is read through
// directory descriptors, one component at a time, and no symbolic link or mount is followed.
package diff

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// Kind is what happened to a name.
type Kind int

// The kinds of changes, with the numbers of Docker's API.
const (
	Modified Kind = iota // attributes or content, or, of a directory, something below it
	Added
	Deleted
)

// String returns the letter by which docker diff shows the kind: C, A or D.
func (k Kind) String() string { return "CAD"[k : k+1] }

// Change is a name that is not as it was.
type Change struct {
	Path string // from the root, with a slash before it; "/" is the root itself
	Kind Kind
}

// Input is what is compared. The directories stay the caller's, and are only read.
type Input struct {
	// Upper is the tree after the changes, or, with Overlay, overlayfs's upper directory.
	Upper *os.File
	// Lower is the tree before them: one directory, or none for an empty tree. With Overlay it is the layer directories of the
	// mount, the nearest first; nil but not empty says that they are not known: then everything in Upper is a change, and hidden
	// content is named by opaque markers instead of one whiteout for each name.
	Lower []*os.File
	// Overlay says that the directories have overlayfs's marks, as package layer and the kernel make them.
	Overlay bool
	// UserXattr says that these marks are attributes user.overlay.* (mount option userxattr) instead of trusted.overlay.*. A
	// container can set what is not the mount's own, so that only one of them counts.
	UserXattr bool
	// Content compares the bytes of files of which all attributes, size and time of modification included, are equal. For
	// Overlay this is always so: only files in the upper directory are read.
	Content bool
	// MountPoints are paths without a slash before them at which something was mounted while the changes were made. What is only
	// there because of that is no change: the empty file or directory that was made for it, and the time of the directory it is in.
	MountPoints []string
	Limits      Limits
}

// Limits on the trees; zero values mean the defaults. An error names the limit that was met.
type Limits struct {
	Entries int64 // names that are written or listed; default 10 million
	Bytes   int64 // of files that are written; default 1 TiB: a sparse file costs a container nothing
	Depth   int   // of directories, each open while it is read; default 1024
}

func (l Limits) withDefaults() Limits {
	if l.Entries == 0 {
		l.Entries = 10_000_000
	}
	if l.Bytes == 0 {
		l.Bytes = 1 << 40
	}
	if l.Depth == 0 {
		l.Depth = 1024
	}
	return l
}

// Changes returns what changed, in the order in which a layer has it: a directory before what is in it, and of one directory
// first what was deleted, then the rest, each in the order of the names' bytes. A directory in which something changed is Modified
// itself. What was in a deleted directory is not listed.
func Changes(ctx context.Context, in Input) ([]Change, error) {
	var changes []Change
	err := in.walk(ctx, false, func(e *event) error {
		if e.kind == opaque {
			return nil
		}
		changes = append(changes, Change{Path: "/" + e.path, Kind: e.kind})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("compare trees: %w", err)
	}
	return changes, nil
}

// opaque is the kind of an event that is no change of a name: what was in a directory, and is not known, is hidden.
const opaque Kind = 3

// event is a change while the directory that it is in is open.
type event struct {
	path string // without a slash before it; empty: the root
	kind Kind
	dir  int    // descriptor of the directory in Upper; not for Deleted
	name string // in dir; "." for the root
	fsat.Stat
	existed bool // something else had the name in Lower
}

// walker compares.
type walker struct {
	ctx     context.Context
	in      *Input
	limits  Limits
	prefix  string // of overlayfs's attributes
	links   bool   // a file that got or lost a name is changed
	emit    func(*event) error
	pending []*event // directories on the way down of which nothing is emitted yet
	entries int64
}

// walk calls emit with every change. Events of directories that are not changed themselves come when something below them is.
func (in *Input) walk(ctx context.Context, links bool, emit func(*event) error) error {
	w := &walker{ctx: ctx, in: in, limits: in.Limits.withDefaults(), prefix: "trusted.overlay.", links: links, emit: emit}
	if in.UserXattr {
		w.prefix = "user.overlay."
	}
	defer runtime.KeepAlive(in)
	upper, err := fsat.Fd(in.Upper)
	if err != nil {
		return err
	}
	if !in.Overlay && len(in.Lower) > 1 {
		return errors.New("several lower directories need overlayfs's marks")
	}
	lower := make([]int, len(in.Lower))
	for i, f := range in.Lower {
		if lower[i], err = fsat.Fd(f); err != nil {
			return err
		}
	}
	st, err := fsat.Fstat(upper)
	if err != nil {
		return err
	}
	root := &event{kind: Modified, dir: upper, name: ".", Stat: st, existed: len(lower) > 0}
	state := unchanged
	if len(lower) > 0 {
		if state, err = w.rootState(&st, upper, lower[0]); err != nil {
			return err
		}
	} else if !in.Overlay {
		root.kind, state = Added, changed
	}
	return w.directory(root, upper, lower, state, !in.Overlay, 0)
}

// state of a directory itself, apart from what is in it.
type state int

const (
	unchanged state = iota
	changed
	sent // and emitted
)

// rootState compares the roots but for their times: an upper directory is made when a container is.
func (w *walker) rootState(st *fsat.Stat, upper, lower int) (state, error) {
	low, err := fsat.Fstat(lower)
	if err != nil {
		return unchanged, err
	}
	low.Mtime = st.Mtime
	same, err := w.same(st, &low, func() (xattrs, error) { return fdXattrs(upper) }, func() (xattrs, error) { return fdXattrs(lower) })
	if err != nil || same {
		return unchanged, err
	}
	return changed, nil
}

// send emits the directories on the way to e, and e.
func (w *walker) send(e *event) error {
	for _, p := range w.pending {
		if err := w.sendOne(p); err != nil {
			return err
		}
	}
	w.pending = w.pending[:0]
	return w.sendOne(e)
}

func (w *walker) sendOne(e *event) error {
	if w.entries++; w.entries > w.limits.Entries {
		return fmt.Errorf("more than %d entries, the limit (Limits.Entries)", w.limits.Entries)
	}
	return w.emit(e)
}

// directory compares the directory e, which is open as upper and itself in state is, with the merged directories lower. full
// says that a name which is not in upper is deleted.
func (w *walker) directory(e *event, upper int, lower []int, is state, full bool, depth int) error {
	if depth > w.limits.Depth {
		return fmt.Errorf("%q: directories are deeper than %d levels, the limit (Limits.Depth)", shorten(e.path), w.limits.Depth)
	}
	own := len(w.pending)
	switch {
	case is == changed:
		if err := w.send(e); err != nil {
			return err
		}
	case is == unchanged && e.path != "":
		w.pending = append(w.pending, e)
	}
	names, err := sortedNames(upper)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", shorten(e.path), err)
	}
	if err := w.deletions(e, upper, names, lower, full); err != nil {
		return err
	}
	for _, name := range names {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if err := w.name(join(e.path, name), upper, name, lower, full, depth); err != nil {
			return err
		}
	}
	w.pending = w.pending[:min(own, len(w.pending))]
	return nil
}

// deletions emits the names that are gone from a directory: those of whiteouts, or with full all that are not in names.
func (w *walker) deletions(e *event, upper int, names []string, lower []int, full bool) error {
	var gone []string
	switch {
	case full:
		before, err := w.mergedNames(lower)
		if err != nil {
			return fmt.Errorf("read lower directory %q: %w", shorten(e.path), err)
		}
		for _, name := range before {
			if _, found := slices.BinarySearch(names, name); !found {
				gone = append(gone, name)
			}
		}
		if !w.in.Overlay {
			break
		}
		fallthrough
	default:
		for _, name := range names {
			hidden, err := w.isWhiteout(upper, name)
			if err != nil && !errors.Is(err, syscall.ENOENT) {
				return fmt.Errorf("read %q: %w", shorten(join(e.path, name)), err)
			}
			if hidden {
				gone = append(gone, name)
			}
		}
		slices.Sort(gone)
	}
	for _, name := range gone {
		if len(lower) > 0 {
			if _, _, err := w.below(lower, name); errors.Is(err, syscall.ENOENT) {
				continue // it hides nothing
			}
		} else if w.in.Lower != nil || !w.in.Overlay {
			continue
		}
		if err := w.send(&event{path: join(e.path, name), kind: Deleted, name: name}); err != nil {
			return err
		}
	}
	return nil
}

// name compares one name of an upper directory.
func (w *walker) name(path string, upper int, name string, lower []int, full bool, depth int) error {
	st, err := fsat.Lstat(upper, name)
	if errors.Is(err, syscall.ENOENT) {
		return nil // removed meanwhile
	}
	if err == nil && w.in.Overlay {
		var hidden bool
		if hidden, err = w.isWhiteoutStat(upper, name, &st); hidden {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("read %q: %w", shorten(path), err)
	}
	e := &event{path: path, kind: Added, dir: upper, name: name, Stat: st}
	low, lowDir, err := w.below(lower, name)
	switch {
	case err == nil:
		e.kind, e.existed = Modified, true
	case !errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("read lower %q: %w", shorten(path), err)
	}
	same, err := w.unchanged(e, low, lowDir)
	if err != nil {
		return fmt.Errorf("compare %q: %w", shorten(path), err)
	}
	is := changed
	if same {
		is = unchanged
	}
	if !st.IsDir() {
		if err := w.checkWhole(upper, name, path); err != nil {
			return err
		}
		if is == unchanged {
			return nil
		}
		return w.send(e)
	}
	return w.enter(e, lower, is, full, depth)
}

// unchanged tells whether e itself is as it was, or is there for a mount only.
func (w *walker) unchanged(e *event, low *fsat.Stat, lowDir int) (bool, error) {
	at, above := w.mountPoint(e.path)
	if !e.existed {
		return (at || above) && e.IsDir() || at && e.IsRegular() && e.Size == 0, nil
	}
	if above && e.IsDir() && low.IsDir() {
		before := *low
		before.Mtime = e.Mtime
		low = &before
	}
	return w.sameFile(e, low, lowDir)
}

// mountPoint tells whether something was mounted at path, or at a path below it.
func (w *walker) mountPoint(path string) (at, above bool) {
	for _, p := range w.in.MountPoints {
		at = at || p == path
		above = above || strings.HasPrefix(p, path+"/")
	}
	return at, above
}

// enter compares what is in the directory e.
func (w *walker) enter(e *event, lower []int, is state, full bool, depth int) error {
	fd, err := fsat.OpenDirSameMount(e.dir, e.name)
	if errors.Is(err, syscall.EXDEV) {
		return fmt.Errorf("%q: something is mounted there, which a layer cannot have", shorten(e.path))
	}
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open directory %q: %w", shorten(e.path), err)
	}
	defer fsat.Close(fd)
	x, err := w.ownMarks(fd, e.path)
	if err != nil {
		return err
	}
	belowThis, closeAll, err := w.descend(lower, e.name)
	if err != nil {
		return fmt.Errorf("open lower directory %q: %w", shorten(e.path), err)
	}
	defer closeAll()
	if x["opaque"] == "y" {
		full = true
		if w.in.Lower == nil {
			if err := w.send(e); err != nil {
				return err
			}
			if err := w.send(&event{path: e.path, kind: opaque}); err != nil {
				return err
			}
			return w.directory(e, fd, nil, sent, full, depth+1)
		}
	}
	if len(belowThis) == 0 && w.in.Lower != nil {
		full = true
	}
	return w.directory(e, fd, belowThis, is, full, depth+1)
}

// ownMarks returns overlayfs's own attributes of an open upper directory, without their prefix.
func (w *walker) ownMarks(fd int, path string) (map[string]string, error) {
	if !w.in.Overlay {
		return nil, nil
	}
	all, err := fsat.Fxattrs(fd)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", shorten(path), err)
	}
	marks := map[string]string{}
	for attr, value := range all {
		if name, ok := strings.CutPrefix(attr, w.prefix); ok {
			marks[name] = value
		}
	}
	if to, ok := marks["redirect"]; ok {
		return nil, fmt.Errorf("directory %q was renamed from %q by overlayfs's option redirect_dir, which a layer cannot have", shorten(path), shorten(to))
	}
	return marks, nil
}

// checkWhole refuses a file of which overlayfs has only the attributes in the upper directory.
func (w *walker) checkWhole(dir int, name, path string) error {
	if !w.in.Overlay {
		return nil
	}
	x, err := fsat.XattrsAt(dir, name)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("read %q: %w", shorten(path), err)
	}
	if _, ok := x[w.prefix+"metacopy"]; ok {
		return fmt.Errorf("file %q has its content in a lower layer by overlayfs's option metacopy, which a layer cannot have", shorten(path))
	}
	return nil
}

func sortedNames(fd int) ([]string, error) {
	var names []string
	err := fsat.Names(fd, func(name string) error {
		names = append(names, name)
		return nil
	})
	slices.Sort(names)
	return names, err
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// shorten keeps a name from a container from filling an error message.
func shorten(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

type xattrs = map[string]string

// fdXattrs returns the attributes of an open file that a layer has.
func fdXattrs(fd int) (xattrs, error) {
	x, err := fsat.Fxattrs(fd)
	return kept(x), err
}

// kept drops the attributes that belong to the host or to overlayfs: what stays are capabilities, access control lists, user.* and
// trusted.*.
func kept(x xattrs) xattrs {
	maps.DeleteFunc(x, func(attr, _ string) bool {
		switch {
		case strings.HasPrefix(attr, "trusted.overlay."), strings.HasPrefix(attr, "user.overlay."):
			return true
		case attr == "security.capability", attr == "system.posix_acl_access", attr == "system.posix_acl_default":
			return false
		}
		return !strings.HasPrefix(attr, "user.") && !strings.HasPrefix(attr, "trusted.")
	})
	return x
}
