package cgroup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/jsonw"
	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// Group is a container's place in every hierarchy. It is plain data for the container's state file: after Create it
// also says which directories this runtime made, and only those are ever removed. A Group is used by one goroutine at a
// time.
type Group struct {
	Mode Mode  `json:"mode"`
	Dirs []Dir `json:"dirs"`
	Unit *Unit `json:"unit,omitempty"` // nil: the group is not systemd's
}

// Dir is the group's directory in one hierarchy.
type Dir struct {
	Hierarchy
	// Path of the group, absolute and clean, relative to the mount point.
	Path string `json:"path"`
	// Made are the directories made by Create, relative to the mount point, outermost first.
	Made []string `json:"made,omitempty"`
}

// dir is the absolute path of the group's directory.
func (d *Dir) dir() string { return path.Join(d.MountPoint, d.Path) }

// file is the absolute path of a control file. name comes from this package, or from a checked key of `unified`.
func (d *Dir) file(name string) string { return d.MountPoint + path.Join("/", d.Path, name) }

// own tells whether Create made the directory itself, not only parents.
func (d *Dir) own() bool { return slices.Contains(d.Made, d.Path) }

// maxPath is the longest cgroupsPath that is taken: PATH_MAX without room for mount point and file names.
const maxPath = 3500

// Plan says where cgroupsPath (linux.cgroupsPath) leads in every hierarchy, for container id; it touches nothing. An
// absolute path is relative to the mount point, a relative one to the caller's own group on version 1 and to the mount
// point on cgroup2, an empty one stands for the id. The path is cleaned first, so ".." never leaves its base.
func (h *Host) Plan(cgroupsPath, id string) (*Group, error) {
	if cgroupsPath == "" {
		cgroupsPath = id
	}
	clean := path.Clean("/" + cgroupsPath)
	switch {
	case clean == "/":
		return nil, fmt.Errorf("linux.cgroupsPath %q is the root cgroup: %w", short(cgroupsPath), syscall.EINVAL)
	case len(clean) > maxPath:
		return nil, fmt.Errorf("linux.cgroupsPath of %d bytes: %w", len(clean), syscall.ENAMETOOLONG)
	case strings.ContainsAny(clean, "\x00\n"):
		return nil, fmt.Errorf("linux.cgroupsPath %q: %w", short(cgroupsPath), syscall.EINVAL)
	}
	g := &Group{Mode: h.Mode}
	for _, hi := range h.Hierarchies {
		p := clean
		if !strings.HasPrefix(cgroupsPath, "/") && !hi.Unified {
			p = path.Join(hi.OwnPath, clean)
		}
		g.Dirs = append(g.Dirs, Dir{Hierarchy: hi, Path: p})
	}
	return g, nil
}

