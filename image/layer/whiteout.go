package layer

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// The names by which layers speak of the layers below, image-spec layer.md "Whiteouts".
const (
	whiteoutPrefix = ".wh."
	aufsPrefix     = ".wh..wh." // aufs's own files, of which only the next means anything to others
	opaqueMarker   = ".wh..wh..opq"
	aufsOpaque     = ".wh..opq" // what follows the prefix in it
)

// Whiteout says what the name of a file in a layer that was unpacked with Marks means: that the layers below have no hidden here;
// or, with opaque, nothing at all. An ordinary name gives neither.
func Whiteout(name string) (hidden string, opaque bool) {
	if name == opaqueMarker {
		return "", true
	}
	hidden, _ = strings.CutPrefix(name, whiteoutPrefix)
	if hidden == name {
		hidden = ""
	}
	return hidden, false
}

// marked says whether this layer, unpacked with Marks, hides name in d.
func (u *unpacker) marked(d *dir, name string) bool { return u.markedIn(d.fd, name) }

func (u *unpacker) markedIn(dir int, name string) bool {
	if u.o.Whiteouts != Marks {
		return false
	}
	_, err := fsat.Lstat(dir, whiteoutPrefix+name)
	return err == nil
}

// makeMark makes the file by which a layer that is unpacked with Marks hides a name.
func makeMark(d *dir, name string) error {
	d.touch = true
	fd, err := fsat.Create(d.fd, name)
	if errors.Is(err, syscall.EEXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make whiteout: %w", err)
	}
	return fsat.Close(fd)
}

// reserved says that path runs through a directory with a whiteout's name; ignored, that it is one of aufs's own.
func reserved(path string) (reserved, ignored bool) {
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		if strings.HasPrefix(name, aufsPrefix) {
			return true, true
		}
		reserved = reserved || strings.HasPrefix(name, whiteoutPrefix)
	}
	return reserved, false
}

// whiteout does what the marker base in the directory parentPath says.
func (u *unpacker) whiteout(parentPath, base string) error {
	name := base[len(whiteoutPrefix):]
	switch {
	case name == "" || name == "." || name == "..":
		return errors.New("whiteout of no name")
	case base != opaqueMarker && strings.HasPrefix(base, aufsPrefix):
		return nil
	}
	if u.o.Lower != nil && len(u.o.Lower) == 0 && u.o.Whiteouts != InPlace {
		return nil // overlayfs would list a mark that hides nothing
	}
	m := hideBelow
	if u.o.Whiteouts == InPlace {
		m = fail
	} else if len(u.lower) > 0 {
		m = copyDown
	}
	d, err := u.resolve(parentPath, m)
	if errors.Is(err, errAbsent) || errors.Is(err, syscall.ENOTDIR) {
		return nil // nothing to hide
	}
	if err != nil {
		return err
	}
	defer func() { d.pins-- }()
	u.result.Whiteouts++
	switch {
	case base == opaqueMarker && u.o.Whiteouts != InPlace:
		return u.setOpaque(d)
	case base == opaqueMarker:
		return u.prune(d)
	case u.o.Whiteouts != InPlace:
		return u.hide(d, name)
	}
	return u.remove(d, name)
}

// hide makes a layer in a directory of its own hide name. What this layer itself has under the name stays, whichever came first: a directory
// then shows nothing of the one below.
func (u *unpacker) hide(d *dir, name string) error {
	st, err := fsat.Lstat(d.fd, name)
	switch {
	case errors.Is(err, syscall.ENOENT) && u.o.Whiteouts == Marks:
		return makeMark(d, whiteoutPrefix+name)
	case errors.Is(err, syscall.ENOENT):
		d.touch = true
		if err := fsat.Mknod(d.fd, name, syscall.S_IFCHR, 0, 0); err != nil {
			return fmt.Errorf("make whiteout: %w", err)
		}
		return nil
	case err != nil:
		return err
	case !st.IsDir():
		return nil
	}
	child, err := u.openChild(d, name)
	if err != nil {
		return err
	}
	defer func() { child.pins-- }()
	return u.setOpaque(child)
}

func (u *unpacker) opaqueAttr() string {
	if u.o.Rootless {
		return "user.overlay.opaque"
	}
	return "trusted.overlay.opaque"
}

func isOverlayAttr(attr string) bool {
	return strings.HasPrefix(attr, "trusted.overlay.") || strings.HasPrefix(attr, "user.overlay.")
}

func (u *unpacker) setOpaque(d *dir) error {
	if d == u.dirs.root {
		u.result.RootOpaque = true
		return nil // overlayfs does not look for the attribute there
	}
	if d.opaque {
		return nil
	}
	d.opaque = true
	if u.o.Whiteouts == Marks {
		return makeMark(d, opaqueMarker)
	}
	if err := fsat.Fsetxattr(d.fd, u.opaqueAttr(), []byte("y")); err != nil {
		return fmt.Errorf("mark directory opaque: %w", err)
	}
	return nil
}

// remove takes name of the layers below out of d, in place.
func (u *unpacker) remove(d *dir, name string) error {
	path := join(d.path, name)
	if !u.made.has(path) {
		return u.clear(d, name)
	}
	child, err := u.openChild(d, name)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENOENT) {
		return nil // this layer's own file
	}
	if err != nil {
		return err
	}
	defer func() { child.pins-- }()
	return u.prune(child)
}

// prune removes from d everything that this layer did not make. What it makes later is its own, so each directory is pruned
// once, however often the archive asks (CVE-2026-95838).
func (u *unpacker) prune(d *dir) error {
	if !u.pruned.add(d.path) {
		return nil
	}
	return fsat.Names(d.fd, func(name string) error {
		if err := context.Cause(u.ctx); err != nil {
			return err
		}
		path := join(d.path, name)
		if !u.made.has(path) {
			return u.clear(d, name)
		}
		child, err := u.openChild(d, name)
		if errors.Is(err, syscall.ENOTDIR) {
			return nil
		}
		if err != nil {
			return err
		}
		defer func() { child.pins-- }()
		return u.prune(child)
	})
}

// clear removes whatever name in d is.
func (u *unpacker) clear(d *dir, name string) error {
	u.dirs.forget(join(d.path, name))
	d.touch = true
	if err := fsat.RemoveAll(d.fd, name); err != nil {
		return fmt.Errorf("remove %w", err)
	}
	return nil
}

// paths is a set of canonical paths, kept as 128-bit hashes under secret seeds: a collision is out of reach, and the memory of
// an entry does not depend on the archive's names.
type paths struct {
	seeds [2]maphash.Seed
	set   map[[2]uint64]struct{}
}

func newPaths() *paths {
	return &paths{[2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, map[[2]uint64]struct{}{}}
}

func (p *paths) key(path string) [2]uint64 {
	return [2]uint64{maphash.String(p.seeds[0], path), maphash.String(p.seeds[1], path)}
}

func (p *paths) has(path string) bool {
	_, ok := p.set[p.key(path)]
	return ok
}

// add says whether path is new in the set.
func (p *paths) add(path string) bool {
	k := p.key(path)
	if _, ok := p.set[k]; ok {
		return false
	}
	p.set[k] = struct{}{}
	return true
}

// mark remembers, for whiteouts in place, that this layer made path and so goes through the directories above it.
func (u *unpacker) mark(path string) {
	if u.o.Whiteouts != InPlace {
		return
	}
	for path != "" && u.made.add(path) {
		path, _ = parentOf(path)
	}
}
