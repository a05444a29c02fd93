package layer

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/ulikunitz/xz"
)

func gz(t testing.TB, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(p)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zst(t testing.TB, p []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(p, nil)
}

// hello is "hello\n" as bzip2(1) compresses it.
const hello = "QlpoOTFBWSZTWcHAgOIAAAFBAAAQAkSgADDNAMNGKZcXckU4UJDBwIDi"

func TestDecompress(t *testing.T) {
	one, two := []byte("first part, "), []byte("second part")
	both := slices.Concat(one, two)
	skippable := append([]byte{0x5f, 0x2a, 0x4d, 0x18, 3, 0, 0, 0}, "abc"...)
	bz, err := base64.StdEncoding.DecodeString(hello)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 10<<10)
	for _, c := range []struct {
		name string
		in   []byte
		want []byte
		kind Compression
		err  string
	}{
		{"plain", both, both, Plain, ""},
		{"empty", nil, nil, Plain, ""},
		{"one byte", []byte{0x1f}, []byte{0x1f}, Plain, ""},
		{"gzip", gz(t, both), both, Gzip, ""},
		{"gzip members", slices.Concat(gz(t, one), gz(t, nil), gz(t, two)), both, Gzip, ""},
		{"gzip and zeros", slices.Concat(gz(t, both), zeros), both, Gzip, ""},
		{"gzip and garbage", slices.Concat(gz(t, both), []byte("garbage")), both, Gzip, ""},
		{"gzip cut in the header", gz(t, both)[:5], nil, "", "unexpected EOF"},
		{"gzip cut in the data", gz(t, both)[:20], nil, Gzip, "unexpected EOF"},
		{"gzip cut in the checksum", gz(t, both)[:len(gz(t, both))-3], nil, Gzip, "unexpected EOF"},
		{"gzip cut in the second member", slices.Concat(gz(t, one), gz(t, two)[:15]), nil, Gzip, "unexpected EOF"},
		{"gzip corrupt", flip(gz(t, both), 14), nil, Gzip, "read gzip"},
		{"zstd", zst(t, both), both, Zstd, ""},
		{"zstd frames", slices.Concat(zst(t, one), skippable, zst(t, two), skippable), both, Zstd, ""},
		{"zstd, skippable first", slices.Concat(skippable, zst(t, both)), both, Zstd, ""},
		{"zstd cut", zst(t, both)[:12], nil, Zstd, "unexpected EOF"},
		{"zstd cut in the header", zst(t, both)[:5], nil, Zstd, "unexpected EOF"},
		{"zstd corrupt", flip(zst(t, both), 8), nil, Zstd, "read zstd"},
		{"zstd with a huge window", []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0xf8, 1, 0, 0}, nil, Zstd, "window"},
		{"bzip2", bz, []byte("hello\n"), Bzip2, ""},
		{"bzip2 cut", bz[:20], nil, Bzip2, "unexpected EOF"},
		{"xz cut in the header", []byte{0xfd, '7', 'z', 'X', 'Z', 0, 0}, nil, "", "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := bytes.NewReader(c.in)
			r, kind, err := Decompress(in)
			var got []byte
			if err == nil {
				got, err = io.ReadAll(r)
				if closeErr := r.Close(); closeErr != nil {
					t.Error(closeErr)
				}
			}
			if kind != c.kind {
				t.Errorf("compression %q", kind)
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, not %q", err, c.err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, c.want) || in.Len() != 0 {
				t.Errorf("%q, %v, %d bytes not read", got, err, in.Len())
			}
		})
	}
}

func flip(p []byte, i int) []byte {
	p = slices.Clone(p)
	p[i] ^= 0xff
	return p
}

// bzip compresses p with bzip2(1).
func bzip(t testing.TB, p []byte) []byte {
	t.Helper()
	cmd := exec.Command("bzip2", "-c")
	cmd.Stdin = bytes.NewReader(p)
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("bzip2: %v", err)
	}
	return out
}

