package criu

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// roundTrip dumps the running container b and makes it again.
func roundTrip(h *H, b *Bundle, flags ...string) {
	images := checkpoint(h, b, flags...)
	at := count(b)
	restore(h, b, images, flags...)
	awaitCount(h, b, at)
}

// start runs b with the counter, after the commands of prepare.
func start(h *H, b *Bundle, prepare string) {
	h.Up(b.Sh(prepare + "\n" + counter))
	awaitCount(h, b, 3)
}

// status is a line of /proc/PID/status of the container's first process.
func status(h *H, b *Bundle, key string) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.State(b.ID).Pid))
	if err != nil {
		h.Fatalf("%v", err)
	}
	for _, l := range strings.Split(string(data), "\n") {
		if v, ok := strings.CutPrefix(l, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// mounts is the table of mounts of the container's first process without numbers that differ every time.
func mounts(h *H, b *Bundle) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", h.State(b.ID).Pid))
	if err != nil {
		h.Fatalf("%v", err)
	}
	var list []string
	for _, l := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		before, after, _ := strings.Cut(l, " - ")
		f := strings.Fields(before)
		g := strings.Fields(after)
		list = append(list, strings.Join(f[3:6], " ")+" "+g[0]+" "+g[2])
	}
	sort.Strings(list)
	return strings.Join(list, "\n")
}

func binds(h *H) []specs.Mount {
	dir := h.TempDir()
	for _, d := range []string{"ro", "rw", "ro/below"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			h.Fatalf("%v", err)
		}
	}
	h.File(filepath.Join(dir, "file"), "file\n", 0o644)
	return []specs.Mount{
		{Destination: "/data/ro", Source: filepath.Join(dir, "ro"), Options: []string{"bind", "ro", "nosuid"}},
		{Destination: "/data/rw", Source: filepath.Join(dir, "rw"), Options: []string{"rbind", "noexec"}},
		{Destination: "/etc/file", Source: filepath.Join(dir, "file"), Options: []string{"bind", "ro"}},
		{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m", "nodev"}},
	}
}

