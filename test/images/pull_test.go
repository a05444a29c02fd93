package images

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// TestPullRun pulls an image, lists it, runs it by every name that it has, and says what docker says.
func TestPullRun(t *testing.T) {
	b := newBox(t)
	name := b.seed("one")
	want := digest.FromString(rawOf(b, name))
	out := b.ok("pull " + name)
	if !strings.Contains(out, "Digest: "+want.String()) || !strings.Contains(out, "Status: Downloaded newer image for "+name) || !strings.HasSuffix(out, "\n"+name) {
		t.Errorf("pull wrote %q", out)
	}
	if out := b.ok("pull " + name); !strings.Contains(out, "Status: Image is up to date") {
		t.Errorf("the second pull wrote %q", out)
	}
	var list []struct{ Name, ID, Digest, Platform string }
	if err := json.Unmarshal([]byte(b.ok("images --json")), &list); err != nil || len(list) != 1 || list[0].Name != name || list[0].Digest != want.String() {
		t.Fatalf("images: %+v, %v", list, err)
	}
	id := strings.TrimPrefix(list[0].ID, "sha256:")
	for _, ref := range []string{name, "docker://" + name, id, id[:12], list[0].ID, list[0].Digest, strings.TrimSuffix(name, ":1") + "@" + list[0].Digest} {
		if out := b.ok("run --rm --pull never", ref, "cat", "/etc/release"); out != "one" {
			t.Errorf("run %s wrote %q", ref, out)
		}
	}
	if out := b.ok("run --rm", name); out != "default command" {
		t.Errorf("run wrote %q", out)
	}
	if r := b.run("run --rm --pull never", name, "cat", "/etc/passwd"); r.code == 0 {
		t.Error("the whiteout does not hide /etc/passwd")
	}
	if out := b.ok("images -q --no-trunc"); out != list[0].ID {
		t.Errorf("images -q: %q", out)
	}
	b.peer("skopeo", "inspect", "oci:"+b.root+"/store:"+name)
	if out := b.ok("fsck"); out != "" {
		t.Errorf("fsck: %s", out)
	}
}

// rawOf returns what a name stands for with the bytes at its end, which b.peer cuts.
func rawOf(b *box, name string) string { return b.raw(name) + "\n\n" }

// TestRunPulls pulls what is missing, and says what pull policies say.
func TestRunPulls(t *testing.T) {
	b := newBox(t)
	name := b.seed("one")
	b.fails(125, "--pull never", "run --rm --pull never "+name)
	if out := b.ok("run --rm --quiet "+name, "echo", "hi"); out != "hi" {
		t.Errorf("wrote %q", out)
	}
	b.fails(125, "is none of always, missing, never", "run --pull sometimes "+name)
	b.fails(125, "404", "run --rm "+host+"/nothing/there")
	if out := b.ok("run --rm --pull always "+name, "echo", "again"); out != "again" {
		t.Errorf("wrote %q", out)
	}
}

// TestPlatforms keeps an index byte for byte whatever of it is pulled.
func TestPlatforms(t *testing.T) {
	b := newBox(t)
	name := b.seed("multi")
	want := rawOf(b, name)
	b.ok("pull -q " + name)
	if got := b.run("inspect --raw " + name).out; got != want {
		t.Error("the index has other bytes")
	}
	b.fails(1, "not found", "inspect --platform linux/s390x "+name)
	b.ok("pull -q --platform linux/s390x " + name)
	if out := b.ok("inspect --platform linux/s390x " + name); !strings.Contains(out, `"Architecture": "s390x"`) {
		t.Errorf("inspect: %s", out)
	}
	b.fails(1, "available are", "pull -q --platform windows/amd64 "+name)
	b.ok("pull -q --all-platforms " + name)
	b.ok("inspect --platform linux/mips " + name)
	if out := b.ok("run --rm --pull never "+name, "cat", "/etc/release"); out != "one" {
		t.Errorf("run wrote %q", out)
	}
}

