package seccomp

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

var goarchs = []string{"386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x"}

// compare runs the program and the naive evaluator over every architecture, the numbers around those that any table has,
// and the corners of the arguments that the profile looks at.
func compare(t *testing.T, s *specs.LinuxSeccomp, goarch string, every bool, rnd *rand.Rand) {
	t.Helper()
	f, err := Compile(s, goarch)
	if err != nil {
		t.Fatal(err)
	}
	if err := check(f.Program); err != nil {
		t.Fatal(err)
	}
	tokens := map[uint32]bool{0xdeadbeef: true}
	for _, a := range archs {
		tokens[a.token] = true
	}
	values := corners(s)
	native := findArch(must(machineOf(goarch)).native)
	for token := range tokens {
		d, withArgs := data{arch: token}, argNumbers(s, token)
		for _, nr := range numbersToTry(s, token, every && f.Program != nil && related(token, native)) {
			d.nr = nr
			expect := naive(s, goarch, token, nr)
			rounds := 1 + 4*len(values)
			if !withArgs[nr] {
				rounds = 2
			}
			for round := range rounds {
				d.args = [6]uint64{}
				if round > 0 { // every value on every argument at least once, the rest by chance
					for i := range d.args {
						d.args[i] = values[rnd.IntN(len(values))]
					}
					d.args[round%6] = values[round/4%len(values)]
					if rnd.IntN(3) == 0 {
						d.args[0] = uint64(rnd.IntN(26)) | uint64(rnd.IntN(2))<<16
					}
				}
				got, _ := run(f.Program, &d, f.machine.bigEndian)
				if want := expect(&d); got != want {
					j, _ := json.Marshal(s)
					t.Fatalf("%s arch %#x nr %#x args %#x: program says %#x, naive %#x\n%s", goarch, d.arch, d.nr, d.args, got, want, j)
				}
				if !every && round > 24 {
					break
				}
			}
		}
	}
}

