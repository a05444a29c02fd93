package layer

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
)

// Limits of what one layer may ask for. A zero field means the default; a negative one means no limit.
type Limits struct {
	TotalBytes int64 // uncompressed stream and file contents (a sparse file counts with its size), each; default 128 GiB
	Entries    int64 // of the archive; default 4 million
	PathLength int64 // bytes of a name or link text; default 4096, what Linux takes in one call
	Depth      int64 // components of a name; default 512
	XattrBytes int64 // names and values of one entry's extended attributes; default 128 KiB
	Ratio      int64 // uncompressed to stored bytes, beyond the first 4 GiB uncompressed; default 2000, which gzip cannot reach
	Trailing   int64 // bytes after the archive's end mark; default 64 MiB
}

const unlimited = 1<<63 - 1

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		value *int64
		def   int64
	}{
		{&l.TotalBytes, 128 << 30}, {&l.Entries, 4_000_000}, {&l.PathLength, 4096}, {&l.Depth, 512},
		{&l.XattrBytes, 128 << 10}, {&l.Ratio, 2000}, {&l.Trailing, 64 << 20},
	} {
		if *f.value == 0 {
			*f.value = f.def
		} else if *f.value < 0 {
			*f.value = unlimited
		}
	}
	return l
}

// LimitError says that a layer exceeds a limit. Name is the field of Limits by which a caller who trusts the image raises it.
type LimitError struct {
	Name string
	Max  int64
}

func (e *LimitError) Error() string {
	what := map[string]string{
		"TotalBytes": "%d uncompressed bytes", "Entries": "%d entries", "PathLength": "%d bytes in a name",
		"Depth": "%d directories in a name", "XattrBytes": "%d bytes of extended attributes in one entry",
		"Ratio": "%d times the stored size", "Trailing": "%d bytes after the archive's end",
	}[e.Name]
	return fmt.Sprintf("more than "+what+"; to allow it raise the layer limit %s", e.Max, e.Name)
}

// countReader counts the stored bytes; anybody may look at the count. It ends with ctx, so that no decoder can be kept busy
// beyond that with a stream that never gives anything.
type countReader struct {
	ctx context.Context
	r   io.Reader
	n   atomic.Int64
}

func (c *countReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// freeRatio is how many uncompressed bytes any stream may have whatever its compression ratio: runs of zeros compress a
// thousandfold in honest images too.
const freeRatio = 4 << 30

// meter counts the uncompressed stream on both sides of the pipe, and says where a limit ends it.
type meter struct {
	compressed *countReader
	limits     *Limits
	in         int64 // decompressed
	out        int64 // taken out of the pipe
	end        int64 // where the archive ended, 0 before that
}

// decompressed counts bytes that came out of the decompressor.
func (m *meter) decompressed(n int) error {
	m.in += int64(n)
	if m.in > freeRatio && m.in/m.limits.Ratio > m.compressed.n.Load() {
		return &LimitError{"Ratio", m.limits.Ratio}
	}
	return nil
}

// taken counts bytes that go to the tar reader.
func (m *meter) taken(n int) error {
	m.out += int64(n)
	switch {
	case m.out > m.limits.TotalBytes:
		return &LimitError{"TotalBytes", m.limits.TotalBytes}
	case m.end > 0 && m.out-m.end > m.limits.Trailing:
		return &LimitError{"Trailing", m.limits.Trailing}
	}
	return nil
}

// ended says that the archive's end mark has been read, and that so many bytes after it have been taken.
func (m *meter) ended(after int) { m.end = max(m.out-int64(after), 1) }
