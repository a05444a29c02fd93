package registry

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFullDisk has a registry on a file system of 4 MiB: what does not fit is refused as that, nothing of it stays, and what
// fits is served.
func TestFullDisk(t *testing.T) {
	x := &running{dir: t.TempDir(), said: &said{}, done: make(chan error, 1)}
	root := filepath.Join(x.dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	x.Cmd = exec.Command("unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=4m none "+root+" && exec "+tared(t)+
		" registry --listen 127.0.0.1:0 --no-web --root "+root)
	x.Stderr, x.Stdout = x.said, x.said
	if err := x.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { x.done <- x.Wait(); close(x.done) }()
	t.Cleanup(func() {
		_ = x.Process.Kill()
		<-x.done
	})
	x.addr = x.said.await(t, `registry on https?://(\S+)\n`)[1]
	d := x.push(t, "a", "small")
	large := strings.Repeat("x", 8<<20)
	other := "sha256:" + strings.Repeat("0", 64)
	url := "http://" + x.addr + "/v2/a/blobs/uploads/"
	for range 3 {
		if send("POST", url+"?digest="+other, large, 507) == nil {
			t.Fatalf("a blob that does not fit is not answered with 507: %s", x.said)
		}
		a := send("POST", url, "", 202)
		if a == nil {
			t.Fatal("the space was not freed")
		}
		location := "http://" + x.addr + a.Header.Get("Location")
		if send("PATCH", location, large, 507) == nil {
			t.Errorf("a chunk that does not fit is not answered with 507: %s", x.said)
		}
		if send("DELETE", location, "", 204) == nil {
			t.Error("the upload cannot be cancelled")
		}
	}
	if status, body := x.get(t, "/v2/a/blobs/"+d, ""); status != 200 || body != "small" {
		t.Errorf("%d %s", status, body)
	}
	x.push(t, "a", large[:1<<20])
}
