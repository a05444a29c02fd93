package hosts

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestUnreadable: a user for whom Docker's directory is closed pulls as if it were not there.
func TestUnreadable(t *testing.T) {
	if dir := os.Getenv("TARE_TEST_UNREADABLE"); dir != "" { // as nobody
		if _, err := os.ReadDir(filepath.Join(dir, "docker")); err == nil {
			t.Fatal("the directory can be read")
		}
		cfg, err := Load(Options{Certs: []string{dir + "/docker/certs.d"}, Containerd: []string{dir + "/docker/certs.d"}, Getenv: noEnv})
		if err != nil {
			t.Fatal(err)
		}
		if got := show([]Endpoint{first(t, cfg, "q.io/a")}); got != "https://q.io a"+all {
			t.Error(got)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	dir, err := os.MkdirTemp("/tmp", "tare-unreadable-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{os.Chmod(dir, 0o755), os.WriteFile(dir+"/test", binary, 0o755), os.MkdirAll(dir+"/docker/certs.d/q.io", 0o700),
		os.WriteFile(dir+"/docker/certs.d/q.io/hosts.toml", []byte("server = \"https://x.io\""), 0o600)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	cmd := exec.Command(dir+"/test", "-test.run=^TestUnreadable$")
	cmd.Dir = dir
	cmd.Env = []string{"TARE_TEST_UNREADABLE=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
