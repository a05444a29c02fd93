package archive

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
)

// tarMember is a regular file of a tar file that is going to be written, or a symbolic link.
type tarMember struct {
	size int64
	open func(context.Context) (io.ReadCloser, error) // yields size bytes, or an error
	link string
	// prepare, if not nil, is called before the others, and tells the size.
	prepare func(context.Context) (size int64, err error)
}

// tarMembers are the members by their names.
type tarMembers map[string]tarMember

func (m tarMembers) bytes(name string, data []byte) {
	m[name] = tarMember{size: int64(len(data)), open: func(context.Context) (io.ReadCloser, error) {
		return openBytes(data), nil
	}}
}

// blob adds the blob d, which f has. It is verified when it is written.
func (m tarMembers) blob(f content.Fetcher, d v1.Descriptor) {
	m[blobPath(d.Digest)] = tarMember{size: d.Size, open: func(ctx context.Context) (io.ReadCloser, error) {
		r, err := f.Fetch(ctx, d, 0)
		if err != nil {
			return nil, err
		}
		checked, err := content.Verify(r, d)
		if err != nil {
			r.Close()
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{checked, r}, nil
	}}
}

// write writes the members, and the directories that they are in, in the order of their names. Whatever could differ between two
// writings (times, owners) is fixed.
func (m tarMembers) write(ctx context.Context, w io.Writer, mtime time.Time) error {
	if mtime.IsZero() {
		mtime = time.Unix(0, 0)
	}
	tw := tar.NewWriter(w)
	made := map[string]bool{".": true}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if err := writeParents(tw, path.Dir(name), mtime, made); err != nil {
			return err
		}
		if err := m[name].write(ctx, tw, name, mtime); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return tw.Close()
}

func writeParents(tw *tar.Writer, dir string, mtime time.Time, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := writeParents(tw, path.Dir(dir), mtime, made); err != nil {
		return err
	}
	made[dir] = true
	return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: mtime.Truncate(time.Second)})
}

func (m tarMember) write(ctx context.Context, tw *tar.Writer, name string, mtime time.Time) error {
	h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: m.size, ModTime: mtime.Truncate(time.Second)}
	if m.link != "" {
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, m.link, 0o777
		return tw.WriteHeader(&h)
	}
	if m.prepare != nil {
		var err error
		if h.Size, err = m.prepare(ctx); err != nil {
			return err
		}
	}
	r, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := tw.WriteHeader(&h); err != nil {
		return err
	}
	_, err = io.Copy(tw, contextReader{ctx, r})
	return err
}
