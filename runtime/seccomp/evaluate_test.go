package seccomp

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestRefused asks what a filter lets happen: the answers that come without another process's help, for exactly the arguments
// given, on the machine's own architecture.
func TestRefused(t *testing.T) {
	mask := []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpMaskedEqual, Value: 0x7e020000}}
	rule := func(action specs.LinuxSeccompAction, args []specs.LinuxSeccompArg, names ...string) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: names, Action: action, Args: args}
	}
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, ListenerPath: "/agent", Syscalls: []specs.LinuxSyscall{
		rule(specs.ActAllow, nil, "execve", "exit_group", "open"), rule(specs.ActLog, nil, "read"), rule(specs.ActAllow, mask, "clone"),
		rule(specs.ActNotify, nil, "setsid"), rule(specs.ActTrace, nil, "dup3"), rule(specs.ActKill, nil, "close_range"),
		rule(specs.ActErrno, nil, "write"), rule(specs.ActAllow, nil, "listns")}}
	for _, goarch := range []string{"amd64", "arm64", "s390x", "386"} {
		f, err := Compile(s, goarch)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			call    Call
			allowed bool
		}{
			{Call{Name: "execve"}, true}, {Call{Name: "read"}, true}, {Call{Name: "exit_group", Args: [6]uint64{1}}, true},
			{Call{Name: "clone", Args: [6]uint64{17}}, true}, {Call{Name: "clone", Args: [6]uint64{0x10000011}}, false},
			{Call{Name: "setsid"}, false}, {Call{Name: "dup3"}, false}, {Call{Name: "close_range"}, false}, {Call{Name: "write"}, false},
			{Call{Name: "mkdirat"}, false}, {Call{Name: "no_such_call"}, false}, {Call{Name: "open"}, goarch != "arm64"},
		} {
			want := c.call.Name
			if c.allowed {
				want = ""
			}
			if got := f.Refused(Call{Name: "execve"}, c.call); got != want {
				t.Errorf("%s: %+v: refused %q, want %q", goarch, c.call, got, want)
			}
		}
	}
}

// TestAction asks for other architectures than the machine's own.
func TestAction(t *testing.T) {
	nosys := uint(38)
	f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActErrno, ErrnoRet: &nosys}}}, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		arch specs.Arch
		nr   uint32
		want uint32
	}{
		{specs.ArchX86_64, 83, retErrno | 38}, {specs.ArchX86, 39, retErrno | 38}, {specs.ArchX86, 83, retAllow},
		{specs.ArchX32, 0x40000053, retErrno | 38}, {specs.ArchARM, 39, retKillProcess}, {"SCMP_ARCH_VAX", 39, retKillProcess},
	} {
		if got := f.Action(c.arch, c.nr, [6]uint64{}); got != c.want {
			t.Errorf("%s %d: %#x, want %#x", c.arch, c.nr, got, c.want)
		}
	}
	// What the kernel would refuse to load answers as a killed process and ends.
	for _, p := range [][]Instruction{nil, {{Code: 0xff}}, {{Code: opJump, K: 0xffffffff}}, {{Code: opEqual, JT: 9, JF: 9}}, {{Code: opLoad, K: 400}}} {
		if got, _ := run(p, &data{}, false); got != retKillProcess {
			t.Errorf("%v: %#x", p, got)
		}
	}
}
