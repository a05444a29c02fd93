package lifecycle

import (
	"context"
	"errors"
	"os"
	ossignal "os/signal"
	"syscall"
	"time"

	"github.com/tare-oci/tare/internal/sys/reaper"
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
	k := &creation{r: r, o: o.CreateOptions, attach: !o.Detach, starts: true}
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
	status := accompany(k.child, k.relay)
	if o.Keep {
		return status, nil
	}
	err := k.c.Lock(context.WithoutCancel(ctx))
	if errors.Is(err, state.ErrNotExist) {
		return status, nil // somebody has deleted it by force
	}
	if err == nil {
		err = r.destroy(context.WithoutCancel(ctx), k.c)
	}
	return status, err
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

// signals are those that this process hands through.
type signals struct{ c chan os.Signal }

// catchSignals is called when the child has been cloned and is busy: the first signal that is caught costs the Go runtime half a
// millisecond, and each one 10 µs. So it is those first that usually end a program, and the others when the container has
// shown that it lives longer than that. A runtime that is killed before leaves what delete removes; its child ends by itself.
func catchSignals() *signals {
	s := &signals{make(chan os.Signal, 64)}
	ossignal.Notify(s.c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	time.AfterFunc(10*time.Millisecond, func() { ossignal.Notify(s.c) })
	return s
}

// forward hands signals to the process until done is closed. SIGCHLD is about us, SIGURG is Go's own, SIGWINCH goes the way of
// the terminal, and SIGPIPE would tell the container about our output.
func (s *signals) forward(child *launch.Child, done <-chan struct{}) {
	for {
		select {
		case sig := <-s.c:
			switch sig {
			case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH, syscall.SIGPIPE:
			default:
				if n, ok := sig.(syscall.Signal); ok {
					child.Signal(n)
				}
			}
		case <-done:
			return
		}
	}
}

// accompany stays with a process in the foreground until it ends and returns its exit status.
func accompany(child *launch.Child, relay *signals) int {
	done := make(chan struct{})
	go relay.forward(child, done)
	ctx, cancel := context.WithCancel(context.Background())
	copied := make(chan error, 1)
	if child.Master != nil {
		go func() { copied <- console.Foreground(ctx, child.Master, os.Stdin, os.Stdout) }()
	}
	ws := child.WaitReaping()
	close(done)
	cancel()
	if child.Master != nil {
		<-copied // what the process wrote last is out
	}
	return exitCode(ws)
}

// errPaused is why a process cannot be added now.
var errPaused = errors.New("cannot exec in a paused container (use --ignore-paused to override)")
