package vm

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// run boots a machine for a test, and skips where that cannot be.
func run(t *testing.T, m Machine, argv ...string) *Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Minute)
	defer cancel()
	r, err := m.Run(ctx, argv...)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Output)
	}
	return r
}

// testBinary builds the test binary of a package for an architecture.
func testBinary(t *testing.T, pkg, arch string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "test")
	cmd := exec.Command("go", "test", "-c", "-trimpath", "-o", bin, "github.com/tare-oci/tare/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c %s: %v\n%s", pkg, err, out)
	}
	return bin
}

// The harness itself, on each architecture: output, status, files, layout.
// kernelFor returns a kernel, or skips the test where it cannot be had.
func kernelFor(t *testing.T, p Package) *Kernel {
	t.Helper()
	k, err := FindKernel(p)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestMachine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("from the host\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	for name, uname := range map[string]string{"release": "x86_64", "arm64": "aarch64"} {
		t.Run(name, func(t *testing.T) {
			k := kernelFor(t, Kernels[name])
			m := Machine{Kernel: k, Files: map[string]string{"/data/deep/file": file}, Env: []string{"X=it's"}, Dir: "/data"}
			r := run(t, m, "sh", "-c", `echo "$X"; cat deep/file; stat -c %a deep/file; grep -c cgroup2 /proc/mounts; id -u; uname -m; exit 7`)
			if want := "it's\nfrom the host\n640\n1\n0\n" + uname + "\n"; r.Output != want || r.Status != 7 {
				t.Errorf("status %d, output %q", r.Status, r.Output)
			}
		})
	}
}

// suite is a package whose tests run in machines.
type suite struct {
	pkg     string
	quick   string   // the part that runs with `make test` too
	v2      []string // the parts for cgroup v2, each in a machine of its own
	hybrid  []string // the parts for the hybrid layout
	arm64   []string // the parts for an arm64 machine, which has cgroup v2 and busybox but no programs of the host
	runtime bool     // it drives tare-runtime
	modules []string
	tools   []string // programs of the host that it needs, with their libraries
	files   []string // what it needs of the repository, at its place below /
	scratch bool     // it needs a file system for files besides a tmpfs
	memory  int      // MiB, if 768 are too few
}

var (
	// criu runs tar and gzip, and sees which modules a kernel has by trying.
	criuTools   = []string{"criu", "tar", "gzip", "iptables-restore", "ip6tables-restore"}
	criuModules = []string{"nf_tables", "nf_conntrack_netlink", "veth", "tun", "unix_diag", "inet_diag", "tcp_diag", "udp_diag", "raw_diag",
		"netlink_diag", "af_packet_diag"}
	hostTools = []string{"dash", "jq", "unshare", "ip", "nsenter", "timeout", "env", "ps", "chown", "chmod", "mknod", "taskset", "apparmor_parser"}
	// validationTools are programs by which the validation of the runtime-tools is run.
	validationTools = []string{"dash", "unshare", "ip", "cp", "tar", "gzip", "mount", "apparmor_parser"}
)

var suites = []suite{
	{pkg: "runtime/cgroup", quick: "Lifecycle|ApplyAndUpdate|Devices|FreezeAndKill|DestroyFrozenTree|RollsBack", modules: []string{"loop"},
		v2: []string{"."}, hybrid: []string{"."}, arm64: []string{"."}},
	{pkg: "test/runtime", quick: "^TestV2(Inside|Exec|Lifecycle|Rootless)$|^TestV2Limits$/^C23|^TestAppArmor$", runtime: true,
		modules: []string{"loop", "overlay", "veth", "dummy", "bridge"}, tools: hostTools, scratch: true, memory: 1500,
		v2: []string{"."}, hybrid: []string{"."},
		arm64: []string{"^Test(V2.*|Run.*|Exec.*|Seccomp.*|Terminal|Signals|Namespaces|OldKernel|KillDelete|Foreground.*|Mounts|Devices|Rootless.*|Rules)$"}},
	{pkg: "test/escape", runtime: true, modules: []string{"loop", "overlay", "veth"}, tools: hostTools, scratch: true, memory: 1500,
		v2: []string{"."}, hybrid: []string{"."}},
	{pkg: "test/conformance", runtime: true, modules: []string{"veth", "bfq"}, tools: validationTools, files: []string{".cache/bin/runtime-tools"}, scratch: true,
		memory: 2048, hybrid: []string{"^TestValidation$"}},
	{pkg: "test/criu", quick: "^TestCheckpoint$", runtime: true, tools: criuTools, modules: criuModules,
		v2:     []string{"^TestDestination", "^Test(Checkpoint|Hostile|Restore)"},
		hybrid: []string{"^TestDestination", "^Test(Checkpoint|Hostile|Restore)"}},
	{pkg: "runtime/lifecycle", tools: criuTools, modules: criuModules, v2: []string{"^TestFaultRestore$"}},
}

