package rows

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// TestImportForms: E3, a tar file in every compression, from a file and from standard input, and what is no file.
func TestImportForms(t *testing.T) {
	plain := tarOf(t, "f", "imported")
	dir := t.TempDir()
	file := filepath.Join(dir, "x")
	if err := os.WriteFile(file, plain, 0o644); err != nil {
		t.Fatal(err)
	}
	for suffix, compress := range map[string][]string{"": nil, ".gz": {"gzip", "-k"}, ".bz2": {"bzip2", "-k"}, ".xz": {"xz", "-k"}, ".zst": {"zstd", "-q"}} {
		if compress != nil {
			if _, err := exec.LookPath(compress[0]); err != nil {
				t.Skipf("%s is not installed", compress[0])
			}
			if out, err := exec.Command(compress[0], append(compress[1:], file)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		x := newTare(t)
		x.do("import", file+suffix, "i:1")
		in, err := os.Open(file + suffix)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		c := x.command(ctx, "import", "-", "i:2")
		c.Stdin = in
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("import - of %s: %v: %s", suffix, err, out)
		}
		cancel()
		in.Close()
		for _, name := range []string{"i:1", "i:2"} {
			if got := x.do("mount", name, "--", "cat", "f"); got != "imported" {
				t.Errorf("%s of %s: the file has %q", name, suffix, got)
			}
			if got := x.do("inspect", "--config", name); !strings.Contains(got, digest.FromBytes(plain).String()) {
				t.Errorf("%s of %s: config %s has another diff ID than the file", name, suffix, got)
			}
		}
	}
	x := newTare(t)
	x.refused("not fetched from URLs: pipe what fetches it into tare import -", "import", "https://registry.example/x.tar", "i:3")
}

// TestHistoryOfOthers: C4, an image whose history has more or fewer entries than it has layers is good, and its history is told.
func TestHistoryOfOthers(t *testing.T) {
	layer := tarOf(t, "f", "x")
	for _, history := range [][]v1.History{nil, {{EmptyLayer: true}}, {{CreatedBy: "one"}, {CreatedBy: "two"}, {CreatedBy: "three"}}} {
		l, x := newLayout(t), newTare(t)
		c := config(digest.FromBytes(layer))
		c.History = history
		l.entry(l.manifest(l.json(v1.MediaTypeImageConfig, c), l.blob(v1.MediaTypeImageLayer, layer)), "x")
		x.do("copy", l.ref("x"), "store:h:1")
		out := x.do("history", "h:1")
		for _, h := range history {
			if !strings.Contains(out, h.CreatedBy) {
				t.Errorf("history does not tell of %q: %s", h.CreatedBy, out)
			}
		}
		if got := x.do("mount", "h:1", "--", "cat", "f"); got != "x" {
			t.Errorf("the file has %q", got)
		}
	}
}

// TestCommitVolumes: CV9, what is in volumes does not get into a new image; C9, what is unknown in a configuration does.
func TestCommitVolumes(t *testing.T) {
	l, x := newLayout(t), newTare(t)
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("busybox-static is not installed: %v", err)
	}
	layer := tarOf(t, "bin/busybox", string(program), "bin/sh", string(program), "data/seed", "of the image")
	c := config(digest.FromBytes(layer))
	c.Config.Volumes = map[string]struct{}{"/data": {}}
	raw := strings.Replace(string(encode(t, c)), "{", `{"x-own":{"z":1.0},`, 1)
	l.entry(l.manifest(l.blob(v1.MediaTypeImageConfig, []byte(raw)), l.blob(v1.MediaTypeImageLayer, layer)), "x")
	x.do("copy", l.ref("x"), "store:c:1")
	x.do("run", "--name", "c", "c:1", "/bin/sh", "-c", "echo x >/data/volatile; echo changed >/data/seed; echo y >/made")
	x.do("commit", "c", "c:2")
	if got := x.do("mount", "c:2", "--", "sh", "-c", "ls data; cat data/seed made"); got != "seed\nof the imagey\n" {
		t.Errorf("the new image has %q", got)
	}
	if got := x.do("inspect", "--config", "c:2"); !strings.Contains(got, `"x-own":{"z":1.0}`) {
		t.Errorf("config %s", got)
	}
}
