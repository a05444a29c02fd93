package spec

import "github.com/opencontainers/runtime-spec/specs-go"

// decodeSpec reads the whole configuration. The sections of other platforms are left out on purpose: the specification
// wants a runtime to ignore what it does not know, whatever is in it.
func decodeSpec(d *decoder, s *specs.Spec) {
	d.object(func(name string) {
		switch name {
		case "ociVersion":
			str(d, &s.Version)
		case "process":
			decodeProcess(d, alloc(&s.Process))
		case "root":
			decodeRoot(d, alloc(&s.Root))
		case "hostname":
			str(d, &s.Hostname)
		case "domainname":
			str(d, &s.Domainname)
		case "mounts":
			list(d, &s.Mounts, decodeMount)
		case "hooks":
			decodeHooks(d, alloc(&s.Hooks))
		case "annotations":
			dict(d, &s.Annotations, text)
		case "linux":
			decodeLinux(d, alloc(&s.Linux))
		default:
			d.skip()
		}
	})
}

func decodeRoot(d *decoder, r *specs.Root) {
	d.object(func(name string) {
		switch name {
		case "path":
			str(d, &r.Path)
		case "readonly":
			boolean(d, &r.Readonly)
		default:
			d.skip()
		}
	})
}

func decodeMount(d *decoder, m *specs.Mount) {
	d.object(func(name string) {
		switch name {
		case "destination":
			str(d, &m.Destination)
		case "type":
			str(d, &m.Type)
		case "source":
			str(d, &m.Source)
		case "options":
			list(d, &m.Options, str)
		case "uidMappings":
			list(d, &m.UIDMappings, decodeIDMapping)
		case "gidMappings":
			list(d, &m.GIDMappings, decodeIDMapping)
		default:
			d.skip()
		}
	})
}

func decodeHooks(d *decoder, h *specs.Hooks) {
	d.object(func(name string) {
		switch name {
		case "prestart":
			list(d, &h.Prestart, decodeHook)
		case "createRuntime":
			list(d, &h.CreateRuntime, decodeHook)
		case "createContainer":
			list(d, &h.CreateContainer, decodeHook)
		case "startContainer":
			list(d, &h.StartContainer, decodeHook)
		case "poststart":
			list(d, &h.Poststart, decodeHook)
		case "poststop":
			list(d, &h.Poststop, decodeHook)
		default:
			d.skip()
		}
	})
}

func decodeHook(d *decoder, h *specs.Hook) {
	d.object(func(name string) {
		switch name {
		case "path":
			str(d, &h.Path)
		case "args":
			list(d, &h.Args, str)
		case "env":
			list(d, &h.Env, str)
		case "timeout":
			signed(d, alloc(&h.Timeout))
		default:
			d.skip()
		}
	})
}

func decodeProcess(d *decoder, p *specs.Process) {
	d.object(func(name string) {
		switch name {
		case "terminal":
			boolean(d, &p.Terminal)
		case "consoleSize":
			decodeBox(d, alloc(&p.ConsoleSize))
		case "user":
			decodeUser(d, &p.User)
		case "args":
			list(d, &p.Args, str)
		case "commandLine":
			d.skip()
		case "env":
			list(d, &p.Env, str)
		case "cwd":
			str(d, &p.Cwd)
		case "capabilities":
			decodeCapabilities(d, alloc(&p.Capabilities))
		case "rlimits":
			list(d, &p.Rlimits, decodeRlimit)
		case "noNewPrivileges":
			boolean(d, &p.NoNewPrivileges)
		case "apparmorProfile":
			str(d, &p.ApparmorProfile)
		case "oomScoreAdj":
			signed(d, alloc(&p.OOMScoreAdj))
		case "scheduler":
			decodeScheduler(d, alloc(&p.Scheduler))
		case "selinuxLabel":
			str(d, &p.SelinuxLabel)
		case "ioPriority":
			decodeIOPriority(d, alloc(&p.IOPriority))
		case "execCPUAffinity":
			decodeAffinity(d, alloc(&p.ExecCPUAffinity))
		default:
			d.skip()
		}
	})
}

func decodeBox(d *decoder, b *specs.Box) {
	var height, width bool
	d.object(func(name string) {
		switch name {
		case "height":
			height = true
			unsigned(d, &b.Height)
		case "width":
			width = true
			unsigned(d, &b.Width)
		default:
			d.skip()
		}
	})
	d.need(height, "height")
	d.need(width, "width")
}

func decodeUser(d *decoder, u *specs.User) {
	d.object(func(name string) {
		switch name {
		case "uid":
			unsigned(d, &u.UID)
		case "gid":
			unsigned(d, &u.GID)
		case "umask":
			unsigned(d, alloc(&u.Umask))
		case "additionalGids":
			list(d, &u.AdditionalGids, unsigned)
		default: // username is for Windows
			d.skip()
		}
	})
}

func decodeCapabilities(d *decoder, c *specs.LinuxCapabilities) {
	d.object(func(name string) {
		switch name {
		case "bounding":
			list(d, &c.Bounding, str)
		case "effective":
			list(d, &c.Effective, str)
		case "inheritable":
			list(d, &c.Inheritable, str)
		case "permitted":
			list(d, &c.Permitted, str)
		case "ambient":
			list(d, &c.Ambient, str)
		default:
			d.skip()
		}
	})
}

func decodeRlimit(d *decoder, r *specs.POSIXRlimit) {
	var soft, hard bool
	d.object(func(name string) {
		switch name {
		case "type":
			str(d, &r.Type)
		case "hard":
			hard = true
			unsigned(d, &r.Hard)
		case "soft":
			soft = true
			unsigned(d, &r.Soft)
		default:
			d.skip()
		}
	})
	d.need(soft, "soft")
	d.need(hard, "hard")
}

func decodeScheduler(d *decoder, s *specs.Scheduler) {
	d.object(func(name string) {
		switch name {
		case "policy":
			str(d, &s.Policy)
		case "nice":
			signed(d, &s.Nice)
		case "priority":
			signed(d, &s.Priority)
		case "flags":
			list(d, &s.Flags, str)
		case "runtime":
			unsigned(d, &s.Runtime)
		case "deadline":
			unsigned(d, &s.Deadline)
		case "period":
			unsigned(d, &s.Period)
		default:
			d.skip()
		}
	})
}

func decodeIOPriority(d *decoder, p *specs.LinuxIOPriority) {
	d.object(func(name string) {
		switch name {
		case "class":
			str(d, &p.Class)
		case "priority":
			signed(d, &p.Priority)
		default:
			d.skip()
		}
	})
}

func decodeAffinity(d *decoder, a *specs.CPUAffinity) {
	d.object(func(name string) {
		switch name {
		case "initial":
			str(d, &a.Initial)
		case "final":
			str(d, &a.Final)
		default:
			d.skip()
		}
	})
}
