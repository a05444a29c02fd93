package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

const user1000 = `process.user={"uid":1000,"gid":1000}`

// redirected calls the runtime from a shell with redirections, such as "</etc/passwd 2>&1".
func redirected(h *H, redirections string, args ...string) Result {
	sh := []string{"-c", `exec "$@" ` + redirections, "sh", ocitest.RuntimePath(), "--root", h.Root}
	return h.Do(Cmd{Path: "/bin/sh", NoRoot: true, Args: append(sh, args...)})
}

// ownerOf returns the user that owns a file of the host.
func ownerOf(h *H, path string) uint32 {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		h.Fatalf("%s: %v", path, err)
	}
	return st.Uid
}

func content(h *H, path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		h.Fatalf("%v", err)
	}
	return string(data)
}

// inBoth runs a script as a user of a container, by run and by exec, with redirections; files are made anew for both.
func inBoth(h *H, uid int, script, redirections string, check func(Result)) {
	user := fmt.Sprintf(`process.user={"uid":%[1]d,"gid":%[1]d}`, uid)
	b := h.Bundle().Edit(user).Sh(script)
	h.Write(b)
	check(redirected(h, redirections, "run", "-b", b.Dir, b.ID))
	b = h.Bundle().Edit(user).Args("sleep", "60")
	h.Up(b)
	check(redirected(h, redirections, "exec", b.ID, "sh", "-c", script))
}

