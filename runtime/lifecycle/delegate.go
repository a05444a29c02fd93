package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// delegate gives the group to the container's user where it can see and write nothing but it: "Cgroup ownership" of
// config-linux.md. A user who lacks the right to do so keeps it, with a warning.
func (k *creation) delegate() error {
	uid, ok := groupOwner(k.spec)
	if !ok {
		return nil
	}
	err := k.group.Delegate(uid)
	if k.host.Rootless && errors.Is(err, fs.ErrPermission) {
		k.r.Warn(fmt.Sprintf("the container's user does not get its cgroup: %v", err))
		return nil
	}
	return err
}

// groupOwner returns the host's number of process.user.uid if the container has a cgroup namespace of its own and its
// /sys/fs/cgroup writable. It knows no number of a user namespace that is joined by path without mappings.
func groupOwner(s *specs.Spec) (uid int, ok bool) {
	if s.Linux == nil || s.Process == nil || !writableCgroup(s.Mounts) {
		return 0, false
	}
	own, user := false, false
	for _, ns := range s.Linux.Namespaces {
		own = own || ns.Type == specs.CgroupNamespace && ns.Path == ""
		user = user || ns.Type == specs.UserNamespace
	}
	if !own || !user {
		return int(s.Process.User.UID), own
	}
	for _, m := range s.Linux.UIDMappings {
		if at := s.Process.User.UID - m.ContainerID; s.Process.User.UID >= m.ContainerID && at < m.Size {
			return int(m.HostID + at), true
		}
	}
	return 0, false
}

// writableCgroup tells whether the last mount on /sys/fs/cgroup is the container's cgroup and writable.
func writableCgroup(mounts []specs.Mount) (writable bool) {
	for i := range mounts {
		m := &mounts[i]
		if path.Clean("/"+m.Destination) != "/sys/fs/cgroup" {
			continue
		}
		ro := slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rro")
		writable = (m.Type == "cgroup" || m.Type == "cgroup2") && !ro
	}
	return writable
}
