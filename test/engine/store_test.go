package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// manyFiles is an image whose layers take a while to unpack.
func manyFiles(t *testing.T, layers, files int) string {
	t.Helper()
	img := busyboxImage()
	for l := range layers {
		entries := img.layers[0][:0:0]
		for i := range files {
			entries = append(entries, file(fmt.Sprintf("l%d/%d/%d", l, i%17, i), strings.Repeat("content ", i%64)))
		}
		img.add(entries...)
	}
	path := filepath.Join(t.TempDir(), "many.tar")
	if err := img.dockerArchive(path); err != nil {
		t.Fatal(err)
	}
	return "docker-archive:" + path
}

func TestConcurrentColdStart(t *testing.T) {
	s := newStore(t)
	image := manyFiles(t, 3, 200)
	var wg sync.WaitGroup
	for n := range 10 {
		wg.Go(func() {
			r := s.do("run", "--rm", image, "sh", "-c", "ls /l0/* /l1/* /l2/* | grep -c '^[0-9]'; exit "+fmt.Sprint(n)).result()
			if r.out != "600\n" || r.code != n {
				t.Errorf("%d: %+v", n, r)
			}
		})
	}
	wg.Wait()
	if layers, _ := filepath.Glob(filepath.Join(s.root, "layers/sha256/*")); len(layers) != 4 {
		t.Errorf("layers: %v", layers)
	}
	s.empty()
}

// Killed at any moment, tare leaves a store that the next command cleans and works with.
func TestKilledAnywhere(t *testing.T) {
	s := newStore(t)
	image := manyFiles(t, 2, 300)
	rounds := 25
	for n := range rounds {
		if n%5 == 0 { // from a cold store, too
			if err := exec.Command("rm", "-rf", filepath.Join(s.root, "layers"), filepath.Join(s.root, "images")).Run(); err != nil {
				t.Fatal(err)
			}
		}
		c := s.do("run", "--rm", "--name", "victim", image, "sh", "-c", "sleep 0.05")
		devnull, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		c.cmd.Stdout, c.cmd.Stderr = devnull, devnull
		c.start()
		devnull.Close()
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // the moment is the point: any one will do
		c.cmd.Process.Kill()
		c.wait()
		await(t, "its runtime has ended", func() bool { return strings.Count(s.do("ps").result().out, "\n") == 1 })
		r := s.do("run", "--rm", "--name", "victim", image, "sh", "-c", "ls /l0/* /l1/* | grep -c '^[0-9]'").result()
		if r.out != "600\n" || r.code != 0 || r.err != "" {
			t.Fatalf("round %d: %+v", n, r)
		}
		s.empty()
	}
}

