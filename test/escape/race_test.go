package escape

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// rounds is how often a race is tried.
func rounds() int {
	if long() {
		return 10000
	}
	return 500
}

// runs counts what the rounds of a race did.
type runs struct {
	ran, first, second int
	failed             Result   // the last that did not run
	stdin              *os.File // nil: none
}

// rounds runs one bundle again and again, each time under the same name, until stop says that something was lost.
func (r *runs) rounds(h *H, b *Bundle, w *mountTable, flags []string, each func(inside []string, res Result)) {
	h.Write(b)
	args := append(append([]string{"run", "-b", b.Dir}, flags...), b.ID)
	for range rounds() {
		res := h.Do(Cmd{Args: args, Stdio: [3]*os.File{r.stdin}})
		if res.Code == 0 {
			r.ran++
		} else {
			r.failed = res
		}
		if w != nil {
			inside, _ := w.check(h, b)
			each(inside, res)
		} else {
			each(nil, res)
		}
		res.Remove()
		if h.Problems() > 0 {
			return // one is enough, and the next would be the same
		}
	}
}

// wantBoth records a problem when the race was not one: no container ran, or only one of the two states was ever met.
func (r *runs) wantBoth(h *H, what string) {
	h.T.Logf("%d of %d rounds ran, %s: %d and %d", r.ran, rounds(), what, r.first, r.second)
	if h.Problems() > 0 {
		return
	}
	if r.ran == 0 || r.first == 0 || r.second == 0 {
		h.Errorf("%d rounds ran; %s: %d and %d: the race was not run (an error: %s)", r.ran, what, r.first, r.second, r.failed.Stderr)
	}
}

// TestRaces exchanges, in a volume that two containers share, a directory and a link to a directory of the host while a container
// is made with mounts below it.
func TestRaces(t *testing.T) {
	race := func(name string, edit func(c *ocitest.Canary) []string, point string) {
		row(t, name, func(h *H) {
			c := h.NewCanary()
			vol := h.TempDir()
			if err := os.MkdirAll(vol+"/a/b", 0o755); err != nil {
				h.Fatalf("%v", err)
			}
			if err := os.Symlink("/"+up+c.Dir, vol+"/l"); err != nil {
				h.Fatalf("%v", err)
			}
			b := h.Bundle().Edit(mnt("/vol", "none", vol, "rbind")).Edit(edit(c)...)
			w := watchMounts(h, b)
			stop := h.Swap(vol+"/a", vol+"/l")
			defer stop()
			var r runs
			r.rounds(h, b, w, nil, func(inside []string, _ Result) {
				for _, p := range inside {
					if strings.HasPrefix(p, "/vol/") && strings.HasSuffix(p, point) {
						r.first++
						break
					}
				}
				if slices.Contains(inside, c.Dir+point) { // the link was followed, inside of the root
					r.second++
				}
				c.Check(h)
				os.RemoveAll(filepath.Join(b.Rootfs, "tmp"))
				os.RemoveAll(vol + "/a/new")
				os.RemoveAll(vol + "/l/new")
			})
			stop()
			c.Check(h)
			r.wantBoth(h, "directory and link were met")
		})
	}
	race("CVE-2021-30465 destination swapped for a link", func(*ocitest.Canary) []string { return []string{mnt("/vol/a/b", "tmpfs", "t")} }, "/b")
	race("CVE-2024-45310 CVE-2024-0133 making destinations while they are swapped", func(*ocitest.Canary) []string {
		return []string{mnt("/vol/a/new/dir", "tmpfs", "t")}
	}, "/new/dir")
	race("CVE-2025-23359 bind destination swapped for a link", func(c *ocitest.Canary) []string {
		return []string{mnt("/vol/a/lib", "none", c.Dir+"/file", "bind", "ro")}
	}, "/lib")
}

