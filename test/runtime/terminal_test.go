package runtime

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// screen collects what comes out of a terminal.
type screen struct {
	mu   sync.Mutex
	text string
	f    *os.File
}

func newScreen(f *os.File) *screen {
	s := &screen{f: f}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := f.Read(buf)
			s.mu.Lock()
			s.text += string(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) read() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.ReplaceAll(s.text, "\r", "")
}

func (s *screen) await(h *H, want string) {
	h.Await(fmt.Sprintf("%q on the terminal", want), func() bool { return strings.Contains(s.read(), want) })
}

const terminal = `process.terminal=true`

var terminalErrors = []Case{
	{Row: "P2 detached without a socket", Edit: []string{terminal}, Flags: []string{"-d"}, Err: "console"},
	{Row: "P2 socket without a terminal", Flags: []string{"-d", "--console-socket", "/no/such"}, Err: "console"},
	{Row: "P2 socket that is not there", Edit: []string{terminal}, Flags: []string{"-d", "--console-socket", "/no/such"}, Err: "/no/such"},
	{Row: "P4 size is ignored without a terminal", Edit: []string{`process.consoleSize={"height":25,"width":80}`}, Args: []string{"tty"}, Code: 1, Out: "not a tty"},
}

func TestTerminal(t *testing.T) {
	runCases(t, terminalErrors)
	row(t, "P2 console socket of create", func(h *H) {
		path, term := consoleSocket(h)
		b := h.Bundle().Edit(terminal, `process.consoleSize={"height":25,"width":81}`)
		b.Sh("tty; test -c /dev/console && echo console; stty size; stat -c %u /dev/pts/0; read line; echo got $line; trap 'exit 0' INT; while :; do sleep 0.05; done")
		h.Create(b, "--console-socket", path)
		s := newScreen(term())
		h.MustRT("start", b.ID)
		s.await(h, "/dev/pts/0\nconsole\n25 81\n0\n")
		io.WriteString(s.f, "hello\n")
		s.await(h, "got hello")
		s.f.Write([]byte{3}) // the terminal is the controlling one: ^C reaches the program
		h.AwaitStatus(b.ID, "stopped")
	})
	row(t, "P2 console socket of a user in a user namespace", func(h *H) {
		path, term := consoleSocket(h)
		b := h.Bundle().Edit(terminal, userns, idMaps(100000, 65536), `process.user={"uid":1000,"gid":1000}`)
		b.Sh("stat -c %u /dev/pts/0; echo x >/dev/console && echo written; sleep 60")
		h.Create(b, "--console-socket", path)
		s := newScreen(term())
		h.MustRT("start", b.ID)
		s.await(h, "1000\nx\nwritten")
	})
	row(t, "P2 run -d with a console socket", func(h *H) {
		path, term := consoleSocket(h)
		b := h.Bundle().Edit(terminal).Sh("echo hi; sleep 60")
		h.Want(h.Run(b, "-d", "--console-socket", path), "", 0)
		newScreen(term()).await(h, "hi")
	})
	row(t, "P2 exec with a console socket", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		path, term := consoleSocket(h)
		pid := filepath.Join(h.TempDir(), "pid")
		h.Want(h.RT("exec", "-t", "-d", "--console-socket", path, "--pid-file", pid, b.ID, "sh", "-c", "tty; read l; echo end"), "", 0)
		s := newScreen(term())
		s.await(h, "/dev/pts/")
		io.WriteString(s.f, "\n")
		s.await(h, "end")
		data, _ := os.ReadFile(pid)
		var n int
		fmt.Sscan(string(data), &n)
		unix.Wait4(n, nil, 0, nil)
	})
	row(t, "P2 foreground run", func(h *H) {
		m, sl := pty(h)
		unix.IoctlSetWinsize(int(sl.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 31, Col: 99})
		b := h.Bundle().Edit(terminal).Sh("tty; stty size; read l; echo got $l; stty size; exit 9")
		h.Write(b)
		s := newScreen(m)
		_, wait := h.Start(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Tty: sl})
		s.await(h, "/dev/pts/0\n31 99\n")
		unix.IoctlSetWinsize(int(m.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 120})
		time.Sleep(100 * time.Millisecond) // the resize is a signal to the runtime, nothing tells when it was handled
		io.WriteString(m, "line\n")
		s.await(h, "got line\n40 120\n")
		if r := wait(); r.Code != 9 {
			h.Errorf("status %d, want 9", r.Code)
		}
	})
	row(t, "P2 foreground exec", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		m, sl := pty(h)
		s := newScreen(m)
		_, wait := h.Start(Cmd{Args: []string{"exec", "-t", b.ID, "sh", "-c", "tty; exit 4"}, Tty: sl})
		s.await(h, "/dev/pts/")
		if r := wait(); r.Code != 4 {
			h.Errorf("status %d, want 4", r.Code)
		}
	})
	row(t, "P2 a newline of a foreground terminal stays one", func(h *H) {
		// runc wants one of its streams to be a terminal; the output goes elsewhere.
		_, sl := pty(h)
		call := func(args ...string) Result {
			sh := []string{"-c", `exec "$@" <&3`, "sh", ocitest.RuntimePath(), "--root", h.Root}
			return h.Do(Cmd{Path: "/bin/sh", NoRoot: true, Args: append(sh, args...), Files: []*os.File{sl}})
		}
		const script = `printf 'a\nb\r\nc\n'; exit 3`
		b := h.Bundle().Edit(terminal).Sh(script)
		h.Write(b)
		up := h.Bundle().Args("sleep", "60")
		h.Up(up)
		for name, r := range map[string]Result{
			"run":  call("run", "-b", b.Dir, b.ID),
			"exec": call("exec", "-t", up.ID, "sh", "-c", script),
		} {
			if r.Stdout != "a\nb\r\nc\n" || r.Code != 3 {
				h.Errorf("%s: status %d, output %q", name, r.Code, r.Stdout)
			}
		}
	})
	row(t, "P2 foreground without a terminal of the caller", func(h *H) {
		const want = "open /dev/tty: no such device or address"
		b := h.Bundle().Edit(terminal)
		h.Write(b)
		up := h.Bundle().Args("sleep", "60")
		h.Up(up)
		call := func(status int, args ...string) {
			r := h.Do(Cmd{Path: "/usr/bin/setsid", NoRoot: true,
				Args: append([]string{"-w", ocitest.RuntimePath(), "--root", h.Root}, args...)})
			if r.Code != status || !strings.Contains(r.Stderr, want) {
				h.Errorf("%v: status %d, %s", args, r.Code, r.Stderr)
			}
		}
		call(1, "run", "-b", b.Dir, b.ID)
		h.FailRT("does not exist", "state", b.ID)
		call(255, "exec", "-t", up.ID, "true")
	})
	row(t, "P2 a person's terminal is found though all streams are redirected", func(h *H) {
		m, sl := pty(h)
		unix.IoctlSetWinsize(int(sl.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 31, Col: 99})
		out := filepath.Join(h.TempDir(), "out")
		b := h.Bundle().Edit(terminal).Sh("stty size")
		h.Write(b)
		newScreen(m)
		_, wait := h.Start(Cmd{Path: "/bin/sh", NoRoot: true, Tty: sl, Args: []string{"-c", `exec "$@" >` + out + ` 2>&1 </dev/null`, "sh",
			ocitest.RuntimePath(), "--root", h.Root, "run", "-b", b.Dir, b.ID}})
		r := wait()
		if got, _ := os.ReadFile(out); r.Code != 0 || string(got) != "31 99\n" {
			h.Errorf("status %d, output %q", r.Code, got)
		}
	})
	row(t, "P2 a person's terminal shows lines", func(h *H) {
		m, sl := pty(h)
		s := newScreen(m)
		b := h.Bundle().Edit(terminal).Sh("printf 'a\\nb\\n'; stty -a 2>/dev/null | grep -o -e '-*onlcr'")
		h.Write(b)
		_, wait := h.Start(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Tty: sl})
		s.await(h, "a\nb\n-onlcr\n")
		wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.text != "a\r\nb\r\n-onlcr\r\n" {
			h.Errorf("the terminal shows %q", s.text)
		}
	})
	row(t, "P2 whoever takes the terminal by a socket has it as the kernel made it", func(h *H) {
		path, term := consoleSocket(h)
		b := h.Bundle().Edit(terminal).Sh("printf 'a\\nb\\n'; sleep 60")
		h.Want(h.Run(b, "-d", "--console-socket", path), "", 0)
		s := newScreen(term())
		s.await(h, "a\nb\n")
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.text != "a\r\nb\r\n" {
			h.Errorf("the terminal shows %q", s.text)
		}
	})
	row(t, "P2 the person's terminal is as it was", func(h *H) {
		m, sl := pty(h)
		before, _ := unix.IoctlGetTermios(int(sl.Fd()), unix.TCGETS)
		newScreen(m)
		b := h.Bundle().Edit(terminal).Sh("stty raw -echo")
		h.Write(b)
		_, wait := h.Start(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Tty: sl})
		if r := wait(); r.Code != 0 {
			h.Errorf("status %d", r.Code)
		}
		if after, _ := unix.IoctlGetTermios(int(sl.Fd()), unix.TCGETS); *after != *before {
			h.Errorf("settings are %+v, were %+v", after, before)
		}
	})
}

func TestForeground(t *testing.T) {
	row(t, "run forwards signals", func(h *H) {
		b := h.Bundle().Sh("trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
		h.Write(b)
		r, wait := h.Start(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}})
		h.Await("ready", func() bool { return strings.Contains(r.Again().Stdout, "ready") })
		h.Signal(b.ID, unix.SIGTERM)
		h.Want(wait(), "ready\ngot", 5)
	})
	row(t, "run -d returns before the program ends", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Want(h.Run(b, "-d"), "", 0)
		if s := h.State(b.ID); s.Status != "running" {
			h.Errorf("status %s", s.Status)
		}
	})
	row(t, "killing the runtime of a foreground run does not lose the container", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Write(b)
		_, wait := h.Start(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}})
		h.Await("running", func() bool { r := h.RT("state", b.ID); return strings.Contains(r.Stdout, `"running"`) })
		h.Signal(b.ID, unix.SIGKILL)
		wait()
		h.MustRT("delete", "-f", b.ID)
		h.NoLeak("delete")
	})
}
