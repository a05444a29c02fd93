package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/seccomp"
	"github.com/tare-oci/tare/runtime/spec"
)

// Host is what a plan depends on besides the configuration: one machine's facts, as an explicit value.
type Host struct {
	Arch      string // in Go's words
	Bundle    string // absolute
	ID        string
	Rootless  bool   // the runtime is not root of the initial user namespace
	UID, GID  uint32 // of the runtime
	LastCap   int    // the kernel's last capability number
	Grantable uint64 // the runtime's own bounding set
	SELinux   bool
	AppArmor  bool
	CgroupV2  bool // the cgroup of the container is one directory of cgroup2
	// Cgroups names the hierarchies that the child joins by itself, in the order of the descriptors given to the launcher.
	Cgroups      []string
	CgroupMounts []CgroupMount
	// RootMount is the mount point that holds the bundle's root file system; needed for shared root propagation only.
	RootMount string
	// NoFile is the soft and hard limit of open files that the runtime was started with; 0, 0: not known.
	NoFile [2]uint64
	// IDMapHelpers has newuidmap(1) and newgidmap(1) write the maps.
	IDMapHelpers bool
}

// CgroupMount is one entry of a mount of type cgroup.
type CgroupMount struct {
	Name  string // of the directory below the mount
	Dir   string // on the host
	Links []string
}

// Options are the caller's wishes beside the configuration.
type Options struct {
	NoPivot      bool
	NoNewKeyring bool
	PassedFDs    int  // descriptors after the standard streams that the program gets
	WaitStart    bool // create: stop before the program, until start
	Hooks        bool // stop for the hooks of create once the mounts are made
}

// compiler gathers a plan.
type compiler struct {
	spec  *specs.Spec
	linux *specs.Linux
	host  *Host
	opts  Options
	plan  Plan

	newFlags uint64            // namespaces to create
	joined   map[string]string // type → path
	userns   bool              // new or joined
	devSetUp bool              // /dev is ours to fill
	devRO    bool              // protect /dev once it is filled
}

// Compile returns the plan for a new container. The configuration must have passed spec.Validate. Errors name the property.
func Compile(s *specs.Spec, host *Host, opts Options) (*Plan, error) {
	c := &compiler{spec: s, linux: s.Linux, host: host, opts: opts, joined: map[string]string{}}
	if c.linux == nil {
		c.linux = &specs.Linux{}
	}
	for _, step := range []func() error{c.namespaces, c.refuse, c.enter, c.netDevices, c.rootfs, c.mounts, c.devices, c.identity,
		c.finishRoot, c.process} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return &c.plan, nil
}

func (c *compiler) add(ops ...Op) { c.plan.Child = append(c.plan.Child, ops...) }

func (c *compiler) warn(format string, args ...any) {
	c.plan.Warnings = append(c.plan.Warnings, fmt.Sprintf(format, args...))
}

// NamespaceFlag is the CLONE_NEW* flag of a namespace type of config.json, 0 for an unknown one.
func NamespaceFlag(t specs.LinuxNamespaceType) uint64 {
	switch t {
	case specs.PIDNamespace:
		return NewPID
	case specs.NetworkNamespace:
		return NewNet
	case specs.MountNamespace:
		return NewMount
	case specs.IPCNamespace:
		return NewIPC
	case specs.UTSNamespace:
		return NewUTS
	case specs.UserNamespace:
		return NewUser
	case specs.CgroupNamespace:
		return NewCgroup
	case specs.TimeNamespace:
		return NewTime
	}
	return 0
}

func (c *compiler) namespaces() error {
	for _, ns := range c.linux.Namespaces {
		flag := NamespaceFlag(ns.Type)
		if flag == 0 {
			return fmt.Errorf("linux.namespaces: unknown type %q", ns.Type)
		}
		if ns.Path != "" {
			c.joined[string(ns.Type)] = ns.Path
		} else {
			c.newFlags |= flag
		}
		if ns.Type == specs.UserNamespace {
			c.userns = true
		}
	}
	return nil
}

// has reports whether the container has its own namespace of the type, new or joined.
func (c *compiler) has(t specs.LinuxNamespaceType) bool {
	return c.newFlags&NamespaceFlag(t) != 0 || c.joined[string(t)] != ""
}