// argNumbers lists the numbers whose answers may depend on the arguments.
func argNumbers(s *specs.LinuxSeccomp, token uint32) map[uint32]bool {
	names := []string{"socketcall", "ipc"}
	for _, r := range s.Syscalls {
		if len(r.Args) > 0 {
			names = append(names, r.Names...)
		}
	}
	set := map[uint32]bool{}
	for i := range archs {
		for _, n := range names {
			if id := lookup(n); id >= 0 && archs[i].token == token && archs[i].column >= 0 {
				if nr, ok := archs[i].number(id); ok {
					set[nr] = true
				}
			}
		}
	}
	return set
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func related(token uint32, native *arch) bool {
	return slices.ContainsFunc(archs[:], func(a arch) bool { return a.token == token && a.family == native.family })
}

// numbersToTry lists the numbers of the profile's names with their neighbours and the edges; with every, all up to the
// newest.
func numbersToTry(s *specs.LinuxSeccomp, token uint32, every bool) []uint32 {
	list := []uint32{0, 1, 600, 9999, 0xeffff, 0xf0000, 0xf0007, 0x3fffffff, 0x40000000, 0x40000600, 0x7fffffff, 0x80000000, 0xffffffff}
	for i := range archs {
		a := &archs[i]
		if a.token != token || a.column < 0 {
			continue
		}
		if every {
			for nr := a.base; nr < a.base+560; nr++ {
				list = append(list, nr)
			}
		}
		for _, n := range []string{"socketcall", "ipc"} {
			if nr, ok := a.number(lookup(n)); ok {
				list = append(list, nr)
			}
		}
		for _, r := range s.Syscalls {
			for _, n := range r.Names {
				if id := lookup(n); id >= 0 {
					if nr, ok := a.number(id); ok {
						list = append(list, nr-1, nr, nr+1)
					}
				}
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// corners are the values around those that the profile compares with, in both halves.
func corners(s *specs.LinuxSeccomp) []uint64 {
	list := []uint64{0, 1, 0xffffffff, 1 << 32, ^uint64(0)}
	for _, r := range s.Syscalls {
		for _, a := range r.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				list = append(list, v, v-1, v+1, v^1<<32, v^1<<63, v-1<<32, v+1<<32, v&0xffffffff, v>>32<<32, v|0xffffffff, v|0xffffffff<<32, ^v)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// dockerLike has the shape of Docker's default profile, written from what it is known to do: a long list of allowed
// calls, argument rules for personality, clone and socket, ENOSYS for clone3, everything else EPERM.
func dockerLike() *specs.LinuxSeccomp {
	denied := []string{"acct", "add_key", "bpf", "clone", "clone3", "clock_settime", "clock_settime64", "create_module", "delete_module",
		"finit_module", "get_kernel_syms", "get_mempolicy", "init_module", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load",
		"keyctl", "lookup_dcookie", "mbind", "mount", "mount_setattr", "move_mount", "move_pages", "name_to_handle_at", "nfsservctl", "open_by_handle_at",
		"open_tree", "perf_event_open", "personality", "pivot_root", "process_vm_readv", "process_vm_writev", "quotactl", "query_module",
		"reboot", "request_key", "set_mempolicy", "setns", "settimeofday", "socket", "stime", "swapon", "swapoff", "sysfs", "_sysctl", "umount",
		"umount2", "unshare", "uselib", "userfaultfd", "ustat", "vm86", "vm86old", "fsopen", "fsmount", "fsconfig", "fspick", "io_uring_setup",
		"io_uring_enter", "io_uring_register", "chroot", "fanotify_init", "syslog", "vhangup", "listns", "rseq_slice_yield", "file_setattr",
		"quotactl_fd", "lsm_set_self_attr", "setdomainname", "sethostname"}
	var allowed []string
	for i := range numNames {
		if n := nameAt(i); !slices.Contains(denied, n) {
			allowed = append(allowed, n)
		}
	}
	one, nosys := uint(1), uint(38)
	arg := func(i uint, op specs.LinuxSeccompOperator, v, w uint64) []specs.LinuxSeccompArg {
		return []specs.LinuxSeccompArg{{Index: i, Op: op, Value: v, ValueTwo: w}}
	}
	s := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: &one,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls: []specs.LinuxSyscall{
			{Names: allowed, Action: specs.ActAllow},
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: arg(0, specs.OpLessThan, 38, 0)},
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: arg(0, specs.OpEqualTo, 39, 0)},
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: arg(0, specs.OpGreaterThan, 40, 0)},
			{Names: []string{"clone"}, Action: specs.ActAllow, Args: arg(0, specs.OpMaskedEqual, 0x7e020000, 0)},
			{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &nosys},
		},
	}
	for _, v := range []uint64{0, 8, 0x20000, 0x20008, 0xffffffff} {
		s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{"personality"}, Action: specs.ActAllow, Args: arg(0, specs.OpEqualTo, v, 0)})
	}
	return s
}

// randomProfile makes rules that meet each other: few names, few values, all actions and operators.
func randomProfile(rnd *rand.Rand) *specs.LinuxSeccomp {
	names := []string{"read", "write", "socket", "bind", "socketcall", "ipc", "semop", "clone", "mkdir", "openat", "listns", "cacheflush",
		"set_tls", "personality", "rt_sigaction", "send", "syscalls-of-the-future", "statmount", "close"}
	values := []uint64{0, 1, 7, 38, 40, 0xffffffff, 1 << 32, 1<<32 | 7, 1 << 63, ^uint64(0), 0xf0, rnd.Uint64(), uint64(rnd.Uint32())}
	acts := []specs.LinuxSeccompAction{specs.ActKill, specs.ActKillProcess, specs.ActTrap, specs.ActErrno, specs.ActErrno, specs.ActTrace,
		specs.ActAllow, specs.ActAllow, specs.ActAllow, specs.ActLog, specs.ActNotify}
	s := &specs.LinuxSeccomp{ListenerPath: "/agent"}
	pick := func(notify bool) (specs.LinuxSeccompAction, *uint) {
		act := acts[rnd.IntN(len(acts))]
		if act == specs.ActNotify && !notify {
			act = specs.ActErrno
		}
		if act != specs.ActErrno && act != specs.ActTrace || rnd.IntN(3) == 0 {
			return act, nil
		}
		e := uint(rnd.IntN(3))
		return act, &e
	}
	s.DefaultAction, s.DefaultErrnoRet = pick(false)
	for _, a := range archs {
		if rnd.IntN(2) == 0 {
			s.Architectures = append(s.Architectures, a.name)
		}
	}
	for range rnd.IntN(12) {
		var r specs.LinuxSyscall
		for range 1 + rnd.IntN(3) {
			r.Names = append(r.Names, names[rnd.IntN(len(names))])
		}
		r.Action, r.ErrnoRet = pick(!slices.Contains(r.Names, "write"))
		for range rnd.IntN(4) {
			r.Args = append(r.Args, specs.LinuxSeccompArg{Index: uint(rnd.IntN(6)), Op: operators[rnd.IntN(len(operators))],
				Value: values[rnd.IntN(len(values))], ValueTwo: values[rnd.IntN(len(values))]})
		}
		s.Syscalls = append(s.Syscalls, r)
	}
	return s
}

func TestCompareRandom(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		compare(t, randomProfile(rnd), goarchs[seed%uint64(len(goarchs))], false, rnd)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestCompareLong has programs of thousands of instructions, whose jumps are too long for one, and many rules for one call.
func TestCompareLong(t *testing.T) {
	longest := 0
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		s := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86}}
		for i := range numNames * 2 {
			e := uint(rnd.IntN(40))
			r := specs.LinuxSyscall{Names: []string{nameAt(i / 2)}, Action: specs.ActErrno, ErrnoRet: &e}
			if rnd.IntN(6) < int(seed/2) {
				if seed%2 == 0 {
					r.Names[0] = nameAt(40 + i%20)
				}
				if rnd.IntN(3) == 0 {
					r.Action = specs.ActTrace
				}
				r.Args = []specs.LinuxSeccompArg{{Index: uint(rnd.IntN(6)), Op: operators[rnd.IntN(len(operators))], Value: uint64(e)}}
			}
			s.Syscalls = append(s.Syscalls, r)
		}
		goarch := []string{"amd64", "386", "s390x"}[seed%3]
		compare(t, s, goarch, false, rnd)
		longest = max(longest, len(must(Compile(s, goarch)).Program))
	}
	if longest < 1500 {
		t.Errorf("the longest program has only %d instructions", longest)
	}
}

