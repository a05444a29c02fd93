package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const user = 1000

// rootless makes a bundle as `spec --rootless` does, all of it the user's.
func rootless(h *H, edits ...string) *Bundle {
	b := h.Bundle().Edit(`-linux.resources`, `-linux.cgroupsPath`, `linux.namespaces=[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"user"}]`,
		`linux.uidMappings=[{"containerID":0,"hostID":1000,"size":1}]`, `linux.gidMappings=[{"containerID":0,"hostID":1000,"size":1}]`,
		`mounts=[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
			{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620"]},
			{"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=65536k"]},
			{"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},
			{"destination":"/sys","type":"none","source":"/sys","options":["rbind","nosuid","noexec","nodev","ro"]}]`)
	b.Edit(edits...)
	return b
}

// asUser gives the case's directories to the user and calls the runtime as that user.
func asUser(h *H, b *Bundle, args ...string) Result {
	h.Write(b)
	if err := os.MkdirAll(h.Root, 0o700); err != nil {
		h.Fatalf("%v", err)
	}
	if out, err := exec.Command("chown", "-R", "-h", "1000:1000", b.Dir, h.Root).CombinedOutput(); err != nil {
		h.Fatalf("chown: %s", out)
	}
	return h.Do(userCmd(h, b, args...))
}

