package runtime

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
	"golang.org/x/sys/unix"
)

// canary is a directory of the host that no hostile container may change.
type canary struct{ dir, before string }

func newCanary(h *H) *canary {
	c := &canary{dir: h.TempDir()}
	h.File(c.dir+"/file", "canary", 0o600)
	h.File(c.dir+"/sub/other", "canary", 0o644)
	c.before = c.look(h)
	return c
}

func (c *canary) look(h *H) string {
	var out strings.Builder
	err := filepath.Walk(c.dir, func(p string, fi os.FileInfo, err error) error {
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

func (c *canary) check(h *H) {
	if now := c.look(h); now != c.before {
		h.Errorf("the host's files changed from\n%sto\n%s", c.before, now)
		c.before = now
	}
}

// place removes what is at a path of the root file system and puts a link there.
func place(h *H, b *Bundle, path, target string) {
	p := filepath.Join(b.Rootfs, path)
	if err := os.RemoveAll(p); err != nil {
		h.Fatalf("%v", err)
	}
	if err := os.Symlink(target, p); err != nil {
		h.Fatalf("%v", err)
	}
}

// withoutMounts drops mounts of the base configuration.
func withoutMounts(b *Bundle, dests ...string) {
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
}

func fileHash(h *H, path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		h.Fatalf("%v", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

func TestAdvisoryRuntimeBinary(t *testing.T) {
	// A copy of the runtime is attacked, not the installed one.
	hostile := func(h *H) string {
		p := filepath.Join(h.TempDir(), "runtime")
		data, err := os.ReadFile(ocitest.RuntimePath())
		if err != nil {
			h.Fatalf("%v", err)
		}
		return h.File(p, string(data), 0o755)
	}
	row(t, "CVE-2019-5736 entry point is proc self exe", func(h *H) {
		rt := hostile(h)
		hash := fileHash(h, rt)
		b := h.Bundle().Args("/entry")
		h.File(b.Rootfs+"/entry", "#!/proc/self/exe\n", 0o755)
		h.Write(b)
		h.Do(Cmd{Path: rt, Args: []string{"run", "-b", b.Dir, b.ID}}) // whatever it does, the binary stays
		b2 := h.Bundle().Args("sleep", "60")
		h.File(b2.Rootfs+"/entry", "#!/proc/self/exe\n", 0o755)
		h.Write(b2)
		h.Want(h.Do(Cmd{Path: rt, Args: []string{"run", "-d", "-b", b2.Dir, b2.ID}}), "", 0)
		h.Do(Cmd{Path: rt, Args: []string{"exec", b2.ID, "/entry"}})
		if fileHash(h, rt) != hash {
			h.Errorf("the runtime was overwritten")
		}
	})
	row(t, "CVE-2019-5736 open of the runtime for writing", func(h *H) {
		rt := hostile(h)
		hash := fileHash(h, rt)
		b := h.Bundle().Edit(capEdit("CAP_SYS_PTRACE CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE CAP_DAC_OVERRIDE", "", ""))
		b.Sh(`while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || { exec 7>>$p/exe && echo hacked >&7; exec 7>&-; } 2>/dev/null; done; done`)
		h.Write(b)
		h.Want(h.Do(Cmd{Path: rt, Args: []string{"run", "-d", "-b", b.Dir, b.ID}}), "", 0)
		n := 20
		if long() {
			n = 1000
		}
		for range n {
			h.Do(Cmd{Path: rt, Args: []string{"exec", b.ID, "true"}})
		}
		if fileHash(h, rt) != hash {
			h.Errorf("the runtime was overwritten")
		}
	})
	for _, caps := range []string{"CAP_SYS_PTRACE", "CAP_KILL"} {
		row(t, "CVE-2016-9962 a joining process has nothing of the host, with "+caps, func(h *H) {
			b := h.Bundle().Edit(capEdit(caps, caps, caps, "", ""))
			b.Sh(`while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || for f in $p/fd/*; do l=$(readlink $f); case $l in
				/dev/null|*/out[0-9]*|*/err[0-9]*|/proc/*) ;;
				/*) s=$(stat -L -c %d:%i $f) && [ "$s" != "$(stat -L -c %d:%i "$l")" ] && echo "host: $f $l";; esac; done; done; done 2>/dev/null`)
			r := h.Up(b)
			for range 20 {
				h.RT("exec", b.ID, "true")
			}
			if out := r.Again().Stdout; out != "" {
				first, _, _ := strings.Cut(out, "\n")
				h.Errorf("the container saw a descriptor of a joining process: %s", first)
			}
		})
	}
}

func TestAdvisoryDescriptors(t *testing.T) {
	row(t, "CVE-2024-21626 cwd over descriptors of run", func(h *H) {
		for fd := 3; fd < 24; fd++ {
			b := h.Bundle().Edit(fmt.Sprintf(`process.cwd="/proc/self/fd/%d"`, fd)).Args("probe", "cwd")
			if r := h.Run(b); r.Code == 0 && !strings.HasPrefix(r.Stdout, "/ ") && !strings.HasPrefix(r.Stdout, "/proc/") {
				h.Errorf("descriptor %d: cwd is %s", fd, r.Stdout)
			}
		}
	})
	row(t, "CVE-2024-21626 cwd over descriptors of exec", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		place(h, b, "link", "/proc/self/fd/7")
		h.Up(b)
		for fd := 3; fd < 24; fd++ {
			if r := h.RT("exec", "--cwd", fmt.Sprintf("/proc/self/fd/%d", fd), b.ID, "probe", "cwd"); r.Code == 0 && !strings.HasPrefix(r.Stdout, "/") {
				h.Errorf("descriptor %d: cwd is %s", fd, r.Stdout)
			}
		}
		if r := h.RT("exec", "--cwd", "/link", b.ID, "probe", "cwd"); r.Code == 0 && !strings.HasPrefix(r.Stdout, "/") {
			h.Errorf("by a link: cwd is %s", r.Stdout)
		}
	})
	row(t, "CVE-2024-21626 no descriptor of the host in init", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		pid := h.State(b.ID).Pid
		h.Await("the program", func() bool {
			cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			return string(cmd) == "sleep\x0060\x00"
		})
		es, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if len(es) != 3 {
			h.Errorf("%d descriptors are open", len(es))
		}
	})
	row(t, "CVE-2015-3627 no descriptor of a waiting init leads out", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Create(b)
		pid := h.State(b.ID).Pid
		es, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		for _, e := range es {
			l, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
			if fi, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name())); err == nil && fi.IsDir() && !strings.HasSuffix(l, "/rootfs") && l != "/" && l != "/proc" {
				h.Errorf("descriptor %s is the directory %s", e.Name(), l)
			}
		}
	})
}