// TestCompareOperators meets each operator with each corner on each argument of each machine's byte order.
func TestCompareOperators(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, goarch := range []string{"amd64", "s390x", "386", "mips"} {
		for _, op := range operators {
			for i, v := range []uint64{0, 5, 0xffffffff, 1 << 32, 5<<32 | 5, 1 << 63, ^uint64(0)} {
				t.Run(fmt.Sprintf("%s/%s/%#x", goarch, op, v), func(t *testing.T) {
					compare(t, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{
						Names: []string{"getpid"}, Action: specs.ActAllow,
						Args: []specs.LinuxSeccompArg{{Index: uint(i % 6), Op: op, Value: v, ValueTwo: v & 0x100000005}}}}}, goarch, false, rnd)
				})
			}
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	s := dockerLike()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(s, "amd64"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestQuality keeps the program of Docker's profile short, in length and on the way of common calls.
func TestQuality(t *testing.T) {
	f, err := Compile(dockerLike(), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	common := []uint32{0, 1, 3, 9, 202, 232, 257, 262} // read write close mmap futex epoll_wait openat newfstatat
	for _, nr := range common {
		ret, steps := run(f.Program, &data{nr: nr, arch: 0xc000003e}, false)
		if ret != retAllow {
			t.Errorf("call %d: %#x", nr, ret)
		}
		total += steps
	}
	t.Logf("%d instructions, %.1f for a common call", len(f.Program), float64(total)/float64(len(common)))
	if len(f.Program) > 500 || total > 12*len(common) {
		t.Errorf("%d instructions, %.1f for a common call", len(f.Program), float64(total)/float64(len(common)))
	}
}
