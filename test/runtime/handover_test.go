package runtime

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// showCPUs prints the CPUs on which the process may run.
const showCPUs = "grep Cpus_allowed_list /proc/self/status | cut -f2"

// allCPUs are the CPUs of the machine.
var allCPUs = func() string {
	data, _ := os.ReadFile("/sys/devices/system/cpu/online")
	return strings.TrimSpace(string(data))
}()

// activated runs the runtime as a program that was started with n activated sockets from descriptor 3 on (sd_listen_fds(3)).
func activated(h *H, n int, files []*os.File, args ...string) Result {
	sh := append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", ocitest.RuntimePath(), "--root", h.Root}, args...)
	return h.Do(Cmd{Path: "/bin/sh", NoRoot: true, Args: sh, Files: files, Env: append(os.Environ(), fmt.Sprint("LISTEN_FDS=", n), "LISTEN_FDNAMES=web")})
}

func numbered(h *H, n int) (list []*os.File) {
	for i := range n {
		f, err := os.Open(h.File("f", fmt.Sprint("file", i, " "), 0o644))
		if err != nil {
			h.Fatalf("%v", err)
		}
		h.Cleanup(func() { f.Close() })
		list = append(list, f)
	}
	return list
}

const showFiles = "echo $LISTEN_FDS $LISTEN_PID; for fd in 3 4 5; do cat <&$fd 2>/dev/null; done; ls /proc/self/fd | tr '\\n' ' '"

func TestHandover(t *testing.T) {
	row(t, "P29 the affinity is not the caller's", func(h *H) {
		b := h.Bundle().Sh(showCPUs + "; sleep 50")
		h.Write(b)
		on0 := func(args ...string) Result {
			return h.Do(Cmd{Path: "taskset", NoRoot: true, Args: append([]string{"-c", "0", ocitest.RuntimePath(), "--root", h.Root}, args...)})
		}
		r := on0("run", "-d", "-b", b.Dir, b.ID)
		h.Await("its output", func() bool { return r.Again().Stdout != "" })
		h.Want(r.Again(), allCPUs, 0)
		h.Want(on0("exec", b.ID, "sh", "-c", showCPUs), allCPUs, 0)
	})
	row(t, "CLI LISTEN_FDS come first, then --preserve-fds", func(h *H) {
		b := h.Bundle().Sh(showFiles)
		h.Write(b)
		h.Want(activated(h, 1, numbered(h, 4), "run", "--preserve-fds", "1", "-b", b.Dir, b.ID), "1 1\nfile0 file1 0 1 2 3 4 5", 0)
	})
	row(t, "CLI LISTEN_FDS of create", func(h *H) {
		b := h.Bundle().Sh(showFiles + "; sleep 50")
		h.Write(b)
		r := activated(h, 2, numbered(h, 3), "create", "-b", b.Dir, b.ID)
		h.Want(r, "", 0)
		h.MustRT("start", b.ID)
		h.Await("its output", func() bool { return strings.Contains(r.Again().Stdout, "5") })
		h.Want(r.Again(), "2 1\nfile0 file1 0 1 2 3 4 5", 0)
	})
	row(t, "CLI LISTEN_FDS from the service manager's own tool", func(h *H) {
		if _, err := exec.LookPath("systemd-socket-activate"); err != nil {
			h.T.Skip("systemd-socket-activate is not installed")
		}
		path := filepath.Join(h.TempDir(), "s")
		b := h.Bundle().Sh("echo $LISTEN_FDS $LISTEN_PID; readlink /proc/self/fd/3 | cut -d: -f1; ls /proc/self/fd | tr '\\n' ' '")
		h.Write(b)
		done := make(chan Result)
		go func() {
			done <- h.Do(Cmd{Path: "systemd-socket-activate", NoRoot: true, Args: []string{"-l", path, ocitest.RuntimePath(), "--root", h.Root, "run", "-b", b.Dir, b.ID}})
		}()
		h.Await("the first connection", func() bool {
			c, err := net.Dial("unix", path)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		h.Want(<-done, "1 1\nsocket\n0 1 2 3 4", 0)
	})
	for _, command := range []string{"create", "run", "exec"} {
		row(t, "CLI --pidfd-socket of "+command, func(h *H) {
			path := filepath.Join(h.TempDir(), "s")
			pid := receivePidfd(h, path)
			b := h.Bundle().Args("sleep", "50")
			pidFile := filepath.Join(h.TempDir(), "pid")
			h.Write(b)
			switch command {
			case "exec":
				h.Up(b)
				h.MustRT("exec", "-d", "--pidfd-socket", path, "--pid-file", pidFile, b.ID, "sleep", "40")
			case "run":
				h.MustRT("run", "-d", "--pidfd-socket", path, "--pid-file", pidFile, "-b", b.Dir, b.ID)
			default:
				h.MustRT("create", "--pidfd-socket", path, "--pid-file", pidFile, "-b", b.Dir, b.ID)
			}
			want, _ := os.ReadFile(pidFile)
			if got := <-pid; got != string(want) {
				h.Errorf("the descriptor is of process %q, the pid file has %q", got, want)
			}
		})
	}
	row(t, "CLI --pidfd-socket that is not there", func(h *H) {
		b := h.Bundle()
		h.Write(b)
		h.FailRT("", "create", "--pidfd-socket", filepath.Join(h.TempDir(), "none"), "-b", b.Dir, b.ID)
		h.NoLeak("the error")
	})
}

// receivePidfd takes one process descriptor at a socket and gives the number of its process.
func receivePidfd(h *H, path string) <-chan string {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() { l.Close() })
	pid := make(chan string, 1)
	go func() {
		defer close(pid)
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		control := make([]byte, 256)
		_, n, _, _, err := c.ReadMsgUnix(make([]byte, 4096), control)
		if err != nil {
			return
		}
		messages, err := syscall.ParseSocketControlMessage(control[:n])
		if err != nil || len(messages) != 1 {
			return
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			return
		}
		defer syscall.Close(fds[0])
		info, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fds[0]))
		for l := range strings.Lines(string(info)) {
			if number, ok := strings.CutPrefix(l, "Pid:"); ok {
				pid <- strings.TrimSpace(number)
			}
		}
	}()
	return pid
}
