package layer

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// FuzzUnpack unpacks anything, both ways, beside CANARY files that must not change. The seeds are uncompressed, so that the
// fuzzer's changes reach the archive's headers.
func FuzzUnpack(f *testing.F) {
	for _, entries := range [][]string{
		{"d a", "f a/b content", "l c a", "f c/d x", "h e a/b", "f a/.wh.b", "f .wh..wh..opq"},
		{"l s ../outside", "f s/file x", "h h s/file", "f h y", "d s", "f s/x x"},
		{"f ../file x", "f /outside/file x", "l r /", "f r/../file x", "p f", "c n 1:3"},
		{"d x", "l x ../root-evil", "f x/.wh.file", "f x/.wh..wh..opq", "f x/file z"},
		{"l a b", "l b a", "f a/c x", "h . .", "l .. ."},
	} {
		f.Add(pack(f, entries...))
	}
	f.Add(gz(f, pack(f, "f a x")))
	f.Add(zst(f, pack(f, "f a x")))
	base := f.TempDir()
	can := newCanary(f, base)
	parent, err := os.Open(base)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { parent.Close() })
	f.Fuzz(func(t *testing.T, archive []byte) {
		archive = repair(archive)
		if err := Remove(parent, "root"); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(can.root, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(base, stamp, stamp); err != nil {
			t.Fatal(err)
		}
		root, err := os.Open(can.root)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		limits := Limits{TotalBytes: 1 << 20, Entries: 1000}
		for _, o := range []Options{{Limits: limits}, {Limits: limits, Whiteouts: InPlace}} {
			// Errors are expected; what matters is that nothing outside changes, and nothing panics or hangs.
			if r, err := Unpack(context.Background(), root, bytes.NewReader(archive), o); err == nil && r.DiffID == "" {
				t.Error("no diff ID")
			}
			can.check(t)
		}
	})
}

// repair makes the checksums of an archive's headers right, without which no change to a header gets further.
func repair(archive []byte) []byte {
	const block = 512
	archive = bytes.Clone(archive)
	for rest := archive; len(rest) >= block; {
		h := rest[:block]
		rest = rest[block:]
		if bytes.HasPrefix(h, []byte{0x1f, 0x8b}) || bytes.Equal(h, make([]byte, block)) {
			break
		}
		copy(h[148:156], "        ")
		sum := 0
		for _, b := range h {
			sum += int(b)
		}
		copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
		size, err := strconv.ParseInt(string(bytes.Trim(h[124:136], " \x00")), 8, 64)
		if err != nil || size < 0 || h[156] >= '1' && h[156] <= '6' {
			continue
		}
		rest = rest[min((size+block-1)/block*block, int64(len(rest))):]
	}
	return archive
}