// AppendJSON appends the group as encoding/json would write it.
func (g *Group) AppendJSON(b []byte) []byte {
	b = jsonw.Text(append(b, '{'), "mode", string(g.Mode))
	b = append(jsonw.Key(b, "dirs"), '[')
	for i := range g.Dirs {
		d := &g.Dirs[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		b = jsonw.Strings(jsonw.Key(b, "controllers"), d.Controllers)
		b = jsonw.Text(b, "name", d.Name)
		b = jsonw.Bool(b, "unified", d.Unified)
		b = jsonw.Text(b, "mountPoint", d.MountPoint)
		b = jsonw.Text(b, "ownPath", d.OwnPath)
		b = jsonw.Text(b, "path", d.Path)
		b = append(jsonw.Strings(jsonw.Key(b, "made"), d.Made), '}')
	}
	b = append(b, ']')
	if u := g.Unit; u != nil {
		b = append(jsonw.Key(b, "unit"), '{')
		b = jsonw.Text(b, "name", u.Name)
		b = jsonw.Bool(b, "user", u.User)
		b = append(jsonw.Uint(b, "id", u.ID), '}')
	}
	return append(b, '}')
}

// find returns the directory whose hierarchy carries a controller, or nil.
func (g *Group) find(controller string) *Dir {
	for i := range g.Dirs {
		if slices.Contains(g.Dirs[i].Controllers, controller) {
			return &g.Dirs[i]
		}
	}
	return nil
}

// unified returns the cgroup2 directory, or nil.
func (g *Group) unified() *Dir {
	if n := len(g.Dirs); n > 0 && g.Dirs[n-1].Unified {
		return &g.Dirs[n-1]
	}
	return nil
}

// Create makes the group in every hierarchy. A group that exists is taken over if it holds no process and is not frozen
// (else ErrUnfit). On cgroup2 the controllers that are available are enabled down to the group, on version 1 an empty
// cpuset gets its parent's processors and memory nodes. res tells which controllers must be there; it may be nil. On
// error everything that Create made is removed again. A lack of rights is ErrNotPermitted. What is systemd's of a unit is left to Started.
func (g *Group) Create(res *specs.LinuxResources) error {
	settings, err := g.compile(res)
	if err != nil {
		return err
	}
	needs := g.needed(settings)
	for i := range g.Dirs {
		if g.Managed(&g.Dirs[i]) {
			continue
		}
		if err := create(&g.Dirs[i], needs); err != nil {
			g.undo()
			return err
		}
	}
	return nil
}

// Claim returns the part of the group that does not exist yet, as if Create had made it. A state that keeps it before Create is
// called can undo a Create that was cut short, and never touches the group of somebody else.
func (g *Group) Claim() *Group {
	claim := &Group{Mode: g.Mode, Unit: g.Unit}
	for _, d := range g.Dirs {
		d.Made = nil
		if g.Managed(&d) {
			claim.Dirs = append(claim.Dirs, d)
			continue
		}
		for p := d.Path; p != "/" && !cgroupfs.IsDir(d.MountPoint+p); p = path.Dir(p) {
			d.Made = append(d.Made, p)
		}
		if len(d.Made) > 0 {
			slices.Reverse(d.Made)
			claim.Dirs = append(claim.Dirs, d)
		}
	}
	return claim
}

func create(d *Dir, needs []need) error {
	if err := d.mkdirAll(); err != nil {
		return err
	}
	if !d.own() {
		if err := d.fit(); err != nil {
			return err
		}
	}
	if err := d.refuseFrozen(); err != nil {
		return err
	}
	if d.Unified {
		return d.enable(needs, false)
	}
	if slices.Contains(d.Controllers, "cpuset") {
		return d.inheritCpuset()
	}
	return nil
}

// undo removes what Create made. The directories are empty, so an error here can only mean that someone else uses them.
func (g *Group) undo() {
	for i := range g.Dirs {
		d := &g.Dirs[i]
		for _, p := range slices.Backward(d.Made) {
			_ = cgroupfs.Rmdir(d.MountPoint + p)
		}
		d.Made = nil
	}
}

// mkdirAll makes the directory and its missing parents. A parent that another container removes at the same moment is
// made again.
func (d *Dir) mkdirAll() error {
	for try := 0; ; try++ {
		err := d.mkdirs(d.Path)
		if err == nil {
			return nil
		}
		if err != syscall.ENOENT || try == 10 {
			return &fileError{op: "mkdir", path: d.dir(), hint: hintMkdir(d, err), err: err}
		}
		d.Made = nil
	}
}

func (d *Dir) mkdirs(p string) error {
	err := cgroupfs.Mkdir(d.MountPoint + p)
	if parent := path.Dir(p); err == syscall.ENOENT && parent != "/" {
		if err = d.mkdirs(parent); err != nil {
			return err
		}
		err = cgroupfs.Mkdir(d.MountPoint + p)
	}
	switch err {
	case nil:
		d.Made = append(d.Made, p)
	case syscall.EEXIST:
		if !cgroupfs.IsDir(d.MountPoint + p) {
			return syscall.ENOTDIR // the name of a control file
		}
		return nil
	}
	return err
}

func hintMkdir(d *Dir, err error) string {
	switch err {
	case syscall.EAGAIN:
		return "cgroup.max.descendants or cgroup.max.depth of a parent is reached"
	case syscall.EROFS, syscall.EACCES, syscall.EPERM:
		return "the cgroup hierarchy is not delegated to this user"
	case syscall.ENOTDIR:
		return "linux.cgroupsPath leads through a control file"
	}
	return ""
}

// fit refuses a directory that was there before if it holds processes.
func (d *Dir) fit() error {
	pids, err := d.allProcs()
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return fmt.Errorf("container's cgroup is not empty: %d process(es) found in %s, the first is %d: %w", len(pids), d.dir(), pids[0], ErrUnfit)
	}
	return nil
}

