package escape

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// up is a way from inside a root file system to the host's root, for a runtime that follows it.
const up = "../../../../../../../.."

// TestLinks has images in which a file that the runtime makes, mounts on or opens is a symbolic link to a directory of the host.
func TestLinks(t *testing.T) {
	row(t, "CVE-2025-31133 dev null is a link", func(h *H) {
		c := h.NewCanary()
		ran := 0
		for _, target := range []string{"/proc/sys/kernel/core_pattern", "/canary/file", up + c.Dir + "/file"} {
			dev := h.TempDir()
			if err := os.Symlink(target, dev+"/null"); err != nil {
				h.Fatalf("%v", err)
			}
			b := h.Bundle().WithoutMounts("/dev").Edit(mnt("/dev", "none", dev, "rbind"), mnt("/canary", "none", c.Dir, "bind", "ro"))
			b.Sh("for f in /proc/keys /proc/timer_list /proc/kcore; do echo x >$f; done; for f in /proc/keys /proc/timer_list /proc/kcore; do [ -e $f ] && stat -c %t:%T $f; done; true")
			r := h.Run(b)
			if r.Code == 0 {
				ran++
			}
			c.Check(h)
			if data, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); strings.TrimSpace(string(data)) == "x" {
				h.Errorf("core_pattern was written")
			}
			for _, dev := range strings.Fields(r.Stdout) {
				if dev != "1:3" {
					h.Errorf("with /dev/null -> %s a masked file is device %s", target, dev)
				}
			}
		}
		if ran == 0 {
			h.Errorf("no container ran: nothing was tested")
		}
	})
	row(t, "CVE-2026-41579 CVE-2026-47766 dev is a link", func(h *H) {
		c := h.NewCanary()
		for _, target := range []string{c.Dir, up + c.Dir, "/l2", "/canary"} {
			for _, own := range []bool{true, false} { // with a /dev of the configuration, and without
				b := h.Bundle().Sh("true")
				if !own {
					b.Edit(mnt("/canary", "none", c.Dir, "bind", "ro")).WithoutMounts("/dev")
				}
				h.Place(b, "l2", c.Dir)
				h.Place(b, "dev", target)
				h.Run(b)
				c.Check(h)
			}
		}
	})
	row(t, "CVE-2026-41579 issue7 A6 a bind that a link leads to dev", func(h *H) {
		for _, target := range []string{"/dev", "dev/", "../../dev", "/dev/../dev"} {
			c := h.NewCanary()
			b := h.Bundle().Edit(mnt("/data", "none", c.Dir, "bind")).Sh("true")
			h.Place(b, "data", target)
			h.Run(b)
			c.Check(h)
		}
	})
	row(t, "CVE-2026-41579 cgroup subsystems are links", func(h *H) {
		c := h.NewCanary()
		b := h.Bundle().Sh("true")
		for _, name := range []string{"cpu", "cpuacct", "net_cls", "memory", "unified"} {
			h.Place(b, "cg/"+name, up+c.Dir+"/"+name) // made below a place that the image has, and a tmpfs must cover
		}
		b.WithoutMounts("/sys/fs/cgroup").Edit(mnt("/cg", "cgroup", "cgroup"))
		w := watchMounts(h, b)
		h.Want(h.Run(b), "", 0)
		w.check(h, b)
		c.Check(h)
	})
	row(t, "CVE-2026-88264 dev console is a link", func(h *H) {
		c := h.NewCanary()
		for _, target := range []string{c.Dir + "/new", up + c.Dir + "/new", c.Dir + "/file"} {
			for _, tty := range []bool{true, false} {
				b := h.Bundle().Sh("true").WithoutMounts("/dev").
					Edit(mnt("/dev/pts", "devpts", "devpts", "newinstance", "ptmxmode=0666", "mode=0620"))
				h.Place(b, "dev/console", target)
				w := watchMounts(h, b)
				if tty {
					path, _ := consoleSocket(h)
					h.Run(b.Edit(terminal), "-d", "--console-socket", path)
					h.RT("delete", "-f", b.ID)
				} else {
					h.Run(b)
				}
				w.check(h, b)
				c.Check(h)
			}
		}
	})
	row(t, "CVE-2026-88265 streams are not reopened on a link", func(h *H) {
		c := h.NewCanary()
		ran := 0
		for i := range 4 {
			own, stdin := i < 2, []string{"", "from a pipe"}[i%2]
			b := h.Bundle().Sh("echo x; echo y >&2; echo z >&0; true").WithoutMounts("/dev").
				Edit(mnt("/canary", "none", c.Dir, "bind"), `process.user={"uid":1000,"gid":1000}`)
			if own {
				h.Place(b, "dev/null", "/canary/file")
			} else { // in a volume, where the runtime makes nothing
				dev := h.TempDir()
				if err := os.Symlink("/canary/file", dev+"/null"); err != nil {
					h.Fatalf("%v", err)
				}
				b.Edit(mnt("/dev", "none", dev, "rbind"))
			}
			h.Write(b)
			if r := h.Do(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Stdin: stdin}); r.Code == 0 {
				ran++
			}
			c.Check(h)
		}
		if ran == 0 {
			h.Errorf("no container ran: nothing was tested")
		}
	})
	row(t, "CVE-2015-3629 a destination that became a link", func(h *H) {
		c := h.NewCanary()
		b := h.Bundle().Edit(mnt("/d", "tmpfs", "t"))
		w := watchMounts(h, b)
		for _, target := range []string{"", up + c.Dir, c.Dir} {
			if target != "" {
				h.Place(b, "d", target)
			}
			h.Want(h.Run(b), "", 0)
			if _, ok := w.check(h, b); !ok {
				h.Errorf("the hook has not run")
			}
			c.Check(h)
		}
	})
	row(t, "CVE-2026-115521 read-only root stays so", func(h *H) {
		for _, script := range []string{"touch /x", "mount -o remount,rw / ; touch /x", "touch /etc/x /bin/x"} {
			b := h.Bundle().Edit(`root.readonly=true`).Sh(script + " 2>/dev/null && echo WROTE; true")
			h.Want(h.Run(b), "~^$", 0)
		}
		// The image has names on which a runtime that resolves /proc/self/fd inside would stumble.
		b := h.Bundle().Edit(`root.readonly=true`).Sh("touch /x 2>/dev/null && echo WROTE; true").WithoutMounts("/proc")
		b.Edit(`linux.maskedPaths=[]`, `linux.readonlyPaths=[]`)
		h.Place(b, "proc/self", "/tmp")
		h.File(b.Rootfs+"/tmp/fd/3", "", 0o644)
		if r := h.Run(b); strings.Contains(r.Stdout, "WROTE") {
			h.Errorf("the root is writable")
		}
	})
}

