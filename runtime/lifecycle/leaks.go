package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/internal/leaks"
	"github.com/tare-oci/tare/internal/procfs"
	"github.com/tare-oci/tare/runtime/state"
)

// Leaks lists what containers have left, a sentence for each thing: states without a process, their cgroups and processes, mounts below the
// state directory or the root file system of such a container, directories of creates that were killed. Of a container whose state is
// gone only its cgroups can be found, and only by its id: those of ids are looked for too.
func (r *Runtime) Leaks(ids []string) ([]string, error) {
	for _, id := range ids {
		if err := state.CheckID(id); err != nil {
			return nil, err
		}
	}
	names, err := leftDirectories(r.Root)
	if err != nil {
		return nil, err
	}
	known, err := state.List(r.Root)
	if err != nil {
		return nil, err
	}
	places := []string{r.Root} // below which nothing may be mounted
	var gone []string          // whose cgroups must not exist
	for _, id := range known {
		c, err := state.Load(r.Root, id)
		switch {
		case errors.Is(err, state.ErrNotExist):
			if _, err := os.Lstat(filepath.Join(r.Root, id)); err == nil {
				names = append(names, fmt.Sprintf("state directory %s has no state (remove it with: delete --force %s)", filepath.Join(r.Root, id), id))
			}
		case err != nil:
			return nil, err
		case c.Status() == state.Stopped:
			names = append(names, fmt.Sprintf("container %s has no process (remove it with: delete %s)", id, id))
			gone = append(gone, id)
			if c.Rootfs != "" {
				places = append(places, c.Rootfs)
			}
			left, err := r.leftProcesses(c)
			if err != nil {
				return nil, err
			}
			names = append(names, left...)
		}
	}
	for _, id := range ids {
		if !slices.Contains(known, id) {
			gone = append(gone, id)
		}
	}
	for _, look := range []func() ([]string, error){func() ([]string, error) { return leftMounts(places) }, func() ([]string, error) { return leftCgroups(gone) }} {
		left, err := look()
		if err != nil {
			return nil, err
		}
		names = append(names, left...)
	}
	return names, nil
}

// leftDirectories are those of creates that were killed before the directory had its name: "~PID~ID".
func leftDirectories(root string) (list []string, err error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		pid, _, ok := strings.Cut(strings.TrimPrefix(e.Name(), "~"), "~")
		n, e2 := strconv.Atoi(pid)
		if !ok || e2 != nil || e.Name()[0] != '~' {
			continue
		}
		if _, err := procfs.ReadStat(n); err != nil {
			list = append(list, "directory "+filepath.Join(root, e.Name())+" is of a create that was killed")
		}
	}
	return list, err
}

// leftProcesses are those in the cgroup of a container whose first process has ended.
func (r *Runtime) leftProcesses(c *state.Container) (list []string, err error) {
	g, err := r.cgroup(c)
	if err != nil || g == nil {
		return nil, err
	}
	pids, err := g.Procs()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, pid := range pids {
		list = append(list, fmt.Sprintf("process %d is in the cgroup of container %s, which has ended", pid, c.ID))
	}
	return list, err
}

// leftMounts are mount points below one of the directories.
func leftMounts(dirs []string) (list []string, err error) {
	points, err := leaks.MountPoints()
	for _, point := range points {
		for _, dir := range dirs {
			if strings.HasPrefix(point, strings.TrimSuffix(dir, "/")+"/") {
				list = append(list, "mount on "+point)
				break
			}
		}
	}
	return list, err
}

// leftCgroups are those that are named after one of the ids, as the runtime does by default and as engines do.
func leftCgroups(ids []string) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	return leaks.Cgroups(func(p string) bool {
		name := strings.TrimSuffix(path.Base(p), ".scope")
		return slices.ContainsFunc(ids, func(id string) bool { return name == id || strings.HasSuffix(name, "-"+id) })
	})
}
