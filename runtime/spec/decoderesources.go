package spec

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/jsonr"
)

func decodeResources(d *jsonr.Decoder, r *specs.LinuxResources) {
	d.Object(func(name string) {
		switch name {
		case "devices":
			jsonr.List(d, &r.Devices, decodeDeviceRule)
		case "memory":
			decodeMemory(d, jsonr.Alloc(&r.Memory))
		case "cpu":
			decodeCPU(d, jsonr.Alloc(&r.CPU))
		case "pids":
			decodePids(d, jsonr.Alloc(&r.Pids))
		case "blockIO":
			decodeBlockIO(d, jsonr.Alloc(&r.BlockIO))
		case "hugepageLimits":
			jsonr.List(d, &r.HugepageLimits, decodeHugepageLimit)
		case "network":
			decodeNetwork(d, jsonr.Alloc(&r.Network))
		case "rdma":
			jsonr.Dict(d, &r.Rdma, decodeRdma)
		case "unified":
			jsonr.Dict(d, &r.Unified, jsonr.Str)
		default:
			d.Skip()
		}
	})
}

func decodeDeviceRule(d *jsonr.Decoder, r *specs.LinuxDeviceCgroup) {
	var allow bool
	d.Object(func(name string) {
		switch name {
		case "allow":
			allow = true
			jsonr.Boolean(d, &r.Allow)
		case "type":
			jsonr.Str(d, &r.Type)
		case "major":
			jsonr.Signed(d, jsonr.Alloc(&r.Major))
		case "minor":
			jsonr.Signed(d, jsonr.Alloc(&r.Minor))
		case "access":
			jsonr.Str(d, &r.Access)
		default:
			d.Skip()
		}
	})
	d.Need(allow, "allow")
}

func decodeMemory(d *jsonr.Decoder, m *specs.LinuxMemory) {
	d.Object(func(name string) {
		switch name {
		case "limit":
			jsonr.Signed(d, jsonr.Alloc(&m.Limit))
		case "reservation":
			jsonr.Signed(d, jsonr.Alloc(&m.Reservation))
		case "swap":
			jsonr.Signed(d, jsonr.Alloc(&m.Swap))
		case "kernel":
			jsonr.Signed(d, jsonr.Alloc(&m.Kernel))
		case "kernelTCP":
			jsonr.Signed(d, jsonr.Alloc(&m.KernelTCP))
		case "swappiness":
			jsonr.Unsigned(d, jsonr.Alloc(&m.Swappiness))
		case "disableOOMKiller":
			jsonr.Boolean(d, jsonr.Alloc(&m.DisableOOMKiller))
		case "useHierarchy":
			jsonr.Boolean(d, jsonr.Alloc(&m.UseHierarchy))
		case "checkBeforeUpdate":
			jsonr.Boolean(d, jsonr.Alloc(&m.CheckBeforeUpdate))
		default:
			d.Skip()
		}
	})
}

func decodeCPU(d *jsonr.Decoder, c *specs.LinuxCPU) {
	d.Object(func(name string) {
		switch name {
		case "shares":
			jsonr.Unsigned(d, jsonr.Alloc(&c.Shares))
		case "quota":
			jsonr.Signed(d, jsonr.Alloc(&c.Quota))
		case "burst":
			jsonr.Unsigned(d, jsonr.Alloc(&c.Burst))
		case "period":
			jsonr.Unsigned(d, jsonr.Alloc(&c.Period))
		case "realtimeRuntime":
			jsonr.Signed(d, jsonr.Alloc(&c.RealtimeRuntime))
		case "realtimePeriod":
			jsonr.Unsigned(d, jsonr.Alloc(&c.RealtimePeriod))
		case "cpus":
			jsonr.Str(d, &c.Cpus)
		case "mems":
			jsonr.Str(d, &c.Mems)
		case "idle":
			jsonr.Signed(d, jsonr.Alloc(&c.Idle))
		default:
			d.Skip()
		}
	})
}

