package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// agent is what a profile's listenerPath names: it keeps the state of each connection and answers the calls.
type agent struct {
	path   string
	l      *net.UnixListener
	states chan string
	calls  atomic.Int64
}

// newAgent listens in a new directory; decide answers the calls of every container.
func newAgent(h *H, decide func(*notif) reply) *agent {
	dir := h.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		h.Fatalf("%v", err)
	}
	return listenAgent(h, filepath.Join(dir, "agent"), decide)
}

func listenAgent(h *H, path string, decide func(*notif) reply) *agent {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		h.Fatalf("%v", err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		h.Fatalf("%v", err)
	}
	a := &agent{path: path, l: l, states: make(chan string, 16)}
	h.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go a.serve(c, decide)
		}
	}()
	return a
}

// serve reads one state to the end of the connection. Whatever is not one state with one descriptor in its first message becomes
// the text of an error.
func (a *agent) serve(c *net.UnixConn, decide func(*notif) reply) {
	buf, oob := make([]byte, 1<<20), make([]byte, 1024)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	n, on, _, _, err := c.ReadMsgUnix(buf, oob)
	text := string(buf[:n])
	var fds []int
	if ms, e := unix.ParseSocketControlMessage(oob[:on]); e == nil && len(ms) == 1 {
		fds, _ = unix.ParseUnixRights(&ms[0])
	}
	if err == nil && len(fds) != 1 {
		err = fmt.Errorf("%d descriptors in the first message", len(fds))
	}
	for _, fd := range fds { // before the connection ends: the runtime may need an answer first
		go serveCalls(fd, func(n *notif) reply { a.calls.Add(1); return decide(n) })
	}
	for err == nil { // the rest of a long state, until the runtime closes
		var n, on int
		n, on, _, _, err = c.ReadMsgUnix(buf, oob)
		text += string(buf[:n])
		if n == 0 && on == 0 {
			break
		}
	}
	c.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		text = err.Error() + " after " + text
	}
	a.states <- text
}

// state waits for the next connection's state.
func (a *agent) state(h *H) string {
	select {
	case s := <-a.states:
		return s
	case <-time.After(10 * time.Second):
		h.Fatalf("the agent got no state")
	}
	return ""
}

// notify is a profile that asks the agent about calls.
func (a *agent) notify(names string) string {
	return fmt.Sprintf(`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","listenerPath":%q,"listenerMetadata":"meta","syscalls":[%s]}`,
		a.path, deny(names, "SCMP_ACT_NOTIFY", ""))
}

func refuse(errno int32) func(*notif) reply {
	return func(*notif) reply { return reply{errno: errno} }
}

func goOn(*notif) reply { return reply{goesOn: true} }

// notifyWays are the ways in which a process gets under the filter.
var notifyWays = map[string]func(h *H, b *Bundle, a *agent, call []string) (Result, string, string){
	"run": func(h *H, b *Bundle, a *agent, call []string) (Result, string, string) {
		r := h.Run(b.Args(call...))
		return r, a.state(h), "creating"
	},
	"create and start": func(h *H, b *Bundle, a *agent, call []string) (Result, string, string) {
		r := h.Create(b.Args(call...))
		text := a.state(h) // it is there before start
		h.MustRT("start", b.ID)
		h.AwaitStatus(b.ID, "stopped")
		return r.Again(), text, "creating"
	},
	"exec": func(h *H, b *Bundle, a *agent, call []string) (Result, string, string) {
		h.Up(b.Args("sleep", "60"))
		a.state(h)
		r := h.RT(append([]string{"exec", b.ID}, call...)...)
		return r, a.state(h), "running"
	},
	"exec before start": func(h *H, b *Bundle, a *agent, call []string) (Result, string, string) {
		h.Create(b.Args("sleep", "60"))
		a.state(h)
		r := h.RT(append([]string{"exec", b.ID}, call...)...)
		return r, a.state(h), "running"
	},
}

