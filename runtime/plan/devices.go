package plan

import (
	"fmt"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultDevices are in every container: config-linux.md, "Default Devices".
var defaultDevices = []Device{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, Mode: 0o666},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5, Mode: 0o666},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7, Mode: 0o666},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8, Mode: 0o666},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9, Mode: 0o666},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0, Mode: 0o666},
}

// devLinks are the links of the same section, made when the source exists after the mounts.
var devLinks = []Symlink{
	{Path: "/dev/fd", Target: "/proc/self/fd"},
	{Path: "/dev/stdin", Target: "/proc/self/fd/0"},
	{Path: "/dev/stdout", Target: "/proc/self/fd/1"},
	{Path: "/dev/stderr", Target: "/proc/self/fd/2"},
}

// devices fills /dev.
func (c *compiler) devices() error {
	listed, err := c.listedDevices()
	if err != nil {
		return err
	}
	c.add(OpenDev{})
	for _, d := range defaultDevices {
		if _, ok := listed[d.Path]; ok {
			continue // the configuration's own entry wins
		}
		d.Bind, d.Default = c.bindDevices(), true
		c.add(d)
	}
	for _, d := range c.linux.Devices {
		if err := c.listedDevice(listed[path.Clean(d.Path)]); err != nil {
			return err
		}
	}
	for _, l := range devLinks {
		l.IfExists = "/proc/self"
		if c.aside { // the present process has no number in that procfs
			l.IfExists = "/proc/1"
		}
		c.add(l)
	}
	c.add(Symlink{Path: "/dev/core", Target: "/proc/kcore", IfExists: "/proc/kcore"},
		Symlink{Path: "/dev/ptmx", Target: "pts/ptmx", Replace: true})
	if p := c.spec.Process; p != nil && p.Terminal {
		t := Terminal{Console: true}
		if flags, err := propagationFlags(c.linux.RootfsPropagation); err == nil {
			t.OwnDev = flags&msShared != 0
		}
		if p.ConsoleSize != nil {
			t.Width, t.Height = uint16(p.ConsoleSize.Width), uint16(p.ConsoleSize.Height)
		}
		c.add(t)
	}
	return nil
}

// listedDevice adds a device of the configuration. In a new user namespace root of the host makes the node, with its owner; otherwise
// the host's own node must do.
func (c *compiler) listedDevice(d Device) error {
	if d.Path == "/dev/ptmx" {
		return nil // engines list all nodes of the host; this one would lead to the host's terminals
	}
	if d.Bind && c.newFlags&NewUser != 0 && !c.host.Rootless {
		node := MakeNode{Path: d.Path, Type: d.Type, Major: d.Major, Minor: d.Minor, Mode: d.Mode}
		var ok bool
		if node.UID, ok = mappedID(d.UID, c.linux.UIDMappings); !ok {
			return fmt.Errorf("linux.devices: %s: uid %d is not in linux.uidMappings", d.Path, d.UID)
		}
		if node.GID, ok = mappedID(d.GID, c.linux.GIDMappings); !ok {
			return fmt.Errorf("linux.devices: %s: gid %d is not in linux.gidMappings", d.Path, d.GID)
		}
		d.Helped = true
		c.plan.Helper = append(c.plan.Helper, node)
	}
	c.add(d)
	return nil
}

// bindDevices: the kernel lets nobody but the root of the initial user namespace make device nodes.
func (c *compiler) bindDevices() bool { return c.userns || c.host.Rootless }

func (c *compiler) listedDevices() (map[string]Device, error) {
	listed := make(map[string]Device, len(c.linux.Devices))
	for _, d := range c.linux.Devices {
		dev, err := c.device(d)
		if err != nil {
			return nil, err
		}
		listed[dev.Path] = dev
	}
	return listed, nil
}

func (c *compiler) device(d specs.LinuxDevice) (Device, error) {
	dev := Device{Path: path.Clean(d.Path), Type: d.Type, Major: d.Major, Minor: d.Minor, Mode: 0o666, Bind: c.bindDevices()}
	switch d.Type {
	case "c", "b":
	case "u":
		dev.Type = "c" // mknod(1)'s word for an unbuffered character device
	case "p":
		dev.Bind = false // anybody may make a FIFO
	default:
		return dev, fmt.Errorf("linux.devices: %s: unknown type %q", d.Path, d.Type)
	}
	if !path.IsAbs(d.Path) {
		return dev, fmt.Errorf("linux.devices: path %q is not absolute", d.Path)
	}
	if d.FileMode != nil {
		dev.Mode = uint32(*d.FileMode) & 0o7777
	}
	if d.UID != nil {
		dev.UID = *d.UID
	}
	if d.GID != nil {
		dev.GID = *d.GID
	}
	return dev, nil
}
