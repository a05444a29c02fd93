// Package escape attacks a container runtime as a hostile image, a hostile process in a container, or a hostile neighbour does:
// one test for each published advisory of a low-level runtime, named after it, and for the holes that were found in tare itself.
// RUNTIME (or TARE_RUNTIME) chooses the binary; without it tare-runtime is built and tested. What Debian's runc and crun are
// known to lose is listed in expected_test.go.
package escape

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tare-oci/tare/test/escape/internal/attack"
	"github.com/tare-oci/tare/test/internal/ocitest"
)

type (
	H      = ocitest.H
	Bundle = ocitest.Bundle
	Cmd    = ocitest.Cmd
	Result = ocitest.Result
)

// Short names of what the suites share.
var (
	row           = ocitest.Row
	mnt           = ocitest.Mnt
	capEdit       = ocitest.CapEdit
	idMaps        = ocitest.IDMaps
	rootfsOf      = ocitest.RootfsOf
	nsID          = ocitest.NSID
	long          = ocitest.Long
	consoleSocket = ocitest.ConsoleSocket
)

const (
	userns   = ocitest.UserNS
	terminal = `process.terminal=true`
	noCaps   = "0000000000000000"
	killOnly = "0000000000000020" // CAP_KILL
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == attack.Name {
		os.Exit(attack.Main(os.Args[1:]))
	}
	if rt := os.Getenv("RUNTIME"); rt != "" {
		os.Setenv(ocitest.RuntimeEnv, rt)
	}
	ocitest.Deviations = expected
	ocitest.HideUnified = true
	ocitest.Main(m)
}

// TestControl shows that the runtime works at all: a runtime that refuses everything would pass most tests of this suite.
func TestControl(t *testing.T) {
	row(t, "a container runs and takes another process", func(h *H) {
		h.Want(h.Run(h.Bundle().Sh("echo here")), "here", 0)
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.Want(h.RT("exec", b.ID, "echo", "there"), "there", 0)
	})
}

// attacker makes the attack program a command in the container.
func attacker(h *H, b *Bundle) {
	h.Place(b, "bin/"+attack.Name, "probe")
}

// attackPath is the attack program on the host.
func attackPath(h *H) string {
	self, err := os.Executable()
	if err != nil {
		h.Fatalf("%v", err)
	}
	p := filepath.Join(h.TempDir(), attack.Name)
	if err := os.Symlink(self, p); err != nil {
		h.Fatalf("%v", err)
	}
	return p
}

// mountTable is the mount table that the container's first process had when its mounts were made, and before it left the host's
// root. A mount that landed on the host inside of the child's mount namespace vanishes later with the old root, but is here.
type mountTable struct {
	file string
	host map[string]int
}

// watchMounts adds the hook that reads the table.
func watchMounts(h *H, b *Bundle) *mountTable {
	m := &mountTable{file: filepath.Join(h.TempDir(), "mountinfo"), host: map[string]int{}}
	b.Edit(`hooks.createRuntime+=[{"path":"` + attackPath(h) + `","args":["attack","mountinfo","` + m.file + `"]}]`)
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		h.Fatalf("%v", err)
	}
	for _, p := range mountPoints(string(data)) {
		m.host[p]++
	}
	return m
}

// check records a problem for every mount of a container outside of its root file system, and returns the mount points inside,
// relative to the root, of the run since the last check. ok is false when no hook has run.
func (m *mountTable) check(h *H, b *Bundle) (inside []string, ok bool) {
	data, err := os.ReadFile(m.file)
	if err != nil {
		return nil, false
	}
	os.Remove(m.file)
	left := maps.Clone(m.host)
	for _, p := range mountPoints(string(data)) {
		in, below := strings.CutPrefix(p, b.Rootfs)
		switch {
		case below && (in == "" || in[0] == '/'):
			inside = append(inside, in)
		case left[p] == 0:
			h.Errorf("something is mounted on the host's %s", p)
		default:
			left[p]--
		}
	}
	return inside, true
}

// mountPoints are the fifth fields of a mount table.
func mountPoints(table string) []string {
	var out []string
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > 4 {
			out = append(out, strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(f[4]))
		}
	}
	return out
}

// cmd runs a program of the host.
func cmd(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
