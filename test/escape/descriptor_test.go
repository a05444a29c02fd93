package escape

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
	"golang.org/x/sys/unix"
)

// TestDescriptors looks for descriptors of the host in containers.
func TestDescriptors(t *testing.T) {
	outside := func(r Result) bool {
		return r.Code == 0 && (!strings.HasPrefix(r.Stdout, "/") || strings.Contains(r.Stdout, "unreachable"))
	}
	row(t, "CVE-2024-21626 cwd over descriptors of run", func(h *H) {
		for fd := 3; fd < 24; fd++ {
			b := h.Bundle().Edit(fmt.Sprintf(`process.cwd="/proc/self/fd/%d"`, fd)).Args("probe", "cwd")
			if r := h.Run(b); outside(r) || r.Code == 0 && !strings.HasPrefix(r.Stdout, "/ ") && !strings.HasPrefix(r.Stdout, "/proc/") {
				h.Errorf("descriptor %d: cwd is %s", fd, r.Stdout)
			}
		}
	})
	row(t, "CVE-2024-21626 cwd over a link of the image", func(h *H) {
		for fd := 3; fd < 24; fd++ {
			b := h.Bundle().Edit(`process.cwd="/link"`).Args("probe", "cwd")
			h.Place(b, "link", fmt.Sprintf("/proc/self/fd/%d", fd))
			if r := h.Run(b); outside(r) {
				h.Errorf("descriptor %d: cwd is %s", fd, r.Stdout)
			}
		}
	})
	row(t, "CVE-2024-21626 cwd over descriptors of exec", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		for fd := 3; fd < 24; fd++ {
			h.Place(b, fmt.Sprintf("link%d", fd), fmt.Sprintf("/proc/self/fd/%d", fd))
		}
		h.Up(b)
		for fd := 3; fd < 24; fd++ {
			for _, cwd := range []string{fmt.Sprintf("/proc/self/fd/%d", fd), fmt.Sprintf("/link%d", fd)} {
				if r := h.RT("exec", "--cwd", cwd, b.ID, "probe", "cwd"); outside(r) {
					h.Errorf("%s: cwd is %s", cwd, r.Stdout)
				}
			}
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
	row(t, "CVE-2024-21626 no descriptor of the caller in init and exec", func(h *H) {
		secret, err := os.Open(h.TempDir())
		if err != nil {
			h.Fatalf("%v", err)
		}
		defer secret.Close()
		files := []*os.File{secret, secret, secret}
		b := h.Bundle().Sh("ls /proc/self/fd | wc -l")
		h.Write(b)
		h.Want(h.Do(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Files: files}), "4", 0) // ls has opened the directory itself
		b = h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.Want(h.Do(Cmd{Args: []string{"exec", b.ID, "sh", "-c", "ls /proc/self/fd | wc -l"}, Files: files}), "4", 0)
	})
	row(t, "CVE-2015-3627 no descriptor of a waiting init leads out", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Create(b)
		pid := h.State(b.ID).Pid
		root, err := os.Stat(b.Rootfs)
		if err != nil {
			h.Fatalf("%v", err)
		}
		es, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		for _, e := range es {
			p := fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name())
			l, _ := os.Readlink(p)
			var fs unix.Statfs_t
			fi, err := os.Stat(p)
			if err != nil || !fi.IsDir() || os.SameFile(fi, root) || unix.Statfs(p, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC {
				continue
			}
			h.Errorf("descriptor %s is the directory %s", e.Name(), l)
		}
	})
	row(t, "issue7 A11 descriptors of LISTEN_FDS that are for another process", func(h *H) {
		secret, err := os.Open(h.File("secret", "secret", 0o600))
		if err != nil {
			h.Fatalf("%v", err)
		}
		defer secret.Close()
		up := h.Bundle().Args("sleep", "60")
		h.Up(up)
		for _, pid := range []string{"", "LISTEN_PID=1", "LISTEN_PID=4194303"} {
			env := append([]string{"PATH=/usr/bin:/bin", "LISTEN_FDS=1"}, strings.Fields(pid)...)
			script := "ls /proc/self/fd | wc -l; env | grep LISTEN"
			b := h.Bundle().Sh(script + "; true")
			h.Write(b)
			h.Want(h.Do(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Env: env, Files: []*os.File{secret}}), "4", 0)
			h.Want(h.Do(Cmd{Args: []string{"exec", up.ID, "sh", "-c", script + "; true"}, Env: env, Files: []*os.File{secret}}), "4", 0)
		}
	})
}

