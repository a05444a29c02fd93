package plan

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// NewSession makes the process a session leader.
type NewSession struct{}

// What implements Op.
func (o NewSession) What() string { return "start a session" }

// UseTerminal makes the open terminal the standard streams.
type UseTerminal struct{}

// What implements Op.
func (o UseTerminal) What() string { return "make the terminal the standard streams" }

// ControlTerminal makes the terminal on the standard streams the controlling one of the new session.
type ControlTerminal struct{}

// What implements Op.
func (o ControlTerminal) What() string { return "make the terminal the controlling one" }

// Keyring joins a new session keyring.
type Keyring struct{ Name string }

// What implements Op.
func (o Keyring) What() string { return "join session keyring " + o.Name }

// Scheduler is process.scheduler for sched_setattr(2).
type Scheduler struct {
	Policy   uint32
	Flags    uint64
	Nice     int32
	Priority uint32
	// Runtime, Deadline and Period are in nanoseconds.
	Runtime, Deadline, Period uint64
}

// What implements Op.
func (o Scheduler) What() string { return "set the scheduling policy" }

// IOPriority is process.ioPriority.
type IOPriority struct{ Class, Priority int }

// What implements Op.
func (o IOPriority) What() string { return fmt.Sprintf("set I/O priority %d:%d", o.Class, o.Priority) }

// Affinity sets the CPUs that the process may run on.
type Affinity struct {
	CPUs string // for people
	Mask []byte // bit n%8 of byte n/8 is CPU n
}

// What implements Op.
func (o Affinity) What() string { return "set CPU affinity " + o.CPUs }

// MemoryPolicy is linux.memoryPolicy.
type MemoryPolicy struct {
	Mode  uint64 // MPOL_* with its MPOL_F_* flags
	Nodes []byte // node mask, little bit first
}

// What implements Op.
func (o MemoryPolicy) What() string { return "set the memory policy" }

// Personality is linux.personality.
type Personality struct{ Domain uint64 }

// What implements Op.
func (o Personality) What() string { return "set the personality" }

// NoNewPrivileges sets no_new_privs.
type NoNewPrivileges struct{}

// What implements Op.
func (o NoNewPrivileges) What() string { return "set no_new_privs" }

// Label writes an attribute of the security module in use to /proc/self/attr.
type Label struct {
	Module string // "apparmor" or "selinux"
	File   string // below /proc/thread-self
	Value  string
	// HostProc writes by the runtime's own /proc: a process that is not in the container's pid namespace yet cannot mount one.
	HostProc bool
}

// What implements Op.
func (o Label) What() string { return "set " + o.Module + " label " + o.Value }

// Seccomp loads a filter.
type Seccomp struct {
	Program []byte // struct sock_filter, in the machine's byte order
	Flags   uint32
	Notify  bool
}

// What implements Op.
func (o Seccomp) What() string {
	return fmt.Sprintf("load the seccomp filter (%d instructions)", len(o.Program)/8)
}

// BoundingSet drops every capability that is not in Keep from the bounding set.
type BoundingSet struct {
	Keep uint64
	Last int // the kernel's last capability
}

// What implements Op.
func (o BoundingSet) What() string { return "limit the capability bounding set" }

// SetUser sets groups, gid and uid while capabilities are kept for the next step.
type SetUser struct {
	UID, GID   uint32
	Groups     []uint32
	SkipGroups bool // the user namespace denies setgroups(2)
}

// What implements Op.
func (o SetUser) What() string { return fmt.Sprintf("become user %d:%d", o.UID, o.GID) }

// Capabilities sets the thread's sets.
type Capabilities struct{ Effective, Permitted, Inheritable, Ambient uint64 }

// What implements Op.
func (o Capabilities) What() string { return "set capabilities" }

// DropAdmin gives up CAP_SYS_ADMIN, which was kept for loading the filter: the sets are the process's own then.
type DropAdmin struct{ Effective, Permitted, Inheritable uint64 }

// What implements Op.
func (o DropAdmin) What() string { return "give up the capability to load filters" }

// Umask sets the file mode creation mask.
type Umask struct{ Mask uint32 }

// What implements Op.
func (o Umask) What() string { return fmt.Sprintf("set umask %04o", o.Mask) }

// CallerUmask gives back the file mode creation mask with which the runtime was started.
type CallerUmask struct{}

// What implements Op.
func (o CallerUmask) What() string { return "set the umask of the runtime's caller" }

// HoldNamespaces opens the namespaces of the child, for processes that join them before the program runs. Until then the kernel lets
// only root look at what a process that hides its memory (PR_SET_DUMPABLE) has in /proc: a user who is not root joins by these
// descriptors, which the child gives out to who holds its socket.
type HoldNamespaces struct{ Flags uint64 }

// What implements Op.
func (o HoldNamespaces) What() string { return "hold the container's namespaces" }

// OwnStdio gives the standard streams to the process's user: pipes and sockets, and the container's own terminal. What else there
// is belongs to the runtime's caller and is left alone.
type OwnStdio struct {
	UID, GID uint32
	Terminal bool // the streams are a terminal of the container's
}

// What implements Op.
func (o OwnStdio) What() string { return fmt.Sprintf("give the standard streams to %d", o.UID) }

// Chdir changes to the process's working directory and checks that it lies inside the root.
type Chdir struct {
	Path string
	// Try: a directory that the present user may not enter is left to the next Chdir.
	Try bool
}

// What implements Op.
func (o Chdir) What() string { return "change to working directory " + o.Path }

// CloseOnExec marks every descriptor from First on, so that only the standard streams and passed ones reach the program.
type CloseOnExec struct{ First int }

// What implements Op.
func (o CloseOnExec) What() string { return fmt.Sprintf("close descriptors from %d on", o.First) }

// FindProgram finds the file to run before anybody waits for start.
type FindProgram struct {
	Arg   string
	Paths []string // to try, in order
}

// What implements Op.
func (o FindProgram) What() string { return "find program " + o.Arg }

// WaitStart releases what is not needed any more and sleeps until somebody starts the container.
type WaitStart struct{}

// What implements Op.
func (o WaitStart) What() string { return "wait for start" }

// Exec replaces the child by the user's program.
type Exec struct {
	Args []string
	Env  []string
	Path string // the file, when no FindProgram precedes
}

// What implements Op.
func (o Exec) What() string {
	if len(o.Args) == 0 {
		return "exec " + o.Path
	}
	return "exec " + strings.Join(o.Args[:1], " ")
}

// capSet turns capability names to a bit set and returns the names that the kernel does not know.
func capSet(names []string, number func(string) (int, bool), last int) (set uint64, unknown []string) {
	for _, name := range names {
		n, ok := number(name)
		if !ok || n > last {
			unknown = append(unknown, name)
			continue
		}
		set |= 1 << n
	}
	return set, unknown
}

// mappingsOf is a copy-free view for people of how many ids are mapped.
func mappedID(id uint32, maps []specs.LinuxIDMapping) (host uint32, ok bool) {
	for _, m := range maps {
		if id >= m.ContainerID && uint64(id) < uint64(m.ContainerID)+uint64(m.Size) {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return 0, false
}

// AllCPUs is the CPUs text of an Affinity that undoes what the runtime's own caller set: the cpuset decides then.
const AllCPUs = "of all CPUs"
