package systemd

import (
	"fmt"
	"strings"
)

// Place is where a container's scope is: a unit in a slice.
type Place struct {
	Slice string // "machine-web.slice"
	Unit  string // "runc-box.scope"
}

// maxUnit is the longest name of a unit (UNIT_NAME_MAX less the final zero byte).
const maxUnit = 255

// ParsePath reads linux.cgroupsPath as `--systemd-cgroup` has it, "slice:prefix:name", for container id. An empty slice is
// system.slice, for a user's own systemd user.slice; an empty path stands for that slice, the prefix "runc", which clients know, and the
// id.
func ParsePath(cgroupsPath, id string, user bool) (Place, error) {
	slice, prefix, name := "", "runc", id
	if cgroupsPath != "" {
		parts := strings.Split(cgroupsPath, ":")
		if len(parts) != 3 {
			return Place{}, fmt.Errorf("linux.cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", clip(cgroupsPath))
		}
		slice, prefix, name = parts[0], parts[1], parts[2]
	}
	if slice == "" {
		slice = "system.slice"
		if user {
			slice = "user.slice"
		}
	}
	p := Place{Slice: slice, Unit: prefix + "-" + name + ".scope"}
	if strings.HasSuffix(name, ".slice") {
		return Place{}, fmt.Errorf("linux.cgroupsPath %q: a slice holds no processes: name the scope", clip(cgroupsPath))
	}
	if err := checkName(p.Unit); err != nil {
		return Place{}, fmt.Errorf("linux.cgroupsPath %q: %w", clip(cgroupsPath), err)
	}
	if _, err := expandSlice(slice); err != nil {
		return Place{}, fmt.Errorf("linux.cgroupsPath %q: %w", clip(cgroupsPath), err)
	}
	return p, nil
}

// checkName accepts what systemd accepts as the name of a unit (systemd.unit(5)).
func checkName(unit string) error {
	if len(unit) > maxUnit {
		return fmt.Errorf("unit name of %d bytes, the limit is %d", len(unit), maxUnit)
	}
	for i := range len(unit) {
		c := unit[i]
		if !isAlnum(c) && strings.IndexByte(`:_.\-`, c) < 0 {
			return fmt.Errorf("unit name %q: %q is not allowed in it", clip(unit), c)
		}
	}
	return nil
}

func isAlnum(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' }

// Path is the path of the scope's cgroup below its manager's: each dash in a slice's name is a level, so that "a-b.slice" is
// /a.slice/a-b.slice.
func (p Place) Path() string {
	dir, _ := expandSlice(p.Slice) // ParsePath has checked it
	return dir + "/" + p.Unit
}

func expandSlice(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || checkName(slice) != nil {
		return "", fmt.Errorf("invalid slice name: %s", clip(slice))
	}
	if name == "-" {
		return "", nil // the root
	}
	dir := ""
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '-' {
			continue
		}
		if i == 0 || name[i-1] == '-' {
			return "", fmt.Errorf("invalid slice name: %s", clip(slice))
		}
		dir += "/" + name[:i] + ".slice"
	}
	return dir, nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
