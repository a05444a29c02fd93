package escape

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
	"golang.org/x/sys/unix"
)

// TestKernelFiles is about what of /proc, /sys and the cgroups a container reaches.
func TestKernelFiles(t *testing.T) {
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
	row(t, "CVE-2015-3630 masked files are empty", func(h *H) {
		paths := existing(ocitest.BaseSpec().Linux.MaskedPaths, "/")
		if len(paths) < 3 {
			h.T.Skipf("the host has only %v", paths)
		}
		r := h.Run(h.Bundle().Sh("for f in " + strings.Join(paths, " ") + "; do if [ -d $f ]; then ls -A $f; else head -c 16 $f; fi; done"))
		h.Want(r, "~^$", 0)
	})
	row(t, "CVE-2022-0492 CVE-2023-25809 release agents are read-only", func(h *H) {
		b := h.Bundle().Sh("for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do [ -e $f ] && echo 0 >$f && echo WROTE $f; done 2>/dev/null; true")
		h.Want(h.Run(b), "~^$", 0)
	})
	row(t, "CVE-2023-25809 cgroups of the host are not writable by a rootless container", func(h *H) {
		b := ocitest.Rootless(h).Sh("for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do [ -e $f ] && echo 0 >$f && echo WROTE $f; done 2>/dev/null; mount | grep -c cgroup")
		h.Want(ocitest.AsUser(h, b, "run", "-b", b.Dir, b.ID), "~^[0-9]+$", 0)
	})
	row(t, "CVE-2023-25809 cgroups that the user owns are not writable with the configuration of spec --rootless", func(h *H) {
		dirs := userCgroups(h)
		b := ocitest.Rootless(h)
		if r := ocitest.AsUser(h, b, "list", "-q"); r.Code != 0 { // gives the bundle to the user
			h.Fatalf("list: %s", r.Stderr)
		}
		os.Remove(b.Dir + "/config.json")
		h.Want(h.Do(ocitest.UserCmd(h, b, "spec", "--rootless", "-b", b.Dir)), "", 0)
		conf, err := os.ReadFile(b.Dir + "/config.json")
		if err != nil {
			h.Fatalf("%v", err)
		}
		var paths []string
		for _, d := range dirs {
			paths = append(paths, d, filepath.Dir(d)) // with a cgroup namespace the user's own is the root
		}
		b.Raw = conf
		err = b.EditRaw(`process.terminal=false`, fmt.Sprintf(`process.args=["sh","-c",%q]`, "for d in "+strings.Join(paths, " ")+
			" /sys/fs/cgroup; do mkdir $d/made && echo MADE $d; echo 0 >$d/cgroup.procs && echo WROTE $d; done 2>/dev/null; true"))
		if err != nil {
			h.Fatalf("%v", err)
		}
		h.Want(ocitest.AsUser(h, b, "run", "-b", b.Dir, b.ID), "~^$", 0)
	})
	row(t, "GHSA-g54h-m393-cpwq only listed devices", func(h *H) {
		// The kernel's log can be written by whoever may open the device: see whether this host lets its root do so.
		if _, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err != nil {
			h.T.Skip(err)
		}
		for _, e := range []string{`linux.resources.devices=[{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}]`, `-linux.resources`, `linux.resources={}`} {
			b := h.Bundle().Edit(e).Sh("mknod /k c 1 11 && echo made; echo x >/k && echo WROTE")
			if r := h.Run(b); strings.Contains(r.Stdout, "WROTE") || !strings.Contains(r.Stdout, "made") {
				h.Errorf("%s: a device that is not listed could be opened, or none be made: %q %q", e, r.Stdout, r.Stderr)
			}
		}
	})
	row(t, "CVE-2026-96812 device nodes of the image are not opened", func(h *H) {
		b := h.Bundle().Sh("head -c 1 /mem | wc -c; head -c 1 /disk | wc -c; echo x >/kmsg && echo WROTE; true")
		for _, n := range [][]string{{"mem", "c", "1", "1"}, {"kmsg", "c", "1", "11"}, {"disk", "b", "254", "0"}} {
			if out, err := cmd("mknod", "-m", "666", b.Rootfs+"/"+n[0], n[1], n[2], n[3]); err != nil {
				h.Fatalf("mknod: %v: %s", err, out)
			}
		}
		h.Want(h.Run(b), "0\n0", 0)
	})
	row(t, "GHSA-7ww5-4wqc-m92c the default configuration masks the power counters", func(h *H) {
		dir := h.TempDir()
		h.Want(h.Do(Cmd{Args: []string{"spec", "-b", dir}}), "", 0)
		data, _ := os.ReadFile(dir + "/config.json")
		for _, p := range []string{"/sys/devices/virtual/powercap", "/proc/kcore", "/proc/keys", "/sys/firmware"} {
			if !strings.Contains(string(data), `"`+p+`"`) {
				h.Errorf("spec does not mask %s", p)
			}
		}
	})
}

