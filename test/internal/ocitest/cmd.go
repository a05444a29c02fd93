package ocitest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Cmd is one call of the runtime. The zero value of every field is a sensible default.
type Cmd struct {
	Args    []string            // command and arguments; --root is put before them
	Global  []string            // options before the command, besides --root
	NoRoot  bool                // do not pass --root
	Stdin   string              // contents of standard input
	Tty     *os.File            // if set standard input, output and error, and the controlling terminal
	Env     []string            // replaces the environment if not nil
	Dir     string              // working directory
	Cred    *syscall.Credential // user to run as
	Files   []*os.File          // descriptors from 3 on
	Stdio   [3]*os.File         // standard streams in place of Stdin and the files that give the result its output
	Wrap    []string            // program and arguments that start the runtime, whose path and arguments follow
	Umask   string              // octal
	Timeout time.Duration       // default 20 s; then the call and everything it started are killed, which is a problem
	Path    string              // binary, default the runtime under test
}

// Result is how a call ended.
type Result struct {
	Stdout, Stderr string
	Code           int // exit status, or 128+n for a signal
	outFile        string
	errFile        string
}

var (
	cmdCount atomic.Int64
	callsMu  sync.Mutex       // held while a call starts, so that the reaper knows it before it can end
	calls    = map[int]bool{} // pids of calls of the runtime that are not waited for yet
)

// Do calls the runtime and waits for it (not for what it left running, which keeps the output files open).
func (h *H) Do(c Cmd) Result {
	r, wait := h.Start(c)
	if wait == nil {
		return r
	}
	return wait()
}

// Start begins a call; the function that it returns waits for its end.
func (h *H) Start(c Cmd) (Result, func() Result) {
	n := cmdCount.Add(1)
	r := Result{outFile: filepath.Join(h.dir, fmt.Sprintf("out%d", n)), errFile: filepath.Join(h.dir, fmt.Sprintf("err%d", n))}
	args := append([]string(nil), c.Global...)
	if !c.NoRoot {
		args = append([]string{"--root", h.Root}, args...)
	}
	args = append(args, c.Args...)
	path := c.Path
	if path == "" {
		path = runtimePath
	}
	if c.Umask != "" {
		args = append([]string{"-c", "umask " + c.Umask + `; exec "$@"`, "sh", path}, args...)
		path = "/bin/sh"
	}
	if len(c.Wrap) > 0 {
		args = append(append(append([]string{}, c.Wrap[1:]...), path), args...)
		path = c.Wrap[0]
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = 20 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Dir, cmd.ExtraFiles = c.Env, c.Dir, c.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.Cred}
	cmd.Cancel = func() error { return syscall.Kill(-1, syscall.SIGKILL) } // pid 1 of our own namespace: only what is ours
	closeFiles, err := h.stdio(cmd, c, r)
	defer closeFiles()
	if err == nil {
		callsMu.Lock()
		if err = cmd.Start(); err == nil {
			calls[cmd.Process.Pid] = true
		}
		callsMu.Unlock()
	}
	if err != nil {
		cancel()
		h.Errorf("start %s: %v", cmd, err)
		return Result{Code: -1}, nil
	}
	return r, func() Result {
		defer cancel()
		err := cmd.Wait()
		callsMu.Lock()
		delete(calls, cmd.Process.Pid)
		callsMu.Unlock()
		if ctx.Err() != nil {
			h.Errorf("%s did not end in %s and was killed", strings.Join(c.Args, " "), timeout)
		}
		var exit *exec.ExitError
		switch {
		case err == nil:
		case errors.As(err, &exit):
			r.Code = exit.ExitCode()
			if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				r.Code = 128 + int(ws.Signal())
			}
		default:
			h.Errorf("wait for %s: %v", cmd, err)
			r.Code = -1
		}
		return r.Again()
	}
}

func (h *H) stdio(cmd *exec.Cmd, c Cmd, r Result) (func(), error) {
	if c.Tty != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Tty, c.Tty, c.Tty
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
		return func() {}, nil
	}
	out, err := os.OpenFile(r.outFile, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o666)
	if err != nil {
		return func() {}, err
	}
	errf, err := os.OpenFile(r.errFile, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o666)
	if err != nil {
		return func() { out.Close() }, err
	}
	cmd.Stdout, cmd.Stderr = out, errf
	if c.Stdin != "" {
		cmd.Stdin = strings.NewReader(c.Stdin)
	}
	if f := c.Stdio[0]; f != nil {
		cmd.Stdin = f
	}
	if f := c.Stdio[1]; f != nil {
		cmd.Stdout = f
	}
	if f := c.Stdio[2]; f != nil {
		cmd.Stderr = f
	}
	return func() { out.Close(); errf.Close() }, nil
}

// Again reads the output once more: a container that was left running goes on writing there.
func (r Result) Again() Result {
	out, _ := os.ReadFile(r.outFile)
	errText, _ := os.ReadFile(r.errFile)
	r.Stdout, r.Stderr = string(out), string(errText)
	return r
}

// Remove removes the files of the output, for cases with very many calls.
func (r Result) Remove() {
	os.Remove(r.outFile)
	os.Remove(r.errFile)
}

