package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mounts compiles mounts[] in the listed order.
func (c *compiler) mounts() error {
	for i := range c.spec.Mounts {
		if err := c.mount(&c.spec.Mounts[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *compiler) mount(m *specs.Mount) error {
	dest := path.Join("/", m.Destination)
	if dest == "/" {
		return fmt.Errorf("mounts: destination %q would cover the root", m.Destination)
	}
	o := parseOptions(m.Options)
	if err := checkPlace(m, dest, o); err != nil {
		return err
	}
	c.mounted[placeOf(dest)] = c.mounted[placeOf(dest)] || !o.remount
	switch {
	case o.remount && c.detached():
		return fmt.Errorf("mounts: %s: remount needs a mount namespace of the container's own", dest)
	case o.remount:
		c.add(Remount{Dest: dest, At: placeOf(dest), Data: append(o.flags, o.data...), Attr: o.attr, Bind: o.bind})
	case o.bind:
		return c.bind(m, dest, o)
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return c.cgroupMount(m, dest, o)
	case m.Type == "":
		return fmt.Errorf("mounts: %s: type is missing and the options have neither bind nor rbind", dest)
	case m.Type == "bind" || m.Type == "none":
		return fmt.Errorf("mounts: %s: type %q needs the option bind or rbind", dest, m.Type)
	default:
		return c.fsMount(m, dest, o)
	}
	return nil
}

func (c *compiler) fsMount(m *specs.Mount, dest string, o parsedOptions) error {
	if o.copyUp && m.Type != "tmpfs" {
		return fmt.Errorf("mounts: %s: tmpcopyup works on tmpfs only, not on %s", dest, m.Type)
	}
	if o.idmap || len(m.UIDMappings) > 0 {
		return fmt.Errorf("mounts: %s: id mappings are supported on bind mounts only", dest)
	}
	data := o.data
	if c.linux.MountLabel != "" && takesLabel(m.Type) {
		data = append(data, "context="+c.linux.MountLabel)
	}
	op := Mount{Type: m.Type, Source: m.Source, Dest: dest, At: placeOf(dest), Attr: o.attr, CopyUp: o.copyUp}
	op.NoSymlink = ordinaryDirectory(m.Type, op.At)
	op.Joined = c.aside && m.Type == "proc"
	op.Data = append(append([]string{}, o.flags...), data...)
	op.TakeMode = m.Type == "tmpfs" && !hasKey(data, "mode")
	op.MayBindSys = m.Type == "sysfs" && c.userns && c.newFlags&NewNet == 0
	if op.Attr.Set&attrReadOnly != 0 {
		if m.Type == "tmpfs" || op.At == OnDev {
			c.protectLater(&op)
		} else {
			op.Data = append([]string{"ro"}, op.Data...)
		}
	}
	c.add(op)
	return nil
}

// takesLabel: the kernel's policy labels the files of these file systems; a context option is refused.
func takesLabel(fsType string) bool {
	return fsType != "proc" && fsType != "sysfs" && fsType != "mqueue"
}

// protectLater makes a mount read-only at the end: device nodes, later mount points and what hooks make come first.
func (c *compiler) protectLater(op *Mount) {
	op.Attr.Set &^= attrReadOnly
	op.Name = fmt.Sprintf("%s %d", op.Dest, len(c.protect))
	c.protect = append(c.protect, Protect{Name: op.Name, Dest: op.Dest, Set: attrReadOnly, FileSystem: c.detached()})
}

func hasKey(data []string, key string) bool {
	for _, d := range data {
		if k, _, _ := strings.Cut(d, "="); k == key {
			return true
		}
	}
	return false
}

func (c *compiler) bind(m *specs.Mount, dest string, o parsedOptions) error {
	// Podman's own words for its volumes, which Debian's version passes on.
	o.data = slices.DeleteFunc(o.data, func(word string) bool { return word == "copy" || word == "nocopy" })
	if len(o.data) > 0 {
		return fmt.Errorf("mounts: bind on %s: unknown option %q: bind mounts cannot have any filesystem-specific options applied",
			dest, strings.Join(o.data, ","))
	}
	if o.copyUp {
		return fmt.Errorf("mounts: bind on %s: tmpcopyup works on tmpfs only", dest)
	}
	source := m.Source
	if source == "" {
		return fmt.Errorf("mounts: bind on %s: source is missing", dest)
	}
	if !path.IsAbs(source) {
		source = path.Join(c.host.Bundle, source)
	}
	op := Bind{Source: source, Dest: dest, Recursive: o.rbind, Attr: o.attr, At: placeOf(dest)}
	op.NoSymlink = ordinaryDirectory("", op.At)
	if c.detached() { // the clone is a peer of the host's mount, unless the configuration says so
		op.Attr.Propagation = append([]uint64{msSlave | msRec}, op.Attr.Propagation...)
	}
	var err error
	if op.Map, err = c.idMap(m, o); err != nil {
		return err
	}
	op.MapRecursive = o.ridmap
	// The root of the user namespace may not be allowed to reach the source, nor to map its ids.
	if op.Helped = c.userns && !c.host.Rootless; op.Helped {
		c.plan.Helper = append(c.plan.Helper, OpenTree{Source: source, Recursive: o.rbind, Map: op.Map, MapRecursive: o.ridmap})
	}
	c.add(op)
	return nil
}

// idMap returns 1 + the index of the user namespace whose mappings the mount takes, 0 for none.
func (c *compiler) idMap(m *specs.Mount, o parsedOptions) (int, error) {
	ns := MapNamespace{UID: m.UIDMappings, GID: m.GIDMappings}
	if (len(m.UIDMappings) > 0) != (len(m.GIDMappings) > 0) {
		return 0, fmt.Errorf("mounts: %s: uidMappings and gidMappings must come together", m.Destination)
	}
	if len(m.UIDMappings) == 0 {
		switch {
		case !o.idmap:
			return 0, nil
		case c.newFlags&NewUser != 0:
			ns.UID, ns.GID = c.linux.UIDMappings, c.linux.GIDMappings
		case c.joined["user"] != "":
			ns.Path = c.joined["user"]
		default:
			return 0, fmt.Errorf("mounts: %s: idmap needs uidMappings and gidMappings, or a user namespace", m.Destination)
		}
	}
	if c.host.Rootless {
		return 0, fmt.Errorf("mounts: %s: id mapped mounts need root", m.Destination)
	}
	for i, op := range c.plan.Thread {
		if have, ok := op.(MapNamespace); ok && have.Path == ns.Path && slices.Equal(have.UID, ns.UID) && slices.Equal(have.GID, ns.GID) {
			return 1 + i, nil
		}
	}
	c.plan.Thread = append(c.plan.Thread, ns)
	return len(c.plan.Thread), nil
}
