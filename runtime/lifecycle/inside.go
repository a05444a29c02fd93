package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/pidfd"
	"github.com/tare-oci/tare/internal/sys/scheduler"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/hooks"
	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/plan"
)

// inside runs hooks in a container's namespaces. They are plans like exec: createContainer before the pivot, so that its path is the
// host's, as the namespaces' root and without the process's limits and filter; startContainer after it, as the container's process in
// all but program and arguments.
type inside struct {
	r          *Runtime
	spec       *specs.Spec
	host       *plan.Host
	namespaces uint64 // in which the container differs from who created it
	join       []cgroup.JoinFile
	group      *cgroup.Group       // whose files join has; nil: none
	place      func(pid int) error // moves a process into the cgroup where it cannot join it; nil: it joins
	process    *os.File            // pidfd of the container's first process
	held       []launch.Namespace
	root       *os.File // of the container's first process, when the mount namespace is the host's
	rootfs     string   // the directory of createContainer hooks, absolute

	noNewKeyring bool // keep the caller's session keyring, as the container does
}

// pid is the first process's number as the hook sees it.
func (in *inside) pid(host int) int {
	for _, ns := range in.spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			if ns.Path == "" {
				return 1
			}
			return 0 // in a joined namespace it is not known without looking from there
		}
	}
	return host
}

func (in *inside) run(ctx context.Context, kind hooks.Kind, h *specs.Hooks, st *specs.State) error {
	for i, hook := range hooks.Of(h, kind) {
		if err := in.one(ctx, kind, i, hook, st); err != nil {
			return err
		}
	}
	return nil
}

// hookOutput is how many bytes of a hook's output are kept for the error.
const hookOutput = 4096

func (in *inside) one(ctx context.Context, kind hooks.Kind, i int, hook specs.Hook, st *specs.State) error {
	name := hooks.Describe(kind, i, hook)
	payload, err := hooks.Payload(st)
	if err != nil {
		return err
	}
	p, err := plan.CompileExec(in.hookInput(kind, hook), in.host, plan.Options{NoNewKeyring: in.noNewKeyring})
	if err != nil {
		return fmt.Errorf("error running %s: %w", name, err)
	}
	stdin, feed, err := os.Pipe()
	if err != nil {
		return err
	}
	defer feed.Close()
	output, out, err := os.Pipe()
	if err != nil {
		stdin.Close()
		return err
	}
	defer output.Close()
	res := &launch.Resources{Process: in.process, Namespaces: in.held, Root: in.root, Stdio: [3]*os.File{stdin, out, out}}
	addCgroups(res, in.join)
	res.Place = in.place
	begin := time.Now()
	child, err := launch.Start(p, res)
	stdin.Close()
	out.Close()
	if err != nil {
		return fmt.Errorf("error running %s: %w", name, err)
	}
	defer child.Abort()
	for _, step := range []func() error{child.Begin, child.Finish, func() error { return child.Await(0) }} {
		if err := step(); err != nil {
			return fmt.Errorf("error running %s: %w", name, err)
		}
	}
	scheduler.Concurrent()
	go func() {
		feed.Write(payload) // a hook need not read
		feed.Close()
	}()
	said, err := waitHook(ctx, child, output, hooks.Timeout(hook))
	if err != nil {
		return fmt.Errorf("error running %s hook #%d: %w%s (%s, %v)", kind, i, err, said, hook.Path, time.Since(begin).Round(time.Millisecond))
	}
	return nil
}

// hookInput describes a hook's process, with the environment that the configuration gives it; without one a createContainer hook has
// none, and a startContainer hook that of the container's process.
func (in *inside) hookInput(kind hooks.Kind, hook specs.Hook) plan.ExecInput {
	input := plan.ExecInput{Spec: in.spec, Namespaces: in.namespaces}
	if kind == hooks.CreateContainer {
		input.Hook = true
		input.Process = &specs.Process{Args: append([]string{hook.Path}, hooks.Args(hook)...), Env: hook.Env, Cwd: in.rootfs}
		return input
	}
	process := *in.spec.Process
	process.Args, process.Terminal = hooks.Args(hook), false
	if hook.Env != nil {
		process.Env = hook.Env
		input.ExactEnv = true
	}
	input.Process, input.Program = &process, hook.Path
	return input
}

// waitHook waits for the hook's end and kills its session at the timeout, 0 for none.
func waitHook(ctx context.Context, child *launch.Child, output *os.File, timeout time.Duration) (said string, err error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	text := make(chan string, 1)
	go func() {
		buf, _ := io.ReadAll(io.LimitReader(output, hookOutput))
		io.Copy(io.Discard, output)
		text <- strings.TrimSpace(string(buf))
	}()
	stop := context.AfterFunc(ctx, func() { pidfd.KillGroup(child.PID) })
	ws := child.Wait()
	killed := !stop()
	select {
	case said = <-text:
	case <-time.After(100 * time.Millisecond): // something in the background keeps the pipe
	}
	if said != "" {
		said = ", output: " + said
	}
	switch {
	case killed && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return said, fmt.Errorf("hook ran past specified timeout of %.1fs", timeout.Seconds())
	case ws.Signaled():
		return said, fmt.Errorf("signal: %v", ws.Signal())
	case ws.ExitStatus() != 0:
		return said, fmt.Errorf("exit status %d", ws.ExitStatus())
	}
	return said, nil
}

// exitCode is a wait status as shells write it: 128+n for signal n.
func exitCode(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
