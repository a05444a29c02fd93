package mutate

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/diff"
	"github.com/tare-oci/tare/image/internal/spool"
	"github.com/tare-oci/tare/image/layer"
)

// maxImport bounds the uncompressed size of an imported tar file, in bytes.
const maxImport = 1 << 40

// PushLayer pushes what write writes, which tells what it was. A target wants to know that before: so it goes through a temporary
// file.
func PushLayer(ctx context.Context, dst content.Target, write func(io.Writer) (diff.Layer, error)) (diff.Layer, error) {
	f, err := spool.New()
	if err != nil {
		return diff.Layer{}, err
	}
	defer f.Close()
	l, err := write(f)
	if err != nil {
		return diff.Layer{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return diff.Layer{}, err
	}
	return l, dst.Push(ctx, l.Descriptor, f)
}

// Push pushes the configuration and the manifest of the image as it is now, and returns the manifest's descriptor. The layers are
// there already.
func (img *Image) Push(ctx context.Context, dst content.Target) (v1.Descriptor, error) {
	d, err := img.Encode()
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := dst.Push(ctx, d.ConfigDescriptor, bytes.NewReader(d.Config)); err != nil {
		return v1.Descriptor{}, err
	}
	return d.Descriptor, dst.Push(ctx, d.Descriptor, bytes.NewReader(d.Manifest))
}

// Options of Commit and Import.
type Options struct {
	Author      string // of the image
	Message     string // of the history
	CreatedBy   string // of the history: the command
	Changes     []string
	Compression layer.Compression // empty: layer.Gzip, which every reader takes
	// Created is when the image is made. Nothing newer is in the layer of a Commit if Clamp is set: both are for SOURCE_DATE_EPOCH.
	Created time.Time
	Clamp   bool
}

// Commit pushes a new image to dst, where the layers of img, the image that a container was made of, are already: with what in
// tells has changed as a further layer, and with o.Changes made to the configuration. Without a change of files there is no further
// layer. An image of Docker's becomes one of OCI's if o.Compression needs it.
func Commit(ctx context.Context, dst content.Target, img *Image, in diff.Input, o Options) (v1.Descriptor, diff.Layer, error) {
	options := diff.LayerOptions{CompressOptions: diff.CompressOptions{Compression: o.compression()}}
	if o.Clamp {
		options.Clamp = o.Created
	}
	l, err := PushLayer(ctx, dst, func(w io.Writer) (diff.Layer, error) { return diff.WriteLayer(ctx, w, in, options) })
	if err != nil {
		return v1.Descriptor{}, diff.Layer{}, fmt.Errorf("commit: %w", err)
	}
	d, err := img.finish(ctx, dst, l, o)
	if err != nil {
		return v1.Descriptor{}, diff.Layer{}, fmt.Errorf("commit: %w", err)
	}
	return d, l, nil
}

func (o Options) compression() layer.Compression {
	if o.Compression == "" {
		return layer.Gzip
	}
	return o.Compression
}

// finish adds the layer, the changes and what the options say, and pushes the documents.
func (img *Image) finish(ctx context.Context, dst content.Target, l diff.Layer, o Options) (v1.Descriptor, error) {
	for _, change := range o.Changes {
		if err := img.Change(change); err != nil {
			return v1.Descriptor{}, err
		}
	}
	if o.Compression == layer.Zstd {
		if err := img.ToOCI(); err != nil {
			return v1.Descriptor{}, err
		}
	}
	created := o.Created.UTC()
	h := v1.History{Created: &created, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Message}
	err := img.SetCreated(o.Created)
	if err == nil && o.Author != "" {
		err = img.SetAuthor(o.Author)
	}
	if err == nil && l.Entries == 0 {
		err = img.AppendHistory(h)
	} else if err == nil {
		err = img.AppendLayer(l.Descriptor, l.DiffID, h)
	}
	if err != nil {
		return v1.Descriptor{}, err
	}
	return img.Push(ctx, dst)
}

// Import pushes a new image to dst whose one layer is the tar file r, plain or compressed as layer.Decompress knows it (row E3).
// The uncompressed bytes of r are the layer's.
func Import(ctx context.Context, dst content.Target, r io.Reader, p v1.Platform, o Options) (v1.Descriptor, error) {
	img, err := New(p)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("import: %w", err)
	}
	l, err := PushLayer(ctx, dst, func(w io.Writer) (diff.Layer, error) { return recompressTar(ctx, w, r, o.compression()) })
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("import: %w", err)
	}
	if o.Message == "" {
		o.Message = "Imported from -"
	}
	l.Entries = max(l.Entries, 1) // also an empty archive is a layer
	d, err := img.finish(ctx, dst, l, o)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("import: %w", err)
	}
	return d, nil
}

// recompressTar compresses the tar r anew, having checked that it is one.
func recompressTar(ctx context.Context, w io.Writer, r io.Reader, c layer.Compression) (diff.Layer, error) {
	stream, _, err := layer.Decompress(r)
	if err != nil {
		return diff.Layer{}, err
	}
	defer stream.Close()
	out, err := diff.NewCompressor(w, diff.CompressOptions{Compression: c})
	if err != nil {
		return diff.Layer{}, err
	}
	defer out.Abort()
	limited := &io.LimitedReader{R: contextReader{ctx, stream}, N: maxImport + 1}
	tee := io.TeeReader(limited, out)
	l := diff.Layer{}
	for tr := tar.NewReader(tee); ; l.Entries++ {
		_, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // unpacking resolves such names inside the root
			return diff.Layer{}, fmt.Errorf("read tar archive: %w", err)
		}
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return diff.Layer{}, fmt.Errorf("read tar archive: %w", err)
	}
	if limited.N <= 0 {
		return diff.Layer{}, fmt.Errorf("tar archive has more than %d bytes, the limit", int64(maxImport))
	}
	switch {
	case out.Size() == 0:
		return diff.Layer{}, errors.New("tar archive is empty")
	case out.Size()%512 != 0:
		return diff.Layer{}, fmt.Errorf("read tar archive: it is truncated: %d bytes are no whole blocks of 512", out.Size())
	}
	if err := out.Close(); err != nil {
		return diff.Layer{}, err
	}
	l.Descriptor, l.DiffID, l.Size = out.Descriptor(), out.DiffID(), out.Size()
	return l, nil
}

// contextReader is at an end when its context is.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
