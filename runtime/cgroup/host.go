// Package cgroup makes, limits, watches and removes the control groups of a container through cgroupfs: versions 1 and
// 2 and the hybrid of both, for linux.cgroupsPath and linux.resources of the OCI runtime specification.
//
// Detect looks at the machine, Host.Plan says where a container's groups go, and Group does the rest. A Host and a
// Group are plain data. Which value goes into which file is decided by pure functions (compile*.go); a property that
// the host's controllers cannot honour is an error that names it.
//
// Kernel documents: Documentation/admin-guide/cgroup-v1/, Documentation/admin-guide/cgroup-v2.rst.
package cgroup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// Mode is the layout of a machine's cgroups.
type Mode string

// The layouts.
const (
	V1     Mode = "v1"     // version 1 hierarchies only
	Hybrid Mode = "hybrid" // version 1 hierarchies and a cgroup2 mount beside them
	V2     Mode = "v2"     // the unified hierarchy at /sys/fs/cgroup
)

// Hierarchy is one mounted hierarchy as this process sees it.
type Hierarchy struct {
	// Controllers of the hierarchy: "cpu", "memory" …; for cgroup2 those that its root offers. Empty for a named one.
	Controllers []string `json:"controllers,omitempty"`
	// Name of a named version 1 hierarchy ("systemd"), else empty.
	Name string `json:"name,omitempty"`
	// Unified is true for cgroup2.
	Unified bool `json:"unified,omitempty"`
	// MountPoint is an absolute path.
	MountPoint string `json:"mountPoint"`
	// OwnPath is the calling process's group, absolute, relative to the mount point ("/" is the mount's root).
	OwnPath string `json:"ownPath"`
}

// Label names the hierarchy for people and as a directory below /sys/fs/cgroup: "cpu,cpuacct", "systemd", "unified".
func (h *Hierarchy) Label() string {
	switch {
	case h.Unified:
		return "unified"
	case h.Name != "":
		return h.Name
	}
	return strings.Join(h.Controllers, ",")
}

// Host describes the mounted hierarchies: plain data, so that a plan can be compiled for another machine's.
type Host struct {
	Mode        Mode        `json:"mode"`
	Hierarchies []Hierarchy `json:"hierarchies"`
}

// ErrNoCgroups is returned by Detect when no hierarchy is mounted.
var ErrNoCgroups = errors.New("no cgroup hierarchy is mounted")

const maxProcFile = 4 << 20

// Detect finds the mounted hierarchies. The usual places below /sys/fs/cgroup cost a statfs(2) each and one read of
// /proc/self/cgroup; mountinfo is read only when one of them does not fit.
func Detect() (*Host, error) {
	return detect("/sys/fs/cgroup", readProc)
}

func readProc(name string) (string, error) {
	b, err := cgroupfs.ReadFile("/proc/self/"+name, maxProcFile)
	if err != nil {
		return "", fmt.Errorf("read /proc/self/%s: %w", name, err)
	}
	return string(b), nil
}

func detect(base string, proc func(string) (string, error)) (*Host, error) {
	own, err := proc("cgroup")
	if err != nil {
		return nil, err
	}
	h := &Host{Mode: V1}
	unifiedBase := cgroupfs.KindOf(base) == cgroupfs.KindV2
	var mounts []mount
	loaded := false
	for line := range strings.Lines(own) {
		hi, ok := parseOwn(strings.TrimSuffix(line, "\n"))
		if !ok || unifiedBase && !hi.Unified {
			continue
		}
		if !usualPlace(&hi, base, unifiedBase) {
			if !loaded {
				info, err := proc("mountinfo")
				if err != nil {
					return nil, err
				}
				mounts, loaded = parseMounts(info), true
			}
			if !findMount(&hi, mounts) {
				continue // an active hierarchy that is not mounted here: nothing to manage
			}
		}
		if hi.Unified {
			list, _ := cgroupfs.ReadFile(path.Join(hi.MountPoint, "cgroup.controllers"), 4096)
			hi.Controllers = strings.Fields(string(list))
		}
		h.Hierarchies = append(h.Hierarchies, hi)
	}
	return h.finish(unifiedBase)
}