// machine adds the suite's test binary and what it drives to a machine.
func (s *suite) machine(t *testing.T, m Machine, arch string) Machine {
	m.Modules, m.Memory, m.Scratch = s.modules, max(s.memory, 768), s.scratch
	m.Files = map[string]string{"/test": testBinary(t, s.pkg, arch)}
	if s.runtime {
		m.Files["/usr/bin/tare-runtime"] = tareRuntime(t, arch)
		m.Env = append(m.Env, "TARE_RUNTIME=/usr/bin/tare-runtime")
	}
	if m.Programs = s.tools; slices.Contains(s.tools, "dash") {
		m.Files["/bin/sh"] = "/bin/dash" // the shell of the host, in place of busybox
	}
	cache, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range s.files {
		m.Files["/"+name] = filepath.Join(cache, "../..", name) // tests run in /, and "/.." is "/"
	}
	return m
}

// tareRuntime is the tare-runtime that TARE_RUNTIME names, or one that is built.
func tareRuntime(t *testing.T, arch string) string {
	if bin := os.Getenv("TARE_RUNTIME"); strings.HasSuffix(bin, "/tare-runtime") && arch == runtime.GOARCH {
		return bin
	}
	bin := filepath.Join(t.TempDir(), "tare-runtime")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -E tare_entry", "-o", bin, "github.com/tare-oci/tare/cmd/tare-runtime")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build tare-runtime: %v\n%s", err, out)
	}
	return bin
}

// TestQuick runs the tests that matter most on the default kernel.
func TestQuick(t *testing.T) {
	for _, s := range suites {
		if s.quick == "" {
			continue
		}
		t.Run(s.pkg, func(t *testing.T) {
			r := run(t, s.machine(t, Machine{}, runtime.GOARCH), "/test", "-test.run", s.quick)
			if r.Status != 0 {
				t.Errorf("status %d\n%s", r.Status, r.Output)
			}
		})
	}
}

// TestAll runs everything on every kernel and cgroup layout.
func TestAll(t *testing.T) {
	if os.Getenv("TARE_VM") != "1" {
		t.Skip("takes minutes; TARE_VM=1 runs it (make test-vm)")
	}
	for _, name := range slices.Sorted(maps.Keys(Kernels)) {
		t.Run(name, func(t *testing.T) {
			k := kernelFor(t, Kernels[name])
			for _, s := range suites {
				layouts := map[Cgroups][]string{CgroupV2: s.v2, CgroupHybrid: s.hybrid}
				if k.Arch != runtime.GOARCH {
					layouts = map[Cgroups][]string{CgroupV2: s.arm64}
					s.tools = nil
				}
				m := s.machine(t, Machine{Kernel: k}, k.Arch)
				for layout, parts := range layouts {
					m.Cgroups = layout
					for _, part := range parts {
						t.Run(string(layout)+"/"+s.pkg+"/"+strings.Trim(part, "^$"), func(t *testing.T) {
							runPart(t, m, part, strings.ReplaceAll(name+"-"+string(layout)+"-"+s.pkg, "/", "-"))
						})
					}
				}
			}
		})
	}
}

// keepResults writes the output of a run as `go test -json` has it to a file of the directory TARE_VM_RESULTS, if that
// is set, for internal/tools/runtimerows.
func keepResults(t *testing.T, name, output string) {
	dir := os.Getenv("TARE_VM_RESULTS")
	if dir == "" {
		return
	}
	cmd := exec.Command("go", "tool", "test2json")
	cmd.Stdin = strings.NewReader(output)
	out, err := cmd.Output()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".json"), out, 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// runPart boots a machine and runs the tests that match; the results are kept under a name.
func runPart(t *testing.T, m Machine, tests, name string) {
	r := run(t, m, "/test", "-test.v", "-test.timeout", "39m", "-test.run", tests)
	keepResults(t, name, r.Output)
	if r.Status != 0 {
		t.Errorf("status %d\n%s", r.Status, failures(r.Output))
	}
	for line := range strings.Lines(r.Output) {
		if strings.Contains(line, "SKIP") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// failures leaves out the lines of tests that passed.
func failures(output string) string {
	var out strings.Builder
	for line := range strings.Lines(output) {
		if f := strings.Fields(line); len(f) < 2 || f[1] != "RUN" && f[1] != "PASS:" {
			out.WriteString(line)
		}
	}
	return out.String()
}
