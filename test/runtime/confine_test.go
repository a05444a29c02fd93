package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// sleeper starts a process by a command and waits until one of its namespaces is not ours; it ends with the case.
func sleeper(h *H, file string, command ...string) int {
	c := exec.Command(command[0], append(command[1:], "sleep", "1000")...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() { c.Process.Kill(); c.Wait() })
	h.Await("namespace "+file, func() bool { return nsID(h, c.Process.Pid, file) != nsID(h, "self", file) })
	return c.Process.Pid
}

// userHolder is a process in a user namespace with maps, whose other namespaces are ours.
func userHolder(h *H) int {
	pid := sleeper(h, "user", "unshare", "--user")
	for _, f := range []string{"uid_map", "gid_map"} {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, f), []byte("0 100000 65536"), 0); err != nil {
			h.Fatalf("%v", err)
		}
	}
	return pid
}

// withPath gives the namespace of a type by a path.
func withPath(typ, path string) string {
	var l []string
	for _, o := range []string{"pid", "network", "ipc", "uts", "mount"} {
		if o != typ {
			l = append(l, fmt.Sprintf(`{"type":%q}`, o))
		}
	}
	return "linux.namespaces=[" + strings.Join(append(l, fmt.Sprintf(`{"type":%q,"path":%q}`, typ, path)), ",") + "]"
}

// TestHostNamespaces: a namespace that is given by the path of the runtime's own is the host's, and nothing of the host changes.
func TestHostNamespaces(t *testing.T) {
	for _, test := range []struct{ row, typ, file, edit string }{
		{"SY2 net sysctl", "network", "net", `linux.sysctl={"net.ipv4.ip_forward":"1"}`},
		{"SY2 ipc sysctl", "ipc", "ipc", `linux.sysctl={"kernel.shmmax":"68719476737"}`},
		{"SY2 mqueue sysctl", "ipc", "ipc", `linux.sysctl={"fs.mqueue.msg_max":"11"}`},
		{"SY2 uts sysctl", "uts", "uts", `linux.sysctl={"kernel.domainname":"escaped"}`},
		{"H1 hostname", "uts", "uts", `hostname="escaped"`},
		{"H2 domainname", "uts", "uts", `domainname="escaped"`},
	} {
		row(t, test.row+" with the host's "+test.typ+" namespace by path", func(h *H) {
			b := h.Bundle().Edit("-hostname", test.edit, withPath(test.typ, "/proc/self/ns/"+test.file))
			before := hostNames(h)
			h.Cleanup(func() { restoreHostNames(h, before) })
			r := h.Run(b.Args("true"))
			if r.Code == 0 || !strings.Contains(r.Stderr, "host") {
				h.Errorf("status %d, %q: want a refusal that names the host", r.Code, r.Stderr)
			}
			if now := hostNames(h); !slices.Equal(now, before) {
				h.Errorf("the host has changed from %q to %q", before, now)
			}
			h.NoLeak("the refusal")
		})
	}
	row(t, "N3 the host's network by path is no change of network", func(h *H) {
		b := h.Bundle().Edit(withPath("network", "/proc/self/ns/net")).Args("readlink", "/proc/self/ns/net")
		h.Want(h.Run(b), nsID(h, "self", "net"), 0)
	})
}

// hostFiles are what the cases above would change.
var hostFiles = []string{"kernel/hostname", "kernel/domainname", "net/ipv4/ip_forward", "kernel/shmmax", "fs/mqueue/msg_max"}

func hostNames(h *H) (s []string) {
	for _, f := range hostFiles {
		data, err := os.ReadFile("/proc/sys/" + f)
		if err != nil {
			h.Fatalf("%v", err)
		}
		s = append(s, strings.TrimSpace(string(data)))
	}
	return s
}

func restoreHostNames(h *H, values []string) {
	for i, f := range hostFiles {
		if now := hostNames(h)[i]; now != values[i] {
			if err := os.WriteFile("/proc/sys/"+f, []byte(values[i]), 0); err != nil {
				h.Errorf("%v", err)
			}
		}
	}
}

