package cgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"reflect"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func p[T any](v T) *T { return &v }

// testHost gives the machine's cgroups, or skips: without root there is nothing to make groups in.
func testHost(t *testing.T) *Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make cgroups")
	}
	h, err := Detect()
	if err != nil {
		t.Skipf("needs mounted cgroups: %v", err)
	}
	return h
}

// testGroup makes a group with a name of its own, which is gone after the test whatever happens.
func testGroup(t *testing.T, res *specs.LinuxResources) *Group {
	t.Helper()
	h := testHost(t)
	name := fmt.Sprintf("/tare-test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
	g, err := h.Plan(name, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Create(res); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
		for _, d := range g.Dirs {
			if d.own() && isThere(d.dir()) {
				t.Errorf("%s is left", d.dir())
			}
		}
	})
	return g
}

func isThere(path string) bool { _, err := os.Stat(path); return err == nil }

// read gives a control file of the group's directory for a controller.
func read(t *testing.T, g *Group, controller, file string) string {
	t.Helper()
	b, err := os.ReadFile(g.find(controller).file(file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// spawn starts a shell that enters the group as a container's first process does, runs a script and waits on stdin.
func spawn(t *testing.T, g *Group, script string) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	files, err := g.Join()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command("/bin/sh", "-c", "")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	for n, f := range files {
		defer f.File.Close()
		if f.IntoCgroup {
			dir, err := os.Open(f.File.Name()) // for the shell; CLONE_INTO_CGROUP takes the O_PATH descriptor itself
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(f.File.Fd())
			cmd.ExtraFiles = append(cmd.ExtraFiles, dir)
			continue
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, f.File)
		cmd.Args[2] += fmt.Sprintf("echo 0 >/proc/self/fd/%d || exit 99\n", n+3)
	}
	cmd.Args[2] += script + "\necho ready\nread x\n"
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := g.Kill(syscall.SIGKILL); err != nil { // thaws, else the child could not die
			t.Error(err)
		}
		cmd.Process.Kill()
		cmd.Wait()
	})
	for b := make([]byte, 1); !strings.HasSuffix(out.String(), "ready\n"); {
		if _, err := stdout.Read(b); err != nil {
			t.Fatalf("child said %q, then %v", out.String(), err)
		}
		out.Write(b)
	}
	go io.Copy(io.Discard, stdout)
	return cmd, &out
}

func TestLifecycle(t *testing.T) {
	res := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p(int64(50))}}
	g := testGroup(t, res)
	if err := g.Apply(res); err != nil {
		t.Fatal(err)
	}
	if got := read(t, g, "pids", "pids.max"); got != "50" {
		t.Errorf("pids.max is %s", got)
	}
	cmd, _ := spawn(t, g, "")
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range g.Dirs {
		if !strings.Contains(string(own), d.Path+"\n") {
			t.Errorf("child is not in %s of %s:\n%s", d.Path, d.Label(), own)
		}
	}
	pids, err := g.Procs()
	if err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("Procs: %v, %v, want %d", pids, err, cmd.Process.Pid)
	}

	data, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var loaded Group
	if err := json.Unmarshal(data, &loaded); err != nil {
		t.Fatal(err)
	}
	if err := loaded.Destroy(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		t.Errorf("child ended with %v, want SIGKILL", err)
	}
	if err := loaded.Destroy(context.Background()); err != nil {
		t.Errorf("second Destroy: %v", err)
	}
}

