package spec

import (
	"errors"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func (v *validator) linux(s *specs.Spec) {
	l := s.Linux
	v.namespaces(l)
	v.userNamespace(s)
	v.timeOffsets(l)
	v.devices(l.Devices)
	v.netDevices(l)
	v.sysctl(l)
	if l.Resources != nil {
		v.resources("linux.resources.", l.Resources)
		v.swap("linux.resources.", l.Resources.Memory)
	}
	switch l.RootfsPropagation {
	case "", "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable":
	default:
		v.bad("linux.rootfsPropagation: rootfsPropagation=%s is not supported", escape(l.RootfsPropagation))
	}
	v.absoluteAll("linux.maskedPaths", l.MaskedPaths)
	v.absoluteAll("linux.readonlyPaths", l.ReadonlyPaths)
	if l.IntelRdt != nil {
		v.intelRdt(l.IntelRdt)
	}
	if l.MemoryPolicy != nil {
		v.memoryPolicy(l.MemoryPolicy)
	}
	if p := l.Personality; p != nil {
		if p.Domain != specs.PerLinux && p.Domain != specs.PerLinux32 {
			v.bad("linux.personality.domain: invalid personality domain %s", escape(string(p.Domain)))
		}
		if len(p.Flags) > 0 {
			v.bad("linux.personality.flags[0]: unknown flag %s", quote(string(p.Flags[0])))
		}
	}
}

func (v *validator) namespaces(l *specs.Linux) {
	for i, n := range l.Namespaces {
		switch n.Type {
		case specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace,
			specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace:
		default:
			v.bad("linux.namespaces[%d].type: namespace {%s %s} does not exist", i, quote(string(n.Type)), quote(n.Path))
		}
		if n.Path != "" && n.Path[0] != '/' {
			v.bad("linux.namespaces[%d].path: %s is not absolute", i, quote(n.Path))
		}
		if namespace(l, n.Type) != &l.Namespaces[i] {
			v.bad("linux.namespaces[%d].type: duplicated ns {%s %s}", i, quote(string(n.Type)), quote(n.Path))
		}
	}
}

// userNamespace checks that maps and a user namespace come together and that the process's ids are mapped.
func (v *validator) userNamespace(s *specs.Spec) {
	l := s.Linux
	v.mappings("linux.uidMappings", l.UIDMappings)
	v.mappings("linux.gidMappings", l.GIDMappings)
	n := namespace(l, specs.UserNamespace)
	if n == nil {
		for _, m := range [...]struct {
			name string
			maps []specs.LinuxIDMapping
		}{{"uidMappings", l.UIDMappings}, {"gidMappings", l.GIDMappings}} {
			if len(m.maps) > 0 {
				v.bad("linux.%s: has no effect without a user namespace in linux.namespaces", m.name)
			}
		}
		return
	}
	if n.Path != "" {
		// No error: Podman gives a mapping of one id, which earlier versions of runc wanted.
		if len(l.UIDMappings)+len(l.GIDMappings) > 0 {
			v.warn("linux.uidMappings: ignored, the user namespace %s has mappings of its own", quote(n.Path))
		}
		return
	}
	if len(l.UIDMappings) == 0 {
		v.bad("linux.uidMappings: missing, a new user namespace needs them")
	}
	if len(l.GIDMappings) == 0 {
		v.bad("linux.gidMappings: missing, a new user namespace needs them")
	}
	if s.Process == nil {
		return
	}
	u := &s.Process.User
	v.mapped("process.user.uid", u.UID, "linux.uidMappings", l.UIDMappings)
	v.mapped("process.user.gid", u.GID, "linux.gidMappings", l.GIDMappings)
	for i, g := range u.AdditionalGids {
		v.mapped("process.user.additionalGids["+strconv.Itoa(i)+"]", g, "linux.gidMappings", l.GIDMappings)
	}
}

func (v *validator) mapped(at string, id uint32, in string, maps []specs.LinuxIDMapping) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return
		}
	}
	v.bad("%s: %d is not mapped in %s", at, id, in)
}