func userCmd(_ *H, b *Bundle, args ...string) Cmd {
	return Cmd{Args: args, Dir: b.Dir, Cred: &syscall.Credential{Uid: user, Gid: user, NoSetGroups: false}, Env: []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/nonexistent"}}
}

func TestRootless(t *testing.T) {
	row(t, "U4 run", func(h *H) {
		b := rootless(h).Sh("id -u; cat /proc/self/uid_map | tr -s ' '; cat /proc/self/setgroups; hostname; echo x >/dev/null && touch /made")
		h.Want(asUser(h, b, "run", "-b", b.Dir, b.ID), "~^0\n 0 1000 1\ndeny\nbase$", 0)
		if fi, err := os.Stat(filepath.Join(b.Rootfs, "made")); err != nil || fi.Sys().(*syscall.Stat_t).Uid != user {
			h.Errorf("the file made inside: %v %v", fi, err)
		}
	})
	row(t, "U4 life cycle", func(h *H) {
		b := rootless(h).Args("sleep", "60")
		h.Want(asUser(h, b, "create", "-b", b.Dir, b.ID), "", 0)
		for _, args := range [][]string{{"start", b.ID}, {"state", b.ID}, {"list", "-q"}, {"exec", b.ID, "true"}, {"kill", b.ID, "KILL"}} {
			h.Want(h.Do(userCmd(h, b, args...)), "", 0)
		}
		h.Await("stopped", func() bool { return strings.Contains(h.Do(userCmd(h, b, "state", b.ID)).Stdout, `"stopped"`) })
		h.Want(h.Do(userCmd(h, b, "delete", b.ID)), "", 0)
		h.NoLeak("delete")
	})
	row(t, "U4 hooks and exec before start", func(h *H) {
		b := rootless(h).Args("sleep", "60")
		dir := h.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			h.Fatalf("%v", err)
		}
		b.Edit(mnt("/log", "none", dir, "bind"))
		addHook(b, "createContainer", "id -u; hostname >"+dir+"/1; readlink /proc/self/ns/uts >>"+dir+"/1")
		addHook(b, "startContainer", "{ hostname; readlink /proc/self/ns/uts; grep CapEff /proc/self/status; } >/log/2")
		h.Want(asUser(h, b, "create", "-b", b.Dir, b.ID), "", 0)
		uts := nsID(h, h.State(b.ID).Pid, "uts")
		for range 2 {
			h.Want(h.Do(userCmd(h, b, "exec", b.ID, "sh", "-c", "id -u; hostname; readlink /proc/self/ns/uts; cat /proc/1/environ 2>/dev/null | wc -c")), "0\nbase\n"+uts+"\n0", 0)
		}
		h.Want(h.Do(userCmd(h, b, "start", b.ID)), "", 0)
		if got, want := content(h, dir+"/1"), "base\n"+uts+"\n"; got != want {
			h.Errorf("createContainer: %q, want %q", got, want)
		}
		if got, want := content(h, dir+"/2"), "base\n"+uts+"\nCapEff:\t00000000a80425fb\n"; got != want {
			h.Errorf("startContainer: %q, want %q", got, want)
		}
		h.Want(h.Do(userCmd(h, b, "exec", b.ID, "hostname")), "base", 0)
		h.Want(h.Do(userCmd(h, b, "delete", "-f", b.ID)), "", 0)
		h.NoLeak("delete")
	})
	row(t, "U4 run with hooks", func(h *H) {
		b := rootless(h).Args("echo", "ran")
		addHook(b, "createContainer", "true")
		addHook(b, "startContainer", "true")
		h.Want(asUser(h, b, "run", "-b", b.Dir, b.ID), "ran", 0)
		h.NoLeak("the end")
	})
	row(t, "C28 limits without a writable cgroup", func(h *H) {
		b := rootless(h, `linux.resources.pids={"limit":5}`)
		if r := asUser(h, b, "run", "-b", b.Dir, b.ID); r.Code == 0 || r.Stderr == "" {
			h.Errorf("status %d: a limit that cannot be set was ignored", r.Code)
		}
		h.NoLeak("the error")
	})
	row(t, "C28 a path without a writable cgroup", func(h *H) {
		b := rootless(h)
		b.Edit(`linux.cgroupsPath="/` + b.ID + `"`)
		if r := asUser(h, b, "run", "-b", b.Dir, b.ID); r.Code == 0 || !strings.Contains(r.Stderr, "permission denied") {
			h.Errorf("status %d, %q: a path that cannot be made was ignored", r.Code, r.Stderr)
		}
		h.NoLeak("the error")
	})
	row(t, "C28 the cgroup mount without a cgroup of its own", func(h *H) {
		for typ, want := range map[string]string{"cgroup": "~^(27e0eb|63677270)\n0$", "cgroup2": "~^63677270\n0$"} {
			b := rootless(h, strings.Replace(onC(typ), "\"nosuid\"", "\"ro\"", 1)).Sh(
				"cd /c; [ -e cgroup.procs ] || cd pids; stat -f -c %t .; mkdir x 2>/dev/null && echo made; echo 0")
			h.Want(asUser(h, b, "run", "-b", b.Dir, b.ID), want, 0)
		}
		b := rootless(h, onC("cgroup")).Sh("mkdir /c/x /c/pids/x 2>/dev/null; [ -e /c/pids/cgroup.procs ] || [ -e /c/cgroup.procs ] && echo there")
		if r := asUser(h, b, "run", "-b", b.Dir, b.ID); r.Stdout != "there\n" || !strings.Contains(r.Stderr, "read-only") {
			h.Errorf("status %d: %q, %q", r.Code, r.Stdout, r.Stderr)
		}
	})
	row(t, "P13 additional groups without setgroups", func(h *H) {
		b := rootless(h, `process.user={"uid":0,"gid":0,"additionalGids":[5]}`)
		if r := asUser(h, b, "run", "-b", b.Dir, b.ID); r.Code == 0 {
			h.Errorf("status 0")
		}
		h.NoLeak("the error")
	})
	row(t, "U4 somebody else's uid", func(h *H) {
		b := rootless(h, `linux.uidMappings=[{"containerID":0,"hostID":0,"size":1}]`)
		if r := asUser(h, b, "run", "-b", b.Dir, b.ID); r.Code == 0 {
			h.Errorf("status 0: root's uid was mapped")
		}
		h.NoLeak("the error")
	})
	row(t, "U4 no user namespace", func(h *H) {
		b := rootless(h, `linux.namespaces=[{"type":"pid"},{"type":"mount"}]`, `-linux.uidMappings`, `-linux.gidMappings`, `-hostname`)
		if r := asUser(h, b, "run", "-b", b.Dir, b.ID); r.Code == 0 || r.Stderr == "" {
			h.Errorf("status %d: %s", r.Code, r.Stderr)
		}
		h.NoLeak("the error")
	})
	row(t, "CVE-2023-25809 the host's cgroups are not writable", func(h *H) {
		b := rootless(h).Sh("for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do [ -e $f ] && echo 0 >$f && echo WROTE $f; done 2>/dev/null; true")
		h.Want(asUser(h, b, "run", "-b", b.Dir, b.ID), "~^$", 0)
	})
	row(t, "U4 ranges of newuidmap", func(h *H) {
		if _, err := exec.LookPath("newuidmap"); err != nil {
			h.T.Skip("newuidmap is not installed")
		}
		subordinate(h)
		maps := `[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":300000,"size":65536}]`
		b := rootless(h, `linux.uidMappings=`+maps, `linux.gidMappings=`+maps, `process.user={"uid":5,"gid":6,"additionalGids":[7]}`)
		b.Sh("id -u; cat /proc/self/uid_map | tr -s ' '; cat /proc/self/setgroups")
		h.Want(asUser(h, b, "run", "-b", b.Dir, b.ID), "~^5\n 0 1000 1\n 1 300000 65536\nallow$", 0)
	})
}

// subordinate lets user 1000 map 300000 and the next 65536 ids: it mounts files over those of /etc, in the suite's own mount
// namespace, for the time of the case.
func subordinate(h *H) {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		h.Fatalf("%v", err)
	}
	etc := h.TempDir()
	for _, c := range [][]string{{"cp", "-a", "/etc/.", etc}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			h.Fatalf("%v: %s", c, out)
		}
	}
	h.File(etc+"/passwd", string(passwd)+"sub:x:1000:1000::/:/bin/sh\n", 0o644)
	h.File(etc+"/subuid", "sub:300000:65536\n", 0o644)
	h.File(etc+"/subgid", "sub:300000:65536\n", 0o644)
	if err := unix.Mount(etc, "/etc", "", unix.MS_BIND, ""); err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() { unix.Unmount("/etc", unix.MNT_DETACH) })
}