func TestRestore(t *testing.T) {
	needCriu(t)
	row(t, "mounts, credentials and limits are as before", func(h *H) {
		b := h.Bundle().Edit(`linux.resources.pids={"limit":77}`, `process.rlimits=[{"type":"RLIMIT_NOFILE","hard":500,"soft":400}]`)
		b.Spec.Mounts = append(b.Spec.Mounts, binds(h)...)
		start(h, b, "echo kept >/scratch/file; exec 5</etc/file")
		table, caps := mounts(h, b), status(h, b, "CapEff")+status(h, b, "CapBnd")
		roundTrip(h, b)
		if got := mounts(h, b); got != table {
			h.Errorf("mounts before:\n%s\nafter:\n%s", table, got)
		}
		if got := status(h, b, "CapEff") + status(h, b, "CapBnd"); got != caps {
			h.Errorf("capabilities %s, before %s", got, caps)
		}
		if n := status(h, b, "NoNewPrivs"); n != "1" {
			h.Errorf("NoNewPrivs %s", n)
		}
		h.Want(h.RT("exec", b.ID, "cat", "/scratch/file", "/etc/file"), "kept\nfile", 0)
		if r := h.RT("exec", b.ID, "touch", "/data/ro/x"); r.Code == 0 {
			h.Errorf("the read-only bind can be written")
		}
		h.Want(h.RT("exec", b.ID, "touch", "/data/rw/x"), "", 0)
		if got := h.CgroupFile(h.State(b.ID).Pid, "pids", "pids.max"); got != "77" {
			h.Errorf("pids.max %s", got)
		}
	})
	row(t, "again and again", func(h *H) {
		b := h.Bundle()
		start(h, b, "")
		for range 3 {
			roundTrip(h, b)
		}
	})
	row(t, "pre-dump and parent", func(h *H) {
		b := h.Bundle()
		start(h, b, "")
		dir := h.TempDir()
		call(h, "checkpoint", "--pre-dump", "--image-path", filepath.Join(dir, "pre0"), b.ID)
		call(h, "checkpoint", "--pre-dump", "--image-path", filepath.Join(dir, "pre1"), "--parent-path", "../pre0", b.ID)
		awaitCount(h, b, count(b))
		call(h, "checkpoint", "--image-path", filepath.Join(dir, "last"), "--parent-path", "../pre1", b.ID)
		at := count(b)
		restore(h, b, filepath.Join(dir, "last"))
		awaitCount(h, b, at)
		h.FailRT("invalid --parent-path", "checkpoint", "--image-path", filepath.Join(dir, "x"), "--parent-path", "../none", b.ID)
		h.FailRT("--parent-path must be relative", "checkpoint", "--image-path", filepath.Join(dir, "x"), "--parent-path", dir, b.ID)
	})
	row(t, "user of its own", func(h *H) {
		b := h.Bundle().Edit(`process.user={"uid":1000,"gid":1001,"additionalGids":[1002]}`, "-process.capabilities")
		os.Chmod(b.Rootfs, 0o777)
		start(h, b, "")
		before := status(h, b, "Uid") + status(h, b, "Gid") + status(h, b, "Groups")
		roundTrip(h, b)
		if got := status(h, b, "Uid") + status(h, b, "Gid") + status(h, b, "Groups"); got != before {
			h.Errorf("ids %s, before %s", got, before)
		}
	})
	row(t, "cgroup namespace", func(h *H) {
		b := h.Bundle().Edit(`linux.namespaces+=[{"type":"cgroup"}]`)
		start(h, b, "")
		before := h.MustRT("exec", b.ID, "cat", "/proc/self/cgroup").Stdout
		roundTrip(h, b)
		h.Want(h.RT("exec", b.ID, "cat", "/proc/self/cgroup"), strings.TrimSpace(before), 0)
	})
	row(t, "user namespace", func(h *H) {
		b := h.Bundle().Edit(`linux.namespaces+=[{"type":"user"}]`, `linux.uidMappings=[{"containerID":0,"hostID":100000,"size":1000}]`,
			`linux.gidMappings=[{"containerID":0,"hostID":100000,"size":1000}]`)
		os.Chown(b.Rootfs, 100000, 100000)
		defer syscall.Umask(syscall.Umask(0)) // criu opens the files that are the standard streams again, as the container's root
		start(h, b, "")
		roundTrip(h, b)
		if got := status(h, b, "Uid"); !strings.HasPrefix(got, "100000\t") {
			h.Errorf("uid %s", got)
		}
	})
	row(t, "network namespace by path", func(h *H) {
		ns := h.Bundle().Args("sleep", "1000")
		h.Up(ns)
		path := fmt.Sprintf("/proc/%d/ns/net", h.State(ns.ID).Pid)
		b := h.Bundle().Edit(`linux.namespaces=[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"network","path":"` + path + `"}]`)
		start(h, b, "")
		roundTrip(h, b)
		want, _ := os.Readlink(path)
		if got, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.State(b.ID).Pid)); got != want {
			h.Errorf("network namespace %s, not %s", got, want)
		}
	})
	row(t, "several processes and a pipe", func(h *H) {
		b := h.Bundle()
		start(h, b, "sleep 1000 & sh -c 'while read l; do echo $l >/piped; done' </dev/zero & mkfifo /fifo; cat /fifo & exec 6>/fifo")
		n := len(strings.Fields(h.MustRT("ps", "--format", "json", b.ID).Stdout))
		roundTrip(h, b)
		if got := len(strings.Fields(h.MustRT("ps", "--format", "json", b.ID).Stdout)); got < n-1 || got > n+1 {
			h.Errorf("%d processes, before %d", got, n)
		}
	})
	row(t, "paused", func(h *H) {
		b := h.Bundle()
		start(h, b, "")
		h.MustRT("pause", b.ID)
		roundTrip(h, b)
	})
}