func TestAdvisoryLinks(t *testing.T) {
	row(t, "CVE-2025-31133 dev null is a link", func(h *H) {
		c := newCanary(h)
		for _, target := range []string{"/proc/sys/kernel/core_pattern", "/canary/file", "../../../.." + c.dir + "/file"} {
			b := h.Bundle().Edit(mnt("/canary", "none", c.dir, "bind", "ro")).Sh("for f in /proc/keys /proc/timer_list /proc/kcore; do echo x >$f; done; true")
			withoutMounts(b, "/dev")
			place(h, b, "dev/null", target)
			h.Run(b)
			c.check(h)
			if data, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); strings.TrimSpace(string(data)) == "x" {
				h.Errorf("core_pattern was written")
			}
		}
	})
	row(t, "CVE-2026-41579 dev is a link", func(h *H) {
		c := newCanary(h)
		for _, target := range []string{c.dir, "../../../../../../.." + c.dir, "/l2", "/canary"} {
			b := h.Bundle().Sh("true")
			place(h, b, "l2", c.dir)
			place(h, b, "dev", target)
			h.Run(b)
			c.check(h)
			b = h.Bundle().Edit(mnt("/canary", "none", c.dir, "bind", "ro")).Sh("true")
			withoutMounts(b, "/dev")
			place(h, b, "l2", c.dir)
			place(h, b, "dev", target)
			h.Run(b)
			c.check(h)
		}
	})
	row(t, "CVE-2026-88264 dev console is a link", func(h *H) {
		c := newCanary(h)
		for _, target := range []string{c.dir + "/new", "../../../../../.." + c.dir + "/new", c.dir + "/file"} {
			b := h.Bundle().Sh("true").Edit(terminal)
			withoutMounts(b, "/dev")
			if err := os.MkdirAll(b.Rootfs+"/dev/pts", 0o755); err != nil {
				h.Fatalf("%v", err)
			}
			b.Edit(mnt("/dev/pts", "devpts", "devpts", "newinstance", "ptmxmode=0666", "mode=0620"))
			place(h, b, "dev/console", target)
			path, _ := consoleSocket(h)
			h.Run(b, "-d", "--console-socket", path)
			h.RT("delete", "-f", b.ID)
			c.check(h)
		}
	})
	row(t, "CVE-2026-88265 streams are not reopened on a link", func(h *H) {
		c := newCanary(h)
		b := h.Bundle().Sh("echo x; echo y >&2").Edit(mnt("/canary", "none", c.dir, "bind"), `process.user={"uid":1000,"gid":1000}`)
		withoutMounts(b, "/dev")
		place(h, b, "dev/null", "/canary/file")
		h.Run(b)
		c.check(h)
	})
	row(t, "CVE-2019-19921 proc is a link", func(h *H) {
		c := newCanary(h)
		for _, p := range []string{"proc", "sys"} {
			b := h.Bundle().Edit(mnt("/vol", "none", c.dir, "bind")).Sh("true")
			place(h, b, p, "vol/sub")
			if r := h.Run(b); r.Code == 0 {
				h.Errorf("/%s is a link and the container started", p)
			}
			h.NoLeak("the refusal")
			c.check(h)
		}
	})
	row(t, "CVE-2019-16884 CVE-2015-3631 mounts over proc", func(h *H) {
		for _, dest := range []string{"/proc", "/proc/self/attr", "/proc/1", "/proc/sys", "//proc/../proc/", "/bin/../proc/self"} {
			b := h.Bundle().Edit(mnt(dest, "tmpfs", "t"))
			if r := h.Run(b); r.Code == 0 {
				h.Errorf("a tmpfs on %s was accepted", dest)
			}
		}
		h.NoLeak("the refusals")
	})
	row(t, "CVE-2019-18837 CVE-2026-87766 links on the way to destinations", func(h *H) {
		c := newCanary(h)
		for _, target := range []string{c.dir, "../../../../../../.." + c.dir, "/..", "/../../.."} {
			for _, dest := range []string{"/l/x", "/l/../l/x", "/a/l/y/z", "/l"} {
				b := h.Bundle().Edit(mnt(dest, "tmpfs", "t", "mode=0700"))
				place(h, b, "l", target)
				if err := os.MkdirAll(b.Rootfs+"/a", 0o755); err != nil {
					h.Fatalf("%v", err)
				}
				place(h, b, "a/l", target)
				h.Run(b)
				c.check(h)
			}
		}
	})
	row(t, "CVE-2015-3629 a destination that became a link", func(h *H) {
		c := newCanary(h)
		b := h.Bundle().Edit(mnt("/d", "tmpfs", "t"))
		h.Want(h.Run(b), "", 0)
		place(h, b, "d", "../../../../../../.."+c.dir)
		h.Run(b)
		c.check(h)
	})
	row(t, "CVE-2025-52881 writes go to the real proc", func(h *H) {
		c := newCanary(h)
		b := h.Bundle().Edit(mnt("/proc/sys/net", "none", c.dir, "bind"), `linux.sysctl={"net.ipv4.ip_forward":"1"}`)
		if r := h.Run(b); r.Code == 0 {
			h.Errorf("a directory over /proc/sys/net was accepted")
		}
		c.check(h)
		h.NoLeak("the refusal")
	})
	row(t, "CVE-2026-115521 read-only root stays so", func(h *H) {
		for _, script := range []string{"touch /x", "mount -o remount,rw / ; touch /x", "touch /etc/x /bin/x"} {
			b := h.Bundle().Edit(`root.readonly=true`).Sh(script + " 2>/dev/null && echo WROTE; true")
			h.Want(h.Run(b), "~^$", 0)
		}
	})
}

