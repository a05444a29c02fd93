package plan

import (
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// procFiles are the places below /proc on which a mount is allowed: files that monitoring tools such as lxcfs replace. Anything
// else could forge what the kernel tells about the container, or take the place of a file that a runtime writes
// (CVE-2019-16884, CVE-2025-52881).
var procFiles = []string{"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
	"/proc/loadavg", "/proc/slabinfo", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled"}

// mounts compiles mounts[] in the listed order.
func (c *compiler) mounts() error {
	c.devSetUp = true
	for i := range c.spec.Mounts {
		if err := c.mount(&c.spec.Mounts[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *compiler) mount(m *specs.Mount) error {
	dest := path.Join("/", m.Destination)
	if !path.IsAbs(m.Destination) {
		c.warn("mounts: destination %q is relative, taken from /", m.Destination)
	}
	if dest == "/" {
		return fmt.Errorf("mounts: destination %q would cover the root", m.Destination)
	}
	o := parseOptions(m.Options)
	if err := c.checkProc(m, dest, o); err != nil {
		return err
	}
	switch {
	case o.remount:
		c.add(Remount{Dest: dest, Data: append(o.flags, o.data...), Attr: o.attr, Bind: o.bind})
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

func (c *compiler) checkProc(m *specs.Mount, dest string, o parsedOptions) error {
	if dest == "/proc" {
		if m.Type == "proc" || o.bind || o.remount {
			return nil // the launcher checks that what is bound is a procfs
		}
		return fmt.Errorf("mounts: only a file system of type proc may be mounted on /proc, not %q", m.Type)
	}
	if !strings.HasPrefix(dest, "/proc/") {
		return nil
	}
	for _, p := range procFiles {
		if dest == p {
			return nil
		}
	}
	return fmt.Errorf("mounts: %s: mounting inside /proc is not allowed: it could forge what the kernel says", dest)
}

func inProc(dest string) bool { return strings.HasPrefix(dest, "/proc") }

// noSymlink: /proc and /sys must be directories of the root itself; a link there would move the masks of what is mounted
// (CVE-2019-19921, CVE-2023-28642).
func noSymlink(dest string) bool { return dest == "/proc" || dest == "/sys" }

func (c *compiler) fsMount(m *specs.Mount, dest string, o parsedOptions) error {
	if o.copyUp && m.Type != "tmpfs" {
		return fmt.Errorf("mounts: %s: tmpcopyup works on tmpfs only, not on %s", dest, m.Type)
	}
	if o.idmap || len(m.UIDMappings) > 0 {
		return fmt.Errorf("mounts: %s: id mappings are supported on bind mounts only", dest)
	}
	data := o.data
	if c.linux.MountLabel != "" {
		data = append(data, "context="+c.linux.MountLabel)
	}
	op := Mount{Type: m.Type, Source: m.Source, Dest: dest, Attr: o.attr, CopyUp: o.copyUp, NoSymlink: noSymlink(dest)}
	op.Data = append(append([]string{}, o.flags...), data...)
	op.TakeMode = m.Type == "tmpfs" && !hasKey(data, "mode")
	op.MayBindSys = m.Type == "sysfs" && c.userns && !c.has(specs.NetworkNamespace)
	if dest == "/dev" && op.Attr.Set&attrReadOnly != 0 {
		// The device nodes come first.
		op.Attr.Set &^= attrReadOnly
		op.Name = "/dev"
		c.devRO = true
	} else if op.Attr.Set&attrReadOnly != 0 && m.Type != "tmpfs" { // the root of a new tmpfs is changed once more
		op.Data = append([]string{"ro"}, op.Data...)
	}
	c.add(op)
	return nil
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
	if len(o.data) > 0 {
		return fmt.Errorf("mounts: bind on %s: %s: bind mounts cannot have any filesystem-specific options", dest,
			strings.Join(o.data, ","))
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
	op := Bind{Source: source, Dest: dest, Recursive: o.rbind, Attr: o.attr, KeepLocked: c.userns, NoSymlink: noSymlink(dest),
		InProc: inProc(dest)}
	if op.Attr.Set == 0 && op.Attr.Clear == attrReadOnly {
		op.Attr.Clear = 0 // a plain "rw" asks for nothing: the source decides
	}
	if dest == "/dev" {
		c.devSetUp = false // nodes made there would appear in the source
	}
	tree, err := c.prepare(m, source, o)
	if err != nil {
		return err
	}
	if tree != nil {
		op.Prepared = 1 + c.prepared()
		c.plan.Thread = append(c.plan.Thread, *tree)
	}
	c.add(op)
	return nil
}

// prepared counts the trees that the parent opens.
func (c *compiler) prepared() int {
	n := 0
	for _, op := range c.plan.Thread {
		if _, ok := op.(OpenTree); ok {
			n++
		}
	}
	return n
}

// prepare says whether the parent must open the source: to map its ids, which takes rights over its file system, or because the
// root of a new user namespace may not be allowed to reach it.
func (c *compiler) prepare(m *specs.Mount, source string, o parsedOptions) (*OpenTree, error) {
	tree := OpenTree{Source: source, Recursive: o.rbind, UID: m.UIDMappings, GID: m.GIDMappings, IDRecursive: o.ridmap}
	if (len(m.UIDMappings) > 0) != (len(m.GIDMappings) > 0) {
		return nil, fmt.Errorf("mounts: %s: uidMappings and gidMappings must come together", m.Destination)
	}
	if o.idmap && len(m.UIDMappings) == 0 {
		if c.newFlags&NewUser == 0 {
			return nil, fmt.Errorf("mounts: %s: idmap needs uidMappings and gidMappings, or a new user namespace", m.Destination)
		}
		tree.UID, tree.GID = c.linux.UIDMappings, c.linux.GIDMappings
	}
	if len(tree.UID) == 0 && (c.host.Rootless || c.newFlags&NewUser == 0) {
		return nil, nil
	}
	if len(tree.UID) > 0 && c.host.Rootless {
		return nil, fmt.Errorf("mounts: %s: id mapped mounts need root", m.Destination)
	}
	return &tree, nil
}