// TestTruncated is CVE-2021-20291: a stream of any codec that breaks off anywhere ends with an error, at once, and so does Close
// when the reader is not read to its end.
func TestTruncated(t *testing.T) {
	random := make([]byte, 200_000)
	rnd := rand.NewChaCha8([32]byte{2})
	rnd.Read(random)
	archive := pack(t, "f a "+string(random), "f b "+strings.Repeat("content ", 10_000))
	for name, stream := range map[string][]byte{
		"plain": archive, "gzip": gz(t, archive), "zstd": zst(t, archive), "bzip2": bzip(t, archive), "xz": xzOf(t, archive, xz.WriterConfig{}),
	} {
		for i := range 20 {
			cut := stream[:len(stream)*i/20]
			start := time.Now()
			if _, err := unpack(t, t.TempDir(), cut, Options{DiffID: digest.FromBytes(archive)}); err == nil {
				t.Errorf("%s cut at %d of %d bytes: no error", name, len(cut), len(stream))
			}
			r, _, err := Decompress(bytes.NewReader(cut))
			if err == nil {
				r.Read(make([]byte, 10))
				r.Close()
			}
			if took := time.Since(start); took > 5*time.Second { // a second on a machine that has nothing else to do
				t.Errorf("%s cut at %d bytes: took %v", name, len(cut), took)
			}
		}
	}
}

// TestBrokenStreams unpacks broken streams many times: quickly, and without leaving descriptors or goroutines behind
// (CVE-2021-20291, CVE-2026-114236).
func TestBrokenStreams(t *testing.T) {
	archive := pack(t, "d a", "f a/b "+strings.Repeat("content ", 1000), "l c a", "f c/d x")
	x := xzOf(t, archive, xz.WriterConfig{DictCap: 1 << 16})
	broken := [][]byte{archive[:3000], gz(t, archive)[:100], zst(t, archive)[:50], flip(gz(t, archive), 40), flip(archive, 1030), gz(t, []byte("not a tar")),
		x[:len(x)/2], flip(x, len(x)/2), bzip(t, archive)[:60], flip(bzip(t, archive), 12)}
	dir := t.TempDir()
	count := func() (int, int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds), runtime.NumGoroutine()
	}
	fds, goroutines := count()
	start := time.Now()
	for range 1000 {
		for i, b := range broken {
			if _, err := unpack(t, dir, b, Options{Whiteouts: InPlace}); err == nil {
				t.Fatalf("broken stream %d is no error", i)
			}
		}
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
	if f, g := count(); f > fds || g > goroutines {
		t.Errorf("%d descriptors and %d goroutines became %d and %d", fds, goroutines, f, g)
	}
}

func TestDiffID(t *testing.T) {
	archive := append(pack(t, "f a x"), make([]byte, 20_000)...) // the padding counts
	right := digest.FromBytes(archive)
	long := digest.SHA512.FromBytes(archive)
	for _, id := range []digest.Digest{"", right, long} {
		for _, stream := range [][]byte{archive, gz(t, archive), zst(t, archive)} {
			r := mustUnpack(t, t.TempDir(), stream, Options{DiffID: id})
			if want := map[bool]digest.Digest{true: long, false: right}[id == long]; r.DiffID != want || r.Size != int64(len(archive)) {
				t.Errorf("%+v", r)
			}
		}
	}
	for _, id := range []digest.Digest{digest.FromString("other"), "sha256:abc", "blake3:" + digest.Digest(right.Encoded())} {
		if _, err := unpack(t, t.TempDir(), archive, Options{DiffID: id}); err == nil {
			t.Errorf("%s accepted", id)
		}
	}
	if _, err := unpack(t, t.TempDir(), append(archive, 1), Options{DiffID: right}); err == nil {
		t.Error("a byte after the padding was not noticed")
	}
}