func TestAdvisoryIdentity(t *testing.T) {
	row(t, "CVE-2016-3697 numeric users are numbers", func(h *H) {
		b := h.Bundle().Sh("id -u").Edit(`process.user={"uid":1000,"gid":1000}`)
		inBundle(h, b, "rootfs/etc/passwd", "1000:x:0:0:root:/root:/bin/sh\nroot:x:0:0::/root:/bin/sh\n")
		h.Want(h.Run(b), "1000", 0)
		b = h.Bundle().Args("sleep", "60")
		inBundle(h, b, "rootfs/etc/passwd", "1000:x:0:0:root:/root:/bin/sh\n")
		h.Up(b)
		h.Want(h.RT("exec", "-u", "1000", b.ID, "id", "-u"), "1000", 0)
	})
	row(t, "CVE-2022-29162 no inheritable capabilities", func(h *H) {
		inh := "CapInh: " + capNone + " CapAmb: " + capNone
		show := "grep -E 'Cap(Inh|Amb)' /proc/self/status | tr -s '\\t\\n' '  '"
		for _, u := range []string{`process.user={"uid":0,"gid":0}`, `process.user={"uid":1000,"gid":1000}`} {
			b := h.Bundle().Sh(show).Edit(u)
			h.Want(h.Run(b), inh, 0)
			b = h.Bundle().Args("sleep", "60").Edit(u)
			h.Up(b)
			for _, flags := range []string{"", "--cap CAP_KILL", "-u 1000", "-u 1000 --cap CAP_KILL"} {
				h.Want(h.RT(append(append([]string{"exec"}, strings.Fields(flags)...), b.ID, "sh", "-c", show)...), inh, 0)
			}
		}
	})
	row(t, "CVE-2023-25173 the primary group is among the groups", func(h *H) {
		b := h.Bundle().Edit(`process.user={"uid":1000,"gid":1001,"additionalGids":[1001,5]}`).Sh("grep Groups /proc/self/status | tr -s '\\t ' '  '")
		h.Want(h.Run(b), "~Groups: (1001 5|5 1001)$", 0)
	})
	row(t, "gVisor the first process has only the user's rights", func(h *H) {
		b := h.Bundle().Edit(`process.user={"uid":1000,"gid":1000}`, capEdit("", "", "", "", "")).Args("cat", "/secret")
		h.File(b.Rootfs+"/secret", "s", 0o600)
		if r := h.Run(b); r.Code != 1 || r.Stdout != "" {
			h.Errorf("status %d, output %q", r.Code, r.Stdout)
		}
		b = h.Bundle().Edit(`process.user={"uid":1000,"gid":1000}`, capEdit("", "", "", "", "")).Args("/private/prog")
		h.File(b.Rootfs+"/private/prog", "#!/bin/sh\necho ran\n", 0o700)
		if r := h.Run(b); r.Code == 0 {
			h.Errorf("a program that only root may run ran as the user")
		}
		h.NoLeak("the error")
	})
	row(t, "CVE-2021-43784 long strings", func(h *H) {
		long := strings.Repeat("x", 70000)
		for _, e := range []string{`linux.uidMappings=[{"containerID":0,"hostID":0,"size":1}]`, `process.env+=["A=` + long + `"]`, `hostname="` + long + `"`, mnt("/"+long, "tmpfs", "t"), `linux.cgroupsPath="/` + long + `"`} {
			b := h.Bundle().Edit(e).Sh("readlink /proc/self/ns/net")
			if r := h.Run(b); r.Code == 0 && strings.Contains(r.Stdout, nsID(h, "self", "net")) {
				h.Errorf("%.40s: the container is in the host's namespace", e)
			}
		}
		h.NoLeak("long strings")
	})
}

