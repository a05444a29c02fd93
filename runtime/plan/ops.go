package plan

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Wait lets the child sleep until the parent has done its part.
type Wait struct{ For string }

// What implements Op.
func (o Wait) What() string { return "wait until " + o.For }

// ForLimits is what the last wait before the user's program is for.
const ForLimits = "the limits are set"

// Tell reports a stage to the parent.
type Tell struct{ Stage Stage }

// What implements Op.
func (o Tell) What() string { return "tell the runtime that " + o.Stage.String() }

// Stage names a point of the child's way that the parent waits for.
type Stage int

// The stages in the order in which they are reached.
const (
	StageNamespaces Stage = iota + 1 // in its namespaces, maps not written yet
	StageMounts                      // mounts made, root not yet pivoted: hooks of create run now
	StageCreated                     // everything done but the user's program
)

// String says what is true at the stage.
func (s Stage) String() string {
	switch s {
	case StageNamespaces:
		return "the namespaces exist"
	case StageMounts:
		return "the mounts are made"
	case StageCreated:
		return "the container is created"
	}
	return fmt.Sprintf("stage %d is reached", int(s))
}

// JoinCgroup moves the child into the container's cgroup of one hierarchy.
type JoinCgroup struct {
	Name  string // of the hierarchy, for people
	Index int    // in the descriptors that the launcher is given
}

// What implements Op.
func (o JoinCgroup) What() string { return "join the " + o.Name + " cgroup" }

// Unshare makes new namespaces for the process that runs it.
type Unshare struct{ Flags uint64 }

// What implements Op.
func (o Unshare) What() string { return "unshare " + strings.TrimPrefix(FlagNames(o.Flags), "new ") }

// Join enters an existing namespace.
type Join struct {
	Type string // as in config.json
	Flag uint64
	Path string
}

// What implements Op.
func (o Join) What() string { return "join " + o.Type + " namespace " + o.Path }

// JoinProcess enters namespaces of a running process by its pidfd.
type JoinProcess struct{ Flags uint64 }

// What implements Op.
func (o JoinProcess) What() string {
	return "join the container's namespaces: " + strings.TrimPrefix(FlagNames(o.Flags), "new ")
}

// CloneChild is the last step of an intermediate process.
type CloneChild struct{ Flags uint64 }

// What implements Op.
func (o CloneChild) What() string { return "clone the child with " + FlagNames(o.Flags) }

// CloseAll closes all descriptors but the standard streams, Keep more after them, and the way to the runtime, and
// forgets the arguments and the environment of the runtime: the child appears among the processes of the container, and
// of those that share its pid namespace, and one that may trace it could take them (CVE-2016-9962).
type CloseAll struct {
	Keep   int
	Listen bool // the socket on which a container waits for start stays open too
	Forget bool // the runtime's memory too: a process of the container may read it
}

// What implements Op.
func (o CloseAll) What() string {
	if o.Forget {
		return "close the runtime's descriptors, forget its environment and memory"
	}
	return "close the runtime's descriptors and forget its environment"
}

// BecomeRoot takes uid and gid 0 of a user namespace that was just entered.
type BecomeRoot struct{ KeepGroups bool }

// What implements Op.
func (o BecomeRoot) What() string { return "become root of the user namespace" }

// NewTimeNamespace makes a time namespace, sets its offsets and enters it.
type NewTimeNamespace struct {
	Offsets map[string]specs.LinuxTimeOffset
}

// What implements Op.
func (o NewTimeNamespace) What() string {
	if len(o.Offsets) == 0 {
		return "enter a new time namespace"
	}
	return "enter a new time namespace with its offsets"
}

// MapIDs writes the child's uid_map and gid_map.
type MapIDs struct {
	UID, GID []specs.LinuxIDMapping
	Helper   bool // through newuidmap and newgidmap
}

// What implements Op.
func (o MapIDs) What() string { return "write the id mappings of the user namespace" }

// RaiseLimit raises a hard limit of the child, where it is lower: that takes CAP_SYS_RESOURCE, which the child may lack.
type RaiseLimit struct {
	Type   string
	Number int
	Hard   uint64
}

// What implements Op.
func (o RaiseLimit) What() string {
	return fmt.Sprintf("raise the hard limit of %s to %d", o.Type, o.Hard)
}

// Rlimit sets a resource limit of the process with prlimit(2), within the hard limit that it has.
type Rlimit struct {
	Type       string
	Number     int
	Soft, Hard uint64
}

// What implements Op.
func (o Rlimit) What() string { return fmt.Sprintf("set %s to %d:%d", o.Type, o.Soft, o.Hard) }