func TestSeccompNotify(t *testing.T) {
	kinds := map[string][]string{
		"":                             {`process.noNewPrivileges=true`},
		" without no_new_privs":        {`process.noNewPrivileges=false`},
		" of a user":                   {`process.user={"uid":1000,"gid":1000}`, `process.noNewPrivileges=true`, capEdit("", "", "", "", "")},
		" in a user namespace":         {userns, idMaps(100000, 65536)},
		" in the host's pid namespace": {`linux.namespaces=[{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"network"}]`},
	}
	for how, do := range notifyWays {
		for kind, edits := range kinds {
			row(t, "S9 S11 notify on "+how+kind, func(h *H) {
				a := newAgent(h, refuse(int32(unix.EOPNOTSUPP)))
				b := h.Bundle().Edit(edits...).Edit(a.notify("mkdirat"), `annotations={"k":"v"}`)
				if strings.Contains(kind, "user namespace") {
					rootfsOf(100000)(h, b)
				}
				r, text, status := do(h, b, a, probeCall(unix.SYS_MKDIRAT, -100, 0, 0))
				h.Want(r, "ENOTSUP", 0)
				checkNotifyState(h, text, b, status)
			})
		}
	}
}

func checkNotifyState(h *H, text string, b *Bundle, status string) {
	var s struct {
		OCIVersion string        `json:"ociVersion"`
		Fds        []string      `json:"fds"`
		Pid        int           `json:"pid"`
		Metadata   string        `json:"metadata"`
		State      ocitest.State `json:"state"`
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		h.Fatalf("%v: %q", err, text)
	}
	if s.OCIVersion == "" || len(s.Fds) != 1 || s.Fds[0] != "seccompFd" || s.Pid <= 1 || s.Metadata != "meta" || s.State.ID != b.ID || s.State.Status != status ||
		s.State.Bundle != b.Dir || s.State.Annotations["k"] != "v" || s.State.OCIVersion == "" {
		h.Errorf("state is %s, want status %s", text, status)
	}
	if (s.State.Pid == s.Pid) != (status == "creating") || s.State.Pid <= 1 {
		h.Errorf("state has pid %d, the container's is %d, status %s", s.Pid, s.State.Pid, status)
	}
}

// emulateMkdir makes a directory of another name in the caller's root, as an agent with more rights may.
func emulateMkdir(n *notif) reply {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", n.pid))
	if err != nil {
		return reply{errno: int32(unix.ESRCH)}
	}
	defer mem.Close()
	at := n.args[0]
	if int(n.nr) == unix.SYS_MKDIRAT {
		at = n.args[1]
	}
	buf := make([]byte, 64)
	if _, err := mem.ReadAt(buf, int64(at)); err != nil {
		return reply{errno: int32(unix.EFAULT)}
	}
	path, _, _ := strings.Cut(string(buf), "\x00")
	if err := os.Mkdir(fmt.Sprintf("/proc/%d/root/%s-by-agent", n.pid, path), 0o700); err != nil {
		return reply{errno: int32(unix.EIO)}
	}
	return reply{}
}

// ownCalls are made by runtimes once the filter is loaded: by tare up to execve, by runc's Go program at any time.
const ownCalls = "read close openat openat2 execve execveat accept4 close_range madvise sendto sendmsg recvmsg fcntl prctl setresuid setresgid setgroups " +
	"capset fchdir chdir umask futex getppid getpid nanosleep rt_sigaction rt_sigprocmask clone clone3 mmap munmap exit exit_group faccessat2 statx newfstatat fstatfs getdents64 dup3"

