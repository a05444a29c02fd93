package diff

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/layer"
)

// TestRoundTrip packs a tree, unpacks it, and finds no difference; a second packing gives the same bytes.
func TestRoundTrip(t *testing.T) {
	need(t, "setfattr", "getfattr")
	dir := mkBase(t)
	first, l := write(t, trees(t, "", dir), LayerOptions{})
	if l.DiffID != digest.FromBytes(first) || l.Descriptor.Digest != l.DiffID || l.Descriptor.Size != int64(len(first)) || l.SkippedCount != 0 {
		t.Errorf("layer %+v", l)
	}
	to := t.TempDir()
	apply(t, to, first)
	equal(t, "unpacked", dir, to)
	for name, other := range map[string]string{"a copy": copyOf(t, dir), "the unpacked tree": to} {
		if again, _ := write(t, trees(t, "", other), LayerOptions{}); !bytes.Equal(again, first) {
			t.Errorf("packing %s gives other bytes", name)
		}
	}
	if got := list(t, trees(t, dir, dir)); got != "" {
		t.Errorf("a tree differs from itself:\n%s", got)
	}
}

// TestChanges packs what differs between two trees and applies it to the first.
func TestChanges(t *testing.T) {
	need(t, "setfattr", "getfattr")
	before := mkBase(t)
	after := copyOf(t, before)
	sh(t, after, changeBase)
	const want = `A /a
A /a/b
A /a/b/c
A /a/b/c/z
A /a/z2
C /bin
C /bin/link
A /bin/su3
C /dir
D /dir/fifo
D /dir/gone
C /dir/keep
A /dir/new
C /dir/null
C /empty
C /etc
C /etc/passwd
C /etc/shadow
C /var
C /var/log
C /var/log/deep
C /var/log/deep/log
A /var/log/deep/log/in
`
	if got := list(t, trees(t, before, after)); got != want {
		t.Errorf("changes are\n%swant\n%s", got, want)
	}
	data, _ := write(t, trees(t, before, after), LayerOptions{})
	names := strings.Join(entries(t, data), "\n")
	for _, want := range []string{"0 a/b/c/z\n1 a/z2 > a/b/c/z\n", "5 dir/\n0 dir/.wh.fifo\n0 dir/.wh.gone\n0 dir/keep\n", "5 var/log/deep/log/\n0 var/log/deep/log/in"} {
		if !strings.Contains(names, want) {
			t.Errorf("entries\n%s\nlack\n%s", names, want)
		}
	}
	onto := copyOf(t, before)
	apply(t, onto, data)
	equal(t, "applied", after, onto)
}

// TestContent finds a changed file whose attributes are as they were only if it is asked to.
func TestContent(t *testing.T) {
	need(t)
	a, b := t.TempDir(), t.TempDir()
	sh(t, a, "echo one >f; touch -d @1 f")
	sh(t, b, "echo two >f; touch -d @1 f")
	in := trees(t, a, b)
	if got := list(t, in); got != "" {
		t.Errorf("without content: %s", got)
	}
	in.Content = true
	if got := list(t, in); got != "C /f\n" {
		t.Errorf("with content: %s", got)
	}
}