// OOMScore writes /proc/PID/oom_score_adj.
type OOMScore struct{ Score int }

// What implements Op.
func (o OOMScore) What() string { return fmt.Sprintf("set oom_score_adj to %d", o.Score) }

// Propagate changes the propagation of a mount by a path of the runtime's own, before the root is built.
type Propagate struct {
	Path  string
	Flags uint64 // MS_*
}

// What implements Op.
func (o Propagate) What() string { return "make " + o.Path + " " + propagationName(o.Flags) }

// Root makes the root file system a mount of its own and keeps it as the descriptor from which all else is resolved.
type Root struct {
	Path     string
	Bundle   string // Path lies below it, and no link of the bundle leads elsewhere; empty: Path is absolute in the configuration
	Detached bool   // it stays a tree of its own: the mount namespace is the host's
}

// What implements Op.
func (o Root) What() string { return "open root file system " + o.Path }

// Attr are attributes of a mount as mount_setattr(2) takes them.
type Attr struct {
	Set, Clear       uint64 // of the mount
	AtimeIf          uint64 // of a bind: the access time field changes only where it has this value; all bits: relatime; 0: whatever it has
	RecSet, RecClear uint64 // of the mount and all below it
	Propagation      []uint64
}

// Mount mounts a file system.
type Mount struct {
	Type, Source, Dest string
	At                 Place
	Data               []string // key=value or flag, in order
	Attr               Attr
	CopyUp             bool     // fill a tmpfs with what the destination holds
	TakeMode           bool     // a tmpfs without mode= takes the mode of the directory that it covers
	MayBindSys         bool     // sysfs that the kernel refuses (the network namespace is not of the user namespace) is bound from the host
	Name               string   // slot for a later Protect of this mount
	NoSymlink          bool     // the destination must not be reached through a link
	Joined             bool     // a procfs of the pid namespace that was joined for children
	Dirs               []string // directories to make in the new file system before it is attached
}

// What implements Op.
func (o Mount) What() string { return "mount " + o.Type + " on " + o.Dest }

// Bind mounts a piece of the host's tree.
type Bind struct {
	Source, Dest string
	At           Place
	In           string // name of the earlier mount whose root the destination is in; "": the root file system
	Recursive    bool
	Attr         Attr
	Helped       bool // the helper opens Source, as its next step; otherwise the child does
	Map          int  // 1 + index of the MapNamespace in Plan.Thread whose mappings the mount takes; 0: none
	MapRecursive bool // what is mounted below the source takes the mappings too
	NoSymlink    bool
}

// What implements Op.
func (o Bind) What() string { return "bind " + o.Source + " on " + o.Dest }

// Home sets HOME from the container's /etc/passwd, when the environment has none.
type Home struct{ UID uint32 }

// What implements Op.
func (o Home) What() string { return fmt.Sprintf("look up the home directory of user %d", o.UID) }

// OpenTree is the helper's half of a Bind: it clones the source in the container's mount namespace, where the flags that the
// host has set on the mount are locked, with its id mapping.
type OpenTree struct {
	Source       string
	Recursive    bool
	Map          int // as in Bind
	MapRecursive bool
}

// What implements Op.
func (o OpenTree) What() string {
	if o.Map > 0 {
		return "open " + o.Source + " with mapped ids"
	}
	return "open " + o.Source
}

// MapNamespace opens a user namespace whose mappings id-mapped mounts take: one that is made for it, or the one at Path.
type MapNamespace struct {
	UID, GID []specs.LinuxIDMapping
	Path     string
}

// What implements Op.
func (o MapNamespace) What() string {
	if o.Path != "" {
		return "open user namespace " + o.Path + " for its id mappings"
	}
	return "make a user namespace for id mappings"
}

// Remount changes an existing mount.
type Remount struct {
	Dest string
	At   Place
	Data []string
	Attr Attr
	Bind bool // the mount alone, not its file system
}

// What implements Op.
func (o Remount) What() string { return "remount " + o.Dest }

// Protect changes attributes of a mount made earlier, after something was put into it.
type Protect struct {
	Name string // of the earlier mount
	Dest string
	Set  uint64
	// FileSystem: the mount is in a detached root, where only its file system can be changed.
	FileSystem bool
}

// What implements Op.
func (o Protect) What() string { return "make " + o.Dest + " read-only" }

// OpenDev opens the directory in which the default devices and links are made: what the container mounted on /dev, or the /dev
// of its root file system. Where anything else is found, a bind of the host's for example, all that would be made there is left out.
type OpenDev struct{}