// TestHostMounts: a container in the host's mount namespace, listed by its path or not listed, has its root and mounts,
// and the host has none of them.
func TestHostMounts(t *testing.T) {
	for name, ns := range map[string]string{"unlisted": "", "by path": `,{"type":"mount","path":"/proc/self/ns/mnt"}`} {
		row(t, "RO6 host mount namespace "+name, func(h *H) {
			src := h.TempDir()
			if err := unix.Mount("tmpfs", src, "tmpfs", 0, ""); err != nil {
				h.Fatalf("%v", err)
			}
			h.Cleanup(func() { unix.Unmount(src, unix.MNT_DETACH) })
			if err := unix.Mount("", src, "", unix.MS_SHARED, ""); err != nil {
				h.Fatalf("%v", err)
			}
			before, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil {
				h.Fatalf("%v", err)
			}
			edits := []string{`linux.namespaces=[{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"}` + ns + `]`,
				mnt("/t", "none", src, "rbind"), mnt("/t/made", "tmpfs", "inner"), `linux.maskedPaths=["/proc/keys"]`, `linux.readonlyPaths=["/proc/sys"]`}
			if !ocitest.Kernel(6, 15) {
				r := h.Run(h.Bundle().Edit(edits...))
				if r.Code == 0 || !strings.Contains(r.Stderr, "take Linux 6.15") {
					h.Errorf("status %d, %q, want the version of the kernel", r.Code, r.Stderr)
				}
				return
			}
			look := "readlink /proc/self/ns/mnt; wc -c </proc/keys; echo x >/proc/sys/kernel/sem || echo read-only; touch /made; ls -d /t/made /host 2>/dev/null; true"
			h.Want(h.Run(h.Bundle().Edit(edits...).Sh(look+" ; test ! -e /"+filepath.Base(h.Root))), "~^mnt:.*\n0\nread-only\n/t/made$", 0)
			b := h.Bundle().Edit(edits...).Args("sleep", "60")
			h.Up(b)
			if got := nsID(h, h.State(b.ID).Pid, "mnt"); got != nsID(h, "self", "mnt") {
				h.Errorf("the mount namespace is %s", got)
			}
			h.Want(h.RT("exec", b.ID, "sh", "-c", look), "~^mnt:.*\n0\nread-only\n/t/made$", 0)
			if now, err := os.ReadFile("/proc/self/mountinfo"); err != nil || string(now) != string(before) {
				h.Errorf("the host's mounts are now (%v)\n%s", err, now)
			}
			h.MustRT("delete", "-f", b.ID)
		})
	}
	row(t, "RO6 what needs a mount namespace", func(h *H) {
		none := `linux.namespaces=[{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"}]`
		for _, edit := range []string{mnt("/proc", "proc", "proc", "remount", "ro"), `linux.namespaces+=[{"type":"user"}]`} {
			r := h.Run(h.Bundle().Edit(none, idMapsIf(edit), edit).Args("true"))
			if r.Code == 0 || !strings.Contains(r.Stderr, "mount namespace") {
				h.Errorf("%s: status %d, %q", edit, r.Code, r.Stderr)
			}
		}
	})
}

func idMapsIf(edit string) string {
	if strings.Contains(edit, "user") {
		return idMaps(100000, 65536)
	}
	return "-domainname"
}

// TestJoinUser joins a user namespace by path together with namespaces that belong to another one.
func TestJoinUser(t *testing.T) {
	for _, test := range []struct {
		row  string
		edit func(h *H) []string
		sh   string
		out  string
	}{
		{"N6 user and a new time namespace", func(*H) []string {
			return []string{`linux.namespaces+=[{"type":"time"}]`, `linux.timeOffsets={"boottime":{"secs":604800}}`}
		}, "cut -d. -f1 /proc/uptime | awk '{print ($1>=604800)}'", "1"},
		{"N6 user and the network of another owner", func(h *H) []string {
			return []string{withPath("network", fmt.Sprintf("/proc/%d/ns/net", sleeper(h, "net", "unshare", "--net")))}
		}, "ls /sys/class/net; cat /proc/net/dev | grep -c :", "~^"},
		{"N6 user and the cgroup namespace of another owner", func(h *H) []string {
			return []string{withPath("cgroup", fmt.Sprintf("/proc/%d/ns/cgroup", sleeper(h, "cgroup", "unshare", "--cgroup")))}
		}, "echo in", "in"},
		{"M idmap with the joined namespace's maps", func(h *H) []string {
			return []string{mnt("/t", "none", h.TempDir(), "bind", "idmap")}
		}, "stat -c %u /t", "0"},
	} {
		row(t, test.row, func(h *H) {
			b := h.Bundle()
			rootfsOf(100000)(h, b)
			b.Edit(test.edit(h)...)
			b.Edit(fmt.Sprintf(`linux.namespaces+=[{"type":"user","path":"/proc/%d/ns/user"}]`, userHolder(h)))
			h.Want(h.Run(b.Sh(test.sh)), test.out, 0)
		})
	}
}

