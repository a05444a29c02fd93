package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// peer returns a path for --runtime of another runtime. Crun 1.8 refuses the hybrid layout of cgroups, so it gets a mount
// namespace without the unified hierarchy.
func peer(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.procs"); name != "crun" || err != nil {
		return path
	}
	wrapper := filepath.Join(t.TempDir(), name)
	script := "#!/bin/sh\nexec unshare -m sh -c 'umount /sys/fs/cgroup/unified; exec " + path + " \"$@\"' " + name + " \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return wrapper
}

// Any OCI runtime does: nothing that tare asks for is its own runtime's alone.
func TestOtherRuntimes(t *testing.T) {
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			s.runtime = peer(t, name)
			memory := cgroupFile("memory/memory.limit_in_bytes", "memory.max")
			got := s.sh("--memory 64m --pids-limit 20 -h box -u 1000 -v /anon -w /tmp", "hostname; id -u; pwd; cat "+memory+"; ls -d /anon")
			if want := "box\n1000\n/tmp\n67108864\n/anon"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			for code, args := range map[int][]string{0: {"true"}, 9: {"sh", "-c", "exit 9"}, 127: {"nope"}, 126: {"/etc/noexec"}} {
				if r := s.run(nil, args...); r.code != code {
					t.Errorf("%v: %+v, want status %d", args, r, code)
				}
			}
			c, _ := s.up([]string{"--rm", "--name", "a"}, "sh", "-c", "echo up; sleep 1000")
			if r := s.do("rm", "-f", "a").result(); r.code != 0 {
				t.Errorf("rm -f: %+v", r)
			}
			if r := c.wait(); r.code != 137 {
				t.Errorf("killed: %+v", r)
			}
			if r := s.run([]string{"--read-only"}, "touch", "/x"); r.code != 1 || !strings.Contains(r.err, "Read-only") {
				t.Errorf("read-only: %+v", r)
			}
			s.empty()
		})
	}
}
