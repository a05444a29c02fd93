// Package rdt puts containers into classes of service of the processor's cache and memory bandwidth (Intel RDT, AMD QoS, Arm MPAM)
// through the resctrl file system: Documentation/filesystems/resctrl.rst of the kernel.
//
//	<resctrl>/                      the default class of service, closID "/"
//	  schemata                      a line per resource, such as "L3:0=ff;1=f0"
//	  tasks                         thread ids
//	  <closID>/                     a class of service, made by mkdir, with the same files
//	    mon_groups/<container id>/  a monitoring group, with tasks and mon_data
//	  info/last_cmd_status          why the kernel has refused the last write
//
// Only processors with these features have the file system, and no other file system can pass for it: Detect looks for its type in
// the mount table. So the package is tested against a directory in its place, whose files a replaced Mkdir makes, and no
// test from outside of the binary reaches it on a machine without resctrl.
package rdt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ErrNotMounted is Detect's error without a resctrl file system.
var ErrNotMounted = errors.New("no resctrl file system is mounted (the processor must have it: mount -t resctrl resctrl /sys/fs/resctrl)")

// FS is a resctrl file system.
type FS struct {
	Root string // its mount point
	// Mkdir and Rmdir make and remove a group with its files.
	Mkdir, Rmdir func(path string) error
}

// Detect finds the resctrl file system in the mount table. ErrNotMounted.
func Detect() (*FS, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	root, ok := findMount(string(table))
	if !ok {
		return nil, ErrNotMounted
	}
	return &FS{Root: root, Mkdir: func(path string) error { return os.Mkdir(path, 0o755) }, Rmdir: os.Remove}, nil
}

// findMount returns the mount point of type resctrl whose root is that of the file system.
func findMount(table string) (string, bool) {
	for line := range strings.Lines(table) {
		mount, super, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(mount), strings.Fields(super)
		if len(fields) > 4 && len(kind) > 0 && kind[0] == "resctrl" && fields[3] == "/" {
			return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4]), true
		}
	}
	return "", false
}

// Group is a container's class of service and monitoring group: what Join joins and Destroy removes. It is kept in the
// container's state.
type Group struct {
	Dir     string `json:"dir"`     // of the class of service
	Monitor string `json:"monitor"` // directory of the monitoring group; "": none
	// MadeDir and MadeMonitor say that the directory is made for this container, and did not exist before.
	MadeDir     bool `json:"madeDir"`
	MadeMonitor bool `json:"madeMonitor"`
	// Shared is a class of service that the configuration names: it outlives the container.
	Shared bool `json:"shared"`
}

// Plan says where a container with this configuration goes. It checks what can be checked without a change: that a class of service
// exists where the configuration sets none up, and that an existing one is as the configuration wants it.
func (f *FS) Plan(r *specs.LinuxIntelRdt, id string) (*Group, error) {
	g := &Group{Dir: filepath.Join(f.Root, id), Shared: r.ClosID != ""}
	switch r.ClosID {
	case "":
	case "/":
		g.Dir = f.Root
	default:
		g.Dir = filepath.Join(f.Root, r.ClosID)
	}
	lines := schemata(r)
	switch _, err := os.Stat(filepath.Join(g.Dir, "tasks")); {
	case err == nil:
		if err := f.compare(g, lines); err != nil {
			return nil, err
		}
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("find class of service: %w", err)
	default:
		if _, err := os.Lstat(g.Dir); err == nil {
			return nil, fmt.Errorf("%s is not a class of service", g.Dir)
		}
		if g.Shared && len(lines) == 0 {
			return nil, fmt.Errorf("the class of service %q does not exist, and the configuration has no schema to make it with", r.ClosID)
		}
		g.MadeDir = true
	}
	if r.EnableMonitoring {
		g.Monitor = filepath.Join(g.Dir, "mon_groups", id)
		_, err := os.Lstat(g.Monitor)
		g.MadeMonitor = err != nil
	}
	return g, nil
}

// Create makes what is missing of g and writes the schemata of a class of service that is new. After an error Undo removes what
// was made.
func (f *FS) Create(g *Group, r *specs.LinuxIntelRdt) error {
	if g.MadeDir {
		if err := f.Mkdir(g.Dir); err != nil {
			return fmt.Errorf("make class of service: %w%s", err, f.reason())
		}
		if err := f.write(g, schemata(r)); err != nil {
			return err
		}
	}
	if g.MadeMonitor {
		if err := f.Mkdir(g.Monitor); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make monitoring group: %w%s", err, f.reason())
		}
	}
	return nil
}

// Join puts a thread into the group. Its children, made later, are in it too. A nil group is none. ESRCH: the thread has ended.
func (f *FS) Join(g *Group, tid int) error {
	if g == nil {
		return nil
	}
	for _, dir := range []string{g.Dir, g.Monitor} { // a change of the class ends the membership of a monitoring group
		if dir == "" {
			continue
		}
		if err := writeFile(filepath.Join(dir, "tasks"), strconv.Itoa(tid)); err != nil {
			return fmt.Errorf("join class of service: %w%s", err, f.reason())
		}
	}
	return nil
}

// Destroy removes what was made for the container when it was created. A class of service that the configuration names
// stays, except when create did not succeed.
func (f *FS) Destroy(g *Group, created bool) error {
	if g.MadeMonitor {
		if err := f.remove(g.Monitor); err != nil {
			return fmt.Errorf("remove monitoring group: %w", err)
		}
	}
	if g.MadeDir && (!g.Shared || !created) {
		if err := f.remove(g.Dir); err != nil {
			return fmt.Errorf("remove class of service: %w", err)
		}
	}
	return nil
}

func (f *FS) remove(dir string) error {
	if err := f.Rmdir(dir); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Update changes the schemata of the group's class of service, which other containers may share. The function that it returns changes
// them back.
func (f *FS) Update(g *Group, r *specs.LinuxIntelRdt) (undo func() error, err error) {
	lines := schemata(r)
	old, err := f.read(g)
	if err != nil {
		return nil, err
	}
	var before []string
	for _, l := range old {
		for _, want := range lines {
			if resource(l) == resource(want) {
				before = append(before, l)
				break
			}
		}
	}
	if err := f.write(g, lines); err != nil {
		return nil, err
	}
	return func() error { return f.write(g, before) }, nil
}

// writeFile writes an existing file with one write(2), as the kernel's file systems want it.
func writeFile(path, text string) error {
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = w.WriteString(text)
	if e := w.Close(); err == nil {
		err = e
	}
	return err
}

// reason is the kernel's explanation of its last refusal, as the end of an error sentence.
func (f *FS) reason() string {
	data, err := os.ReadFile(filepath.Join(f.Root, "info", "last_cmd_status"))
	text := strings.TrimSpace(string(data))
	if err != nil || text == "" || text == "ok" {
		return ""
	}
	return " (" + strings.ReplaceAll(text, "\n", "; ") + ")"
}