// finish derives the mode and brings the hierarchies into a stable order: version 1 by label, cgroup2 last.
func (h *Host) finish(unifiedBase bool) (*Host, error) {
	if len(h.Hierarchies) == 0 {
		return nil, ErrNoCgroups
	}
	slices.SortFunc(h.Hierarchies, func(a, b Hierarchy) int {
		switch {
		case a.Unified:
			return 1
		case b.Unified:
			return -1
		}
		return strings.Compare(a.Label(), b.Label())
	})
	unified := h.Hierarchies[len(h.Hierarchies)-1].Unified
	switch {
	case unifiedBase || unified && len(h.Hierarchies) == 1:
		h.Mode = V2
	case unified:
		h.Mode = Hybrid
	}
	return h, nil
}

// parseOwn reads a line of /proc/self/cgroup: "4:memory:/path", "1:name=systemd:/", "0::/path" (cgroups(7)).
func parseOwn(line string) (Hierarchy, bool) {
	id, rest, ok := strings.Cut(line, ":")
	list, own, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 || !strings.HasPrefix(own, "/") {
		return Hierarchy{}, false
	}
	h := Hierarchy{OwnPath: own, Unified: id == "0" && list == ""}
	for c := range strings.SplitSeq(list, ",") {
		if name, named := strings.CutPrefix(c, "name="); named {
			h.Name = name
		} else if c != "" {
			h.Controllers = append(h.Controllers, c)
		}
	}
	return h, true
}

// usualPlace fills in the mount point if the hierarchy is where distributions mount it and the own path is visible
// there. A path with ".." or one that does not exist below the mount belongs to another root of the hierarchy.
func usualPlace(h *Hierarchy, base string, unifiedBase bool) bool {
	h.MountPoint = path.Join(base, h.Label())
	want := cgroupfs.KindV1
	if h.Unified {
		want = cgroupfs.KindV2
		if unifiedBase {
			h.MountPoint = base
		}
	}
	if cgroupfs.KindOf(h.MountPoint) != want {
		return false
	}
	return h.OwnPath == "/" || !strings.HasPrefix(h.OwnPath, "/..") && cgroupfs.IsDir(h.MountPoint+h.OwnPath)
}

// mount is a cgroup mount of /proc/self/mountinfo.
type mount struct {
	root, point string
	unified     bool
	options     []string // super block options: controllers and name=
}

func parseMounts(info string) []mount {
	var out []mount
	for line := range strings.Lines(info) {
		left, right, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 3 || r[0] != "cgroup" && r[0] != "cgroup2" {
			continue
		}
		out = append(out, mount{
			root: unescape(l[3]), point: unescape(l[4]),
			unified: r[0] == "cgroup2", options: strings.Split(r[2], ","),
		})
	}
	return out
}

// unescape undoes the octal escapes of mountinfo (space, tab, newline, backslash).
func unescape(s string) string {
	for _, e := range [...][2]string{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, e[0], e[1])
	}
	return s
}

func findMount(h *Hierarchy, mounts []mount) bool {
	for _, m := range mounts {
		if m.unified != h.Unified || !m.carries(h) {
			continue
		}
		h.MountPoint = m.point
		h.OwnPath = below(m.root, h.OwnPath)
		return true
	}
	return false
}

func (m *mount) carries(h *Hierarchy) bool {
	for _, c := range h.Controllers {
		if !h.Unified && !slices.Contains(m.options, c) {
			return false
		}
	}
	return h.Name == "" || slices.Contains(m.options, "name="+h.Name)
}

// below gives own relative to the mount's root. A process that lives outside of what is mounted (a container that
// sees its own group as the root, or another one's) is taken to be at the root.
func below(root, own string) string {
	if root == "/" && !strings.HasPrefix(own, "/..") {
		return path.Clean(own)
	}
	if rest, ok := strings.CutPrefix(own, root); ok && (rest == "" || rest[0] == '/') && !strings.HasPrefix(rest, "/..") {
		return path.Clean("/" + rest)
	}
	return "/"
}

// Find returns the hierarchy that carries a controller, or nil.
func (h *Host) Find(controller string) *Hierarchy {
	for i := range h.Hierarchies {
		if slices.Contains(h.Hierarchies[i].Controllers, controller) {
			return &h.Hierarchies[i]
		}
	}
	return nil
}
