package launch_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
)

// bundle makes a root file system with busybox and returns the host facts for it.
func bundle(t *testing.T) *plan.Host {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"proc", "dev", "sys"} {
		if err := os.Mkdir(filepath.Join(dir, "rootfs", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", busybox, filepath.Join(bin, "busybox")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"sh", "true", "cat", "ls", "id"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	return &plan.Host{Arch: runtime.GOARCH, Bundle: dir, ID: "test", LastCap: 40, Grantable: ^uint64(0) &^ (1 << 24)}
}

// run runs the configuration's process and returns what it wrote and its exit status.
func run(t *testing.T, s *specs.Spec, host *plan.Host) (string, int, error) {
	t.Helper()
	p, err := plan.Compile(s, host, plan.Options{})
	if err != nil {
		return "", 0, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := launch.Start(p, &launch.Resources{Stdio: [3]*os.File{nil, w, w}})
	w.Close()
	if err != nil {
		return "", 0, err
	}
	defer c.Abort()
	for _, step := range []func() error{c.Begin, c.Finish, func() error { return c.Await(0) }} {
		if err := step(); err != nil {
			return "", 0, err
		}
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), c.Wait().ExitStatus(), nil
}

func config(args ...string) *specs.Spec {
	s := spec.Default()
	s.Process.Terminal = false
	s.Process.Args = args
	// No cgroup is given to these tests.
	mounts := s.Mounts[:0]
	for _, m := range s.Mounts {
		if m.Type != "cgroup" {
			mounts = append(mounts, m)
		}
	}
	s.Mounts = mounts
	return s
}

func TestRunDefault(t *testing.T) {
	out, status, err := run(t, config("sh", "-c", "echo $$; cat /proc/self/mountinfo; ls /dev /proc/self/fd; exit 7"), bundle(t))
	if err != nil {
		t.Fatal(err)
	}
	if status != 7 || !strings.HasPrefix(out, "1\n") {
		t.Errorf("status %d, output:\n%s", status, out)
	}
	for _, want := range []string{" /proc ", " /dev/pts ", " /dev/shm ", " /sys ", "null", "urandom"} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

func TestErrorSentence(t *testing.T) {
	for _, test := range []struct {
		change func(*specs.Spec)
		want   string
	}{
		{func(s *specs.Spec) { s.Process.Args = []string{"nope"} }, `exec: "nope": executable file not found in $PATH`},
		{func(s *specs.Spec) { s.Process.Args = []string{"/nope"} }, `exec: "/nope": stat /nope: no such file or directory`},
		{func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "tmpfs", Source: "t", Options: []string{"size=4x"}})
		}, "mount tmpfs on /data: size=4x: invalid argument"},
		{func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Source: "/no-such-source", Options: []string{"bind"}})
		}, "bind /no-such-source on /data: open /no-such-source: no such file or directory"},
	} {
		s := config("true")
		test.change(s)
		_, _, err := run(t, s, bundle(t))
		if err == nil || err.Error() != test.want {
			t.Errorf("error %v, want %s", err, test.want)
		}
		var step *launch.StepError
		if err != nil && !errors.As(err, &step) {
			t.Errorf("error %v is no StepError", err)
		}
	}
}

func TestUserNamespace(t *testing.T) {
	host := bundle(t)
	s := config("sh", "-c", "cat /proc/self/uid_map; id -u")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
	makeReachable(t, host.Bundle)
	out, status, err := run(t, s, host)
	if err != nil || status != 0 {
		t.Fatalf("status %d, %v, %s", status, err, out)
	}
	if fields := bytes.Fields([]byte(out)); string(bytes.Join(fields, []byte(" "))) != "0 100000 65536 0" {
		t.Errorf("output %q", out)
	}
}

func makeReachable(t *testing.T, dir string) {
	t.Helper()
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if err := unix.Access(d, unix.X_OK); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil && d != "/tmp" {
			t.Fatal(err)
		}
		if filepath.Dir(d) == "/tmp" {
			break
		}
	}
}
