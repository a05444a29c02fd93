package rdt

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// standIn is a directory that looks like a resctrl file system with one cache and one memory domain. New groups' files are empty,
// so that a test sees what was written to them.
func standIn(t *testing.T) *FS {
	t.Helper()
	root := t.TempDir()
	f := &FS{Root: root, Rmdir: os.RemoveAll}
	f.Mkdir = func(path string) error {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		put(t, path, map[string]string{"tasks": "", "schemata": "", "mon_groups/": ""})
		return nil
	}
	put(t, root, map[string]string{"tasks": "", "schemata": "    L3:0=ffff;1=ffff\n    MB:0= 100;1=100\n", "info/last_cmd_status": "ok\n", "mon_groups/": "",
		"info/L3/cbm_mask": "ffff\n", "info/L3/min_cbm_bits": "1\n", "info/L3/num_closids": "16\n", "info/MB/bandwidth_gran": "10\n",
		"info/MB/delay_linear": "1\n", "info/MB/min_bandwidth": "10\n", "info/MB/num_closids": "8\n",
		"silver/tasks": "", "silver/schemata": "    L3:0=00ff;1=ff00\n    MB:0= 50;1= 50\n", "silver/mon_groups/": ""})
	return f
}

func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func content(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func exists(path ...string) bool {
	_, err := os.Lstat(filepath.Join(path...))
	return err == nil
}

// apply does what create does.
func apply(f *FS, r *specs.LinuxIntelRdt, id string) (*Group, error) {
	g, err := f.Plan(r, id)
	if err == nil {
		err = f.Create(g, r)
	}
	if err == nil {
		err = f.Join(g, 1234)
	}
	return g, err
}

func TestLifecycle(t *testing.T) {
	const l3, mb = "L3:0=f;1=f0", "MB:0=20;1=70"
	for _, test := range []struct {
		name       string
		rdt        specs.LinuxIntelRdt
		dir        string // of the class of service, below the root
		schemata   string // that was written
		after      bool   // the class of service is there after delete
		afterError bool   // it is there after a create that failed
	}{
		{"IR2 closID is the container's id", specs.LinuxIntelRdt{L3CacheSchema: l3}, "box", l3 + "\n", false, false},
		{"IR2 no schema at all", specs.LinuxIntelRdt{}, "box", "", false, false},
		{"IR2 a named one that exists", specs.LinuxIntelRdt{ClosID: "silver"}, "silver", "", true, true},
		{"IR2 the default one", specs.LinuxIntelRdt{ClosID: "/"}, "", "", true, true},
		{"IR3 order", specs.LinuxIntelRdt{Schemata: []string{"L2:0=1", "MB:1=10"}, MemBwSchema: mb, L3CacheSchema: l3}, "box",
			l3 + "\n" + mb + "\nL2:0=1\nMB:1=10\n", false, false},
		{"IR3 memory bandwidth in l3CacheSchema", specs.LinuxIntelRdt{L3CacheSchema: "MB:0=10\n" + l3, MemBwSchema: mb}, "box", l3 + "\n" + mb + "\n", false, false},
		{"IR3 l3CacheSchema alone keeps it", specs.LinuxIntelRdt{L3CacheSchema: l3 + "\nMB:0=10"}, "box", l3 + "\nMB:0=10\n", false, false},
		{"IR5 a named one with the same values", specs.LinuxIntelRdt{ClosID: "silver", L3CacheSchema: "L3:1=ff00;0=FF", MemBwSchema: "MB:0=50"}, "silver", "", true, true},
		{"IR6 a named one that is made", specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{l3}}, "gold", l3 + "\n", true, false},
		{"IR7 monitoring", specs.LinuxIntelRdt{EnableMonitoring: true}, "box", "", false, false},
		{"IR7 monitoring in a named one", specs.LinuxIntelRdt{ClosID: "silver", EnableMonitoring: true}, "silver", "", true, true},
	} {
		for _, created := range []bool{true, false} {
			t.Run(test.name, func(t *testing.T) {
				f := standIn(t)
				before := content(t, f.Root, "silver/schemata") + content(t, f.Root, "schemata")
				g, err := apply(f, &test.rdt, "box")
				if err != nil {
					t.Fatal(err)
				}
				dir := filepath.Join(f.Root, test.dir)
				if g.Dir != dir || content(t, dir, "tasks") != "1234" {
					t.Errorf("group %+v, tasks %q", g, content(t, dir, "tasks"))
				}
				if g.MadeDir && content(t, dir, "schemata") != test.schemata {
					t.Errorf("schemata %q, want %q", content(t, dir, "schemata"), test.schemata)
				}
				if now := content(t, f.Root, "silver/schemata") + content(t, f.Root, "schemata"); now != before {
					t.Errorf("an existing class of service was changed: %q", now)
				}
				if monitor := filepath.Join(dir, "mon_groups", "box"); exists(monitor) != test.rdt.EnableMonitoring {
					t.Errorf("monitoring group: %v", exists(monitor))
				} else if test.rdt.EnableMonitoring && content(t, monitor, "tasks") != "1234" {
					t.Errorf("tasks of the monitoring group %q", content(t, monitor, "tasks"))
				}
				for range 2 { // a delete that was cut short is repeated
					if err := f.Destroy(g, created); err != nil {
						t.Fatal(err)
					}
				}
				if want := created && test.after || !created && test.afterError; exists(dir) != want {
					t.Errorf("created %v: the class of service is there: %v", created, !want)
				}
				if exists(f.Root, "silver/mon_groups/box") || exists(f.Root, "box") {
					t.Error("a group is left")
				}
			})
		}
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		name string
		rdt  specs.LinuxIntelRdt
		id   string
		want string
	}{
		{"IR2 a named one that does not exist", specs.LinuxIntelRdt{ClosID: "gold"}, "box", `the class of service "gold" does not exist`},
		{"IR2 a directory of the kernel", specs.LinuxIntelRdt{}, "info", "info is not a class of service"},
		{"IR5 other cache", specs.LinuxIntelRdt{ClosID: "silver", L3CacheSchema: "L3:0=f"}, "box", "exists with other values: L3:0=ff"},
		{"IR5 other bandwidth", specs.LinuxIntelRdt{ClosID: "silver", MemBwSchema: "MB:1=60"}, "box", "exists with other values: MB:1=50"},
		{"IR5 no such domain", specs.LinuxIntelRdt{ClosID: "silver", MemBwSchema: "MB:7=60"}, "box", "exists with other values: MB:7="},
		{"IR5 left by somebody under the container's id", specs.LinuxIntelRdt{Schemata: []string{"L3:0=f"}}, "silver", "exists with other values"},
		{"IR5 the default one", specs.LinuxIntelRdt{ClosID: "/", L3CacheSchema: "L3:0=f"}, "box", "exists with other values"},
		{"IR5 not a schema", specs.LinuxIntelRdt{ClosID: "silver", Schemata: []string{"L3"}}, "box", `schema "L3" is not of the form`},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := standIn(t)
			before := content(t, f.Root, "silver/schemata")
			if _, err := apply(f, &test.rdt, test.id); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if content(t, f.Root, "silver/schemata") != before || exists(f.Root, "gold") || exists(f.Root, "box") {
				t.Error("something was changed")
			}
		})
	}
}