// endless gives zeros for ever, and ends the test if too many are asked for.
type endless struct{ left int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.left -= int64(len(p)); e.left < 0 {
		return 0, errors.New("read too much")
	}
	clear(p)
	return len(p), nil
}

func TestLimits(t *testing.T) {
	big := pack(t, "f a "+strings.Repeat("x", 10_000))
	for _, c := range []struct {
		name   string
		stream io.Reader
		limits Limits
	}{
		{"TotalBytes", bytes.NewReader(big), Limits{TotalBytes: 9000}},
		{"TotalBytes", bytes.NewReader(gz(t, append(big, make([]byte, 20_000)...))), Limits{TotalBytes: 15_000}},
		{"Entries", bytes.NewReader(pack(t, "f a ", "f a ", "f .wh.a")), Limits{Entries: 2}},
		{"PathLength", bytes.NewReader(pack(t, "f "+strings.Repeat("a/", 3000)+"b x")), Limits{}},
		{"PathLength", bytes.NewReader(pack(t, "l a "+strings.Repeat("b", 5000))), Limits{}},
		{"Depth", bytes.NewReader(pack(t, "f "+strings.Repeat("a/", 600)+"b x")), Limits{}},
		{"Trailing", io.MultiReader(bytes.NewReader(big), &endless{100 << 20}), Limits{}},
		{"TotalBytes", io.MultiReader(bytes.NewReader(big), &endless{100 << 20}), Limits{Trailing: -1, TotalBytes: 50 << 20}},
	} {
		root, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_, err = Unpack(context.Background(), root, c.stream, Options{Limits: c.limits})
		var limit *LimitError
		if !errors.As(err, &limit) || limit.Name != c.name {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestRatio counts what a bomb would be, without making it.
func TestRatio(t *testing.T) {
	for _, c := range []struct {
		stored, made int64
		limits       Limits
		ok           bool
	}{
		{1, freeRatio, Limits{}, true}, {1000, freeRatio + 1, Limits{}, false}, {3 << 20, freeRatio + 1, Limits{}, true},
		{1000, freeRatio + 1, Limits{Ratio: -1}, true}, {3 << 20, freeRatio + 1, Limits{Ratio: 10}, false},
	} {
		limits := c.limits.withDefaults()
		m := &meter{compressed: &countReader{ctx: t.Context()}, limits: &limits}
		m.compressed.n.Store(c.stored)
		var err error
		for left := c.made; left > 0 && err == nil; left -= 1 << 30 {
			err = m.decompressed(int(min(left, 1<<30)))
		}
		var limit *LimitError
		if c.ok != (err == nil) || err != nil && (!errors.As(err, &limit) || limit.Name != "Ratio") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestBomb unpacks a small stream that becomes large, and looks at the memory that it took.
func TestBomb(t *testing.T) {
	before := peak(t)
	zeros := gz(t, make([]byte, 64<<20))
	var parts []io.Reader
	parts = append(parts, bytes.NewReader(gz(t, pack(t, "f a x"))))
	for range 100 {
		parts = append(parts, bytes.NewReader(zeros))
	}
	root, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, err = Unpack(context.Background(), root, io.MultiReader(parts...), Options{})
	var limit *LimitError
	if !errors.As(err, &limit) || limit.Name != "Trailing" {
		t.Errorf("error %v", err)
	}
	if grown := peak(t) - before; grown > 256<<20 { // the test itself holds 64 MiB of zeros
		t.Errorf("%d MiB of memory", grown>>20)
	}
}

// peak is the largest resident size that the process has had, in bytes.
func peak(t *testing.T) int64 {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return int64(u.Maxrss) << 10
}

// TestCancelNothing ends the decoding of members that give nothing, for ever.
func TestCancelNothing(t *testing.T) {
	root, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	member := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err = Unpack(ctx, root, &repeat{p: member, left: math.MaxInt}, Options{})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	root, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	cancel()
	if _, err := Unpack(ctx, root, bytes.NewReader(pack(t, "f a x")), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
