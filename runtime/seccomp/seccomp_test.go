package seccomp

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func ptr(v uint) *uint { return &v }

func TestErrors(t *testing.T) {
	rule := func(r specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{r}}
	}
	arg := func(a specs.LinuxSeccompArg) *specs.LinuxSeccomp {
		return rule(specs.LinuxSyscall{Names: []string{"mkdir"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{a}})
	}
	huge := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for i := range uint64(3000) {
		huge.Syscalls = append(huge.Syscalls, specs.LinuxSyscall{Names: []string{"mkdir"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo, Value: i << 31}}})
	}
	for _, c := range []struct {
		s    *specs.LinuxSeccomp
		want string
	}{
		{nil, "no profile"},
		{&specs.LinuxSeccomp{}, `default action: string  is not a valid action for seccomp`},
		{&specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_FOO"}, `default action: string SCMP_ACT_FOO is not a valid action for seccomp`},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, "SCMP_ACT_NOTIFY cannot be used as default action"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, DefaultErrnoRet: ptr(1)}, "default action: action SCMP_ACT_ALLOW takes no errnoRet"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: ptr(4096)}, "default action: errnoRet 4096 of SCMP_ACT_ERRNO is above 4095"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_FOO"}}, `string SCMP_ARCH_FOO is not a valid arch for seccomp`},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"FOO"}}, `unknown flag "FOO"`},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerMetadata: "x"}, "listenerMetadata without listenerPath"},
		{rule(specs.LinuxSyscall{Names: []string{"mkdir"}, Action: specs.ActNotify}), "SCMP_ACT_NOTIFY is used: seccomp listenerPath is not set"},
		{rule(specs.LinuxSyscall{Names: []string{"read", "write"}, Action: specs.ActNotify}), "rule 0 (read): SCMP_ACT_NOTIFY cannot be used for the write syscall"},
		{rule(specs.LinuxSyscall{Action: specs.ActErrno}), "rule 0: empty system call name"},
		{rule(specs.LinuxSyscall{Names: []string{"mkdir", ""}, Action: specs.ActErrno}), "rule 0 (mkdir): empty system call name"},
		{rule(specs.LinuxSyscall{Names: []string{"mkdir"}, Action: "x"}), `rule 0 (mkdir): string x is not a valid action for seccomp`},
		{rule(specs.LinuxSyscall{Names: []string{"mkdir"}, Action: specs.ActKill, ErrnoRet: ptr(1)}), "rule 0 (mkdir): action SCMP_ACT_KILL takes no errnoRet"},
		{rule(specs.LinuxSyscall{Names: []string{"mkdir"}, Action: specs.ActTrace, ErrnoRet: ptr(65536)}), "rule 0 (mkdir): errnoRet 65536 of SCMP_ACT_TRACE is above 65535"},
		{arg(specs.LinuxSeccompArg{Index: 6, Op: specs.OpEqualTo}), "rule 0 (mkdir): argument index 6 is above 5"},
		{arg(specs.LinuxSeccompArg{Op: "SCMP_CMP_FOO"}), `rule 0 (mkdir): unknown operator "SCMP_CMP_FOO"`},
		{huge, "the program has more than 4096 instructions, the kernel's limit"},
	} {
		_, err := Compile(c.s, "amd64")
		if want := "compile seccomp profile: " + c.want; err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if _, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, "vax"); err == nil || !strings.Contains(err.Error(), `machine "vax"`) {
		t.Errorf("unknown machine: %v", err)
	}
}

func TestFlags(t *testing.T) {
	const path = "/run/agent"
	for _, c := range []struct {
		flags  []specs.LinuxSeccompFlag
		notify bool
		want   uint32
	}{
		{nil, false, 4},
		{[]specs.LinuxSeccompFlag{}, false, 0},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_LOG"}, false, 2},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"}, false, 5},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}, true, 1 | 8 | 16},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}, true, 8 | 32},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}, false, 0},
		{nil, true, 4 | 8},
	} {
		s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: c.flags, ListenerPath: path, ListenerMetadata: "m"}
		if c.notify {
			s.Syscalls = []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}
		}
		f, err := Compile(s, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		wantPath := ""
		if c.notify {
			wantPath = path
		}
		if f.Flags != c.want || f.Notify != c.notify || f.ListenerPath != wantPath || (f.ListenerMetadata != "") != c.notify {
			t.Errorf("%v notify %v: flags %#x want %#x, %+v", c.flags, c.notify, f.Flags, c.want, f)
		}
	}
}

func TestWarnings(t *testing.T) {
	f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"mkdir", "mkdri", "mkdri", "s390_pci_mmio_read"}, Action: specs.ActAllow},
		{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: specs.OpNotEqual, Value: 1}, {Op: specs.OpNotEqual, Value: 2}}},
	}}, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{`rule 1 (socket): conditions on the same argument are joined by "or"`, `unknown system call "mkdri" is ignored`}; !slices.Equal(f.Warnings, want) {
		t.Errorf("warnings %q, want %q", f.Warnings, want)
	}
}

