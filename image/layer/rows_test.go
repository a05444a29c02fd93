package layer

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestWindows is MT3: streams that need a window of 8 MiB, which every reader must have, and those that zstd --long makes.
func TestWindows(t *testing.T) {
	source := rand.NewChaCha8([32]byte{1})
	block := make([]byte, 1<<20)
	if _, err := source.Read(block); err != nil {
		t.Fatal(err)
	}
	for _, window := range []int{8 << 20, 32 << 20, 64 << 20} {
		// The same megabyte at the window's far end: whoever keeps less cannot find it again.
		data := append(bytes.Clone(block), make([]byte, window-2<<20)...)
		if _, err := source.Read(data[1<<20:]); err != nil {
			t.Fatal(err)
		}
		data = append(data, block...)
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
		if err == nil {
			_, err = w.Write(data)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := Decompress(&b)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("window of %d: %d bytes, %v", window, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
