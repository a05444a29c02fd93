package lifecycle

import (
	"math"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/plan"
)

const statusText = `Name:	sh
Uid:	0	0	0	0
Gid:	0	0	0	0
Groups:	7 
CapInh:	0000000000000000
CapPrm:	00000000a80425fb
CapEff:	00000000a80425fb
CapBnd:	00000000a80425fb
CapAmb:	0000000000000000
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	1
`

func TestParseStatus(t *testing.T) {
	s, err := parseStatus(statusText)
	if err != nil || s.permitted != 0xa80425fb || !s.noNewPrivs || s.seccomp != 2 || len(s.groups) != 1 || s.groups[0] != 7 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []struct{ old, new string }{{"CapBnd:\t00000000a80425fb\n", ""}, {"0\t0\t0\t0", "0\t0\t0"}, {"a80425fb", "xyz"}, {"Seccomp:\t2", "Seccomp:\t"}} {
		if _, err := parseStatus(strings.Replace(statusText, bad.old, bad.new, 1)); err == nil {
			t.Errorf("%q for %q gives no error", bad.new, bad.old)
		}
	}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseStatus(string(text)); err != nil {
		t.Error(err)
	}
}

func TestVerifyCredentials(t *testing.T) {
	const base = 0xa80425fb
	full := func() *template {
		return &template{bounding: base, caps: plan.Capabilities{Permitted: base, Effective: base}, groups: []uint32{7}}
	}
	for _, c := range []struct {
		name     string
		change   func(t *template)
		old, new string // of the status
		want     string
	}{
		{"same", func(*template) {}, "", "", ""},
		{"less", func(*template) {}, "CapEff:\t00000000a80425fb", "CapEff:\t0000000000000000", ""},
		{"other user by CAP_SETUID", func(*template) {}, "Uid:\t0\t0\t0\t0", "Uid:\t5\t5\t5\t5", ""},
		{"other user", func(t *template) { t.caps.Permitted &^= capSetUID; t.bounding = t.caps.Permitted }, "Uid:\t0\t0\t0\t0", "Uid:\t0\t0\t5\t0", "user id is 5, not 0"},
		{"other group", func(t *template) { t.caps.Permitted &^= capSetGID }, "Gid:\t0\t0\t0\t0", "Gid:\t0\t0\t0\t5", "group id is 5, not 0"},
		{"group more", func(t *template) { t.caps.Permitted &^= capSetGID }, "Groups:\t7", "Groups:\t7 8", "it is a member of group 8"},
		{"bounding", func(*template) {}, "CapBnd:\t00000000a80425fb", "CapBnd:\t00000000a82425fb", "bounding capabilities 00000000a82425fb are more than 00000000a80425fb"},
		{"permitted of root", func(t *template) { t.caps = plan.Capabilities{}; t.noNewPrivs = false }, "Uid:", "Uid:", ""},
		{"permitted", func(t *template) { t.caps = plan.Capabilities{}; t.noNewPrivs = true }, "Uid:", "Uid:", "permitted capabilities"},
		{"inheritable", func(*template) {}, "CapInh:\t0000000000000000", "CapInh:\t0000000000200000", "inheritable capabilities"},
		{"ambient", func(*template) {}, "CapAmb:\t0000000000000000", "CapAmb:\t0000000000200000", "ambient capabilities"},
	} {
		tp := full()
		c.change(tp)
		s, err := parseStatus(strings.Replace(statusText, c.old, c.new, 1))
		if err != nil {
			t.Fatal(err)
		}
		if err = tp.verifyIDs(s); err == nil {
			err = tp.verifyCaps(s)
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

func TestVerifyNamespace(t *testing.T) {
	tp := &template{namespaces: map[string]string{"mnt": "mnt:[2]", "net": "net:[1]", "ipc": "ipc:[2]", "pid": "pid:[7]", "time": "time:[1]"},
		own:    map[string]string{"mnt": "mnt:[1]", "net": "net:[1]", "ipc": "ipc:[1]", "pid": "pid:[1]", "time": "time:[1]"},
		joined: map[string]bool{"pid": true}}
	for _, c := range []struct{ file, ns, first, want string }{
		{"mnt", "mnt:[5]", "mnt:[5]", ""},
		{"mnt", "mnt:[6]", "mnt:[5]", "it has a mnt namespace of its own"},
		{"mnt", "mnt:[1]", "mnt:[1]", "it is in the host's mnt namespace"},
		{"net", "net:[1]", "net:[1]", ""},
		{"net", "net:[5]", "net:[5]", "not the host's"},
		{"net", "net:[5]", "net:[1]", ""}, // made by the program
		{"ipc", "ipc:[1]", "ipc:[5]", "it is in the host's ipc namespace"},
		{"pid", "pid:[7]", "pid:[7]", ""},
		{"pid", "pid:[8]", "pid:[8]", "pid namespace is pid:[8], not pid:[7]"},
		{"time", "time:[5]", "time:[5]", ""},
	} {
		err := tp.verifyNamespace(c.file, c.ns, c.first)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: error %v", c, err)
		}
	}
}

func TestSameCgroups(t *testing.T) {
	const want = "1:pids:/a\n0::/b\n"
	for _, c := range []struct{ got, want string }{
		{want, ""}, {"0::/b/below\n1:pids:/a\n", ""}, {"1:pids:/ab\n0::/b\n", `cgroup is "/ab"`}, {"1:pids:/\n0::/b\n", `cgroup is "/"`},
		{"0::/b\n", "it is in 1 cgroups, not in 2"}, {"2:cpu:/a\n0::/b\n", "cgroup is"}, {"x\n", "invalid line"},
	} {
		err := sameCgroups(c.got, want)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: error %v, want %q", c.got, err, c.want)
		}
	}
}

func TestHardLimit(t *testing.T) {
	text, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
		"MSGQUEUE", "NICE", "RTPRIO", "RTTIME"} {
		if _, ok := hardLimit(string(text), "RLIMIT_"+kind); !ok {
			t.Errorf("no RLIMIT_%s", kind)
		}
	}
	if n, ok := hardLimit("Max cpu time              1                    unlimited            seconds\n", "RLIMIT_CPU"); !ok || n != math.MaxUint64 {
		t.Errorf("%d, %v", n, ok)
	}
	if _, ok := hardLimit(string(text), "RLIMIT_NONE"); ok {
		t.Error("an unknown limit is found")
	}
}