func TestCreateRefusesUsedGroup(t *testing.T) {
	g := testGroup(t, nil)
	spawn(t, g, "")
	again, err := testHost(t).Plan(g.Dirs[0].Path, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Create(nil); !errors.Is(err, ErrUnfit) {
		t.Errorf("Create of a group in use: %v", err)
	}
	for _, d := range g.Dirs {
		if !isThere(d.dir()) {
			t.Errorf("the refused Create removed %s", d.dir())
		}
	}
}

func TestCreateRefusesFrozenGroup(t *testing.T) {
	g := testGroup(t, nil)
	if err := g.Freeze(context.Background()); err != nil {
		t.Fatal(err)
	}
	again, _ := testHost(t).Plan(g.Dirs[0].Path, "")
	if err := again.Create(nil); !errors.Is(err, ErrUnfit) {
		t.Errorf("Create of a frozen group: %v", err)
	}
	if err := g.Thaw(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// A group that was there before stays; what was made below it and the limits' directory go.
func TestDestroyKeepsForeignGroups(t *testing.T) {
	g := testGroup(t, nil)
	inner, err := testHost(t).Plan(g.Dirs[0].Path+"/a/b", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := inner.Create(nil); err != nil {
		t.Fatal(err)
	}
	same, _ := testHost(t).Plan(g.Dirs[0].Path, "")
	if err := same.Create(nil); err != nil {
		t.Fatal(err)
	}
	if err := inner.Destroy(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := same.Destroy(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, d := range g.Dirs {
		if isThere(d.dir() + "/a") {
			t.Errorf("%s/a is left", d.dir())
		}
		if !isThere(d.dir()) {
			t.Errorf("%s, which was there before, was removed", d.dir())
		}
	}
}

// A failure in the last hierarchy leaves none of the directories before it.
func TestCreateUndo(t *testing.T) {
	h := testHost(t)
	bad := *h
	bad.Hierarchies = append(bad.Hierarchies[:len(bad.Hierarchies):len(bad.Hierarchies)], Hierarchy{Name: "x", MountPoint: "/proc/self/nothing", OwnPath: "/"})
	g, err := bad.Plan(fmt.Sprintf("/tare-test-%d-undo/sub", os.Getpid()), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Create(nil); err == nil {
		t.Fatal("Create below /proc succeeded")
	}
	for _, d := range g.Dirs {
		if isThere(path.Dir(d.dir())) || len(d.Made) > 0 {
			t.Errorf("%s is left", d.dir())
		}
	}
}

func TestPlan(t *testing.T) {
	h := &Host{Mode: Hybrid, Hierarchies: []Hierarchy{
		{Controllers: []string{"memory"}, MountPoint: "/m", OwnPath: "/own/x"},
		{Unified: true, MountPoint: "/u", OwnPath: "/own/y"},
	}}
	for _, c := range []struct{ path, v1, v2 string }{
		{"", "/own/x/id", "/id"},
		{"rel", "/own/x/rel", "/rel"},
		{"rel/../../../../up", "/own/x/up", "/up"},
		{"/abs/x", "/abs/x", "/abs/x"},
		{"/../../etc", "/etc", "/etc"},
		{"//a//./b/", "/a/b", "/a/b"},
	} {
		g, err := h.Plan(c.path, "id")
		if err != nil {
			t.Errorf("%q: %v", c.path, err)
		} else if g.Dirs[0].Path != c.v1 || g.Dirs[1].Path != c.v2 {
			t.Errorf("%q: %s and %s, want %s and %s", c.path, g.Dirs[0].Path, g.Dirs[1].Path, c.v1, c.v2)
		}
	}
	for _, bad := range []string{"/", "..", "/a\x00b", "/a\nb", strings.Repeat("/x", 3000)} {
		if _, err := h.Plan(bad, "id"); err == nil {
			t.Errorf("%.20q was taken", bad)
		}
	}
}

func TestCommonDir(t *testing.T) {
	for _, c := range [][3]string{{"/a/b", "/a/c", "/a"}, {"/a", "/a/b", "/a"}, {"/", "/a", "/"}, {"/ab", "/a", "/"}, {"/a/b", "/a/b", "/a/b"}, {"/x", "/y", "/"}} {
		if got := commonDir(c[0], c[1]); got != c[2] {
			t.Errorf("%s and %s: %s", c[0], c[1], got)
		}
	}
}

// A unit's directories that are systemd's are neither made nor removed, and left alone if they are not the unit's any more.
func TestUnit(t *testing.T) {
	h := testHost(t)
	name := fmt.Sprintf("/tare-test-%d.slice/tare-test.scope", os.Getpid())
	g, err := h.PlanUnit(name, Unit{Name: "tare-test.scope"})
	if err != nil {
		t.Skip(err)
	}
	mkdir := func() { // what systemd does
		for i := range g.Dirs {
			if g.Managed(&g.Dirs[i]) {
				if err := os.MkdirAll(g.Dirs[i].dir(), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	defer func() {
		for _, d := range g.Dirs {
			os.Remove(d.dir())
			os.Remove(path.Dir(d.dir()))
		}
	}()
	if err := g.Create(nil); err != nil {
		t.Fatal(err)
	}
	if isThere(g.tracked().dir()) || g.Present() {
		t.Error("Create made what is systemd's")
	}
	mkdir()
	if err := g.Started(os.Getpid(), nil); !errors.Is(err, ErrUnfit) {
		t.Errorf("a process that is elsewhere: %v", err)
	}
	all, _ := h.Plan(name, "")
	cmd, _ := spawn(t, all, "")
	if err := g.Fit(); err == nil || !strings.Contains(err.Error(), "container's cgroup is not empty") {
		t.Errorf("fit: %v", err)
	}
	if err := g.Started(cmd.Process.Pid, nil); err != nil || !g.Present() {
		t.Fatal(err)
	}
	var back Group
	if err := json.Unmarshal(g.AppendJSON(nil), &back); err != nil || !reflect.DeepEqual(&back, g) {
		t.Errorf("%+v, %v, want %+v", back, err, g)
	}
	foreign := *g
	foreign.Unit = &Unit{Name: g.Unit.Name, ID: g.Unit.ID + 1}
	foreign.Dirs = []Dir{*g.tracked()}
	if err := foreign.Destroy(context.Background()); err != nil || cmd.Process.Signal(syscall.Signal(0)) != nil || foreign.Present() {
		t.Errorf("a unit that took the place: %v", err)
	}
	if err := g.Destroy(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !isThere(g.tracked().dir()) {
		t.Error("Destroy removed what is systemd's")
	}
	if err := g.Stopped(context.Background()); err != nil || isThere(g.tracked().dir()) {
		t.Errorf("what systemd left: %v", err)
	}
}
