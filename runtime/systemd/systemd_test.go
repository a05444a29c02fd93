package systemd

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tare-oci/tare/internal/dbus"
)

func TestParsePath(t *testing.T) {
	for _, c := range []struct {
		path string
		user bool
		want Place
		dir  string
	}{
		{"", false, Place{"system.slice", "runc-box.scope"}, "/system.slice/runc-box.scope"},
		{"", true, Place{"user.slice", "runc-box.scope"}, "/user.slice/runc-box.scope"},
		{":p:n", false, Place{"system.slice", "p-n.scope"}, "/system.slice/p-n.scope"},
		{"a-b-c.slice:cri:1f", false, Place{"a-b-c.slice", "cri-1f.scope"}, "/a.slice/a-b.slice/a-b-c.slice/cri-1f.scope"},
		{"-.slice::n", false, Place{"-.slice", "-n.scope"}, "/-n.scope"},
		{`x\x2dy.slice:p:a.b_c`, false, Place{`x\x2dy.slice`, "p-a.b_c.scope"}, `/x\x2dy.slice/p-a.b_c.scope`},
	} {
		got, err := ParsePath(c.path, "box", c.user)
		if err != nil || got != c.want || got.Path() != c.dir {
			t.Errorf("%q: %+v %s, %v", c.path, got, got.Path(), err)
		}
	}
	for _, bad := range []string{"/a/b", "a:b", "a.slice:b:c:d", "a:b:c", ".slice:b:c", "a--b.slice:c:d", "-a.slice:b:c", "a-.slice:b:c", "../x.slice:a:b",
		"a/b.slice:c:d", "a.slice:b/c:d", "a.slice:b:../c", "a.slice:b:c d", "a.slice:b:c\x00", "a.slice:b:c.slice", "a.slice:b:" + strings.Repeat("x", 300)} {
		if got, err := ParsePath(bad, "box", false); err == nil {
			t.Errorf("%q was taken: %+v", bad, got)
		}
	}
	if _, err := ParsePath("", "a+b", false); err == nil {
		t.Error("an id that no unit can have was taken")
	}
}

