package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// intoProc are targets of an image's link that lead into the container's procfs.
var intoProc = []string{"/proc", "proc", "../../proc", "/proc/sys", "proc/1", "/proc/self/attr", "l2"}

// links makes the link of the image, and the ones that the chains go through.
func links(h *H, b *Bundle, path, target string) {
	h.Place(b, "l2", "l3")
	h.Place(b, "l3", "/proc/sys")
	h.Place(b, path, target)
}

func TestAdvisoryPlaces(t *testing.T) {
	row(t, "M6 a directory whose name starts with proc is ordinary", func(h *H) {
		for _, d := range []string{"/processed", "/proc2/x", "/system"} {
			b := h.Bundle().Edit(mnt(d, "tmpfs", "t", "size=1m")).Sh("touch " + d + "/x && grep -c ' " + d + " tmpfs ' /proc/mounts")
			h.Want(h.Run(b), "1", 0)
		}
	})
	row(t, "CVE-2019-16884 links of the image into proc", func(h *H) {
		src := h.TempDir()
		h.File(src+"/f", "forged", 0o644)
		for _, target := range intoProc {
			for _, dest := range []string{"/processed", "/vol"} {
				for _, m := range []string{mnt(dest, "tmpfs", "t"), mnt(dest, "none", src, "rbind"), mnt(dest, "tmpfs", "t", "tmpcopyup"),
					mnt(dest, "mqueue", "m"), mnt(dest, "proc", "p"), mnt(dest, "cgroup", "cgroup", "ro"), mnt(dest, "", "", "remount", "bind", "nosuid")} {
					b := h.Bundle().Edit(m).Sh("cat /proc/self/mountinfo")
					links(h, b, dest, target)
					h.Write(b)
					h.FailRT("", "run", "--bundle", b.Dir, b.ID)
					os.RemoveAll(b.Dir)
				}
			}
		}
		h.NoLeak("the refusals")
	})
	row(t, "CVE-2019-16884 a link to a file of proc that may be replaced", func(h *H) {
		src := h.File("up", "forged", 0o644)
		b := h.Bundle().Edit(mnt("/up", "none", src, "bind")).Sh("cat /proc/uptime")
		h.Place(b, "up", "/proc/uptime")
		h.Write(b)
		h.FailRT("/proc", "run", "--bundle", b.Dir, b.ID)
	})
	row(t, "CVE-2019-16884 a link into sys", func(h *H) {
		for _, target := range []string{"/sys", "/sys/firmware", "sys/kernel"} {
			b := h.Bundle().Edit(mnt("/vol", "tmpfs", "t")).Sh("true")
			h.Place(b, "vol", target)
			h.Write(b)
			h.FailRT("/sys", "run", "--bundle", b.Dir, b.ID)
		}
		b := h.Bundle().Edit(mnt("/sys/kernel", "tmpfs", "t")).Sh("touch /sys/kernel/x && echo mounted")
		h.Want(h.Run(b), "mounted", 0)
	})
	row(t, "M4 a link to the root as destination", func(h *H) {
		for _, target := range []string{"/", "..", "../..", "."} {
			b := h.Bundle().Edit(mnt("/vol", "tmpfs", "t")).Sh("true")
			h.Place(b, "vol", target)
			h.Write(b)
			h.FailRT("root", "run", "--bundle", b.Dir, b.ID)
		}
	})
	row(t, "MA1 a masked path that leads into proc", func(h *H) {
		for _, list := range []string{"masked", "readonly"} {
			b := h.Bundle().Edit(`linux.` + list + `Paths=["/m"]`).Sh("true")
			h.Place(b, "m", "/proc/self/attr/exec")
			h.Write(b)
			h.FailRT("/proc", "run", "--bundle", b.Dir, b.ID)
		}
	})
	row(t, "CVE-2019-19921 the sentence about links", func(h *H) {
		for dir, typ := range map[string]string{"proc": "proc", "sys": "sysfs"} {
			b := h.Bundle().Edit(`mounts=[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/sys","type":"sysfs","source":"sysfs"}]`)
			h.Place(b, dir, "elsewhere")
			h.Write(b)
			h.FailRT(`filesystem \"`+typ+`\" must be mounted on ordinary directory`, "run", "--bundle", b.Dir, b.ID)
			b = h.Bundle().Edit(`mounts=[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/sys","type":"sysfs","source":"sysfs"}]`)
			os.Remove(b.Rootfs + "/" + dir)
			h.File(b.Rootfs+"/"+dir, "a file", 0o644)
			h.Write(b)
			h.FailRT(`filesystem \"`+typ+`\" must be mounted on ordinary directory`, "run", "--bundle", b.Dir, b.ID)
		}
	})
	row(t, "M6 a procfs of the host below a bind of its root", func(h *H) {
		src := h.TempDir()
		if err := os.Mkdir(src+"/proc", 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		if err := unix.Mount("proc", src+"/proc", "proc", 0, ""); err != nil {
			h.Fatalf("%v", err)
		}
		h.Cleanup(func() { unix.Unmount(src+"/proc", unix.MNT_DETACH) })
		b := h.Bundle().Edit(mnt("/host", "none", src, "rbind"), mnt("/host/proc", "none", "/proc", "rbind")).Sh("grep -c ' /host/proc proc ' /proc/mounts")
		h.Want(h.Run(b), "2", 0)
		for _, dest := range []string{"/host/proc/sys", "/host/proc/uptime"} {
			b = h.Bundle().Edit(mnt("/host", "none", src, "rbind"), mnt(dest, "none", "/proc/version", "bind"))
			h.Write(b)
			h.FailRT("/proc", "run", "--bundle", b.Dir, b.ID)
		}
		b = h.Bundle().Edit(mnt("/x", "tmpfs", "t")).Sh("true") // the root file system brings its own procfs
		withoutMounts(b, "/proc")
		h.Place(b, "x", "proc")
		if err := unix.Mount("proc", b.Rootfs+"/proc", "proc", 0, ""); err != nil {
			h.Fatalf("%v", err)
		}
		h.Cleanup(func() { unix.Unmount(b.Rootfs+"/proc", unix.MNT_DETACH) })
		h.Write(b)
		h.FailRT("/proc", "run", "--bundle", b.Dir, b.ID)
	})
	for _, dir := range []string{"proc", "sys"} {
		row(t, "CVE-2019-19921 "+dir+" is exchanged by the time of the hooks", func(h *H) {
			b := h.Bundle().Sh("true")
			b.Edit(fmt.Sprintf(`hooks.createRuntime=[{"path":"/bin/sh","args":["sh","-c","mv %[1]s/%[2]s %[1]s/old && mkdir %[1]s/%[2]s"]}]`, b.Rootfs, dir))
			h.Write(b)
			h.FailRT("/"+dir, "run", "--bundle", b.Dir, b.ID)
			if _, err := os.Stat(b.Rootfs + "/old"); err != nil {
				h.Errorf("the hook has exchanged nothing: %v", err)
			}
		})
	}
}

// mountPoints reads the mount points of a mountinfo file.
func mountPoints(text string) map[string]bool {
	points := map[string]bool{}
	for _, l := range strings.Split(text, "\n") {
		if f := strings.Fields(l); len(f) > 6 {
			points[f[4]] = true
		}
	}
	return points
}

// runInside runs a container and looks, from a hook before the pivot, at what was mounted: all of it must be below the root file
// system. The copy of the host's mounts that the container has at that time is not the host's, so that nothing would be seen there.
func runInside(h *H, b *Bundle) (Result, int) {
	seen := h.TempDir() + "/mountinfo"
	b.Edit(`hooks.createRuntime=[{"path":"/bin/sh","args":["sh","-c","p=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); cat /proc/$p/mountinfo >` + seen + `"]}]`)
	r := h.Run(b)
	data, err := os.ReadFile(seen)
	if err != nil {
		return r, 0
	}
	before, _ := os.ReadFile("/proc/self/mountinfo")
	old, inside := mountPoints(string(before)), 0
	for p := range mountPoints(string(data)) {
		switch {
		case old[p] && !strings.HasPrefix(p, b.Rootfs):
		case p == b.Rootfs || strings.HasPrefix(p, b.Rootfs+"/"):
			inside++
		default:
			h.Errorf("mounted outside of the root file system: %s", p)
		}
	}
	return r, inside
}

func TestAdvisoryInside(t *testing.T) {
	for _, kind := range []string{"tmpfs", "directory", "file", "mqueue", "cgroup", "devpts", "device", "tmpcopyup"} {
		row(t, "M3 links out of the root, "+kind, func(h *H) {
			c := h.NewCanary()
			for i, target := range []string{c.Dir + "/new", c.Dir + "/new/deep/er", "../../../../../../../.." + c.Dir + "/made", "l2", "/l3/x"} {
				dest := "/vol"
				if i%2 == 1 {
					dest = "/vol/below"
				}
				m := map[string]string{"tmpfs": mnt(dest, "tmpfs", "t"), "directory": mnt(dest, "none", "d", "rbind"), "file": mnt(dest, "none", "f", "bind"), "mqueue": mnt(dest, "mqueue", "m"),
					"cgroup": mnt(dest, "cgroup", "cgroup", "ro"), "devpts": mnt(dest, "devpts", "d", "newinstance"), "device": device(`{"path":"` + dest + `/n","type":"c","major":1,"minor":3}`),
					"tmpcopyup": mnt(dest, "tmpfs", "t", "tmpcopyup")}[kind]
				b := h.Bundle().Edit(m).Sh("true")
				withFile("d/", "")(h, b)
				withFile("f", "x")(h, b)
				h.Place(b, "l2", c.Dir+"/sub/none")
				h.Place(b, "l3", "../../../../../../../.."+c.Dir)
				h.Place(b, "vol", target)
				r, inside := runInside(h, b)
				if r.Code != 0 || inside < 5 {
					h.Errorf("%s to %s: status %d, %d mounts inside: %s", dest, target, r.Code, inside, r.Stderr)
				}
				c.Check(h)
				os.RemoveAll(b.Dir)
			}
		})
	}
	row(t, "MA1 MA2 links to what is inside", func(h *H) {
		b := h.Bundle().Edit(`linux.maskedPaths=["/m"]`, `linux.readonlyPaths=["/r"]`).Sh("cat /m /inside/secret; touch /r/x /inside/dir/x 2>/dev/null || echo ro")
		h.File(b.Rootfs+"/inside/secret", "secret", 0o644)
		if err := os.Mkdir(b.Rootfs+"/inside/dir", 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		h.Place(b, "m", "/inside/secret")
		h.Place(b, "r", "../../../inside/dir")
		h.Want(h.Run(b), "ro", 0)
	})
}

// hostDev is a directory of the host that stands for /dev: what is made or removed there is seen.
func hostDev(h *H) (dir string, check func()) {
	dir = h.TempDir()
	h.File(dir+"/ptmx", "the host's", 0o666)
	h.File(dir+"/mark", "", 0o666)
	check = func() {
		es, _ := os.ReadDir(dir)
		names := make([]string, len(es))
		for i, e := range es {
			names[i] = e.Name()
		}
		if got := strings.Join(names, " "); got != "mark ptmx" {
			h.Errorf("the host's directory now has: %s", got)
		}
		if data, err := os.ReadFile(dir + "/ptmx"); err != nil || string(data) != "the host's" {
			h.Errorf("ptmx of the host is now %q, %v", data, err)
		}
	}
	return dir, check
}

func TestAdvisoryDev(t *testing.T) {
	listed := device(`{"path":"/dev/n","type":"c","major":1,"minor":3}`)
	row(t, "CVE-2026-41579 a bind that a link leads to dev", func(h *H) {
		dir, check := hostDev(h)
		for _, target := range []string{"/dev", "dev", "../dev", "l2"} {
			for i, more := range []string{`linux.devices=[]`, listed, userns, userns} {
				b := h.Bundle().Edit(mnt("/data", "none", dir, "rbind"), more).Sh("ls /dev | tr '\\n' ' '")
				h.Place(b, "l2", "/dev")
				h.Place(b, "data", target)
				want := "mark ptmx"
				if i == 3 { // the devices after one that is left out are made all the same
					b.Edit(device(`{"path":"/dev/n","type":"c","major":1,"minor":3},{"path":"/two","type":"c","major":1,"minor":5}`))
					b.Sh("ls /dev | tr '\\n' ' '; stat -c %t:%T /two")
					want += " 1:5"
				}
				if more == userns {
					b.Edit(idMaps(100000, 65536))
					rootfsOf(100000)(h, b)
				}
				h.Want(h.Run(b), want, 0)
				check()
			}
		}
	})
	row(t, "D3 spellings of dev, bound", func(h *H) {
		dir, check := hostDev(h)
		for _, dest := range []string{"/dev", "/dev/", "//dev", "/x/../dev", "dev", "/dev/.", "./dev//"} {
			b := h.Bundle().Edit(`mounts=[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"` + dest + `","type":"none","source":"` + dir + `","options":["rbind"]}]`).Sh("ls /dev | tr '\\n' ' '")
			h.Want(h.Run(b), "mark ptmx", 0)
			check()
		}
	})
	row(t, "D1 spellings of dev, a file system", func(h *H) {
		for _, dest := range []string{"/dev/", "//dev", "/x/../dev", "dev"} {
			for _, opt := range []string{"rw", "ro"} {
				b := h.Bundle().Edit(`mounts=[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"` + dest + `","type":"tmpfs","source":"t","options":["mode=755","` + opt + `"]}]`)
				b.Sh("readlink /dev/ptmx; readlink /dev/fd; stat -c %t:%T /dev/null; touch /dev/x 2>/dev/null && echo rw || echo ro")
				h.Want(h.Run(b), "pts/ptmx\n/proc/self/fd\n1:3\n"+opt, 0)
			}
		}
	})
	row(t, "CVE-2026-41579 dev of the image is a link to a bind", func(h *H) {
		dir, check := hostDev(h)
		b := h.Bundle().Edit(mnt("/data", "none", dir, "rbind"), listed).Sh("ls /dev/ | tr '\\n' ' '")
		withoutMounts(b, "/dev")
		h.Place(b, "dev", "/data")
		h.Want(h.Run(b), "mark ptmx", 0)
		check()
	})
	row(t, "CVE-2026-41579 dev of the root file system is a mount of the host", func(h *H) {
		dir, check := hostDev(h)
		b := h.Bundle().Edit(listed).Sh("ls /dev/ | tr '\\n' ' '")
		withoutMounts(b, "/dev")
		if err := unix.Mount(dir, b.Rootfs+"/dev", "", unix.MS_BIND, ""); err != nil {
			h.Fatalf("%v", err)
		}
		h.Cleanup(func() { unix.Unmount(b.Rootfs+"/dev", unix.MNT_DETACH) })
		h.Want(h.Run(b), "mark ptmx", 0)
		check()
	})
	row(t, "CVE-2026-41579 devices elsewhere", func(h *H) {
		dir, check := hostDev(h)
		b := h.Bundle().Edit(mnt("/data", "none", dir, "rbind"), device(`{"path":"/l/n","type":"c","major":1,"minor":3}`)).Sh("true")
		h.Place(b, "l", "/data")
		h.Write(b)
		h.FailRT("/l/n", "run", "--bundle", b.Dir, b.ID)
		check()
		b = h.Bundle().Edit(mnt("/run", "tmpfs", "t"), device(`{"path":"/run/sub/n","type":"c","major":1,"minor":3}`)).Sh("stat -c %t:%T /run/sub/n")
		h.Want(h.Run(b), "1:3", 0)
	})
	row(t, "CVE-2026-88264 a terminal where dev is the host's", func(h *H) {
		dir, check := hostDev(h)
		b := h.Bundle().Edit(terminal, mnt("/data", "none", dir, "rbind"), mnt("/dev/pts", "devpts", "devpts", "newinstance", "ptmxmode=0666")).Sh("ls /dev")
		if err := os.Mkdir(dir+"/pts", 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		h.Place(b, "data", "/dev")
		path, _ := consoleSocket(h)
		h.Run(b, "-d", "--console-socket", path)
		h.RT("delete", "-f", b.ID)
		os.Remove(dir + "/pts")
		check()
	})
}

// procMounts are the ids of whole procfs mounts of a process, and for each how many of the mounts on it are masks (the null device),
// read-only pieces of itself, and others. Ids, since the names change while a test exchanges directories.
func procMounts(pid int) (map[string][3]int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	found := map[string][3]int{}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, l := range lines {
		f := strings.Fields(l)
		if strings.Contains(l, " - proc ") && f[3] == "/" {
			found[f[0]] = [3]int{}
		}
	}
	for _, l := range lines {
		f := strings.Fields(l)
		n, ok := found[f[1]]
		if !ok {
			continue
		}
		if f[3] == "/null" {
			n[0]++
		} else if strings.Contains(l, " - proc ") && strings.HasPrefix(f[5], "ro") {
			n[1]++
		} else {
			n[2]++
		}
		found[f[1]] = n
	}
	return found, nil
}

// TestAdvisoryProcExchanged: two containers share a root file system, and one of them exchanges its /proc while the other is made.
func TestAdvisoryProcExchanged(t *testing.T) {
	rounds := 500
	if long() {
		rounds = 10000
	}
	row(t, "CVE-2019-19921 CVE-2023-27561 masks while proc is exchanged", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		withoutMounts(b, "/sys")
		for _, name := range []string{"kcore", "keys", "timer_list", "sysrq-trigger", "cpuinfo"} {
			h.File(b.Rootfs+"/fake/"+name, "", 0o644)
		}
		for _, name := range []string{"sys", "bus", "fs", "irq", "acpi", "scsi"} {
			if err := os.MkdirAll(filepath.Join(b.Rootfs, "fake", name), 0o755); err != nil {
				h.Fatalf("%v", err)
			}
		}
		b.Edit(`linux.maskedPaths=["/proc/keys","/proc/timer_list","/proc/cpuinfo"]`, `linux.readonlyPaths=["/proc/sys","/proc/bus","/proc/irq"]`)
		b.Edit(mnt("/proc/uptime", "none", h.File("up", "1 2", 0o644), "bind"))
		h.File(b.Rootfs+"/fake/uptime", "", 0o644)
		h.Write(b)
		stop := swap(h, b.Rootfs+"/proc", b.Rootfs+"/fake")
		defer stop()
		made := 0
		for range rounds {
			id := h.NewID()
			if r := h.RT("create", "--bundle", b.Dir, id); r.Code != 0 {
				continue
			}
			made++
			mounts, err := procMounts(h.State(id).Pid)
			if err != nil {
				h.Fatalf("%v", err)
			}
			if len(mounts) != 1 {
				h.Errorf("%d procfs mounts", len(mounts))
			}
			for m, n := range mounts {
				if n != [3]int{3, 3, 1} {
					h.Errorf("round %d: procfs %s has %d masks, %d read-only paths and %d other mounts, want 3, 3, 1", made, m, n[0], n[1], n[2])
				}
			}
			h.MustRT("delete", "-f", id)
		}
		stop()
		if made == 0 || made == rounds {
			h.Errorf("%d of %d containers were made: the test shows nothing", made, rounds)
		}
	})
}
