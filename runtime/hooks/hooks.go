// Package hooks runs the hooks of the specification that run in the runtime's namespaces (prestart, createRuntime, poststart,
// poststop), and has what those in the container's namespaces share with them.
package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/descriptor"
	"github.com/tare-oci/tare/internal/sys/pidfd"
	"github.com/tare-oci/tare/internal/sys/scheduler"
	"github.com/tare-oci/tare/internal/sys/signals"
)

// Kind names an array of hooks, as in the configuration.
type Kind string

// The kinds, in the order in which they run (runtime-spec, config.md, POSIX-platform Hooks).
const (
	Prestart        Kind = "prestart" // deprecated by the specification, used by many
	CreateRuntime   Kind = "createRuntime"
	CreateContainer Kind = "createContainer"
	StartContainer  Kind = "startContainer"
	Poststart       Kind = "poststart"
	Poststop        Kind = "poststop"
)

// Kinds returns all kinds in the order in which they run.
func Kinds() []string {
	return []string{
		string(Prestart), string(CreateRuntime), string(CreateContainer), string(StartContainer), string(Poststart), string(Poststop),
	}
}

// Of returns the hooks of one kind; h may be nil.
func Of(h *specs.Hooks, k Kind) []specs.Hook {
	if h == nil {
		return nil
	}
	switch k {
	case Prestart:
		return h.Prestart //nolint:staticcheck // the specification still requires it
	case CreateRuntime:
		return h.CreateRuntime
	case CreateContainer:
		return h.CreateContainer
	case StartContainer:
		return h.StartContainer
	case Poststart:
		return h.Poststart
	case Poststop:
		return h.Poststop
	}
	return nil
}

// Run runs the hooks of kind k one after another in directory dir, the bundle, with the container's state on stdin, and stops
// at the first that fails. A hook has its arguments and environment exactly as the configuration gives them; one without
// an environment has the runtime's own.
func Run(ctx context.Context, k Kind, h *specs.Hooks, state *specs.State, dir string) error {
	for i, hook := range Of(h, k) {
		if err := run(ctx, k, i, hook, state, dir); err != nil {
			return err
		}
	}
	return nil
}

// RunAll is Run that goes on after a failure, as the specification wants it of poststop, and returns all failures: warnings.
func RunAll(ctx context.Context, k Kind, h *specs.Hooks, state *specs.State, dir string) []error {
	var failures []error
	for i, hook := range Of(h, k) {
		if err := run(ctx, k, i, hook, state, dir); err != nil {
			failures = append(failures, err)
		}
	}
	return failures
}

// Payload returns what a hook reads on stdin.
func Payload(state *specs.State) ([]byte, error) {
	data, err := json.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return data, nil
}

// Args returns the argument vector of a hook, which begins with its own name: its path when the configuration has none.
func Args(h specs.Hook) []string {
	if len(h.Args) == 0 {
		return []string{h.Path}
	}
	return h.Args
}

// Timeout returns how long a hook may run; 0 for ever. A timeout that is not positive was refused with the configuration.
func Timeout(h specs.Hook) time.Duration {
	if h.Timeout == nil {
		return 0
	}
	return time.Duration(*h.Timeout) * time.Second
}

// Describe names hook number i of kind k in error sentences: callers know "error running createRuntime hook #0:".
func Describe(k Kind, i int, h specs.Hook) string {
	return fmt.Sprintf("%s hook #%d: %s", k, i, h.Path)
}

// linger is how long output is awaited of what a hook left running in the background with its descriptors.
const linger = 100 * time.Millisecond

func run(ctx context.Context, k Kind, i int, h specs.Hook, state *specs.State, dir string) error {
	payload, err := Payload(state)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(h.Path) {
		return fmt.Errorf("error running %s: the path is not absolute", Describe(k, i, h))
	}
	if h.Timeout != nil && *h.Timeout <= 0 {
		return fmt.Errorf("error running %s: timeout %d is not positive", Describe(k, i, h), *h.Timeout)
	}
	if limit := Timeout(h); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	var stdout, stderr tail
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args, cmd.Env, cmd.Dir = Args(h), h.Env, dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(payload), &stdout, &stderr // a hook need not read: EPIPE is no error
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return pidfd.KillGroup(cmd.Process.Pid) }
	cmd.WaitDelay = linger
	begin := time.Now()
	// Whatever was to be passed on has reached the container's process before a hook runs; an engine's lock is not a hook's.
	if err := descriptor.CloseOnExec(3); err != nil {
		return fmt.Errorf("error running %s: %w", Describe(k, i, h), err)
	}
	scheduler.Concurrent()            // the hook's streams are copied while it is awaited
	restore, err := signals.Default() // a hook is no more nohup'ed than the container
	if err != nil {
		return fmt.Errorf("error running %s: %w", Describe(k, i, h), err)
	}
	err = cmd.Start()
	restore()
	if err == nil {
		err = cmd.Wait()
	}
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		return nil
	}
	took := time.Since(begin).Round(time.Millisecond)
	if ctx.Err() == context.DeadlineExceeded && h.Timeout != nil {
		err = fmt.Errorf("hook ran past specified timeout of %d.0s", *h.Timeout)
	} else if _, exited := err.(*exec.ExitError); !exited {
		return fmt.Errorf("error running %s: %w (%v)", Describe(k, i, h), cause(err, dir), took)
	}
	// Up to the parenthesis this is runc's sentence, which scripts look for.
	return fmt.Errorf("error running %s hook #%d: %w, stdout: %s, stderr: %s (%s, %v)", k, i, err, &stdout, &stderr, h.Path, took)
}

// cause strips the path that os/exec puts before an error of starting, for the sentence has it already. It tells a missing
// working directory from a missing hook, which the kernel's word does not.
func cause(err error, dir string) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	if _, e := os.Stat(dir); e != nil && errno == syscall.ENOENT {
		return fmt.Errorf("enter directory %s: %w", dir, errno)
	}
	return errno
}

// tailLimit is how many bytes at the end of a hook's output an error quotes.
const tailLimit = 4096

// tail keeps the end of what is written to it.
type tail struct {
	data []byte
	cut  bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p[max(0, len(p)-tailLimit):]...)
	if over := len(t.data) - tailLimit; over > 0 || len(p) > tailLimit {
		t.data = append(t.data[:0], t.data[max(0, over):]...)
		t.cut = true
	}
	return len(p), nil
}

func (t *tail) String() string {
	s := string(t.data)
	if t.cut {
		return "… " + s
	}
	return s
}
