package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/internal/getopt"
)

var runCommand = command{
	name:     "run",
	args:     "IMAGE [ARG…]",
	summary:  "Run a command in a new container",
	setup:    setupRun,
	operands: "image",
	first:    true,
	more: `
IMAGE is the name of an image in the local store, which is pulled from its registry if it is not there, or an image in a file:
oci:DIR[:REF], oci-archive:FILE[:REF] or docker-archive:FILE[:REF]. What follows it is the command, in place of the image's own,
and its arguments: options end at IMAGE.

A container has a network of its own with nothing but a loopback device (none), or the host's (host); bridges are not there
yet. Without a runtime's name, tare-runtime is taken, from beside tare or from PATH.

Signals go to the container's process, except those that stop a job in a terminal. The exit status is the process's, or 128
plus the signal that ended it; 127 if the command is not there, 126 if it cannot be run, 125 if tare failed otherwise.
`,
}

func setupRun(set *getopt.Set) func([]string) (int, error) {
	var o engine.RunOptions
	var root string
	var envFiles, env []string
	set.Bool(&o.AutoRemove, "rm", 0, "remove the container when it ends")
	set.String(&o.Name, "name", 0, "NAME", "name to list and remove it by")
	set.Bool(&o.Interactive, "interactive", 'i', "connect standard input")
	set.Bool(&o.Terminal, "tty", 't', "give it a terminal, connected to this one (standard input too)")
	set.Strings(&env, "env", 'e', "K[=V]", "set a variable, or pass the caller's on; may be repeated")
	set.Strings(&envFiles, "env-file", 0, "FILE", "read variables from a file of K=V lines; --env wins")
	set.Func("entrypoint", 0, "PROGRAM", "run this in place of the image's entry point and command; empty: ARG alone", func(v string) error {
		o.Entrypoint = []string{}
		if v != "" {
			o.Entrypoint = []string{v}
		}
		return nil
	})
	set.String(&o.WorkDir, "workdir", 'w', "DIR", "working directory in the container")
	set.String(&o.User, "user", 'u', "USER[:GROUP]", "run as this user, names or numbers of the image's")
	set.String(&o.Hostname, "hostname", 'h', "NAME", "the container's host name")
	set.Func("volume", 'v', "SRC:DST[:OPT,…]", "show a directory or file of the host (/… or ./…) in the container; may be repeated\n"+
		"OPT: ro nosuid nodev noexec [r]private [r]slave; DST alone is an empty directory of the container's own", func(s string) error {
		v, err := engine.ParseVolume(s)
		o.Volumes = append(o.Volumes, v)
		return err
	})
	set.Bool(&o.ReadOnly, "read-only", 0, "make the container's files, but not its volumes, read-only")
	set.String(&o.Network, "network", 0, "NETWORK", "none (the default) or host")
	limitOptions(set, &o.Limits)
	set.String(&o.Runtime, "runtime", 0, "PROGRAM", "OCI runtime, a path or a name (tare-runtime)")
	var p progress
	quiet := pullOptions(set, &o, &p)
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) == 0 {
			return exitTare, errors.New("run: IMAGE is missing (tare run --help)")
		}
		o.Source, o.Args = args[0], args[1:]
		var err error
		if o.Env, err = environment(envFiles, env); err != nil {
			return exitTare, err
		}
		e, err := openEngine(root)
		if err != nil {
			return exitTare, err
		}
		o.Progress, o.Warn = p.begin(*quiet), warn
		o.Pulled = p.end
		out, err := e.Run(context.Background(), o)
		p.end()
		return out.Code, err
	}
}

// pullOptions adds what says whether and how an image is pulled.
func pullOptions(set *getopt.Set, o *engine.RunOptions, p *progress) (quiet *bool) {
	set.Func("pull", 0, "WHEN", "ask the registry for the image: missing (the default), always or never", func(v string) error {
		switch o.Pull = engine.PullPolicy(v); o.Pull {
		case engine.PullAlways, engine.PullMissing, engine.PullNever:
			return nil
		}
		return fmt.Errorf("%q is none of always, missing, never", v)
	})
	set.Func("platform", 0, "OS/ARCH[/VARIANT]", "run the image for this platform", func(v string) error {
		chosen, err := manifest.ParsePlatform(v)
		o.Platform = &chosen
		return err
	})
	quiet = new(bool)
	set.Bool(quiet, "quiet", 'q', "do not tell what is pulled")
	progressOption(set, p)
	return quiet
}

func limitOptions(set *getopt.Set, l *engine.Limits) {
	set.Func("memory", 'm', "SIZE", "limit of memory, such as 64m", func(v string) (err error) {
		l.Memory, err = engine.ParseSize(v)
		return err
	})
	set.Func("memory-swap", 0, "SIZE", "limit of memory and swap together (twice the memory); -1: none", func(v string) (err error) {
		if v == "-1" {
			l.MemorySwap = -1
			return nil
		}
		l.MemorySwap, err = engine.ParseSize(v)
		return err
	})
	set.Func("cpus", 0, "N", "limit of processor time, such as 1.5 processors", func(v string) (err error) {
		l.CPUQuota, err = engine.ParseCPUs(v)
		return err
	})
	set.Func("pids-limit", 0, "N", "limit of processes and threads; -1: none", func(v string) (err error) {
		l.Pids, err = strconv.ParseInt(v, 10, 64)
		if err != nil || l.Pids < -1 {
			return fmt.Errorf("%q is no number of processes", v)
		}
		return nil
	})
}

// environment reads the files, then the variables of the command line, which win.
func environment(files, vars []string) ([]string, error) {
	var env []string
	for _, f := range files {
		kvs, err := engine.ReadEnvFile(f)
		if err != nil {
			return nil, err
		}
		env = append(env, kvs...)
	}
	for _, v := range vars {
		kv, ok, err := engine.ParseEnv(v)
		if err != nil {
			return nil, err
		}
		if ok {
			env = append(env, kv)
		}
	}
	return env, nil
}
