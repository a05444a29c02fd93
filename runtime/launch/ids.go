package launch

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/plan"
)

// mapIDs writes the maps of the child's user namespace: user_namespaces(7).
func (c *Child) mapIDs(o plan.MapIDs) error {
	if o.Helper {
		if err := runHelper("newuidmap", c.PID, o.UID); err != nil {
			return err
		}
		return runHelper("newgidmap", c.PID, o.GID)
	}
	if os.Geteuid() != 0 {
		// The kernel lets an unprivileged process map its gid only once the namespace has given up setgroups(2) for good.
		if err := writeProc(c.PID, "setgroups", "deny"); err != nil {
			return fmt.Errorf("deny setgroups: %w", err)
		}
	}
	if err := writeProc(c.PID, "uid_map", mapText(o.UID)); err != nil {
		return fmt.Errorf("uid_map: %w%s", err, mapHint(err))
	}
	if err := writeProc(c.PID, "gid_map", mapText(o.GID)); err != nil {
		return fmt.Errorf("gid_map: %w%s", err, mapHint(err))
	}
	return nil
}

func mapText(maps []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, m := range maps {
		fmt.Fprintf(&b, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	return b.String()
}

func mapHint(err error) string {
	switch err {
	case unix.EINVAL:
		return " (the kernel takes up to 340 ranges that do not overlap)"
	case unix.EPERM:
		return " (an unprivileged user may map only its own id; ranges need newuidmap and /etc/subuid)"
	}
	return ""
}

// runHelper lets newuidmap(1) or newgidmap(1) write a map: they check /etc/subuid and /etc/subgid.
func runHelper(name string, pid int, maps []specs.LinuxIDMapping) error {
	args := []string{name, strconv.Itoa(pid)}
	for _, m := range maps {
		for _, n := range []uint32{m.ContainerID, m.HostID, m.Size} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	path := ""
	for _, dir := range []string{"/usr/bin/", "/bin/", "/usr/local/bin/"} {
		if unix.Access(dir+name, unix.X_OK) == nil {
			path = dir + name
			break
		}
	}
	if path == "" {
		return fmt.Errorf("%s is not installed (package uidmap): a rootless container with several ids needs it", name)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := os.StartProcess(path, args, &os.ProcAttr{Files: []*os.File{nil, w, w}})
	w.Close()
	if err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	said := make([]byte, 4096)
	n, _ := r.Read(said)
	state, err := p.Wait()
	if err != nil {
		return fmt.Errorf("wait for %s: %w", path, err)
	}
	if !state.Success() {
		return fmt.Errorf("%s: %s: %s", path, state, strings.TrimSpace(string(said[:n])))
	}
	return nil
}