// userCgroups gives user 1000 a cgroup of every hierarchy and moves the caller there, as a login does. It returns their paths.
func userCgroups(h *H) (dirs []string) {
	name := "user-" + h.NewID()
	data, _ := os.ReadFile("/proc/self/cgroup")
	back := map[string]string{}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		root := "/sys/fs/cgroup/" + strings.TrimPrefix(f[1], "name=")
		if f[1] == "" {
			if root = "/sys/fs/cgroup/unified"; !exists(root) {
				root = "/sys/fs/cgroup"
			}
		}
		if f[1] == "cpuset" || !exists(root+"/cgroup.procs") {
			continue
		}
		dir := root + "/" + name
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue
		}
		for _, p := range []string{dir, dir + "/cgroup.procs"} {
			if err := os.Chown(p, 1000, 1000); err != nil {
				h.Fatalf("%v", err)
			}
		}
		if err := os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0); err != nil {
			h.Fatalf("%v", err)
		}
		back[root+f[2]] = dir
		dirs = append(dirs, dir)
	}
	h.Cleanup(func() {
		for old, dir := range back {
			if err := os.WriteFile(old+"/cgroup.procs", []byte("0"), 0); err != nil {
				h.Errorf("%v", err)
			}
			cmd("rmdir", dir+"/made")
			os.Remove(dir)
		}
	})
	return dirs
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestHostNamespaces has containers whose namespaces by path are the runtime's own: nothing of the host may be set (issue 7, A5).
func TestHostNamespaces(t *testing.T) {
	join := func(typ, file string) string {
		return fmt.Sprintf(`linux.namespaces=[{"type":"mount"},{"type":"pid"},{"type":%q,"path":"/proc/%d/ns/%s"}]`, typ, os.Getpid(), file)
	}
	const names = `-hostname`
	for _, c := range []struct{ row, ns, file, sysctl, path string }{
		{"net", "network", "net", "net.ipv4.ip_forward", "net/ipv4/ip_forward"},
		{"net with slashes", "network", "net", "net/ipv4/conf/lo/forwarding", "net/ipv4/conf/lo/forwarding"},
		{"ipc", "ipc", "ipc", "kernel.shmmni", "kernel/shmmni"},
		{"mqueue", "ipc", "ipc", "fs.mqueue.msg_max", "fs/mqueue/msg_max"},
		{"domain name", "uts", "uts", "kernel.domainname", "kernel/domainname"},
	} {
		row(t, "issue7 A5 CVE-2022-0532 sysctl of the host's namespace by path, "+c.row, func(h *H) {
			path := "/proc/sys/" + c.path
			before, err := os.ReadFile(path)
			if err != nil {
				h.T.Skip(err)
			}
			h.Cleanup(func() { os.WriteFile(path, before, 0) })
			value := map[string]string{"kernel/shmmni": "4095", "fs/mqueue/msg_max": "11", "kernel/domainname": "evil"}[c.path]
			if value == "" {
				value = fmt.Sprint(1 - int(before[0]-'0'))
			}
			r := h.Run(h.Bundle().Edit(names, join(c.ns, c.file), fmt.Sprintf(`linux.sysctl={%q:%q}`, c.sysctl, value)).WithoutMounts("/sys", "/dev/mqueue"))
			if r.Code == 0 {
				h.Errorf("it was accepted")
			}
			if now, _ := os.ReadFile(path); string(now) != string(before) {
				h.Errorf("%s of the host was %q and is %q", c.path, before, now)
			}
			h.NoLeak("the refusal")
		})
	}
	for _, p := range []string{"hostname", "domainname"} {
		row(t, "issue7 A5 "+p+" of the host's namespace by path", func(h *H) {
			var before, now unix.Utsname
			unix.Uname(&before)
			h.Cleanup(func() {
				unix.Sethostname(before.Nodename[:len(unix.ByteSliceToString(before.Nodename[:]))])
				unix.Setdomainname(before.Domainname[:len(unix.ByteSliceToString(before.Domainname[:]))])
			})
			r := h.Run(h.Bundle().Edit(names, join("uts", "uts"), p+`="evil"`).WithoutMounts("/sys"))
			if r.Code == 0 {
				h.Errorf("it was accepted")
			}
			if unix.Uname(&now); now != before {
				h.Errorf("the host's name has become %s %s", unix.ByteSliceToString(now.Nodename[:]), unix.ByteSliceToString(now.Domainname[:]))
			}
			h.NoLeak("the refusal")
		})
	}
	row(t, "issue7 A5 CVE-2022-0811 sysctls that lead elsewhere", func(h *H) {
		for _, key := range []string{"kernel.core_pattern", "net/../kernel/core_pattern", "net...kernel.core_pattern", "kernel.shm_rmid_forced/../core_pattern",
			"kernel.msg/../core_pattern", "fs.mqueue/../../kernel/core_pattern", "net/ipv4/../../kernel/core_pattern", "/kernel/core_pattern", "kernel.sem\n", ""} {
			if r := h.Run(h.Bundle().Edit(fmt.Sprintf(`linux.sysctl={%q:"x"}`, key))); r.Code == 0 {
				h.Errorf("sysctl %q was accepted", key)
			}
		}
		if data, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); strings.TrimSpace(string(data)) == "x" {
			h.Errorf("core_pattern was written")
		}
		h.NoLeak("the refusals")
	})
}