func TestCreateFails(t *testing.T) {
	f := standIn(t)
	mkdir := f.Mkdir
	f.Mkdir = func(path string) error {
		if strings.Contains(path, "mon_groups") {
			put(t, f.Root, map[string]string{"info/last_cmd_status": "Out of RMIDs\n"})
			return os.ErrPermission
		}
		return mkdir(path)
	}
	g, err := apply(f, &specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:0=f"}, EnableMonitoring: true}, "box")
	if err == nil || !strings.Contains(err.Error(), "make monitoring group: permission denied (Out of RMIDs)") {
		t.Errorf("error %v", err)
	}
	if err := f.Destroy(g, false); err != nil || exists(f.Root, "gold") {
		t.Errorf("error %v, left: %v", err, exists(f.Root, "gold"))
	}
}

func TestUpdate(t *testing.T) {
	f := standIn(t)
	g := &Group{Dir: filepath.Join(f.Root, "silver")}
	undo, err := f.Update(g, &specs.LinuxIntelRdt{MemBwSchema: "MB:0=20;1=30"})
	if err != nil || !strings.HasPrefix(content(t, g.Dir, "schemata"), "MB:0=20;1=30\n") {
		t.Fatalf("error %v, schemata %q", err, content(t, g.Dir, "schemata"))
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(content(t, g.Dir, "schemata"), "MB:0= 50;1= 50\n") {
		t.Errorf("schemata %q", content(t, g.Dir, "schemata"))
	}
}

func TestStats(t *testing.T) {
	f := standIn(t)
	put(t, f.Root, map[string]string{"silver/mon_data/mon_L3_00/llc_occupancy": "4096\n", "silver/mon_data/mon_L3_00/mbm_total_bytes": "7\n",
		"silver/mon_data/mon_L3_00/mbm_local_bytes": "5\n", "silver/mon_data/mon_L3_01/llc_occupancy": "Unavailable\n"})
	s, err := f.Stats(&Group{Dir: filepath.Join(f.Root, "silver")})
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"l3_cache_info":{"cbm_mask":"ffff","min_cbm_bits":1,"num_closids":16},"l3_cache_schema_root":"L3:0=ffff;1=ffff",` +
		`"l3_cache_schema":"L3:0=00ff;1=ff00","mem_bw_info":{"bandwidth_gran":10,"delay_linear":1,"min_bandwidth":10,"num_closids":8},` +
		`"mem_bw_schema_root":"MB:0= 100;1=100","mem_bw_schema":"MB:0= 50;1= 50","mbm_stats":[{"mbm_total_bytes":7,"mbm_local_bytes":5}],` +
		`"cmt_stats":[{"llc_occupancy":4096},{"llc_occupancy":0}]}`
	if string(got) != want {
		t.Errorf("statistics\n%s\nwant\n%s", got, want)
	}
}

func TestFindMount(t *testing.T) {
	const before = "22 1 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
	for _, test := range []struct{ table, want string }{
		{before, ""},
		{before + "40 22 0:35 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw\n", "/sys/fs/resctrl"},
		{before + "40 22 0:35 / /mnt/a\\040b rw - resctrl none rw\n", "/mnt/a b"},
		{"40 22 0:35 /gold /mnt rw - resctrl resctrl rw\n" + before, ""},
		{"40 22 0:35 / /sys/fs/resctrl rw - tmpfs resctrl rw\n", ""},
	} {
		if got, ok := findMount(test.table); got != test.want || ok != (test.want != "") {
			t.Errorf("%q, %v from %q", got, ok, test.table)
		}
	}
	if _, err := Detect(); err != nil && !errors.Is(err, ErrNotMounted) {
		t.Error(err)
	}
}
