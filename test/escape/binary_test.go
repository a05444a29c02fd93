package escape

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

func fileHash(h *H, path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		h.Fatalf("%v", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// runtimeCopy is what is attacked instead of the installed runtime.
func runtimeCopy(h *H) (path, hash string) {
	data, err := os.ReadFile(ocitest.RuntimePath())
	if err != nil {
		h.Fatalf("%v", err)
	}
	path = h.File(filepath.Join(h.TempDir(), "runtime"), string(data), 0o755)
	return path, fileHash(h, path)
}

// TestRuntimeBinary has containers that overwrite the runtime's own file.
func TestRuntimeBinary(t *testing.T) {
	row(t, "CVE-2019-5736 entry point is proc self exe", func(h *H) {
		rt, hash := runtimeCopy(h)
		b := h.Bundle().Args("/entry")
		h.File(b.Rootfs+"/entry", "#!/proc/self/exe\n", 0o755)
		h.Write(b)
		h.Do(Cmd{Path: rt, Args: []string{"run", "-b", b.Dir, b.ID}}) // whatever it does, the binary stays
		b2 := h.Bundle().Args("sleep", "60")
		h.File(b2.Rootfs+"/entry", "#!/proc/self/exe\n", 0o755)
		h.Write(b2)
		h.Want(h.Do(Cmd{Path: rt, Args: []string{"run", "-d", "-b", b2.Dir, b2.ID}}), "", 0)
		h.Do(Cmd{Path: rt, Args: []string{"exec", b2.ID, "/entry"}})
		if fileHash(h, rt) != hash {
			h.Errorf("the runtime was overwritten")
		}
	})
	row(t, "CVE-2019-5736 open of the runtime for writing", func(h *H) {
		rt, hash := runtimeCopy(h)
		// The attacker keeps descriptors of the runtime's file, and opens them again for writing when nothing executes it any
		// more.
		w := watchFor(h, "CAP_DAC_OVERRIDE CAP_SYS_PTRACE", "0000000000080002")
		n := 50
		if long() {
			n = 1000
		}
		for range n {
			h.Want(h.Do(Cmd{Path: rt, Args: []string{"exec", "--env", slowPath, w.b.ID, "true"}}), "", 0)
		}
		time.Sleep(200 * time.Millisecond)
		w.check(h, "wrote")
		if fileHash(h, rt) != hash {
			h.Errorf("the runtime was overwritten")
		}
	})
	row(t, "CVE-2019-5736 start that runs hooks in the container", testStartSealed)
}

// testStartSealed looks at the runtime's process while a startContainer hook runs, which is a copy of it until its
// program is executed: its program must be another file than the installed one. A start without such hooks enters no
// container.
func testStartSealed(h *H) {
	rt, _ := runtimeCopy(h)
	b := h.Bundle().Args("sleep", "60").Edit(`hooks.startContainer=[{"path":"/bin/sleep","args":["sleep","60"]}]`)
	h.Write(b)
	h.Want(h.Do(Cmd{Path: rt, Args: []string{"create", "-b", b.Dir, b.ID}}), "", 0)
	_, wait := h.Start(Cmd{Path: rt, Args: []string{"start", b.ID}})
	var program string
	h.Await("the hook", func() bool {
		found := false
		comms, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, name := range comms {
			line, _ := os.ReadFile(name)
			dir := filepath.Dir(name)
			switch {
			case string(line) == "sleep\x0060\x00":
				found = true
			case strings.HasPrefix(string(line), rt+"\x00") && strings.Contains(string(line), "\x00start\x00"):
				program, _ = os.Readlink(filepath.Join(dir, "exe"))
			}
		}
		return found && program != ""
	})
	if program == rt {
		h.Errorf("the program of start is %s while a hook runs in the container", program)
	}
	h.T.Logf("the program of start: %s", program)
	h.Do(Cmd{Path: rt, Args: []string{"delete", "-f", b.ID}})
	wait()
}

// watched is a container whose first process looks at every new process of its pid namespace; see package attack.
type watched struct {
	b   *Bundle
	out func() Result
}

// watchFor starts one: names are its capabilities, and mask is the same as a hexadecimal number.
func watchFor(h *H, names, mask string) *watched {
	return watchWith(h, h.Bundle().Edit(capEdit(names, names, names, "", "")), mask)
}

// watchWith makes a container such a one.
func watchWith(h *H, b *Bundle, mask string) *watched {
	b.Args("attack", "watch", mask, "true")
	attacker(h, b)
	r := h.Up(b)
	h.Await("the watcher", func() bool { return strings.HasPrefix(r.Again().Stdout, "watching") })
	return &watched{b, r.Again}
}

// slowPath is a PATH on which a program is found late: the runtime is busy for a while between its last preparations and execve(2).
var slowPath = "PATH=" + strings.Repeat("/none:", 400) + "/bin"

// sees reports whether a process was seen before it became its program. On a busy machine that takes more tries than
// usual.
func (w *watched) sees() bool { return strings.Contains(w.out().Stdout, "window ") }

// check records a problem for what the watcher reported and must not have seen.
func (w *watched) check(h *H, bad ...string) {
	windows := 0
	said := map[string]bool{}
	for line := range strings.Lines(w.out().Stdout) {
		what, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if what == "window" {
			windows++
		}
		for _, b := range bad {
			if what == b && !said[what] {
				said[what] = true
				h.Errorf("a process of the container saw a process before it became its program: %s %s", what, rest)
			}
		}
	}
	if windows == 0 && h.Problems() == 0 {
		h.Errorf("no process was seen before it became its program: nothing was tested")
	}
	h.T.Logf("%d processes were seen before they became their programs", windows)
}

const (
	ptraceMask  = "0000000000080020" // CAP_KILL, CAP_SYS_PTRACE
	ptraceNames = "CAP_KILL CAP_SYS_PTRACE"
)

// TestJoiningProcess looks at processes that the runtime puts into a container's pid namespace, in the time before execve(2).
func TestJoiningProcess(t *testing.T) {
	n := 40
	if long() {
		n = 1000
	}
	execs := func(h *H, w *watched) {
		for i := 0; i < n || i < 10*n && !w.sees(); i++ {
			if r := h.RT("exec", "--env", slowPath, w.b.ID, "true"); r.Code != 0 {
				h.Fatalf("exec: status %d: %s", r.Code, r.Stderr)
			}
		}
	}
	// The pid namespace of the container is joined by further containers, as in a pod.
	joins := func(h *H, w *watched) {
		for i := 0; i < n/4 || i < 3*n && !w.sees(); i++ {
			b := h.Bundle().Edit(capEdit("CAP_KILL", "CAP_KILL", "CAP_KILL", "", ""), joinPID(h, w.b), `-hostname`, `process.env=["`+slowPath+`"]`).WithoutMounts("/sys", "/dev/mqueue")
			h.Want(h.Run(b), "", 0)
		}
	}
	row(t, "issue7 A8 environment and filter with CAP_SYS_PTRACE, exec", func(h *H) {
		w := watchWith(h, ptracing(h.Bundle()), ptraceMask)
		for i := 0; i < n || i < 10*n && !w.sees(); i++ {
			h.Want(h.Do(Cmd{Args: []string{"exec", "--env", slowPath, w.b.ID, "true"}, Env: append([]string{"A=" + secret}, os.Environ()...)}), "", 0)
		}
		w.check(h, "environ", "unfiltered", "caps")
	})
	row(t, "issue7 A8 environment with CAP_SYS_PTRACE, exec in a container of the same pid namespace", func(h *H) {
		w := watchFor(h, ptraceNames, ptraceMask)
		b := h.Bundle().Edit(capEdit("CAP_KILL", "CAP_KILL", "CAP_KILL", "", ""), joinPID(h, w.b), `-hostname`).WithoutMounts("/sys", "/dev/mqueue").Args("/first/true")
		h.File(b.Rootfs+"/first/true", "#!/bin/sh\nexec sleep 60\n", 0o755) // by its name the watcher knows that it is a program
		h.Up(b)
		for i := 0; i < n || i < 10*n && !w.sees(); i++ {
			h.Want(h.Do(Cmd{Args: []string{"exec", "--env", slowPath, b.ID, "true"}, Env: append([]string{"A=" + secret}, os.Environ()...)}), "", 0)
		}
		w.check(h, "environ", "caps")
	})
	row(t, "CVE-2016-9962 without CAP_SYS_PTRACE, exec", func(h *H) {
		w := watchFor(h, "CAP_KILL", killOnly)
		execs(h, w)
		w.check(h, "exe", "fd", "seized")
	})
	row(t, "CVE-2016-9962 without CAP_SYS_PTRACE, a container in the same pid namespace", func(h *H) {
		w := watchFor(h, "CAP_KILL", killOnly)
		joins(h, w)
		w.check(h, "exe", "fd", "seized")
	})
	row(t, "CVE-2016-9962 issue7 A8 capabilities with CAP_SYS_PTRACE, exec", func(h *H) {
		w := watchFor(h, ptraceNames, ptraceMask)
		execs(h, w)
		w.check(h, "caps")
	})
	row(t, "CVE-2016-9962 issue7 A8 capabilities with CAP_SYS_PTRACE, a container in the same pid namespace", func(h *H) {
		needProcByDescriptor(h)
		w := watchFor(h, ptraceNames, ptraceMask)
		joins(h, w)
		w.check(h, "caps")
	})
}

// TestInitProcess looks at the container's first process while it waits for start, from another process of the container.
func TestInitProcess(t *testing.T) {
	row(t, "CVE-2016-9962 the waiting first process shows nothing to its own user", func(h *H) {
		b := h.Bundle().Edit(capEdit("CAP_KILL", "CAP_KILL", "CAP_KILL", "", "")).Args("sleep", "60")
		h.Create(b)
		if r := h.RT("exec", b.ID, "sh", "-c", "readlink /proc/1/exe /proc/1/fd/*; echo looked"); strings.TrimSpace(r.Stdout) != "looked" {
			h.Errorf("a process with the same user and capabilities reads what the waiting process has: %s %s", r.Stdout, r.Stderr)
		}
		h.MustRT("start", b.ID)
		h.Want(h.RT("exec", b.ID, "sh", "-c", "readlink /proc/1/exe"), "/bin/busybox", 0)
	})
	row(t, "issue7 A8 the waiting first process shows only its own to CAP_SYS_PTRACE", func(h *H) {
		b := ptracing(h.Bundle()).Args("sleep", "60")
		create(h, b)
		checkWaiting(h, h.RT("exec", b.ID, "sh", "-c", showWaiting))
	})
	row(t, "issue7 A8 the waiting first process shows only its own to CAP_SYS_PTRACE in a joined pid namespace", func(h *H) {
		needProcByDescriptor(h)
		first := ptracing(h.Bundle()).Args("sleep", "60")
		h.Up(first)
		b := ptracing(h.Bundle()).Edit(joinPID(h, first), "-hostname").WithoutMounts("/sys", "/dev/mqueue").Sh("ls /proc/1/fd >/dev/null && ls -l /dev/fd; sleep 60")
		r := create(h, b)
		checkWaiting(h, h.RT("exec", first.ID, "sh", "-c", showWaiting))
		h.MustRT("start", b.ID)
		h.Await("the list", func() bool { return strings.Contains(r.Again().Stdout, "/proc/self/fd") })
	})
}

// needProcByDescriptor skips what tare leaves open on kernels before 6.17 (docs/decisions/0004).
func needProcByDescriptor(h *H) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		h.Fatalf("fsopen: %v", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "pidns", "/proc/self/ns/pid"); err != nil && ocitest.Tare() {
		h.T.Skipf("the kernel mounts the procfs of no other pid namespace: %v", err)
	}
}

// TestStoppedExec has a process of the container stop what an exec puts there (issue 7 F12).
func TestStoppedExec(t *testing.T) {
	row(t, "issue7 F12 an exec whose process is stopped before it is the program goes on", func(h *H) {
		b := h.Bundle().Args("attack", "stop", "true")
		attacker(h, b)
		r := h.Up(b)
		h.Await("the attack", func() bool { return strings.HasPrefix(r.Again().Stdout, "watching") })
		for i := 0; i < 40 || i < 400 && !strings.Contains(r.Again().Stdout, "stopped"); i++ {
			h.Want(h.RT("exec", b.ID, "true"), "", 0)
			if h.Problems() > 0 {
				return
			}
		}
		if !strings.Contains(r.Again().Stdout, "stopped") {
			h.Errorf("no process was stopped before it became its program: nothing was tested")
		}
		h.T.Logf("%d were stopped", strings.Count(r.Again().Stdout, "stopped"))
	})
	row(t, "issue7 F12 a first process that was stopped while it waits for start goes on", func(h *H) {
		b := h.Bundle().Args("true")
		create(h, b)
		if err := syscall.Kill(h.State(b.ID).Pid, syscall.SIGSTOP); err != nil { // as a process of the same pid namespace could
			h.Fatalf("%v", err)
		}
		h.MustRT("start", b.ID)
	})
}

// TestTakenSocket has a process of the container give the runtime orders over the socket of what an exec puts there.
func TestTakenSocket(t *testing.T) {
	row(t, "CVE-2016-9962 issue7 A8 the runtime obeys no record that its plan does not have", func(h *H) {
		b := h.Bundle().Edit(capEdit(ptraceNames, ptraceNames, ptraceNames, "", "")).Args("attack", "orders", "/from", "/to")
		attacker(h, b)
		for _, dir := range []string{"/from/copied", "/to"} {
			if err := os.MkdirAll(b.Rootfs+dir, 0o755); err != nil {
				h.Fatalf("%v", err)
			}
		}
		r := h.Up(b)
		h.Await("the attack", func() bool { return strings.HasPrefix(r.Again().Stdout, "watching") })
		for i := 0; i < 10 || i < 400 && !strings.Contains(r.Again().Stdout, "sent"); i++ {
			h.RT("exec", b.ID, "true")
		}
		if !strings.Contains(r.Again().Stdout, "sent") {
			h.Errorf("no record was sent: nothing was tested")
		}
		if _, err := os.Lstat(b.Rootfs + "/to/copied"); err == nil {
			h.Errorf("the runtime has copied what a process of the container wanted")
		}
	})
	row(t, "issue7 G8 an exec ends whose socket a process of the container keeps", func(h *H) {
		b := h.Bundle().Edit(capEdit(ptraceNames, ptraceNames, ptraceNames, "", "")).Args("attack", "hold")
		attacker(h, b)
		r := h.Up(b)
		h.Await("the attack", func() bool { return strings.HasPrefix(r.Again().Stdout, "watching") })
		for i := 0; i < 10 || i < 400 && !strings.Contains(r.Again().Stdout, "held"); i++ {
			h.Want(h.Do(Cmd{Args: []string{"exec", b.ID, "true"}, Timeout: 5 * time.Second}), "", 0)
			if h.Problems() > 0 {
				return
			}
		}
		if !strings.Contains(r.Again().Stdout, "held") {
			h.Errorf("no socket was taken: nothing was tested")
		}
	})
}

// ptracing gives a container CAP_SYS_PTRACE, and a filter that the runtime needs no privileges to load.
func ptracing(b *Bundle) *Bundle {
	return b.Edit(capEdit(ptraceNames, ptraceNames, ptraceNames, "", ""), `process.noNewPrivileges=true`,
		ocitest.Seccomp(scmpAllow, ocitest.Rule("mkdir mkdirat", scmpErrno, "")))
}

// joinPID has a container join the pid namespace of another one.
func joinPID(h *H, first *Bundle) string {
	return fmt.Sprintf(`linux.namespaces=[{"type":"pid","path":"/proc/%d/ns/pid"},{"type":"mount"}]`, h.State(first.ID).Pid)
}

// secret is in the environment and in the arguments of the runtime's caller.
const secret = "hostsecret"

// create is Create with the secret.
func create(h *H, b *Bundle) Result {
	h.Write(b)
	r := h.Do(Cmd{Args: []string{"create", "--pid-file", h.TempDir() + "/" + secret, "-b", b.Dir, b.ID}, Env: append([]string{"A=" + secret}, os.Environ()...)})
	h.Want(r, "", 0)
	return r
}

// showWaiting shows what a process with CAP_SYS_PTRACE sees of one that waits for start.
const showWaiting = `for p in /proc/[0-9]*; do grep -qE '^Name:.(tare|runc|crun|exe)' $p/status || continue
	echo waiting; tr '\0' ' ' <$p/environ; tr '\0' ' ' <$p/cmdline; grep -E '^(Seccomp:|CapPrm|CapBnd|CapEff)' $p/status; readlink $p/fd/*; done; true`

// checkWaiting compares it with what the process is going to be.
func checkWaiting(h *H, r Result) {
	if r.Code != 0 || strings.Count(r.Stdout, "waiting") != 1 {
		h.Errorf("status %d, not one process waits: %s %s", r.Code, r.Stdout, r.Stderr)
	}
	sockets := 0
	for line := range strings.Lines(r.Stdout) {
		f := strings.Fields(line)
		switch {
		case strings.Contains(line, secret):
			h.Errorf("the environment or the arguments of the runtime are seen: %.200s", line)
		case strings.HasPrefix(line, "Seccomp:") && f[1] != "2":
			h.Errorf("it has no seccomp filter")
		case strings.HasPrefix(line, "Cap") && f[1] != ptraceMask:
			h.Errorf("it has other capabilities than its own: %s", line)
		case strings.HasPrefix(line, "socket:"):
			sockets++ // on which it waits for start
		case strings.HasPrefix(line, "anon_inode:"), strings.HasPrefix(line, "/") && !strings.HasPrefix(line, "/dev/null"):
			h.Errorf("it has a descriptor of the runtime: %s", line)
		}
	}
	if sockets > 1 {
		h.Errorf("it has %d sockets", sockets)
	}
}

// TestMovedInit has the first process of a container move into other namespaces, where other files are in the place of
// the container's programs (issue 7 F10).
func TestMovedInit(t *testing.T) {
	moved := func(h *H, b *Bundle, unshare string) *Bundle {
		b.Sh("exec unshare " + unshare + " sh -c 'mount -o bind /evil /tools && echo moved; exec sleep 60'")
		h.File(b.Rootfs+"/evil/prog", "#!/bin/sh\necho another program; id -u\n", 0o755)
		h.File(b.Rootfs+"/tools/prog", "#!/bin/sh\necho own program\n", 0o755)
		r := h.Up(b)
		h.Await("the move", func() bool { return r.Again().Stdout+r.Again().Stderr != "" })
		if strings.TrimSpace(r.Again().Stdout) != "moved" {
			h.Fatalf("it did not move: %s %s", r.Again().Stdout, r.Again().Stderr)
		}
		return b
	}
	row(t, "issue7 F10 exec does not follow an unprivileged first process into its mount namespace", func(h *H) {
		b := moved(h, h.Bundle().Edit(`process.user={"uid":1000,"gid":1000}`, `process.noNewPrivileges=false`), "-U -r -m")
		if r := h.RT("exec", "-u", "0", b.ID, "/tools/prog"); strings.Contains(r.Stdout, "another") {
			h.Errorf("root of the container executes a file of the user: %s", r.Stdout)
		}
	})
	row(t, "issue7 G3 exec does not follow an unprivileged first process out of a mount namespace that it has joined", func(h *H) {
		joined := func(user string) *Bundle {
			c := exec.Command("unshare", "--mount", "sleep", "60")
			if err := c.Start(); err != nil {
				h.Fatalf("%v", err)
			}
			h.Cleanup(func() { c.Process.Kill(); c.Wait() })
			h.Await("mount namespace", func() bool { return nsID(h, c.Process.Pid, "mnt") != nsID(h, "self", "mnt") })
			return h.Bundle().Edit(fmt.Sprintf(`linux.namespaces=[{"type":"pid"},{"type":"mount","path":"/proc/%d/ns/mnt"}]`, c.Process.Pid),
				"-hostname", user, `process.noNewPrivileges=false`).WithoutMounts("/sys", "/dev/mqueue", "/sys/fs/cgroup")
		}
		b := joined(`process.user={"uid":0,"gid":0}`).Args("sleep", "60")
		h.Up(b)
		h.Want(h.RT("exec", b.ID, "id", "-u"), "0", 0)
		b = moved(h, joined(`process.user={"uid":1000,"gid":1000}`), "-U -r -m")
		if r := h.RT("exec", "-u", "0", b.ID, "/tools/prog"); strings.Contains(r.Stdout, "another") {
			h.Errorf("root of the container executes a file of the user: %s", r.Stdout)
		} else if !strings.Contains(r.Stderr, "has moved into") {
			h.Errorf("status %d: %s %s", r.Code, r.Stdout, r.Stderr)
		}
	})
	row(t, "issue7 F10 exec follows no first process out of the container's user namespace", func(h *H) {
		b := h.Bundle().Edit(userns, idMaps(100000, 65536), `process.user={"uid":1000,"gid":1000}`)
		rootfsOf(100000)(h, b)
		moved(h, b, "-U -r -m")
		if r := h.RT("exec", "-u", "0", b.ID, "/tools/prog"); strings.Contains(r.Stdout, "another") {
			h.Errorf("root of the container executes a file of the user: %s", r.Stdout)
		}
	})
	row(t, "issue7 F10 exec follows a first process that may mount in the container", func(h *H) {
		all := "CAP_SYS_ADMIN CAP_SETUID CAP_SETGID"
		b := moved(h, h.Bundle().Edit(capEdit(all, all, all, "", "")), "-m")
		h.Want(h.RT("exec", b.ID, "/tools/prog"), "another program\n0", 0)
	})
}
