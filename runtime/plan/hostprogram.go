package plan

import "strconv"

// KeepOpen lets the program that is executed have descriptor Index of those that the launcher is given, under its number.
type KeepOpen struct{ Index int }

// What implements Op.
func (o KeepOpen) What() string { return "pass descriptor " + strconv.Itoa(o.Index) + " on" }

// HostRoot makes the root of the mount namespace that the process is in the one from which all later is resolved.
type HostRoot struct{}

// What implements Op.
func (o HostRoot) What() string { return "open the host's root" }

// CloneMount clones the mount at Path in the mount namespace of the process to join and attaches it at Dest below the root. No
// component of Path may be a link.
type CloneMount struct {
	Path, Dest string
	Own        bool // Path is a file or directory in the present mount namespace
}

// What implements Op.
func (o CloneMount) What() string {
	if o.Own {
		return "bind " + o.Path + " on " + o.Dest
	}
	return "clone the container's mount on " + o.Path
}

// PrivateTmp covers /tmp by an empty tmpfs and attaches what is mounted on the root, if there is one yet, at its directory PrivateDir:
// to be reached by its path whoever comes, and to leave nothing on the host.
type PrivateTmp struct{ Root bool }

// What implements Op.
func (o PrivateTmp) What() string { return "mount a tmpfs on /tmp" }

// PrivateDir is where PrivateTmp puts the root.
const PrivateDir = "/tmp/tare"

// HostProgram says how a program that works on a container from outside is to be run: criu.
type HostProgram struct {
	Args    []string // the first one is the file, an absolute path
	Env     []string
	Cgroups []string // hierarchies that it joins, in the order of the descriptors given to the launcher
	Unshare uint64   // further new namespaces, made after the cgroups were joined
	Keep    int      // descriptors that it has besides the standard streams
	Umask   uint32
	Dir     string // absolute: where Mounts are attached, PrivateDir for the program; empty without them
	Mounts  []CloneMount
	// NoNewPrivs is inherited by what the program makes. A privileged program loses nothing by it.
	NoNewPrivs bool
}

// CompileHostProgram returns the plan for a program in a mount namespace of its own, which starts as the runtime's, with / as its
// working directory. What it mounts does not reach the host.
func CompileHostProgram(h HostProgram) *Plan {
	p := &Plan{Flags: NewMount}
	add := func(ops ...Op) { p.Child = append(p.Child, ops...) }
	for i, name := range h.Cgroups {
		add(JoinCgroup{Name: name, Index: i})
	}
	if h.Unshare != 0 {
		add(Unshare{h.Unshare})
	}
	add(Propagate{"/", msSlave | msRec})
	if h.Dir != "" {
		add(Root{Path: h.Dir})
	}
	for _, m := range h.Mounts {
		add(m)
	}
	add(PrivateTmp{Root: h.Dir != ""}, HostRoot{}, Chdir{Path: "/"}, Umask{h.Umask}, CloseOnExec{3})
	for i := range h.Keep {
		add(KeepOpen{i})
	}
	if h.NoNewPrivs {
		add(NoNewPrivileges{})
	}
	add(Wait{"the program may begin"}, Exec{Path: h.Args[0], Args: h.Args, Env: h.Env})
	return p
}
