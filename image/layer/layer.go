// Package layer unpacks image layers: tar streams, maybe compressed, that come from anybody.
//
// Everything is written through directory descriptors below the root that the caller opened (package fsat). Parent directories
// are resolved one component at a time without the kernel following anything, and symbolic links, absolute ones and ".."
// included, lead to where they lead inside a container that has the root as "/": so a legal image whose /var/run is a link to
// /run unpacks, and a hostile one writes nothing outside. Sizes, counts and depths have limits (Limits). Memory is bounded
// whatever the stream says, except for about 40 bytes per entry when whiteouts are applied to a directory in place.
//
// The rules are those of the image specification, layer.md, and where it is silent those that docker and containerd share.
package layer

import (
	"archive/tar"
	"context"
	_ "crypto/sha256" // diff IDs are in either
	_ "crypto/sha512"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// Whiteouts says what becomes of the marks by which a layer removes names of the layers below.
type Whiteouts int

const (
	// Overlay unpacks a layer into a directory of its own, to be a lower directory of overlayfs: a removed name becomes a
	// character device 0:0, an opaque directory gets the attribute trusted.overlay.opaque=y (user.overlay.opaque when
	// Rootless, for a mount with the option userxattr).
	Overlay Whiteouts = iota
	// Marks unpacks a layer into a directory of its own, to be copied over the layers below it where there is no overlayfs: a
	// removed name becomes an empty file with ".wh." before the name, an opaque directory gets a file ".wh..wh..opq". See
	// Whiteout.
	Marks
	// InPlace applies a layer onto the content of the layers below in the same directory: removed names are removed.
	InPlace
)

// ErrNeedsLower is wrapped by an error of Unpack that is only due to a missing Options.Lower: a hard link to a file that a
// layer below may have.
var ErrNeedsLower = errors.New("layer refers to a layer below it")

// Options of Unpack. The zero value unpacks into an overlay layer directory as root, unverified, with the default limits.
type Options struct {
	DiffID    digest.Digest // of the whole uncompressed stream, bytes after the archive's end included; empty: not verified
	Whiteouts Whiteouts
	// Rootless leaves out what an unprivileged user may not do: owners (all files are the caller's), device nodes, and
	// extended attributes other than user.*. What was left out is in Result.Skipped.
	Rootless bool
	// Lower are the layer directories below this one, unpacked likewise, unless InPlace, the nearest first; empty but not nil says that
	// there are none. They are read, never written, and stay the caller's. A layer rarely needs them; one that does says so by
	// Result.NeedsLower or ErrNeedsLower. A hard link to a lower file brings a copy of that file up into this layer, under its
	// own name too, as overlayfs does when such a link is made; other names of the file in lower layers keep the old one.
	Lower  []*os.File
	Limits Limits
}

// Result tells what Unpack did.
type Result struct {
	DiffID      digest.Digest // sha256 of the uncompressed stream, or in the algorithm of Options.DiffID
	Size        int64         // bytes of the uncompressed stream
	Entries     int64         // of the archive, whiteouts included
	Whiteouts   int64         // of them, that may hide something
	Compression Compression
	// RootEntry says that the archive had an entry for the root directory itself, so its owner, mode and times are the
	// image's. A container's root directory takes them from the topmost layer that has one.
	RootEntry bool
	// RootOpaque says that the layer hides everything below it: overlayfs has no mark for that on a layer's root, so leave the
	// layers below out of the mount.
	RootOpaque bool
	// NeedsLower says that the archive left out parent directories which a layer below may have (as a directory with other
	// attributes, or as a symbolic link). If there is such a layer, unpack again into a fresh directory with Options.Lower.
	// It is false when Lower was given.
	NeedsLower bool
	// Skipped says in sentences what could not be kept, at most the first 20; SkippedCount counts all.
	Skipped      []string
	SkippedCount int64
}

// Unpack reads one layer (plain tar, or compressed as Decompress knows it: told by its first bytes, not by a media type) from
// r to its end into the directory root, which stays the caller's. After an error the directory holds part of the layer: remove
// it. Nobody else may change the directory meanwhile. An error that a limit caused is a *LimitError.
//
// The stream is read ahead by another goroutine, which has ended when Unpack returns. So a read of r that waits (for a
// download) must end when ctx does.
func Unpack(ctx context.Context, root *os.File, r io.Reader, o Options) (Result, error) {
	defer runtime.KeepAlive(root)
	defer runtime.KeepAlive(o.Lower)
	if o.DiffID != "" {
		if err := o.DiffID.Validate(); err != nil {
			return Result{}, fmt.Errorf("unpack layer: diff ID %q: %w", o.DiffID, err)
		}
	}
	counted := &countReader{ctx: ctx, r: r}
	stream, compression, err := Decompress(counted)
	if err != nil {
		return Result{}, fmt.Errorf("unpack layer: %w", err)
	}
	algorithm := digest.Canonical
	if o.DiffID != "" {
		algorithm = o.DiffID.Algorithm()
	}
	limits := o.Limits.withDefaults()
	m := &meter{compressed: counted, limits: &limits}
	in := newPipe(ctx, stream, m, algorithm.Hash())
	defer in.close()
	u, err := newUnpacker(ctx, root, in, o, limits)
	if err != nil {
		return Result{}, fmt.Errorf("unpack layer: %w", err)
	}
	defer u.close()
	u.result.Compression = compression
	if err := u.run(); err != nil {
		return u.result, fmt.Errorf("unpack layer: %w", err)
	}
	u.result.Size = m.out
	u.result.DiffID = digest.NewDigest(algorithm, in.hash)
	if o.DiffID != "" && u.result.DiffID != o.DiffID {
		return u.result, fmt.Errorf("unpack layer: content is %s, not %s as the image says", u.result.DiffID, o.DiffID)
	}
	return u.result, nil
}

// Remove removes name, a file or a directory with everything below it, from parent. It never follows links and never
// leaves the mount that it starts on. A missing name is no error.
func Remove(parent *os.File, name string) error {
	dir, err := fsat.Fd(parent)
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	defer runtime.KeepAlive(parent)
	if err := fsat.RemoveAll(dir, name); err != nil {
		return fmt.Errorf("remove %w", err)
	}
	return nil
}

// run unpacks all entries and reads the stream to its end.
func (u *unpacker) run() error {
	u.tar = tar.NewReader(u.in)
	for {
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		h, err := u.tar.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // we resolve such names inside the root
			return fmt.Errorf("read archive after entry %d: %w", u.result.Entries, err)
		}
		u.result.Entries++
		if u.result.Entries > u.limits.Entries {
			return &LimitError{"Entries", u.limits.Entries}
		}
		if err := u.entry(h); err != nil {
			return fmt.Errorf("entry %q: %w", shorten(h.Name), err)
		}
	}
	if err := u.dirs.flush(); err != nil {
		return err
	}
	u.in.ended()
	return u.in.drain()
}

func (u *unpacker) skip(format string, args ...any) {
	u.result.SkippedCount++
	if len(u.result.Skipped) < 20 {
		u.result.Skipped = append(u.result.Skipped, fmt.Sprintf(format, args...))
	}
}

// shorten keeps a name from the archive from filling an error message.
func shorten(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