// TestMeaning spells out sentences of the package's documentation.
func TestMeaning(t *testing.T) {
	const x8664, i386 = 0xc000003e, 0x40000003
	errnoRule := func(name string, data uint, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActErrno, ErrnoRet: &data, Args: args}
	}
	allow := func(name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: args}
	}
	eq := func(i uint, v uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: i, Value: v, Op: specs.OpEqualTo}
	}
	ne := func(i uint, v uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: i, Value: v, Op: specs.OpNotEqual}
	}
	newest := allow("listns") // so that nothing below is newer than the profile
	for _, c := range []struct {
		name  string
		def   specs.LinuxSeccompAction
		rules []specs.LinuxSyscall
		call  data
		want  uint32
	}{
		{"rule equal to the default shadows", "SCMP_ACT_ERRNO", []specs.LinuxSyscall{errnoRule("socket", 1, eq(0, 38)), allow("socket"), newest},
			data{41, x8664, [6]uint64{38}}, retErrno | 1},
		{"and lets the others through", "SCMP_ACT_ERRNO", []specs.LinuxSyscall{errnoRule("socket", 1, eq(0, 38)), allow("socket"), newest},
			data{41, x8664, [6]uint64{2}}, retAllow},
		{"first rule without conditions", "SCMP_ACT_ERRNO", []specs.LinuxSyscall{allow("mkdir"), errnoRule("mkdir", 5), newest}, data{83, x8664, [6]uint64{}}, retAllow},
		{"repeat of a default of ALLOW", "SCMP_ACT_ALLOW", []specs.LinuxSyscall{allow("mkdir"), errnoRule("mkdir", 5)}, data{83, x8664, [6]uint64{}}, retErrno | 5},
		{"two conditions on one argument", "SCMP_ACT_ERRNO", []specs.LinuxSyscall{allow("socket", ne(0, 38), ne(0, 40)), newest}, data{41, x8664, [6]uint64{38}}, retAllow},
		{"conditions on two", "SCMP_ACT_ERRNO", []specs.LinuxSyscall{allow("socket", ne(0, 38), ne(1, 40)), newest}, data{41, x8664, [6]uint64{38}}, retErrno | 1},
		{"socketcall is not allowed by socket", "SCMP_ACT_ERRNO", []specs.LinuxSyscall{allow("socket", ne(0, 38)), newest}, data{102, i386, [6]uint64{1}}, retErrno | 1},
		{"socketcall is refused by socket", "SCMP_ACT_ALLOW", []specs.LinuxSyscall{errnoRule("socket", 5)}, data{102, i386, [6]uint64{1}}, retErrno | 5},
		{"even where it is allowed", "SCMP_ACT_ERRNO", []specs.LinuxSyscall{errnoRule("send", 5), allow("socketcall"), newest}, data{102, i386, [6]uint64{9}}, retErrno | 5},
		{"but only that", "SCMP_ACT_ERRNO", []specs.LinuxSyscall{errnoRule("send", 5), allow("socketcall"), newest}, data{102, i386, [6]uint64{1}}, retAllow},
		{"ipc with a version", "SCMP_ACT_ALLOW", []specs.LinuxSyscall{errnoRule("msgrcv", 5)}, data{117, i386, [6]uint64{1<<16 | 12}}, retErrno | 5},
		{"newer than the profile", "SCMP_ACT_ERRNO", []specs.LinuxSyscall{allow("mkdir")}, data{84, x8664, [6]uint64{}}, retErrno | 38},
		{"older than the profile", "SCMP_ACT_ERRNO", []specs.LinuxSyscall{allow("mkdir")}, data{82, x8664, [6]uint64{}}, retErrno | 1},
		{"socketcall newer than the profile", "SCMP_ACT_ERRNO", []specs.LinuxSyscall{errnoRule("send", 5), allow("read")}, data{102, i386, [6]uint64{9}}, retErrno | 38},
		{"newer, default KILL_PROCESS", "SCMP_ACT_KILL_PROCESS", []specs.LinuxSyscall{allow("mkdir")}, data{84, x8664, [6]uint64{}}, retErrno | 38},
		{"newer, default LOG", "SCMP_ACT_LOG", []specs.LinuxSyscall{allow("mkdir")}, data{9999, x8664, [6]uint64{}}, retLog},
		{"x32 not listed", "SCMP_ACT_ALLOW", nil, data{0x40000000 | 39, x8664, [6]uint64{}}, retErrno | 38},
		{"architecture not listed", "SCMP_ACT_ALLOW", nil, data{83, 0xc00000b7, [6]uint64{}}, retKillProcess},
	} {
		f, err := Compile(&specs.LinuxSeccomp{DefaultAction: c.def, Architectures: []specs.Arch{specs.ArchX86}, Syscalls: c.rules}, "amd64")
		if err != nil {
			t.Fatal(c.name, err)
		}
		if got, _ := run(f.Program, &c.call, false); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
}

