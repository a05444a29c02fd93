package runtime

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// showConfinement prints what confines a process, a line each.
const showConfinement = "grep -E '^(Cap(Prm|Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t' ' '; cat /proc/self/oom_score_adj; ulimit -n; umask"

// confinement is what showConfinement prints for one capability set.
func confinement(caps string, noNewPrivs, seccomp, oom, files int, umask string) string {
	return fmt.Sprintf("CapPrm: %[1]s\nCapEff: %[1]s\nCapBnd: %[1]s\nNoNewPrivs: %[2]d\nSeccomp: %[3]d\n%[4]d\n%[5]d\n%[6]s", caps, noNewPrivs, seccomp, oom, files, umask)
}

const (
	capKillAdmin = "0000000000001020"
	capAdmin     = "0000000000001000"
	allowMkdir   = `linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`
)

// confined are edits for a container whose process has less than an exec could have.
var confined = []string{capEdit("CAP_KILL", "CAP_KILL", "CAP_KILL", "", ""), allowMkdir, `process.oomScoreAdj=300`,
	`process.rlimits=[{"type":"RLIMIT_NOFILE","soft":77,"hard":78}]`, `process.user={"uid":0,"gid":0,"umask":63}`, `process.noNewPrivileges=true`}

// silentProcess is a process document that says nothing about how it is confined.
func silentProcess(script string) specs.Process {
	return specs.Process{Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/"}
}

func TestNoCapabilities(t *testing.T) {
	runCases(t, []Case{
		{Row: "P21 unset gives none", Edit: []string{"-process.capabilities"}, Sh: showCaps, Out: capsLine(capNone, capNone, capNone, capNone, capNone)},
		{Row: "P21 unset gives none in a user namespace", Edit: []string{"-process.capabilities", userns, idMaps(100000, 65536)}, Sh: showCaps,
			Out: capsLine(capNone, capNone, capNone, capNone, capNone)},
		{Row: "P21 unset warns", Edit: []string{"-process.capabilities"}, Args: []string{"true"}, Warn: "process.capabilities"},
	})
	row(t, "P21 unset warns once", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit("-process.capabilities")
		text := h.Create(b).Stderr + h.MustRT("start", b.ID).Stderr + h.RT("exec", b.ID, "true").Stderr
		if n := strings.Count(text, "process.capabilities"); n != 1 {
			h.Errorf("%d warnings:\n%s", n, text)
		}
	})
}

func TestExecConfinement(t *testing.T) {
	// What the file does not say is the container's.
	row(t, "X silent process is confined as the container", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(confined...)
		h.Up(b)
		h.Want(h.RT("exec", "--process", processFile(h, silentProcess(showConfinement)), b.ID), confinement(capKill, 1, 2, 300, 77, "0077"), 0)
	})
	row(t, "X silent process has the container's capabilities", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(capEdit("CAP_KILL", "CAP_KILL", "CAP_KILL", "", ""))
		h.Up(b)
		h.Want(h.RT("exec", "--process", processFile(h, silentProcess(showCaps)), b.ID), capsLine(capNone, capKill, capKill, capKill, capNone), 0)
	})
	row(t, "X silent process of a container without capabilities has none", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit("-process.capabilities")
		h.Up(b)
		none := capsLine(capNone, capNone, capNone, capNone, capNone)
		h.Want(h.RT("exec", "--process", processFile(h, silentProcess(showCaps)), b.ID), none, 0)
		h.Want(h.RT("exec", b.ID, "sh", "-c", showCaps), none, 0)
	})
	row(t, "X cap alone", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit("-process.capabilities")
		h.Up(b)
		h.Want(h.RT("exec", "--cap", "CAP_NET_ADMIN", b.ID, "sh", "-c", showCaps), capsLine(capNone, capAdmin, capAdmin, capAdmin, capNone), 0)
	})
	row(t, "X process says its own confinement", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(confined...)
		h.Up(b)
		p := silentProcess(showConfinement)
		set := []string{"CAP_KILL", "CAP_NET_ADMIN"}
		oom, umask := 200, uint32(0o22)
		p.Capabilities = &specs.LinuxCapabilities{Bounding: set, Permitted: set, Effective: set}
		p.OOMScoreAdj, p.User.Umask = &oom, &umask
		p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 88, Hard: 99}}
		h.Want(h.RT("exec", "--process", processFile(h, p), b.ID), confinement(capKillAdmin, 1, 2, 200, 88, "0022"), 0)
	})
	row(t, "X empty capabilities are none", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		p := silentProcess(showCaps)
		p.Capabilities = &specs.LinuxCapabilities{}
		h.Want(h.RT("exec", "--process", processFile(h, p), b.ID), capsLine(capNone, capNone, capNone, capNone, capNone), 0)
	})
}