// TestUserNamespaceBinds: what the host has said of a mount stays said when it is bound into a user namespace, and what is
// mounted on it inside stays inside.
func TestUserNamespaceBinds(t *testing.T) {
	for _, option := range []string{"rbind", "rbind,idmap"} {
		row(t, "M16 locked flags and propagation of "+option, func(h *H) {
			if option == "rbind,idmap" && !ocitest.Kernel(6, 3) {
				h.T.Skip("id-mapped mounts of tmpfs take Linux 6.3")
			}
			src := h.TempDir()
			if err := unix.Mount("tmpfs", src, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
				h.Fatalf("%v", err)
			}
			h.Cleanup(func() { unix.Unmount(src, unix.MNT_DETACH) })
			os.MkdirAll(filepath.Join(src, "covered"), 0o755)
			h.File(src+"/covered/secret", "x", 0o644)
			for _, err := range []error{unix.Mount("", src, "", unix.MS_SHARED, ""), unix.Mount("cover", src+"/covered", "tmpfs", 0, ""),
				unix.Mount("", src, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")} {
				if err != nil {
					h.Fatalf("%v", err)
				}
			}
			h.Cleanup(func() { unix.Unmount(src+"/covered", unix.MNT_DETACH) })
			all := `["CAP_SYS_ADMIN","CAP_DAC_OVERRIDE"]`
			b := h.Bundle().Edit(userns, idMaps(100000, 65536), mnt("/t", "none", src, strings.Split(option, ",")...),
				`process.capabilities={"bounding":`+all+`,"effective":`+all+`,"permitted":`+all+`}`)
			rootfsOf(100000)(h, b)
			b.Sh(`for o in rw,nosuid,nodev,noexec ro,suid,nodev,noexec ro,nosuid,dev,noexec ro,nosuid,nodev,exec; do
				mount -o remount,bind,$o /t 2>/dev/null && echo UNLOCKED $o; done
				umount /t/covered 2>/dev/null && echo LIFTED; touch /t/x 2>/dev/null && echo WRITTEN
				mount -t tmpfs inner /t && echo mounted`)
			h.Want(h.Run(b), "mounted", 0)
			if data, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(data), " inner ") {
				h.Errorf("the container's mount is on the host (%v)", err)
			}
		})
	}
	row(t, "M7 a source that only root reaches, and one that was mounted before", func(h *H) {
		src := h.TempDir()
		h.File(src+"/f", "reached\n", 0o644)
		os.Chmod(src, 0o711)
		os.Mkdir(src+"/closed", 0o700)
		h.File(src+"/closed/f", "reached\n", 0o644)
		b := h.Bundle().Edit(userns, idMaps(100000, 65536))
		rootfsOf(100000)(h, b)
		os.Mkdir(b.Rootfs+"/mid", 0o755)
		b.Edit(mnt("/t", "none", src+"/closed/f", "bind"), mnt("/mid", "none", src, "bind"), mnt("/u", "none", b.Rootfs+"/mid/f", "bind"))
		h.Want(h.Run(b.Sh("cat /t /u")), "reached\nreached", 0)
	})
}

// TestNoPivot: without pivot_root the host's mounts lie below the container's root, and no process can use them.
func TestNoPivot(t *testing.T) {
	row(t, "RO4 no unmasked proc", func(h *H) {
		b := h.Bundle().Edit(`process.user={"uid":1000,"gid":1000}`, `linux.maskedPaths=["/proc/keys"]`, `linux.readonlyPaths=["/proc/sys"]`)
		b.Sh(`unshare --user --map-root-user --pid --fork --mount sh -c 'mount -t proc proc /tmp && ls /tmp/keys /tmp/sys' 2>/dev/null && echo UNMASKED; true`)
		h.Want(h.Run(b, "--no-pivot"), "~^$", 0)
	})
}

