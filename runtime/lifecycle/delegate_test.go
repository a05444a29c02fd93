package lifecycle

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestGroupOwner(t *testing.T) {
	cgroup, user := specs.LinuxNamespace{Type: "cgroup"}, specs.LinuxNamespace{Type: "user"}
	rw := specs.Mount{Destination: "/sys/fs/cgroup/", Type: "cgroup", Options: []string{"nosuid"}}
	ro := specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Options: []string{"ro"}}
	bind := specs.Mount{Destination: "/sys/fs/cgroup", Type: "bind", Source: "/x"}
	for _, c := range []struct {
		name string
		ns   []specs.LinuxNamespace
		m    []specs.Mount
		uid  int
		ok   bool
	}{
		{"no user namespace", []specs.LinuxNamespace{cgroup}, []specs.Mount{rw}, 7, true},
		{"user namespace", []specs.LinuxNamespace{user, cgroup}, []specs.Mount{rw}, 100002, true},
		{"no cgroup namespace", []specs.LinuxNamespace{user}, []specs.Mount{rw}, 0, false},
		{"joined cgroup namespace", []specs.LinuxNamespace{{Type: "cgroup", Path: "/x"}}, []specs.Mount{rw}, 0, false},
		{"read-only", []specs.LinuxNamespace{cgroup}, []specs.Mount{ro}, 0, false},
		{"read-only above", []specs.LinuxNamespace{cgroup}, []specs.Mount{rw, ro}, 0, false},
		{"another mount above", []specs.LinuxNamespace{cgroup}, []specs.Mount{rw, bind}, 0, false},
		{"no mount", []specs.LinuxNamespace{cgroup}, nil, 0, false},
	} {
		s := &specs.Spec{Process: &specs.Process{User: specs.User{UID: 7}}, Mounts: c.m, Linux: &specs.Linux{Namespaces: c.ns,
			UIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100, Size: 5}, {ContainerID: 5, HostID: 100000, Size: 10}}}}
		uid, ok := groupOwner(s)
		if ok != c.ok || ok && uid != c.uid {
			t.Errorf("%s: %d %v, want %d %v", c.name, uid, ok, c.uid, c.ok)
		}
	}
	s := &specs.Spec{Process: &specs.Process{User: specs.User{UID: 20}}, Mounts: []specs.Mount{rw}, Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{user, cgroup},
		UIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100, Size: 5}}}}
	if uid, ok := groupOwner(s); ok {
		t.Errorf("a user without a mapping got the number %d", uid)
	}
}