func TestAnnotated(t *testing.T) {
	got, err := Annotated(map[string]string{"other": "x", AnnotationPrefix + "TimeoutStopSec": "1.5", AnnotationPrefix + "CollectMode": "'inactive'", AnnotationPrefix + "After": "['a.service']",
		AnnotationPrefix + "RuntimeMaxUSec": "uint64 7", AnnotationPrefix + "XSec": "5"})
	want := []Property{{"After", dbus.Strings("a.service")}, {"CollectMode", dbus.String("inactive")}, {"RuntimeMaxUSec", dbus.Uint64(7)},
		{"TimeoutStopUSec", dbus.Uint64(1500000)}, {"XSec", dbus.Value{Sig: "i", Num: 5}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for key, value := range map[string]string{"Ab": "1", "A-b-c": "1", "ExecStart": "'/bin/sh'", "ExecStopPost": "'x'", "Slice": "'x.slice'", "PIDs": "[uint32 1]",
		"DeviceAllow": "@a(ss) []", "TimeoutStopSec": "'x'", "CollectMode": "inactive", "BPFProgram": "@a(ss) []", "": "1", "Desc\u00e9": "'x'"} {
		if got, err := Annotated(map[string]string{AnnotationPrefix + key: value}); err == nil || !strings.Contains(err.Error(), AnnotationPrefix+key) {
			t.Errorf("%s=%s: %+v, %v", key, value, got, err)
		}
	}
}

func TestBase(t *testing.T) {
	names := func(list []Property) (out string) {
		for _, p := range list {
			out += p.Name + " "
		}
		return out
	}
	got := Base("box", true, []Property{{"CollectMode", dbus.String("inactive")}})
	if n := names(got); strings.Count(n, "CollectMode") != 1 || got[len(got)-1].Value.Str != "inactive" || !strings.Contains(n, "IOAccounting") || strings.Contains(n, "BlockIO") {
		t.Errorf("%s", n)
	}
	if n := names(Base("box", false, nil)); !strings.Contains(n, "BlockIOAccounting") {
		t.Errorf("%s", n)
	}
}

func TestLimits(t *testing.T) {
	none := uint64(math.MaxUint64)
	for _, c := range []struct{ files, want string }{
		{"memory.max=33554432\n memory.swap.max=max memory.low=4096", fmt.Sprintf("MemoryMax=33554432 MemorySwapMax=%d MemoryLow=4096", none)},
		{"memory.limit_in_bytes=9223372036854771712", fmt.Sprintf("MemoryLimit=%d", none)},
		{"cpu.max=30001_100000", "CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=310000"},
		{"cpu.max=20000_50000", "CPUQuotaPeriodUSec=50000 CPUQuotaPerSecUSec=400000"},
		{"cpu.max=max_100000", fmt.Sprintf("CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=%d", none)},
		{"cpu.cfs_period_us=50000 cpu.cfs_quota_us=25000", "CPUQuotaPeriodUSec=50000 CPUQuotaPerSecUSec=500000"},
		{"cpu.cfs_quota_us=-1 cpu.cfs_period_us=100000", fmt.Sprintf("CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=%d", none)},
		{"cpu.weight=59", "CPUWeight=59"},
		{"cpu.weight=59 cpu.idle=1", "CPUWeight=0"},
		{"cpu.idle=1 cpu.weight=0", "CPUWeight=0"},
		{"cpu.idle=0", ""},
		{"cpu.shares=512 pids.max=0", "CPUShares=512 TasksMax=1"},
		{"pids.max=max io.weight=default_500", fmt.Sprintf("TasksMax=%d IOWeight=500", none)},
		{"cpuset.cpus=0-2,9 cpuset.mems=1", "AllowedCPUs=[7 2] AllowedMemoryNodes=[2]"},
		{"io.max=8:0_rbps=1 hugetlb.2MB.max=5", ""},
	} {
		var files []File
		for _, f := range strings.Fields(c.files) {
			name, content, _ := strings.Cut(strings.ReplaceAll(f, "_1", " 1"), "=")
			files = append(files, File{strings.ReplaceAll(name, " 1", "_1"), strings.ReplaceAll(strings.ReplaceAll(content, "_5", " 5"), "_r", " r")})
		}
		got, err := Limits(files, func() (int, error) { return 252, nil })
		var text []string
		for _, p := range got {
			v := fmt.Sprint(p.Value.Num)
			if p.Value.Sig == "ay" {
				var bits []byte
				for _, b := range p.Value.Items {
					bits = append(bits, byte(b.Num))
				}
				v = fmt.Sprint(bits)
			} else if p.Value.Sig != "t" {
				t.Errorf("%s: type %s", p.Name, p.Value.Sig)
			}
			text = append(text, p.Name+"="+v)
		}
		if s := strings.Join(text, " "); err != nil || s != c.want {
			t.Errorf("%s:\n%s, %v, want\n%s", c.files, s, err, c.want)
		}
	}
	if got, err := Limits([]File{{"cpu.idle", "1"}}, func() (int, error) { return 249, nil }); err != nil || got != nil {
		t.Errorf("idle with an old systemd: %+v, %v", got, err)
	}
	for _, bad := range []File{{"pids.max", "x"}, {"cpuset.cpus", "3-1"}, {"cpuset.cpus", "99999999"}, {"cpu.max", "max 0"}, {"cpu.max", "x 5"}} {
		if got, err := Limits([]File{bad}, nil); err == nil {
			t.Errorf("%+v: %+v", bad, got)
		}
	}
}

func TestDevices(t *testing.T) {
	rules := []Device{{'c', -1, -1, "m"}, {'c', 1, 3, "rwm"}, {'c', 136, -1, "rwm"}, {'b', 8, 0, "r"}, {'c', -1, 5, "r"}}
	got, left := Devices(false, false, rules)
	want := dbus.Array("(ss)")
	for _, p := range [][2]string{{"char-*", "m"}, {"/dev/char/1:3", "rwm"}, {"char-136", "rwm"}, {"/dev/block/8:0", "r"}} {
		want.Items = append(want.Items, dbus.Struct(dbus.String(p[0]), dbus.String(p[1])))
	}
	if got[0].Value.Str != "strict" || !reflect.DeepEqual(got[1].Value, want) || !reflect.DeepEqual(left, rules[4:]) {
		t.Errorf("%+v, left %+v", got, left)
	}
	for _, all := range [][2]bool{{true, false}, {false, true}} {
		if got, left := Devices(all[0], all[1], rules); got[0].Value.Str != "auto" || len(got[1].Value.Items) != 0 || left != nil {
			t.Errorf("%v: %+v", all, got)
		}
	}
}

// Where systemd is not, or cannot be reached, a sentence says so.
func TestConnectErrors(t *testing.T) {
	was := runtimeDir
	defer func() { runtimeDir = was }()
	runtimeDir = t.TempDir()
	if _, err := Connect(context.Background(), false); err == nil || err.Error() != "systemd not running on this host, cannot use systemd cgroups manager" {
		t.Errorf("%v", err)
	}
	if err := os.Mkdir(filepath.Join(runtimeDir, "system"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nothing/bus")
	if _, err := Connect(context.Background(), false); err == nil || !strings.Contains(err.Error(), "/nothing/bus") {
		t.Errorf("%v", err)
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", runtimeDir)
	if _, err := Connect(context.Background(), true); err == nil || !strings.Contains(err.Error(), "DBUS_SESSION_BUS_ADDRESS") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(runtimeDir+"/bus", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Connect(context.Background(), true); err == nil || !strings.Contains(err.Error(), "connect to "+runtimeDir+"/bus") {
		t.Errorf("%v", err)
	}
}
