package criu

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// counter counts in the shell's memory and writes each number to /count of its root.
const counter = `i=0; while :; do i=$((i+1)); echo $i >/count.new; mv /count.new /count; usleep 20000; done`

// count reads the number that the counter of b has reached.
func count(b *Bundle) int {
	data, _ := os.ReadFile(filepath.Join(b.Rootfs, "count"))
	n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return n
}

// awaitCount waits until the counter has gone beyond n and returns where it is.
func awaitCount(h *H, b *Bundle, n int) int {
	h.T.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if now := count(b); now > n {
			return now
		}
	}
	h.Fatalf("the counter stays at %d", count(b))
	return 0
}

// call runs the runtime with the time that criu needs in an emulated machine.
func call(h *H, args ...string) ocitest.Result {
	r := h.Do(ocitest.Cmd{Args: args, Timeout: 2 * time.Minute})
	if r.Code != 0 {
		h.Fatalf("%s: status %d: %s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r
}

// checkpoint writes the images of b and returns their directory.
func checkpoint(h *H, b *Bundle, flags ...string) string {
	images := filepath.Join(h.TempDir(), "images")
	call(h, append(append([]string{"checkpoint", "--image-path", images}, flags...), b.ID)...)
	return images
}

// restore makes b from images, detached.
func restore(h *H, b *Bundle, images string, flags ...string) {
	call(h, append(append([]string{"restore", "-d", "--bundle", b.Dir, "--image-path", images}, flags...), b.ID)...)
}

func TestCheckpoint(t *testing.T) {
	needCriu(t)
	row(t, "leave running", func(h *H) {
		b := h.Bundle().Sh(counter)
		h.Up(b)
		awaitCount(h, b, 3)
		images := checkpoint(h, b, "--leave-running")
		awaitCount(h, b, count(b))
		if s := h.State(b.ID); s.Status != "running" {
			h.Errorf("state %+v", s)
		}
		for _, name := range []string{"inventory.img", "descriptors.json", "dump.log", "stats-dump"} {
			if _, err := os.Stat(filepath.Join(images, name)); err != nil {
				h.Errorf("%v", err)
			}
		}
	})
	row(t, "restore goes on where the checkpoint ended", func(h *H) {
		b := h.Bundle().Sh(counter)
		h.Up(b)
		awaitCount(h, b, 5)
		images := checkpoint(h, b)
		h.FailRT("container does not exist", "state", b.ID)
		h.NoLeak("checkpoint")
		at := count(b)
		pidFile := filepath.Join(h.TempDir(), "pid")
		restore(h, b, images, "--pid-file", pidFile)
		s := h.State(b.ID)
		if data, _ := os.ReadFile(pidFile); s.Status != "running" || string(data) != fmt.Sprint(s.Pid) {
			h.Errorf("state %+v, pid file %q", s, data)
		}
		if now := awaitCount(h, b, at); now > at+500 {
			h.Errorf("the counter was at %d and is at %d", at, now)
		}
		h.MustRT("kill", b.ID, "KILL")
		h.AwaitStatus(b.ID, "stopped")
		h.MustRT("delete", b.ID)
		h.NoLeak("delete")
	})
}
