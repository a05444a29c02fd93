package state

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tare-oci/tare/internal/procfs/procfstest"
)

func TestCheckID(t *testing.T) {
	if err := CheckID(""); err == nil || err.Error() != "container id cannot be empty" {
		t.Errorf("CheckID of an empty id = %v", err)
	}
	for _, id := range []string{"a", "A_+.-9", "...", ".a", "-f", strings.Repeat("x", 255)} {
		if err := CheckID(id); err != nil {
			t.Errorf("CheckID(%q) = %v", id, err)
		}
	}
	for _, id := range []string{"", ".", "..", "a/b", "/", "a b", "ä", "a\n", "a~", "a\x00", strings.Repeat("x", 256)} {
		if err := CheckID(id); !errors.Is(err, ErrInvalidID) {
			t.Errorf("CheckID(%q) = %v", id, err)
		}
		if _, err := Reserve(t.TempDir(), id); !errors.Is(err, ErrInvalidID) {
			t.Errorf("Reserve(%q) = %v", id, err)
		}
		if _, err := Load(t.TempDir(), id); !errors.Is(err, ErrInvalidID) {
			t.Errorf("Load(%q) = %v", id, err)
		}
	}
}

func TestDefaultRoot(t *testing.T) {
	for _, c := range []struct {
		uid       int
		xdg, want string
	}{{0, "/run/user/0", "/run/tare"}, {0, "", "/run/tare"}, {1000, "", "/run/tare"}, {1000, "/run/user/1000", "/run/user/1000/tare"}} {
		if got := DefaultRoot(c.uid, c.xdg); got != c.want {
			t.Errorf("DefaultRoot(%d, %q) = %s, want %s", c.uid, c.xdg, got, c.want)
		}
	}
	root := filepath.Join(t.TempDir(), "x", "tare")
	if err := MakeRootless(root); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(root); err != nil || info.Mode() != os.ModeDir|os.ModeSticky|0o700 {
		t.Errorf("mode of the root = %v, %v", info.Mode(), err)
	}
}

func TestReserve(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	c, err := Reserve(root, "c1")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(c.Path("")); err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("mode of the directory = %v, %v", info, err)
	}
	if _, err := Reserve(root, "c1"); err != ErrExists {
		t.Errorf("second Reserve = %v", err)
	}
	l, err := Load(root, "c1")
	if err != nil || l.Status() != Creating || l.ID != "c1" {
		t.Fatalf("Load = %+v, %v", l, err)
	}
	// Open waits until the lock is free.
	opened := make(chan error)
	go func() {
		o, err := Open(context.Background(), root, "c1")
		if err == nil {
			o.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Errorf("Open of a locked container = %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	given, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := Open(given, root, "c1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open with a deadline = %v", err)
	}
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-opened; err != ErrNotExist {
		t.Errorf("Open of a removed container = %v", err)
	}
	if err := c.Remove(); err != nil {
		t.Errorf("second Remove = %v", err)
	}
	if _, err := Load(root, "c1"); err != ErrNotExist {
		t.Errorf("Load of a removed container = %v", err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Errorf("left in the root: %v, %v", left, err)
	}
}

func TestReserveRace(t *testing.T) {
	// Within one process the temporary name is the same, and still one of them must win.
	root := t.TempDir()
	var won []*Container
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if c, err := Reserve(root, "c"); err == nil {
				mu.Lock()
				won = append(won, c)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d creations succeeded", len(won))
	}
	won[0].Close()
}

func TestStatus(t *testing.T) {
	root := t.TempDir()
	c, err := Reserve(root, "c")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := exec.Command("sleep", "1000")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer p.Process.Kill()
	status := func(want Status) {
		t.Helper()
		if err := c.Save(); err != nil {
			t.Fatal(err)
		}
		l, err := Load(root, "c")
		if err != nil || l.Status() != want {
			t.Errorf("status = %v, %v; want %s", l.Status(), err, want)
		}
	}
	status(Creating)
	if c.Init, err = Find(p.Process.Pid); err != nil {
		t.Fatal(err)
	}
	status(Creating)
	c.Creator.StartTime++ // the creator died, and another process has its number
	status(Stopped)
	c.Creating = false
	status(Running)
	if err := os.WriteFile(c.Path(StartSocket), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	status(Running) // the start that should have removed it was killed
	executed := c.Init
	if c.Init, err = Find(procfstest.Forked(t)); err != nil {
		t.Fatal(err)
	}
	status(Created)
	c.Init.StartTime++
	status(Stopped)
	c.Init.StartTime--
	os.Remove(c.Path(StartSocket))
	status(Running) // a restored one
	c.Init = executed
	p.Process.Kill()
	if _, err := os.ReadFile("/proc/self/stat"); err != nil {
		t.Fatal(err)
	}
	for c.Init.Alive() {
		time.Sleep(time.Millisecond)
	}
	status(Stopped) // a zombie: we have not waited for it
	p.Wait()
	status(Stopped)
}

func TestOutput(t *testing.T) {
	c := &Container{State: State{
		ID: "c", Init: Process{Pid: 7}, Bundle: "/b", Rootfs: "/b/r", Created: time.Unix(1, 500).UTC(), Owner: 0,
	}}
	data, err := json.Marshal(c.Output(Running))
	const want = `{"ociVersion":"1.3.0","id":"c","pid":7,"status":"running","bundle":"/b","rootfs":"/b/r",` +
		`"created":"1970-01-01T00:00:01.0000005Z","owner":"root"}`
	if err != nil || string(data) != want {
		t.Errorf("output %s, %v; want %s", data, err, want)
	}
	c.Annotations = map[string]string{"k": "v"}
	c.Owner = 4000000001
	if o := c.Output(Stopped); o.Pid != 0 || o.Annotations["k"] != "v" || o.Owner != "4000000001" {
		t.Errorf("output of a stopped container %+v", o)
	}
}

func TestConfigAndList(t *testing.T) {
	root := t.TempDir()
	if ids, err := List(filepath.Join(root, "none")); err != nil || ids != nil {
		t.Errorf("List of no root = %v, %v", ids, err)
	}
	for _, id := range []string{"b", "a"} {
		c, err := Reserve(root, id)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SaveConfig([]byte("{}")); err != nil {
			t.Fatal(err)
		}
		if data, err := c.Config(); err != nil || string(data) != "{}" {
			t.Errorf("Config = %s, %v", data, err)
		}
		c.Close()
	}
	old := filepath.Join(root, "~1~x")
	if err := os.MkdirAll(filepath.Join(old, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(old, time.Now(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if ids, err := List(root); err != nil || !slices.Equal(ids, []string{"a", "b"}) {
		t.Errorf("List = %v, %v", ids, err)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("a directory that a killed create left is still there: %v", err)
	}
}
