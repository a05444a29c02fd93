// Package systemd tests the runtime with --systemd-cgroup from outside, on a machine whose init is systemd: test/vm runs it in a
// virtual one. TARE_RUNTIME names the runtime.
package systemd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const cgroupRoot = "/sys/fs/cgroup"

// booted skips where systemd is not init.
func booted(t *testing.T) {
	t.Helper()
	if st, err := os.Lstat("/run/systemd/system"); err != nil || !st.IsDir() {
		t.Skip("this machine's init is not systemd (make test-vm runs this in a virtual machine)")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// v2 tells whether cgroup2 is the machine's only layout.
func v2() bool {
	_, err := os.Stat(cgroupRoot + "/cgroup.controllers")
	return err == nil
}

func runtimePath(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("TARE_RUNTIME")
	if bin == "" {
		t.Skip("TARE_RUNTIME names no runtime")
	}
	return bin
}

// box is one container under test.
type box struct {
	t    *testing.T
	id   string
	dir  string // the bundle
	spec *specs.Spec
	uid  uint32 // who drives the runtime
	env  []string
}

// scope is the name of its unit where the path does not say otherwise.
func (b *box) scope() string { return "runc-" + b.id + ".scope" }

var count int

// newBox makes a bundle with busybox whose program waits. The container goes at the end of the test.
func newBox(t *testing.T, uid uint32, args ...string) *box {
	t.Helper()
	booted(t)
	runtimePath(t)
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	count++
	b := &box{t: t, id: fmt.Sprintf("box%d-%d", os.Getpid(), count), dir: filepath.Join("/var/tmp", fmt.Sprintf("box%d-%d", os.Getpid(), count)), uid: uid}
	t.Cleanup(func() { os.RemoveAll(b.dir) })
	bin := filepath.Join(b.dir, "rootfs", "bin")
	for _, d := range []string{bin, b.dir + "/rootfs/proc", b.dir + "/rootfs/sys", b.dir + "/rootfs/dev", b.dir + "/rootfs/tmp", b.dir + "/state"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin+"/busybox", data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "sleep", "head", "true", "mknod", "ls", "tail"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	spec := []string{"spec"}
	if uid != 0 {
		spec = append(spec, "--rootless")
	}
	b.chown()
	if out, status := b.run(spec...); status != 0 {
		t.Fatalf("spec: %s", out)
	}
	config, err := os.ReadFile(b.dir + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	b.spec = new(specs.Spec)
	if err := json.Unmarshal(config, b.spec); err != nil {
		t.Fatal(err)
	}
	if ns := &b.spec.Linux.Namespaces; !slices.ContainsFunc(*ns, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace }) {
		*ns = append(*ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	b.spec.Process.Terminal, b.spec.Root.Readonly = false, false
	b.spec.Process.Args = []string{"sleep", "1000"}
	if len(args) > 0 {
		b.spec.Process.Args = args
	}
	t.Cleanup(func() { b.run("delete", "-f", b.id) })
	return b
}

// chown gives the bundle to who drives the runtime.
func (b *box) chown() {
	filepath.WalkDir(b.dir, func(p string, _ os.DirEntry, _ error) error { return os.Lchown(p, int(b.uid), int(b.uid)) })
}

// resources are those of the configuration, made if need be.
func (b *box) resources() *specs.LinuxResources {
	if b.spec.Linux.Resources == nil {
		b.spec.Linux.Resources = &specs.LinuxResources{}
	}
	return b.spec.Linux.Resources
}

func (b *box) write() {
	b.t.Helper()
	data, err := json.Marshal(b.spec)
	if err == nil {
		err = os.WriteFile(b.dir+"/config.json", data, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// run runs the runtime and returns both its streams and its status.
func (b *box) run(args ...string) (string, int) {
	b.t.Helper()
	cmd := exec.Command(runtimePath(b.t), append([]string{"--root", b.dir + "/state"}, args...)...)
	cmd.Dir, cmd.Env = b.dir, append([]string{"PATH=" + os.Getenv("PATH")}, b.env...)
	if b.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: b.uid, Gid: b.uid}}
	}
	// A file, not a pipe: the container keeps it open.
	out, err := os.CreateTemp("", "out")
	if err != nil {
		b.t.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	out.Chown(int(b.uid), int(b.uid))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	slow := time.AfterFunc(60*time.Second, func() { cmd.Process.Kill() })
	defer slow.Stop()
	cmd.Wait()
	data, err := os.ReadFile(out.Name())
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data), cmd.ProcessState.ExitCode()
}

// must runs the runtime, which must succeed, and returns what it printed.
func (b *box) must(args ...string) string {
	b.t.Helper()
	out, status := b.run(args...)
	if status != 0 {
		b.t.Fatalf("%v: status %d: %s", args, status, out)
	}
	return strings.TrimSpace(out)
}

// fail runs the runtime, which must fail with text in its words.
func (b *box) fail(text string, args ...string) {
	b.t.Helper()
	if out, status := b.run(args...); status == 0 || !strings.Contains(out, text) {
		b.t.Errorf("%v: status %d, %q, want an error with %q", args, status, out, text)
	}
}

// up creates and starts the container.
func (b *box) up() {
	b.t.Helper()
	b.create()
	b.must("start", b.id)
}

func (b *box) create() {
	b.t.Helper()
	b.write()
	b.must("--systemd-cgroup", "create", b.id)
}

// pid of the container's first process.
func (b *box) pid() int {
	b.t.Helper()
	var state struct{ Pid int }
	if err := json.Unmarshal([]byte(b.must("state", b.id)), &state); err != nil {
		b.t.Fatal(err)
	}
	return state.Pid
}

// systemctl asks systemd, the user's own for a user's container.
func (b *box) systemctl(args ...string) string {
	b.t.Helper()
	cmd := exec.Command("systemctl", append([]string{"--no-pager"}, args...)...)
	if b.uid != 0 {
		cmd = exec.Command("setpriv", append([]string{"--reuid", fmt.Sprint(b.uid), "--regid", fmt.Sprint(b.uid), "--clear-groups", "systemctl", "--user", "--no-pager"}, args...)...)
		cmd.Env = append(os.Environ(), b.env...)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Logf("systemctl %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// show returns a property of the scope.
func (b *box) show(property string) string {
	b.t.Helper()
	return b.systemctl("show", "--value", "-p", property, b.scope())
}

// group is where the container's processes are, by the hierarchy that systemd tracks.
func (b *box) group() string {
	b.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", b.pid()))
	if err != nil {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		if path, ok := strings.CutPrefix(rest, ":"); ok && v2() {
			return path
		}
		if path, ok := strings.CutPrefix(rest, "name=systemd:"); ok {
			return path
		}
	}
	b.t.Fatalf("no hierarchy of systemd in %s", data)
	return ""
}

// file reads a control file: of version 2, or the controller's of version 1.
func (b *box) file(group, name2, controller, name1 string) string {
	b.t.Helper()
	path := filepath.Join(cgroupRoot, group, name2)
	if !v2() {
		path = filepath.Join(cgroupRoot, controller, group, name1)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		b.t.Error(err)
	}
	return strings.TrimSpace(string(data))
}

// gone checks that nothing of the container is left: unit, cgroups, state.
func (b *box) gone() {
	b.t.Helper()
	if s := b.systemctl("list-units", "--all", "--no-legend", "--plain", b.scope()); s != "" {
		b.t.Errorf("left unit: %s", s)
	}
	for _, name := range []string{b.id, b.scope()} {
		if out, _ := exec.Command("find", cgroupRoot, "-name", "*"+name+"*").Output(); len(bytes.TrimSpace(out)) > 0 {
			b.t.Errorf("left cgroups: %s", out)
		}
	}
	if left, _ := os.ReadDir(b.dir + "/state"); slices.ContainsFunc(left, func(e os.DirEntry) bool { return e.Name() == b.id }) {
		b.t.Errorf("left state: %v", left)
	}
}
