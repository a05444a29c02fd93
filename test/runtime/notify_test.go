package runtime

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// manager is a service manager's end of NOTIFY_SOCKET.
type manager struct {
	address string
	delay   time.Duration // before a barrier is answered
	mu      sync.Mutex
	got     []string // datagrams; a number of descriptors follows after a space
}

func listenManager(h *H, address string) *manager {
	m := &manager{address: address}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() { l.Close() })
	go func() {
		for {
			buf, control := make([]byte, 4096), make([]byte, 256)
			n, c, _, _, err := l.ReadMsgUnix(buf, control)
			if err != nil {
				return
			}
			text := string(buf[:n])
			var fds []int
			if messages, err := syscall.ParseSocketControlMessage(control[:c]); err == nil && len(messages) > 0 {
				fds, _ = syscall.ParseUnixRights(&messages[0])
				text += fmt.Sprintf(" %d", len(fds))
			}
			m.mu.Lock()
			m.got = append(m.got, text)
			m.mu.Unlock()
			time.Sleep(m.delay)
			for _, fd := range fds {
				syscall.Close(fd)
			}
		}
	}()
	return m
}

// take returns what has come since the last call.
func (m *manager) take() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := strings.Join(m.got, "|")
	m.got = nil
	return s
}

func (m *manager) cmd(args ...string) Cmd {
	return Cmd{Args: args, Env: append(os.Environ(), "NOTIFY_SOCKET="+m.address)}
}

// readyWords is all that the service manager is told.
func readyWords(pid int) string { return fmt.Sprintf("READY=1\n|MAINPID=%d\n|BARRIER=1 1", pid) }

const notifyEdit = `process.args=["probe","notify","STATUS=s","READY=1","-"]`

func TestNotify(t *testing.T) {
	t.Run("run", func(t *testing.T) { notifyRun(t) })
	t.Run("start", func(t *testing.T) { notifyStart(t) })
}

// awaitWords waits for the first want of the manager's datagrams.
func awaitWords(h *H, m *manager, want string) {
	got := ""
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && len(got) < len(want); time.Sleep(5 * time.Millisecond) {
		if more := m.take(); more != "" {
			got = strings.TrimPrefix(got+"|"+more, "|")
		}
	}
	if got != want {
		h.Errorf("the service manager was told %q, want %q", got, want)
	}
}

func notifyRun(t *testing.T) {
	row(t, "NOTIFY_SOCKET run in the foreground", func(h *H) {
		m := listenManager(h, filepath.Join(h.TempDir(), "s"))
		b := h.Bundle().Sh("echo $NOTIFY_SOCKET; stat -c %a:%F /run/notify /run/notify/notify.sock; grep ' /run/notify ' /proc/self/mountinfo | cut -d' ' -f6; probe notify READY=1 - STATUS=x")
		h.Write(b)
		r := h.Do(m.cmd("run", "-b", b.Dir, b.ID))
		h.Want(r, "/run/notify/notify.sock\n755:directory\n777:socket\nro,nosuid,nodev,noexec,relatime", 0)
		got := m.take()
		var pid int
		fmt.Sscanf(got, "READY=1\n|MAINPID=%d", &pid)
		if got != readyWords(pid) || pid == 0 {
			h.Errorf("the service manager was told %q", got)
		}
	})
	row(t, "NOTIFY_SOCKET the runtime is the service's main process in the foreground", func(h *H) {
		m := listenManager(h, filepath.Join(h.TempDir(), "s"))
		b := h.Bundle().Edit(notifyEdit)
		h.Write(b)
		c := m.cmd("-c", `echo $$; exec "$@"`, "sh", ocitest.RuntimePath(), "--root", h.Root, "run", "-b", b.Dir, b.ID)
		c.Path, c.NoRoot = "/bin/sh", true
		r := h.Do(c)
		var pid int
		fmt.Sscan(r.Stdout, &pid)
		if got := m.take(); got != readyWords(pid) {
			h.Errorf("the service manager was told %q, want %q", got, readyWords(pid))
		}
	})
	row(t, "NOTIFY_SOCKET READY is not the first line", func(h *H) {
		m := listenManager(h, filepath.Join(h.TempDir(), "s"))
		b := h.Bundle().Args("probe", "notify", "STATUS=starting\nREADY=1\nMAINPID=1", "-")
		h.Write(b)
		r := h.Do(m.cmd("run", "-d", "-b", b.Dir, b.ID))
		h.Want(r, "", 0)
		awaitWords(h, m, readyWords(h.State(b.ID).Pid))
	})
	row(t, "NOTIFY_SOCKET run -d waits until the container is ready", func(h *H) {
		m := listenManager(h, "@tare-"+h.NewID())
		b := h.Bundle().Args("probe", "notify", "STATUS=1", "-", "READY=1", "-")
		h.Write(b)
		begin := time.Now()
		h.Want(h.Do(m.cmd("run", "-d", "-b", b.Dir, b.ID)), "", 0)
		if d := time.Since(begin); d < time.Second {
			h.Errorf("run -d has returned after %v", d)
		}
		awaitWords(h, m, readyWords(h.State(b.ID).Pid))
	})
	row(t, "NOTIFY_SOCKET run -d ends with a container that is never ready", func(h *H) {
		m := listenManager(h, filepath.Join(h.TempDir(), "s"))
		b := h.Bundle().Args("probe", "notify", "STATUS=1", "READY", "-")
		h.Write(b)
		h.Want(h.Do(m.cmd("run", "-d", "-b", b.Dir, b.ID)), "", 0)
		awaitWords(h, m, "")
	})
	row(t, "NOTIFY_SOCKET signals are handed through before the container is ready", func(h *H) {
		m := listenManager(h, filepath.Join(h.TempDir(), "s"))
		b := h.Bundle().Sh("trap 'exit 7' TERM; touch /up; while :; do usleep 10000; done")
		h.Write(b)
		done := make(chan Result)
		go func() { done <- h.Do(m.cmd("run", "-b", b.Dir, b.ID)) }()
		h.Await("the program", func() bool { _, err := os.Stat(filepath.Join(b.Rootfs, "up")); return err == nil })
		time.Sleep(50 * time.Millisecond)
		h.Signal(b.ID, syscall.SIGTERM)
		h.Want(<-done, "", 7)
	})
	row(t, "NOTIFY_SOCKET unset", func(h *H) {
		h.Want(h.Run(h.Bundle().Sh("echo ${NOTIFY_SOCKET-unset}; ls -d /run/notify 2>/dev/null; true")), "unset", 0)
	})
	row(t, "NOTIFY_SOCKET a manager that does not answer is not the container's business", func(h *H) {
		m := &manager{address: filepath.Join(h.TempDir(), "none")}
		b := h.Bundle().Edit(notifyEdit)
		h.Write(b)
		h.Want(h.Do(m.cmd("run", "-b", b.Dir, b.ID)), "", 0)
	})
}

