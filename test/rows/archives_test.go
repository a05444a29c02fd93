package rows

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// TestSaveAndLoad: S5, S6.
func TestSaveAndLoad(t *testing.T) {
	l, x := newLayout(t), newTare(t)
	l.entry(l.simple("f", "one"), "x")
	x.do("copy", l.ref("x"), "store:one:1")
	other := newLayout(t)
	other.entry(other.simple("f", "two"), "x")
	x.do("copy", other.ref("x"), "store:localhost/two:2")
	id := strings.TrimSpace(x.do("images", "-q", "--no-trunc", "one"))
	dir := t.TempDir()
	x.do("save", "-o", dir+"/both.tar", "one:1", "localhost/two:2")
	x.do("save", "-o", dir+"/id.tar", id)
	for _, format := range []string{"combined", "legacy"} {
		a, b := x.do("save", "--format", format, "one:1"), x.do("save", "--format", format, "one:1")
		if a != b || len(a) < 1024 {
			t.Errorf("%s: two saves differ, or are none: %d and %d bytes", format, len(a), len(b))
		}
	}
	if got := string(member(t, dir+"/id.tar", "manifest.json")); !strings.Contains(got, `"RepoTags":null`) {
		t.Errorf("manifest.json of an image without a name: %s", got)
	}
	fresh := newTare(t)
	if got, want := fresh.do("load", "-q", "-i", dir+"/both.tar"), "Loaded image: one:1\nLoaded image: localhost/two:2\n"; got != want {
		t.Errorf("load said %q, want %q", got, want)
	}
	if got := newTare(t).do("load", "-q", "-i", dir+"/id.tar"); got != "Loaded image ID: "+id+"\n" {
		t.Errorf("load without a name said %q", got)
	}
	if got := fresh.do("mount", "localhost/two:2", "--", "cat", "f"); got != "two" {
		t.Errorf("the file has %q", got)
	}
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("util-linux's script is not installed: no terminal to save to")
	}
	out, err := exec.Command("script", "-qec", filepath.Join(binDir, "tare")+" save --root "+x.root+" one:1", "/dev/null").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("terminal")) || len(out) > 1000 {
		t.Errorf("save to a terminal: %v, %.300q", err, out)
	}
}

// member returns a file of a tar archive.
func member(t *testing.T, archive, name string) []byte {
	t.Helper()
	return files(t, archive)[name]
}

// files reads an archive; directories have a slash at the end of their names.
func files(t *testing.T, archive string) map[string][]byte {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if all[strings.TrimPrefix(h.Name, "./")], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLayoutWithoutLayers: S4, an archive in both forms whose OCI manifest has layers that are not in the file, as some
// versions of Docker write it, is loaded by its manifest.json.
func TestLayoutWithoutLayers(t *testing.T) {
	l, x := newLayout(t), newTare(t)
	layer := tarOf(t, "f", "by manifest.json")
	c := l.json(v1.MediaTypeImageConfig, config(digest.FromBytes(layer)))
	absent := v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: digest.FromString("compressed elsewhere"), Size: 20}
	d := l.manifest(c, absent)
	l.entry(d, "x:1")
	b := l.blob(v1.MediaTypeImageLayer, layer)
	l.write("manifest.json", fmt.Appendf(nil, `[{"Config":"blobs/sha256/%s","RepoTags":["x:1"],"Layers":["blobs/sha256/%s"]}]`, c.Digest.Encoded(), b.Digest.Encoded()))
	archive := filepath.Join(t.TempDir(), "a.tar")
	if out, err := exec.Command("tar", "-C", l.dir, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	x.do("load", "-q", "-i", archive)
	if got := x.do("mount", "x:1", "--", "cat", "f"); got != "by manifest.json" {
		t.Errorf("the file has %q", got)
	}
}

// TestExportAndImport: E1, E2, E3.
func TestExportAndImport(t *testing.T) {
	l, x := newLayout(t), newTare(t)
	l.entry(l.busybox(), "x")
	x.do("copy", l.ref("x"), "store:box:1")
	x.do("run", "--name", "ended", "box:1", "/bin/sh", "-c", "echo made >/made; /bin/busybox rm /gone")
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var said output
	running := x.command(ctx, "run", "--name", "running", "-v", "/var/tmp:/host", "box:1", "/bin/sh", "-c", "echo made >/made; /bin/busybox rm /gone; echo up; exec /bin/busybox sleep 1000")
	running.Stdout, running.Stderr = &said, &said
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		x.do("rm", "-f", "running")
		running.Wait()
	}()
	for !strings.Contains(said.String(), "up") {
		if ctx.Err() != nil {
			t.Fatalf("the container does not run: %s", &said)
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, name := range []string{"ended", "running"} {
		x.do("export", "-o", dir+"/"+name, name)
		got := files(t, dir+"/"+name)
		if string(got["made"]) != "made\n" || got["gone"] != nil || len(got["bin/busybox"]) == 0 {
			t.Errorf("%s: made has %q, gone %q", name, got["made"], got["gone"])
		}
		for _, file := range []string{"etc/hostname", "etc/hosts", "etc/resolv.conf", "proc/", "sys/", "dev/"} {
			if data, ok := got[file]; !ok || len(data) > 0 {
				t.Errorf("%s: %s is there: %v, and has %q", name, file, ok, data)
			}
		}
		for file := range got {
			if strings.HasPrefix(file, "proc/") && file != "proc/" || strings.HasPrefix(file, "host/") && file != "host/" {
				t.Errorf("%s: %s is in it, which is of a mount", name, file)
			}
		}
	}
	x.do("import", "-c", `CMD ["/bin/busybox","cat","/made"]`, "-c", "ENV A=b", "-m", "why", dir+"/ended", "again:1")
	if got := x.do("run", "--rm", "again:1"); got != "made\n" {
		t.Errorf("the imported image says %q", got)
	}
	if got := x.do("inspect", "--config", "again:1"); !strings.Contains(got, `"A=b"`) || !strings.Contains(got, "why") {
		t.Errorf("config %s", got)
	}
	if got := x.do("history", "again:1"); strings.Count(got, "\n") != 2 {
		t.Errorf("history of one layer: %s", got)
	}
}