// TestUnmaskedProc has an unprivileged process that makes a procfs of its own, which has no masks: the kernel refuses that as long
// as every procfs of the mount namespace is partly covered (issue 7, A7).
func TestUnmaskedProc(t *testing.T) {
	bundle := func(h *H) *Bundle {
		b := h.Bundle().Args("attack", "newproc", "/tmp").Edit(`process.user={"uid":1000,"gid":1000}`, capEdit("", "", "", "", ""))
		attacker(h, b)
		return b
	}
	row(t, "issue7 A7 with pivot_root", func(h *H) {
		open := bundle(h).Edit(`linux.maskedPaths=[]`, `linux.readonlyPaths=[]`)
		if r := h.Run(open); !strings.Contains(r.Stdout, "mounted") {
			h.T.Skipf("users cannot mount procfs here even where nothing is masked: %s", r.Stdout)
		}
		h.Want(h.Run(bundle(h)), "~^mount: ", 1)
	})
	row(t, "issue7 A7 without pivot_root", func(h *H) {
		b := bundle(h)
		h.Want(h.Run(b, "--no-pivot"), "~^mount: ", 1)
		h.Want(h.Run(h.Bundle().Sh("cat /../../../etc/hostname /proc/1/root/etc/hostname 2>/dev/null; true"), "--no-pivot"), "~^$", 0)
		up := h.Bundle().Args("sleep", "60")
		attacker(h, up)
		h.Up(up, "--no-pivot")
		h.Want(h.RT("exec", "-u", "1000:1000", up.ID, "attack", "newproc", "/tmp"), "~^mount: ", 1)
	})
}
