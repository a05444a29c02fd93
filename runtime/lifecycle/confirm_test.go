package lifecycle

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/plan"
)

// TestConfirm changes each line of a status that fits.
func TestConfirm(t *testing.T) {
	const set = 0xa80425fb
	want := confirmation{groups: []uint32{7}, caps: plan.Capabilities{Effective: set, Permitted: set}, bounding: set, noNewPrivs: true, seccomp: true}
	for _, c := range []struct{ old, new, err string }{
		{"", "", ""},
		{"Uid:\t0\t0\t0\t0", "Uid:\t0\t0\t0\t5", "user ids are [0 0 0 5], want 0"},
		{"Gid:\t0\t0", "Gid:\t0\t5", "group ids are [0 5 0 0], want 0"},
		{"Groups:\t7", "Groups:\t7 8", "supplementary groups are [7 8], want [7]"},
		{"Groups:\t7", "Groups:\t", "supplementary groups are [], want [7]"},
		{"CapInh:\t0000000000000000", "CapInh:\t0000000000000001", "inheritable capabilities are 0000000000000001, want 0000000000000000"},
		{"CapPrm:\t00000000a80425fb", "CapPrm:\t00000000a82425fb", "permitted capabilities are 00000000a82425fb, want 00000000a80425fb"},
		{"CapEff:\t00000000a80425fb", "CapEff:\t00000000a80425f9", "effective capabilities are 00000000a80425f9, want 00000000a80425fb"},
		{"CapBnd:\t00000000a80425fb", "CapBnd:\t000001ffffffffff", "bounding capabilities are 000001ffffffffff"},
		{"CapAmb:\t0000000000000000", "CapAmb:\t0000000000000001", "ambient capabilities are"},
		{"NoNewPrivs:\t1", "NoNewPrivs:\t0", "no_new_privs is 0, want 1"},
		{"Seccomp:\t2", "Seccomp:\t3", ""},
		{"Seccomp:\t2", "Seccomp:\t0", "seccomp mode is 0, want 2 (filter)"},
	} {
		s, err := parseStatus(strings.Replace(statusText, c.old, c.new, 1))
		if err != nil {
			t.Fatal(err)
		}
		err = want.compare(s)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q for %q: error %v, want %q", c.new, c.old, err, c.err)
		}
	}
	if err := want.check(os.Getpid()); !errors.Is(err, errReadBack) {
		t.Errorf("this process: %v", err)
	}
}

// TestConfirmation takes it from a plan: what comes behind the wait does not count yet, and a step that is missing
// grants nothing.
func TestConfirmation(t *testing.T) {
	s := &specs.Spec{Process: &specs.Process{NoNewPrivileges: true}, Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "user"}}}}
	early := []plan.Op{plan.BoundingSet{Keep: 5}, plan.Capabilities{Effective: 3, Permitted: 3}, plan.Seccomp{}, plan.DropAdmin{Effective: 1, Permitted: 1}}
	p := &plan.Plan{Outer: early, Child: []plan.Op{plan.Wait{For: plan.ForLimits}}}
	c := confirm(p, s, s.Process, beforeLimits)
	if c.bounding != 5 || c.caps.Effective != 1 || !c.seccomp || c.late || !c.noNewPrivs || !c.mapped {
		t.Errorf("all before the wait: %+v", c)
	}
	p = &plan.Plan{Child: []plan.Op{early[0], early[1], plan.Wait{For: plan.ForLimits}, early[2], early[3], plan.WaitStart{}}}
	if c = confirm(p, s, s.Process, beforeLimits); c.caps.Effective != 3 || c.seccomp || !c.late {
		t.Errorf("the filter behind the wait: %+v", c)
	}
	if c = confirm(p, s, s.Process, beforeStart); c.caps.Effective != 1 || !c.seccomp || c.late {
		t.Errorf("the filter before start: %+v", c)
	}
	if c = confirm(&plan.Plan{}, s, s.Process, beforeStart); c.bounding != 0 || c.caps.Permitted != 0 {
		t.Errorf("an empty plan: %+v", c)
	}
}

func TestInGroup(t *testing.T) {
	g := &cgroup.Group{Mode: cgroup.V1, Dirs: []cgroup.Dir{
		{Hierarchy: cgroup.Hierarchy{Controllers: []string{"cpu", "cpuacct"}}, Path: "/a/b"}, {Hierarchy: cgroup.Hierarchy{Name: "systemd"}, Path: "/a/b"}}}
	for _, c := range []struct{ text, err string }{
		{"2:cpu,cpuacct:/a/b\n1:name=systemd:/a/b\n0::/\n", ""},
		{"2:cpu,cpuacct:/host/a/b/init\n1:name=systemd:/a/b\n", ""},
		{"2:cpu,cpuacct:/a/bc\n1:name=systemd:/a/b\n", `cgroup of cpu,cpuacct is "/a/bc", want "/a/b"`},
		{"2:cpu,cpuacct:/a/b\n1:name=systemd:/\n", `cgroup of systemd is "/", want "/a/b"`},
		{"1:name=systemd:/a/b\n", "it has no cgroup of cpu,cpuacct"},
	} {
		err := inGroup(c.text, g)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: error %v, want %q", c.text, err, c.err)
		}
	}
}