// TestDestinations has mounts whose destinations lead through links of the image.
func TestDestinations(t *testing.T) {
	through := func(h *H, mount func(dest string) string, before func(h *H, b *Bundle)) {
		c := h.NewCanary()
		ran, landed := 0, 0
		for _, target := range []string{c.Dir, up + c.Dir, "/..", "/../../.."} {
			for _, dest := range []string{"/l/x", "/l/../l/x", "/a/l/y/z", "/l"} {
				b := h.Bundle().Edit(mount(dest))
				h.Place(b, "l", target)
				h.Place(b, "a/l", target)
				if before != nil {
					before(h, b)
				}
				w := watchMounts(h, b)
				if r := h.Run(b); r.Code == 0 {
					ran++
				}
				inside, ok := w.check(h, b)
				if ok && slices.ContainsFunc(inside, func(p string) bool { return strings.HasPrefix(p, c.Dir) }) {
					landed++
				}
				c.Check(h)
			}
		}
		if ran == 0 || landed == 0 {
			h.Errorf("%d containers ran, %d with the mount where the link leads inside of the root: nothing was tested", ran, landed)
		}
	}
	row(t, "CVE-2019-18837 CVE-2026-87766 links on the way to file systems", func(h *H) {
		through(h, func(dest string) string { return mnt(dest, "tmpfs", "t", "mode=0700") }, nil)
	})
	row(t, "CVE-2024-0132 CVE-2025-23359 CVE-2024-0133 links on the way to binds", func(h *H) {
		driver := h.File("driver/lib.so", "driver", 0o644)
		through(h, func(dest string) string { return mnt(dest, "none", driver, "bind", "ro") }, nil)
		through(h, func(dest string) string { return mnt(dest, "none", filepath.Dir(driver), "rbind", "ro") }, nil)
	})
	row(t, "CVE-2026-87766 links on the way to masked paths", func(h *H) {
		c := h.NewCanary()
		for _, target := range []string{c.Dir, up + c.Dir} {
			// Masks come after the hooks: one that landed on the host is missing where the link leads inside of the root.
			b := h.Bundle().Edit(`linux.maskedPaths=["/l/file","/l/sub"]`, `linux.readonlyPaths=["/l/sub"]`).Sh("awk '{print $5}' /proc/self/mountinfo")
			h.Place(b, "l", target)
			h.File(b.Rootfs+c.Dir+"/file", "", 0o644)
			h.File(b.Rootfs+c.Dir+"/sub/other", "", 0o644)
			w := watchMounts(h, b)
			r := h.Run(b)
			w.check(h, b)
			c.Check(h)
			points := strings.Fields(r.Stdout)
			if r.Code != 0 || !slices.Contains(points, c.Dir+"/file") || !slices.Contains(points, c.Dir+"/sub") {
				h.Errorf("status %d %s: the paths are not masked: %v", r.Code, r.Stderr, points)
			}
		}
	})
	row(t, "CVE-2019-19921 CVE-2023-27561 CVE-2023-28642 proc and sys are links", func(h *H) {
		c := h.NewCanary()
		for _, p := range []string{"proc", "sys"} {
			b := h.Bundle().Sh("true")
			vol := specs.Mount{Destination: "/vol", Type: "none", Source: c.Dir, Options: []string{"bind"}}
			b.Spec.Mounts = append([]specs.Mount{vol}, b.Spec.Mounts...) // before what the link leads into it
			h.Place(b, p, "vol/sub")
			if r := h.Run(b); r.Code == 0 {
				h.Errorf("/%s is a link and the container started", p)
			}
			h.NoLeak("the refusal")
			c.Check(h)
		}
	})
	row(t, "CVE-2019-16884 CVE-2015-3631 mounts over proc", func(h *H) {
		for _, dest := range []string{"/proc", "/proc/self/attr", "/proc/1", "/proc/sys", "//proc/../proc/", "/bin/../proc/self"} {
			if r := h.Run(h.Bundle().Edit(mnt(dest, "tmpfs", "t"))); r.Code == 0 {
				h.Errorf("a tmpfs on %s was accepted", dest)
			}
		}
		h.NoLeak("the refusals")
	})
	row(t, "CVE-2019-16884 issue7 A6 mounts that a link leads to proc", func(h *H) {
		for _, dest := range []string{"/processed", "/processed/self/attr", "/processed/sys", "/procession/x", "/other", "/other/sys/kernel"} {
			for _, m := range []string{mnt(dest, "tmpfs", "t"), mnt(dest, "none", h.TempDir(), "bind")} {
				b := h.Bundle().Edit(m).Sh(`awk '{print $5}' /proc/self/mountinfo`)
				h.Place(b, "processed", "/proc")
				h.Place(b, "procession", "../proc/sys")
				h.Place(b, "other", "proc")
				if r := h.Run(b); r.Code == 0 {
					h.Errorf("a mount on %s, which leads into /proc, was accepted", dest)
				}
			}
		}
		h.NoLeak("the refusals")
	})
	row(t, "CVE-2025-52881 CVE-2025-62596 CVE-2025-54867 writes go to the real proc", func(h *H) {
		for _, dest := range []string{"/proc/sys/net", "/proc/sys", "/proc"} {
			dir := h.TempDir()
			file := h.File(filepath.Join(dir, strings.TrimPrefix("/proc/sys/net/ipv4/ip_forward", dest)), "canary", 0o644)
			b := h.Bundle().Edit(mnt(dest, "none", dir, "bind"), `linux.sysctl={"net.ipv4.ip_forward":"1"}`)
			if r := h.Run(b); r.Code == 0 {
				h.Errorf("a directory over %s was accepted", dest)
			}
			if data, _ := os.ReadFile(file); string(data) != "canary" {
				h.Errorf("the host's file has become %q", data)
			}
		}
		h.NoLeak("the refusal")
	})
}
