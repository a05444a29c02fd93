package registry

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPullThrough: skopeo pulls by a proxy, with its own login, from a registry that wants another one; and again when that registry
// is gone.
func TestPullThrough(t *testing.T) {
	need(t, "htpasswd", "skopeo", "umoci")
	upstream := startTared(t, fmt.Sprintf("[auth]\nhtpasswd = %q\n", htpasswdFile(t, t.TempDir(), "robot")))
	users := htpasswdFile(t, t.TempDir(), "alice")
	proxy := startTared(t, fmt.Sprintf("[auth]\nhtpasswd = %q\n[[proxy]]\nupstream = \"http://%s\"\nusername = \"robot\"\npassword = \"%srobot\"\n[log]\naccess = \"access.log\"\n", users, upstream.addr, topSecret))
	image := filepath.Join(proxy.dir, "image")
	skopeo := func(args ...string) (string, error) {
		out, err := exec.Command("skopeo", args...).CombinedOutput()
		return string(out), err
	}
	for _, args := range [][]string{{"umoci", "init", "--layout", image}, {"umoci", "new", "--image", image + ":1"}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", args, err, out)
		}
	}
	if out, err := skopeo("copy", "--dest-tls-verify=false", "--dest-creds", "robot:"+topSecret+"robot", "oci:"+image+":1", "docker://"+upstream.addr+"/team/app:1"); err != nil {
		t.Fatalf("push upstream: %s", out)
	}
	for i, creds := range []string{"alice:" + topSecret + "alice", "robot:" + topSecret + "robot", "alice:" + topSecret + "alice"} {
		if i == 2 {
			_ = upstream.Process.Kill()
			<-upstream.done
		}
		out, err := skopeo("copy", "--src-tls-verify=false", "--src-creds", creds, "docker://"+proxy.addr+"/team/app:1", fmt.Sprintf("dir:%s/copy%d", proxy.dir, i))
		if good := strings.HasPrefix(creds, "alice"); (err == nil) != good {
			t.Errorf("pull %d: %v %s; the proxy said %s", i, err, out, proxy.said)
		}
	}
	if out, err := skopeo("copy", "--dest-tls-verify=false", "--dest-creds", "alice:"+topSecret+"alice", "oci:"+image+":1", "docker://"+proxy.addr+"/team/app:2"); err == nil {
		t.Errorf("a push was taken: %s", out)
	}
	if code, _ := proxy.get(t, "/", "alice"); code != 200 {
		t.Errorf("page: %d", code)
	}
}

// TestMirrorOfContainerd: containerd, which says by ns= which registry it means, pulls by a proxy as its mirror.
func TestMirrorOfContainerd(t *testing.T) {
	need(t, "containerd", "ctr", "skopeo", "umoci")
	upstream := startTared(t, "")
	proxy := startTared(t, fmt.Sprintf("[[proxy]]\nupstream = \"http://%s\"\nttl = \"1m\"\n[log]\naccess = \"access.log\"\n", upstream.addr))
	dir := t.TempDir()
	hosts, socket := filepath.Join(dir, "hosts"), filepath.Join(dir, "c.sock")
	if err := os.MkdirAll(filepath.Join(hosts, upstream.addr), 0o700); err != nil {
		t.Fatal(err)
	}
	// The server itself must not help out.
	toml := fmt.Sprintf("server = \"http://127.0.0.1:1\"\n[host.\"http://%s\"]\ncapabilities = [\"pull\", \"resolve\"]\n", proxy.addr)
	if err := os.WriteFile(filepath.Join(hosts, upstream.addr, "hosts.toml"), []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("containerd", "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"), "-a", socket)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
	})
	image := filepath.Join(dir, "image")
	for _, args := range [][]string{{"umoci", "init", "--layout", image}, {"umoci", "new", "--image", image + ":1"},
		{"skopeo", "copy", "--dest-tls-verify=false", "oci:" + image + ":1", "docker://" + upstream.addr + "/team/app:1"}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", args, err, out)
		}
	}
	var out []byte
	err := errors.New("never tried")
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // until the daemon answers
		out, err = exec.Command("ctr", "-a", socket, "content", "fetch", "--hosts-dir", hosts, upstream.addr+"/team/app:1").CombinedOutput()
	}
	log, _ := os.ReadFile(filepath.Join(proxy.dir, "access.log"))
	if err != nil || strings.Count(string(log), "ns=127.0.0.1") < 3 {
		t.Errorf("ctr: %v %s; the proxy saw %s", err, out, log)
	}
}