func decodePids(d *jsonr.Decoder, p *specs.LinuxPids) {
	d.Object(func(name string) {
		switch name {
		case "limit":
			jsonr.Signed(d, jsonr.Alloc(&p.Limit))
		default:
			d.Skip()
		}
	})
}

func decodeBlockIO(d *jsonr.Decoder, b *specs.LinuxBlockIO) {
	d.Object(func(name string) {
		switch name {
		case "weight":
			jsonr.Unsigned(d, jsonr.Alloc(&b.Weight))
		case "leafWeight":
			jsonr.Unsigned(d, jsonr.Alloc(&b.LeafWeight))
		case "weightDevice":
			jsonr.List(d, &b.WeightDevice, decodeWeightDevice)
		case "throttleReadBpsDevice":
			jsonr.List(d, &b.ThrottleReadBpsDevice, decodeThrottleDevice)
		case "throttleWriteBpsDevice":
			jsonr.List(d, &b.ThrottleWriteBpsDevice, decodeThrottleDevice)
		case "throttleReadIOPSDevice":
			jsonr.List(d, &b.ThrottleReadIOPSDevice, decodeThrottleDevice)
		case "throttleWriteIOPSDevice":
			jsonr.List(d, &b.ThrottleWriteIOPSDevice, decodeThrottleDevice)
		default:
			d.Skip()
		}
	})
}

func decodeWeightDevice(d *jsonr.Decoder, w *specs.LinuxWeightDevice) {
	var major, minor bool
	d.Object(func(name string) {
		switch name {
		case "major":
			major = true
			jsonr.Signed(d, &w.Major)
		case "minor":
			minor = true
			jsonr.Signed(d, &w.Minor)
		case "weight":
			jsonr.Unsigned(d, jsonr.Alloc(&w.Weight))
		case "leafWeight":
			jsonr.Unsigned(d, jsonr.Alloc(&w.LeafWeight))
		default:
			d.Skip()
		}
	})
	d.Need(major, "major")
	d.Need(minor, "minor")
}

func decodeThrottleDevice(d *jsonr.Decoder, t *specs.LinuxThrottleDevice) {
	var major, minor, rate bool
	d.Object(func(name string) {
		switch name {
		case "major":
			major = true
			jsonr.Signed(d, &t.Major)
		case "minor":
			minor = true
			jsonr.Signed(d, &t.Minor)
		case "rate":
			rate = true
			jsonr.Unsigned(d, &t.Rate)
		default:
			d.Skip()
		}
	})
	d.Need(major, "major")
	d.Need(minor, "minor")
	d.Need(rate, "rate")
}

func decodeHugepageLimit(d *jsonr.Decoder, h *specs.LinuxHugepageLimit) {
	var limit bool
	d.Object(func(name string) {
		switch name {
		case "pageSize":
			jsonr.Str(d, &h.Pagesize)
		case "limit":
			limit = true
			jsonr.Unsigned(d, &h.Limit)
		default:
			d.Skip()
		}
	})
	d.Need(limit, "limit")
}

func decodeNetwork(d *jsonr.Decoder, n *specs.LinuxNetwork) {
	d.Object(func(name string) {
		switch name {
		case "classID":
			jsonr.Unsigned(d, jsonr.Alloc(&n.ClassID))
		case "priorities":
			jsonr.List(d, &n.Priorities, decodeInterfacePriority)
		default:
			d.Skip()
		}
	})
}

func decodeInterfacePriority(d *jsonr.Decoder, p *specs.LinuxInterfacePriority) {
	d.Object(func(name string) {
		switch name {
		case "name":
			jsonr.Str(d, &p.Name)
		case "priority":
			jsonr.Unsigned(d, &p.Priority)
		default:
			d.Skip()
		}
	})
}

func decodeRdma(d *jsonr.Decoder, r *specs.LinuxRdma) {
	d.Object(func(name string) {
		switch name {
		case "hcaHandles":
			jsonr.Unsigned(d, jsonr.Alloc(&r.HcaHandles))
		case "hcaObjects":
			jsonr.Unsigned(d, jsonr.Alloc(&r.HcaObjects))
		default:
			d.Skip()
		}
	})
}