func TestRestoreStreams(t *testing.T) {
	needCriu(t)
	row(t, "foreground", func(h *H) {
		b := h.Bundle().Sh(`i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo $i >/count; [ -e /stop ] && break; usleep 20000; done; echo out; exit 7`)
		h.Up(b)
		awaitCount(h, b, 3)
		images := checkpoint(h, b)
		at := count(b)
		_, wait := h.Start(ocitest.Cmd{Args: []string{"restore", "--bundle", b.Dir, "--image-path", images, b.ID}, Timeout: time.Minute})
		h.Await("the counter to go on, or the end", func() bool { _, err := os.Stat(filepath.Join(h.Root, b.ID)); return count(b) > at || err != nil })
		h.File(filepath.Join(b.Rootfs, "stop"), "", 0o644)
		if r := wait(); r.Code != 7 {
			h.Errorf("status %d: %s%s", r.Code, r.Stdout, r.Stderr)
		} else if r.Stdout != "out\n" {
			h.Errorf("output %q", r.Stdout)
		}
		h.NoLeak("the end")
	})
	row(t, "foreground with pipes", func(h *H) {
		b := h.Bundle().Sh(`i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo $i >/count; [ -e /stop ] && break; usleep 20000; done; echo out; exit 7`)
		h.Write(b)
		sh := func(args string) func() ocitest.Result {
			_, wait := h.Start(ocitest.Cmd{Path: "/bin/sh", NoRoot: true, Timeout: time.Minute,
				Args: []string{"-c", "echo in | " + ocitest.RuntimePath() + " --root " + h.Root + " " + args + " 2>&1 | cat"}})
			return wait
		}
		first := sh("run --bundle " + b.Dir + " " + b.ID)
		awaitCount(h, b, 3)
		images := checkpoint(h, b)
		first()
		at := count(b)
		second := sh("restore --bundle " + b.Dir + " --image-path " + images + " " + b.ID)
		awaitCount(h, b, at)
		h.File(filepath.Join(b.Rootfs, "stop"), "", 0o644)
		if r := second(); r.Stdout != "out\n" {
			h.Errorf("output %q", r.Stdout)
		}
		h.NoLeak("the end")
	})
	row(t, "terminal", func(h *H) {
		b := h.Bundle().Edit("process.terminal=true")
		path, terminal := consoleSocket(h)
		b.Sh(`stty -echo; echo $$; while read line; do echo "got $line"; echo 1 >>/lines; done`)
		h.Create(b, "--console-socket", path)
		h.MustRT("start", b.ID)
		first := terminal()
		fmt.Fprintln(first, "one")
		h.Await("a line", func() bool { _, err := os.Stat(filepath.Join(b.Rootfs, "lines")); return err == nil })
		images := checkpoint(h, b)
		first.Close()
		path, terminal = consoleSocket(h)
		restore(h, b, images, "--console-socket", path)
		second := terminal()
		defer second.Close()
		fmt.Fprintln(second, "two")
		var said strings.Builder
		buf := make([]byte, 1000)
		second.SetReadDeadline(time.Now().Add(10 * time.Second))
		for !strings.Contains(said.String(), "got two") {
			n, err := second.Read(buf)
			said.Write(buf[:n])
			if err != nil {
				h.Fatalf("terminal after restore: %q, %v", said.String(), err)
			}
		}
	})
}

// consoleSocket listens for a terminal.
func consoleSocket(h *H) (string, func() *os.File) {
	path := filepath.Join(h.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() { l.Close() })
	return path, func() *os.File {
		l.SetDeadline(time.Now().Add(30 * time.Second))
		c, err := l.AcceptUnix()
		if err != nil {
			h.Fatalf("no terminal: %v", err)
		}
		defer c.Close()
		oob := make([]byte, 100)
		_, n, _, _, err := c.ReadMsgUnix(make([]byte, 100), oob)
		if err != nil {
			h.Fatalf("no terminal: %v", err)
		}
		messages, err := syscall.ParseSocketControlMessage(oob[:n])
		if err != nil || len(messages) != 1 {
			h.Fatalf("no terminal: %v", err)
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			h.Fatalf("no terminal: %v", err)
		}
		syscall.SetNonblock(fds[0], true)
		return os.NewFile(uintptr(fds[0]), "terminal")
	}
}

