package console

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/internal/sys/pty"
	"github.com/tare-oci/tare/internal/sys/unixsock"
)

func TestSendConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("d", 120), "sock")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := unixsock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	master, slave, err := pty.Open("/dev/ptmx")
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	if err := SendConsole(path, master); err != nil {
		t.Fatal(err)
	}
	master.Close()
	c, err := unixsock.Accept(l)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 100)
	n, fd, err := unixsock.RecvFD(c, buf)
	if err != nil || string(buf[:n]) != "/dev/ptmx" {
		t.Fatalf("received %q, %v", buf[:n], err)
	}
	got := os.NewFile(uintptr(fd), "received")
	defer got.Close()
	if err := pty.SetSize(got, pty.Size{Rows: 3, Cols: 7}); err != nil {
		t.Fatal(err)
	}
	if s, err := pty.GetSize(slave); err != nil || s != (pty.Size{Rows: 3, Cols: 7}) {
		t.Errorf("size of the slave = %v, %v", s, err)
	}
	if err := SendConsole(filepath.Join(t.TempDir(), "none"), got); err == nil || !strings.HasSuffix(err.Error(), "no such file or directory") {
		t.Errorf("SendConsole to nobody = %v", err)
	}
}

// run runs a shell command on a new terminal, with stdin as ours, and returns what Foreground wrote.
func run(t *testing.T, script string, stdin *os.File) string {
	t.Helper()
	master, slave, err := pty.Open("/dev/ptmx")
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	c := exec.Command("sh", "-c", script)
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	copied := make(chan struct{})
	go func() { io.Copy(&out, r); r.Close(); close(copied) }()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { c.Wait(); cancel() }()
	var host *os.File
	if pty.IsTerminal(stdin) {
		host = stdin
	}
	if err := Foreground(ctx, master, host, stdin, w); err != nil {
		t.Error(err)
	}
	<-ctx.Done()
	w.Close()
	<-copied
	return out.String()
}

func input(t *testing.T, text string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	go func() { io.WriteString(w, text); w.Close() }()
	return r
}

func TestForegroundDrains(t *testing.T) {
	// More than a terminal buffers, from a process that exits at once after the last byte.
	got := run(t, "stty -echo; i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; printf last", input(t, ""))
	if lines := strings.Count(got, "\r\n"); lines < 20000 || !strings.HasSuffix(got, "19999\r\nlast") {
		t.Errorf("%d lines, ending %q", lines, got[max(0, len(got)-20):])
	}
}

func TestForegroundEndOfInput(t *testing.T) {
	for _, in := range []string{"a\n", "a\nb"} {
		got := run(t, "stty -echo; cat; echo over", input(t, in))
		want := strings.ReplaceAll(in, "\n", "\r\n") + "over\r\n"
		// What came before stty ran was echoed.
		if !strings.HasSuffix(got, want) {
			t.Errorf("input %q gives %q, want %q", in, got, want)
		}
	}
}

func TestForegroundLeftover(t *testing.T) {
	// A background process that holds the terminal must not keep us.
	got := run(t, "trap '' HUP; sleep 1000 & echo $!", input(t, ""))
	pid := strings.TrimSpace(got[strings.LastIndexByte(strings.TrimSpace(got), '\n')+1:])
	if out, err := exec.Command("kill", "-9", pid).CombinedOutput(); err != nil {
		t.Errorf("kill %q: %v: %s", pid, err, out)
	}
}

func TestForegroundSizeAndSettings(t *testing.T) {
	ours, oursSlave, err := pty.Open("/dev/ptmx")
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer oursSlave.Close()
	if err := pty.SetSize(ours, pty.Size{Rows: 1, Cols: 33}); err != nil {
		t.Fatal(err)
	}
	before, err := pty.Get(oursSlave)
	if err != nil {
		t.Fatal(err)
	}
	got := run(t, "until stty size | grep -q '1 33'; do :; done; stty size", oursSlave)
	if !strings.Contains(got, "1 33\r\n") {
		t.Errorf("stty size = %q", got)
	}
	after, err := pty.Get(oursSlave)
	if err != nil || *after != *before {
		t.Errorf("settings after = %v, %v; before %v", after, err, before)
	}
}
