// Command tare-runtime runs containers from bundles as the OCI runtime specification describes them, with the command line
// of runc, so that whatever drives runc can drive it.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/internal/sys/prefault"
	"github.com/tare-oci/tare/internal/sys/scheduler"
	"github.com/tare-oci/tare/internal/sys/sealed"
	"github.com/tare-oci/tare/runtime/lifecycle"
	"github.com/tare-oci/tare/runtime/state"
)

// environmentAdded is set by the entry in assembly when it has put GOMAXPROCS=1, GOGC=off and GOMEMLIMIT=64MiB before the environment.
var environmentAdded bool

// timerSlack is what the entry has found, in nanoseconds; it has set 10 ms.
var timerSlack uintptr

// restoreEnvironment removes the variables that the entry has added, which are not for what this process starts. Without them it
// sets the same. One goroutine at a time is all that there is to do; more would only wake threads that look for work.
//
// Go reads the variables as it starts; to set them later stops all goroutines three times, after it has looked for its CPU quota in
// mountinfo and cgroups.
func restoreEnvironment() {
	if environmentAdded {
		scheduler.SetSlack(timerSlack)
		for _, name := range []string{"GOMAXPROCS", "GOGC", "GOMEMLIMIT"} {
			os.Unsetenv(name)
		}
		return
	}
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
}

// heapUsed is about what a command that starts a process allocates, in bytes.
const heapUsed = 512 << 10

// memoryLimit is the heap, in bytes, below which nothing is collected: a command ends long before that.
const memoryLimit = 64 << 20

func main() {
	prefault.Stack()
	restoreEnvironment()
	if len(os.Args) > 1 && os.Args[1] == lifecycle.CopyUpArg { // started by this program
		os.Exit(lifecycle.CopyUp(os.Args[2:]))
	}
	if err := protect(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "tare-runtime: keep containers from overwriting this program: %v\n", err)
		os.Exit(1)
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// protect makes sure that a container started by these arguments cannot overwrite this program's file. The entry in assembly
// has done it where it could; without it, or without the right to mount, a sealed copy is executed.
func protect(args []string) error {
	for _, a := range args {
		switch a {
		case "create", "run", "exec", "restore":
			prefault.Heap(heapUsed)
			return seal()
		}
	}
	return nil
}

// seal executes a sealed copy of this program unless its file is protected already.
func seal() error {
	if ok, err := sealed.Protected(); err != nil || ok {
		return err
	}
	return sealed.Exec()
}

// globals are the flags that every command has, before and after its name.
type globals struct {
	debug, tracePhases, systemdCgroup, help, version bool
	log, logFormat, root, rootless                   string
	criu                                             string // ignored
}

func (g *globals) define(s *flags.Set) {
	s.Bool(&g.debug, "debug", "log more")
	s.Bool(&g.tracePhases, "trace-phases", "log at the end how many microseconds each phase of the command took")
	s.String(&g.log, "log", "FILE", "append log lines to FILE (default: write them to stderr)")
	s.String(&g.logFormat, "log-format", "text|json", "format of log lines (default: text)")
	s.String(&g.root, "root", "DIR", "directory of the containers' state, on a tmpfs (default: /run/tare, or $XDG_RUNTIME_DIR/tare)")
	s.Bool(&g.systemdCgroup, "systemd-cgroup", "have systemd make the cgroups of new containers (cgroupsPath is slice:prefix:name)")
	s.String(&g.rootless, "rootless", "true|false|auto", "ignore cgroup permission errors (default: auto)")
	s.String(&g.criu, "criu", "PATH", "") // go-runc passes it when containerd is configured with a path
	s.Bool(&g.help, "help,h", "show help")
	s.Bool(&g.version, "version,v", "print the version")
}

// env is what a command works with.
type env struct {
	context.Context
	args          []string // without flags
	runtime       *lifecycle.Runtime
	log           *logger
	stdin, stdout *os.File
	globals       *globals
}

// run runs one command line and returns the exit status.
func run(args []string, stdin, stdout, stderr *os.File) int {
	begin := time.Now()
	g := &globals{logFormat: "text", rootless: "auto"}
	log := &logger{stderr: stderr}
	var global flags.Set
	global.Stop = true
	g.define(&global)
	args, err := global.Parse(args)
	if err != nil {
		return log.wrongUsage(stdout, nil, nil, &global, err)
	}
	var c *command
	set := &flags.Set{}
	var act action
	if len(args) > 0 {
		name := args[0]
		if c = find(name); c == nil {
			return log.noCommand(name)
		}
		set.Stop = c.stop
		if c.define != nil {
			act = c.define(set)
		}
		args = args[1:]
		if !c.raw {
			if args, err = set.Parse(args, &global); err != nil {
				return log.wrongUsage(stdout, c, set, &global, err)
			}
		}
	}
	switch {
	case g.version:
		printVersion(stdout)
		return 0
	case g.help || c == nil:
		help(stdout, c, set, &global)
		return 0
	case c.name == "help":
		return helpCommand(stdout, log, args, &global)
	}
	if err := log.open(g); err != nil {
		log.print("error", err.Error())
		return 1
	}
	if g.criu != "" {
		log.print("warning", "--criu ignored (criu binary from $PATH is used); do not use")
	}
	if err := c.check(args); err != nil {
		return log.wrongUsage(stdout, c, set, &global, err)
	}
	e := &env{Context: context.Background(), args: args, log: log, stdin: stdin, stdout: stdout, globals: g}
	if err := e.prepare(); err != nil {
		return log.fail(c, 1, err)
	}
	if g.tracePhases {
		p := tracePhases(begin)
		e.runtime.Phase = p.end
		defer p.print(log, c.name)
	}
	status, err := act(e)
	return log.fail(c, status, err)
}

// prepare makes the runtime that the global flags describe.
func (e *env) prepare() error {
	g := e.globals
	root := g.root
	if root == "" {
		uid := os.Geteuid()
		root = state.DefaultRoot(uid, os.Getenv("XDG_RUNTIME_DIR"))
		if uid != 0 && os.Getenv("XDG_RUNTIME_DIR") != "" {
			if err := state.MakeRootless(root); err != nil {
				return err
			}
		}
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return fmt.Errorf("find state directory: %w", err)
	}
	e.runtime = lifecycle.New(root, func(text string) { e.log.print("warning", text) })
	e.runtime.Systemd = g.systemdCgroup
	e.runtime.Seal = seal
	if g.debug {
		e.runtime.Verbose = true
		e.runtime.Debug = func(text string) { e.log.print("debug", text) }
	}
	e.runtime.Rootless, err = lifecycle.ParseRootless(g.rootless)
	return err
}
