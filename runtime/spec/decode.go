package spec

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/jsonr"
)

// decodeSpec reads the whole configuration. The sections of other platforms are left out on purpose: the specification
// wants a runtime to ignore what it does not know, whatever is in it.
func decodeSpec(d *jsonr.Decoder, s *specs.Spec) {
	d.Object(func(name string) {
		switch name {
		case "ociVersion":
			jsonr.Str(d, &s.Version)
		case "process":
			decodeProcess(d, jsonr.Alloc(&s.Process))
		case "root":
			decodeRoot(d, jsonr.Alloc(&s.Root))
		case "hostname":
			jsonr.Str(d, &s.Hostname)
		case "domainname":
			jsonr.Str(d, &s.Domainname)
		case "mounts":
			jsonr.List(d, &s.Mounts, decodeMount)
		case "hooks":
			decodeHooks(d, jsonr.Alloc(&s.Hooks))
		case "annotations":
			jsonr.Dict(d, &s.Annotations, jsonr.Text)
		case "linux":
			decodeLinux(d, jsonr.Alloc(&s.Linux))
		default:
			d.Skip()
		}
	})
}

func decodeRoot(d *jsonr.Decoder, r *specs.Root) {
	d.Object(func(name string) {
		switch name {
		case "path":
			jsonr.Str(d, &r.Path)
		case "readonly":
			jsonr.Boolean(d, &r.Readonly)
		default:
			d.Skip()
		}
	})
}

func decodeMount(d *jsonr.Decoder, m *specs.Mount) {
	d.Object(func(name string) {
		switch name {
		case "destination":
			jsonr.Str(d, &m.Destination)
		case "type":
			jsonr.Str(d, &m.Type)
		case "source":
			jsonr.Str(d, &m.Source)
		case "options":
			jsonr.List(d, &m.Options, jsonr.Str)
		case "uidMappings":
			jsonr.List(d, &m.UIDMappings, decodeIDMapping)
		case "gidMappings":
			jsonr.List(d, &m.GIDMappings, decodeIDMapping)
		default:
			d.Skip()
		}
	})
}

func decodeHooks(d *jsonr.Decoder, h *specs.Hooks) {
	d.Object(func(name string) {
		switch name {
		case "prestart":
			jsonr.List(d, &h.Prestart, decodeHook)
		case "createRuntime":
			jsonr.List(d, &h.CreateRuntime, decodeHook)
		case "createContainer":
			jsonr.List(d, &h.CreateContainer, decodeHook)
		case "startContainer":
			jsonr.List(d, &h.StartContainer, decodeHook)
		case "poststart":
			jsonr.List(d, &h.Poststart, decodeHook)
		case "poststop":
			jsonr.List(d, &h.Poststop, decodeHook)
		default:
			d.Skip()
		}
	})
}

func decodeHook(d *jsonr.Decoder, h *specs.Hook) {
	d.Object(func(name string) {
		switch name {
		case "path":
			jsonr.Str(d, &h.Path)
		case "args":
			jsonr.List(d, &h.Args, jsonr.Str)
		case "env":
			jsonr.List(d, &h.Env, jsonr.Str)
		case "timeout":
			jsonr.Signed(d, jsonr.Alloc(&h.Timeout))
		default:
			d.Skip()
		}
	})
}

func decodeProcess(d *jsonr.Decoder, p *specs.Process) {
	d.Object(func(name string) {
		switch name {
		case "terminal":
			jsonr.Boolean(d, &p.Terminal)
		case "consoleSize":
			decodeBox(d, jsonr.Alloc(&p.ConsoleSize))
		case "user":
			decodeUser(d, &p.User)
		case "args":
			jsonr.List(d, &p.Args, jsonr.Str)
		case "commandLine":
			d.Skip()
		case "env":
			jsonr.List(d, &p.Env, jsonr.Str)
		case "cwd":
			jsonr.Str(d, &p.Cwd)
		case "capabilities":
			decodeCapabilities(d, jsonr.Alloc(&p.Capabilities))
		case "rlimits":
			jsonr.List(d, &p.Rlimits, decodeRlimit)
		case "noNewPrivileges":
			jsonr.Boolean(d, &p.NoNewPrivileges)
		case "apparmorProfile":
			jsonr.Str(d, &p.ApparmorProfile)
		case "oomScoreAdj":
			jsonr.Signed(d, jsonr.Alloc(&p.OOMScoreAdj))
		case "scheduler":
			decodeScheduler(d, jsonr.Alloc(&p.Scheduler))
		case "selinuxLabel":
			jsonr.Str(d, &p.SelinuxLabel)
		case "ioPriority":
			decodeIOPriority(d, jsonr.Alloc(&p.IOPriority))
		case "execCPUAffinity":
			decodeAffinity(d, jsonr.Alloc(&p.ExecCPUAffinity))
		default:
			d.Skip()
		}
	})
}