func TestSeccompNotifyAgents(t *testing.T) {
	row(t, "S8 the agent does the call", func(h *H) {
		a := newAgent(h, emulateMkdir)
		b := h.Bundle().Sh("mkdir /new && cd /new-by-agent && pwd").Edit(a.notify("mkdir mkdirat"))
		h.Want(h.Run(b), "/new-by-agent", 0)
	})
	for how, do := range notifyWays {
		for _, nnp := range []string{"true", "false"} {
			row(t, "S8 every call of the runtime's is asked about, "+how+", no_new_privs "+nnp, func(h *H) {
				a := newAgent(h, goOn)
				b := h.Bundle().Edit(a.notify(ownCalls), `annotations={"k":"v"}`, `process.noNewPrivileges=`+nnp)
				r, text, status := do(h, b, a, []string{"echo", "fine"})
				h.Want(r, "fine", 0)
				checkNotifyState(h, text, b, status)
				if a.calls.Load() == 0 {
					h.Errorf("the agent was asked about nothing")
				}
			})
		}
	}
	row(t, "S8 an agent that goes away", func(h *H) {
		a := newAgent(h, func(*notif) reply { return reply{hangsUp: true} })
		h.Want(h.Run(h.Bundle().Edit(a.notify("mkdirat")).Args(probeCall(unix.SYS_MKDIRAT, -100, 0, 0)...)), "ENOSYS", 0)
	})
	row(t, "S8 no descriptor and no process is left in the container", func(h *H) {
		a := newAgent(h, goOn)
		b := h.Bundle().Edit(a.notify("mkdirat")).Sh("ls /proc/self/fd | tr '\n' ' '; cat /proc/1/task/1/children; grep -c . /proc/1/stat; set -- /proc/[0-9]*; echo $#; sleep 60")
		r := h.Up(b)
		h.Await("output", func() bool { return strings.Count(r.Again().Stdout, "\n") > 1 })
		h.Want(r.Again(), "~^0 1 2 3 [0-9]+ *1\n1$", 0) // cat's own number as 1's child; the shell alone
	})
	for _, flag := range []string{"WAIT_KILLABLE_RECV", "TSYNC", "LOG", "SPEC_ALLOW"} {
		row(t, "S4 S8 notify with flag "+flag, func(h *H) {
			a := newAgent(h, refuse(int32(unix.EOPNOTSUPP)))
			profile := strings.Replace(a.notify("mkdirat"), `{`, `{"flags":["SECCOMP_FILTER_FLAG_`+flag+`"],`, 1)
			h.Want(h.Run(h.Bundle().Edit(profile).Args(probeCall(unix.SYS_MKDIRAT, -100, 0, 0)...)), "ENOTSUP", 0)
		})
	}
	row(t, "S9 a state larger than the socket's buffer", func(h *H) {
		a := newAgent(h, goOn)
		b := h.Bundle().Args("true").Edit(a.notify("mkdirat"), fmt.Sprintf(`annotations={"k":"v","long":%q}`, strings.Repeat("x", 600000)))
		h.Want(h.Run(b), "", 0)
		checkNotifyState(h, a.state(h), b, "creating")
	})
	row(t, "S8 a path relative to the bundle", func(h *H) {
		b := h.Bundle().Args("true")
		a := listenAgent(h, filepath.Join(b.Dir, "agent"), goOn)
		b.Edit(strings.Replace(a.notify("mkdirat"), a.path, "agent", 1), `annotations={"k":"v"}`)
		h.Want(h.Run(b), "", 0)
		checkNotifyState(h, a.state(h), b, "creating")
	})
	row(t, "S9 rootless", func(h *H) {
		a := newAgent(h, refuse(int32(unix.EOPNOTSUPP)))
		b := rootless(h, a.notify("mkdirat"), `annotations={"k":"v"}`).Args(probeCall(unix.SYS_MKDIRAT, -100, 0, 0)...)
		h.Want(asUser(h, b, "run", "-b", b.Dir, b.ID), "ENOTSUP", 0)
		checkNotifyState(h, a.state(h), b, "creating")
	})
	row(t, "S9 rootless exec", func(h *H) {
		a := newAgent(h, refuse(int32(unix.EOPNOTSUPP)))
		b := rootless(h, a.notify("mkdirat"), `annotations={"k":"v"}`, `process.noNewPrivileges=true`).Args("sleep", "60")
		h.Want(asUser(h, b, "create", "-b", b.Dir, b.ID), "", 0)
		a.state(h)
		h.Want(h.Do(userCmd(h, b, "start", b.ID)), "", 0)
		h.Want(h.Do(userCmd(h, b, append([]string{"exec", b.ID}, probeCall(unix.SYS_MKDIRAT, -100, 0, 0)...)...)), "ENOTSUP", 0)
		checkNotifyState(h, a.state(h), b, "running")
	})
}

