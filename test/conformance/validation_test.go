package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// outcome is what one validation program found out about a runtime.
type outcome struct {
	code   int
	points int      // lines "ok" and "not ok"
	fails  []string // descriptions of the points that are not ok, once each
	says   string   // why a program without points failed
}

// passed reports whether nothing failed. A program that exits with 0 and prints "1..0" has passed only if it reports no error.
func (o outcome) passed() bool { return o.code == 0 && len(o.fails) == 0 && o.says == "" }

// String returns the outcome in one line.
func (o outcome) String() string {
	switch {
	case o.passed():
		return "pass"
	case o.says != "":
		return fmt.Sprintf("status %d: %s", o.code, o.says)
	default:
		return fmt.Sprintf("status %d, not ok: %s", o.code, strings.Join(o.fails, "; "))
	}
}

var (
	point     = regexp.MustCompile(`^(not )?ok \d+(?: - )?(.*)`)
	plan      = regexp.MustCompile(`^1\.\.(\d+)$`)
	errorLine = regexp.MustCompile(`^\s+"error": (".*"),?$`)
)

// readOutcome reads the output of a validation program, which is in the Test Anything Protocol.
func readOutcome(code int, stdout, stderr string) outcome {
	o := outcome{code: code}
	planned, reported := -1, ""
	for line := range strings.Lines(stdout) {
		line = strings.TrimRight(line, "\n")
		if m := point.FindStringSubmatch(line); m != nil {
			o.points++
			if m[1] != "" && !slices.Contains(o.fails, m[2]) {
				o.fails = append(o.fails, m[2])
			}
		} else if m := plan.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1]) // a program may print several documents one after another
			planned = max(planned, 0) + n
		} else if m := errorLine.FindStringSubmatch(line); m != nil && reported == "" {
			reported, _ = strconv.Unquote(m[1])
		}
	}
	switch {
	case planned == 0 && reported != "":
		o.says = firstLine(reported)
	case planned > 0 && o.points != planned:
		o.says = fmt.Sprintf("%d of %d points", o.points, planned)
	case code != 0 && len(o.fails) == 0:
		o.says = firstLine(lastError(stderr))
	}
	return o
}

// lastError returns what of the standard error tells the cause: the runtime's sentence, or else all of it.
func lastError(stderr string) string {
	if m := regexp.MustCompile(`level=error msg=("(?:[^"\\]|\\.)*")`).FindStringSubmatch(stderr); m != nil {
		if text, err := strconv.Unquote(m[1]); err == nil {
			return text
		}
	}
	return strings.TrimSpace(stderr)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// toolsDir returns the directory that scripts/peers.sh fills.
func toolsDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../.cache/bin/runtime-tools")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "runtimetest")); err != nil {
		t.Skip("the validation of the runtime-tools is not there: scripts/peers.sh runtime-tools")
	}
	if _, err := os.Stat(filepath.Join(dir, "rootfs-"+runtime.GOARCH+".tar.gz")); err != nil {
		t.Skipf("the runtime-tools have no root file system for %s", runtime.GOARCH)
	}
	return dir
}

// validations returns the names of the validation programs.
func validations(t *testing.T, tools string) []string {
	t.Helper()
	entries, err := os.ReadDir(tools)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "runtimetest" && !strings.HasSuffix(e.Name(), ".tar.gz") {
			names = append(names, e.Name())
		}
	}
	return names
}

// enter gives the program a mount table and a /run of its own: a runtime mounts on what it thinks is the host when the
// configuration has no mount namespace, and keeps its state in /run.
const enter = `mount -t tmpfs tmpfs /run && cd "$1" && exec "$2"`

// validate runs one validation program with the runtime, alone, in a directory of its own.
func validate(t *testing.T, tools, name, runtimePath string) outcome {
	t.Helper()
	dir, err := os.MkdirTemp(ocitest.WorkDir(), "v")
	if err != nil {
		t.Fatal(err)
	}
	// Nothing is mounted below it here: what the program mounted is gone with its mount namespace.
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"runtimetest", "rootfs-" + runtime.GOARCH + ".tar.gz"} {
		// The validation copies a symbolic link as a link.
		if exec.Command("cp", "--link", filepath.Join(tools, file), dir).Run() != nil {
			if out, err := exec.Command("cp", filepath.Join(tools, file), dir).CombinedOutput(); err != nil {
				t.Fatalf("copy %s: %v: %s", file, err, out)
			}
		}
	}
	before := cgroupDirs()
	defer removeCgroups(t, before)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", "sh", "-c", enter, "sh", dir, filepath.Join(tools, name))
	c.Env = append(os.Environ(), "RUNTIME="+runtimePath, "TMPDIR="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err = c.Run()
	var exit *exec.ExitError
	code := 0
	switch {
	case ctx.Err() != nil:
		return outcome{code: -1, says: "it did not end in a minute"}
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		t.Fatal(err)
	}
	o := readOutcome(code, stdout.String(), stderr.String())
	if testing.Verbose() && !o.passed() {
		t.Logf("%s: %v\n%s", name, o, firstLine(lastError(stderr.String())))
	}
	return o
}

