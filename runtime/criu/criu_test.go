package criu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tare-oci/tare/internal/sys/unixsock"
)

// TestMain lets the test binary be a criu, whose file name says how it behaves.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "swrk" {
		fakeCriu(filepath.Base(os.Args[0]), os.Args[2])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeCriu answers requests on descriptor fd.
func fakeCriu(kind, fd string) {
	n, err := strconv.Atoi(fd)
	if err != nil || kind == "silent" {
		fmt.Fprintln(os.Stderr, "Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds")
		return
	}
	sock := os.NewFile(uintptr(n), "swrk")
	send := func(m message) { unixsock.SendMessage(sock, m) }
	v := int64(17)
	if kind == "old" {
		v = 12
	}
	unixsock.ReceiveMessage(sock, make([]byte, 1000))
	send(message(nil).number(1, int64(version)).number(2, 1).nested(10, message(nil).number(1, 3).number(2, v)))
	buf := make([]byte, 10000)
	length, _, err := unixsock.ReceiveMessage(sock, buf)
	if err != nil || length == 0 {
		return
	}
	if kind == "tells" {
		for _, stage := range []string{"setup-namespaces", "post-restore", "pre-resume"} {
			send(message(nil).number(1, int64(notify)).number(2, 1).nested(5, message(nil).text(1, stage).number(2, 42)))
			if length, _, _ = unixsock.ReceiveMessage(sock, buf); string(buf[:length]) != string(acknowledge()) {
				return
			}
		}
		env := strings.Join(os.Environ(), " ")
		cwd, _ := os.Getwd()
		os.WriteFile("/proc/self/comm", []byte("fake"), 0)
		if env != "PATH="+searched+" LC_ALL=C" || cwd != "/" {
			send(message(nil).number(1, int64(Restore)).number(2, 0).text(9, env+" in "+cwd))
			return
		}
		send(message(nil).number(1, int64(Restore)).number(2, 1).nested(4, message(nil).number(1, 42)))
		return
	}
	send(message(nil).number(1, int64(Restore)).number(2, 0).number(7, 2))
}

// fake returns the path of a criu that behaves as kind says.
func fake(t *testing.T, kind string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("criu is started in a mount namespace of its own, which needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	// Not below /tmp, where criu has a file system of its own.
	moved := filepath.Join("/run", fmt.Sprintf("tare-criu-test-%d-%s", os.Getpid(), kind))
	if err := os.MkdirAll(moved, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(moved) })
	to := filepath.Join(moved, kind)
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestStart(t *testing.T) {
	if _, err := Start(fake(t, "old"), &Setup{}); err == nil || !strings.HasSuffix(err.Error(), "old is version 3.12: checkpoint and restore need 3.16 or newer") {
		t.Errorf("old: %v", err)
	}
	if _, err := Start(fake(t, "silent"), &Setup{}); err == nil || err.Error() != "start criu: it ended without an answer; it says:\n"+
		"Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds" {
		t.Errorf("silent: %v", err)
	}
	if _, err := Start("/no/criu", &Setup{}); err == nil || !strings.Contains(err.Error(), "/no/criu") {
		t.Errorf("missing: %v", err)
	}
}

func TestDo(t *testing.T) {
	p, err := Start(fake(t, "tells"), &Setup{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var stages []string
	pid, err := p.Do(Restore, &Options{}, "", func(n Notice) error { stages = append(stages, fmt.Sprint(n.Stage, n.PID)); return nil })
	if err != nil || pid != 42 || strings.Join(stages, " ") != "setup-namespaces42 post-restore42 pre-resume42" {
		t.Errorf("pid %d, stages %q, %v", pid, stages, err)
	}
	p.Wait()
}

func TestDoFails(t *testing.T) {
	log := filepath.Join(t.TempDir(), "restore.log")
	os.WriteFile(log, []byte("(0.1) start\n(0.2) Error (criu/x.c:1): no \x1b[1mwonder\n(0.3) end\n"), 0o600)
	p, err := Start(fake(t, "fails"), &Setup{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	_, err = p.Do(Restore, &Options{}, log, nil)
	want := "criu restore: no such file or directory; " + log + " says:\n(0.1) start\n(0.2) Error (criu/x.c:1): no ?[1mwonder"
	var e *Error
	if !errors.As(err, &e) || err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	stop := errors.New("stop")
	q, err := Start(fake(t, "tells"), &Setup{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, err := q.Do(Restore, &Options{}, log, func(Notice) error { return stop }); err != stop {
		t.Errorf("error %v", err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "criu"), nil, 0o755)
	t.Setenv("PATH", "relative:"+dir)
	if path, err := Find(); err != nil || path != filepath.Join(dir, "criu") {
		t.Errorf("%q, %v", path, err)
	}
	os.Chmod(filepath.Join(dir, "criu"), 0o644)
	if path, err := Find(); err == nil && path == filepath.Join(dir, "criu") {
		t.Error("a file that cannot be executed is taken")
	}
}

func TestPublish(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	os.WriteFile(filepath.Join(from, "dump.log"), []byte("log"), 0o600)
	secret := filepath.Join(t.TempDir(), "secret")
	os.WriteFile(secret, []byte("secret"), 0o600)
	os.Symlink(secret, filepath.Join(to, "dump.log"))
	if err := Publish(from, to, "dump.log"); err != nil {
		t.Fatal(err)
	}
	if err := Publish(from, to, "none.log"); err != nil {
		t.Error(err)
	}
	data, _ := os.ReadFile(secret)
	copied, _ := os.ReadFile(filepath.Join(to, "dump.log"))
	if string(data) != "secret" || string(copied) != "log" {
		t.Errorf("secret %q, log %q", data, copied)
	}
}

func TestQuoteWithoutErrors(t *testing.T) {
	log := filepath.Join(t.TempDir(), "l")
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	os.WriteFile(log, []byte(text.String()+strings.Repeat("x", 2000)+"\n"), 0o600)
	lines := strings.Split(quote(log), "\n")
	if len(lines) != quotedLines || lines[0] != "line 93" || len(lines[7]) != quotedBytes+3 {
		t.Errorf("%q", lines)
	}
	if quote("/none") != "" {
		t.Error("a log that is not there is quoted")
	}
}