// TestSeccompNotifyErrors: without the agent there is no container and no process.
func TestSeccompNotifyErrors(t *testing.T) {
	for _, how := range []string{"run", "create"} {
		for _, nnp := range []string{"true", "false"} {
			row(t, "S8 no agent on "+how+", no_new_privs "+nnp, func(h *H) {
				a := newAgent(h, goOn)
				b := h.Bundle().Args("touch", "/ran").Edit(a.notify("mkdirat"), `process.noNewPrivileges=`+nnp)
				a.l.Close()
				h.Write(b)
				h.FailRT(a.path, how, "-b", b.Dir, b.ID)
				h.NoLeak("the error")
				if _, err := os.Stat(b.Rootfs + "/ran"); err == nil {
					h.Errorf("the program ran")
				}
			})
		}
	}
	row(t, "S8 no agent on exec", func(h *H) {
		a := newAgent(h, goOn)
		b := h.Bundle().Args("sleep", "60").Edit(a.notify("mkdirat"))
		h.Up(b)
		a.state(h)
		a.l.Close()
		h.FailRT(a.path, "exec", b.ID, "touch", "/ran")
		if _, err := os.Stat(b.Rootfs + "/ran"); err == nil {
			h.Errorf("the program ran")
		}
		if s := h.State(b.ID); s.Status != "running" {
			h.Errorf("the container is %s", s.Status)
		}
		if out := h.MustRT("ps", "--format", "json", b.ID).Stdout; strings.Count(out, ",") != 0 {
			h.Errorf("processes %s", out)
		}
	})
}

// TestSeccompNotifyPeer compares the state that the agent gets with runc's, byte for byte where the two are not told apart by
// construction: pids, ids, directories and the version of the specification.
func TestSeccompNotifyPeer(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("no runc to compare with:", err)
	}
	row(t, "S9 the same states as runc's", func(h *H) {
		plain := regexp.MustCompile(`"pid":[0-9]+|"ociVersion":"[^"]*"`)
		states := func(path string) (list []string) {
			a := newAgent(h, goOn)
			b := h.Bundle().Args("sleep", "60").Edit(a.notify("mkdirat"), `annotations={"k":"v","a<b>":"\u2028&\"\\"}`)
			h.Write(b)
			root := h.TempDir()
			for _, args := range [][]string{{"create", "-b", b.Dir, b.ID}, {"exec", b.ID, "true"}, {"start", b.ID}, {"exec", b.ID, "true"}, {"delete", "-f", b.ID}} {
				h.Want(h.Do(Cmd{Path: path, NoRoot: true, Global: []string{"--root", root}, Args: args}), "", 0)
				if args[0] == "create" || args[0] == "exec" {
					text := plain.ReplaceAllStringFunc(a.state(h), func(s string) string { return s[:strings.IndexByte(s, ':')] })
					list = append(list, strings.NewReplacer(b.Dir, "DIR", b.ID, "ID").Replace(text))
				}
			}
			return list
		}
		ours, theirs := states(""), states(runc)
		for i := range ours {
			if ours[i] != theirs[i] {
				h.Errorf("state %d is\n%s\nrunc's\n%s", i, ours[i], theirs[i])
			}
		}
	})
}
