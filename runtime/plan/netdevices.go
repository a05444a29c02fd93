package plan

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// NetDevice moves a network device of the host into the container's network namespace, with its addresses, and sets it up. The
// parent does it, because it needs rights in both namespaces, and moves the device back when the container cannot be created.
type NetDevice struct {
	Device string // name on the host
	Name   string // name in the container; the kernel completes one that ends in %d
}

// What implements Op.
func (o NetDevice) What() string {
	return fmt.Sprintf("move network device %s into the container as %s", o.Device, o.Name)
}

// Template tells whether the kernel completes the name.
func (o NetDevice) Template() bool { return strings.HasSuffix(o.Name, "%d") }

// ForNetDevices is what the child waits for before it sets kernel parameters, which may be about the devices.
const ForNetDevices = "the network devices are moved"

// netDevices compiles linux.netDevices: those with a fixed name first, so that no template takes one of these.
func (c *compiler) netDevices() error {
	if len(c.linux.NetDevices) == 0 {
		return nil
	}
	if !c.has(specs.NetworkNamespace) {
		return fmt.Errorf("linux.netDevices: needs a network namespace of the container's own, and this one is the host's")
	}
	if c.host.Rootless {
		return fmt.Errorf("linux.netDevices: only root can move network devices of the host, and the runtime is rootless")
	}
	var templates []Op
	for _, device := range sortedKeys(c.linux.NetDevices) {
		op := NetDevice{Device: device, Name: c.linux.NetDevices[device].Name}
		if op.Name == "" {
			op.Name = device
		}
		if op.Template() {
			templates = append(templates, op)
			continue
		}
		c.plan.Beside = append(c.plan.Beside, op)
	}
	c.plan.Beside = append(c.plan.Beside, templates...)
	c.add(Wait{ForNetDevices})
	return nil
}
