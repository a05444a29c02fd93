package engine

import (
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/internal/sys/pty"
)

// screen is a terminal of the test's own, with a command in its foreground.
type screen struct {
	t      *testing.T
	master *os.File
	c      *command

	mu   sync.Mutex
	text strings.Builder
}

func onTerminal(t *testing.T, c *command, size pty.Size) *screen {
	t.Helper()
	master, slave, err := pty.Open("/dev/ptmx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	defer slave.Close()
	if err := pty.SetSize(master, size); err != nil {
		t.Fatal(err)
	}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = slave, slave, slave
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	s := &screen{t: t, master: master, c: c.start()}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			if err != nil { // EIO: nobody has the slave open any more
				return
			}
		}
	}()
	return s
}

func (s *screen) shows() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) expect(text string) {
	s.t.Helper()
	defer func() {
		if s.t.Failed() {
			s.t.Logf("the terminal shows %q", s.shows())
		}
	}()
	await(s.t, text, func() bool { return strings.Contains(s.shows(), text) })
}

func (s *screen) enter(text string) {
	s.t.Helper()
	if _, err := s.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

func TestTerminal(t *testing.T) {
	s := newStore(t)
	c := s.do("run", "--rm", "-it", "-h", "box", "-e", "PS1=ready>", "docker-archive:"+baseImage, "sh")
	term := onTerminal(t, c, pty.Size{Rows: 33, Cols: 101})
	term.expect("ready>")
	term.enter("tty; stty size; echo $TERM\n")
	term.expect("/dev/pts/0\r\n33 101\r\nxterm\r\n")
	if err := pty.SetSize(term.master, pty.Size{Rows: 20, Cols: 70}); err != nil {
		t.Fatal(err)
	}
	await(t, "the new size", func() bool {
		term.enter("stty size\n")
		return strings.Contains(term.shows(), "\r\n20 70\r\n")
	})
	term.enter("test -c /dev/console && echo console is there; sleep 1000\n")
	term.expect("\r\nconsole is there\r\n")
	term.enter("\x03") // Ctrl-C ends the sleep, not the shell
	term.enter("echo after $?\n")
	term.expect("\r\nafter 130\r\n")
	term.enter("exit 5\n")
	if r := c.wait(); r.code != 5 {
		t.Errorf("%+v", r)
	}
	s.empty()
}

// A program that is not there is said on the terminal, in one sentence of tare's.
func TestTerminalNotFound(t *testing.T) {
	s := newStore(t)
	c := s.do("run", "--rm", "-it", "docker-archive:"+baseImage, "nope")
	term := onTerminal(t, c, pty.Size{Rows: 24, Cols: 80})
	if r := c.wait(); r.code != 127 {
		t.Errorf("%+v", r)
	}
	term.expect("executable file not found in $PATH\r\n")
	if text := term.shows(); !strings.HasPrefix(text, "tare: ") || strings.Count(text, "\n") != 1 {
		t.Errorf("the terminal shows %q", text)
	}
}

// Without -t a Ctrl-C reaches the container's process once.
func TestCtrlCOnce(t *testing.T) {
	s := newStore(t)
	script := "trap 'echo int' INT; trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.05; done"
	c := s.do("run", "--rm", "docker-archive:"+baseImage, "sh", "-c", script)
	term := onTerminal(t, c, pty.Size{Rows: 24, Cols: 80})
	term.expect("up\r\n")
	term.enter("\x03")
	term.expect("int\r\n")
	c.cmd.Process.Signal(syscall.SIGTERM)
	if r := c.wait(); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if n := strings.Count(term.shows(), "int\r\n"); n != 1 {
		t.Errorf("%d signals for one Ctrl-C", n)
	}
}
