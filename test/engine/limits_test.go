package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cgroupFile reads a limit from inside a container, whichever version of cgroups the host has.
func cgroupFile(v1, v2 string) string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "/sys/fs/cgroup/" + v2
	}
	return "/sys/fs/cgroup/" + v1
}

func TestLimits(t *testing.T) {
	s := newStore(t)
	memory := cgroupFile("memory/memory.limit_in_bytes", "memory.max")
	swap := cgroupFile("memory/memory.memsw.limit_in_bytes", "memory.swap.max")
	unified := strings.HasSuffix(swap, "swap.max")
	pids := cgroupFile("pids/pids.max", "pids.max")
	limits := []struct{ options, file, want string }{
		{"--memory 64m", memory, "67108864"},
		{"-m 64m", swap, map[bool]string{true: "67108864", false: "134217728"}[unified]},
		{"-m 64m --memory-swap 80m", swap, map[bool]string{true: "16777216", false: "83886080"}[unified]},
		{"--pids-limit 20", pids, "20"},
		{"--pids-limit -1", pids, "max"},
	}
	if unified {
		limits = append(limits, struct{ options, file, want string }{"--cpus 0.5", "/sys/fs/cgroup/cpu.max", "50000 100000"})
	} else {
		limits = append(limits, struct{ options, file, want string }{"--cpus 1.5", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000"})
	}
	for _, c := range limits {
		if got := s.sh(c.options, "cat "+c.file); got != c.want {
			t.Errorf("%s: %s is %q, want %q", c.options, c.file, got, c.want)
		}
	}
}

func TestLimitsBite(t *testing.T) {
	s := newStore(t)
	if r := s.run([]string{"--memory", "16m"}, "sh", "-c", "tail /dev/zero; exit $?"); r.code != 137 {
		t.Errorf("a process that needs more memory than it may: %+v", r)
	}
	r := s.run([]string{"--pids-limit", "8"}, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 20 & done; echo started all")
	if r.code == 0 || !strings.Contains(r.err, "fork") {
		t.Errorf("more processes than it may have: %+v", r)
	}
}

// Nothing of a container stays after --rm: files, mounts, cgroups, processes.
func TestNothingLeft(t *testing.T) {
	s := newStore(t)
	for _, script := range []string{"hostname", "hostname; mkdir -p /a/b/c; touch /a/x; sleep 100 &", "hostname; exit 3"} {
		r := s.run([]string{"-v", "/anonymous", "--memory", "64m"}, "sh", "-c", script)
		id := strings.TrimSpace(r.out)
		if len(id) != 12 {
			t.Fatalf("%s: %+v", script, r)
		}
		if left := cgroupsOf(id); len(left) > 0 {
			t.Errorf("%s: cgroups are left: %v", script, left)
		}
		s.empty()
		s.nothingOnHost()
	}
	known := map[string]bool{"lock": true, "containers": true, "names": true, "running": true, "layers": true, "images": true, "store": true}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !known[e.Name()] {
			t.Errorf("left in the store: %s", filepath.Join(s.root, e.Name()))
		}
	}
}
