package cgroup

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// compileBlockIO covers linux.resources.blockIO. A weight is written for BFQ's own controller where the kernel has
// one: blkio.weight went with CFQ in Linux 5.0, io.weight needs the iocost controller and another scale.
func (g *Group) compileBlockIO(res *specs.LinuxResources) ([]setting, error) {
	b := res.BlockIO
	if b == nil {
		return nil, nil
	}
	out, err := g.compileWeights(b)
	if err != nil {
		return nil, err
	}
	for _, t := range [...]struct {
		prop, v1, v2 string
		devices      []specs.LinuxThrottleDevice
	}{
		{"throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", b.ThrottleReadBpsDevice},
		{"throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", b.ThrottleReadIOPSDevice},
		{"throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.devices {
			dev, err := device("blockIO."+t.prop, d.Major, d.Minor)
			if err != nil {
				return nil, err
			}
			s := setting{prop: "blockIO." + t.prop, controller: "blkio", file: t.v1, value: dev + " " + u(d.Rate)}
			if g.v2io() {
				rate := "max" // 0 takes a limit away, as on version 1
				if d.Rate != 0 {
					rate = u(d.Rate)
				}
				s.controller, s.file, s.value = "io", "io.max", dev+" "+t.v2+"="+rate
			}
			out = append(out, s)
		}
	}
	return out, nil
}

// v2io: the controller has another name in each version.
func (g *Group) v2io() bool { return g.find("blkio") == nil && (g.find("io") != nil || g.Mode == V2) }

func (g *Group) compileWeights(b *specs.LinuxBlockIO) ([]setting, error) {
	var out []setting
	if w := b.Weight; w != nil && *w != 0 {
		if err := checkWeight("blockIO.weight", *w); err != nil {
			return nil, err
		}
		out = append(out, g.weight("blockIO.weight", "weight", "", *w))
	}
	if w := b.LeafWeight; w != nil && *w != 0 {
		if g.v2io() {
			return nil, unsupported("blockIO.leafWeight", "cgroup v2 has no such setting")
		}
		if err := checkWeight("blockIO.leafWeight", *w); err != nil {
			return nil, err
		}
		out = append(out, setting{prop: "blockIO.leafWeight", controller: "blkio", file: "blkio.leaf_weight", value: u(uint64(*w))})
	}
	for _, d := range b.WeightDevice {
		dev, err := device("blockIO.weightDevice", d.Major, d.Minor)
		if err != nil {
			return nil, err
		}
		if d.Weight == nil && d.LeafWeight == nil {
			return nil, invalid("blockIO.weightDevice", "%s: weight or leafWeight must be set", dev)
		}
		if w := d.Weight; w != nil && *w != 0 {
			if err := checkWeight("blockIO.weightDevice", *w); err != nil {
				return nil, err
			}
			out = append(out, g.weight("blockIO.weightDevice", "weight_device", dev+" ", *w))
		}
		if w := d.LeafWeight; w != nil && *w != 0 {
			if g.v2io() {
				return nil, unsupported("blockIO.weightDevice.leafWeight", "cgroup v2 has no such setting")
			}
			if err := checkWeight("blockIO.weightDevice.leafWeight", *w); err != nil {
				return nil, err
			}
			out = append(out, setting{
				prop: "blockIO.weightDevice.leafWeight", controller: "blkio",
				file: "blkio.leaf_weight_device", value: dev + " " + u(uint64(*w)),
			})
		}
	}
	return out, nil
}

// weight builds a setting for weight or weight_device; dev is "major:minor " or empty.
func (g *Group) weight(prop, name, dev string, w uint16) setting {
	if g.v2io() {
		return setting{
			prop: prop, controller: "io",
			file: "io.bfq.weight", value: dev + u(uint64(w)),
			alt: "io.weight", altValue: dev + u(ioWeight(uint64(w))),
		}
	}
	return setting{prop: prop, controller: "blkio", file: "blkio." + name, value: dev + u(uint64(w)), alt: "blkio.bfq." + name}
}

// ioWeight stretches blkio's 10 to 1000 over io.weight's 1 to 10000.
func ioWeight(w uint64) uint64 { return 1 + (w-10)*9999/990 }

func checkWeight(prop string, w uint16) error {
	if w < 10 || w > 1000 {
		return invalid(prop, "%d: want 10 to 1000", w)
	}
	return nil
}

func device(prop string, major, minor int64) (string, error) {
	if major < 0 || minor < 0 || major >= 1<<12 || minor >= 1<<20 { // MINORBITS in linux/kdev_t.h
		return "", invalid(prop, "device number %d:%d", major, minor)
	}
	return fmt.Sprintf("%d:%d", major, minor), nil
}
