package vm

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// run boots a machine for a test, and skips where that cannot be.
func run(t *testing.T, m Machine, argv ...string) *Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
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

// testBinary builds the test binary of a package.
func testBinary(t *testing.T, pkg string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "test")
	cmd := exec.Command("go", "test", "-c", "-trimpath", "-o", bin, "github.com/tare-oci/tare/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c %s: %v\n%s", pkg, err, out)
	}
	return bin
}

// The harness itself: output, status, files, layout.
func TestMachine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("from the host\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	r := run(t, Machine{Files: map[string]string{"/data/deep/file": file}, Env: []string{"X=it's"}, Dir: "/data"}, "sh", "-c",
		`echo "$X"; cat deep/file; stat -c %a deep/file; grep -c cgroup2 /proc/mounts; id -u; exit 7`)
	if want := "it's\nfrom the host\n640\n1\n0\n"; r.Output != want || r.Status != 7 {
		t.Errorf("status %d, output %q", r.Status, r.Output)
	}
}

// suite is a package whose tests run in machines.
type suite struct {
	pkg     string
	quick   string   // the part that runs with `make test` too
	v2      []string // the parts for cgroup v2, each in a machine of its own
	hybrid  []string // the parts for the hybrid layout
	runtime bool     // it drives tare-runtime
	modules []string
	tools   []string // programs of the host that it needs, with their libraries
}

// criu runs tar and gzip, and sees which modules a kernel has by trying.
var (
	criuTools   = []string{"criu", "tar", "gzip", "iptables-restore", "ip6tables-restore"}
	criuModules = []string{"nf_tables", "nf_conntrack_netlink", "veth", "tun", "unix_diag", "inet_diag", "tcp_diag", "udp_diag", "raw_diag",
		"netlink_diag", "af_packet_diag"}
)

var suites = []suite{
	{pkg: "runtime/cgroup", quick: "Lifecycle|ApplyAndUpdate|Devices|FreezeAndKill|DestroyFrozenTree|RollsBack", modules: []string{"loop"},
		v2: []string{"."}, hybrid: []string{"."}},
	{pkg: "test/runtime", quick: "^TestV2(Inside|Exec|Lifecycle|Rootless)$|^TestV2Limits$/^C23", modules: []string{"loop", "overlay"}, runtime: true,
		v2:     []string{"^TestV2", "^(TestExec.*|TestMounts.*|TestRun.*)$", "^(TestSeccomp|TestDevices|TestKillDelete)$", "^(TestRootless|TestNamespaces|TestLifecycle)$"},
		hybrid: []string{"^(TestCgroupInside|TestCgroupPlace|TestDevices|TestKillDelete)$|^TestLimits$/^C(1|2|6|12|13|15|16|21) "}},
	{pkg: "test/criu", quick: "^TestCheckpoint$", runtime: true, tools: criuTools, modules: criuModules,
		v2:     []string{"^TestDestination", "^Test(Checkpoint|Hostile|Restore)"},
		hybrid: []string{"^TestDestination", "^Test(Checkpoint|Hostile|Restore)"}},
	{pkg: "runtime/lifecycle", tools: criuTools, modules: criuModules, v2: []string{"^TestFaultRestore$"}},
}

// machine adds the suite's test binary and what it drives to a machine.
func (s *suite) machine(t *testing.T, m Machine) Machine {
	m.Modules, m.Memory = s.modules, 768
	m.Files = map[string]string{"/test": testBinary(t, s.pkg)}
	if s.runtime {
		m.Files["/usr/bin/tare-runtime"] = tareRuntime(t)
		m.Env = append(m.Env, "TARE_RUNTIME=/usr/bin/tare-runtime")
	}
	m.Programs = s.tools
	return m
}

// tareRuntime is the tare-runtime that TARE_RUNTIME names, or one that is built.
func tareRuntime(t *testing.T) string {
	if bin := os.Getenv("TARE_RUNTIME"); strings.HasSuffix(bin, "/tare-runtime") {
		return bin
	}
	bin := filepath.Join(t.TempDir(), "tare-runtime")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, "github.com/tare-oci/tare/cmd/tare-runtime")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
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
			r := run(t, s.machine(t, Machine{}), "/test", "-test.run", s.quick)
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
	for _, pkg := range Kernels {
		for _, s := range suites {
			m := s.machine(t, Machine{})
			for _, layout := range []Cgroups{CgroupV2, CgroupHybrid} {
				parts := s.v2
				if layout == CgroupHybrid {
					parts = s.hybrid
				}
				for _, part := range parts {
					t.Run(pkg+"/"+string(layout)+"/"+s.pkg+"/"+strings.Trim(part, "^$"), func(t *testing.T) {
						m.Cgroups = layout
						runPart(t, m, pkg, part)
					})
				}
			}
		}
	}
}

// runPart boots a machine with the kernel of a package and runs the tests that match.
func runPart(t *testing.T, m Machine, pkg, tests string) {
	k, err := FindKernel(pkg)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	m.Kernel = k
	r := run(t, m, "/test", "-test.v", "-test.timeout", "9m", "-test.run", tests)
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
