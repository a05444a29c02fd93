// Package plan compiles a container's configuration into the list of kernel operations that build it.
//
// Compile and CompileExec are pure functions: they make no system call and read nothing but their arguments, so that one machine
// tests the plans of every host. What they return is data: runtime/launch lowers it to system calls and runs it, tests look
// at it, and people read it with `tare-runtime plan`.
//
//	config.json ──► *specs.Spec ──► Compile(spec, host) ──► *Plan ──► launch
package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Op is one step of a plan: plain data that says what is to be done and, by What, what it is for.
type Op interface {
	// What says what the step does, as the start of an error sentence: "mount proc on /proc".
	What() string
}

// Plan is everything that turns a fresh clone of the runtime into the container's process.
type Plan struct {
	// Thread runs in the parent before the clone: what the child can no longer do once it is in its namespaces. It
	// changes no namespace of the parent.
	Thread []Op
	// Helper runs beside the child, in a process with the runtime's rights that joins the child's mount namespace and does a step
	// each time the child asks: it opens what the root of a user namespace may not reach, as the child's own namespace has it.
	Helper []Op
	// Outer, when not empty, runs in an intermediate process that clones the child at the end: needed where the child's
	// namespaces must belong to a user namespace that is joined, where a pid namespace is joined, which only children enter,
	// and when a time namespace needs its offsets first.
	Outer []Op
	// Flags are the CLONE_NEW* flags with which the child is cloned.
	Flags uint64
	// Beside is done by the parent while the child waits: id maps, limits, the oom score.
	Beside []Op
	// Child runs in the child and ends with Exec.
	Child []Op
	// Warnings are for the log: the specification asks for them, nothing fails.
	Warnings []string
}

// Has reports whether the child is cloned with all of flags.
func (p *Plan) Has(flags uint64) bool { return p.Flags&flags == flags }

// WriteText prints the plan for people, one step a line.
func (p *Plan) WriteText(w io.Writer) error {
	var b strings.Builder
	section := func(title string, ops []Op) {
		if len(ops) == 0 {
			return
		}
		fmt.Fprintf(&b, "%s\n", title)
		for i, op := range ops {
			fmt.Fprintf(&b, "%4d  %s\n", i, op.What())
		}
	}
	section("before the clone, in the runtime", p.Thread)
	section("in an intermediate process", p.Outer)
	fmt.Fprintf(&b, "clone the child with %s\n", FlagNames(p.Flags))
	section("in a helper in the child's mount namespace", p.Helper)
	section("beside the child, in the runtime", p.Beside)
	section("in the child", p.Child)
	for _, warning := range p.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", warning)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// jsonOp is how an Op is written as JSON: its kind, its sentence, its fields.
type jsonOp struct {
	Op   string `json:"op"`
	What string `json:"what"`
	Args Op     `json:"args"`
}

// MarshalJSON writes the plan for programs: lists of {op, what, args}.
func (p *Plan) MarshalJSON() ([]byte, error) {
	list := func(ops []Op) []jsonOp {
		out := make([]jsonOp, len(ops))
		for i, op := range ops {
			out[i] = jsonOp{Kind(op), op.What(), op}
		}
		return out
	}
	return json.Marshal(struct {
		Thread   []jsonOp `json:"thread"`
		Outer    []jsonOp `json:"outer"`
		Clone    string   `json:"clone"`
		Helper   []jsonOp `json:"helper"`
		Beside   []jsonOp `json:"beside"`
		Child    []jsonOp `json:"child"`
		Warnings []string `json:"warnings,omitempty"`
	}{list(p.Thread), list(p.Outer), FlagNames(p.Flags), list(p.Helper), list(p.Beside), list(p.Child), p.Warnings})
}

// Kind is the name of the op's type, as in the JSON form.
func Kind(op Op) string { return reflect.TypeOf(op).Name() }

// Namespace flags of clone(2) and unshare(2).
const (
	NewTime   = 0x00000080
	NewMount  = 0x00020000
	NewCgroup = 0x02000000
	NewUTS    = 0x04000000
	NewIPC    = 0x08000000
	NewUser   = 0x10000000
	NewPID    = 0x20000000
	NewNet    = 0x40000000
)

// FlagNames writes namespace flags as "mount|pid", "nothing new" when there are none.
func FlagNames(flags uint64) string {
	var names []string
	for _, f := range []struct {
		flag uint64
		name string
	}{{NewUser, "user"}, {NewMount, "mount"}, {NewPID, "pid"}, {NewNet, "network"}, {NewIPC, "ipc"}, {NewUTS, "uts"},
		{NewCgroup, "cgroup"}, {NewTime, "time"}} {
		if flags&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	if len(names) == 0 {
		return "no new namespace"
	}
	return "new " + strings.Join(names, "|")
}
