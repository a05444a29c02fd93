package spec

import "github.com/opencontainers/runtime-spec/specs-go"

func decodeLinux(d *decoder, l *specs.Linux) {
	d.object(func(name string) {
		switch name {
		case "uidMappings":
			list(d, &l.UIDMappings, decodeIDMapping)
		case "gidMappings":
			list(d, &l.GIDMappings, decodeIDMapping)
		case "sysctl":
			dict(d, &l.Sysctl, str)
		case "resources":
			decodeResources(d, alloc(&l.Resources))
		case "cgroupsPath":
			str(d, &l.CgroupsPath)
		case "namespaces":
			list(d, &l.Namespaces, decodeNamespace)
		case "devices":
			list(d, &l.Devices, decodeDevice)
		case "netDevices":
			dict(d, &l.NetDevices, decodeNetDevice)
		case "seccomp":
			decodeSeccomp(d, alloc(&l.Seccomp))
		case "rootfsPropagation":
			str(d, &l.RootfsPropagation)
		case "maskedPaths":
			list(d, &l.MaskedPaths, str)
		case "readonlyPaths":
			list(d, &l.ReadonlyPaths, str)
		case "mountLabel":
			str(d, &l.MountLabel)
		case "intelRdt":
			decodeIntelRdt(d, alloc(&l.IntelRdt))
		case "memoryPolicy":
			decodeMemoryPolicy(d, alloc(&l.MemoryPolicy))
		case "personality":
			decodePersonality(d, alloc(&l.Personality))
		case "timeOffsets":
			dict(d, &l.TimeOffsets, decodeTimeOffset)
		default:
			d.skip()
		}
	})
}

func decodeIDMapping(d *decoder, m *specs.LinuxIDMapping) {
	var container, host, size bool
	d.object(func(name string) {
		switch name {
		case "containerID":
			container = true
			unsigned(d, &m.ContainerID)
		case "hostID":
			host = true
			unsigned(d, &m.HostID)
		case "size":
			size = true
			unsigned(d, &m.Size)
		default:
			d.skip()
		}
	})
	d.need(container, "containerID")
	d.need(host, "hostID")
	d.need(size, "size")
}

func decodeNamespace(d *decoder, n *specs.LinuxNamespace) {
	d.object(func(name string) {
		switch name {
		case "type":
			str(d, &n.Type)
		case "path":
			str(d, &n.Path)
		default:
			d.skip()
		}
	})
}

func decodeDevice(d *decoder, v *specs.LinuxDevice) {
	var major, minor bool
	d.object(func(name string) {
		switch name {
		case "path":
			str(d, &v.Path)
		case "type":
			str(d, &v.Type)
		case "major":
			major = true
			signed(d, &v.Major)
		case "minor":
			minor = true
			signed(d, &v.Minor)
		case "fileMode":
			unsigned(d, alloc(&v.FileMode))
		case "uid":
			unsigned(d, alloc(&v.UID))
		case "gid":
			unsigned(d, alloc(&v.GID))
		default:
			d.skip()
		}
	})
	if v.Type != "p" {
		d.need(major, "major")
		d.need(minor, "minor")
	}
}

func decodeNetDevice(d *decoder, n *specs.LinuxNetDevice) {
	d.object(func(name string) {
		switch name {
		case "name":
			str(d, &n.Name)
		default:
			d.skip()
		}
	})
}

func decodeIntelRdt(d *decoder, r *specs.LinuxIntelRdt) {
	d.object(func(name string) {
		switch name {
		case "closID":
			str(d, &r.ClosID)
		case "schemata":
			list(d, &r.Schemata, str)
		case "l3CacheSchema":
			str(d, &r.L3CacheSchema)
		case "memBwSchema":
			str(d, &r.MemBwSchema)
		case "enableMonitoring":
			boolean(d, &r.EnableMonitoring)
		default:
			d.skip()
		}
	})
}

func decodeMemoryPolicy(d *decoder, m *specs.LinuxMemoryPolicy) {
	d.object(func(name string) {
		switch name {
		case "mode":
			str(d, &m.Mode)
		case "nodes":
			str(d, &m.Nodes)
		case "flags":
			list(d, &m.Flags, str)
		default:
			d.skip()
		}
	})
}

func decodePersonality(d *decoder, p *specs.LinuxPersonality) {
	d.object(func(name string) {
		switch name {
		case "domain":
			str(d, &p.Domain)
		case "flags":
			list(d, &p.Flags, str)
		default:
			d.skip()
		}
	})
}

func decodeTimeOffset(d *decoder, t *specs.LinuxTimeOffset) {
	d.object(func(name string) {
		switch name {
		case "secs":
			signed(d, &t.Secs)
		case "nanosecs":
			unsigned(d, &t.Nanosecs)
		default:
			d.skip()
		}
	})
}

func decodeSeccomp(d *decoder, s *specs.LinuxSeccomp) {
	d.object(func(name string) {
		switch name {
		case "defaultAction":
			str(d, &s.DefaultAction)
		case "defaultErrnoRet":
			unsigned(d, alloc(&s.DefaultErrnoRet))
		case "architectures":
			list(d, &s.Architectures, str)
		case "flags":
			list(d, &s.Flags, str)
		case "listenerPath":
			str(d, &s.ListenerPath)
		case "listenerMetadata":
			text(d, &s.ListenerMetadata)
		case "syscalls":
			list(d, &s.Syscalls, decodeSyscall)
		default:
			d.skip()
		}
	})
}

func decodeSyscall(d *decoder, s *specs.LinuxSyscall) {
	d.object(func(name string) {
		switch name {
		case "names":
			list(d, &s.Names, str)
		case "action":
			str(d, &s.Action)
		case "errnoRet":
			unsigned(d, alloc(&s.ErrnoRet))
		case "args":
			list(d, &s.Args, decodeSyscallArg)
		default:
			d.skip()
		}
	})
}

func decodeSyscallArg(d *decoder, a *specs.LinuxSeccompArg) {
	d.object(func(name string) {
		switch name {
		case "index":
			unsigned(d, &a.Index)
		case "value":
			unsigned(d, &a.Value)
		case "valueTwo":
			unsigned(d, &a.ValueTwo)
		case "op":
			str(d, &a.Op)
		default:
			d.skip()
		}
	})
}
