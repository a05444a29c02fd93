package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSummarize(t *testing.T) {
	var samples []sample
	for _, n := range []int{5, 1, 4, 2, 3, 11, 10, 9, 8, 7, 6} { // 1 … 11
		samples = append(samples, sample{wall: time.Duration(n) * time.Second, cpu: time.Duration(n) * time.Minute})
	}
	if got, want := summarize(samples), (summary{6 * time.Second, 2 * time.Second, 10 * time.Second, 6 * time.Minute}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := summarize([]sample{{wall: 1, cpu: 2}, {wall: 3, cpu: 4}}); got.median != 2 || got.cpu != 3 {
		t.Errorf("of an even number: median %d, cpu %d, not 2 and 3", got.median, got.cpu)
	}
}

func TestConvertProfile(t *testing.T) {
	const profile = `{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
		"archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}, {"architecture": "SCMP_ARCH_AARCH64"}],
		"syscalls": [
			{"names": ["read"], "action": "SCMP_ACT_ALLOW"},
			{"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
			{"names": ["swapcontext"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["ppc64le"]}},
			{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
			{"names": ["umount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
			{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_KILL"]}}]}`
	m, err := convertProfile([]byte(profile), "amd64", []string{"CAP_KILL"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range m["syscalls"].([]any) {
		names = append(names, r.(map[string]any)["names"].([]string)...)
	}
	if len(names) != 3 || names[0] != "read" || names[1] != "arch_prctl" || names[2] != "umount" {
		t.Errorf("rules for %v, want read, arch_prctl and umount", names)
	}
	if a := m["architectures"].([]string); len(a) != 2 || m["defaultErrnoRet"] != uint(38) {
		t.Errorf("architectures %v, default errno %v", a, m["defaultErrnoRet"])
	}
}

func TestReadTrace(t *testing.T) {
	const trace = `10 1.000001 execve("/x", ["x"], 0x1 /* 2 vars */) = 0 <0.000100>
10 1.000002 clone(child_stack=0x1, flags=CLONE_VM|CLONE_THREAD, tls=0x2) = 11 <0.000047>
10 1.000003 clone3({flags=CLONE_PIDFD|CLONE_NEWNS, exit_signal=SIGCHLD}, 88 <unfinished ...>
12 1.000004 umask(000) = 022 <0.000006>
10 1.000005 <... clone3 resumed> => {pidfd=[21]}, 88) = 12 <0.000500>
12 1.000006 close(3) = 0 <0.000010>
11 1.000007 close(4 <unfinished ...>
12 1.000008 close(5) = 0 <0.000020>
11 1.000009 <... close resumed>) = 0 <0.000030>
12 1.000010 +++ exited with 0 +++
`
	file := filepath.Join(t.TempDir(), "trace")
	if err := os.WriteFile(file, []byte(trace), 0o600); err != nil {
		t.Fatal(err)
	}
	costs, least, err := readTrace(file)
	if err != nil {
		t.Fatal(err)
	}
	us := time.Microsecond
	for c, want := range map[call]cost{
		{"parent", "clone3"}: {1, 500 * us}, {"child", "close"}: {2, 30 * us}, {"parent", "close"}: {1, 30 * us}, {"parent", "clone"}: {1, 47 * us},
	} {
		if costs[c] != want {
			t.Errorf("%v cost %v, want %v", c, costs[c], want)
		}
	}
	if least != 6*us {
		t.Errorf("the cheapest call took %v, want 6µs", least)
	}
}