// What implements Op.
func (o OpenDev) What() string { return "open /dev" }

// StillThere checks that what was mounted on a directory is what the root file system has there now: other processes may rename
// what is in the root file system.
type StillThere struct{ At Place }

// What implements Op.
func (o StillThere) What() string {
	if o.At == OnSys {
		return "check that /sys is what was mounted there"
	}
	return "check that /proc is what was mounted there"
}

// Device makes a device node, or checks that the one that is there is the same.
type Device struct {
	Path         string
	Type         string // "c", "b", "p"
	Major, Minor int64
	Mode         uint32 // permission bits
	UID, GID     uint32
	Bind         bool // bind the host's node: mknod is not allowed in a user namespace
	Default      bool // not asked for by the configuration: what it mounted there stays
	Helped       bool // bind the node that the helper makes, as its next step
}

// What implements Op.
func (o Device) What() string { return "create device " + o.Path }

// MakeNode is the helper's half of a Device in a user namespace: a node on a file system of the runtime's user namespace, where it
// works, with the owner and mode that the configuration asks for.
type MakeNode struct {
	Path         string // of the device
	Type         string
	Major, Minor int64
	Mode         uint32
	UID, GID     uint32 // on the host
}

// What implements Op.
func (o MakeNode) What() string { return "make a node for device " + o.Path }

// Symlink makes a link, or leaves what is there.
type Symlink struct {
	Target, Path string
	In           string // name of the earlier mount that the link is made in; "": by its path
	Replace      bool   // remove a file that is in the way
	IfExists     string
}

// What implements Op.
func (o Symlink) What() string { return "link " + o.Path + " to " + o.Target }

// Terminal opens a pseudo terminal in the container's devpts and hands its master to the parent.
type Terminal struct {
	Width, Height uint16
	Console       bool // bind it on /dev/console
	OwnDev        bool // but not where /dev is bound: it would appear on the host, whose mounts are peers
}

// What implements Op.
func (o Terminal) What() string { return "open a terminal on /dev/pts" }

// Hostname sets the name of the UTS namespace.
type Hostname struct{ Name string }

// What implements Op.
func (o Hostname) What() string { return "set hostname " + o.Name }

// Domainname sets the NIS domain of the UTS namespace.
type Domainname struct{ Name string }

// What implements Op.
func (o Domainname) What() string { return "set domainname " + o.Name }

// Loopback sets lo up in a new network namespace, as runc and crun leave it to their callers' CNI otherwise.
type Loopback struct{}

// What implements Op.
func (o Loopback) What() string { return "set lo up" }

// Sysctl writes a file of /proc/sys.
type Sysctl struct{ Key, Path, Value string }

// What implements Op.
func (o Sysctl) What() string { return "set sysctl " + o.Key + "=" + o.Value }

// MakeCwd makes the directory in which the process starts, where it is missing.
type MakeCwd struct{ Path string }

// What implements Op.
func (o MakeCwd) What() string { return "make working directory " + o.Path }

// Mask hides a path: a file behind /dev/null, a directory behind an empty read-only tmpfs.
type Mask struct {
	Path string
	At   Place
}

// What implements Op.
func (o Mask) What() string { return "mask " + o.Path }

// ReadOnly makes a path read-only by a bind of itself.
type ReadOnly struct {
	Path string
	At   Place
}

// What implements Op.
func (o ReadOnly) What() string { return "make " + o.Path + " read-only" }

// RootReadOnly makes the root mount read-only.
type RootReadOnly struct{}

// What implements Op.
func (o RootReadOnly) What() string { return "make the root file system read-only" }

// HideMount takes a mount of the host out of a mount namespace whose root is not pivoted, or covers it where it is locked.
type HideMount struct{ Path string }

// What implements Op.
func (o HideMount) What() string { return "hide the host's " + o.Path }

// Pivot makes the new root the root and detaches the old one.
type Pivot struct{ Chroot bool }

// What implements Op.
func (o Pivot) What() string {
	if o.Chroot {
		return "move the root file system to / and chroot into it"
	}
	return "pivot into the root file system"
}

// EnterRoot makes the root file system the root of a process that stays in the host's mount namespace.
type EnterRoot struct{}

// What implements Op.
func (o EnterRoot) What() string { return "enter the root file system" }

// RootPropagation is linux.rootfsPropagation.
type RootPropagation struct{ Flags uint64 }

// What implements Op.
func (o RootPropagation) What() string { return "make / " + propagationName(o.Flags) }