func TestForegroundStreams(t *testing.T) {
	row(t, "P15 files of the caller keep their owner", func(h *H) {
		in, out, errs := h.File("in", "hello", 0o600), h.File("out", "", 0o600), h.File("err", "", 0o600)
		inBoth(h, 1000, "cat; echo out >/dev/stdout; echo err >/dev/stderr; exit 7", "<"+in+" >"+out+" 2>"+errs, func(r Result) {
			h.Want(r, "", 7)
			if got := content(h, out); got != "helloout\n" {
				h.Errorf("output %q", got)
			}
			if got := content(h, errs); got != "err\n" {
				h.Errorf("standard error %q", got)
			}
			for _, f := range []string{in, out, errs} {
				if uid := ownerOf(h, f); uid != 0 {
					h.Errorf("%s belongs to %d now", filepath.Base(f), uid)
				}
			}
		})
	})
	row(t, "P15 a file that is redirected for reading cannot be written", func(h *H) {
		in := h.File("in", "hello", 0o644)
		inBoth(h, 0, "echo broken >/proc/self/fd/0; true", "<"+in, func(r Result) {
			if got := content(h, in); got != "hello" {
				h.Errorf("the file has %q", got)
			}
		})
	})
	row(t, "P15 a file that is redirected for writing cannot be read", func(h *H) {
		out := h.File("out", "secret\n", 0o600)
		inBoth(h, 0, "timeout 1 head -n 1 /proc/self/fd/1 >&2; true", ">>"+out, func(r Result) {
			if strings.Contains(r.Stderr, "secret") {
				h.Errorf("the container reads %q", r.Stderr)
			}
		})
	})
	row(t, "P15 a directory as standard input is at its end", func(h *H) {
		dir := h.TempDir()
		h.File("x", "", 0o644)
		os.WriteFile(dir+"/canary", nil, 0o644)
		inBoth(h, 0, "ls /proc/self/fd/0/; ls /proc/self/fd/0/..; cat; echo end", "<"+dir+" 2>/dev/null", func(r Result) { h.Want(r, "end", 0) })
	})
	row(t, "P15 the terminal of the caller keeps its owner", func(h *H) {
		m, sl := pty(h)
		s := newScreen(m)
		name := sl.Name()
		before := ownerOf(h, name)
		b := h.Bundle().Edit(user1000).Sh("tty; read l; echo got $l; exit 3")
		h.Write(b)
		_, wait := h.Start(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Tty: sl})
		s.await(h, "not a tty")
		m.WriteString("line\n")
		s.await(h, "got line")
		if r := wait(); r.Code != 3 {
			h.Errorf("status %d, want 3", r.Code)
		}
		if now := ownerOf(h, name); now != before {
			h.Errorf("%s belongs to %d, was %d", name, now, before)
		}
	})
	row(t, "P15 an end of file on the terminal is one for the program", func(h *H) {
		m, sl := pty(h)
		s := newScreen(m)
		b := h.Bundle().Sh("echo ready; cat; echo end")
		h.Write(b)
		_, wait := h.Start(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Tty: sl})
		s.await(h, "ready")
		m.WriteString("last\n\x04")
		s.await(h, "last\nlast\nend")
		if r := wait(); r.Code != 0 {
			h.Errorf("status %d", r.Code)
		}
	})
	row(t, "P15 a job in the background is not stopped by its terminal", func(h *H) {
		m, sl := pty(h)
		s := newScreen(m)
		b := h.Bundle().Sh("sleep 0.5; echo out; exit 5")
		h.Write(b)
		sh := []string{"-c", `set -m; "$@" & wait $!; echo status $?`, "sh", ocitest.RuntimePath(), "--root", h.Root, "run", "-b", b.Dir, b.ID}
		_, wait := h.Start(Cmd{Path: "/bin/sh", NoRoot: true, Args: sh, Tty: sl})
		s.await(h, "out\nstatus 5\n")
		wait()
	})
	row(t, "P15 streams to one file keep their order", func(h *H) {
		out := h.File("out", "", 0o600)
		want := ""
		for i := range 50 {
			want += fmt.Sprintf("o%[1]d\ne%[1]d\n", i)
		}
		inBoth(h, 0, "i=0; while [ $i -lt 50 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done", ">"+out+" 2>&1", func(r Result) {
			if got := content(h, out); got != want {
				h.Errorf("output %q", got)
			}
		})
	})
	row(t, "P15 all of a large output", func(h *H) {
		out := h.File("out", "", 0o600)
		inBoth(h, 0, "head -c 50000000 /dev/zero; printf last; exit 5", ">"+out, func(r Result) {
			if got := content(h, out); r.Code != 5 || len(got) != 50000004 || !strings.HasSuffix(got, "last") {
				h.Errorf("status %d, %d bytes", r.Code, len(got))
			}
		})
	})
	row(t, "P15 all of a large input", func(h *H) {
		in := h.File("in", strings.Repeat("0123456789", 1000000), 0o600)
		inBoth(h, 0, "wc -c", "<"+in, func(r Result) { h.Want(r, "10000000", 0) })
	})
	row(t, "P15 an input that the program does not read", func(h *H) {
		in := h.File("in", strings.Repeat("0123456789", 1000000), 0o600)
		inBoth(h, 0, "echo end; exit 4", "<"+in, func(r Result) { h.Want(r, "end", 4) })
	})
	row(t, "P15 what a process in the background writes", func(h *H) {
		out := h.File("out", "", 0o600)
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.Want(redirected(h, ">"+out, "exec", b.ID, "sh", "-c", "(sleep 0.3; echo late) & echo first"), "", 0)
		if got := content(h, out); got != "first\nlate\n" {
			h.Errorf("output %q", got)
		}
	})
	row(t, "P15 an output that takes nothing breaks the pipe", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		begin := time.Now()
		r := redirected(h, ">/dev/full", "exec", b.ID, "cat", "/dev/zero")
		if r.Code != 128+int(syscall.SIGPIPE) && r.Code != 1 || time.Since(begin) > 10*time.Second {
			h.Errorf("status %d after %v", r.Code, time.Since(begin))
		}
	})
	row(t, "P15 a user in a user namespace can open the streams", func(h *H) {
		out := h.File("out", "", 0o600)
		b := h.Bundle().Edit(userns, idMaps(100000, 65536), user1000).Sh("echo out >/dev/stdout && echo opened >/proc/self/fd/2")
		h.Write(b)
		h.Want(redirected(h, ">"+out+" 2>&1", "run", "-b", b.Dir, b.ID), "", 0)
		if got := content(h, out); got != "out\nopened\n" {
			h.Errorf("output %q", got)
		}
	})
	row(t, "P15 a user in a joined user namespace can open the streams", func(h *H) {
		out := h.File("out", "", 0o600)
		b := h.Bundle()
		rootfsOf(100000)(h, b)
		path := fmt.Sprintf("/proc/%d/ns/user", userHolder(h))
		b.Edit(fmt.Sprintf(`linux.namespaces+=[{"type":"user","path":%q}]`, path), user1000)
		b.Sh("stat -L -c %u /proc/self/fd/1; echo out >/dev/stdout && echo opened >/proc/self/fd/2")
		h.Write(b)
		h.Want(redirected(h, ">"+out+" 2>&1", "run", "-b", b.Dir, b.ID), "", 0)
		if got := content(h, out); got != "1000\nout\nopened\n" {
			h.Errorf("output %q", got)
		}
	})
	row(t, "P15 a pipe and the null device are handed over", func(h *H) {
		r, w, err := os.Pipe()
		if err != nil {
			h.Fatalf("%v", err)
		}
		defer r.Close()
		defer w.Close()
		var st unix.Stat_t
		unix.Fstat(int(w.Fd()), &st)
		b := h.Bundle().Sh("readlink /proc/self/fd/2 >/tmp/two; cat /tmp/two; stat -L -c '%F %t:%T' /proc/self/fd/0")
		h.Write(b)
		sh := []string{"-c", `exec "$@" </dev/null 2>&3`, "sh", ocitest.RuntimePath(), "--root", h.Root, "run", "-b", b.Dir, b.ID}
		h.Want(h.Do(Cmd{Path: "/bin/sh", NoRoot: true, Args: sh, Files: []*os.File{w}}), fmt.Sprintf("pipe:[%d]\ncharacter special file 1:3", st.Ino), 0)
	})
}

