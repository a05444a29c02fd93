package escape

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
	"golang.org/x/sys/unix"
)

const (
	scmpAllow = "SCMP_ACT_ALLOW"
	scmpErrno = "SCMP_ACT_ERRNO"
)

// TestFilters is about the ways around a seccomp filter.
func TestFilters(t *testing.T) {
	for family, name := range map[int]string{unix.AF_ALG: "AF_ALG", unix.AF_VSOCK: "AF_VSOCK"} {
		rule := ocitest.Rule("socket", scmpErrno, fmt.Sprintf(`,"errnoRet":95,"args":[{"index":0,"value":%d,"op":"SCMP_CMP_EQ"}]`, family))
		// The kernel takes the lower half of the argument only, and so must a rule that cannot be passed by.
		low := ocitest.Rule("socket", scmpErrno, fmt.Sprintf(`,"errnoRet":95,"args":[{"index":0,"value":4294967295,"valueTwo":%d,"op":"SCMP_CMP_MASKED_EQ"}]`, family))
		row(t, "CVE-2026-123876 denied sockets, "+name, func(h *H) {
			b := h.Bundle().Edit(ocitest.Seccomp(scmpAllow, rule)).Args(ocitest.ProbeCall(unix.SYS_SOCKET, family, 5, 0)...)
			h.Want(h.Run(b), "ENOTSUP", 0)
		})
		row(t, "CVE-2026-123876 containerd#13330 moby#52494 denied sockets by other entries, "+name, func(h *H) {
			if runtime.GOARCH != "amd64" {
				h.T.Skip("only amd64 has a 32-bit entry for every process")
			}
			// With and without the 32-bit architecture in the profile.
			for _, archs := range []string{`["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"]`, `["SCMP_ARCH_X86_64"]`} {
				b := h.Bundle().Args("attack", "socket32", fmt.Sprint(family)).Edit(ocitest.Seccomp(scmpAllow, low), `linux.seccomp.architectures=`+archs)
				attacker(h, b)
				r := h.Run(b)
				for line := range strings.Lines(r.Stdout) {
					if strings.HasSuffix(strings.TrimSpace(line), " ok") && !strings.HasPrefix(line, "socketcall") {
						h.Errorf("%s: a denied socket was made: %s", archs, line)
					}
				}
				if r.Code == 0 && !strings.Contains(r.Stdout, "upper ENOTSUP") {
					h.Errorf("%s: upper bits: %s", archs, r.Stdout)
				}
			}
			// A filter cannot see the arguments of socketcall(2), so that a profile of the allow kind denies it as a whole.
			b := h.Bundle().Args("attack", "socket32", fmt.Sprint(family)).Edit(ocitest.Seccomp(scmpAllow, low+","+ocitest.Rule("socketcall", scmpErrno, "")),
				`linux.seccomp.architectures=["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"]`)
			attacker(h, b)
			if r := h.Run(b); strings.Contains(r.Stdout, " ok") || !strings.Contains(r.Stdout, "socketcall EPERM") {
				h.Errorf("status %d: %s", r.Code, r.Stdout)
			}
		})
	}
	row(t, "CVE-2023-2431 an empty or broken filter is refused", func(h *H) {
		for what, edit := range map[string]string{
			"empty":                   `linux.seccomp={}`,
			"no action":               `linux.seccomp={"syscalls":[]}`,
			"empty action":            `linux.seccomp={"defaultAction":"","syscalls":[]}`,
			"unknown action":          `linux.seccomp={"defaultAction":"SCMP_ACT_NONE"}`,
			"unknown architecture":    `linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_NONE"]}`,
			"rule with empty action":  `linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":""}]}`,
			"rule without an action":  `linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"]}]}`,
			"unknown comparison":      `linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_NONE"}]}]}`,
			"argument beyond the six": `linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}`,
		} {
			if r := h.Run(h.Bundle().Edit(edit)); r.Code == 0 {
				h.Errorf("%s: the container ran", what)
			}
		}
		h.NoLeak("the refusals")
	})
	row(t, "CVE-2023-2431 the filter is in force", func(h *H) {
		for _, nnp := range []string{"true", "false"} {
			edits := []string{`process.noNewPrivileges=` + nnp, ocitest.Seccomp(scmpAllow, ocitest.Rule("getpriority", scmpErrno, ""))}
			const show = "grep -E '^Seccomp:' /proc/self/status | tr -d '\\t'; probe syscall 140 0 0"
			script := strings.ReplaceAll(show, "140", fmt.Sprint(unix.SYS_GETPRIORITY))
			h.Want(h.Run(h.Bundle().Edit(edits...).Sh(script)), "Seccomp:2\nEPERM", 0)
			up := h.Bundle().Edit(edits...).Args("sleep", "60")
			h.Up(up)
			h.Want(h.RT("exec", up.ID, "sh", "-c", script), "Seccomp:2\nEPERM", 0)
		}
	})
}