func TestLabels(t *testing.T) {
	tp := &template{}
	for _, bad := range []string{"", "apparmor", "smack:x", "selinux:"} {
		if err := tp.setLabel(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if err := tp.setLabel("apparmor:a b"); err != nil || tp.lsmProfile() != "apparmor:a b" {
		t.Errorf("%q, %v", tp.lsmProfile(), err)
	}
	if err := sameLabel("p (enforce)\n", "p"); err != nil {
		t.Error(err)
	}
	if err := sameLabel("system_u:object_r:t:s0\x00", "system_u:object_r:t:s0"); err != nil {
		t.Error(err)
	}
	if err := sameLabel("unconfined\n", "p"); err == nil {
		t.Error("another label is the same")
	}
}

func TestReadStreams(t *testing.T) {
	path := t.TempDir() + "/d"
	os.WriteFile(path, []byte(`["pipe:[5]","file[1f:a]","pipe:[5]","pipe:[6]"]`), 0o600)
	list, err := readStreams(path)
	if err != nil || len(list) != 2 || list[0].FD != 0 || list[1].FD != 1 || list[1].Key != "file[1f:a]" {
		t.Errorf("%+v, %v", list, err)
	}
	os.WriteFile(path, []byte(`["/dev/null","extRootNetNS","pipe:[]","socket:[5]"]`), 0o600)
	if list, err = readStreams(path); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err = readStreams(path + "none"); err != nil || list != nil {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestRefuseCriu(t *testing.T) {
	own := []specs.LinuxNamespace{{Type: "mount"}}
	for _, c := range []struct {
		s    *specs.Spec
		want string
	}{
		{&specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Namespaces: own}}, ""},
		{&specs.Spec{Linux: &specs.Linux{Namespaces: own}}, "the configuration has no process"},
		{&specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}, "a mount namespace of the container's own"},
		{&specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "mount", Path: "/x"}}}}, "existing mount namespace /x"},
		{&specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Namespaces: append(own, specs.LinuxNamespace{Type: "cgroup", Path: "/x"})}}, "existing cgroup namespace /x"},
		{&specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Namespaces: own, Seccomp: &specs.LinuxSeccomp{ListenerPath: "/x"}}}, "linux.seccomp.listenerPath"},
		{&specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Namespaces: own, NetDevices: map[string]specs.LinuxNetDevice{"e": {}}}}, "linux.netDevices"},
	} {
		err := refuseCriu(c.s)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}
