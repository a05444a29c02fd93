package hooks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

var state = &specs.State{Version: "1.3.0", ID: "c", Status: "creating", Pid: 7, Bundle: "/b", Annotations: map[string]string{"k": "v"}}

func sh(script string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}}
}

func timeout(h specs.Hook, seconds int) specs.Hook {
	h.Timeout = &seconds
	return h
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	h := sh(`cat >stdin; pwd >cwd; printf %s "$A-$0-$1" >env`)
	h.Args = append(h.Args, "zero", "one")
	h.Env = []string{"A=1"}
	if err := Run(context.Background(), CreateRuntime, &specs.Hooks{CreateRuntime: []specs.Hook{h}}, state, dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"stdin": `{"ociVersion":"1.3.0","id":"c","status":"creating","pid":7,"bundle":"/b","annotations":{"k":"v"}}`,
		"cwd":   dir + "\n",
		"env":   "1-zero-one",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s = %s, %v; want %s", name, got, err, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("TARE_HOOK_TEST", "inherited")
	for _, c := range []struct {
		env  []string
		want string
	}{{nil, "inherited"}, {[]string{}, ""}, {[]string{"X=1"}, ""}} {
		dir := t.TempDir()
		h := sh(`printf %s "$TARE_HOOK_TEST" >env`)
		h.Env = c.env
		if err := Run(context.Background(), Poststart, &specs.Hooks{Poststart: []specs.Hook{h}}, state, dir); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(filepath.Join(dir, "env")); string(got) != c.want {
			t.Errorf("env %#v: %q, want %q", c.env, got, c.want)
		}
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		hook specs.Hook
		want string // regular expression
	}{
		{sh("exit 3"), `^error running prestart hook #1: exit status 3, stdout: , stderr:  \(/bin/sh, \d+m?s\)$`},
		{sh("echo out; echo oops >&2; exit 3"), `^error running prestart hook #1: exit status 3, stdout: out\n, stderr: oops\n \(/bin/sh, \d+m?s\)$`},
		{sh("echo out; exit 1"), `exit status 1, stdout: out\n, stderr:  \(/bin/sh, \d+m?s\)$`},
		{sh("kill -9 $$"), `signal: killed, stdout: , stderr:  \(/bin/sh, \d+m?s\)$`},
		{sh("head -c 100000 /dev/zero | tr '\\0' x >&2; echo END >&2; exit 1"), `, stderr: … x+END\n \(`},
		{specs.Hook{Path: "/no/such"}, `^error running prestart hook #1: /no/such: no such file or directory \(`},
		{specs.Hook{Path: "/etc/passwd"}, `^error running prestart hook #1: /etc/passwd: permission denied \(`},
		{specs.Hook{Path: "true"}, `not absolute$`},
		{timeout(sh("true"), 0), `timeout 0 is not positive$`},
	} {
		dir := t.TempDir()
		h := &specs.Hooks{Prestart: []specs.Hook{sh("true"), c.hook, sh("touch ran")}} //nolint:staticcheck
		err := Run(context.Background(), Prestart, h, state, dir)
		if err == nil || !regexp.MustCompile(c.want).MatchString(err.Error()) {
			t.Errorf("%v: %.300v, want %s", c.hook.Args, err, c.want)
		}
		if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
			t.Errorf("%v: the hook after it ran", c.hook.Args)
		}
	}
}

func TestTimeoutKillsGroup(t *testing.T) {
	dir := t.TempDir()
	h := timeout(sh("sleep 1000 & echo $! >pid; wait"), 1)
	begin := time.Now()
	err := Run(context.Background(), CreateRuntime, &specs.Hooks{CreateRuntime: []specs.Hook{h}}, state, dir)
	if err == nil || !strings.Contains(err.Error(), "hook ran past specified timeout of 1.0s") {
		t.Errorf("Run = %v", err)
	}
	if d := time.Since(begin); d < time.Second || d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	data, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	for range 500 { // it is killed, and reaped by its new parent soon
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the hook's child %d still runs", pid)
	syscall.Kill(pid, syscall.SIGKILL)
}

func TestBackgroundProcess(t *testing.T) {
	// A hook that leaves a process behind with its descriptors has succeeded.
	dir := t.TempDir()
	h := sh("sleep 1000 & echo $! >pid")
	if err := Run(context.Background(), CreateRuntime, &specs.Hooks{CreateRuntime: []specs.Hook{h}}, state, dir); err != nil {
		t.Error(err)
	}
	data, _ := os.ReadFile(filepath.Join(dir, "pid"))
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the process it left behind is gone: %v", err)
	}
}

func TestRunAll(t *testing.T) {
	dir := t.TempDir()
	h := &specs.Hooks{Poststop: []specs.Hook{sh("exit 1"), sh("touch ran"), sh("exit 2")}}
	failures := RunAll(context.Background(), Poststop, h, state, dir)
	if len(failures) != 2 || !strings.Contains(failures[1].Error(), "poststop hook #2") {
		t.Errorf("RunAll = %v", errors.Join(failures...))
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); err != nil {
		t.Error(err)
	}
	if err := Run(context.Background(), Poststop, nil, state, dir); err != nil {
		t.Errorf("Run without hooks = %v", err)
	}
}

func TestNotRead(t *testing.T) {
	big := *state
	big.Annotations = map[string]string{"k": strings.Repeat("x", 1<<20)}
	if err := Run(context.Background(), Poststart, &specs.Hooks{Poststart: []specs.Hook{sh("exec <&-")}}, &big, t.TempDir()); err != nil {
		t.Errorf("a hook that does not read its stdin: %v", err)
	}
}

func TestNoDirectory(t *testing.T) {
	err := Run(context.Background(), Poststart, &specs.Hooks{Poststart: []specs.Hook{sh("true")}}, state, "/no/dir")
	if err == nil || !strings.HasPrefix(err.Error(), "error running poststart hook #0: /bin/sh: enter directory /no/dir: no such file or directory (") {
		t.Errorf("Run in a missing directory = %v", err)
	}
}

func TestTail(t *testing.T) {
	var tl tail
	for i := range 10000 {
		fmt.Fprintf(&tl, "%04d.", i)
	}
	s := tl.String()
	if !strings.HasPrefix(s, "… ") || !strings.HasSuffix(s, "9998.9999.") || len(s) != len("… ")+tailLimit {
		t.Errorf("tail of %d bytes: %.20s", len(s), s)
	}
	tl = tail{}
	tl.Write([]byte(strings.Repeat("a", tailLimit) + "b"))
	if s := tl.String(); len(s) != len("… ")+tailLimit || s[len(s)-1] != 'b' {
		t.Errorf("tail of one write is %d bytes", len(s))
	}
}