// TestOverlay lets overlayfs make an upper directory, with either kind of attributes, and compares what comes out of it with the
// merged tree.
func TestOverlay(t *testing.T) {
	need(t, "setfattr", "getfattr", "unshare", "mount")
	for option, off := range map[string]string{"": ",redirect_dir=off,metacopy=off", ",userxattr": ""} { // userxattr turns both off
		work := t.TempDir()
		sh(t, work, "mkdir low top upper work merged final")
		sh(t, filepath.Join(work, "low"), base)
		sh(t, filepath.Join(work, "top"), `mkdir -p dir var/log bin; echo t >dir/top; mknod dir/loop c 0 0; mkdir dir/gone; setfattr -n `+prefixOf(option)+`opaque -v y dir/gone; echo in >dir/gone/in; mkdir -p op/a op/b; echo 1 >op/a/1; echo 2 >op/b/2; echo 3 >op/3; touch -d @5 dir/top`)
		out, err := exec.Command("unshare", "-m", "bash", "-euc", `cd `+work+`; mount -t overlay overlay -o lowerdir=top:low,upperdir=upper,workdir=work,index=off`+off+option+` merged
			cp -a merged before; cd merged; `+changeBase+`
			echo x >>dir/top; rm -r op; mkdir -p op/b; echo 2 >op/b/2; echo n >op/n; rm etc/shadow; touch -d @9 bin; chmod 700 var/log/deep; chmod 755 var/log/deep
			cat etc/passwd >/dev/null; : >>var/sparse; cd ..; cp -a merged/. final; chown --reference=merged final; umount merged`).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		in := Input{Upper: openDir(t, work+"/upper"), Lower: []*os.File{openDir(t, work+"/top"), openDir(t, work+"/low")}, Overlay: true, UserXattr: option != ""}
		sh(t, work+"/upper", "chown 0:0 .; chmod 755 .")
		changes := list(t, in)
		for _, want := range []string{"D /etc/shadow\n", "D /dir/gone\n", "C /op\nD /op/3\nD /op/a\n", "A /op/n\n", "C /dir/top\n", "C /bin\n", "A /a/z2\n"} {
			if !strings.Contains(changes, want) {
				t.Errorf("option %q: changes\n%s\nlack %s", option, changes, want)
			}
		}
		for _, not := range []string{"/var/sparse", "/op/a/1"} {
			if strings.Contains(changes, not) {
				t.Errorf("option %q: changes\n%s\nhave %s", option, changes, not)
			}
		}
		known, _ := write(t, in, LayerOptions{})
		in.Lower = nil
		unknown, _ := write(t, in, LayerOptions{})
		for _, data := range [][]byte{known, unknown} {
			onto := copyOf(t, work+"/before")
			apply(t, onto, data)
			equal(t, option, work+"/final", onto)
		}
		if names := strings.Join(entries(t, unknown), "\n"); !strings.Contains(names, "op/\n0 op/.wh..wh..opq") || strings.Contains(strings.Join(entries(t, known), "\n"), "opq") {
			t.Errorf("opaque markers: %s", names)
		}
		if bytes.Contains(unknown, []byte("overlay.")) {
			t.Error("the layer has overlayfs's attributes")
		}
	}
}

func prefixOf(option string) string {
	if option != "" {
		return "user.overlay."
	}
	return "trusted.overlay."
}

// TestForgedMarks does not believe what a container can set itself.
func TestForgedMarks(t *testing.T) {
	need(t, "setfattr")
	low, up := t.TempDir(), t.TempDir()
	sh(t, low, "mkdir d; echo x >d/x; echo w >w; touch -d @1 d")
	sh(t, up, "mkdir d; echo y >d/y; : >w; setfattr -n user.overlay.opaque -v y d; setfattr -n user.overlay.whiteout -v y w")
	in := Input{Upper: openDir(t, up), Lower: []*os.File{openDir(t, low)}, Overlay: true}
	if got, want := list(t, in), "C /d\nA /d/y\nC /w\n"; got != want {
		t.Errorf("changes %s, want %s", got, want)
	}
	in.UserXattr = true
	if got, want := list(t, in), "D /w\nC /d\nD /d/x\nA /d/y\n"; got != want {
		t.Errorf("as marks: changes %s, want %s", got, want)
	}
	sh(t, up, "mkdir r; setfattr -n trusted.overlay.redirect -v /etc r")
	in.UserXattr = false
	_, err := Changes(context.Background(), in)
	expect(t, err, "redirect_dir")
	sh(t, up, "rm -r r; echo x >m; setfattr -n trusted.overlay.metacopy -v x m")
	_, err = Changes(context.Background(), in)
	expect(t, err, "metacopy")
}