// TestMaskRaces exchanges what is masked, and what masks, while a container is made.
func TestMaskRaces(t *testing.T) {
	row(t, "CVE-2025-31133 masked paths are swapped for a link", func(h *H) {
		c := h.NewCanary()
		vol := h.TempDir()
		if err := os.MkdirAll(vol+"/a/sub", 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		if err := os.Symlink("/"+up+c.Dir, vol+"/l"); err != nil {
			h.Fatalf("%v", err)
		}
		b := h.Bundle().Edit(mnt("/vol", "none", vol, "rbind"), `linux.maskedPaths=["/vol/a/sub"]`, `linux.readonlyPaths=["/vol/a/sub"]`)
		b.Sh("awk '{print $5}' /proc/self/mountinfo")
		if err := os.MkdirAll(b.Rootfs+c.Dir+"/sub", 0o755); err != nil { // where the link leads inside
			h.Fatalf("%v", err)
		}
		w := watchMounts(h, b)
		stop := h.Swap(vol+"/a", vol+"/l")
		defer stop()
		var r runs
		r.rounds(h, b, w, nil, func(_ []string, res Result) {
			points := strings.Fields(res.Stdout)
			if slices.Contains(points, "/vol/a/sub") || slices.Contains(points, "/vol/l/sub") {
				r.first++
			}
			if slices.Contains(points, c.Dir+"/sub") {
				r.second++
			}
			if res.Code == 0 && !slices.Contains(points, "/vol/a/sub") && !slices.Contains(points, "/vol/l/sub") && !slices.Contains(points, c.Dir+"/sub") {
				h.Errorf("the path is not masked inside: the mask is on the host's directory, which the container has left: %v", points)
			}
			c.Check(h)
		})
		stop()
		r.wantBoth(h, "directory and link were masked")
	})
	row(t, "CVE-2025-31133 CVE-2025-62161 the null device is swapped", func(h *H) {
		dev := h.TempDir()
		victim := h.File("victim", "canary", 0o666)
		if out, err := cmd("mknod", "-m", "666", dev+"/null", "c", "1", "3"); err != nil {
			h.Fatalf("mknod: %v: %s", err, out)
		}
		if err := os.Symlink("/victim", dev+"/l"); err != nil {
			h.Fatalf("%v", err)
		}
		b := h.Bundle().WithoutMounts("/dev").Edit(mnt("/dev", "none", dev, "rbind"), mnt("/victim", "none", victim, "bind"), `linux.maskedPaths=["/proc/keys","/proc/timer_list"]`)
		b.Sh("readlink /dev/null; for f in /proc/keys /proc/timer_list; do [ -e $f ] && stat -c %t:%T $f && echo x >$f; done; true")
		stop := h.Swap(dev+"/null", dev+"/l")
		defer stop()
		var r runs
		r.rounds(h, b, nil, nil, func(_ []string, res Result) {
			for _, f := range strings.Fields(res.Stdout) {
				switch f {
				case "1:3":
					r.first++
				case "/victim":
					r.second++
				default:
					h.Errorf("a masked file is %s", f)
				}
			}
			if data, _ := os.ReadFile(victim); string(data) != "canary" {
				h.Errorf("the mask led to a file that was written: %q", data)
			}
		})
		stop()
		r.wantBoth(h, "masked files and the link were seen")
	})
	row(t, "CVE-2019-19921 CVE-2023-27561 issue7 A4 proc of a shared root is swapped", func(h *H) {
		b := h.Bundle().Sh("cat /proc/self/mountinfo /proc2/self/mountinfo 2>/dev/null; true")
		other := filepath.Join(b.Rootfs, "proc2")
		if err := os.Mkdir(other, 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		masked := append(existing(b.Spec.Linux.MaskedPaths, "/proc/"), existing(b.Spec.Linux.ReadonlyPaths, "/proc/")...)
		stop := h.Swap(b.Rootfs+"/proc", other)
		defer stop()
		var r runs
		r.rounds(h, b, nil, nil, func(_ []string, res Result) {
			procs, below := procTables(res.Stdout)
			for id, p := range procs {
				if p == "/proc" {
					r.first++
				} else {
					r.second++
				}
				for _, m := range masked {
					if name := strings.TrimPrefix(m, "/proc/"); !below[id+" "+name] {
						h.Errorf("procfs is at %s and nothing is mounted on its %s", p, name)
					}
				}
			}
		})
		stop()
		r.wantBoth(h, "containers saw their procfs in the one place and in the other")
	})
}

// procTables returns the procfs mounts of a mount table, by id, and what is mounted on which of their files, as "ID
// PATH". The directories /proc and /proc2 are exchanged while the kernel writes the table: mounts belong together by
// their ids, not their paths.
func procTables(table string) (procs map[string]string, below map[string]bool) {
	procs, below = map[string]string{}, map[string]bool{}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		top, path, _ := strings.Cut(strings.TrimPrefix(f[4], "/"), "/")
		if top != "proc" && top != "proc2" {
			continue
		}
		if _, fs, _ := strings.Cut(line, " - "); path == "" && strings.HasPrefix(fs, "proc ") {
			procs[f[0]] = f[4]
		} else if path != "" {
			below[f[1]+" "+path] = true
		}
	}
	return procs, below
}

// existing returns the paths with a prefix that exist on the host, where procfs has the same files.
func existing(paths []string, prefix string) (out []string) {
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil && strings.HasPrefix(p, prefix) {
			out = append(out, p)
		}
	}
	return out
}

// TestTerminalRaces exchanges the directory in which the terminal's device is looked for.
func TestTerminalRaces(t *testing.T) {
	row(t, "CVE-2025-52565 CVE-2026-88264 the terminal and its directory are swapped", func(h *H) {
		c := h.NewCanary()
		b := h.Bundle().WithoutMounts("/dev")
		dev := b.Rootfs + "/dev"
		for _, d := range []string{"/pts", "/evil"} {
			if err := os.Mkdir(dev+d, 0o755); err != nil {
				h.Fatalf("%v", err)
			}
		}
		for n := range 4 {
			if err := os.Symlink("/"+up+c.Dir+"/file", fmt.Sprintf("%s/evil/%d", dev, n)); err != nil {
				h.Fatalf("%v", err)
			}
		}
		b.Edit(terminal, mnt("/victim", "none", c.Dir, "bind"), mnt("/dev/pts", "devpts", "devpts", "newinstance", "ptmxmode=0666", "mode=0620"))
		b.Sh("stat -L -c %t:%T /dev/console; test -e /dev/pts/ptmx && echo pts; test -e /dev/evil/ptmx && echo evil; true")
		w := watchMounts(h, b)
		stop := h.Swap(dev+"/pts", dev+"/evil")
		defer stop()
		var r runs
		_, r.stdin = ocitest.PTY(h) // the runtime gives nothing a terminal without one of its own
		r.rounds(h, b, w, nil, func(_ []string, res Result) {
			for _, f := range strings.Fields(res.Stdout) {
				switch {
				case f == "pts":
					r.first++
				case f == "evil":
					r.second++
				case !strings.HasPrefix(f, "88:"): // character device 136 in hexadecimal
					h.Errorf("/dev/console is %s", f)
				}
			}
			c.Check(h)
		})
		stop()
		r.wantBoth(h, "containers saw their terminals in the one place and in the other")
	})
}
