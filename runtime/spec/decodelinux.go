package spec

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/jsonr"
)

func decodeLinux(d *jsonr.Decoder, l *specs.Linux) {
	d.Object(func(name string) {
		switch name {
		case "uidMappings":
			jsonr.List(d, &l.UIDMappings, decodeIDMapping)
		case "gidMappings":
			jsonr.List(d, &l.GIDMappings, decodeIDMapping)
		case "sysctl":
			jsonr.Dict(d, &l.Sysctl, jsonr.Str)
		case "resources":
			decodeResources(d, jsonr.Alloc(&l.Resources))
		case "cgroupsPath":
			jsonr.Str(d, &l.CgroupsPath)
		case "namespaces":
			jsonr.List(d, &l.Namespaces, decodeNamespace)
		case "devices":
			jsonr.List(d, &l.Devices, decodeDevice)
		case "netDevices":
			jsonr.Dict(d, &l.NetDevices, decodeNetDevice)
		case "seccomp":
			decodeSeccomp(d, jsonr.Alloc(&l.Seccomp))
		case "rootfsPropagation":
			jsonr.Str(d, &l.RootfsPropagation)
		case "maskedPaths":
			jsonr.List(d, &l.MaskedPaths, jsonr.Str)
		case "readonlyPaths":
			jsonr.List(d, &l.ReadonlyPaths, jsonr.Str)
		case "mountLabel":
			jsonr.Str(d, &l.MountLabel)
		case "intelRdt":
			decodeIntelRdt(d, jsonr.Alloc(&l.IntelRdt))
		case "memoryPolicy":
			decodeMemoryPolicy(d, jsonr.Alloc(&l.MemoryPolicy))
		case "personality":
			decodePersonality(d, jsonr.Alloc(&l.Personality))
		case "timeOffsets":
			jsonr.Dict(d, &l.TimeOffsets, decodeTimeOffset)
		default:
			d.Skip()
		}
	})
}

func decodeIDMapping(d *jsonr.Decoder, m *specs.LinuxIDMapping) {
	var container, host, size bool
	d.Object(func(name string) {
		switch name {
		case "containerID":
			container = true
			jsonr.Unsigned(d, &m.ContainerID)
		case "hostID":
			host = true
			jsonr.Unsigned(d, &m.HostID)
		case "size":
			size = true
			jsonr.Unsigned(d, &m.Size)
		default:
			d.Skip()
		}
	})
	d.Need(container, "containerID")
	d.Need(host, "hostID")
	d.Need(size, "size")
}

func decodeNamespace(d *jsonr.Decoder, n *specs.LinuxNamespace) {
	d.Object(func(name string) {
		switch name {
		case "type":
			jsonr.Str(d, &n.Type)
		case "path":
			jsonr.Str(d, &n.Path)
		default:
			d.Skip()
		}
	})
}

func decodeDevice(d *jsonr.Decoder, v *specs.LinuxDevice) {
	var major, minor bool
	d.Object(func(name string) {
		switch name {
		case "path":
			jsonr.Str(d, &v.Path)
		case "type":
			jsonr.Str(d, &v.Type)
		case "major":
			major = true
			jsonr.Signed(d, &v.Major)
		case "minor":
			minor = true
			jsonr.Signed(d, &v.Minor)
		case "fileMode":
			jsonr.Unsigned(d, jsonr.Alloc(&v.FileMode))
		case "uid":
			jsonr.Unsigned(d, jsonr.Alloc(&v.UID))
		case "gid":
			jsonr.Unsigned(d, jsonr.Alloc(&v.GID))
		default:
			d.Skip()
		}
	})
	if v.Type != "p" {
		d.Need(major, "major")
		d.Need(minor, "minor")
	}
}

func decodeNetDevice(d *jsonr.Decoder, n *specs.LinuxNetDevice) {
	d.Object(func(name string) {
		switch name {
		case "name":
			jsonr.Str(d, &n.Name)
		default:
			d.Skip()
		}
	})
}

func decodeIntelRdt(d *jsonr.Decoder, r *specs.LinuxIntelRdt) {
	d.Object(func(name string) {
		switch name {
		case "closID":
			jsonr.Str(d, &r.ClosID)
		case "schemata":
			jsonr.List(d, &r.Schemata, jsonr.Str)
		case "l3CacheSchema":
			jsonr.Str(d, &r.L3CacheSchema)
		case "memBwSchema":
			jsonr.Str(d, &r.MemBwSchema)
		case "enableMonitoring":
			jsonr.Boolean(d, &r.EnableMonitoring)
		default:
			d.Skip()
		}
	})
}

func decodeMemoryPolicy(d *jsonr.Decoder, m *specs.LinuxMemoryPolicy) {
	d.Object(func(name string) {
		switch name {
		case "mode":
			jsonr.Str(d, &m.Mode)
		case "nodes":
			jsonr.Str(d, &m.Nodes)
		case "flags":
			jsonr.List(d, &m.Flags, jsonr.Str)
		default:
			d.Skip()
		}
	})
}

func decodePersonality(d *jsonr.Decoder, p *specs.LinuxPersonality) {
	d.Object(func(name string) {
		switch name {
		case "domain":
			jsonr.Str(d, &p.Domain)
		case "flags":
			jsonr.List(d, &p.Flags, jsonr.Str)
		default:
			d.Skip()
		}
	})
}

func decodeTimeOffset(d *jsonr.Decoder, t *specs.LinuxTimeOffset) {
	d.Object(func(name string) {
		switch name {
		case "secs":
			jsonr.Signed(d, &t.Secs)
		case "nanosecs":
			jsonr.Unsigned(d, &t.Nanosecs)
		default:
			d.Skip()
		}
	})
}

func decodeSeccomp(d *jsonr.Decoder, s *specs.LinuxSeccomp) {
	d.Object(func(name string) {
		switch name {
		case "defaultAction":
			jsonr.Str(d, &s.DefaultAction)
		case "defaultErrnoRet":
			jsonr.Unsigned(d, jsonr.Alloc(&s.DefaultErrnoRet))
		case "architectures":
			jsonr.List(d, &s.Architectures, jsonr.Str)
		case "flags":
			jsonr.List(d, &s.Flags, jsonr.Str)
		case "listenerPath":
			jsonr.Str(d, &s.ListenerPath)
		case "listenerMetadata":
			jsonr.Text(d, &s.ListenerMetadata)
		case "syscalls":
			jsonr.List(d, &s.Syscalls, decodeSyscall)
		default:
			d.Skip()
		}
	})
}

func decodeSyscall(d *jsonr.Decoder, s *specs.LinuxSyscall) {
	d.Object(func(name string) {
		switch name {
		case "names":
			jsonr.List(d, &s.Names, jsonr.Str)
		case "action":
			jsonr.Str(d, &s.Action)
		case "errnoRet":
			jsonr.Unsigned(d, jsonr.Alloc(&s.ErrnoRet))
		case "args":
			jsonr.List(d, &s.Args, decodeSyscallArg)
		default:
			d.Skip()
		}
	})
}

func decodeSyscallArg(d *jsonr.Decoder, a *specs.LinuxSeccompArg) {
	d.Object(func(name string) {
		switch name {
		case "index":
			jsonr.Unsigned(d, &a.Index)
		case "value":
			jsonr.Unsigned(d, &a.Value)
		case "valueTwo":
			jsonr.Unsigned(d, &a.ValueTwo)
		case "op":
			jsonr.Str(d, &a.Op)
		default:
			d.Skip()
		}
	})
}