// TestNumbers compares some numbers with what the manual pages and headers say.
func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		arch specs.Arch
		name string
		nr   uint32
	}{
		{"SCMP_ARCH_X86_64", "read", 0}, {"SCMP_ARCH_X86_64", "listns", 470}, {"SCMP_ARCH_X86", "socketcall", 102},
		{"SCMP_ARCH_X86", "clock_gettime64", 403}, {"SCMP_ARCH_X32", "read", 0x40000000}, {"SCMP_ARCH_X32", "rt_sigaction", 0x40000200},
		{"SCMP_ARCH_X32", "mseal", 0x40000000 + 462}, {"SCMP_ARCH_ARM", "set_tls", 0xf0005}, {"SCMP_ARCH_ARM", "sync_file_range2", 341},
		{"SCMP_ARCH_AARCH64", "openat", 56}, {"SCMP_ARCH_MIPS", "read", 4003}, {"SCMP_ARCH_MIPSEL64", "read", 5000},
		{"SCMP_ARCH_MIPS64N32", "read", 6000}, {"SCMP_ARCH_MIPS64N32", "statmount", 6457}, {"SCMP_ARCH_PPC64LE", "clone3", 435},
		{"SCMP_ARCH_S390", "socketcall", 102}, {"SCMP_ARCH_S390X", "file_setattr", 469}, {"SCMP_ARCH_RISCV64", "riscv_hwprobe", 258},
		{"SCMP_ARCH_LOONGARCH64", "open_tree_attr", 467}, {"SCMP_ARCH_AARCH64", "setxattrat", 463}, {"SCMP_ARCH_PPC", "lsm_list_modules", 461},
	} {
		if nr, ok := findArch(c.arch).number(lookup(c.name)); !ok || nr != c.nr {
			t.Errorf("%s %s: %d, want %d", c.arch, c.name, nr, c.nr)
		}
	}
	if _, ok := findArch("SCMP_ARCH_AARCH64").number(lookup("open")); ok {
		t.Error("arm64 has open")
	}
	for i := 1; i < numNames; i++ {
		if nameAt(i-1) >= nameAt(i) || lookup(nameAt(i)) != i {
			t.Errorf("name %q out of order", nameAt(i))
		}
	}
	for _, m := range multiplexed {
		if lookup(m.name) < 0 || lookup(m.by) < 0 {
			t.Errorf("%+v: no such name", m)
		}
	}
}

func TestLists(t *testing.T) {
	for _, c := range []struct {
		list []string
		n    int
	}{{Actions(), 9}, {Operators(), 7}, {Archs(), 23}, {Flags(), 4}} {
		if len(c.list) != c.n || !slices.IsSorted(c.list) {
			t.Errorf("%q", c.list)
		}
	}
}

func TestAppendBytes(t *testing.T) {
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for goarch, want := range map[string]string{"arm64": "20000000" + "04000000", "s390x": "00200000" + "00000004"} {
		f, err := Compile(s, goarch)
		if err != nil {
			t.Fatal(err)
		}
		b := f.AppendBytes([]byte("x"))
		if len(b) != 1+8*len(f.Program) || !bytes.HasPrefix(b, []byte("x")) || fmt.Sprintf("%x", b[1:9]) != want {
			t.Errorf("%s: %x", goarch, b)
		}
	}
}

// TestJumpDistance has jumps around the longest that one instruction can make, to answers and to code, with either label
// the farther one.
func TestJumpDistance(t *testing.T) {
	for gap := range 20 {
		for _, c := range []struct{ yesFirst, code bool }{{true, false}, {false, false}, {true, true}, {false, true}} {
			a := &assembler{}
			target := func(k uint32) label {
				l := a.ret(k)
				if c.code {
					l = a.load(offNumber)
				}
				return l
			}
			pad := func(n int) {
				for range n {
					a.emit(Instruction{Code: opJump})
				}
			}
			var yes, no label
			if c.yesFirst {
				yes = target(1)
				pad(3)
				no = target(2)
			} else {
				no = target(2)
				pad(3)
				yes = target(1)
			}
			pad(240 + gap)
			a.jump(opEqual, 7, yes, no)
			a.load(offNumber)
			slices.Reverse(a.rev)
			if err := check(a.rev); err != nil {
				t.Fatal(err)
			}
			for nr, want := range map[uint32]uint32{7: 1, 8: 2} {
				if got, _ := run(a.rev, &data{nr: nr}, false); got != want {
					t.Errorf("gap %d, %+v: call %d gets %d, want %d", gap, c, nr, got, want)
				}
			}
		}
	}
}
