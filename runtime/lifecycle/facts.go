package lifecycle

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/mountinfo"
	"github.com/tare-oci/tare/internal/nofile"
	"github.com/tare-oci/tare/internal/sys/caps"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/state"
)

// hostFacts describes the host for any plan: of create, exec, hooks and restore. What was decided when the container was created
// is in decided and holds for every later process of it.
func hostFacts(bundle, id string, rootless bool, decided state.Facts) (*plan.Host, error) {
	permitted, last, err := caps.Own()
	if err != nil {
		return nil, err
	}
	return &plan.Host{Arch: runtime.GOARCH, Bundle: bundle, ID: id, Rootless: rootless, UID: uint32(os.Geteuid()),
		GID: uint32(os.Getegid()), LastCap: last, Grantable: permitted, NoFile: nofile.Start, IDMapHelpers: decided.IDMapHelpers,
		SameNamespaces: decided.SameNamespaces}, nil
}

// decideFacts decides for a new container what later processes of it need to know.
func decideFacts(l *specs.Linux) (f state.Facts, err error) {
	if l == nil {
		return f, nil
	}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	f.IDMapHelpers = uid != 0 && (len(l.UIDMappings) > 1 || len(l.GIDMappings) > 1 || foreign(l.UIDMappings, uid) ||
		foreign(l.GIDMappings, gid))
	for _, ns := range l.Namespaces {
		if ns.Path == "" {
			continue
		}
		same, err := isOwnNamespace(ns)
		if err != nil {
			return f, err
		}
		if same {
			f.SameNamespaces |= plan.NamespaceFlag(ns.Type)
		}
	}
	return f, nil
}

// foreign tells whether a single mapping maps something else than the runtime's own id.
func foreign(maps []specs.LinuxIDMapping, own uint32) bool {
	return len(maps) == 1 && (maps[0].HostID != own || maps[0].Size != 1)
}

// isOwnNamespace tells whether a namespace given by its path is the one that this process is in: what is set there would change
// the host. Namespaces are equal when device and inode are (namespaces(7)).
func isOwnNamespace(ns specs.LinuxNamespace) (bool, error) {
	file := string(ns.Type)
	switch ns.Type {
	case specs.NetworkNamespace:
		file = "net"
	case specs.MountNamespace:
		file = "mnt"
	}
	given, err := os.Stat(ns.Path)
	if err != nil {
		return false, fmt.Errorf("linux.namespaces: %s namespace: %w", ns.Type, err)
	}
	own, err := os.Stat("/proc/self/ns/" + file)
	if err != nil {
		return false, nil // the kernel has no such namespaces: joining it will fail
	}
	return os.SameFile(given, own), nil
}

// procMounts lists the mount points of proc and sysfs that a container without pivot_root(2) could still reach, those below
// others first. What lies below the container's root is the container's.
func procMounts(root string) ([]string, error) {
	mounts, err := mountinfo.Self()
	if err != nil {
		return nil, err
	}
	if resolved, err := filepath.EvalSymlinks(root); err == nil {
		root = resolved
	}
	var points []string
	for i := len(mounts) - 1; i >= 0; i-- {
		m := mounts[i]
		if (m.FSType == "proc" || m.FSType == "sysfs") && m.Point != root && !strings.HasPrefix(m.Point, root+"/") {
			points = append(points, m.Point)
		}
	}
	return points, nil
}

// mountOf returns the mount point that holds path, from the mount table.
func mountOf(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	mounts, err := mountinfo.Self()
	if err != nil {
		return "", err
	}
	best := "/"
	for _, m := range mounts {
		if (path == m.Point || strings.HasPrefix(path, strings.TrimSuffix(m.Point, "/")+"/")) && len(m.Point) >= len(best) {
			best = m.Point
		}
	}
	return best, nil
}