func notifyStart(t *testing.T) {
	row(t, "NOTIFY_SOCKET create and start", func(h *H) {
		m := listenManager(h, filepath.Join(h.TempDir(), "s"))
		m.delay = 100 * time.Millisecond
		b := h.Bundle().Edit(notifyEdit)
		h.Write(b)
		h.Want(h.Do(m.cmd("create", "-b", b.Dir, b.ID)), "", 0)
		begin := time.Now()
		h.Want(h.Do(m.cmd("start", b.ID)), "", 0)
		if d := time.Since(begin); d < 3*m.delay {
			h.Errorf("start has returned after %v, before its barrier was answered", d)
		}
		awaitWords(h, m, readyWords(h.State(b.ID).Pid))
		h.Want(h.RT("exec", b.ID, "sh", "-c", "echo ${NOTIFY_SOCKET-unset}"), "unset", 0)
	})
	row(t, "NOTIFY_SOCKET others work on the container while start waits", func(h *H) {
		m := listenManager(h, filepath.Join(h.TempDir(), "s"))
		b := h.Bundle().Args("sleep", "100")
		h.Write(b)
		h.Want(h.Do(m.cmd("create", "-b", b.Dir, b.ID)), "", 0)
		done := make(chan Result)
		go func() { done <- h.Do(m.cmd("start", b.ID)) }()
		h.AwaitStatus(b.ID, "running")
		h.MustRT("pause", b.ID)
		h.MustRT("resume", b.ID)
		h.MustRT("update", "--pids-limit", "50", b.ID)
		h.MustRT("delete", "-f", b.ID)
		h.Want(<-done, "", 0)
		h.NoLeak("delete")
	})
	row(t, "NOTIFY_SOCKET a user of a user namespace, a long state directory", func(h *H) {
		h.Root = filepath.Join(h.Root, strings.Repeat("l", 100))
		m := listenManager(h, filepath.Join(h.TempDir(), "s"))
		ids := `=[{"containerID":0,"hostID":100000,"size":65536}]`
		b := h.Bundle().Edit(notifyEdit, `linux.namespaces+=[{"type":"user"}]`, `linux.uidMappings`+ids, `linux.gidMappings`+ids,
			`process.user={"uid":7,"gid":8}`, `mounts+=[{"destination":"/run","type":"tmpfs","source":"tmpfs"}]`)
		if err := os.Mkdir(filepath.Join(b.Rootfs, "run"), 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		h.Write(b)
		h.Want(h.Do(m.cmd("create", "-b", b.Dir, b.ID)), "", 0)
		h.Want(h.Do(m.cmd("start", b.ID)), "", 0)
		awaitWords(h, m, readyWords(h.State(b.ID).Pid))
		h.MustRT("delete", "-f", b.ID)
		if err := os.RemoveAll(h.Root); err != nil {
			h.Errorf("%v", err)
		}
		h.Root = filepath.Dir(h.Root)
		os.Remove(h.Root)
	})
	row(t, "NOTIFY_SOCKET create without it", func(h *H) {
		m := listenManager(h, filepath.Join(h.TempDir(), "s"))
		b := h.Bundle().Args("sleep", "100")
		h.Create(b)
		r := h.Do(m.cmd("start", b.ID))
		h.Want(r, "", 0)
		if !strings.Contains(r.Stderr, "NOTIFY_SOCKET") {
			h.Errorf("standard error %q does not say that it is ignored", r.Stderr)
		}
	})
	row(t, "NOTIFY_SOCKET create that fails", func(h *H) {
		m := listenManager(h, filepath.Join(h.TempDir(), "s"))
		b := h.Bundle().Args("nope")
		h.Write(b)
		for _, command := range []string{"create", "run"} {
			if r := h.Do(m.cmd(command, "-b", b.Dir, b.ID)); r.Code == 0 {
				h.Errorf("%s: status 0", command)
			}
			h.NoLeak(command)
		}
	})
}
