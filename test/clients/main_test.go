// Package clients runs the users of a runtime (Podman, Buildah, containerd, Docker) from the distribution's packages with
// TARE_RUNTIME and with runc side by side: a difference that the user sees is a failure.
package clients

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

func TestMain(m *testing.M) { ocitest.Main(m) }

// side is one of the two worlds that a row runs in: a runtime, and clients with their own state that call it.
type side struct {
	name    string // tare or runc
	runtime string // absolute path
	dir     string // everything that the clients keep
	mark    string // name of the cgroup that all cgroups of the side are in
}

// world is what all tests share: the two sides.
var world = sync.OnceValues(func() ([2]*side, error) {
	sides := [2]*side{{name: "tare", runtime: ocitest.RuntimePath()}, {name: "runc"}}
	// What clients keep in fixed places (locks, sockets) must not meet what other programs of the machine keep there.
	for _, dir := range []string{"/run", "/dev/shm", "/var/lib/cni"} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=1777"); err != nil {
			return sides, fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	var err error
	if sides[1].runtime, err = exec.LookPath("runc"); err != nil {
		return sides, err
	}
	for _, s := range sides {
		s.dir = filepath.Join(ocitest.WorkDir(), s.name)
		s.mark = filepath.Base(ocitest.WorkDir()) + s.name
		if err := os.Mkdir(s.dir, 0o755); err != nil {
			return sides, err
		}
		// Clients wait for the disk after each step; what they write here need not outlive anything.
		if err := unix.Mount("tmpfs", s.dir, "tmpfs", 0, "mode=755"); err != nil {
			return sides, fmt.Errorf("mount tmpfs on %s: %w", s.dir, err)
		}
		functions := helpers + podmanShell + buildahShell + ctrShell + dockerShell
		if err := os.WriteFile(filepath.Join(s.dir, "functions"), []byte(functions), 0o644); err != nil {
			return sides, err
		}
	}
	return sides, nil
})

// sides returns the two worlds, or ends the test: skipped where a client is not installed.
func sides(t *testing.T, clients ...string) [2]*side {
	t.Helper()
	for _, c := range append(clients, "runc", "busybox") {
		if _, err := exec.LookPath(c); err != nil {
			t.Skipf("%s is not installed", c)
		}
	}
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// result is how a script ended.
type result struct {
	out, err string // normalised
	code     int
}

// raw holds the last standard error of a side as it was, for the report of a failure.
var raw sync.Map

// helpers are shell functions that every script has.
const helpers = `
await() { # await COMMAND: polls until it succeeds
	n=0
	until eval "$1" 2>/dev/null; do
		n=$((n + 1)); [ $n -lt 150 ] || { echo "waited in vain for: $1"; return 1; }
		sleep 0.05
	done
}
pty() { # pty COMMAND: with a terminal of 33 lines and 77 columns
	printf '%s\n' ". $D/functions" "stty rows 33 cols 77; $1" >$D/pty.sh
	script -qec "sh $D/pty.sh" /dev/null >$D/pty.out; set -- $?
	tr -d "\000\010\r" <$D/pty.out | sed "s/^^[@D]//" # what script types at the end of its input
	return $1
}
quiet() { "$@" >/dev/null; }
try() { "$@"; echo "status $?"; }
cd $D
`

// sh runs a script with the variables R (the runtime), D (the side's directory) and M (its cgroup's name).
func (s *side) sh(script string) result {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	dir, err := os.MkdirTemp(s.dir, "sh")
	if err != nil {
		return result{err: err.Error(), code: -1}
	}
	defer os.RemoveAll(dir)
	// Files and no pipes: what runs on in the background must not keep the script from ending.
	out, _ := os.Create(filepath.Join(dir, "out"))
	errFile, _ := os.Create(filepath.Join(dir, "err"))
	defer out.Close()
	defer errFile.Close()
	c := exec.CommandContext(ctx, "/bin/sh", "-c", ". $D/functions\n"+script)
	c.Stdout, c.Stderr = out, errFile
	c.Env = []string{"PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + s.dir, "LC_ALL=C", "TERM=xterm",
		"R=" + s.runtime, "D=" + s.dir, "M=" + s.mark, "S=" + s.name, "CONTAINERS_CONF=" + filepath.Join(s.dir, "containers.conf")}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	err = c.Run()
	r := result{}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		r.code = -1
	}
	o, _ := os.ReadFile(out.Name())
	e, _ := os.ReadFile(errFile.Name())
	raw.Store(s.name, strings.TrimSpace(string(e)))
	r.out, r.err = s.normal(string(o)), s.normal(string(e))
	if ctx.Err() != nil {
		r.err += "\nthe script did not end in 90 s and was killed"
	}
	return r
}

// both runs f for the two sides at once.
func both(w [2]*side, f func(s *side) result) (tare, runc result) {
	var wg sync.WaitGroup
	wg.Go(func() { runc = f(w[1]) })
	tare = f(w[0])
	wg.Wait()
	return tare, runc
}

// prepare runs a script on both sides, which must succeed.
func prepare(t *testing.T, w [2]*side, script string) {
	t.Helper()
	tare, runc := both(w, func(s *side) result { return s.sh("set -e\n" + script) })
	for i, r := range []result{tare, runc} {
		if r.code != 0 {
			t.Fatalf("prepare the side of %s: status %d: %s%s", w[i].name, r.code, r.out, r.err)
		}
	}
}

func lines(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") }
