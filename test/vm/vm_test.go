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
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
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

// Packages whose tests run on a real cgroup v2 machine, and their quick part.
var suites = []struct {
	pkg, quick string
	modules    []string
}{
	{"runtime/cgroup", "Lifecycle|ApplyAndUpdate|Devices|FreezeAndKill|DestroyFrozenTree|RollsBack", []string{"loop"}},
}

// TestQuick runs the tests that matter most on the default kernel.
func TestQuick(t *testing.T) {
	for _, s := range suites {
		t.Run(s.pkg, func(t *testing.T) {
			r := run(t, Machine{Modules: s.modules, Files: map[string]string{"/test": testBinary(t, s.pkg)}}, "/test", "-test.run", s.quick)
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
		for _, layout := range []Cgroups{CgroupV2, CgroupHybrid} {
			for _, s := range suites {
				t.Run(pkg+"/"+string(layout)+"/"+s.pkg, func(t *testing.T) {
					k, err := FindKernel(pkg)
					if errors.Is(err, ErrUnavailable) {
						t.Skip(err)
					} else if err != nil {
						t.Fatal(err)
					}
					r := run(t, Machine{Kernel: k, Cgroups: layout, Modules: s.modules, Files: map[string]string{"/test": testBinary(t, s.pkg)}},
						"/test", "-test.v", "-test.timeout", "4m")
					if r.Status != 0 {
						t.Errorf("status %d\n%s", r.Status, r.Output)
					}
					for line := range strings.Lines(r.Output) {
						if strings.Contains(line, "SKIP") {
							t.Log(strings.TrimSpace(line))
						}
					}
				})
			}
		}
	}
}
