package plan

import (
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

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
	// Placed: the parent moves the clone into its cgroup, or a part of it, before the clone does anything.
	Placed bool
	// Cgroups names the hierarchies that the child joins by itself, in the order of the descriptors given to the launcher.
	Cgroups       []string
	CgroupMounts  []CgroupMount // one per version 1 hierarchy
	CgroupUnified string        // directory of the cgroup in the cgroup2 hierarchy, on the host; empty: none is mounted
	CgroupShared  bool          // the container stays in its caller's cgroups, which the two fields before then describe
	// RootMount is the mount point that holds the bundle's root file system; needed for shared root propagation only.
	RootMount string
	// NoFile is the soft and hard limit of open files that the runtime was started with; 0, 0: not known.
	NoFile [2]uint64
	// IDMapHelpers has newuidmap(1) and newgidmap(1) write the maps.
	IDMapHelpers bool
	// SameNamespaces are the namespaces (CLONE_NEW* flags) that the configuration gives by the path of the runtime's own.
	SameNamespaces uint64
	// ProcMounts are the mount points of proc and sysfs that stay reachable without pivot_root(2); needed for NoPivot only.
	ProcMounts []string
	// ProcByDescriptor: the kernel mounts a procfs of any pid namespace (Linux 6.17).
	ProcByDescriptor bool
}

// CgroupMount is one entry of a version 1 mount of type cgroup.
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
	exec     bool              // for a container that exists
	aside    bool              // see buildsAside
	program  string            // ExecInput.Program
	exactEnv bool              // ExecInput.ExactEnv
	protect  []Op              // mounts to make read-only at the end
	mounted  [OnDev + 1]bool   // places on which the configuration mounts something
	rootRO   bool              // linux.readonlyPaths has the root itself
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
		switch {
		case ns.Path == "":
			c.newFlags |= flag
		case c.host.SameNamespaces&flag == 0:
			c.joined[string(ns.Type)] = ns.Path
		default:
			continue // the runtime's own: the process is there already, and what is set in it changes the host
		}
		if ns.Type == specs.UserNamespace {
			c.userns = true
		}
	}
	return nil
}

// has reports whether the container has a namespace of the type that is not the runtime's, new or joined.
func (c *compiler) has(t specs.LinuxNamespaceType) bool {
	return c.newFlags&NamespaceFlag(t) != 0 || c.joined[string(t)] != ""
}

// refuse names what this runtime does not do yet, or what this host cannot do, before anything is touched.
func (c *compiler) refuse() error {
	p := c.spec.Process
	switch {
	case c.detached() && c.userns:
		return fmt.Errorf("linux.namespaces: a container with a user namespace needs a mount namespace of its own: the host's is not its to mount in")
	case c.detached() && c.opts.NoPivot:
		return fmt.Errorf("linux.namespaces: --no-pivot needs a mount namespace of the container's own")
	case c.host.Rootless && !c.userns:
		return fmt.Errorf("linux.namespaces: a user namespace is needed when the runtime is not run by root")
	case c.linux.MountLabel != "" && !c.host.SELinux:
		return fmt.Errorf("linux.mountLabel: selinux label is specified in config, but selinux is disabled or not supported")
	case c.spec.Hostname != "" && !c.has(specs.UTSNamespace):
		return fmt.Errorf("hostname: needs a uts namespace of the container's own, it would rename the host")
	case c.spec.Domainname != "" && !c.has(specs.UTSNamespace):
		return fmt.Errorf("domainname: needs a uts namespace of the container's own, it would rename the host")
	}
	for _, key := range sortedKeys(c.linux.Sysctl) {
		file, err := spec.SysctlPath(key)
		if err != nil {
			return fmt.Errorf("linux.sysctl: %w", err)
		}
		if t := spec.SysctlNamespace(file); t == "" || !c.has(t) {
			return fmt.Errorf("linux.sysctl: %q needs a namespace of type %s of the container's own, it would change the host", key, t)
		}
	}
	if p == nil {
		return nil
	}
	if p.SelinuxLabel != "" && !c.host.SELinux {
		return fmt.Errorf("process.selinuxLabel: selinux label is specified in config, but selinux is disabled or not supported")
	}
	if p.ApparmorProfile != "" && !c.host.AppArmor {
		return fmt.Errorf("process.apparmorProfile: unable to apply apparmor profile: apparmor is not enabled on the host")
	}
	return nil
}

// joinOrder is the order in which namespaces are joined by path: the mount namespace last, because paths change with it.
var joinOrder = []specs.LinuxNamespaceType{specs.UserNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace,
	specs.PIDNamespace, specs.CgroupNamespace, specs.TimeNamespace, specs.MountNamespace}