// refuse names what this runtime does not do yet, or what this host cannot do, before anything is touched.
func (c *compiler) refuse() error {
	p := c.spec.Process
	switch {
	case !c.has(specs.MountNamespace):
		return fmt.Errorf("linux.namespaces: a container without a mount namespace of its own would change the host's mounts")
	case c.linux.IntelRdt != nil:
		return fmt.Errorf("linux.intelRdt is not supported yet")
	case c.host.Rootless && !c.userns:
		return fmt.Errorf("linux.namespaces: a user namespace is needed when the runtime is not run by root")
	case c.linux.MountLabel != "" && !c.host.SELinux:
		return fmt.Errorf("linux.mountLabel: selinux is not enabled on the host")
	}
	if p == nil {
		return nil
	}
	if p.SelinuxLabel != "" && !c.host.SELinux {
		return fmt.Errorf("process.selinuxLabel: selinux is not enabled on the host")
	}
	if p.ApparmorProfile != "" && !c.host.AppArmor {
		return fmt.Errorf("process.apparmorProfile: apparmor is not enabled on the host")
	}
	return nil
}

// nsOrder is the order in which namespaces are joined by path: the user namespace first, because it gives the rights for the
// others that it owns; the mount namespace last, because paths change with it.
var nsOrder = []specs.LinuxNamespaceType{specs.UserNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace,
	specs.PIDNamespace, specs.CgroupNamespace, specs.TimeNamespace, specs.MountNamespace}

// enter decides who joins and creates which namespace.
func (c *compiler) enter() error {
	// The cgroup namespace's root is the cgroup at the moment of unshare: it must come after the child joined its cgroup.
	cloneFlags := c.newFlags &^ (NewCgroup | NewTime)
	var cgroups, joins []Op
	for i, name := range c.host.Cgroups {
		cgroups = append(cgroups, JoinCgroup{Name: name, Index: i})
	}
	for _, t := range nsOrder {
		if p := c.joined[string(t)]; p != "" {
			joins = append(joins, Join{Type: string(t), Flag: NamespaceFlag(t), Path: p})
		}
	}
	// An intermediate process is needed where what the child creates must belong to a joined user namespace, where only
	// children enter (pid, time), and where the child, in its new user namespace, would lack the right to join.
	if c.joined["user"] != "" || c.joined["pid"] != "" || c.newFlags&NewTime != 0 || len(joins) > 0 && c.newFlags&NewUser != 0 {
		c.enterByOuter(cgroups, joins, cloneFlags)
	} else {
		c.plan.Flags = cloneFlags
		c.add(cgroups...)
	}
	if c.newFlags&NewUser != 0 {
		c.plan.Beside = append(c.plan.Beside, MapIDs{UID: c.linux.UIDMappings, GID: c.linux.GIDMappings, Helper: c.host.IDMapHelpers})
		c.add(Wait{"the id mappings are written"}, BecomeRoot{KeepGroups: c.host.Rootless && !c.host.IDMapHelpers})
	}
	if len(c.plan.Outer) == 0 {
		c.add(joins...)
	}
	if c.newFlags&NewCgroup != 0 {
		c.add(Unshare{NewCgroup})
	}
	return nil
}

// enterByOuter lets an intermediate process join and clone the child.
func (c *compiler) enterByOuter(cgroups, joins []Op, cloneFlags uint64) {
	out := append([]Op{}, cgroups...)
	for _, op := range joins {
		out = append(out, op)
		if op.(Join).Flag == NewUser {
			out = append(out, BecomeRoot{KeepGroups: c.host.Rootless && !c.host.IDMapHelpers})
		}
	}
	if c.newFlags&NewTime != 0 {
		out = append(out, Unshare{NewTime})
		if len(c.linux.TimeOffsets) > 0 {
			out = append(out, TimeOffsets{c.linux.TimeOffsets})
		}
	}
	c.plan.Outer = append(out, CloneChild{Flags: cloneFlags})
}