// TestRootlessGroups: a process that joins a rootless container has none of the caller's supplementary groups.
func TestRootlessGroups(t *testing.T) {
	row(t, "P13 exec drops the caller's groups", func(h *H) {
		if _, err := exec.LookPath("newuidmap"); err != nil {
			h.T.Skip("newuidmap is not installed")
		}
		subordinate(h)
		// One range that is not the user's own id alone: create uses the helpers, and exec must know.
		maps := `[{"containerID":0,"hostID":300000,"size":65536}]`
		b := rootless(h, `linux.uidMappings=`+maps, `linux.gidMappings=`+maps, `-process.user`, `process.user={"uid":0,"gid":0}`).Args("sleep", "60")
		h.Write(b)
		if out, err := exec.Command("chmod", "-R", "a+rX", b.Dir).CombinedOutput(); err != nil {
			h.Fatalf("%s", out)
		}
		h.Want(asUser(h, b, "create", "-b", b.Dir, b.ID), "", 0)
		h.Want(h.Do(userCmd(h, b, "start", b.ID)), "", 0)
		c := userCmd(h, b, "exec", b.ID, "grep", "Groups", "/proc/self/status")
		c.Cred.Groups = []uint32{44, 1000}
		h.Want(h.Do(c), "Groups:", 0)
		h.Want(h.Do(userCmd(h, b, "delete", "-f", b.ID)), "", 0)
	})
}

// TestNullStream: a container that has no null device any more gets one that it cannot change, never the host's.
func TestNullStream(t *testing.T) {
	for _, how := range []string{"exec", "exec -d", "run", "create"} {
		row(t, "P15 the host's null device, "+how, func(h *H) {
			null := filepath.Join(h.TempDir(), "null")
			if err := unix.Mknod(null, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
				h.Fatalf("%v", err)
			}
			os.Chmod(null, 0o666)
			set := `["CAP_CHOWN","CAP_FOWNER","CAP_DAC_OVERRIDE"]`
			spoil := "chmod 123 /proc/self/fd/0; chown 77:77 /proc/self/fd/0; touch /done"
			b := h.Bundle().Edit(`process.capabilities={"bounding":`+set+`,"effective":`+set+`,"permitted":`+set+`}`, "mounts=[{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"}]")
			b.Args("sh", "-c", "rm -f /dev/null; "+spoil+"; sleep 60")
			if strings.HasPrefix(how, "exec") {
				b.Args("sh", "-c", "rm -f /dev/null; touch /up; sleep 60")
			}
			h.Write(b)
			script := map[string]string{"run": `"$RT" run -b "$B" "$ID" & sleep 0.5; kill $!`, "create": `"$RT" create -b "$B" "$ID" && "$RT" start "$ID"`,
				"exec":    `"$RT" run -d -b "$B" "$ID" && while ! [ -e "$B/rootfs/up" ]; do sleep 0.05; done; "$RT" exec "$ID" sh -c "$SPOIL"`,
				"exec -d": `"$RT" run -d -b "$B" "$ID" && while ! [ -e "$B/rootfs/up" ]; do sleep 0.05; done; "$RT" exec -d "$ID" sh -c "$SPOIL"`}[how]
			c := exec.Command("sh", "-c", strings.ReplaceAll(script, `"$RT" `, `"$RT" --root "$ROOT" `))
			c.Env = append(os.Environ(), "RT="+ocitest.RuntimePath(), "ROOT="+h.Root, "B="+b.Dir, "ID="+b.ID, "SPOIL="+spoil)
			f, err := os.OpenFile(null, os.O_RDWR, 0)
			if err != nil {
				h.Fatalf("%v", err)
			}
			defer f.Close()
			c.Stdin, c.Stdout, c.Stderr = f, f, f
			c.Run()
			h.Await("the program", func() bool { _, err := os.Stat(b.Rootfs + "/done"); return err == nil })
			if st, err := os.Stat(null); err != nil || st.Mode().Perm() != 0o666 || st.Sys().(*syscall.Stat_t).Uid != 0 {
				h.Errorf("the null device is now %v, owner %d (%v)", st.Mode(), st.Sys().(*syscall.Stat_t).Uid, err)
			}
			h.RT("delete", "-f", b.ID)
		})
	}
}