func TestDetachedStreams(t *testing.T) {
	row(t, "P15 files of a detached container are handed over and keep their owner", func(h *H) {
		out := h.File("out", "", 0o666)
		b := h.Bundle().Edit(user1000).Sh("echo hello; sleep 60")
		h.Write(b)
		if r := redirected(h, ">"+out, "create", "-b", b.Dir, b.ID); r.Code != 0 {
			h.Fatalf("create: %s", r.Stderr)
		}
		h.MustRT("start", b.ID)
		h.Await("output", func() bool { return content(h, out) == "hello\n" })
		if uid := ownerOf(h, out); uid != 0 {
			h.Errorf("the file belongs to %d", uid)
		}
	})
	row(t, "P15 named pipes of a detached container belong to its user", func(h *H) {
		fifo := filepath.Join(h.TempDir(), "fifo")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			h.Fatalf("%v", err)
		}
		r, err := os.OpenFile(fifo, os.O_RDWR, 0)
		if err != nil {
			h.Fatalf("%v", err)
		}
		defer r.Close()
		b := h.Bundle().Edit(user1000).Sh("echo hello >/dev/stdout; sleep 60")
		h.Write(b)
		if r := redirected(h, ">"+fifo, "create", "-b", b.Dir, b.ID); r.Code != 0 {
			h.Fatalf("create: %s", r.Stderr)
		}
		h.MustRT("start", b.ID)
		buf := make([]byte, 6)
		r.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := r.Read(buf); string(buf[:n]) != "hello\n" {
			h.Errorf("read %q, %v", buf[:n], err)
		}
		if uid := ownerOf(h, fifo); uid != 1000 {
			h.Errorf("the pipe belongs to %d", uid)
		}
	})
	row(t, "P15 a terminal of the caller stays one and keeps its owner", func(h *H) {
		m, sl := pty(h)
		s := newScreen(m)
		before := ownerOf(h, sl.Name())
		b := h.Bundle().Edit(user1000).Sh("test -t 1 && echo terminal; sleep 60")
		h.Write(b)
		if r := h.Do(Cmd{Args: []string{"run", "-d", "-b", b.Dir, b.ID}, Tty: sl}); r.Code != 0 {
			h.Fatalf("run: %d", r.Code)
		}
		s.await(h, "terminal")
		if now := ownerOf(h, sl.Name()); now != before {
			h.Errorf("the terminal belongs to %d, was %d", now, before)
		}
	})
	row(t, "P15 a directory of a detached container is replaced", func(h *H) {
		dir := h.TempDir()
		b := h.Bundle().Sh("stat -L -c %F /proc/self/fd/0; ls /proc/self/fd/0/; cat; echo end; sleep 60")
		h.Write(b)
		r := redirected(h, "<"+dir, "create", "-b", b.Dir, b.ID)
		if r.Code != 0 || !strings.Contains(r.Stderr, "is a directory") {
			h.Errorf("status %d, %q", r.Code, r.Stderr)
		}
		h.MustRT("start", b.ID)
		h.Await("output", func() bool { return strings.Contains(r.Again().Stdout, "end") })
		if got := r.Again().Stdout; !strings.HasPrefix(got, "character special file\n") {
			h.Errorf("output %q", got)
		}
		r = redirected(h, "<"+dir, "exec", "-d", b.ID, "sh", "-c", "cat >/tmp/read; stat -L -c %F /proc/self/fd/0 >/tmp/type")
		if r.Code != 0 || !strings.Contains(r.Stderr, "is a directory") {
			h.Errorf("exec: status %d, %q", r.Code, r.Stderr)
		}
		h.Await("the program", func() bool {
			data, _ := os.ReadFile(filepath.Join(b.Rootfs, "tmp/type"))
			return string(data) == "character special file\n"
		})
	})
}