func (v *validator) timeOffsets(l *specs.Linux) {
	if len(l.TimeOffsets) == 0 {
		return
	}
	if n := namespace(l, specs.TimeNamespace); n == nil || n.Path != "" {
		v.bad("linux.timeOffsets: time namespace offsets specified, but time namespace isn't enabled in the config")
	}
	for _, clock := range slices.Sorted(maps.Keys(l.TimeOffsets)) {
		if clock != "monotonic" && clock != "boottime" {
			v.bad("linux.timeOffsets: unknown clock %s", quote(clock))
		}
		if ns := l.TimeOffsets[clock].Nanosecs; ns >= 1e9 {
			v.bad("linux.timeOffsets.%s.nanosecs: want 0 to 999999999, got %d", clock, ns)
		}
	}
}

func (v *validator) devices(devices []specs.LinuxDevice) {
	for i, d := range devices {
		at := "linux.devices[" + strconv.Itoa(i) + "]."
		v.absolute(at+"path", d.Path)
		switch d.Type {
		case "c", "b", "u", "p":
		default:
			v.bad("%stype: invalid device type %s: want c, b, u or p", at, quote(d.Type))
		}
		// Linux has 12 bits for the major and 20 for the minor number.
		if d.Major < 0 || d.Major > 1<<12-1 || d.Minor < 0 || d.Minor > 1<<20-1 {
			v.bad("%smajor: %d:%d is not a device number", at, d.Major, d.Minor)
		}
		if d.UID != nil && *d.UID == math.MaxUint32 || d.GID != nil && *d.GID == math.MaxUint32 {
			v.bad("%suid: %d (-1) is not an owner", at, uint32(math.MaxUint32))
		}
		if d.Type == "p" {
			continue
		}
		for j, e := range devices[:i] {
			if e.Type == d.Type && e.Major == d.Major && e.Minor == d.Minor {
				v.warn("linux.devices[%d]: same device as linux.devices[%d]", i, j)
				break
			}
		}
	}
}

func (v *validator) netDevices(l *specs.Linux) {
	if len(l.NetDevices) == 0 {
		return
	}
	if namespace(l, specs.NetworkNamespace) == nil {
		v.bad("linux.netDevices: needs a network namespace in linux.namespaces")
	}
	taken := make(map[string]string, len(l.NetDevices))
	for _, host := range slices.Sorted(maps.Keys(l.NetDevices)) {
		if !isInterfaceName(host) {
			v.bad("linux.netDevices: %s is not an interface name", quote(host))
		}
		name := l.NetDevices[host].Name
		if name == "" {
			name = host
		} else if !isInterfaceName(strings.TrimSuffix(name, "%d")) && name != "%d" || len(name) > 15 {
			v.bad("linux.netDevices[%s].name: %s is not an interface name", quote(host), quote(name))
		}
		if other, ok := taken[name]; ok && !strings.HasSuffix(name, "%d") {
			v.bad("linux.netDevices[%s].name: %s is the name of %s too", quote(host), quote(name), quote(other))
		}
		taken[name] = host
	}
}

// isInterfaceName applies the rules of the kernel's dev_valid_name, and refuses %, which it would expand.
func isInterfaceName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 15 && !strings.ContainsAny(s, "/:% \t\n\v\f\r") &&
		strings.IndexByte(s, 0xa0) < 0 // white space to the kernel, which reads bytes as Latin-1
}

func (v *validator) sysctl(l *specs.Linux) {
	for _, key := range slices.Sorted(maps.Keys(l.Sysctl)) {
		file, err := SysctlPath(key)
		if err != nil {
			v.bad("linux.sysctl: %w", err)
			return
		}
		t := SysctlNamespace(file)
		switch {
		case file == "kernel/hostname":
			v.bad("linux.sysctl: sysctl %s is not allowed as it conflicts with the OCI \"hostname\" field", quote(key))
		case t == "":
			v.bad("linux.sysctl: sysctl %s is not in a separate kernel namespace: it would change the host", quote(key))
		case namespace(l, t) == nil:
			v.bad("linux.sysctl: sysctl %s %s: it would change the host, add a namespace of type %s", quote(key), sysctlRefusal(t), t)
		}
	}
}

// sysctlRefusal is what runc says of a parameter of a namespace that is the host's.
func sysctlRefusal(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.IPCNamespace:
		return "is not allowed in the hosts ipc namespace"
	case specs.NetworkNamespace:
		return "not allowed in host network namespace"
	}
	return "is not in a separate kernel namespace"
}

