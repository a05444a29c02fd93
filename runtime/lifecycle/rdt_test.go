package lifecycle

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/rdt"
)

// standInResctrl is a directory in the place of a resctrl file system. Every write starts at the file's beginning there, so a file
// holds what was written last.
func standInResctrl(t *testing.T) func() (*rdt.FS, error) {
	t.Helper()
	root := t.TempDir()
	fill := func(dir string) error {
		for _, name := range []string{"tasks", "schemata"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
				return err
			}
		}
		return os.Mkdir(filepath.Join(dir, "mon_groups"), 0o755)
	}
	if err := fill(root); err != nil {
		t.Fatal(err)
	}
	f := &rdt.FS{Root: root, Rmdir: os.RemoveAll, Mkdir: func(path string) error {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		return fill(path)
	}}
	return func() (*rdt.FS, error) { return f, nil }
}

// classOfService gives the container a class of service with a monitoring group.
func (b *faultBundle) classOfService() {
	b.resctrl = standInResctrl(b.t)
	f, _ := b.resctrl()
	b.groups = f.Root
	b.spec.Linux.IntelRdt = &specs.LinuxIntelRdt{Schemata: []string{"L3:0=f"}, EnableMonitoring: true}
}

// classes lists the groups of the stand-in.
func (b *faultBundle) classes() (list []string) {
	if b.groups == "" {
		return nil
	}
	filepath.WalkDir(b.groups, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			list = append(list, "class of service "+path)
		}
		return nil
	})
	return list
}

func TestRdtLifecycle(t *testing.T) {
	b := newFaultBundle(t, faultCase{"class of service", (*faultBundle).classOfService})
	group := filepath.Join(b.groups, b.create.ID)
	read := func(path ...string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(append([]string{group}, path...)...))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	b.up()
	init := strconv.Itoa(b.init().Pid)
	for _, tasks := range []string{"tasks", "mon_groups/" + b.create.ID + "/tasks"} {
		if got := read(tasks); got != init {
			t.Errorf("%s has %q, want the process %s", tasks, got, init)
		}
	}
	if got := read("schemata"); got != "L3:0=f\n" {
		t.Errorf("schemata %q", got)
	}
	o := ExecOptions{ID: b.create.ID, Args: []string{"sleep", "1000"}, Detach: true, PidFile: filepath.Join(b.dir, "exec.pid")}
	if _, err := b.Exec(ctx, o); err != nil {
		t.Fatal(err)
	}
	if pid, err := os.ReadFile(o.PidFile); err != nil || read("tasks") != string(pid) {
		t.Errorf("tasks %q, want that of exec %q, error %v", read("tasks"), pid, err)
	}
	b.endExec(o)
	if err := b.Update(ctx, b.create.ID, nil, &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=3;1=3"}); err != nil {
		t.Fatal(err)
	}
	if got := read("schemata"); got != "L3:0=3;1=3\n" {
		t.Errorf("schemata after update %q", got)
	}
	emit := func(e Event) error {
		data, err := json.Marshal(e)
		if !strings.Contains(string(data), `"intel_rdt":{"l3_cache_schema":"L3:0=3;1=3"}`) {
			t.Errorf("statistics %s, error %v", data, err)
		}
		return nil
	}
	if err := b.Events(ctx, b.create.ID, time.Second, true, emit); err != nil {
		t.Error(err)
	}
	b.remove()
	if _, err := os.Stat(group); !os.IsNotExist(err) {
		t.Errorf("after delete: %v", err)
	}
}

// TestRdtNamed: a class of service that the configuration names goes when create fails, and stays after delete (IR6, G5).
func TestRdtNamed(t *testing.T) {
	b := newFaultBundle(t, faultCase{"class of service", (*faultBundle).classOfService})
	b.spec.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f"}
	b.write()
	before := b.snapshot()
	for step := 1; step <= 16; step++ {
		b.parentFault = step
		if err := b.Create(ctx, b.create); err == nil {
			break
		}
		if diff := b.awaitSame(before); diff != "" {
			t.Fatalf("step %d leaves:\n%s", step, diff)
		}
	}
	b.parentFault = 0
	b.remove()
	b.up()
	b.remove()
	if data, err := os.ReadFile(filepath.Join(b.groups, "gold", "schemata")); err != nil || string(data) != "L3:0=f\n" {
		t.Errorf("schemata after delete %q, error %v", data, err)
	}
	b.spec.Linux.IntelRdt.L3CacheSchema = "L3:0=1"
	b.write()
	if err := b.Create(context.Background(), b.create); err == nil || !strings.Contains(err.Error(), "linux.intelRdt: the class of service") {
		t.Errorf("other values: error %v", err)
	}
}

// TestRdtUpdateMakes: update gives a class of service to a container that has none, and takes it back when the limits are refused.
func TestRdtUpdateMakes(t *testing.T) {
	b := newFaultBundle(t, faultCase{"class of service", (*faultBundle).classOfService})
	b.spec.Linux.IntelRdt = nil
	b.write()
	b.up()
	want := &specs.LinuxIntelRdt{MemBwSchema: "MB:0=50"}
	group := filepath.Join(b.groups, b.create.ID)
	tooLow := int64(1)
	if err := b.Update(ctx, b.create.ID, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &tooLow}}, want); err == nil {
		t.Error("a quota of 1 µs was taken")
	}
	if _, err := os.Stat(group); !os.IsNotExist(err) {
		t.Errorf("after an update that was refused: %v", err)
	}
	if err := b.Update(ctx, b.create.ID, nil, want); err != nil {
		t.Fatal(err)
	}
	tasks, _ := os.ReadFile(filepath.Join(group, "tasks"))
	schemata, _ := os.ReadFile(filepath.Join(group, "schemata"))
	if string(tasks) != strconv.Itoa(b.init().Pid) || string(schemata) != "MB:0=50\n" {
		t.Errorf("tasks %q, schemata %q", tasks, schemata)
	}
	b.remove()
	if _, err := os.Stat(group); !os.IsNotExist(err) {
		t.Errorf("after delete: %v", err)
	}
}
