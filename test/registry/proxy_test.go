package registry

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
