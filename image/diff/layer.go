package diff

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// The names by which layers speak of the layers below, image-spec layer.md "Whiteouts".
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
)

// LayerOptions of WriteLayer.
type LayerOptions struct {
	CompressOptions
	// Clamp is the latest time that a file has in the layer; later ones become it (SOURCE_DATE_EPOCH, see SourceDateEpoch). The
	// zero Time keeps all.
	Clamp time.Time
}

// Layer is a layer that was written.
type Layer struct {
	Descriptor v1.Descriptor // of the stored bytes
	DiffID     digest.Digest // of the tar
	Size       int64         // bytes of the tar
	Entries    int64         // of the tar; none says that nothing changed
	// Skipped says in sentences what a layer cannot have, at most the first 20; SkippedCount counts all. Sockets are such, and
	// names that would be read as whiteouts.
	Skipped      []string
	SkippedCount int64
}

// WriteLayer writes what changed as an image layer to w. The same changes give the same bytes: names are sorted, whiteouts come
// before what else is in their directory, owners are numbers, times are to the nanosecond. Directories on the way to a change are
// there, because unpackers would make them with other attributes. Several names of one file are hard links to the first; if it got
// or lost a name, all are there. A file that becomes shorter while it is read, or another file, is an error; of one that grows the layer has the size that it had.
func WriteLayer(ctx context.Context, w io.Writer, in Input, o LayerOptions) (Layer, error) {
	l, err := writeTar(ctx, w, o.CompressOptions, func(t *tarWriter) error {
		t.clamp, t.limits, t.isLayer = o.Clamp, in.Limits.withDefaults(), true
		return in.walk(ctx, true, t.event)
	})
	if err != nil {
		return Layer{}, fmt.Errorf("write layer: %w", err)
	}
	return l, nil
}

// ExportOptions of Export.
type ExportOptions struct {
	Clamp  time.Time // as in LayerOptions
	Limits Limits
}

// Export writes the merged tree root as a flat tar to w, without layers and metadata: what docker export writes (row E1). What is
// mounted on a directory or a file below root is left out: the directory or file is there, and empty.
func Export(ctx context.Context, w io.Writer, root *os.File, o ExportOptions) (Layer, error) {
	l, err := writeTar(ctx, w, CompressOptions{}, func(t *tarWriter) error {
		t.clamp, t.limits = o.Clamp, o.Limits.withDefaults()
		defer runtime.KeepAlive(root)
		fd, err := fsat.Fd(root)
		if err != nil {
			return err
		}
		return t.tree(fd, "", 0)
	})
	if err != nil {
		return Layer{}, fmt.Errorf("export files: %w", err)
	}
	return l, nil
}

// SourceDateEpoch reads the environment variable SOURCE_DATE_EPOCH (reproducible-builds.org): seconds since 1970. It is the zero
// Time if value is empty.
func SourceDateEpoch(value string) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 || n > math.MaxUint32*64 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %.64q: want seconds since 1970", value)
	}
	return time.Unix(n, 0).UTC(), nil
}

// tarWriter writes files to a tar.
type tarWriter struct {
	ctx     context.Context
	tar     *tar.Writer
	clamp   time.Time
	limits  Limits
	isLayer bool // whiteouts have a meaning, and mounts are an error
	links   map[[2]uint64]string
	bytes   int64
	buf     []byte
	result  Layer
}

// writeTar runs fill with a tar that is compressed to w.
func writeTar(ctx context.Context, w io.Writer, o CompressOptions, fill func(*tarWriter) error) (Layer, error) {
	c, err := NewCompressor(w, o)
	if err != nil {
		return Layer{}, err
	}
	defer c.Abort()
	t := &tarWriter{ctx: ctx, tar: tar.NewWriter(c), links: map[[2]uint64]string{}, buf: make([]byte, 256<<10)}
	if err := fill(t); err != nil {
		return Layer{}, err
	}
	if err := t.tar.Close(); err != nil {
		return Layer{}, err
	}
	if err := c.Close(); err != nil {
		return Layer{}, err
	}
	t.result.Descriptor, t.result.DiffID, t.result.Size = c.Descriptor(), c.DiffID(), c.Size()
	return t.result, nil
}