func TestAdvisoryProc(t *testing.T) {
	row(t, "CVE-2015-3630 what of proc and sys can be written", func(h *H) {
		b := h.Bundle().Sh(`for f in $(find /proc /sys -xdev -maxdepth 4 -type f -perm -200 2>/dev/null | grep -v -E '^/proc/([0-9]+|self|thread-self)/'); do (exec 5>>$f) 2>/dev/null && echo $f; done; true`)
		r := h.Run(b)
		allowed := map[string]bool{}
		for _, f := range strings.Fields("/proc/keys /proc/latency_stats /proc/timer_list /proc/kcore /proc/sched_debug /proc/timer_stats") {
			allowed[f] = true // masked: what is opened is /dev/null
		}
		for _, f := range strings.Fields(r.Stdout) {
			if !allowed[f] && !strings.HasPrefix(f, "/proc/pressure/") {
				h.Errorf("writable: %s", f)
			}
		}
	})
	row(t, "CVE-2022-0492 release agents are read-only", func(h *H) {
		b := h.Bundle().Sh("for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release; do [ -e $f ] && echo x >$f && echo WROTE $f; done 2>/dev/null; true")
		h.Want(h.Run(b), "~^$", 0)
	})
	row(t, "GHSA-g54h-m393-cpwq only listed devices", func(h *H) {
		for _, e := range []string{`linux.resources.devices=[{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}]`, `-linux.resources`, `linux.resources={}`} {
			b := h.Bundle().Edit(e).Sh("mknod /k b 254 0; head -c 1 /k | wc -c")
			if r := h.Run(b); !strings.Contains(r.Stderr, "not permitted") {
				h.Errorf("%s: the host's disk could be opened: %q %q", e, r.Stdout, r.Stderr)
			}
		}
	})
	row(t, "CVE-2026-123876 denied sockets", func(h *H) {
		b := h.Bundle().Edit(seccomp(allow, deny("socket", errno, `,"errnoRet":95,"args":[{"index":0,"value":38,"op":"SCMP_CMP_EQ"}]`)))
		b.Args(probeCall(unix.SYS_SOCKET, 38, 5, 0)...)
		h.Want(h.Run(b), "ENOTSUP", 0)
	})
}

