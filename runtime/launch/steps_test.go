package launch_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/plan"
)

func mustRun(t *testing.T, s *specs.Spec, host *plan.Host) string {
	t.Helper()
	out, status, err := run(t, s, host)
	if err != nil || status != 0 {
		t.Fatalf("status %d, %v, output:\n%s", status, err, out)
	}
	return out
}

func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s was made outside of the root", filepath.Join(dir, e.Name()))
	}
}

// TestDanglingLinks: a link of the image to what does not exist leads to a place inside the root, never to the host's
// (CVE-2021-30465, CVE-2024-45310).
func TestDanglingLinks(t *testing.T) {
	for _, link := range []string{"%s/made", "../../../../../../../..%s/made", "chain", "%s/a/../b/c"} {
		host := bundle(t)
		outside := filepath.Join(host.Bundle, "outside")
		if err := os.Mkdir(outside, 0o755); err != nil {
			t.Fatal(err)
		}
		target := strings.ReplaceAll(link, "%s", outside)
		root := filepath.Join(host.Bundle, "rootfs")
		for name, to := range map[string]string{"vol": target, "chain": outside + "/x"} {
			if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
		s := config("sh", "-c", "cat /proc/self/mountinfo")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/vol/deep", Type: "tmpfs", Source: "inside"})
		out := mustRun(t, s, host)
		if !strings.Contains(out, " - tmpfs inside ") {
			t.Errorf("link to %s: no mount inside:\n%s", target, out)
		}
		empty(t, outside)
	}
}

func TestLinkLoop(t *testing.T) {
	host := bundle(t)
	for _, l := range [][2]string{{"a", "b"}, {"b", "a"}} {
		if err := os.Symlink(l[1], filepath.Join(host.Bundle, "rootfs", l[0])); err != nil {
			t.Fatal(err)
		}
	}
	s := config("true")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/a/c", Type: "tmpfs", Source: "t"})
	if _, _, err := run(t, s, host); err == nil || err.Error() != "mount tmpfs on /a/c: too many levels of symbolic links" {
		t.Errorf("error %v", err)
	}
}

// TestDevices: a node that is there is taken when it is the right one (requirement D5).
func TestDevices(t *testing.T) {
	for _, test := range []struct {
		mode uint32
		dev  uint64
		want string
	}{
		{unix.S_IFCHR | 0o600, unix.Mkdev(1, 3), ""},
		{unix.S_IFCHR | 0o600, unix.Mkdev(1, 5), "create device /dev/null: something else is there: file exists"},
		{unix.S_IFBLK | 0o600, unix.Mkdev(1, 3), "create device /dev/null: something else is there: file exists"},
		{unix.S_IFREG | 0o600, 0, "create device /dev/null: something else is there: file exists"},
	} {
		host := bundle(t)
		if err := unix.Mknod(filepath.Join(host.Bundle, "rootfs/dev/null"), test.mode, int(test.dev)); err != nil {
			t.Fatal(err)
		}
		s := config("true")
		s.Mounts = s.Mounts[:1] // /dev is the image's directory
		_, _, err := run(t, s, host)
		if test.want == "" && err != nil || test.want != "" && (err == nil || err.Error() != test.want) {
			t.Errorf("mode %o: error %v, want %q", test.mode, err, test.want)
		}
	}
}

func TestMasks(t *testing.T) {
	host := bundle(t)
	root := filepath.Join(host.Bundle, "rootfs")
	for name, text := range map[string]string{"secret": "s", "dir/secret": "s", "fixed/file": "old"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := config("sh", "-c", "cat /secret; ls -A /dir; cat /fixed/file; echo new >/fixed/file; echo x >/dir/y; echo free >/free; cat /free")
	s.Root.Readonly = false
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/secret", "/dir", "/nowhere")
	s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, "/fixed", "/nowhere")
	out := mustRun(t, s, host)
	if strings.Count(out, "Read-only file system") != 2 {
		t.Errorf("output %q", out)
	}
	if !strings.HasPrefix(out, "old") || !strings.HasSuffix(out, "free\n") || strings.Contains(out, "secret") {
		t.Errorf("output %q", out)
	}
}

// TestCwdByDescriptor: a working directory that leads through an inherited descriptor leads out of the root (CVE-2024-21626).
func TestCwdByDescriptor(t *testing.T) {
	outside, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	for fd := range 24 {
		host := bundle(t)
		s := config("sh", "-c", "ls")
		s.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", fd)
		out, _, err := run(t, s, host)
		if err == nil || !strings.HasPrefix(err.Error(), "change to working directory "+s.Process.Cwd+": ") {
			t.Fatalf("working directory %s: error %v, output %q", s.Process.Cwd, err, out)
		}
	}
}

// TestDescriptors: the program gets the standard streams and nothing else.
func TestDescriptors(t *testing.T) {
	out := mustRun(t, config("sh", "-c", "ls /proc/$$/fd; :"), bundle(t))
	if got := strings.Fields(out); strings.Join(got, " ") != "0 1 2" {
		t.Errorf("descriptors %q", got)
	}
}

func TestPropagation(t *testing.T) {
	host := bundle(t)
	s := config("cat", "/proc/self/mountinfo")
	for _, p := range []string{"shared", "private", "unbindable"} {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/" + p, Type: "tmpfs", Source: "p-" + p, Options: []string{p}})
	}
	want := map[string]string{"p-shared": "shared:", "p-private": "", "p-unbindable": "unbindable"}
	for _, line := range strings.Split(mustRun(t, s, host), "\n") {
		before, after, _ := strings.Cut(line, " - tmpfs ")
		source, _, _ := strings.Cut(after, " ")
		tags, ok := want[source]
		if !ok {
			continue
		}
		delete(want, source)
		if has := strings.Join(strings.Fields(before)[6:], " "); !strings.HasPrefix(has, tags) || tags == "" && has != "" {
			t.Errorf("%s has propagation %q", source, has)
		}
	}
	if len(want) > 0 {
		t.Errorf("not mounted: %v", want)
	}
}

// TestWaitingMemory: a created container costs little while it waits for start.
func TestWaitingMemory(t *testing.T) {
	host := bundle(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(host.Bundle, "start"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	listen, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer listen.Close()
	p, err := plan.Compile(config("true"), host, plan.Options{WaitStart: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := launch.Start(p, &launch.Resources{Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort()
	for _, step := range []func() error{c.Begin, c.Finish, func() error { return c.Await(plan.StageCreated) }} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	kb := 0
	for begin := time.Now(); time.Since(begin) < 5*time.Second; time.Sleep(time.Millisecond) {
		if kb = privateMemory(t, c.PID); kb <= 1024 {
			break // the child forgets while we look
		}
	}
	t.Logf("%d kB", kb)
	if kb > 1024 || kb == 0 {
		t.Errorf("the waiting child has %d kB of private memory", kb)
	}
}

func privateMemory(t *testing.T, pid int) (kb int) {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(data), "\n") {
		if f := strings.Fields(line); len(f) == 3 && (f[0] == "Private_Clean:" || f[0] == "Private_Dirty:") {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			kb += n
		}
	}
	return kb
}

// TestMountRace swaps a directory on the way to the mount points with a link to the outside while the child mounts
// (CVE-2021-30465): no mount and no directory is ever made outside.
func TestMountRace(t *testing.T) {
	containers, mounts := 200, 5
	if os.Getenv("TARE_LONG") == "1" {
		containers = 2000
	}
	host := bundle(t)
	outside, root := filepath.Join(host.Bundle, "outside"), filepath.Join(host.Bundle, "rootfs")
	for _, d := range []string{outside, filepath.Join(root, "vol"), filepath.Join(root, "vol/real")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(root, "vol/swap")); err != nil {
		t.Fatal(err)
	}
	defer swapping(t, filepath.Join(root, "vol"))()
	s := config("true")
	for i := range mounts {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: fmt.Sprintf("/vol/real/%d/sub", i), Type: "tmpfs", Source: "race"})
	}
	made, refused := 0, 0
	for range containers {
		if where, err := mountedAt(t, s, host, "race"); err != nil {
			refused++
		} else {
			for _, point := range where {
				made++
				if !strings.HasPrefix(point, root+"/") {
					t.Fatalf("a mount is at %s", point)
				}
			}
		}
		empty(t, outside)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d mounts in %d containers, %d containers refused", made, containers, refused)
	if made == 0 {
		t.Error("no mount was made")
	}
}

// swapping exchanges dir/real and dir/swap until the returned function is called.
func swapping(t *testing.T, dir string) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, dir+"/real", unix.AT_FDCWD, dir+"/swap", unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// mountedAt lets a container make its mounts, which it has not pivoted to yet, and returns where those from source are.
func mountedAt(t *testing.T, s *specs.Spec, host *plan.Host, source string) (points []string, err error) {
	t.Helper()
	p, err := plan.Compile(s, host, plan.Options{Hooks: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := launch.Start(p, &launch.Resources{})
	if err != nil {
		return nil, err
	}
	defer c.Abort()
	if err := c.Begin(); err != nil {
		return nil, err
	}
	if err := c.Await(plan.StageMounts); err != nil {
		return nil, err
	}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(c.PID) + "/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(data), "\n") {
		if strings.Contains(line, " - tmpfs "+source+" ") {
			points = append(points, strings.Fields(line)[4])
		}
	}
	return points, nil
}
