package archive

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/tare-oci/tare/image/internal/spool"
)

const (
	maxSpool      = 16 << 30 // bytes of a temporary file
	maxZstdWindow = 128 << 20
)

// openSeekable opens a plain tar file, or a temporary file without a name with what a compressed file or a pipe holds, and
// returns it with its size in bytes. The caller closes it.
func openSeekable(name string) (*os.File, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	if info.IsDir() {
		f.Close()
		return nil, 0, fmt.Errorf("%s is a directory; for an OCI layout use oci:%s", name, name)
	}
	head := make([]byte, 6)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		f.Close()
		return nil, 0, err
	}
	if n == 0 {
		f.Close()
		return nil, 0, fmt.Errorf("%s is empty", name)
	}
	if info.Mode().IsRegular() && sniff(head[:n]) == "" {
		return f, info.Size(), nil
	}
	defer f.Close()
	tmp, size, err := spoolTar(io.MultiReader(bytes.NewReader(head[:n]), f), sniff(head[:n]), maxSpool)
	if err != nil {
		return nil, 0, fmt.Errorf("decompress %s: %w", name, err)
	}
	return tmp, size, nil
}

// sniff tells the compression from a file's first bytes, empty for none that is known.
func sniff(head []byte) string {
	for _, c := range []struct{ magic, name string }{
		{"\x1f\x8b", "gzip"}, {"\x28\xb5\x2f\xfd", "zstd"}, {"BZh", "bzip2"}, {"\xfd7zXZ\x00", "xz"},
	} {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			return c.name
		}
	}
	return ""
}

// spoolTar writes what r holds, decompressed, to a temporary file that has no name any more.
func spoolTar(r io.Reader, compression string, limit int64) (*os.File, int64, error) {
	switch compression {
	case "":
	case "gzip":
		gz, err := gzip.NewReader(r)
		if err != nil {
			return nil, 0, err
		}
		r = gz
	case "zstd":
		zr, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, 0, err
		}
		defer zr.Close()
		r = zr
	default:
		return nil, 0, fmt.Errorf("%s is not supported around a tar archive, only gzip and zstd are: decompress it first", compression)
	}
	f, err := spool.New()
	if err != nil {
		return nil, 0, err
	}
	size, err := io.Copy(f, io.LimitReader(r, limit+1))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%s stream is truncated: %w", compression, err)
	case err == nil && size > limit:
		err = fmt.Errorf("it holds more than %d bytes, the limit", limit)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}