func (t *tarWriter) skip(format string, args ...any) {
	t.result.SkippedCount++
	if len(t.result.Skipped) < 20 {
		t.result.Skipped = append(t.result.Skipped, fmt.Sprintf(format, args...))
	}
}

// event writes a change.
func (t *tarWriter) event(e *event) error {
	switch e.kind {
	case Deleted:
		return t.whiteout(e.path)
	case opaque:
		return t.header(&tar.Header{Typeflag: tar.TypeReg, Name: join(e.path, opaqueMarker), ModTime: time.Unix(0, 0)})
	}
	if reserved(e.path) {
		t.skip("%q: a layer cannot have a name that begins with %s", shorten(e.path), whiteoutPrefix)
		return nil
	}
	if e.Mode&syscall.S_IFMT == syscall.S_IFSOCK {
		t.skip("%q: a layer cannot have sockets", shorten(e.path))
		if e.existed {
			return t.whiteout(e.path)
		}
		return nil
	}
	err := t.file(e.path, e.dir, e.name, &e.Stat)
	if errors.Is(err, syscall.EXDEV) {
		return fmt.Errorf("%q: something is mounted there, which a layer cannot have", shorten(e.path))
	}
	if err != nil {
		return fmt.Errorf("%q: %w", shorten(e.path), err)
	}
	return nil
}

// reserved tells whether a component of path is a whiteout's name.
func reserved(path string) bool {
	return strings.HasPrefix(path, whiteoutPrefix) || strings.Contains(path, "/"+whiteoutPrefix)
}

func (t *tarWriter) whiteout(path string) error {
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	if reserved(path) {
		t.skip("%q: a layer cannot remove a name that begins with %s", shorten(path), whiteoutPrefix)
		return nil
	}
	return t.header(&tar.Header{Typeflag: tar.TypeReg, Name: join(dir, whiteoutPrefix+name), ModTime: time.Unix(0, 0)})
}

// header writes a header. Extended headers are there only for what has no place in the old one.
func (t *tarWriter) header(h *tar.Header) error {
	if t.result.Entries++; t.result.Entries > t.limits.Entries {
		return fmt.Errorf("more than %d entries, the limit (Limits.Entries)", t.limits.Entries)
	}
	h.Format = tar.FormatPAX
	if !t.clamp.IsZero() && h.ModTime.After(t.clamp) {
		h.ModTime = t.clamp
	}
	return t.tar.WriteHeader(h)
}

// tree writes everything below the directory fd, and the directory first.
func (t *tarWriter) tree(fd int, path string, depth int) error {
	if depth > t.limits.Depth {
		return fmt.Errorf("%q: directories are deeper than %d levels, the limit (Limits.Depth)", shorten(path), t.limits.Depth)
	}
	st, err := fsat.Fstat(fd)
	if err == nil {
		err = t.file(path, fd, ".", &st)
	}
	var names []string
	if err == nil {
		names, err = sortedNames(fd)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", shorten(path), err)
	}
	for _, name := range names {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		if err := t.below(fd, name, join(path, name), depth); err != nil {
			return err
		}
	}
	return nil
}

// below writes the file name in dir, and what is in it.
func (t *tarWriter) below(dir int, name, path string, depth int) error {
	st, err := fsat.Lstat(dir, name)
	if errors.Is(err, syscall.ENOENT) {
		return nil // removed meanwhile
	}
	if err != nil {
		return fmt.Errorf("%q: %w", shorten(path), err)
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFSOCK {
		t.skip("%q: a tar archive cannot have sockets", shorten(path))
		return nil
	}
	if st.IsDir() {
		fd, err := fsat.OpenDirSameMount(dir, name)
		if err == nil {
			defer fsat.Close(fd)
			return t.tree(fd, path, depth+1)
		}
		if errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if !errors.Is(err, syscall.EXDEV) {
			return fmt.Errorf("open directory %q: %w", shorten(path), err)
		}
		return t.header(&tar.Header{Typeflag: tar.TypeDir, Name: path + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
	}
	err = t.file(path, dir, name, &st)
	if errors.Is(err, syscall.EXDEV) {
		return t.header(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, ModTime: time.Unix(0, 0)})
	}
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%q: %w", shorten(path), err)
	}
	return nil
}
