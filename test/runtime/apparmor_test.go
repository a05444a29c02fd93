package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// profiles are AppArmor profiles: a container's, which may do all but write below /forbidden, and a narrower one, whose
// processes may not write at all.
const profiles = `profile MARK-wide flags=(attach_disconnected,mediate_deleted) {
  capability, network, mount, umount, signal, ptrace, unix, pivot_root, file, change_profile,
  deny /forbidden/** w,
}
profile MARK-narrow flags=(attach_disconnected,mediate_deleted) {
  capability, signal, unix, /** rmix, /dev/pts/* rw, /dev/tty rw,
}
`

// TestAppArmor needs a kernel with AppArmor: test/vm runs it in a machine.
func TestAppArmor(t *testing.T) {
	if on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err != nil || !strings.HasPrefix(string(on), "Y") {
		t.Skip("this machine has no AppArmor (make test-vm runs this in a virtual machine)")
	}
	parser, err := exec.LookPath("apparmor_parser")
	if err != nil {
		t.Skipf("profiles cannot be loaded: %v", err)
	}
	mark := filepath.Base(ocitest.WorkDir())
	load := func(flag string) error {
		cmd := exec.Command(parser, "-K", flag)
		cmd.Stdin = strings.NewReader(strings.ReplaceAll(profiles, "MARK", mark))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("apparmor_parser %s: %s", flag, out)
		}
		return err
	}
	if err := load("-r"); err != nil {
		t.Fatal(err)
	}
	defer load("-R")
	wide, narrow := `process.apparmorProfile="`+mark+`-wide"`, `process.apparmorProfile="`+mark+`-narrow"`
	const show = "cat /proc/self/attr/current; mkdir /forbidden 2>/dev/null; (echo x >/forbidden/f) 2>/dev/null && echo wrote there; (echo x >/tmp/f) && echo wrote"
	runCases(t, []Case{
		{Row: "P27 profile", Edit: []string{wide}, Sh: show, Out: mark + "-wide (enforce)\nwrote"},
		{Row: "P27 no profile", Sh: show, Out: "unconfined\nwrote there\nwrote"},
		{Row: "P27 profile that is not loaded", Edit: []string{`process.apparmorProfile="` + mark + `-none"`}, Err: "apparmor"},
		{Row: "P27 profile without new privileges", Edit: []string{wide, `process.noNewPrivileges=true`}, Sh: show, Out: mark + "-wide (enforce)\nwrote"},
		{Row: "P27 profile of a user", Edit: []string{wide, `process.user={"uid":1000,"gid":1000}`, `process.noNewPrivileges=false`}, Sh: "cat /proc/self/attr/current",
			Out: mark + "-wide (enforce)"},
		{Row: "P27 profile in a user namespace", Edit: []string{wide, userns, idMaps(100000, 65536)}, Sh: "cat /proc/self/attr/current", Out: mark + "-wide (enforce)"},
		{Row: "P27 a narrow profile", Edit: []string{narrow}, Sh: "cat /proc/self/attr/current; (echo x >/tmp/f) 2>/dev/null || echo refused",
			Out: mark + "-narrow (enforce)\nrefused"},
	})
	row(t, "P27 profile of create, start and exec", func(h *H) {
		b := h.Bundle().Edit(wide).Args("sleep", "1000")
		h.Up(b)
		if got, err := os.ReadFile("/proc/" + strconv.Itoa(h.State(b.ID).Pid) + "/attr/current"); err != nil || string(got) != mark+"-wide (enforce)\n" {
			h.Errorf("the container's process has the label %q, %v", got, err)
		}
		h.Want(h.RT("exec", b.ID, "cat", "/proc/self/attr/current"), mark+"-wide (enforce)", 0)
		h.Want(h.RT("exec", "--apparmor", mark+"-narrow", b.ID, "cat", "/proc/self/attr/current"), mark+"-narrow (enforce)", 0)
		file := h.File("p.json", `{"args":["cat","/proc/self/attr/current"],"cwd":"/","env":["PATH=/bin"]}`, 0o644)
		h.Want(h.RT("exec", "--process", file, b.ID), mark+"-wide (enforce)", 0)
		h.FailRT("apparmor", "exec", "--apparmor", mark+"-none", b.ID, "true")
	})
}
