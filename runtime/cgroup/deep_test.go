package cgroup

import (
	"context"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// dig makes depth groups, one in the other, below each directory of g, whose paths together are longer than the kernel
// takes, and puts a process into the lowest ones. It returns the process.
func dig(t *testing.T, g *Group, depth int) *exec.Cmd {
	t.Helper()
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-done
	})
	for i := range g.Dirs {
		d := &g.Dirs[i]
		if !d.own() {
			continue
		}
		fd, err := unix.Open(d.dir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range depth {
			name := strings.Repeat("d", 200)
			if err := unix.Mkdirat(fd, name, 0o755); err != nil {
				t.Fatalf("%s: %v", d.dir(), err)
			}
			sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			unix.Close(fd)
			if err != nil {
				t.Fatal(err)
			}
			fd = sub
		}
		procs, err := unix.Openat(fd, "cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		_, err = unix.Write(procs, []byte(strconv.Itoa(c.Process.Pid)))
		unix.Close(procs)
		if err != nil && !slices.Contains(d.Controllers, "cpuset") { // a cpuset without processors takes none
			t.Fatalf("%s: %v", d.dir(), err)
		}
	}
	return c
}

// TestDeepGroups: a container with writable cgroups makes them deeper than any path (issue 7 F5).
func TestDeepGroups(t *testing.T) {
	g := testGroup(t, nil)
	c := dig(t, g, 25)
	pids, err := g.Procs()
	if err != nil || !slices.Contains(pids, c.Process.Pid) {
		t.Errorf("Procs = %v, %v, without the process %d", pids, err, c.Process.Pid)
	}
	if err := g.Destroy(context.Background()); err != nil {
		t.Errorf("destroy: %.300v", err)
	}
	for i := range g.Dirs {
		if d := &g.Dirs[i]; d.own() && isThere(d.dir()) {
			t.Errorf("%s is left", d.dir())
		}
	}
}

// TestManyGroups: more groups than are removed at a time.
func TestManyGroups(t *testing.T) {
	g := testGroup(t, nil)
	d := g.primary()
	for i := range maxRemoved + 100 {
		if err := unix.Mkdir(d.dir()+"/"+strconv.Itoa(i), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Destroy(context.Background()); err != nil {
		t.Errorf("destroy: %v", err)
	}
}
