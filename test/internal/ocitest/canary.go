package ocitest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Canary is a directory of the host that no hostile container may change: names, modes, owners, inodes and content are compared.
type Canary struct{ Dir, before string }

// NewCanary makes one with files of names that runtimes make, replace or remove.
func (h *H) NewCanary() *Canary {
	c := &Canary{Dir: h.TempDir()}
	h.File(c.Dir+"/file", "canary", 0o600)
	h.File(c.Dir+"/ptmx", "canary", 0o600)
	h.File(c.Dir+"/sub/other", "canary", 0o644)
	c.before = c.look(h)
	return c
}

func (c *Canary) look(h *H) string {
	var out strings.Builder
	err := filepath.WalkDir(c.Dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		data := ""
		if fi.Mode().IsRegular() {
			b, _ := os.ReadFile(p)
			data = string(b)
		}
		fmt.Fprintln(&out, p, fi.Mode(), st.Uid, st.Gid, st.Ino, st.Dev, data)
		return nil
	})
	if err != nil {
		h.Errorf("%v", err)
	}
	return out.String()
}

// Check records a problem when the directory is not as it was.
func (c *Canary) Check(h *H) {
	now := c.look(h)
	if now == c.before {
		return
	}
	old := map[string]bool{}
	for line := range strings.Lines(c.before) {
		old[line] = true
	}
	for line := range strings.Lines(now) {
		if !old[line] {
			h.Errorf("changed or new on the host: %s", strings.TrimSpace(line))
		}
		delete(old, line)
	}
	for line := range old {
		h.Errorf("gone or changed on the host: %s", strings.TrimSpace(line))
	}
	c.before = now
}

// Place removes what is at a path of the root file system and puts a link there; its directories are made.
func (h *H) Place(b *Bundle, path, target string) {
	p := filepath.Join(b.Rootfs, path)
	if err := os.RemoveAll(p); err != nil {
		h.Fatalf("%v", err)
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		h.Fatalf("%v", err)
	}
	if err := os.Symlink(target, p); err != nil {
		h.Fatalf("%v", err)
	}
}

// WithoutMounts drops mounts of the base configuration: those on the destinations and below.
func (b *Bundle) WithoutMounts(dests ...string) *Bundle {
	ms := b.Spec.Mounts[:0]
	for _, m := range b.Spec.Mounts {
		drop := false
		for _, d := range dests {
			drop = drop || m.Destination == d || strings.HasPrefix(m.Destination, d+"/")
		}
		if !drop {
			ms = append(ms, m)
		}
	}
	b.Spec.Mounts = ms
	return b
}

// Swap exchanges two paths over and over until stop is called.
func (h *H) Swap(a, b string) (stop func()) {
	c := exec.Command("/proc/self/exe")
	c.Args = []string{"probe", "swap", a, b}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		h.Fatalf("%v", err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			c.Process.Kill()
			c.Wait()
		}
	}
	return stop
}