// swap exchanges two paths over and over until the case stops it.
func swap(h *H, a, b string) (stop func()) {
	c := exec.Command("/proc/self/exe")
	c.Args = []string{"probe", "swap", a, b}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		h.Fatalf("%v", err)
	}
	return func() { c.Process.Kill(); c.Wait() }
}

func TestAdvisoryRaces(t *testing.T) {
	n := 30
	if long() {
		n = 1000
	}
	race := func(name string, edits func(c *canary, vol string) []string) {
		row(t, name, func(h *H) {
			c := newCanary(h)
			vol := h.TempDir()
			if err := os.MkdirAll(vol+"/a/b", 0o755); err != nil {
				h.Fatalf("%v", err)
			}
			if err := os.Symlink("/../../../../../../.."+c.dir, vol+"/l"); err != nil {
				h.Fatalf("%v", err)
			}
			stop := swap(h, vol+"/a", vol+"/l")
			defer stop()
			for range n {
				b := h.Bundle().Edit(mnt("/vol", "none", vol, "rbind")).Edit(edits(c, vol)...)
				h.Run(b)
				c.check(h)
				os.RemoveAll(b.Dir)
			}
			stop()
			mounts, _ := os.ReadFile("/proc/self/mountinfo")
			if strings.Contains(string(mounts), c.dir) {
				h.Errorf("something was mounted on the host's directory")
			}
		})
	}
	race("CVE-2021-30465 destination swapped for a link", func(*canary, string) []string { return []string{mnt("/vol/a/b", "tmpfs", "t")} })
	race("CVE-2024-45310 making destinations while they are swapped", func(*canary, string) []string { return []string{mnt("/vol/a/new/dir", "tmpfs", "t")} })
	race("CVE-2025-31133 masked paths while they are swapped", func(*canary, string) []string {
		return []string{`linux.maskedPaths=["/vol/a","/vol/a/b"]`, `linux.readonlyPaths=["/vol/a/b"]`}
	})
}