// RT calls the runtime.
func (h *H) RT(args ...string) Result { return h.Do(Cmd{Args: args}) }

// MustRT calls the runtime; a status other than 0 ends the case.
func (h *H) MustRT(args ...string) Result {
	r := h.RT(args...)
	if r.Code != 0 {
		h.Fatalf("%s: status %d: %s", strings.Join(args, " "), r.Code, r.Stderr)
	}
	return r
}

// FailRT calls the runtime, which must fail with one clear sentence that contains want.
func (h *H) FailRT(want string, args ...string) Result {
	r := h.RT(args...)
	h.wantErr(r, want, strings.Join(args, " "))
	return r
}

func (h *H) wantErr(r Result, want, what string) {
	if r.Code == 0 {
		h.Errorf("%s: status 0, want an error", what)
		return
	}
	if strings.TrimSpace(r.Stderr) == "" {
		h.Errorf("%s: status %d and nothing on standard error", what, r.Code)
	}
	if strings.Contains(r.Stderr, "goroutine ") || strings.Contains(r.Stderr, "panic:") {
		h.Errorf("%s: a crash, not an error: %s", what, r.Stderr)
	}
	if !strings.Contains(strings.ToLower(r.Stderr), strings.ToLower(want)) {
		h.Errorf("%s: error %q does not contain %q", what, strings.TrimSpace(r.Stderr), want)
	}
}

// Write writes b's configuration; a failure ends the case.
func (h *H) Write(b *Bundle) {
	if err := b.Write(); err != nil {
		h.Fatalf("write configuration: %v", err)
	}
}

// Run writes the configuration and runs the container in the foreground.
func (h *H) Run(b *Bundle, flags ...string) Result {
	h.Write(b)
	return h.Do(Cmd{Args: append(append([]string{"run", "--bundle", b.Dir}, flags...), b.ID)})
}

// Create writes the configuration and creates the container, which must succeed.
func (h *H) Create(b *Bundle, flags ...string) Result {
	h.Write(b)
	return h.MustRT(append(append([]string{"create", "--bundle", b.Dir}, flags...), b.ID)...)
}

// Up creates and starts the container, which must succeed.
func (h *H) Up(b *Bundle, flags ...string) Result {
	r := h.Create(b, flags...)
	h.MustRT("start", b.ID)
	return r
}

// State is what the state command prints.
type State struct {
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Status      string            `json:"status"`
	Pid         int               `json:"pid"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Owner       string            `json:"owner"`
	Annotations map[string]string `json:"annotations"`
}

// State asks for the state of a container that must exist.
func (h *H) State(id string) State {
	var s State
	r := h.MustRT("state", id)
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil {
		h.Fatalf("state: %v: %s", err, r.Stdout)
	}
	return s
}

// Await polls ok for up to 10 s; when it stays false the case ends.
func (h *H) Await(what string, ok func() bool) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	h.Fatalf("waited 10 s in vain for: %s", what)
}

// AwaitStatus waits until the container has the status.
func (h *H) AwaitStatus(id, status string) {
	h.Await("status "+status, func() bool { return h.State(id).Status == status })
}

// CgroupFile reads a file of the cgroup in which the process is: in the v1 hierarchy of the controller, or on a machine with
// cgroup v2 alone in the one that there is.
func (h *H) CgroupFile(pid int, controller, file string) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		h.Fatalf("%v", err)
	}
	for _, l := range strings.Split(string(data), "\n") {
		f := strings.SplitN(l, ":", 3)
		if len(f) == 3 && (slices.Contains(strings.Split(f[1], ","), controller) || f[1] == "name="+controller || f[1] == "" && (controller == "unified" || unifiedOnly())) {
			data, err := os.ReadFile(filepath.Join(cgroupMount(controller), f[2], file))
			if err != nil {
				h.Fatalf("%v", err)
			}
			return strings.TrimSpace(string(data))
		}
	}
	h.Fatalf("process %d is in no %s cgroup:\n%s", pid, controller, data)
	return ""
}

// unifiedOnly tells whether /sys/fs/cgroup is cgroup v2.
func unifiedOnly() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

func cgroupMount(controller string) string {
	if unifiedOnly() {
		return "/sys/fs/cgroup"
	}
	return filepath.Join("/sys/fs/cgroup", controller)
}

// Signal sends a signal to the process of the runtime that runs the container in the foreground.
func (h *H) Signal(id string, sig syscall.Signal) {
	for pid, cmd := range processes() {
		if strings.HasPrefix(cmd, runtimePath+" ") && strings.HasSuffix(cmd, " "+id) {
			if err := syscall.Kill(pid, sig); err != nil {
				h.Errorf("kill %d: %v", pid, err)
			}
			return
		}
	}
	h.Fatalf("no foreground run of %s", id)
}

// ReapOrphans waits for dead children that the runtime left to the suite, as conmon and the shims of containerd do, until stop
// is called. While it does nothing but Do may start processes. Without it a container cannot be deleted while a zombie of an
// exec is in its process namespace.
func (h *H) ReapOrphans() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			callsMu.Lock()
			for pid := range processes() {
				if !calls[pid] {
					syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
				}
			}
			callsMu.Unlock()
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() { close(done); <-ended }
}
