package archive

import (
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/reference"
)

// openBlob opens the file name, whose bytes have the size and digest given, as a reader that verifies both.
func (a *Archive) openBlob(name string, size int64, want digest.Digest) (io.ReadCloser, error) {
	if err := reference.CheckVerifiable(want); err != nil {
		return nil, err
	}
	f, err := a.src.open(name)
	if err != nil {
		return nil, err
	}
	if f.size != size {
		f.Close()
		return nil, fmt.Errorf("blob %s has %d bytes, expected are %d", want, f.size, size)
	}
	return &verifier{f: f, want: want, hash: want.Algorithm().Hash(), left: size}, nil
}

// verifier passes bytes on and returns an error instead of io.EOF when they are not those expected.
type verifier struct {
	f    io.ReadCloser
	want digest.Digest
	hash hash.Hash
	left int64
	err  error // of all further reads
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n := 0
	if v.left > 0 {
		var err error
		n, err = v.f.Read(p[:min(int64(len(p)), v.left)])
		v.hash.Write(p[:n])
		v.left -= int64(n)
		switch {
		case err == io.EOF && v.left > 0:
			v.err = fmt.Errorf("blob %s ends %d bytes early: %w", v.want, v.left, io.ErrUnexpectedEOF)
			return n, v.err
		case err != nil && err != io.EOF:
			v.err = fmt.Errorf("read blob %s: %w", v.want, err)
			return n, v.err
		}
	}
	if v.left == 0 {
		v.err = v.finish()
	}
	return n, v.err
}

// finish returns io.EOF if the bytes were those expected and no more follow.
func (v *verifier) finish() error {
	var more [1]byte
	n, err := io.ReadFull(v.f, more[:])
	if n > 0 {
		return fmt.Errorf("blob %s is longer than its size says", v.want)
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read blob %s: %w", v.want, err)
	}
	if found := digest.NewDigest(v.want.Algorithm(), v.hash); found != v.want {
		return fmt.Errorf("blob has digest %s, expected is %s", found, v.want)
	}
	return io.EOF
}

func (v *verifier) Close() error { return v.f.Close() }
