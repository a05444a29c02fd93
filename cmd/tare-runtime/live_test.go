package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/state"
)

// live makes a container c, as create and start leave it, of a process in a cgroup of its own under a new root.
func live(t *testing.T) (root string, pid int) {
	t.Helper()
	host, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	g, err := host.Plan(fmt.Sprintf("/tare-test/cli-%d", os.Getpid()), "c")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Create(nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
	})
	p := exec.Command("sleep", "1000")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill() })
	go p.Wait()
	if err := g.JoinPID(p.Process.Pid, ""); err != nil {
		t.Fatal(err)
	}
	root = t.TempDir()
	c, err := state.Reserve(root, "c")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Cgroup, err = json.Marshal(g); err != nil {
		t.Fatal(err)
	}
	if c.Init, err = state.Find(p.Process.Pid); err != nil {
		t.Fatal(err)
	}
	c.Creating, c.OwnPidNS, c.Bundle, c.Rootfs = false, true, "/b", "/b/rootfs"
	c.Annotations = map[string]string{"k": "<v>"}
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	return root, p.Process.Pid
}

func TestLive(t *testing.T) {
	root, pid := live(t)
	do := func(stdin string, args ...string) string {
		t.Helper()
		c := exec.Command(runtimeBinary, append([]string{"--root=" + root}, args...)...)
		c.Stdin = strings.NewReader(stdin)
		out, err := c.CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		return string(out)
	}
	want := func(want, got string) {
		t.Helper()
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	var s struct{ Created string }
	out := do("", "state", "c")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want(fmt.Sprintf(`{
  "ociVersion": "1.3.0",
  "id": "c",
  "pid": %d,
  "status": "running",
  "bundle": "/b",
  "rootfs": "/b/rootfs",
  "created": %q,
  "owner": "root",
  "annotations": {
    "k": "<v>"
  }
}
`, pid, s.Created), out)
	want("c\n", do("", "list", "-q"))
	want(fmt.Sprintf("%-12s%-12s%-12s%-12s%-*s   %s\n%-12s%-12d%-12s%-12s%s   %s\n", "ID", "PID", "STATUS", "BUNDLE", len(s.Created), "CREATED", "OWNER",
		"c", pid, "running", "/b", s.Created, "root"), do("", "list"))
	want(fmt.Sprintf("[%d]\n", pid), do("", "ps", "--format", "json", "c"))
	if out := do("", "ps", "c"); strings.Count(out, "\n") != 2 || !strings.HasSuffix(out, "sleep 1000\n") {
		t.Errorf("ps printed %q", out)
	}
	want(fmt.Sprintf("  PID COMMAND\n%5d sleep\n", pid), do("", "ps", "c", "-o", "pid,comm", "-e"))
	want("", do(`{"pids":{"limit":7}}`, "update", "--resources=-", "c"))
	want("", do("", "update", "--memory", "64M", "--cpu-share", "512", "c"))
	file := filepath.Join(t.TempDir(), "r.json")
	if err := os.WriteFile(file, []byte(`{"pids":{"limit":"7"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := do("", "update", "-r", file, "c"); !strings.Contains(out, "exit status 1") || !strings.Contains(out, "read resources: ") {
		t.Errorf("update from bad resources: %q", out)
	}
	want("", do("", "pause", "c"))
	want("paused", status(t, do("", "state", "c")))
	want("", do("", "resume", "c"))
	want("running", status(t, do("", "state", "c")))
	if out := do("", "delete", "c"); !strings.Contains(out, `level=error msg="cannot delete container c that is not stopped: running"`) {
		t.Errorf("delete of a running container: %q", out)
	}
	want("", do("", "kill", "c", "9"))
	want("", do("", "delete", "--force", "c"))
	if out := do("", "state", "c"); !strings.Contains(out, "container does not exist") {
		t.Errorf("state after delete: %q", out)
	}
}

func status(t *testing.T, out string) string {
	t.Helper()
	var s struct{ Status string }
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	return s.Status
}