// TestTogether lets several processes pull one image at once: each blob is asked for once.
func TestTogether(t *testing.T) {
	b := newBox(t)
	c := countingProxy(t, 300*time.Millisecond)
	name := strings.Replace(b.seed("one"), host, c.host, 1)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if r := b.run("pull -q " + name); r.code != 0 {
				t.Errorf("pull: %s", r.err)
			}
		})
	}
	wg.Wait()
	blobs := 0
	for path, n := range c.gets {
		if strings.Contains(path, "/blobs/") {
			blobs++
			if n != 1 {
				t.Errorf("%s was asked for %d times", path, n)
			}
		}
	}
	if blobs != 5 {
		t.Errorf("%d blobs were asked for, want the configuration and 4 layers", blobs)
	}
	if out := b.ok("run --rm "+name, "cat", "/etc/release"); out != "one" {
		t.Errorf("run wrote %q", out)
	}
}

// TestKilled kills pulls at random moments: the next one goes on, and the store is valid all the time.
func TestKilled(t *testing.T) {
	rounds := 20
	if os.Getenv("TARE_LONG") != "" {
		rounds = 200
	}
	b := newBox(t)
	c := countingProxy(t, 10*time.Millisecond)
	name := strings.Replace(b.seed("one"), host, c.host, 1)
	begun := time.Now()
	b.ok("pull -q " + name)
	whole := time.Since(begun)
	b.fresh()
	for i := range rounds {
		cmd := exec.Command(tare, "pull", "--root", b.root, "-q", name)
		cmd.Env = b.env
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		at := time.Duration(rand.Int64N(int64(whole) * 5 / 4))
		timer := time.AfterFunc(at, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		if _, e := os.Stat(filepath.Join(b.root, "store")); e != nil {
			continue // killed before it began
		}
		if r := b.run("fsck --json"); r.code != 0 {
			t.Fatalf("round %d, killed after %v (%v): %s%s", i, at, err, r.out, r.err)
		}
		if i%4 == 3 || err == nil {
			b.ok("pull -q " + name)
			if out := b.ok("run --rm --pull never "+name, "cat", "/etc/release"); out != "one" {
				t.Fatalf("round %d: run wrote %q", i, out)
			}
			b.fresh()
		}
	}
}

// fresh removes the root directory.
func (b *box) fresh() {
	b.t.Helper()
	if err := os.RemoveAll(b.root); err != nil {
		b.t.Fatal(err)
	}
}

// TestProgress writes lines of JSON, or plain ones.
func TestProgress(t *testing.T) {
	b := newBox(t)
	name := b.seed("one")
	r := b.run("pull --progress json " + name)
	last := map[string]string{}
	for line := range strings.Lines(r.err) {
		var e struct {
			Kind, Digest string
			Done, Size   int64
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Done > e.Size {
			t.Errorf("line %q: %v", line, err)
		}
		last[e.Digest] = e.Kind
	}
	kinds := map[string]int{}
	for _, k := range last {
		kinds[k]++
	}
	if r.code != 0 || kinds["unpacked"] != 4 || kinds["done"]+kinds["exists"] != 2 {
		t.Errorf("status %d, last events %v", r.code, kinds)
	}
	b.fresh()
	if r := b.run("pull --progress plain " + name); strings.Count(r.err, "unpacked\n") != 4 || strings.Contains(r.err, "\x1b") {
		t.Errorf("plain lines: %q", r.err)
	}
	b.fails(125, "is none of auto, bar, plain, json, none", "pull --progress loud "+name)
}

// TestExplain tells which endpoint was asked, as whom, and why the next one was.
func TestExplain(t *testing.T) {
	b := newBox(t)
	name := b.seed("one")
	dead := "127.0.0.1:1"
	config := "[registry.\"" + host + "\"]\nmirrors = [\"http://" + dead + "\"]\nplain-http = true\n"
	if err := os.MkdirAll(b.dir+"/config/tare", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.dir+"/config/tare/registries.toml", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	r := b.run("pull -q --explain " + name)
	first, second := strings.Index(r.err, "http://"+dead), strings.Index(r.err, "http://"+host)
	if r.code != 0 || first < 0 || second < first || !strings.Contains(r.err, "refused") {
		t.Errorf("status %d: %s", r.code, r.err)
	}
}