// attributes are the owner and mode of a file.
func attributes(h *H, path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		h.Fatalf("%v", err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d %v", st.Uid, st.Gid, fi.Mode())
}

// TestStreams has containers that do harm with the standard streams that the caller gave: issue 7, A9.
func TestStreams(t *testing.T) {
	const another = `process.user={"uid":1000,"gid":1000}`
	// with calls f with a way to start a process in the foreground: as the container's first, and as a further one.
	with := func(h *H, edit, script string, f func(what string, start func(stdio [3]*os.File) Result)) {
		f("run", func(stdio [3]*os.File) Result {
			b := h.Bundle().Sh(script)
			if edit != "" {
				b.Edit(edit)
			}
			h.Write(b)
			return h.Do(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Stdio: stdio})
		})
		up := h.Bundle().Args("sleep", "60")
		if edit != "" {
			up.Edit(edit)
		}
		h.Up(up)
		f("exec", func(stdio [3]*os.File) Result {
			return h.Do(Cmd{Args: []string{"exec", up.ID, "sh", "-c", script}, Stdio: stdio})
		})
	}
	row(t, "issue7 A9 files of the caller keep their owner", func(h *H) {
		with(h, another, "echo x; cat >/dev/null; echo y >&2", func(what string, start func([3]*os.File) Result) {
			in, out, errs := h.File("in", "x", 0o644), h.File("out", "", 0o644), h.File("err", "", 0o644)
			var stdio [3]*os.File
			var before []string
			for i, p := range []string{in, out, errs} {
				f, err := os.OpenFile(p, os.O_RDWR, 0)
				if err != nil {
					h.Fatalf("%v", err)
				}
				defer f.Close()
				stdio[i] = f
				before = append(before, attributes(h, p))
			}
			start(stdio)
			for i, p := range []string{in, out, errs} {
				if now := attributes(h, p); now != before[i] {
					h.Errorf("%s: stream %d was %s and is %s", what, i, before[i], now)
				}
			}
			if data, _ := os.ReadFile(out); strings.TrimSpace(string(data)) != "x" {
				h.Errorf("%s: the output is %q", what, data)
			}
		})
	})
	row(t, "issue7 A9 files of the caller of a detached container keep their owner", func(h *H) {
		p := h.File("log", "", 0o644)
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		if err != nil {
			h.Fatalf("%v", err)
		}
		defer f.Close()
		before := attributes(h, p)
		b := h.Bundle().Sh("echo x; sleep 60").Edit(another)
		h.Write(b)
		h.Want(h.Do(Cmd{Args: []string{"run", "-d", "-b", b.Dir, b.ID}, Stdio: [3]*os.File{nil, f, f}}), "", 0)
		if now := attributes(h, p); now != before {
			h.Errorf("the file was %s and is %s", before, now)
		}
	})
	row(t, "issue7 A9 devices of the caller keep their owner", func(h *H) {
		dir := h.TempDir()
		with(h, another, "echo x", func(what string, start func([3]*os.File) Result) {
			zero := dir + "/zero" + what
			if out, err := cmd("mknod", "-m", "600", zero, "c", "1", "5"); err != nil {
				h.Fatalf("mknod: %v: %s", err, out)
			}
			f, err := os.OpenFile(zero, os.O_RDWR, 0)
			if err != nil {
				h.Fatalf("%v", err)
			}
			defer f.Close()
			before := attributes(h, zero)
			start([3]*os.File{f, f, f})
			if now := attributes(h, zero); now != before {
				h.Errorf("%s: the device was %s and is %s", what, before, now)
			}
		})
	})
	row(t, "issue7 A9 the caller's terminal keeps its owner", func(h *H) {
		with(h, another, "echo x", func(what string, start func([3]*os.File) Result) {
			master, slave := ocitest.PTY(h)
			defer master.Close()
			defer slave.Close()
			before := attributes(h, slave.Name())
			start([3]*os.File{slave, slave, slave})
			if now := attributes(h, slave.Name()); now != before {
				h.Errorf("%s: the terminal was %s and is %s", what, before, now)
			}
		})
	})
	row(t, "issue7 A9 a file that was opened for reading is not opened for writing", func(h *H) {
		with(h, "", "cat; echo hacked >/proc/self/fd/0", func(what string, start func([3]*os.File) Result) {
			p := h.File("in", "canary", 0o644)
			f, err := os.Open(p)
			if err != nil {
				h.Fatalf("%v", err)
			}
			defer f.Close()
			if r := start([3]*os.File{f, nil, nil}); r.Stdout != "canary" {
				h.Errorf("%s: the program read %q (%s)", what, r.Stdout, r.Stderr)
			}
			if data, _ := os.ReadFile(p); string(data) != "canary" {
				h.Errorf("%s: the caller's file has become %q", what, data)
			}
		})
	})
	row(t, "issue7 A9 a file that was opened for writing is not read", func(h *H) {
		with(h, "", "echo x; timeout 1 cat /proc/$$/fd/1 >&2; true", func(what string, start func([3]*os.File) Result) {
			f, err := os.OpenFile(h.File("log", "earlier secret\n", 0o644), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				h.Fatalf("%v", err)
			}
			defer f.Close()
			if r := start([3]*os.File{nil, f, nil}); strings.Contains(r.Stderr, "secret") {
				h.Errorf("%s: the container read what was in the log before", what)
			}
		})
	})
	row(t, "issue7 A9 a directory as stdin leads nowhere", func(h *H) {
		dir := h.TempDir()
		h.File(dir+"/secret", "secret", 0o644)
		with(h, "", "cd /proc/self/fd/0 && cat secret; cat /proc/self/fd/0/secret /dev/stdin/secret", func(what string, start func([3]*os.File) Result) {
			for _, flags := range []int{unix.O_RDONLY | unix.O_DIRECTORY, unix.O_PATH | unix.O_DIRECTORY} {
				fd, err := unix.Open(dir, flags|unix.O_CLOEXEC, 0)
				if err != nil {
					h.Fatalf("%v", err)
				}
				f := os.NewFile(uintptr(fd), dir)
				if r := start([3]*os.File{f, nil, nil}); strings.Contains(r.Stdout, "secret") {
					h.Errorf("%s: the container reads the host's directory", what)
				}
				f.Close()
			}
		})
	})
	row(t, "issue7 A9 a directory as stdin of a detached container leads nowhere", func(h *H) {
		dir := h.TempDir()
		h.File(dir+"/secret", "secret", 0o644)
		f, err := os.Open(dir)
		if err != nil {
			h.Fatalf("%v", err)
		}
		defer f.Close()
		b := h.Bundle().Sh("cat /proc/self/fd/0/secret; sleep 60")
		h.Write(b)
		if r := h.Do(Cmd{Args: []string{"run", "-d", "-b", b.Dir, b.ID}, Stdio: [3]*os.File{f, nil, nil}}); r.Code == 0 {
			h.Await("the attempt", func() bool { r := r.Again(); return r.Stdout+r.Stderr != "" })
			if strings.Contains(r.Again().Stdout, "secret") {
				h.Errorf("the container reads the host's directory")
			}
		}
	})
}