// inheritCpuset fills in cpuset.cpus and cpuset.mems from the nearest parent that has them; a version 1 cpuset without
// them takes no process (cgroup-v1/cpusets.rst). Only directories of the group's own path that are empty are written.
func (d *Dir) inheritCpuset() error {
	for _, name := range [...]string{"cpuset.cpus", "cpuset.mems"} {
		if _, err := d.fillCpuset(d.Path, name); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) fillCpuset(p, name string) (string, error) {
	file := d.MountPoint + path.Join(p, name)
	b, err := cgroupfs.ReadFile(file, maxControlFile)
	if err != nil {
		return "", &fileError{op: "read", path: file, err: err}
	}
	v := strings.TrimSpace(string(b))
	if v != "" || p == "/" {
		return v, nil
	}
	v, err = d.fillCpuset(path.Dir(p), name)
	if err != nil {
		return "", err
	}
	if _, err := cgroupfs.WriteFile(file, v); err != nil {
		return "", &fileError{op: "write", path: file, value: v, err: err}
	}
	return v, nil
}

// enable switches controllers on from the mount's root down to the group's parent: all that are available, as a
// container may hand them on, but only a missing one of needs is an error. Below systemd, which does that itself, only needs are.
func (d *Dir) enable(needs []need, only bool) error {
	dirs := []string{"/"}
	for i, c := range d.Path {
		if c == '/' && i > 0 {
			dirs = append(dirs, d.Path[:i])
		}
	}
	for _, p := range dirs {
		if err := d.enableIn(p, needs, only); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) enableIn(p string, needs []need, only bool) error {
	base := d.MountPoint + path.Join("/", p)
	b, err := cgroupfs.ReadFile(path.Join(base, "cgroup.controllers"), 4096)
	if err != nil {
		return &fileError{op: "read", path: path.Join(base, "cgroup.controllers"), err: err}
	}
	available := strings.Fields(string(b))
	for _, n := range needs {
		if !slices.Contains(available, n.controller) {
			return fmt.Errorf("set %s: controller %s is not in %s/cgroup.controllers: %w",
				n.prop, n.controller, base, errors.ErrUnsupported)
		}
	}
	file := path.Join(base, "cgroup.subtree_control")
	b, err = cgroupfs.ReadFile(file, 4096)
	if err != nil {
		return &fileError{op: "read", path: file, err: err}
	}
	have := strings.Fields(string(b))
	missing := slices.DeleteFunc(available, func(c string) bool {
		return slices.Contains(have, c) || only && !slices.ContainsFunc(needs, func(n need) bool { return n.controller == c })
	})
	if len(missing) == 0 {
		return nil
	}
	if _, err := cgroupfs.WriteFile(file, "+"+strings.Join(missing, " +")); err == nil {
		return nil
	}
	for _, c := range missing { // one of them may be refused: find out which, and whether it matters
		_, err := cgroupfs.WriteFile(file, "+"+c)
		i := slices.IndexFunc(needs, func(n need) bool { return n.controller == c })
		if err != nil && i >= 0 {
			return &fileError{op: "write", path: file, value: "+" + c, prop: needs[i].prop, hint: hintEnable(err), err: err}
		}
	}
	return nil
}

func hintEnable(err error) string {
	switch err {
	case syscall.EBUSY:
		return "a cgroup that hands controllers to its children may hold no processes itself"
	case syscall.EOPNOTSUPP:
		return "the cgroup is threaded, or holds a threaded one"
	case syscall.EINVAL:
		return "real-time processes outside of the root keep the cpu controller from being enabled"
	}
	return ""
}