func TestRestoreHooks(t *testing.T) {
	needCriu(t)
	row(t, "prestart and createRuntime", func(h *H) {
		b := h.Bundle()
		out := filepath.Join(h.TempDir(), "out")
		hook := func(name string) []specs.Hook {
			return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo " + name + " $(cat) >>" + out}}}
		}
		b.Spec.Hooks = &specs.Hooks{Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), CreateContainer: nil,
			Poststart: hook("poststart"), Poststop: hook("poststop")}
		start(h, b, "")
		os.Remove(out)
		images := checkpoint(h, b)
		data, _ := os.ReadFile(out)
		if s := string(data); !strings.HasPrefix(s, "poststop ") || strings.Count(s, "\n") != 1 {
			h.Errorf("hooks of checkpoint: %q", s)
		}
		os.Remove(out)
		restore(h, b, images)
		data, _ = os.ReadFile(out)
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		if len(lines) != 2 || !strings.HasPrefix(lines[0], "prestart {") || !strings.HasPrefix(lines[1], "createRuntime {") ||
			!strings.Contains(lines[1], fmt.Sprintf(`"pid":%d`, h.State(b.ID).Pid)) {
			h.Errorf("hooks of restore: %q", data)
		}
	})
	row(t, "one that fails", func(h *H) {
		b := h.Bundle()
		start(h, b, "")
		images := checkpoint(h, b)
		b.Spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
		h.Write(b)
		refused(h, b, images, "error running createRuntime hook #0: exit status 1")
	})
}

func TestCheckpointRefused(t *testing.T) {
	needCriu(t)
	row(t, "created and stopped", func(h *H) {
		b := h.Bundle().Args("true")
		h.Create(b)
		images := filepath.Join(h.TempDir(), "images")
		h.FailRT("container cannot be checkpointed in created state", "checkpoint", "--image-path", images, b.ID)
		h.MustRT("start", b.ID)
		h.AwaitStatus(b.ID, "stopped")
		h.FailRT("container cannot be checkpointed in stopped state", "checkpoint", "--image-path", images, b.ID)
		if _, err := os.Stat(images); err == nil {
			h.Errorf("a directory of images was made")
		}
	})
	row(t, "what criu cannot dump says so and the container runs on", func(h *H) {
		b := h.Bundle()
		b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Destination: "/a]:b", Source: h.TempDir(), Options: []string{"bind"}})
		start(h, b, "")
		images := filepath.Join(h.TempDir(), "images")
		h.FailRT(`criu cannot name a place with brackets`, "checkpoint", "--image-path", images, b.ID)
		awaitCount(h, b, count(b))
	})
	row(t, "no images", func(h *H) {
		b := h.Bundle()
		h.Write(b)
		refused(h, b, filepath.Join(h.TempDir(), "none"), "find images")
		refused(h, b, h.TempDir(), "the images describe 0 mount namespaces")
	})
	row(t, "a container of the name is there", func(h *H) {
		b := h.Bundle()
		start(h, b, "")
		images := checkpoint(h, b, "--leave-running")
		h.FailRT("container with given ID already exists", "restore", "-d", "--bundle", b.Dir, "--image-path", images, b.ID)
		awaitCount(h, b, count(b))
	})
}

// refused restores b from images, which must fail with a sentence that has want, and leave nothing behind.
func refused(h *H, b *Bundle, images, want string) {
	r := h.Do(ocitest.Cmd{Args: []string{"restore", "-d", "--bundle", b.Dir, "--image-path", images, b.ID}, Timeout: time.Minute})
	if r.Code == 0 || !strings.Contains(strings.ReplaceAll(r.Stderr, `\"`, `"`), want) {
		h.Errorf("restore: status %d: %s; want %q", r.Code, r.Stderr, want)
	}
	at := count(b)
	time.Sleep(100 * time.Millisecond)
	if now := count(b); now != at {
		h.Errorf("after %q the counter goes on: %d, %d", want, at, now)
	}
	h.FailRT("container does not exist", "state", b.ID)
	h.NoLeak("a restore that failed: " + want)
}