// rootfs opens the root and sets how mounts propagate.
func (c *compiler) rootfs() error {
	if c.spec.Root == nil {
		return fmt.Errorf("root: missing")
	}
	flags, err := propagationFlags(c.linux.RootfsPropagation)
	if err != nil {
		return err
	}
	root := c.spec.Root.Path
	if !path.IsAbs(root) {
		root = path.Join(c.host.Bundle, root)
	}
	if flags&msShared != 0 {
		// The container's mounts shall reach their peers on the host: only the mount under the root is cut off, so
		// that what is mounted inside the root stays inside.
		if c.host.RootMount == "" {
			return fmt.Errorf("linux.rootfsPropagation: the mount below %s is not known", root)
		}
		c.add(Propagate{Path: c.host.RootMount, Flags: msPrivate})
	} else {
		c.add(Propagate{Path: "/", Flags: msSlave | msRec})
	}
	c.add(Root{Path: path.Clean(root)})
	return nil
}

// identity sets names and kernel parameters.
func (c *compiler) identity() error {
	if c.newFlags&NewNet != 0 {
		c.add(Loopback{})
	}
	if c.spec.Hostname != "" {
		c.add(Hostname{c.spec.Hostname})
	}
	if c.spec.Domainname != "" {
		c.add(Domainname{c.spec.Domainname})
	}
	for _, key := range sortedKeys(c.linux.Sysctl) {
		c.add(Sysctl{Key: key, Path: sysctlPath(key), Value: c.linux.Sysctl[key]})
	}
	return nil
}

// sysctlPath turns a key to a path below /proc/sys: the first separator tells which one is meant, the other one is part of a
// name ("net.ipv4.conf.eth0/1" is interface eth0.1).
func sysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// finishRoot makes the new root the root and closes what must be closed.
func (c *compiler) finishRoot() error {
	if c.opts.Hooks {
		c.add(Tell{StageMounts}, Wait{"the hooks of create have run"})
	}
	flags, err := propagationFlags(c.linux.RootfsPropagation)
	if err != nil {
		return err
	}
	// Before the pivot, while the host's /dev/null can still be reached: it is the one that no image can replace.
	for _, p := range c.linux.ReadonlyPaths {
		c.add(ReadOnly{p})
	}
	for _, p := range c.linux.MaskedPaths {
		c.add(Mask{p})
	}
	if c.spec.Root.Readonly {
		c.add(RootReadOnly{})
	}
	c.add(Pivot{Chroot: c.opts.NoPivot})
	if flags != 0 {
		c.add(RootPropagation{flags})
	}
	return nil
}

// filter compiles the seccomp section.
func (c *compiler) filter() (*Seccomp, error) {
	if c.linux.Seccomp == nil {
		return nil, nil
	}
	f, err := seccomp.Compile(c.linux.Seccomp, c.host.Arch)
	if err != nil {
		return nil, fmt.Errorf("linux.seccomp: %w", err)
	}
	for _, w := range f.Warnings {
		c.warn("linux.seccomp: %s", w)
	}
	if f.Notify {
		return nil, fmt.Errorf("linux.seccomp: action SCMP_ACT_NOTIFY is not supported yet")
	}
	if len(f.Program) == 0 {
		return nil, nil
	}
	if !mayExec(c.linux.Seccomp) {
		return nil, fmt.Errorf("linux.seccomp: the default action refuses execve and no rule allows it: no program could be started")
	}
	return &Seccomp{Program: f.AppendBytes(nil), Flags: f.Flags, Notify: f.Notify}, nil
}

// mayExec tells whether a profile lets the child become the user's program at all. After a filter that does not, the child could
// not even say so.
func mayExec(s *specs.LinuxSeccomp) bool {
	lets := func(a specs.LinuxSeccompAction) bool {
		return a == specs.ActAllow || a == specs.ActLog || a == specs.ActTrace || a == specs.ActNotify
	}
	if lets(s.DefaultAction) {
		return true
	}
	for _, rule := range s.Syscalls {
		if lets(rule.Action) && slices.Contains(rule.Names, "execve") {
			return true
		}
	}
	return false
}

func capNumber(name string) (int, bool) { return spec.CapabilityNumber(name) }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		i := len(keys)
		keys = append(keys, k)
		for ; i > 0 && keys[i-1] > k; i-- {
			keys[i] = keys[i-1]
		}
		keys[i] = k
	}
	return keys
}
