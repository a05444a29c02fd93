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
	// Hook marks a program of the createContainer or startContainer hooks: it runs in the namespaces as they are, without the
	// container's user, limits and filter. Its Process.Args are the file followed by the argument vector.
	Hook bool
	// InitialCPUs and FinalCPUs are process.execCPUAffinity.
	InitialCPUs, FinalCPUs string
}

// CompileExec returns the plan for a further process of a running container.
func CompileExec(in ExecInput, host *Host, opts Options) (*Plan, error) {
	c := &compiler{spec: in.Spec, linux: in.Spec.Linux, host: host, opts: opts, joined: map[string]string{}}
	if c.linux == nil {
		c.linux = &specs.Linux{}
	}
	c.userns = in.Namespaces&NewUser != 0
	if err := c.affinity(in.InitialCPUs); err != nil {
		return nil, err
	}
	cgroups := placed(host)
	for i, name := range host.Cgroups {
		cgroups = append(cgroups, JoinCgroup{Name: name, Index: i})
	}
	if in.Namespaces&(NewPID|NewTime) != 0 {
		// Only children enter these. Until then nobody in the container sees the process.
		outer := append(append([]Op{}, c.plan.Child...), cgroups...)
		c.plan.Child = nil
		c.plan.Outer = append(outer, JoinProcess{in.Namespaces}, CloneChild{Hide: true, Keep: opts.PassedFDs})
	} else {
		c.add(cgroups...)
		c.add(JoinProcess{in.Namespaces})
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
	c.add(NewSession{})
	p := in.Process
	if in.Hook {
		c.add(CloseOnExec{3}, Wait{"the state can be read"}, Exec{Path: p.Args[0], Args: p.Args[1:], Env: p.Env})
		return &c.plan, nil
	}
	if p.Terminal {
		t := Terminal{}
		if p.ConsoleSize != nil {
			t.Width, t.Height = uint16(p.ConsoleSize.Width), uint16(p.ConsoleSize.Height)
		}
		c.add(t, ControlTerminal{})
	}
	if !opts.NoNewKeyring {
		c.add(Keyring{"_ses." + host.ID})
	}
	if err := c.become(p); err != nil {
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
