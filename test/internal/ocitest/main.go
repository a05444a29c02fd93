package ocitest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideEnv marks the second start of the test binary, the one inside the private namespaces.
const insideEnv = "TARE_OCITEST_INSIDE"

// RuntimeEnv names the variable that holds the path (or PATH name) of the runtime under test. Empty: ./cmd/tare-runtime is built.
// Give go test -count=1: its cache knows nothing of the binary.
const RuntimeEnv = "TARE_RUNTIME"

// workDir is the suite's own directory: mode 0755, on the file system of os.TempDir, removed at the end.
var workDir string

// Main is the body of a TestMain. It starts the test binary again in new namespaces of all kinds but user and cgroup, where / is a
// shared mount as it is on most hosts, and runs m there: other programs of the machine cannot disturb the leak oracle, and
// when the test binary dies every process that a runtime left dies with it. Started under the name "probe" (in a container)
// it runs a probe instead. Main does not return.
func Main(m *testing.M) {
	if filepath.Base(os.Args[0]) == "probe" {
		os.Exit(probe(os.Args[1:]))
	}
	if os.Getuid() != 0 {
		fmt.Println("black-box suite skipped: needs root")
		os.Exit(0)
	}
	if os.Getenv(insideEnv) == "" {
		os.Exit(outside())
	}
	if err := enterWorld(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the test world:", err)
		os.Exit(1)
	}
	code := 1
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the suite:", err)
	} else {
		code = m.Run()
	}
	killAll()
	os.Exit(code)
}

// outside runs the test binary again in its namespaces and cleans up after it.
func outside() int {
	runtime.LockOSThread() // Pdeathsig is about the parent's thread
	dir, err := os.MkdirTemp("", "oci")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), insideEnv+"="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = c.Run()
	for _, d := range cgroupDirs(filepath.Base(dir)) {
		os.Remove(d)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// enterWorld finishes the namespaces: own /proc, propagation as on a systemd host, the loopback device up.
func enterWorld() error {
	workDir = os.Getenv(insideEnv)
	os.Unsetenv(insideEnv)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	detachBelow("/tmp") // mounts of others, which vanish here when their owner removes the directory
	detachBelow("/var")
	for _, dir := range []string{"/run", "/dev/shm"} { // where other programs of the machine come and go
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make / shared: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	return nil
}

// prepare finds or builds the runtime and makes the master copies that bundles link to.
func prepare() error {
	if err := prepareFiles(); err != nil {
		return err
	}
	path := os.Getenv(RuntimeEnv)
	if path == "" {
		path = filepath.Join(workDir, "tare-runtime")
		c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/tare-oci/tare/cmd/tare-runtime")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("build tare-runtime: %w\n%s", err, out)
		}
	}
	path, err := exec.LookPath(path)
	if err != nil {
		return err
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	runtimePath = path
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s --version: %w", path, err)
	}
	peer, peerVersion = parseVersion(string(out))
	if peer == "crun" && HideUnified {
		return hideUnified()
	}
	return nil
}

// HideUnified lets crun run on a hybrid host. A suite sets it when none of its cases mounts on the host with crun.
var HideUnified bool

// hideUnified takes the cgroup2 hierarchy of a hybrid host away, beside which crun refuses to run: /sys/fs/cgroup
// becomes a tmpfs of the suite's own with the other hierarchies.
func hideUnified() error {
	const top = "/sys/fs/cgroup"
	if unifiedOnly() {
		return nil
	}
	dir := filepath.Join(workDir, "cgroup")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("cgroup", dir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	for _, name := range list(top) {
		from, to := filepath.Join(top, name), filepath.Join(dir, name)
		if fi, err := os.Lstat(from); err != nil || !fi.IsDir() || name == "unified" {
			continue
		}
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", from, err)
		}
	}
	if err := unix.Mount(dir, top, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", top, err)
	}
	return unix.Unmount(dir, unix.MNT_DETACH)
}

// parseVersion reads the first line of --version: the name, and the version without what distributions append.
func parseVersion(out string) (name, version string) {
	line, _, _ := strings.Cut(out, "\n")
	f := strings.Fields(line)
	if len(f) < 3 || f[1] != "version" {
		return strings.Join(f, " "), ""
	}
	version, _, _ = strings.Cut(f[2], "+")
	return f[0], version
}

// killAll ends every process of the suite's pid namespace but the suite itself.
func killAll() {
	if os.Getpid() == 1 { // kill(-1) is safe only where every process is ours
		syscall.Kill(-1, syscall.SIGKILL)
	}
	for {
		if pid, err := syscall.Wait4(-1, nil, 0, nil); pid <= 0 && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}
