// Package content says how blobs are asked for and handed over, whatever keeps them: a registry, a layout, an archive, the
// local store. What it passes on is never changed: bytes stay the bytes that the digest names.
package content

import (
	"context"
	_ "crypto/sha256" // digests are in either
	_ "crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/reference"
)

// ErrNotFound is wrapped by errors that say that a blob, a manifest or a name is not there.
var ErrNotFound = errors.New("not found")

// ErrExists is wrapped by errors that say that something is there already.
var ErrExists = errors.New("already exists")

// A Fetcher gives blobs and manifests by their digest. Its methods may be called from several goroutines at once.
type Fetcher interface {
	// Fetch opens the bytes that d names from offset on, 0 ≤ offset ≤ d.Size. They need not be verified yet: see Verify. The
	// error wraps ErrNotFound if they are not there. The caller closes the reader.
	Fetch(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error)
}

// A Source gives blobs, and finds by a name where to begin.
type Source interface {
	Fetcher
	// Resolve returns the descriptor that ref, a tag or a digest or whatever this place calls its content, stands for. The error
	// wraps ErrNotFound if there is no such thing.
	Resolve(ctx context.Context, ref string) (v1.Descriptor, error)
}

// A Target takes blobs and manifests. Its methods may be called from several goroutines at once; each is idempotent.
type Target interface {
	// Exists reports whether d is there, so that it need not be pushed.
	Exists(ctx context.Context, d v1.Descriptor) (bool, error)
	// Push stores what r yields, which must be what d says: size and digest are verified, and after an error nothing of it can be
	// seen. What a manifest refers to is pushed before it. Pushing what is there is no error.
	Push(ctx context.Context, d v1.Descriptor, r io.Reader) error
	// Tag makes ref, in place of what it may have named before, a name of d, which is there.
	Tag(ctx context.Context, d v1.Descriptor, ref string) error
}

// Verify returns a reader of what r yields that is at an end only where size and digest of d are met: the read that would have
// returned io.EOF returns an error otherwise, and bytes beyond d.Size are never returned. Whoever stops before io.EOF has
// verified nothing.
func Verify(r io.Reader, d v1.Descriptor) (io.Reader, error) {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return nil, err
	}
	if d.Size < 0 {
		return nil, fmt.Errorf("blob %s: size %d is negative", d.Digest, d.Size)
	}
	return &verifier{r: r, want: d, left: d.Size, hash: d.Digest.Algorithm().Hash()}, nil
}

type verifier struct {
	r    io.Reader
	want v1.Descriptor
	left int64
	hash hash.Hash
	err  error
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if v.left == 0 {
		v.err = v.finish()
		return 0, v.err
	}
	n, err := v.r.Read(p[:min(int64(len(p)), v.left)])
	v.left -= int64(n)
	v.hash.Write(p[:n])
	if errors.Is(err, io.EOF) {
		if v.left > 0 {
			err = fmt.Errorf("blob %s ends after %d of %d bytes: %w", v.want.Digest, v.want.Size-v.left, v.want.Size, io.ErrUnexpectedEOF)
		} else {
			err = nil
		}
	}
	v.err = err
	return n, err
}

// finish says whether what was read is the whole of what was wanted.
func (v *verifier) finish() error {
	var more [1]byte
	for range 100 {
		n, err := v.r.Read(more[:])
		if n > 0 {
			return fmt.Errorf("blob %s goes on after its %d bytes", v.want.Digest, v.want.Size)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if got := fmt.Sprintf("%s:%x", v.want.Digest.Algorithm(), v.hash.Sum(nil)); got != v.want.Digest.String() {
		return fmt.Errorf("blob %s: content is %s", v.want.Digest, got)
	}
	return io.EOF
}

// ReadAll returns the verified bytes of d, which f has, if they are at most limit bytes: for manifests and configurations.
// Embedded data of a descriptor (d.Data) is taken instead of a fetch if it is what the digest says.
func ReadAll(ctx context.Context, f Fetcher, d v1.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("read %s: it has %d bytes, the limit is %d", d.Digest, d.Size, limit)
	}
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return nil, err
	}
	if int64(len(d.Data)) == d.Size && d.Digest.Algorithm().FromBytes(d.Data) == d.Digest {
		return d.Data, nil
	}
	r, err := f.Fetch(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	checked, err := Verify(r, d)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(checked)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	}
	return data, nil
}
