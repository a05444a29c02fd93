package plan

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ExecInput says which container a process joins.
type ExecInput struct {
	Spec    *specs.Spec // of the container
	Process *specs.Process
	// Namespaces are the ones in which the container differs from the runtime: CLONE_NEW* flags.
	Namespaces uint64
	// Hook marks a program of the createContainer hooks: it runs in the namespaces as they are, without the container's user, limits
	// and filter, in the directory Process.Cwd of the root that the container's process has at the time. Its Process.Args are the
	// file followed by the argument vector.
	Hook bool
	// Program is the file to execute when it is not the one that Process.Args[0] names, as for a startContainer hook, which is the
	// container's process in everything else.
	Program string
	// ExactEnv: nothing is added to Process.Env.
	ExactEnv bool
	// InitialCPUs and FinalCPUs are process.execCPUAffinity.
	InitialCPUs, FinalCPUs string
}

// CompileExec returns the plan for a further process of a running container.
func CompileExec(in ExecInput, host *Host, opts Options) (*Plan, error) {
	c := &compiler{spec: in.Spec, linux: in.Spec.Linux, host: host, opts: opts, joined: map[string]string{}, exec: true, program: in.Program,
		exactEnv: in.ExactEnv}
	if c.linux == nil {
		c.linux = &specs.Linux{}
	}
	c.userns = in.Namespaces&NewUser != 0
	if err := c.affinity(in.InitialCPUs); err != nil {
		return nil, err
	}
	c.add(placed(host)...)
	for i, name := range host.Cgroups {
		c.add(JoinCgroup{Name: name, Index: i})
	}
	c.add(JoinProcess{in.Namespaces})
	if in.Namespaces&NewMount == 0 && !in.Hook {
		c.add(EnterRoot{})
	}
	if c.userns {
		c.add(BecomeRoot{KeepGroups: host.Rootless && !host.IDMapHelpers})
	}
	if in.FinalCPUs == "" && in.InitialCPUs == "" {
		c.add(allCPUs())
	}
	if err := c.affinity(in.FinalCPUs); err != nil {
		return nil, err
	}
	p := in.Process
	// Only children enter a pid namespace. Until then no process of the container sees this one.
	outer := in.Namespaces&NewPID != 0
	if in.Hook {
		c.add(Chdir{Path: p.Cwd}, CallerUmask{})
		if outer {
			c.leave(false, nil)
		}
		c.add(NewSession{})
		if err := c.limits(&specs.Process{}); err != nil {
			return nil, err
		}
		c.add(CloseOnExec{3}, Wait{"the state can be read"}, Exec{Path: p.Args[0], Args: p.Args[1:], Env: p.Env})
		return &c.plan, nil
	}
	if p.Terminal {
		t := Terminal{}
		if p.ConsoleSize != nil {
			t.Width, t.Height = uint16(p.ConsoleSize.Width), uint16(p.ConsoleSize.Height)
		}
		c.add(t, UseTerminal{})
	}
	if !outer {
		c.session(p)
	}
	if !opts.NoNewKeyring {
		c.add(Keyring{"_ses." + host.ID})
	}
	if err := c.become(p, outer); err != nil {
		return nil, err
	}
	return &c.plan, nil
}

func (c *compiler) affinity(cpus string) error {
	if cpus == "" {
		return nil
	}
	mask, err := parseList(cpus)
	if err != nil {
		return err
	}
	c.add(Affinity{CPUs: cpus, Mask: mask})
	return nil
}
