package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func archiveOf(t testing.TB, add func(w *tar.Writer)) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestLegal unpacks what is odd but occurs in honest images.
func TestLegal(t *testing.T) {
	long := strings.Repeat("long/", 60) + "name"
	for _, c := range []struct {
		name    string
		entries []string
		want    string
	}{
		{"/var/run is absolute", []string{"d run", "d var", "l var/run /run", "f var/run/pid 1"}, "run/ run/pid var/ var/run"},
		{"/var/run is relative", []string{"d run", "d var", "l var/run ../run", "f var/run/pid 1"}, "run/ run/pid var/ var/run"},
		{"merged /usr", []string{"d usr", "d usr/bin", "l bin usr/bin", "f bin/sh x", "f /bin/ls x"}, "bin usr/ usr/bin/ usr/bin/ls usr/bin/sh"},
		{"dangling link", []string{"l etc /none/at/all"}, "etc"},
		{"through a dangling link", []string{"l etc /made", "f etc/x x"}, "etc made/ made/x"},
		{"dots above the root", []string{"d run", "l v ../../../../run", "f v/x x"}, "run/ run/x v"},
		{"dots behind a link", []string{"d a", "d a/b", "d c", "l l a/b", "l m l/../../c", "f m/x x"}, "a/ a/b/ c/ c/x l m"},
		{"chain of links", []string{"l a b", "l b /c", "l c d", "d d", "f a/x x"}, "a b c d/ d/x"},
		{"names with ./", []string{"d ./", "d ./a", "f ./a/b x"}, "a/ a/b"},
		{"no parents", []string{"f a/b/c x"}, "a/ a/b/ a/b/c"},
		{"parent after child", []string{"f a/b x", "d a"}, "a/ a/b"},
		{"fifo", []string{"p f"}, "f"},
		{"hard link to a link", []string{"l a none", "h b a"}, "a b"},
		{"hard link to itself", []string{"f a x", "h a a"}, "a"},
		{"hard link with an absolute target", []string{"f a x", "h b /a", "h c ./a"}, "a b c"},
		{"hard link over a file", []string{"f a x", "f b y", "h b a"}, "a b"},
		{"twice the same name", []string{"f a x", "f a y", "l a z", "d a", "f a/b x"}, "a/ a/b"},
		{"long name", []string{"f " + long + " x"}, ""},
		{"device", []string{"c null 1:3"}, "null"},
		{"backslash and colon", []string{`f a\b x`, "f c:d x"}, `a\b c:d`},
		{"like a whiteout", []string{"f .wha x", "f a.wh.b x"}, ".wha a.wh.b"},
	} {
		for _, w := range []Whiteouts{Overlay, InPlace} {
			dir := t.TempDir()
			if r, err := unpack(t, dir, pack(t, c.entries...), Options{Whiteouts: w}); err != nil || r.SkippedCount != 0 {
				t.Errorf("%s: %v, %v", c.name, r.Skipped, err)
			} else if got := names(t, dir); got != c.want && c.want != "" {
				t.Errorf("%s: %s\nnot %s", c.name, got, c.want)
			}
			if c.want == "" {
				if _, err := os.Lstat(filepath.Join(dir, long)); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestManyDirectories has more directories than stay open, visited in an order that opens each again and again: their modes and
// times must hold all the same.
func TestManyDirectories(t *testing.T) {
	const n = 300
	archive := archiveOf(t, func(w *tar.Writer) {
		entry := func(h tar.Header) {
			h.ModTime, h.Format = stamp, tar.FormatPAX
			writeEntry(t, w, &h, "")
		}
		entry(tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o750, Uid: 3})
		for i := range n {
			entry(tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("d%d", i), Mode: 0o2510, Gid: i})
		}
		for round := range 3 {
			for i := range n {
				entry(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/f%d", i, round), Mode: 0o4711, Uid: 5, Gid: 6})
			}
		}
	})
	dir := t.TempDir()
	if r := mustUnpack(t, dir, archive, Options{}); !r.RootEntry {
		t.Error("no root entry")
	}
	for _, line := range listing(t, dir, false) {
		f := strings.Fields(line)
		want := []string{"-" + "rwx--x--x", "5:6"}
		switch {
		case f[0] == ".":
			want = []string{"drwxr-x---", "3:0"}
		case !strings.Contains(f[0], "/"):
			want = []string{"dgr-x--x---", "0:" + f[0][1:]}
		default:
			want[0] = "u" + "rwx--x--x"
		}
		if !slices.Equal(f[1:3], want) || f[3] != stamp.UTC().Format(time.RFC3339Nano) {
			t.Fatalf("%s, not %v", line, want)
		}
	}
}

// TestAttributes replaces a directory's attributes, children kept, and sets those of every kind of file.
func TestAttributes(t *testing.T) {
	dir := t.TempDir()
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw=ep
	large := int64(3_000_000_000)                                                                    // does not fit an int on 32-bit ports
	one := archiveOf(t, func(w *tar.Writer) {
		h := &tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o1777, ModTime: stamp, PAXRecords: map[string]string{
			"SCHILY.xattr.user.old": "1", "SCHILY.xattr.user.both": "1",
		}}
		writeEntry(t, w, h, "")
		h = &tar.Header{Typeflag: tar.TypeReg, Name: "d/f", Mode: 0o6755, Uid: int(large), Gid: 2_500_000, ModTime: stamp, Size: 1, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.trusted.overlay.opaque": "y"}}
		writeEntry(t, w, h, "x")
		h = &tar.Header{Typeflag: tar.TypeSymlink, Name: "d/l", Linkname: "x", Uid: 1, Gid: 2, ModTime: stamp, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.trusted.t": "v", "SCHILY.xattr.user.no": "v"}}
		writeEntry(t, w, h, "")
		h = &tar.Header{Typeflag: tar.TypeChar, Name: "d/c", Mode: 0o602, Devmajor: 300, Devminor: 70000, ModTime: stamp, Format: tar.FormatGNU}
		h.ModTime = stamp.Truncate(time.Second)
		writeEntry(t, w, h, "")
	})
	two := archiveOf(t, func(w *tar.Writer) {
		h := &tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o700, Uid: 9, Gid: 9, ModTime: stamp.Add(time.Hour), Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.user.both": "2", "SCHILY.xattr.user.new": "2"}}
		writeEntry(t, w, h, "")
	})
	r := mustUnpack(t, dir, one, Options{Whiteouts: InPlace})
	if r.SkippedCount != 2 || len(r.Skipped) != 2 {
		t.Errorf("skipped %q", r.Skipped)
	}
	mustUnpack(t, dir, two, Options{Whiteouts: InPlace})
	at := stamp.UTC().Format(time.RFC3339Nano)
	want := []string{
		`d drwx------ 9:9 ` + stamp.Add(time.Hour).UTC().Format(time.RFC3339Nano) + ` map["user.both":"2" "user.new":"2"]`,
		`d/c Dcrw-----w- 0:0 ` + stamp.UTC().Truncate(time.Second).Format(time.RFC3339Nano) + ` rdev 11112c70`,
		`d/f ugrwxr-xr-x 3000000000:2500000 ` + at + fmt.Sprintf(` map["security.capability":%q]`, capability) + ` 1 "x"`,
		`d/l Lrwxrwxrwx 1:2 ` + at + ` map["trusted.t":"v"] -> x`,
	}
	if got := listing(t, dir, false)[1:]; !slices.Equal(got, want) {
		t.Errorf("%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, bad := range []tar.Header{{Uid: int(large + 1_294_967_295)}, {Gid: int(2 * large)}, {Uid: -1}} {
		bad.Name, bad.Typeflag, bad.Format = "bad", tar.TypeReg, tar.FormatGNU
		if _, err := unpack(t, dir, archiveOf(t, func(w *tar.Writer) { writeEntry(t, w, &bad, "") }), Options{}); err == nil {
			t.Errorf("owner %d:%d accepted", bad.Uid, bad.Gid)
		}
	}
}

// realTree makes a tree with everything that an archive can carry.
func realTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	script := `set -e; cd "$1"; mkdir -p a/b/c empty sticky usr/bin; chmod 1777 sticky; chmod 2750 a/b; chmod 0500 empty
for i in $(seq 40); do echo "file $i" > a/b/f$i; done; head -c 3000000 /dev/urandom > big; truncate -s 5M sparse; echo end >> sparse
cp /bin/sh usr/bin/suid; chown 10:20 usr/bin/suid; chmod 6755 usr/bin/suid; ln big a/hard; ln -s ../big a/soft; ln -s /none a/none; ln a/soft a/hardsoft
mkfifo fifo; mknod null c 1 3; mknod loop b 7 0; chown -h 11:12 a/soft null fifo; chown 65534:65534 sticky; : > "$(printf 'odd\n name \303\244')"
mkdir -p $(printf 'deep/%.0s' $(seq 60)); touch -d '2001-02-03 04:05:06.789012345' a/b/f1 big; touch -h -d '1999-01-01 00:00:00.5' a/none; touch -d '2038-06-07 08:09:10.111' a empty
touch -d '1960-01-01' a/b/f3`
	if out, err := exec.Command("sh", "-c", script, "sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for path, x := range map[string]map[string]string{
		"a/b":          {"user.dir": "on a directory", "trusted.x": "\x00binary"},
		"big":          {"user.one": "1", "user.two": strings.Repeat("2", 2000)},
		"usr/bin/suid": {"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
	} {
		for attr, value := range x {
			if err := syscall.Setxattr(filepath.Join(dir, path), attr, []byte(value), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	os.Chtimes(filepath.Join(dir, "a/b"), stamp, stamp)
	return dir
}

func runTool(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func equalTrees(t *testing.T, what string, got, want []string) {
	t.Helper()
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("%s: only here   %s", what, line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("%s: only there  %s", what, line)
		}
	}
}

// TestRoundTripTar packs a real tree with GNU tar in its formats and unpacks it here.
func TestRoundTripTar(t *testing.T) {
	tree := realTree(t)
	for _, args := range [][]string{
		{"--format=pax", "--xattrs", "--xattrs-include=*"},
		{"--format=pax", "--xattrs", "--xattrs-include=*", "--sparse"},
		{"--format=pax", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.1"},
		{"--format=gnu", "--sparse"},
	} {
		dir := t.TempDir()
		archive := filepath.Join(dir, "x.tar")
		runTool(t, tree, "tar", append(args, "-cf", archive, ".")...)
		data, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
		os.Mkdir(ours, 0o700)
		os.Mkdir(theirs, 0o700)
		mustUnpack(t, ours, data, Options{})
		runTool(t, theirs, "tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", archive)
		equalTrees(t, strings.Join(args, " "), listing(t, ours, false), listing(t, theirs, false))
		if args[0] == "--format=pax" {
			equalTrees(t, "the tree itself", listing(t, ours, false), listing(t, tree, false))
		}
		if slices.Contains(args, "--sparse") {
			var st syscall.Stat_t
			if err := syscall.Stat(filepath.Join(ours, "sparse"), &st); err != nil || st.Blocks*512 > 2<<20 {
				t.Errorf("%s: sparse file takes %d bytes, %v", args, st.Blocks*512, err)
			}
		}
	}
}

// TestAgainstUmoci has umoci make layers of a real tree, with changes and removals, and compares its unpacking with this one.
func TestAgainstUmoci(t *testing.T) {
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skip("umoci is not installed")
	}
	tree, dir := realTree(t), t.TempDir()
	umoci := func(args ...string) { t.Helper(); runTool(t, dir, "umoci", args...) }
	umoci("init", "--layout", "l")
	umoci("new", "--image", "l:t")
	umoci("unpack", "--image", "l:t", "one")
	runTool(t, tree, "cp", "-a", ".", filepath.Join(dir, "one/rootfs"))
	umoci("repack", "--image", "l:t", "one")
	umoci("unpack", "--image", "l:t", "two")
	runTool(t, filepath.Join(dir, "two/rootfs"), "sh", "-c",
		"rm -r a/b/f1 empty deep; rm a/soft; mkdir a/soft; echo new > a/soft/x; rm -r sticky; echo file > sticky; echo more >> a/hard; touch -d 2002-02-02 a")
	umoci("repack", "--image", "l:t", "two")
	umoci("unpack", "--image", "l:t", "three")

	flat := filepath.Join(dir, "flat")
	os.Mkdir(flat, 0o755)
	for _, blob := range umociLayers(t, filepath.Join(dir, "l")) {
		data, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		mustUnpack(t, flat, data, Options{Whiteouts: InPlace})
	}
	equalTrees(t, "umoci", listing(t, flat, false), listing(t, filepath.Join(dir, "three/rootfs"), false))
}

// umociLayers lists the layer blobs of a layout's last image.
func umociLayers(t *testing.T, layout string) (blobs []string) {
	t.Helper()
	read := func(path string, into any) {
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var index v1.Index
	read(filepath.Join(layout, "index.json"), &index)
	var manifest v1.Manifest
	read(filepath.Join(layout, "blobs/sha256", index.Manifests[0].Digest.Encoded()), &manifest)
	for _, l := range manifest.Layers {
		blobs = append(blobs, filepath.Join(layout, "blobs/sha256", l.Digest.Encoded()))
	}
	return blobs
}

// TestRootless unpacks as an ordinary user, in a second process of this test.
func TestRootless(t *testing.T) {
	archive := archiveOf(t, func(w *tar.Writer) {
		for _, h := range []*tar.Header{
			{Typeflag: tar.TypeDir, Name: "d", Mode: 0o555, Uid: 1, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "1", "SCHILY.xattr.trusted.b": "2"}},
			{Typeflag: tar.TypeReg, Name: "d/f", Mode: 0o4555, Uid: 1, Gid: 2, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "1"}},
			{Typeflag: tar.TypeDir, Name: "none", Mode: 0},
			{Typeflag: tar.TypeReg, Name: "none/f", Mode: 0},
			{Typeflag: tar.TypeChar, Name: "dev", Devmajor: 1, Devminor: 3},
			{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o622},
			{Typeflag: tar.TypeReg, Name: ".wh.gone"},
			{Typeflag: tar.TypeReg, Name: "none/.wh..wh..opq"},
			{Typeflag: tar.TypeReg, Name: "d/g", Mode: 0o600},
		} {
			h.ModTime, h.Format = stamp, tar.FormatPAX
			writeEntry(t, w, h, "")
		}
	})
	dir := t.TempDir()
	for parent := dir; parent != os.TempDir(); parent = filepath.Dir(parent) {
		os.Chmod(parent, 0o755)
	}
	os.Chown(dir, 1000, 1000)
	if os.Getenv("LAYER_ROOTLESS") == "" {
		exe, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), "test")
		os.Chmod(filepath.Dir(copied), 0o755)
		os.Chmod(filepath.Dir(filepath.Dir(copied)), 0o755)
		if err := os.WriteFile(copied, exe, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(copied, "-test.run=^TestRootless$", "-test.v")
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), "LAYER_ROOTLESS="+dir, "TMPDIR=/tmp")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestRootless")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir = os.Getenv("LAYER_ROOTLESS")
	for range 2 { // the second time onto what is there
		r := mustUnpack(t, dir, archive, Options{Rootless: true})
		if r.SkippedCount != 2 {
			t.Errorf("skipped %q", r.Skipped)
		}
	}
	os.Chmod(filepath.Join(dir, "none"), 0o700)
	if got := names(t, dir); got != "d/ d/f d/g fifo gone none/ none/f" {
		t.Error(got)
	}
	value := make([]byte, 10)
	if n, err := syscall.Getxattr(filepath.Join(dir, "none"), "user.overlay.opaque", value); err != nil || string(value[:n]) != "y" {
		t.Errorf("opaque: %v", err)
	}
	info, err := os.Lstat(filepath.Join(dir, "d"))
	if err != nil || info.Mode().Perm() != 0o555 || !info.ModTime().Equal(stamp) {
		t.Errorf("%v %v", info, err)
	}
	root, err := os.Open(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"d", "none"} { // as the engine removes a layer
		sub, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := Remove(sub, name); err != nil {
			t.Error(err)
		}
		sub.Close()
	}
}

// TestReaderError passes on the error of the stream, as it is.
func TestReaderError(t *testing.T) {
	root, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	data := pack(t, "f a "+strings.Repeat("x", 3000))
	for _, n := range []int{0, 100, 2000, len(data)} {
		_, err := Unpack(context.Background(), root, io.MultiReader(bytes.NewReader(data[:n]), &endless{}), Options{})
		if err == nil || !strings.Contains(err.Error(), "read too much") {
			t.Errorf("after %s bytes: %v", strconv.Itoa(n), err)
		}
	}
}
