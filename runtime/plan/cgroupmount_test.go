package plan

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A mount of type cgroup or cgroup2 gives the hierarchy that it names or is an error; a shared cgroup is never writable.
func TestCgroupMounts(t *testing.T) {
	cgroupNS := specs.LinuxNamespace{Type: specs.CgroupNamespace}
	shared := func(h *Host) { h.CgroupShared = true }
	unified := func(h *Host) { h.CgroupUnified = "/sys/fs/cgroup/unified/box" }
	none := func(h *Host) { h.CgroupMounts = nil }
	for _, test := range []struct {
		name, typ  string
		host       *Host
		change     func(*Host)
		namespaces []specs.LinuxNamespace
		want, err  string // What of the operation on /c; text of the error
		ro, warns  bool
	}{
		{"v1", "cgroup", hybrid(), nil, nil, "mount tmpfs on /c", "", false, false},
		{"v1 shared", "cgroup", hybrid(), shared, nil, "mount tmpfs on /c", "", true, true},
		{"v1 nothing mounted", "cgroup", hybrid(), none, nil, "mount tmpfs on /c", "", true, true},
		{"v2 on hybrid", "cgroup2", hybrid(), unified, nil, "bind /sys/fs/cgroup/unified/box on /c", "", false, false},
		{"v2 on hybrid, namespace", "cgroup2", hybrid(), unified, []specs.LinuxNamespace{cgroupNS}, "mount cgroup2 on /c", "", false, false},
		{"v2 on v1", "cgroup2", hybrid(), nil, nil, "", "no cgroup2 hierarchy is mounted", false, false},
		{"v2", "cgroup", v2(), nil, nil, "bind /sys/fs/cgroup/box on /c", "", false, false},
		{"v2 shared", "cgroup", v2(), shared, []specs.LinuxNamespace{cgroupNS}, "mount cgroup2 on /c", "", true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.change != nil {
				test.change(test.host)
			}
			s := with()
			s.Linux.Namespaces = append([]specs.LinuxNamespace{{Type: specs.MountNamespace}}, test.namespaces...)
			s.Hostname, s.Mounts = "", []specs.Mount{{Destination: "/c", Type: test.typ, Source: "cgroup", Options: []string{"nosuid"}}}
			p, err := Compile(s, test.host, Options{})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			found, ro := false, false
			for _, op := range p.Child {
				found = found || op.What() == test.want
				switch op := op.(type) {
				case Bind:
					ro = ro || strings.HasPrefix(op.Dest, "/c") && op.Attr.Set&attrReadOnly != 0
				case Mount:
					ro = ro || op.Dest == "/c" && op.Attr.Set&attrReadOnly != 0
				case Protect:
					ro = ro || op.Dest == "/c"
				}
			}
			if !found || ro != test.ro || (len(p.Warnings) > 0) != test.warns {
				t.Errorf("found %v, read-only %v, warnings %q", found, ro, p.Warnings)
			}
		})
	}
}