func decodeBox(d *jsonr.Decoder, b *specs.Box) {
	var height, width bool
	d.Object(func(name string) {
		switch name {
		case "height":
			height = true
			jsonr.Unsigned(d, &b.Height)
		case "width":
			width = true
			jsonr.Unsigned(d, &b.Width)
		default:
			d.Skip()
		}
	})
	d.Need(height, "height")
	d.Need(width, "width")
}

func decodeUser(d *jsonr.Decoder, u *specs.User) {
	d.Object(func(name string) {
		switch name {
		case "uid":
			jsonr.Unsigned(d, &u.UID)
		case "gid":
			jsonr.Unsigned(d, &u.GID)
		case "umask":
			jsonr.Unsigned(d, jsonr.Alloc(&u.Umask))
		case "additionalGids":
			jsonr.List(d, &u.AdditionalGids, jsonr.Unsigned)
		default: // username is for Windows
			d.Skip()
		}
	})
}

func decodeCapabilities(d *jsonr.Decoder, c *specs.LinuxCapabilities) {
	d.Object(func(name string) {
		switch name {
		case "bounding":
			jsonr.List(d, &c.Bounding, jsonr.Str)
		case "effective":
			jsonr.List(d, &c.Effective, jsonr.Str)
		case "inheritable":
			jsonr.List(d, &c.Inheritable, jsonr.Str)
		case "permitted":
			jsonr.List(d, &c.Permitted, jsonr.Str)
		case "ambient":
			jsonr.List(d, &c.Ambient, jsonr.Str)
		default:
			d.Skip()
		}
	})
}

func decodeRlimit(d *jsonr.Decoder, r *specs.POSIXRlimit) {
	var soft, hard bool
	d.Object(func(name string) {
		switch name {
		case "type":
			jsonr.Str(d, &r.Type)
		case "hard":
			hard = true
			jsonr.Unsigned(d, &r.Hard)
		case "soft":
			soft = true
			jsonr.Unsigned(d, &r.Soft)
		default:
			d.Skip()
		}
	})
	d.Need(soft, "soft")
	d.Need(hard, "hard")
}

func decodeScheduler(d *jsonr.Decoder, s *specs.Scheduler) {
	d.Object(func(name string) {
		switch name {
		case "policy":
			jsonr.Str(d, &s.Policy)
		case "nice":
			jsonr.Signed(d, &s.Nice)
		case "priority":
			jsonr.Signed(d, &s.Priority)
		case "flags":
			jsonr.List(d, &s.Flags, jsonr.Str)
		case "runtime":
			jsonr.Unsigned(d, &s.Runtime)
		case "deadline":
			jsonr.Unsigned(d, &s.Deadline)
		case "period":
			jsonr.Unsigned(d, &s.Period)
		default:
			d.Skip()
		}
	})
}

func decodeIOPriority(d *jsonr.Decoder, p *specs.LinuxIOPriority) {
	d.Object(func(name string) {
		switch name {
		case "class":
			jsonr.Str(d, &p.Class)
		case "priority":
			jsonr.Signed(d, &p.Priority)
		default:
			d.Skip()
		}
	})
}

func decodeAffinity(d *jsonr.Decoder, a *specs.CPUAffinity) {
	d.Object(func(name string) {
		switch name {
		case "initial":
			jsonr.Str(d, &a.Initial)
		case "final":
			jsonr.Str(d, &a.Final)
		default:
			d.Skip()
		}
	})
}
