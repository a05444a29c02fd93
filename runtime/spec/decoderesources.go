package spec

import "github.com/opencontainers/runtime-spec/specs-go"

func decodeResources(d *decoder, r *specs.LinuxResources) {
	d.object(func(name string) {
		switch name {
		case "devices":
			list(d, &r.Devices, decodeDeviceRule)
		case "memory":
			decodeMemory(d, alloc(&r.Memory))
		case "cpu":
			decodeCPU(d, alloc(&r.CPU))
		case "pids":
			decodePids(d, alloc(&r.Pids))
		case "blockIO":
			decodeBlockIO(d, alloc(&r.BlockIO))
		case "hugepageLimits":
			list(d, &r.HugepageLimits, decodeHugepageLimit)
		case "network":
			decodeNetwork(d, alloc(&r.Network))
		case "rdma":
			dict(d, &r.Rdma, decodeRdma)
		case "unified":
			dict(d, &r.Unified, str)
		default:
			d.skip()
		}
	})
}

func decodeDeviceRule(d *decoder, r *specs.LinuxDeviceCgroup) {
	var allow bool
	d.object(func(name string) {
		switch name {
		case "allow":
			allow = true
			boolean(d, &r.Allow)
		case "type":
			str(d, &r.Type)
		case "major":
			signed(d, alloc(&r.Major))
		case "minor":
			signed(d, alloc(&r.Minor))
		case "access":
			str(d, &r.Access)
		default:
			d.skip()
		}
	})
	d.need(allow, "allow")
}

func decodeMemory(d *decoder, m *specs.LinuxMemory) {
	d.object(func(name string) {
		switch name {
		case "limit":
			signed(d, alloc(&m.Limit))
		case "reservation":
			signed(d, alloc(&m.Reservation))
		case "swap":
			signed(d, alloc(&m.Swap))
		case "kernel":
			signed(d, alloc(&m.Kernel))
		case "kernelTCP":
			signed(d, alloc(&m.KernelTCP))
		case "swappiness":
			unsigned(d, alloc(&m.Swappiness))
		case "disableOOMKiller":
			boolean(d, alloc(&m.DisableOOMKiller))
		case "useHierarchy":
			boolean(d, alloc(&m.UseHierarchy))
		case "checkBeforeUpdate":
			boolean(d, alloc(&m.CheckBeforeUpdate))
		default:
			d.skip()
		}
	})
}

func decodeCPU(d *decoder, c *specs.LinuxCPU) {
	d.object(func(name string) {
		switch name {
		case "shares":
			unsigned(d, alloc(&c.Shares))
		case "quota":
			signed(d, alloc(&c.Quota))
		case "burst":
			unsigned(d, alloc(&c.Burst))
		case "period":
			unsigned(d, alloc(&c.Period))
		case "realtimeRuntime":
			signed(d, alloc(&c.RealtimeRuntime))
		case "realtimePeriod":
			unsigned(d, alloc(&c.RealtimePeriod))
		case "cpus":
			str(d, &c.Cpus)
		case "mems":
			str(d, &c.Mems)
		case "idle":
			signed(d, alloc(&c.Idle))
		default:
			d.skip()
		}
	})
}

func decodePids(d *decoder, p *specs.LinuxPids) {
	d.object(func(name string) {
		switch name {
		case "limit":
			signed(d, alloc(&p.Limit))
		default:
			d.skip()
		}
	})
}

func decodeBlockIO(d *decoder, b *specs.LinuxBlockIO) {
	d.object(func(name string) {
		switch name {
		case "weight":
			unsigned(d, alloc(&b.Weight))
		case "leafWeight":
			unsigned(d, alloc(&b.LeafWeight))
		case "weightDevice":
			list(d, &b.WeightDevice, decodeWeightDevice)
		case "throttleReadBpsDevice":
			list(d, &b.ThrottleReadBpsDevice, decodeThrottleDevice)
		case "throttleWriteBpsDevice":
			list(d, &b.ThrottleWriteBpsDevice, decodeThrottleDevice)
		case "throttleReadIOPSDevice":
			list(d, &b.ThrottleReadIOPSDevice, decodeThrottleDevice)
		case "throttleWriteIOPSDevice":
			list(d, &b.ThrottleWriteIOPSDevice, decodeThrottleDevice)
		default:
			d.skip()
		}
	})
}

func decodeWeightDevice(d *decoder, w *specs.LinuxWeightDevice) {
	var major, minor bool
	d.object(func(name string) {
		switch name {
		case "major":
			major = true
			signed(d, &w.Major)
		case "minor":
			minor = true
			signed(d, &w.Minor)
		case "weight":
			unsigned(d, alloc(&w.Weight))
		case "leafWeight":
			unsigned(d, alloc(&w.LeafWeight))
		default:
			d.skip()
		}
	})
	d.need(major, "major")
	d.need(minor, "minor")
}

func decodeThrottleDevice(d *decoder, t *specs.LinuxThrottleDevice) {
	var major, minor, rate bool
	d.object(func(name string) {
		switch name {
		case "major":
			major = true
			signed(d, &t.Major)
		case "minor":
			minor = true
			signed(d, &t.Minor)
		case "rate":
			rate = true
			unsigned(d, &t.Rate)
		default:
			d.skip()
		}
	})
	d.need(major, "major")
	d.need(minor, "minor")
	d.need(rate, "rate")
}

func decodeHugepageLimit(d *decoder, h *specs.LinuxHugepageLimit) {
	var limit bool
	d.object(func(name string) {
		switch name {
		case "pageSize":
			str(d, &h.Pagesize)
		case "limit":
			limit = true
			unsigned(d, &h.Limit)
		default:
			d.skip()
		}
	})
	d.need(limit, "limit")
}

func decodeNetwork(d *decoder, n *specs.LinuxNetwork) {
	d.object(func(name string) {
		switch name {
		case "classID":
			unsigned(d, alloc(&n.ClassID))
		case "priorities":
			list(d, &n.Priorities, decodeInterfacePriority)
		default:
			d.skip()
		}
	})
}

func decodeInterfacePriority(d *decoder, p *specs.LinuxInterfacePriority) {
	d.object(func(name string) {
		switch name {
		case "name":
			str(d, &p.Name)
		case "priority":
			unsigned(d, &p.Priority)
		default:
			d.skip()
		}
	})
}

func decodeRdma(d *decoder, r *specs.LinuxRdma) {
	d.object(func(name string) {
		switch name {
		case "hcaHandles":
			unsigned(d, alloc(&r.HcaHandles))
		case "hcaObjects":
			unsigned(d, alloc(&r.HcaObjects))
		default:
			d.skip()
		}
	})
}