func expect(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

// TestSkipped leaves out, and says so, what a layer cannot have.
func TestSkipped(t *testing.T) {
	need(t)
	low, up := t.TempDir(), t.TempDir()
	sh(t, low, "echo x >sock; echo x >'.wh.old'")
	sh(t, up, "mkdir -p d/.wh.e; echo x >.wh.passwd; echo x >d/.wh.e/f")
	l, err := net.Listen("unix", up+"/sock")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data, result := write(t, trees(t, low, up), LayerOptions{})
	if got, want := strings.Join(entries(t, data), " "), "5 d/ 0 .wh.sock"; got != want {
		t.Errorf("entries %s, want %s", got, want)
	}
	if result.SkippedCount != 5 || len(result.Skipped) != 5 {
		t.Errorf("skipped %q", result.Skipped)
	}
}

// TestClamp limits times, and reads the variable that says how.
func TestClamp(t *testing.T) {
	need(t)
	dir := t.TempDir()
	sh(t, dir, "echo x >old; echo x >new; touch -d @5.5 old")
	when, err := SourceDateEpoch("1000")
	if err != nil {
		t.Fatal(err)
	}
	data, _ := write(t, trees(t, "", dir), LayerOptions{Clamp: when})
	to := t.TempDir()
	apply(t, to, data)
	if got := sh(t, to, "stat -c %.Y old new ."); got != "5.500000000\n1000.000000000\n1000.000000000\n" {
		t.Errorf("times %s", got)
	}
	for _, bad := range []string{"x", "-1", "1.5", "99999999999999999"} {
		if when, err := SourceDateEpoch(bad); err == nil {
			t.Errorf("%s is %v", bad, when)
		}
	}
	if when, err := SourceDateEpoch(""); err != nil || !when.IsZero() {
		t.Errorf("unset: %v, %v", when, err)
	}
}

// hook calls do when text is first written.
type hook struct {
	text string
	do   func()
}

func (h *hook) Write(p []byte) (int, error) {
	if h.do != nil && bytes.Contains(p, []byte(h.text)) {
		h.do()
		h.do = nil
	}
	return len(p), nil
}

// TestWhileReading changes a tree while it is read.
func TestWhileReading(t *testing.T) {
	need(t)
	for name, c := range map[string]struct{ script, err string }{
		"shorter":  {"truncate -s 10 b", `"b": it became shorter than 3000000 bytes`},
		"longer":   {"echo more >>b", ""},
		"removed":  {"rm c", ""},
		"replaced": {"rm c; ln -s /etc/passwd c", ""},
		"a link":   {"rm -r d; ln -s /etc d", ""},
	} {
		dir := t.TempDir()
		sh(t, dir, "echo a >a; head -c 3000000 /dev/zero >b; echo c >c; mkdir d; echo e >d/e")
		var all bytes.Buffer
		_, err := WriteLayer(context.Background(), io.MultiWriter(&hook{"b\x00\x00", func() { sh(t, dir, c.script) }}, &all), trees(t, "", dir), LayerOptions{})
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
		if bytes.Contains(all.Bytes(), []byte("root:x:0:0")) {
			t.Errorf("%s: a link was followed", name)
		}
	}
}

// TestLimits stops at each limit and names it.
func TestLimits(t *testing.T) {
	need(t)
	dir := t.TempDir()
	sh(t, dir, "mkdir -p a/b/c/d; echo x >a/x; truncate -s 2T huge")
	for _, c := range []struct {
		limits Limits
		err    string
	}{
		{Limits{Depth: 2}, "Limits.Depth"}, {Limits{Entries: 3}, "Limits.Entries"}, {Limits{}, "Limits.Bytes"},
	} {
		in := trees(t, "", dir)
		in.Limits = c.limits
		_, err := WriteLayer(context.Background(), io.Discard, in, LayerOptions{})
		expect(t, err, c.err)
		_, err = Export(context.Background(), io.Discard, in.Upper, ExportOptions{Limits: c.limits})
		expect(t, err, c.err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Changes(ctx, trees(t, "", dir)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestCompress compresses to the same bytes whatever the processors and the sizes of the writes, and others decompress it.
func TestCompress(t *testing.T) {
	need(t, "gzip", "zstd")
	r := rand.New(rand.NewPCG(1, 2))
	var data []byte
	for len(data) < 5<<20+12345 {
		data = fmt.Appendf(data, "%d %x\n", len(data), r.Uint64N(1<<uint(r.IntN(60)+1)))
	}
	for _, size := range []int{0, 1, gzipBlock - 1, gzipBlock, gzipBlock + 1, len(data)} {
		for _, c := range []layer.Compression{layer.Plain, layer.Gzip, layer.Zstd} {
			var first []byte
			for _, procs := range []int{1, 2, 7} {
				old := runtime.GOMAXPROCS(procs)
				var b bytes.Buffer
				w, err := NewCompressor(&b, CompressOptions{Compression: c})
				if err != nil {
					t.Fatal(err)
				}
				for rest := data[:size]; len(rest) > 0; {
					n := min(len(rest), 1+r.IntN(200000))
					if _, err := w.Write(rest[:n]); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				runtime.GOMAXPROCS(old)
				if first == nil {
					first = b.Bytes()
				}
				if d := w.Descriptor(); !bytes.Equal(b.Bytes(), first) || w.DiffID() != digest.FromBytes(data[:size]) || d.Digest != digest.FromBytes(first) || d.Size != int64(len(first)) || w.Size() != int64(size) {
					t.Errorf("%s of %d bytes with %d processors: %+v", c, size, procs, d)
				}
			}
			plain, kind, err := layer.Decompress(bytes.NewReader(first))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, data[:size]) || kind != c && size > 0 {
				t.Errorf("%s of %d bytes: read %d as %s, %v", c, size, len(got), kind, err)
			}
			if c != layer.Plain {
				cmd := exec.Command(string(c), "-dc")
				cmd.Stdin = bytes.NewReader(first)
				if got, err := cmd.Output(); err != nil || !bytes.Equal(got, data[:size]) {
					t.Errorf("%s(1) of %d bytes: %d bytes, %v", c, size, len(got), err)
				}
			}
		}
	}
	var b bytes.Buffer
	w, err := NewCompressor(&b, CompressOptions{Compression: layer.Gzip})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&b)
	if err != nil || z.Name != "" || !z.ModTime.IsZero() || z.OS != 255 {
		t.Errorf("header %+v, %v", z, err)
	}
}

// TestMediaTypes gives types that belong together.
func TestMediaTypes(t *testing.T) {
	for _, c := range []struct {
		o         CompressOptions
		want, err string
	}{
		{CompressOptions{}, "application/vnd.oci.image.layer.v1.tar", ""},
		{CompressOptions{Compression: layer.Gzip}, "application/vnd.oci.image.layer.v1.tar+gzip", ""},
		{CompressOptions{Compression: layer.Zstd}, "application/vnd.oci.image.layer.v1.tar+zstd", ""},
		{CompressOptions{Compression: layer.Gzip, Docker: true}, "application/vnd.docker.image.rootfs.diff.tar.gzip", ""},
		{CompressOptions{Docker: true}, "application/vnd.docker.image.rootfs.diff.tar", ""},
		{CompressOptions{Compression: layer.Zstd, Docker: true}, "", "no media type for zstd"},
		{CompressOptions{Compression: "bzip2"}, "", `cannot compress with "bzip2"`},
	} {
		w, err := NewCompressor(io.Discard, c.o)
		if c.err != "" {
			expect(t, err, c.err)
			continue
		}
		if err != nil || w.Descriptor().MediaType != c.want {
			t.Errorf("%+v: %v, %v", c.o, w, err)
		}
		w.Abort()
	}
}

// broken fails.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk is full") }

// TestWriteErrors returns the writer's error, and leaves no goroutine behind.
func TestWriteErrors(t *testing.T) {
	need(t)
	dir := t.TempDir()
	sh(t, dir, "head -c 5000000 /dev/urandom >f")
	before := runtime.NumGoroutine()
	for _, c := range []layer.Compression{layer.Plain, layer.Gzip, layer.Zstd} {
		_, err := WriteLayer(context.Background(), broken{}, trees(t, "", dir), LayerOptions{CompressOptions: CompressOptions{Compression: c}})
		expect(t, err, "disk is full")
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, before %d", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}

// TestMountPoints leaves out what is only there because something was mounted on it.
func TestMountPoints(t *testing.T) {
	need(t, "setfattr")
	before := t.TempDir()
	sh(t, before, "mkdir -p etc var/lib; echo x >etc/keep; touch -d 2001-01-01 etc var")
	after := copyOf(t, before)
	sh(t, after, "mkdir -p dev proc/self mnt/data new/dir var/run; : >etc/hosts; echo mine >etc/hostname; : >proc/found; touch etc/other")
	in := trees(t, before, after)
	in.MountPoints = []string{"dev", "proc", "mnt/data", "etc/hosts", "etc/hostname", "new/dir", "var/lib"}
	const want = `C /etc
A /etc/hostname
A /etc/other
A /proc
A /proc/found
A /proc/self
C /var
A /var/run
`
	if got := list(t, in); strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("changes:\n%s\nwant:\n%s", got, want)
	}
}
