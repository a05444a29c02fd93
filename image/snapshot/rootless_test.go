package snapshot

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/image/internal/imagetest"
)

// TestRootless unpacks and mounts all whiteouts as an ordinary user in a user namespace of its own, with each driver, and compares
// with what root sees of layers applied in place.
func TestRootless(t *testing.T) {
	base := os.Getenv("SNAPSHOT_ROOTLESS")
	if base != "" {
		for _, d := range []Driver{Auto, Overlay, Copy} {
			rootless(t, filepath.Join(base, "driver-"+string(d)), d)
		}
		return
	}
	base, err := os.MkdirTemp("", "tare-rootless-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(base, "test")
	if err := os.WriteFile(program, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(base, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestRootless$", "-test.v")
	cmd.Dir = base
	cmd.Env = append(os.Environ(), "SNAPSHOT_ROOTLESS="+base, "TMPDIR="+base)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestRootless") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func rootless(t *testing.T, dir string, d Driver) {
	t.Helper()
	s, err := Open(filepath.Join(dir, "layers"), Options{Driver: d})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[Driver]Driver{Auto: Overlay, Overlay: Overlay, Copy: Copy}[d]; s.Driver() != want || !s.rootless {
		t.Errorf("driver %q, rootless %v", s.Driver(), s.rootless)
	}
	for i, c := range imagetest.Whiteouts {
		r := image(t, s, layerOfTar(imagetest.Pack(t, imagetest.WhiteoutBase...), nil), layerOfTar(imagetest.Pack(t, c.Entries...), nil))
		at := filepath.Join(dir, string(rune('A'+i)))
		target := filepath.Join(at, "rootfs")
		if err := os.MkdirAll(target, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := r.Mount(context.Background(), target, at, true); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		var names []string
		for _, line := range imagetest.Listing(t, target, false)[1:] {
			f := strings.Fields(line)
			if strings.HasPrefix(f[1], "d") {
				f[0] += "/"
			}
			names = append(names, f[0])
		}
		// Sorted by name without the slash, which is the same for these.
		if got := strings.Join(names, " "); got != c.Want {
			t.Errorf("%s: %s\nnot %s", c.Name, got, c.Want)
		}
		if err := syscall.Unmount(target, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
}