// enter decides who joins and creates which namespace.
func (c *compiler) enter() error {
	// The cgroup namespace's root is the cgroup at the moment of unshare: it must come after the child joined its cgroup.
	cloneFlags := c.newFlags &^ (NewCgroup | NewTime)
	inside := c.newFlags & NewCgroup
	if c.newFlags&NewUser != 0 {
		// The file system of its message queues belongs to the process that makes an IPC namespace: the user namespace's root.
		inside |= c.newFlags & NewIPC
		cloneFlags &^= NewIPC
	}
	cgroups := placed(c.host)
	for i, name := range c.host.Cgroups {
		cgroups = append(cgroups, JoinCgroup{Name: name, Index: i})
	}
	joins := c.joins()
	// An intermediate process is needed where what the child creates must belong to a joined user namespace, where only
	// children enter (pid), and where the child, in its new user namespace, would lack the right to join.
	outer := c.joined["user"] != "" || c.joined["pid"] != "" || len(joins) > 0 && c.newFlags&NewUser != 0
	var newTime []Op
	if c.newFlags&NewTime != 0 {
		newTime = []Op{NewTimeNamespace{c.linux.TimeOffsets}}
	}
	if c.buildsAside() {
		c.enterAside(cgroups, newTime, joins, cloneFlags|inside)
		return nil
	}
	if outer {
		// The time namespace comes where the right to make it is: before root of the host gives it up, after others get it.
		if c.host.Rootless {
			joins = append(joins, newTime...)
		} else {
			joins = append(newTime, joins...)
		}
		c.plan.Outer = append(append(cgroups, joins...), CloneChild{Flags: cloneFlags})
	} else {
		c.plan.Flags = cloneFlags
		c.add(cgroups...)
	}
	if c.newFlags&NewUser != 0 {
		c.plan.Beside = append(c.plan.Beside, MapIDs{UID: c.linux.UIDMappings, GID: c.linux.GIDMappings, Helper: c.host.IDMapHelpers})
		c.add(Wait{"the id mappings are written"}, c.becomeRoot())
	}
	if !outer {
		c.add(newTime...)
		c.add(joins...)
	}
	if inside != 0 {
		c.add(Unshare{inside})
	}
	return nil
}

// placed is the wait of a clone that the parent moves.
func placed(host *Host) []Op {
	if host.Placed {
		return []Op{Wait{"the process is in its cgroup"}}
	}
	return nil
}

// becomeRoot takes the ids of a user namespace that was just entered.
func (c *compiler) becomeRoot() Op {
	return BecomeRoot{KeepGroups: c.host.Rootless && !c.host.IDMapHelpers}
}

// joins lists the namespaces to join by path. Root of the host joins the user namespace last: it has rights over all of them,
// whoever owns them, and in the user namespace only over those that belong to it. Others have no rights before.
func (c *compiler) joins() []Op {
	var first, last []Op
	for _, t := range joinOrder {
		p := c.joined[string(t)]
		switch op := (Join{Type: string(t), Flag: NamespaceFlag(t), Path: p}); {
		case p == "":
		case t != specs.UserNamespace:
			last = append(last, op)
		case c.host.Rootless:
			first = append(first, op, c.becomeRoot())
		}
	}
	if p := c.joined["user"]; p != "" && !c.host.Rootless {
		last = append(last, Join{Type: "user", Flag: NewUser, Path: p}, c.becomeRoot())
	}
	return append(first, last...)
}

// detached reports whether the container stays in the host's mount namespace. Its root and its mounts are a tree then
// that is attached nowhere, changes nothing of the host and ends with the last process in it.
func (c *compiler) detached() bool { return !c.has(specs.MountNamespace) }

// rootfs opens the root and sets how mounts propagate.
func (c *compiler) rootfs() error {
	if c.spec.Root == nil {
		return fmt.Errorf("root: root must be specified")
	}
	flags, err := propagationFlags(c.linux.RootfsPropagation)
	if err != nil {
		return err
	}
	root, bundle := c.spec.Root.Path, ""
	if !path.IsAbs(root) {
		root, bundle = path.Join(c.host.Bundle, root), c.host.Bundle
		if !strings.HasPrefix(root, strings.TrimSuffix(bundle, "/")+"/") {
			bundle = "" // "..": it leaves the bundle by its own words
		}
	}
	if c.detached() {
		c.add(Root{Path: path.Clean(root), Bundle: bundle, Detached: true})
		return nil
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
	c.add(Root{Path: path.Clean(root), Bundle: bundle})
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
		file, err := spec.SysctlPath(key)
		if err != nil {
			return fmt.Errorf("linux.sysctl: %w", err)
		}
		c.add(Sysctl{Key: key, Path: file, Value: c.linux.Sysctl[key]})
	}
	return nil
}

// finishRoot makes the new root the root and closes what must be closed.
func (c *compiler) finishRoot() error {
	if c.host.Rootless && (c.opts.Hooks || c.opts.WaitStart) {
		flags := c.newFlags
		for t := range c.joined {
			flags |= NamespaceFlag(specs.LinuxNamespaceType(t))
		}
		c.add(HoldNamespaces{flags})
	}
	if c.opts.Hooks {
		c.add(Tell{StageMounts}, Wait{"the hooks of create have run"})
	}
	flags, err := propagationFlags(c.linux.RootfsPropagation)
	if err != nil {
		return err
	}
	if err := c.covers(); err != nil {
		return err
	}
	if c.spec.Root.Readonly || c.rootRO {
		c.add(RootReadOnly{})
	}
	if c.opts.NoPivot {
		// They lie below the new root and are not detached with the old one: as long as one is whole, the kernel lets any process
		// that makes a user and a pid namespace mount another one without the masks (mount_too_revealing).
		for _, p := range c.host.ProcMounts {
			c.add(HideMount{p})
		}
	}
	if c.detached() {
		c.add(EnterRoot{})
		return nil
	}
	c.add(Pivot{Chroot: c.opts.NoPivot})
	if flags != 0 {
		c.add(RootPropagation{flags})
	}
	return nil
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
