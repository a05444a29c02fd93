package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// plainUser is who runs the rootless row: not root, and a number that distributions leave free.
const plainUser = 54321

func addUserNamespace(linux map[string]any, host, size int) {
	linux["namespaces"] = append(linux["namespaces"].([]any), map[string]any{"type": "user"})
	ids := []any{map[string]any{"containerID": 0, "hostID": host, "size": size}}
	linux["uidMappings"], linux["gidMappings"] = ids, ids
}

// rootless makes of a configuration what `runc spec --rootless` writes: a user namespace with one id, the host's
// network, no limits.
func rootless(linux map[string]any) {
	addUserNamespace(linux, plainUser, 1)
	delete(linux, "resources")
	var keep []any
	for _, ns := range linux["namespaces"].([]any) {
		if ns.(map[string]any)["type"] != "network" {
			keep = append(keep, ns)
		}
	}
	linux["namespaces"] = keep
}

// rootlessMounts changes the mounts that a user namespace with one id does not allow.
func rootlessMounts(mounts []any) []any {
	var keep []any
	for _, m := range mounts {
		m := m.(map[string]any)
		switch m["destination"] {
		case "/sys":
			m["type"], m["source"] = "none", "/sys"
			m["options"] = []string{"rbind", "nosuid", "noexec", "nodev", "ro"}
		case "/sys/fs/cgroup":
			continue
		case "/dev/pts":
			var options []any
			for _, o := range m["options"].([]any) {
				if !strings.HasPrefix(o.(string), "gid=") {
					options = append(options, o)
				}
			}
			m["options"] = options
		}
		keep = append(keep, m)
	}
	return keep
}

// rootlessRun is run by a user who is not root.
func (w *world) rootlessRun(p *peer) (sample, error) {
	root := filepath.Join(w.dir, "run", "user", p.name)
	if _, err := os.Stat(root); err != nil {
		if err := os.MkdirAll(root, 0o711); err != nil {
			return sample{}, err
		}
		if err := os.Chown(root, plainUser, plainUser); err != nil {
			return sample{}, err
		}
	}
	argv := []string{p.path, "--root", root}
	if p.name == "crun" { // without systemd it cannot do anything else than to give up in cgroups of version 1
		argv = append(argv, "--cgroup-manager=disabled")
	}
	user := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: plainUser, Gid: plainUser}}
	env := append(os.Environ(), "XDG_RUNTIME_DIR="+root, "HOME="+root)
	return w.start(user, env, append(argv, "run", "--bundle", w.bundle("rootless"), w.id()))
}

// possible are the actions that succeed when they are tried; the others are listed as not measured.
func (w *world) possible(row string, actions []action) []action {
	var keep []action
	for _, a := range actions {
		if _, err := a.once(); err != nil {
			w.skipped = append(w.skipped, fmt.Sprintf("%s, %s: %v", row, a.who, err))
			continue
		}
		keep = append(keep, a)
	}
	return keep
}

func (w *world) rootlessRuns() []action {
	var actions []action
	for _, p := range w.runtimes {
		actions = append(actions, action{row: rowRootless, who: p.name, once: func() (sample, error) { return w.rootlessRun(p) }})
	}
	return w.possible(rowRootless, actions)
}
