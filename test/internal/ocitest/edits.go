package ocitest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Mnt is an edit that appends a mount.
func Mnt(dest, typ, source string, options ...string) string {
	opts := "[]"
	if len(options) > 0 {
		opts = `["` + strings.Join(options, `","`) + `"]`
	}
	return fmt.Sprintf(`mounts+=[{"destination":%q,"type":%q,"source":%q,"options":%s}]`, dest, typ, source, opts)
}

// InBundle makes a file of a bundle, or a directory when path ends in "/".
func InBundle(h *H, b *Bundle, path, content string) {
	if strings.HasSuffix(path, "/") {
		if err := os.MkdirAll(filepath.Join(b.Dir, path), 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		return
	}
	h.File(filepath.Join(b.Dir, path), content, 0o644)
}

// CapEdit sets the capability sets of the process.
func CapEdit(bounding, permitted, effective, inheritable, ambient string) string {
	q := func(s string) string {
		if s == "" {
			return "[]"
		}
		return `["` + strings.ReplaceAll(s, " ", `","`) + `"]`
	}
	return fmt.Sprintf(`process.capabilities={"bounding":%s,"permitted":%s,"effective":%s,"inheritable":%s,"ambient":%s}`,
		q(bounding), q(permitted), q(effective), q(inheritable), q(ambient))
}

// UserNS is an edit that adds a user namespace.
const UserNS = `linux.namespaces+=[{"type":"user"}]`

// IDMaps is an edit that maps the ids from 0 on to those from host on.
func IDMaps(host, size int) string {
	m := fmt.Sprintf(`[{"containerID":0,"hostID":%d,"size":%d}]`, host, size)
	return `linux+={"uidMappings":` + m + `,"gidMappings":` + m + `}`
}

// RootfsOf gives the root file system to a user.
func RootfsOf(uid int) func(*H, *Bundle) {
	return func(h *H, b *Bundle) {
		if out, err := exec.Command("chown", "-h", fmt.Sprintf("%d:%d", uid, uid), b.Rootfs, b.Rootfs+"/etc", b.Rootfs+"/tmp").CombinedOutput(); err != nil {
			h.Fatalf("chown: %v: %s", err, out)
		}
	}
}

// NSID is the name of a namespace of a process: file is its name below /proc/PID/ns.
func NSID(h *H, pid any, file string) string {
	s, err := os.Readlink(fmt.Sprintf("/proc/%v/ns/%s", pid, file))
	if err != nil {
		h.Fatalf("%v", err)
	}
	return s
}

// Seccomp is an edit that sets a filter: the default action and rules made by Rule.
func Seccomp(def, rules string) string {
	return fmt.Sprintf(`linux.seccomp={"defaultAction":%q,"syscalls":[%s]}`, def, rules)
}

// Rule is a rule of a filter for system calls; more are further members of its JSON.
func Rule(names, action, more string) string {
	return fmt.Sprintf(`{"names":["%s"],"action":%q%s}`, strings.ReplaceAll(names, " ", `","`), action, more)
}

// ProbeCall is a program that makes one system call and prints its errno.
func ProbeCall(nr int, args ...any) []string {
	a := []string{"probe", "syscall", fmt.Sprint(nr)}
	for _, x := range args {
		a = append(a, fmt.Sprint(x))
	}
	return a
}
