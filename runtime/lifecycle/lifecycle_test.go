package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/procfs/procfstest"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/state"
)

// fakeGroup is a cgroup of processes that the test made. Like a version 1 freezer it holds a signal back until it is thawed.
type fakeGroup struct {
	pids      []int
	frozen    bool
	pending   []syscall.Signal
	destroyed int
	calls     []string
}

func (g *fakeGroup) Freeze(context.Context) error {
	g.calls = append(g.calls, "freeze")
	g.frozen = true
	return nil
}

func (g *fakeGroup) Thaw(context.Context) error {
	g.calls = append(g.calls, "thaw")
	g.frozen = false
	for _, s := range g.pending {
		g.Kill(s)
	}
	return nil
}

func (g *fakeGroup) Frozen() (bool, error) { return g.frozen, nil }
func (g *fakeGroup) FrozenAbove() string   { return "" }
func (g *fakeGroup) Procs() ([]int, error) { return g.pids, nil }

func (g *fakeGroup) Kill(sig syscall.Signal) error {
	g.calls = append(g.calls, "kill "+sig.String())
	if g.frozen {
		g.pending = append(g.pending, sig)
		return nil
	}
	for _, pid := range g.pids {
		syscall.Kill(pid, sig)
	}
	return nil
}

func (g *fakeGroup) Update(*specs.LinuxResources) error { return nil }
func (g *fakeGroup) Stats() (*cgroup.Stats, error)      { return &cgroup.Stats{}, nil }

func (g *fakeGroup) OOMEvents(ctx context.Context, notify func()) error {
	notify()
	<-ctx.Done()
	return ctx.Err()
}

func (g *fakeGroup) Destroy(context.Context) error {
	g.destroyed++
	return nil
}

type world struct {
	*Runtime
	t        *testing.T
	fake     *fakeGroup
	warnings []string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, fake: &fakeGroup{}}
	w.Runtime = New(t.TempDir(), func(s string) { w.warnings = append(w.warnings, s) })
	w.Runtime.group = func(json.RawMessage) (group, error) { return w.fake, nil }
	return w
}

// process starts a process that dies with the test, and reaps it when it exits.
func (w *world) process() state.Process {
	w.t.Helper()
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Process.Kill() })
	p, err := state.Find(c.Process.Pid)
	if err != nil {
		w.t.Fatal(err)
	}
	go c.Wait()
	return p
}

// container makes a container with a process of its own as its init, changed by edit before it is saved.
func (w *world) container(id string, edit func(*state.Container)) state.Process {
	w.t.Helper()
	c, err := state.Reserve(w.Root, id)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	c.Creating, c.Init, c.OwnPidNS, c.Bundle = false, w.process(), true, w.t.TempDir()
	c.Cgroup = json.RawMessage(`{}`)
	w.fake.pids = append(w.fake.pids, c.Init.Pid)
	if edit != nil {
		edit(c)
	}
	if err := c.Save(); err != nil {
		w.t.Fatal(err)
	}
	return c.Init
}

// created makes c one that waits for start.
func (w *world) created(c *state.Container) {
	p, err := state.Find(procfstest.Forked(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	c.Init, w.fake.pids = p, []int{p.Pid}
	os.WriteFile(c.Path(state.StartSocket), nil, 0o600)
}

func (w *world) want(id string, want state.Status) {
	w.t.Helper()
	if o, err := w.State(id); err != nil || o.Status != want {
		w.t.Errorf("state of %s = %s, %v; want %s", id, o.Status, err, want)
	}
}

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for begin := time.Now(); !f(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%s does not happen", what)
		}
	}
}

var ctx = context.Background()

