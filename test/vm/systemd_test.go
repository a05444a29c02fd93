package vm

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// TestSystemd runs the suite of the systemd driver on a Debian with systemd as init, on both layouts of cgroups.
func TestSystemd(t *testing.T) {
	if os.Getenv("TARE_VM") != "1" {
		t.Skip("takes minutes; TARE_VM=1 runs it (make test-vm)")
	}
	disk, err := SystemdDisk()
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"/test": testBinary(t, "test/systemd", runtime.GOARCH), "/usr/bin/tare-runtime": tareRuntime(t, runtime.GOARCH), "/usr/bin/busybox": busybox(t)}
	for _, layout := range []Cgroups{CgroupV2, CgroupHybrid} {
		t.Run(string(layout), func(t *testing.T) {
			m := Machine{Disk: disk, Cgroups: layout, Memory: 1024, Files: files, Modules: criuModules, Env: []string{"TARE_RUNTIME=/usr/bin/tare-runtime"}}
			r := run(t, m, "/test", "-test.v", "-test.timeout", "9m")
			if r.Status != 0 || !strings.Contains(r.Output, "PASS") {
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

// busybox is the host's, which is static.
func busybox(t *testing.T) string {
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	return path
}
