package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestSeccompExplain(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "profile.json")
	text := `{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[
		{"names":["read","swapon"],"action":"SCMP_ACT_ALLOW"},{"names":["acct"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_PACCT"]}},
		{"names":["kcmp"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
		{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":18446744073709551615,"op":"SCMP_CMP_EQ"}]}]}`
	if err := os.WriteFile(profile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args, want string
		status     int
	}{
		{"explain P read amd64", "read (0) on x86_64: allowed\n  rule 0 (read, swapon)\n", 0},
		{"explain P read aarch64", "read (63) on aarch64: allowed\n  rule 0 (read, swapon)\n", 0},
		{"explain P read x86", "read (3) on x86: allowed\n  rule 0 (read, swapon)\n", 0},
		{"explain P acct x86_64", "acct (163) on x86_64: fails with EPERM (1)\n  the default action, SCMP_ACT_ERRNO\n  rule 1 is left out: it is there only with CAP_SYS_PACCT\n", 0},
		{"explain --caps CAP_SYS_PACCT P acct x86_64", "acct (163) on x86_64: allowed\n  rule 1 (acct)\n", 0},
		{"--caps CAP_SYS_PACCT explain P acct x86_64", "acct (163) on x86_64: allowed\n  rule 1 (acct)\n", 0},
		{"explain P kcmp x86_64", "kcmp (312) on x86_64: allowed\n  rule 2 (kcmp)\n", 0},
		{"explain --kernel 4.7 P kcmp x86_64", "kcmp (312) on x86_64: fails with ENOSYS (38)\n", 0},
		{"explain P socket x86_64 -1", "socket (41) on x86_64: allowed\n  rule 3 (socket)\n", 0},
		{"explain P socket x86_64 0xffffffff 1 2", "socket (41) on x86_64: fails with EPERM (1)\n  no rule matches: the default action, SCMP_ACT_ERRNO\n", 0},
		{"explain P socket vax", `\"vax\" is neither an architecture nor a number of 64 bits`, 1},
		{"explain P socket 1 2 3 4 5 6 7", "7 arguments: a system call has at most 6", 1},
		{"explain P nosuch", `unknown system call \"nosuch\"`, 1},
		{"explain /none read", "open /none: no such file or directory", 1},
		{"explain P", "requires a minimum of 3 argument(s)", 1},
		{"explain --kernel 5.1 P", "needs a profile and a system call", 1},
		{"tell P read", `unknown subcommand \"tell\"`, 1},
	} {
		stdout, stderr, status := tare(t, append([]string{"seccomp"}, strings.Fields(strings.Replace(c.args, " P", " "+profile, 1))...)...)
		if got := stdout + stderr; status != c.status || !strings.Contains(got, c.want) {
			t.Errorf("%s: status %d\n%s\nwant\n%s", c.args, status, got, c.want)
		}
	}
	cmd := exec.Command(runtimeBinary, "seccomp", "explain", "-", "read", "amd64")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "allowed") {
		t.Errorf("standard input: %v %s", err, out)
	}
}
