package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

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
	row(t, "C28 statistics without a cgroup of its own are zeros", func(h *H) {
		b := rootless(h).Args("sleep", "60")
		h.Want(asUser(h, b, "run", "-d", "-b", b.Dir, b.ID), "", 0)
		r := asUser(h, b, "events", "--stats", b.ID)
		if r.Code != 0 || !strings.HasPrefix(r.Stdout, `{"type":"stats","id":"`+b.ID+`","data":{"cpu":{`) {
			h.Errorf("status %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
		for _, c := range []string{"pause", "ps"} {
			if r := asUser(h, b, c, b.ID); r.Code != 1 || !strings.Contains(r.Stderr, "no cgroup") {
				h.Errorf("%s: status %d: %s", c, r.Code, r.Stderr)
			}
		}
		asUser(h, b, "delete", "-f", b.ID)
		h.NoLeak("delete")
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
