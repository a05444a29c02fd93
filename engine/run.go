package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/snapshot"
	"github.com/tare-oci/tare/internal/sys/mount"
	"github.com/tare-oci/tare/internal/sys/pty"
)

// RunOptions says what to run and how. Only Source is needed.
type RunOptions struct {
	Source     string   // image, as reference.ParseImage reads it
	Args       []string // take the place of the image's command
	Entrypoint []string // takes the place of the image's entry point and command; nil: the image's; empty: none
	Env        []string // K=V, over the image's
	WorkDir    string   // absolute; empty: the image's
	User       string   // NAME|UID[:GROUP|GID]; empty: the image's

	Name     string // empty: the beginning of the id
	Hostname string // empty: the first 12 characters of the id, or the host's name in the host's network
	Network  string // "none" or empty: a network of its own with a loopback device; "host": the host's
	Volumes  []Volume
	ReadOnly bool // the container's root file system, not its volumes
	Limits   Limits

	Terminal    bool // the process gets a terminal, which ours is connected to
	Interactive bool // the process gets our standard input; otherwise it reads nothing
	AutoRemove  bool // nothing of the container stays
	Runtime     string

	Pull     PullPolicy         // for images of registries and the store
	Platform *manifest.Platform // nil: this machine's
	Report                      // of a pull
	Pulled   func()             // called when the image is unpacked, before anything else has the terminal; may be nil
}

// syncAfter is how long a container runs before its layers are written to disk for certain.
const syncAfter = 5 * time.Second

// Run runs a container in the foreground, with this process's standard streams, and returns how its process ended. Signals
// that come meanwhile go to the process. An error means that nothing ran, and nothing is left. The goroutine that calls Run
// stays locked to its thread, which is in a mount namespace of its own from then on.
func (e *Engine) Run(ctx context.Context, o RunOptions) (Outcome, error) {
	sig := catchSignals(ctx)
	defer sig.cancel()
	out, err := e.run(sig.ctx, sig, o)
	if err != nil && sig.ctx.Err() != nil && ctx.Err() == nil {
		return Outcome{Code: 128 + int(sig.caught())}, fmt.Errorf("stopped by signal: %s", sig.caught())
	}
	return out, err
}

func (e *Engine) run(ctx context.Context, sig *signals, o RunOptions) (Outcome, error) {
	failed := Outcome{Code: 125}
	if err := o.check(); err != nil {
		return failed, err
	}
	runtime, err := FindRuntime(o.Runtime)
	if err != nil {
		return failed, err
	}
	img, err := e.image(ctx, &o)
	if err != nil {
		return failed, err
	}
	rootfs, err := e.unpack(ctx, img)
	if err != nil {
		return failed, err
	}
	defer rootfs.Close()
	// A short run does not wait for the disk: what is unpacked then is good until the next start of the system.
	settled := time.AfterFunc(syncAfter, func() { rootfs.Sync() }) //nolint:errcheck // tried again by the next run
	defer settled.Stop()
	if o.Pulled != nil {
		o.Pulled()
	}
	c, err := e.create(record{Name: o.Name, Image: o.Source, ImageID: img.ID, ImageDigest: img.root, ImageName: img.name,
		Layers: img.DiffIDs, Runtime: runtime, AutoRemove: o.AutoRemove})
	if err != nil {
		return failed, err
	}
	out, started, err := c.run(ctx, sig, img, rootfs, &o)
	if !started {
		c.record.AutoRemove = true // a container that never ran has nothing worth keeping, least of all its name
	}
	if e := c.end(out); e != nil {
		err = errors.Join(err, fmt.Errorf("end container %.12s: %w", c.record.ID, e))
	}
	return out, err
}

func (o *RunOptions) check() error {
	if os.Geteuid() != 0 {
		return errors.New("run containers as another user than root: not supported yet; use sudo")
	}
	if o.Name != "" {
		if err := checkName(o.Name); err != nil {
			return err
		}
	}
	if o.Hostname != "" {
		if err := checkHostname(o.Hostname); err != nil {
			return err
		}
	}
	switch o.Network {
	case "", "none", "host":
	case "bridge", "default":
		return fmt.Errorf("network %s: not supported yet; there are none and host", o.Network)
	default:
		return fmt.Errorf("network %q: unknown; there are none and host", o.Network)
	}
	if o.WorkDir != "" && !filepath.IsAbs(o.WorkDir) {
		return fmt.Errorf("working directory %q is no absolute path", o.WorkDir)
	}
	if o.Terminal && !pty.IsTerminal(os.Stdin) {
		return errors.New("standard input is no terminal: a terminal for the container (-t) needs one; leave -t out")
	}
	for _, v := range o.Volumes {
		if v.Source == "" {
			continue
		}
		if _, err := os.Stat(v.Source); err != nil {
			return fmt.Errorf("volume %s: %w", v.Destination, err)
		}
	}
	return nil
}