// ours are the names of cgroups that the validation programs make.
var ours = regexp.MustCompile(`/(cgrouptest|testdir|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})(/|$)`)

// cgroupDirs returns the directories of cgroups that a validation program may have made.
func cgroupDirs() map[string]bool {
	found := map[string]bool{}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && ours.MatchString(path) {
			found[path] = true
		}
		return nil
	})
	return found
}

// removeCgroups ends what a failed validation left running, and removes its cgroups.
func removeCgroups(t *testing.T, before map[string]bool) {
	t.Helper()
	for try := 0; ; try++ {
		var left []string
		for dir := range cgroupDirs() {
			if !before[dir] {
				left = append(left, dir)
			}
		}
		if len(left) == 0 {
			return
		}
		slices.Sort(left)
		slices.Reverse(left) // children first
		for _, dir := range left {
			_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
			data, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			for _, field := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			_ = os.Remove(dir)
		}
		if try == 200 {
			t.Errorf("cgroups are left: %s", strings.Join(left, " "))
			return
		}
		ocitest.Reap()
		time.Sleep(10 * time.Millisecond)
	}
}

// TestValidation runs every validation program of the runtime-tools: it passes, or it fails in the way and for the reason
// that the table of exceptions gives.
func TestValidation(t *testing.T) {
	tools := toolsDir(t)
	names := validations(t, tools)
	// One program wants a network device besides lo.
	if out, err := exec.Command("ip", "link", "add", "conf0", "type", "veth", "peer", "name", "conf1").CombinedOutput(); err != nil {
		t.Fatalf("add a network device: %v: %s", err, out)
	}
	defer exec.Command("ip", "link", "delete", "conf0").Run()
	if len(names) != 58 {
		t.Errorf("%d validation programs, want 58: %s", len(names), strings.Join(names, " "))
	}
	for name := range exceptions {
		if !slices.Contains(names, name) {
			t.Errorf("there is no validation program %s", name)
		}
	}
	loadProfile(t)
	passed := 0
	found := map[string]outcome{}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if waits[name] && !long() {
				t.Skip("it waits for many seconds: set TARE_LONG=1")
			}
			o := validate(t, tools, name, ocitest.RuntimePath())
			found[name] = o
			if o.passed() {
				passed++
			}
			if ocitest.Tare() {
				check(t, name, o)
			} else if !o.passed() {
				t.Logf("%v", o)
			}
		})
	}
	t.Logf("%d of %d pass", passed, len(names))
	if *update {
		writeColumn(t, names, found)
	}
}

// loadProfile loads the AppArmor profile that a program asks for, where the kernel has AppArmor.
func loadProfile(t *testing.T) {
	parser, err := exec.LookPath("apparmor_parser")
	on, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(on), "Y") {
		return
	}
	const profile = "profile acme_secure_profile flags=(attach_disconnected,mediate_deleted) { capability, network, signal, unix, ptrace, file, }\n"
	load := func(flag string) error {
		c := exec.Command(parser, "-K", flag)
		c.Stdin = strings.NewReader(profile)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Logf("apparmor_parser %s: %v: %s", flag, err, out)
		}
		return err
	}
	profileLoaded = load("-r") == nil
	t.Cleanup(func() { _ = load("-R") })
}

// check compares an outcome with the table.
func check(t *testing.T, name string, o outcome) {
	t.Helper()
	e, ok := exceptionOf(name)
	switch {
	case !ok && !o.passed():
		t.Errorf("%v", o)
	case ok && o.passed() && e.races:
	case ok && o.passed():
		t.Errorf("it passes: take it out of the table of exceptions, which says: %s", e.why)
	case ok:
		if !slices.Equal(o.fails, e.fails) || !strings.Contains(o.says, e.says) || e.says == "" && o.says != "" {
			t.Errorf("it fails in another way than the table of exceptions says:\n%v\nwant\n%v", o, outcome{code: o.code, fails: e.fails, says: e.says})
		}
	}
}
