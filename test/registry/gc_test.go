package registry

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// push uploads a blob and returns its digest.
func (x *running) push(t *testing.T, repo, content string) string {
	t.Helper()
	d := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content)))
	a, err := http.Post("http://"+x.addr+"/v2/"+repo+"/blobs/uploads/?digest="+d, "application/octet-stream", strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != http.StatusCreated {
		t.Fatalf("push: %s", a.Status)
	}
	return d
}

// old waits until all blobs are synced, and makes them look as if nobody had used them for two hours.
func (x *running) old(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		pending, err := filepath.Glob(x.dir + "/root/pending/*/*")
		if err != nil || time.Now().After(end) {
			t.Fatalf("blobs are not synced: %v %v", pending, err)
		}
		if len(pending) == 0 {
			break
		}
	}
	then := time.Now().Add(-2 * time.Hour)
	for _, dir := range []string{"blobs", "repositories"} {
		err := filepath.WalkDir(x.dir+"/root/"+dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			return os.Chtimes(path, then, then)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestGC collects garbage beside a server that serves.
func TestGC(t *testing.T) {
	x := startTared(t, "")
	path := "/v2/a/blobs/" + x.push(t, "a", "garbage")
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(tared(t), append([]string{"gc", "--config", x.dir + "/config.toml", "--root", x.dir + "/root"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("gc %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := run(); !strings.HasPrefix(out, "freed 0 bytes") {
		t.Errorf("within the grace period: %s", out)
	}
	x.old(t)
	if out := run("--dry-run"); !strings.HasPrefix(out, "would free 7 bytes: 1 blobs, 0 manifests, 0 uploads; 0 tags and 1 links") {
		t.Error(out)
	}
	if status, _ := x.get(t, path, ""); status != 200 {
		t.Errorf("after a dry run: %d", status)
	}
	if out := run("--json"); !strings.Contains(out, `{"kind":"blob","name":"sha256:`) || !strings.Contains(out, `"bytes":7}`) {
		t.Error(out)
	}
	if status, _ := x.get(t, path, ""); status != 404 {
		t.Errorf("after the collection: %d", status)
	}
	if out, err := exec.Command(tared(t), "gc", "--root", x.dir+"/none").CombinedOutput(); err == nil || !strings.Contains(string(out), "no such file") {
		t.Errorf("no registry: %s", out)
	}
}