func TestBadArchives(t *testing.T) {
	s := newStore(t)
	d := t.TempDir()
	good, err := os.ReadFile(baseImage)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		path := filepath.Join(d, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// A byte of busybox's text, which only the diff ID covers.
	wrong := bytes.Clone(good)
	at := bytes.Index(wrong, []byte("\x7fELF"))
	wrong[at+100000] ^= 1
	oci := filepath.Join(d, "oci")
	if err := busyboxImage().ociDir(oci); err != nil {
		t.Fatal(err)
	}
	blobs, _ := filepath.Glob(filepath.Join(oci, "blobs/sha256/*"))
	for _, b := range blobs {
		if data, _ := os.ReadFile(b); len(data) > 100000 {
			data[len(data)/2] ^= 1
			os.WriteFile(b, data, 0o600)
		}
	}
	for ref, want := range map[string]string{
		"docker-archive:" + write("short", good[:len(good)/2]):    "unexpected EOF",
		"docker-archive:" + write("head", good[:300]):             "",
		"docker-archive:" + write("wrong", wrong):                 "expected is sha256:",
		"docker-archive:" + write("text", []byte("not an image")): "",
		"docker-archive:" + write("empty", nil):                   "",
		"oci:" + oci:                                              "sha256:",
	} {
		r := s.do("run", "--rm", ref, "true").result()
		if r.code != 125 || !strings.HasPrefix(r.err, "tare: ") || strings.Count(r.err, "\n") != 1 || !strings.Contains(r.err, want) {
			t.Errorf("%s: %+v, want %q", ref, r, want)
		}
		s.empty()
	}
	if layers, _ := filepath.Glob(filepath.Join(s.root, "layers/sha256/*")); len(layers) != 0 {
		t.Errorf("layers of bad images: %v", layers)
	}
}

func TestFullDisk(t *testing.T) {
	s := newStore(t)
	if err := os.MkdirAll(s.root, 0o700); err != nil {
		t.Fatal(err)
	}
	// In a mount namespace of its own: the host's table is not to change.
	script := `set -e; mount -t tmpfs -o size=1m none "$1"; shift; "$@" || code=$?; find "$0" -mindepth 1 -name '*.part' -o -path '*/containers/*' >&2; exit $code`
	args := append([]string{"-m", "--propagation", "private", "sh", "-c", script, s.root, s.root},
		s.do("run", "--rm", "docker-archive:"+baseImage, "true").cmd.Args...)
	c := &command{t: t, cmd: exec.Command("unshare", args...)}
	r := c.result()
	if r.code != 125 || !strings.Contains(r.err, "no space left on device") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("%+v", r)
	}
}

// The cache of image files must never answer for a file that has changed.
func TestChangedArchive(t *testing.T) {
	s := newStore(t)
	path := filepath.Join(t.TempDir(), "i.tar")
	old := time.Now().Add(-time.Hour)
	for n := range 3 {
		img := busyboxImage()
		img.config.Cmd = []string{"echo", fmt.Sprint("version ", n)}
		if err := img.dockerArchive(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil { // the size is the same, and so is the time that anybody can set
			t.Fatal(err)
		}
		if n == 1 {
			time.Sleep(2100 * time.Millisecond) // old enough to be remembered
		}
		for range 2 {
			if r := s.do("run", "--rm", "docker-archive:"+path).result(); r.out != fmt.Sprintf("version %d\n", n) {
				t.Errorf("version %d: %+v", n, r)
			}
		}
	}
}

// An unpacked image is not read again: its archive may be of any size.
func TestRemembered(t *testing.T) {
	s := newStore(t)
	path := filepath.Join(t.TempDir(), "i.tar")
	if err := busyboxImage().dockerArchive(path); err != nil {
		t.Fatal(err)
	}
	await(t, "the archive is old enough", func() bool {
		s.do("run", "--rm", "docker-archive:"+path, "true").result()
		found, _ := filepath.Glob(filepath.Join(s.root, "images/*.json"))
		return len(found) == 1
	})
	trace := filepath.Join(t.TempDir(), "trace")
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	c := s.do("run", "--rm", "docker-archive:"+path, "true")
	c.cmd.Args = append([]string{"strace", "-f", "-e", "trace=openat", "-o", trace}, c.cmd.Args...)
	c.cmd.Path, _ = exec.LookPath("strace")
	if r := c.result(); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	calls, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(calls, []byte(`"`+path+`"`)) {
		t.Error("the archive was opened again")
	}
}

// The host's mount table is the same however many containers run.
func TestHostMountsUnchanged(t *testing.T) {
	s := newStore(t)
	containers := 5
	if os.Getenv("TARE_LONG") != "" {
		containers = 100
	}
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var running []*command
	for range containers {
		c, _ := s.up([]string{"--rm"}, "sh", "-c", "echo up; trap 'exit 0' TERM; while :; do sleep 0.05; done")
		running = append(running, c)
	}
	during, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, during) {
		t.Errorf("mounts changed:\n%s\n%s", before, during)
	}
	for _, c := range running {
		c.cmd.Process.Signal(syscall.SIGTERM)
		if r := c.wait(); r.code != 0 {
			t.Errorf("%+v", r)
		}
	}
}