// SysctlPath returns the path below /proc/sys of a kernel parameter. Parts are separated by dots or by slashes; the
// first separator decides which, and the other character is then part of a name, with dots and slashes exchanged as
// sysctl(8) does: net.ipv4.conf.eth0/1.forwarding and net/ipv4/conf/eth0.1/forwarding are the same. A name that would
// lead elsewhere is an error.
func SysctlPath(name string) (string, error) {
	file := name
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		file = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	if file == "" || path.IsAbs(file) || path.Clean(file) != file || file == ".." || strings.HasPrefix(file, "../") || file == "." {
		return "", errors.New(quote(name) + " is not the name of a kernel parameter")
	}
	return file, nil
}

// SysctlNamespace returns the type of the namespace that has its own copy of a parameter, given by its path below /proc/sys, or ""
// if the host's is the only one. Sources: ipc/ipc_sysctl.c, ipc/mq_sysctl.c, kernel/utsname_sysctl.c, kernel/ucount.c.
func SysctlNamespace(file string) specs.LinuxNamespaceType {
	switch file {
	case "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax",
		"kernel/shmmni", "kernel/shm_rmid_forced":
		return specs.IPCNamespace
	case "kernel/domainname", "kernel/hostname":
		return specs.UTSNamespace
	}
	switch top, rest, _ := strings.Cut(file, "/"); {
	case top == "net" && rest != "":
		return specs.NetworkNamespace
	case top == "user" && rest != "":
		return specs.UserNamespace
	case strings.HasPrefix(file, "fs/mqueue/"):
		return specs.IPCNamespace
	}
	return ""
}

func (v *validator) intelRdt(r *specs.LinuxIntelRdt) {
	if id := r.ClosID; id == "." || id == ".." || id != "/" && strings.Contains(id, "/") || strings.Contains(id, "\n") {
		v.bad("linux.intelRdt.closID: %s is not a directory name", quote(id))
	}
	if s := r.MemBwSchema; s != "" && !strings.HasPrefix(s, "MB:") {
		v.bad("linux.intelRdt.memBwSchema: %s does not start with MB:", quote(s))
	} else if strings.Contains(s, "\n") {
		v.bad("linux.intelRdt.memBwSchema: %s is not one line", quote(s))
	}
	if s := r.L3CacheSchema; s != "" && !strings.HasPrefix(s, "L3:") {
		v.warn("linux.intelRdt.l3CacheSchema: %s does not start with L3:", quote(s))
	}
	for i, s := range r.Schemata {
		if s == "" || strings.Contains(s, "\n") {
			v.bad("linux.intelRdt.schemata[%d]: %s is not one line", i, quote(s))
		}
	}
}

// memoryPolicy checks the combinations that set_mempolicy(2) would answer with no more than EINVAL.
func (v *validator) memoryPolicy(m *specs.LinuxMemoryPolicy) {
	v.list("linux.memoryPolicy.nodes", m.Nodes)
	switch m.Mode {
	case specs.MpolDefault, specs.MpolLocal:
		if m.Nodes != "" {
			v.bad("linux.memoryPolicy.nodes: want none with %s, got %s", m.Mode, quote(m.Nodes))
		}
	case specs.MpolBind, specs.MpolInterleave, specs.MpolWeightedInterleave, specs.MpolPreferredMany:
		if m.Nodes == "" {
			v.bad("linux.memoryPolicy.nodes: missing, %s needs them", m.Mode)
		}
	case specs.MpolPreferred:
	default:
		v.bad("linux.memoryPolicy.mode: invalid memory policy mode %s", quote(string(m.Mode)))
	}
	for i, f := range m.Flags {
		switch f {
		case specs.MpolFNumaBalancing, specs.MpolFRelativeNodes, specs.MpolFStaticNodes:
		default:
			v.bad("linux.memoryPolicy.flags[%d]: invalid memory policy flag %s", i, quote(string(f)))
		}
	}
	if slices.Contains(m.Flags, specs.MpolFRelativeNodes) && slices.Contains(m.Flags, specs.MpolFStaticNodes) {
		v.bad("linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other")
	}
}