func TestKill(t *testing.T) {
	w := newWorld(t)
	if err := w.Kill(ctx, "none", syscall.SIGTERM, false); err != state.ErrNotExist {
		t.Errorf("kill of no container = %v", err)
	}
	p := w.container("c", nil)
	if err := w.Kill(ctx, "c", syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	await(t, "death", func() bool { return !p.Alive() })
	w.want("c", state.Stopped)
	if err := w.Kill(ctx, "c", syscall.SIGTERM, false); err != ErrNotRunning {
		t.Errorf("kill of a stopped container = %v", err)
	}
	if err := w.Kill(ctx, "c", syscall.SIGTERM, true); err != nil {
		t.Errorf("kill --all of a stopped container = %v", err)
	}
	p = w.container("created", w.created)
	w.want("created", state.Created)
	if err := w.Kill(ctx, "created", syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	await(t, "death", func() bool { return !p.Alive() })
}

func TestKillNeverHitsAnother(t *testing.T) {
	w := newWorld(t)
	p := w.container("c", func(c *state.Container) { c.Init.StartTime-- })
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := w.Kill(ctx, "c", sig, false); err != ErrNotRunning {
			t.Errorf("kill of a reused number = %v", err)
		}
	}
	if syscall.Kill(p.Pid, 0) != nil {
		t.Error("a process that took over the number was killed")
	}
}

func TestKillPaused(t *testing.T) {
	w := newWorld(t)
	p := w.container("c", func(c *state.Container) { c.OwnPidNS = false })
	if err := w.Pause(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if err := w.Kill(ctx, "c", syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	await(t, "death", func() bool { return !p.Alive() })
	if w.fake.frozen {
		t.Error("still frozen")
	}
}

func TestKillSharedPidNamespace(t *testing.T) {
	w := newWorld(t)
	child := w.process()
	w.fake.pids = append(w.fake.pids, child.Pid)
	p := w.container("c", func(c *state.Container) { c.OwnPidNS = false })
	if err := w.Kill(ctx, "c", syscall.SIGCONT, false); err != nil || len(w.fake.calls) != 0 {
		t.Errorf("another signal went to the group: %v, %v", w.fake.calls, err)
	}
	if err := w.Kill(ctx, "c", syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	await(t, "death of all", func() bool { return !p.Alive() && !child.Alive() })
}

func TestPauseResume(t *testing.T) {
	w := newWorld(t)
	w.container("c", nil)
	if err := w.Resume(ctx, "c"); err != ErrNotPaused {
		t.Errorf("resume of a running container = %v", err)
	}
	if err := w.Pause(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	w.want("c", state.Paused)
	if err := w.Pause(ctx, "c"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("pause of a paused container = %v", err)
	}
	if err := w.Delete(ctx, "c", false); err == nil || err.Error() != "cannot delete container c that is not stopped: paused" {
		t.Errorf("delete of a paused container = %v", err)
	}
	if err := w.Resume(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	w.want("c", state.Running)
	if err := w.Pause(ctx, "none"); err != state.ErrNotExist {
		t.Errorf("pause of no container = %v", err)
	}
}

func TestDelete(t *testing.T) {
	w := newWorld(t)
	if err := w.Delete(ctx, "none", false); err != state.ErrNotExist {
		t.Errorf("delete of no container = %v", err)
	}
	if err := w.Delete(ctx, "none", true); err != nil {
		t.Errorf("delete -f of no container = %v", err)
	}
	p := w.container("c", nil)
	if err := w.Delete(ctx, "c", false); err == nil || err.Error() != "cannot delete container c that is not stopped: running" {
		t.Errorf("delete of a running container = %v", err)
	}
	if !p.Alive() {
		t.Fatal("a refused delete killed")
	}
	w.fake.frozen = true
	if err := w.Delete(ctx, "c", true); err != nil {
		t.Fatal(err)
	}
	w.gone("c", p)
	p = w.container("created", w.created)
	if err := w.Delete(ctx, "created", false); err != nil {
		t.Fatal(err)
	}
	w.gone("created", p)
	// A create that was killed: its init still waits.
	p = w.container("creating", func(c *state.Container) { c.Creating = true; c.Creator.StartTime-- })
	w.want("creating", state.Stopped)
	if err := w.Delete(ctx, "creating", false); err != nil {
		t.Fatal(err)
	}
	w.gone("creating", p)
	if w.fake.destroyed != 3 {
		t.Errorf("cgroup destroyed %d times, want 3", w.fake.destroyed)
	}
}

func (w *world) gone(id string, p state.Process) {
	w.t.Helper()
	if p.Alive() {
		w.t.Errorf("process of %s lives", id)
	}
	if _, err := os.Lstat(filepath.Join(w.Root, id)); !os.IsNotExist(err) {
		w.t.Errorf("state directory of %s is left: %v", id, err)
	}
}

func TestDeleteWhileCreating(t *testing.T) {
	w := newWorld(t)
	c, err := state.Reserve(w.Root, "c")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := w.Delete(ctx, "c", false); err == nil || err.Error() != "cannot delete container c that is not stopped: creating" {
		t.Errorf("delete of a container that is being created = %v", err)
	}
	given, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := w.Delete(given, "c", true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("delete -f of a container that is being created = %v", err)
	}
}

func TestPoststop(t *testing.T) {
	w := newWorld(t)
	var bundle string
	w.container("c", func(c *state.Container) {
		bundle = c.Bundle
		sh := func(script string) specs.Hook { return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}} }
		c.Hooks = &specs.Hooks{Poststop: []specs.Hook{sh("exit 1"), sh("cat >ran")}}
	})
	if err := w.Delete(ctx, "c", true); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(bundle, "ran"))
	if want := `{"ociVersion":"1.3.0","id":"c","status":"stopped","bundle":"` + bundle + `"}`; err != nil || string(data) != want {
		t.Errorf("state given to the hook %s, %v; want %s", data, err, want)
	}
	if len(w.warnings) != 1 || !strings.HasPrefix(w.warnings[0], "error running poststop hook #0: exit status 1, ") {
		t.Errorf("warnings %q", w.warnings)
	}
}

func TestListAndPs(t *testing.T) {
	w := newWorld(t)
	p := w.container("b", nil)
	w.container("a", w.created)
	if err := os.MkdirAll(filepath.Join(w.Root, "broken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.Root, "broken", "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := w.List()
	if err != nil || len(list) != 2 || list[0].ID != "a" || list[0].Status != state.Created || list[1].Pid != p.Pid {
		t.Errorf("List = %+v, %v", list, err)
	}
	if len(w.warnings) != 1 || !strings.HasPrefix(w.warnings[0], "list container broken: decode state ") {
		t.Errorf("warnings %q", w.warnings)
	}
	if pids, err := w.Ps("b"); err != nil || !slices.Equal(pids, w.fake.pids) {
		t.Errorf("Ps = %v, %v", pids, err)
	}
	if _, err := w.Ps("none"); err != state.ErrNotExist {
		t.Errorf("Ps of no container = %v", err)
	}
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	p := w.container("c", nil)
	seen := map[string]int{}
	err := w.Events(ctx, "c", time.Millisecond, false, func(e Event) error {
		if seen[e.Type]++; seen["oom"] == 1 && seen["stats"] == 3 {
			syscall.Kill(p.Pid, syscall.SIGKILL)
		}
		return nil
	})
	if err != nil || seen["oom"] != 1 || seen["stats"] < 3 {
		t.Errorf("Events = %v, %v", seen, err)
	}
	for _, interval := range []time.Duration{0, -1} {
		w.container("d", nil)
		if err := w.Events(ctx, "d", interval, false, nil); err == nil {
			t.Errorf("interval %v is taken", interval)
		}
		if err := w.Delete(ctx, "d", true); err != nil {
			t.Fatal(err)
		}
	}
}
