package gunzip

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
)

func gz(t testing.TB, level int, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := stdgzip.NewWriterLevel(&b, level)
	if err == nil {
		w.Name, w.Comment, w.Extra = "name", "comment", []byte("extra")
		_, err = w.Write(p)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gunzip(r io.Reader) ([]byte, error) {
	z, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// texts are contents of every kind: random bytes, few symbols, long and short matches, far and near.
func texts(t testing.TB) map[string][]byte {
	t.Helper()
	rnd := rand.NewChaCha8([32]byte{3})
	random := make([]byte, 700_000)
	rnd.Read(random)
	few := make([]byte, 500_000)
	for i := range few {
		few[i] = "abcdeeeeeeeeeeff\n"[random[i]%17]
	}
	var patterns []byte
	for period := 1; period < 40; period++ {
		for n := range 20 {
			patterns = append(patterns, bytes.Repeat(random[n*100:n*100+period], 1+n*30/period)...)
		}
	}
	far := slices.Concat(random[:32<<10], random[:32<<10], random[:100], random[:32<<10])
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"empty": nil, "byte": {'x'}, "random": random, "few": few, "zeros": make([]byte, 1_000_000), "patterns": patterns, "far": far,
		"program": program[:min(len(program), 4<<20)], "text": []byte(strings.Repeat("some text, and ", 10) + fmt.Sprint(random[:50_000])),
	}
}

func TestDecode(t *testing.T) {
	for name, text := range texts(t) {
		for _, level := range []int{stdgzip.HuffmanOnly, stdgzip.NoCompression, 1, 6, 9} {
			if got, err := gunzip(bytes.NewReader(gz(t, level, text))); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%s, level %d: %d of %d bytes, %v", name, level, len(got), len(text), err)
			}
		}
		for _, tool := range [][]string{{"gzip", "-c"}, {"gzip", "-9c"}, {"pigz", "-c"}, {"zopfli", "-c", "/dev/stdin"}} {
			if _, err := exec.LookPath(tool[0]); err != nil || tool[0] == "zopfli" && len(text) > 1<<20 {
				continue
			}
			cmd := exec.Command(tool[0], tool[1:]...)
			cmd.Stdin = bytes.NewReader(text)
			packed, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := gunzip(bytes.NewReader(packed)); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%s, %s: %d of %d bytes, %v", name, tool[0], len(got), len(text), err)
			}
		}
	}
}

// TestReaders reads by single bytes, and from readers that give single bytes, or their error together with the last ones.
func TestReaders(t *testing.T) {
	text := texts(t)["text"]
	packed := slices.Concat(gz(t, 6, text[:1000]), gz(t, 0, nil), gz(t, 9, text[1000:]), make([]byte, 100))
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data with error": iotest.DataErrReader,
		"ends together": func(r io.Reader) io.Reader { return iotest.DataErrReader(iotest.OneByteReader(r)) },
	} {
		if got, err := gunzip(wrap(bytes.NewReader(packed))); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s: %d of %d bytes, %v", name, len(got), len(text), err)
		}
	}
	z, err := NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(iotest.OneByteReader(z)); err != nil || !bytes.Equal(got, text) {
		t.Errorf("by bytes: %d of %d bytes, %v", len(got), len(text), err)
	}
	lost := errors.New("connection lost")
	for _, n := range []int{0, 5, 100, len(packed) - 50, len(packed)} {
		r := io.MultiReader(bytes.NewReader(packed[:n]), iotest.ErrReader(lost))
		if _, err := gunzip(r); !errors.Is(err, lost) {
			t.Errorf("connection lost after %d bytes: %v", n, err)
		}
	}
}

// TestCut cuts a stream at every byte, and changes each: nothing wrong is ever taken for right.
func TestCut(t *testing.T) {
	text := []byte(strings.Repeat("abcdefgh 12345678 ", 50) + "end")
	for _, level := range []int{0, 1, 9, stdgzip.HuffmanOnly} {
		packed := gz(t, level, text)
		for i := range packed {
			got, err := gunzip(bytes.NewReader(packed[:i]))
			if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(text, got) {
				t.Errorf("level %d cut at %d of %d: %q, %v", level, i, len(packed), got, err)
			}
			for bit := range 8 {
				bad := bytes.Clone(packed)
				bad[i] ^= 1 << bit
				if got, err := gunzip(bytes.NewReader(bad)); err == nil && !bytes.Equal(got, text) {
					t.Errorf("level %d, bit %d of byte %d changed: %q", level, bit, i, got)
				}
			}
		}
	}
}

// TestHeaders has headers of any length, and one that never ends.
func TestHeaders(t *testing.T) {
	plain := slices.Concat([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0}, nothing, make([]byte, 8))
	for name, c := range map[string]struct {
		header []byte
		ok     bool
	}{
		"long extra":    {slices.Concat([]byte{0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, make([]byte, 0xffff)), true},
		"long name":     {slices.Concat([]byte{0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte("n"), 60_000), []byte{0}), true},
		"checksum":      {[]byte{0x1f, 0x8b, 8, 2, 0, 0, 0, 0, 0, 0, 1, 2}, true},
		"endless name":  {slices.Concat([]byte{0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte("n"), 1<<20), []byte{0}), false},
		"reserved flag": {[]byte{0x1f, 0x8b, 8, 0x20, 0, 0, 0, 0, 0, 0}, false},
		"other method":  {[]byte{0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 0}, false},
	} {
		got, err := gunzip(bytes.NewReader(append(c.header, plain[10:]...)))
		if c.ok != (err == nil) || len(got) != 0 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// Members that give nothing, again and again.
	if got, err := gunzip(bytes.NewReader(bytes.Repeat(plain, 200_000))); err != nil || len(got) != 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// nothing is the deflate stream of nothing.
var nothing = []byte{3, 0}

// FuzzGunzip compares with another decoder: what that takes is taken, with the same content; what it refuses is refused.
func FuzzGunzip(f *testing.F) {
	for _, text := range texts(f) {
		for _, level := range []int{0, 1, 9, stdgzip.HuffmanOnly} {
			f.Add(gz(f, level, text[:min(len(text), 3000)]))
		}
	}
	f.Add(slices.Concat(gz(f, 6, []byte("one")), gz(f, 6, []byte("two"))))
	f.Fuzz(func(t *testing.T, packed []byte) {
		const limit = 1 << 24
		z, err := gzip.NewReader(bytes.NewReader(packed))
		var want []byte
		if err == nil {
			z.Multistream(false)
			want, err = io.ReadAll(io.LimitReader(z, limit))
		}
		ours, ourErr := NewReader(bytes.NewReader(packed))
		var got []byte
		if ourErr == nil {
			got, ourErr = io.ReadAll(io.LimitReader(ours, limit))
		}
		if err == nil && !bytes.HasPrefix(got, want) {
			t.Fatalf("%d bytes, %v; another decoder %d bytes", len(got), ourErr, len(want))
		}
		if err != nil && ourErr == nil {
			t.Fatalf("%d bytes without an error; another decoder: %v", len(got), err)
		}
	})
}

func BenchmarkGunzip(b *testing.B) {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	packed := gz(b, 6, program)
	for name, open := range map[string]func(io.Reader) (io.Reader, error){
		"ours":    func(r io.Reader) (io.Reader, error) { return NewReader(r) },
		"library": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(program)))
			for b.Loop() {
				r, err := open(bytes.NewReader(packed))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
