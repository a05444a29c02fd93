package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/reaper"
	"github.com/tare-oci/tare/internal/sys/scheduler"
	"github.com/tare-oci/tare/internal/sys/signalpipe"
	"github.com/tare-oci/tare/runtime/console"
	"github.com/tare-oci/tare/runtime/hooks"
	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/state"
)

// Run creates and starts a container, and, unless it is detached, stays until its first process ends, hands signals and the
// terminal through, deletes it (unless Keep) and returns the exit status, 128+n for a process that signal n killed.
func (r *Runtime) Run(ctx context.Context, o RunOptions) (int, error) {
	if !o.NoSubreaper && !o.Detach {
		// Processes that outlive their parents in the container without a pid namespace of its own are ours to reap.
		if err := reaper.Become(); err != nil {
			return 1, err
		}
	}
	k := &creation{r: r, o: o.CreateOptions, attach: !o.Detach, starts: true, keep: o.Keep}
	defer k.close()
	if err := k.run(ctx); err != nil {
		return 1, err
	}
	k.devices.close()
	if err := k.c.Unlock(); err != nil { // others may pause it, or change its limits, while it runs
		return 1, k.undo(ctx, err)
	}
	if o.Detach {
		k.proxy.awaitReady(ctx, r, k.c.Init, k.c.Init.Pid)
		return 0, nil
	}
	// The service manager watches this process, which ends when the container does, and removes it then.
	if k.proxy != nil {
		go k.proxy.awaitReady(ctx, r, k.c.Init, os.Getpid())
	}
	status := accompany(k.child, k.relay, k.std)
	r.explainStatus(status, k.spec, k.group)
	r.ended("wait for the process")
	if !o.Keep {
		err := k.c.Lock(context.WithoutCancel(ctx))
		if err == nil {
			err = r.destroy(context.WithoutCancel(ctx), k.c)
		}
		if err != nil && !errors.Is(err, state.ErrNotExist) { // somebody has deleted it by force
			return status, err
		}
	}
	finishOutput(k.relay, k.std)
	return status, nil
}

// run brings the container to the point where its program runs and the poststart hooks have run.
func (k *creation) run(ctx context.Context) error {
	if err := k.look(false); err != nil {
		return err
	}
	// With startContainer hooks the init waits between its two halves, as after create.
	wait := len(hooks.Of(k.spec.Hooks, hooks.StartContainer)) > 0
	if wait {
		k.options.WaitStart = true
		if err := k.compile(); err != nil {
			return err
		}
	}
	if err := k.make(ctx, wait); err != nil {
		return err
	}
	if wait {
		if err := k.r.startHooks(ctx, k.c, k.spec); err != nil {
			return k.undo(ctx, err)
		}
		if err := release(k.c, k.spec); err != nil {
			return k.undo(ctx, err)
		}
	}
	if err := hooks.Run(ctx, hooks.Poststart, k.spec.Hooks, k.c.OCI(state.Running, k.child.PID), k.bundle); err != nil {
		return k.undo(ctx, err)
	}
	return nil
}

// streams prepares the standard streams of a process p in a container. On a terminal of its own it has no others;
// without a socket that takes that terminal, a foreground process needs one of the caller's.
func (r *Runtime) streams(s *specs.Spec, p *specs.Process, attach bool, socket string) (*console.Streams, error) {
	if p.Terminal {
		std := new(console.Streams)
		var err error
		if attach && socket == "" {
			std.Host, err = console.HostTerminal()
		}
		return std, err
	}
	if attach {
		return console.Relay(hostUID(s, p.User.UID))
	}
	std, err := console.Detached()
	if err != nil {
		return nil, err
	}
	for _, n := range std.Directories {
		r.Warn(fmt.Sprintf("standard stream %d is a directory: the process gets /dev/null instead", n))
	}
	return std, nil
}

// hostUID is a user of a container as the host knows it, -1 when that cannot be told from its configuration.
func hostUID(s *specs.Spec, uid uint32) int {
	if s.Linux == nil {
		return int(uid)
	}
	i := slices.IndexFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.UserNamespace })
	if i < 0 {
		return int(uid)
	}
	if p := s.Linux.Namespaces[i].Path; p != "" { // the configuration's mappings do not count
		if id, err := hostID(uid, joinedMappings(p)); err == nil {
			return int(id)
		}
		return -1
	}
	for _, m := range s.Linux.UIDMappings {
		if uid >= m.ContainerID && uid-m.ContainerID < m.Size {
			return int(m.HostID + uid - m.ContainerID)
		}
	}
	return -1
}

// joinedMappings returns the uid_map of a user namespace that is given as that of a process, as engines give it. One by
// another path (a bound file) has none here.
func joinedMappings(path string) string {
	process, ok := strings.CutSuffix(path, "/ns/user")
	if !ok || !strings.HasPrefix(process, "/proc/") {
		return ""
	}
	text, err := os.ReadFile(process + "/uid_map")
	if err != nil {
		return ""
	}
	return string(text)
}

// accompany stays with a process in the foreground until it ends and returns its exit status. What it wrote last may still be on
// its way through std.
func accompany(child *launch.Child, relay *signalpipe.Pipe, std *console.Streams) int {
	std.Start()
	ctx, cancel := context.WithCancel(context.Background())
	copied := make(chan error, 1)
	if child.Master != nil {
		scheduler.Concurrent()
		go func() { copied <- console.Foreground(ctx, child.Master, std.Host, os.Stdin, os.Stdout) }()
	}
	ws := relaySignals(child, relay)
	cancel()
	if child.Master != nil {
		<-copied // what the process wrote last is out
	}
	return exitCode(ws)
}

// relaySignals hands signals to the process and reaps whatever ends until the process has ended.
func relaySignals(child *launch.Child, relay *signalpipe.Pipe) syscall.WaitStatus {
	for {
		if ws, ended := child.Reap(); ended {
			return ws
		}
		sig, err := relay.Next()
		if err != nil {
			return child.WaitReaping()
		}
		if sig != syscall.SIGCHLD { // that is about children of this process
			child.Signal(sig)
		}
	}
}

// finishOutput waits until the output of a process that has ended is copied; signals end this process again meanwhile.
func finishOutput(relay *signalpipe.Pipe, std *console.Streams) {
	if std.Copying() {
		relay.Close()
		std.Wait()
	}
}

// errPaused is why a process cannot be added now.
var errPaused = errors.New("cannot exec in a paused container (use --ignore-paused to override)")
