package layer

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ulikunitz/xz"
)

// xzOf compresses p with the library's writer.
func xzOf(t testing.TB, p []byte, c xz.WriterConfig) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := c.NewWriter(&b)
	if err == nil {
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

// xzTool compresses p with xz(1).
func xzTool(t testing.TB, p []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("xz", append([]string{"-c"}, args...)...)
	cmd.Stdin = bytes.NewReader(p)
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("xz: %v", err)
	}
	return out
}

func unxz(p []byte) ([]byte, Compression, error) {
	r, kind, err := Decompress(bytes.NewReader(p))
	if err != nil {
		return nil, kind, err
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	return out, kind, err
}

func TestXz(t *testing.T) {
	text := bytes.Repeat([]byte("some text that compresses, and a number: 12345. "), 20_000)
	random := make([]byte, 300_000)
	rnd := rand.NewChaCha8([32]byte{1})
	rnd.Read(random)
	mixed := slices.Concat(text, random, text)
	zeros := make([]byte, 8)
	for name, in := range map[string][]byte{
		"library":     xzOf(t, mixed, xz.WriterConfig{}),
		"no check":    xzOf(t, mixed, xz.WriterConfig{NoCheckSum: true}),
		"crc32":       xzOf(t, mixed, xz.WriterConfig{CheckSum: xz.CRC32}),
		"sha256":      xzOf(t, mixed, xz.WriterConfig{CheckSum: xz.SHA256}),
		"small dict":  xzOf(t, mixed, xz.WriterConfig{DictCap: 1 << 16}),
		"many blocks": xzOf(t, mixed, xz.WriterConfig{BlockSize: 10_000, DictCap: 1 << 16}),
		"two streams": slices.Concat(xzOf(t, text, xz.WriterConfig{}), zeros, xzOf(t, slices.Concat(random, text), xz.WriterConfig{CheckSum: xz.SHA256}), zeros),
		"tool":        xzTool(t, mixed),
		"tool -9":     xzTool(t, mixed, "-9"),
		"tool -T2":    xzTool(t, mixed, "-T2", "--block-size=100000"),
	} {
		if got, kind, err := unxz(in); err != nil || kind != Xz || !bytes.Equal(got, mixed) {
			t.Errorf("%s: %d bytes, %q, %v", name, len(got), kind, err)
		}
	}
	for name, in := range map[string][]byte{
		"empty": xzOf(t, nil, xz.WriterConfig{}), "empty, tool": xzTool(t, nil),
	} {
		if got, _, err := unxz(in); err != nil || len(got) != 0 {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if _, _, err := unxz(xzTool(t, mixed, "--x86", "--lzma2")); err == nil || !strings.Contains(err.Error(), "filters other than LZMA2") {
		t.Errorf("filter: %v", err)
	}
}

// TestXzBroken cuts and flips a stream at every byte: an error each time (or, in what no checksum covers, the right content).
func TestXzBroken(t *testing.T) {
	text := []byte(strings.Repeat("content ", 40))
	good := xzOf(t, text, xz.WriterConfig{BlockSize: 200, DictCap: 4096})
	start := time.Now()
	for i := range good {
		if got, _, err := unxz(good[:i]); i > 6 && err == nil {
			t.Errorf("cut at %d of %d: %q", i, len(good), got)
		}
		if got, kind, err := unxz(flip(good, i)); err == nil && kind == Xz && !bytes.Equal(got, text) {
			t.Errorf("flipped at %d of %d: %q", i, len(good), got)
		}
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestXzDictionary has headers that ask for more memory than there should be (CVE-2025-58058 and its kin), once and many times.
func TestXzDictionary(t *testing.T) {
	// The smallest stream: a header, and a block whose data ends at once.
	block := func(bits byte) []byte {
		h := []byte{2, 0, 0x21, 1, bits, 0, 0, 0}
		return slices.Concat(h, binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(h)), []byte{0, 0, 0, 0})
	}
	header := slices.Concat(xzMagic, []byte{0, 0}, binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte{0, 0})))
	before := peak(t)
	for bits, want := range map[byte]string{40: "larger than", 39: "larger than", 41: "corrupt", 255: "corrupt"} {
		if _, _, err := unxz(slices.Concat(header, block(bits))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("dictionary %d: %v", bits, err)
		}
	}
	start := time.Now()
	_, _, err := unxz(slices.Concat(header, bytes.Repeat(block(28), 1_000_000)))
	if err == nil || !strings.Contains(err.Error(), "too small for their dictionaries") {
		t.Errorf("many blocks: %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if grown := peak(t) - before; grown > 512<<20 {
		t.Errorf("%d MiB of memory", grown>>20)
	}
}