// run mounts, describes and runs the container; started tells whether its process ran.
func (c *Container) run(ctx context.Context, sig *signals, img *image, rootfs *snapshot.Rootfs, o *RunOptions) (out Outcome, started bool, err error) {
	failed := Outcome{Code: 125}
	if err := c.lease(true); err != nil {
		return failed, false, err
	}
	if err := c.mountRoot(ctx, rootfs); err != nil {
		return failed, false, err
	}
	defer func() {
		if e := mount.Detach(c.path("rootfs")); e != nil {
			err = errors.Join(err, e)
		}
	}()
	if err := c.prepare(img, o); err != nil {
		return failed, false, err
	}
	if err := ctx.Err(); err != nil {
		return failed, false, err
	}
	return c.invoke(sig, o)
}

// mountRoot mounts the image's layers with a writable directory above them, where only this thread and the processes that it
// starts see it.
func (c *Container) mountRoot(ctx context.Context, rootfs *snapshot.Rootfs) error {
	for _, d := range []string{"rootfs", "runtime"} {
		if err := os.Mkdir(c.path(d), 0o700); err != nil {
			return err
		}
	}
	if err := mount.Private(); err != nil {
		return err
	}
	return rootfs.Mount(ctx, c.path("rootfs"), c.path(), c.record.AutoRemove)
}

// invoke calls the runtime and waits. Without a terminal the runtime is a process group of its own, so that a Ctrl-C reaches
// the container once, through us. With one it stays in ours: it has to be in the terminal's foreground to set it up.
// The runtime holds the container's lock with us: if we are killed, the container is taken for running as long as the runtime
// waits for it, and nobody cleans up what a runtime is still making.
func (c *Container) invoke(sig *signals, o *RunOptions) (out Outcome, started bool, err error) {
	cmd := c.command("run", "--bundle", c.path(), "--pid-file", c.path("pid"), c.record.ID)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{c.own.File()}
	if o.Interactive || o.Terminal {
		cmd.Stdin = os.Stdin
	}
	if o.Terminal {
		cmd.Stderr = &said // what the process writes goes through the terminal: this is only the runtime's
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	if err := cmd.Start(); err != nil {
		return Outcome{Code: 125}, false, fmt.Errorf("start runtime: %w", err)
	}
	sig.forward(cmd.Process, o.Terminal)
	waitErr := cmd.Wait()
	var exit *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &exit) {
		return Outcome{Code: 125}, true, fmt.Errorf("wait for runtime: %w", waitErr)
	}
	return c.judge(cmd.ProcessState, &said, o.Terminal)
}

// judge tells the end of the container's process from a failure of the runtime.
func (c *Container) judge(state *os.ProcessState, said *bytes.Buffer, captured bool) (out Outcome, started bool, err error) {
	name := filepath.Base(c.record.Runtime)
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		out := Outcome{Code: 128 + int(ws.Signal()), Error: name + " was killed: " + ws.Signal().String()}
		return out, true, errors.New(out.Error)
	}
	out.Code = state.ExitCode()
	if out.Code == 0 {
		return out, true, nil
	}
	msg, err := c.complaint()
	if err != nil {
		return out, true, err
	}
	if msg == "" {
		if captured && said.Len() > 0 {
			err = fmt.Errorf("%s: %s", name, strings.TrimSpace(said.String()))
		}
		return out, true, err
	}
	told := &RuntimeError{Message: msg, Told: !captured}
	code := startFailure(msg)
	if _, err := os.Lstat(c.path("pid")); err == nil && code == 125 {
		return out, true, told // the process ran: the runtime complains about something that came later
	}
	return Outcome{Code: code, Error: msg}, false, told
}

// A RuntimeError is a runtime's own sentence about why it did not start a process.
type RuntimeError struct {
	Message string
	Told    bool // the runtime has written it on standard error already, which was the container's
}

// Error returns the sentence.
func (e *RuntimeError) Error() string { return e.Message }
