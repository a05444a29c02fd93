package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/state"
)

// realContainer is a container whose init, and one process that outlives it, are in a cgroup of their own.
func realContainer(t *testing.T, id string) (r *Runtime, g *cgroup.Group, init, other state.Process) {
	t.Helper()
	w := newWorld(t)
	r = New(w.Root, func(s string) { t.Error(s) })
	host, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	g, err = host.Plan(fmt.Sprintf("/tare-test/%s-%d", id, os.Getpid()), id)
	if err != nil {
		t.Fatal(err)
	}
	res := &specs.LinuxResources{}
	t.Cleanup(func() {
		if err := g.Destroy(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := g.Create(res); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	init = w.container(id, func(c *state.Container) { c.Cgroup, c.OwnPidNS = data, false })
	other = w.process()
	for _, p := range []state.Process{init, other} {
		if err := g.JoinPID(p.Pid, ""); err != nil {
			t.Fatal(err)
		}
	}
	return r, g, init, other
}

func TestRealPauseAndKill(t *testing.T) {
	r, _, init, other := realContainer(t, "a")
	if pids, err := r.Ps("a"); err != nil || len(pids) != 2 {
		t.Errorf("Ps = %v, %v", pids, err)
	}
	if err := r.Pause(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if o, err := r.State("a"); err != nil || o.Status != state.Paused {
		t.Errorf("state = %+v, %v", o, err)
	}
	if err := r.Kill(ctx, "a", syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	await(t, "death of all", func() bool { return !init.Alive() && !other.Alive() })
	if err := r.Kill(ctx, "a", syscall.SIGKILL, true); err != nil {
		t.Errorf("kill --all of a stopped container = %v", err)
	}
	if err := r.Delete(ctx, "a", false); err != nil {
		t.Fatal(err)
	}
	left(t, fmt.Sprintf("a-%d", os.Getpid()))
}

func TestRealDelete(t *testing.T) {
	r, g, init, other := realContainer(t, "b")
	limit := int64(77)
	if err := r.Update(ctx, "b", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}, nil); err != nil {
		t.Fatal(err)
	}
	if !contains(t, g, "pids.max", "77") {
		t.Error("pids.max is not 77")
	}
	if err := r.Pause(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, "b", true); err != nil {
		t.Fatal(err)
	}
	if init.Alive() || other.Alive() {
		t.Error("a process is left")
	}
	left(t, fmt.Sprintf("b-%d", os.Getpid()))
	if err := r.Update(ctx, "b", &specs.LinuxResources{}, nil); !errors.Is(err, state.ErrNotExist) {
		t.Errorf("update of no container = %v", err)
	}
}

func TestRealEvents(t *testing.T) {
	r, _, init, _ := realContainer(t, "c")
	var got []Event
	if err := r.Events(ctx, "c", 1, true, func(e Event) error { got = append(got, e); return nil }); err != nil || len(got) != 1 {
		t.Fatalf("Events once = %v, %v", got, err)
	}
	data, err := json.Marshal(got[0])
	if err != nil || !strings.HasPrefix(string(data), `{"type":"stats","id":"c","data":{"cpu":{"usage":{`) {
		t.Errorf("event %s, %v", data, err)
	}
	if got[0].Data.Pids.Current != 2 {
		t.Errorf("%d processes", got[0].Data.Pids.Current)
	}
	n := 0
	err = r.Events(ctx, "c", 1000, false, func(Event) error {
		if n++; n == 3 {
			return syscall.Kill(init.Pid, syscall.SIGKILL)
		}
		return nil
	})
	if err != nil || n < 3 {
		t.Errorf("Events until the end: %d, %v", n, err)
	}
	if err := r.Events(ctx, "c", 1, false, nil); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Events of a stopped container = %v", err)
	}
}

// contains tells whether the control file of any hierarchy that has it begins with want.
func contains(t *testing.T, g *cgroup.Group, file, want string) bool {
	t.Helper()
	for _, d := range g.Dirs {
		data, err := os.ReadFile(d.MountPoint + d.Path + "/" + file)
		if err == nil && strings.HasPrefix(string(data), want) {
			return true
		}
	}
	return false
}

// left fails when a cgroup of this name is there.
func left(t *testing.T, name string) {
	t.Helper()
	out, err := exec.Command("find", "/sys/fs/cgroup", "-name", name).CombinedOutput()
	if err != nil || len(out) != 0 {
		t.Errorf("cgroups left: %s, %v", out, err)
	}
}
