package vm

import (
	"os"
	"path"
	"runtime"
	"strings"
	"testing"
)

// unitPackages are those whose own tests depend on the kernel or on the architecture: system calls, and code in
// assembly. Not internal/sys/rtnetlink, which compares lifetimes of addresses in seconds: an emulated machine is too
// slow. Rows ND of test/runtime run.
var unitPackages = []string{
	"internal/sys/beneath", "internal/sys/descriptor", "internal/sys/flock", "internal/sys/fsat", "internal/sys/kernel", "internal/sys/mount",
	"internal/sys/pidfd", "internal/sys/pty", "internal/sys/signalpipe", "internal/sys/signals", "internal/sys/unixsock",
	"runtime/console", "runtime/launch", "runtime/seccomp",
}

// unitTools are programs of the host that tests of a package run, where busybox has others: machines of other
// architectures do not run these packages.
var unitTools = map[string][]string{"runtime/console": {"stty", "grep", "dash"}}

// runUnits executes the test binaries of /units, and says which failed. Of the seccomp compiler's tests those that need
// a kernel run: the others compute, and take minutes in an emulated machine.
const runUnits = `s=0
for f in /units/*; do
	case $f in *runtime-seccomp) r=TestKernel ;; *) r=. ;; esac
	echo "== $f"; mkdir /tmp/w; cd /tmp/w
	$f -test.v -test.timeout 9m -test.run $r || { echo "failed: $f"; s=1; }
	cd /; rm -rf /tmp/w
done
exit $s`

// TestUnits runs the unit tests of unitPackages on every kernel, in one machine each.
func TestUnits(t *testing.T) {
	if os.Getenv("TARE_VM") != "1" {
		t.Skip("takes minutes; TARE_VM=1 runs it (make test-vm)")
	}
	for name, pkg := range Kernels {
		t.Run(name, func(t *testing.T) {
			k := kernelFor(t, pkg)
			m := Machine{Kernel: k, Memory: 2000, Files: map[string]string{}, Modules: []string{"veth", "dummy", "bridge", "overlay"}}
			for _, p := range unitPackages {
				if tools := unitTools[p]; tools != nil && k.Arch != runtime.GOARCH {
					t.Logf("%s: not on %s: it needs %s of that architecture", p, k.Arch, strings.Join(tools, ", "))
					continue
				}
				m.Programs = append(m.Programs, unitTools[p]...)
				m.Files["/units/"+strings.ReplaceAll(path.Clean(p), "/", "-")] = testBinary(t, p, k.Arch)
			}
			if len(m.Programs) > 0 {
				m.Files["/bin/sh"] = "/bin/dash" // busybox's shell runs its own programs in place of the host's
			}
			r := run(t, m, "sh", "-c", runUnits)
			if r.Status != 0 {
				t.Errorf("status %d\n%s", r.Status, failures(r.Output))
			}
			for line := range strings.Lines(r.Output) {
				if strings.Contains(line, "SKIP") {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}
