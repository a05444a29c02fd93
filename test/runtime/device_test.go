package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func device(json string) string { return "linux.devices=[" + json + "]" }

const denyAll = `linux.resources.devices=[{"allow":false,"access":"rwm"}]`

var deviceCases = []Case{
	{Row: "D1 default devices", Sh: "stat -c '%n %t:%T %a %u:%g' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty",
		Out: "/dev/null 1:3 666 0:0\n/dev/zero 1:5 666 0:0\n/dev/full 1:7 666 0:0\n/dev/random 1:8 666 0:0\n/dev/urandom 1:9 666 0:0\n/dev/tty 5:0 666 0:0"},
	{Row: "D1 ptmx", Sh: "readlink /dev/ptmx; test -e /dev/console || echo none", Out: "pts/ptmx\nnone"},
	{Row: "D2 links", Sh: "readlink /dev/fd /dev/stdin; readlink /dev/stdin; readlink /dev/stdout; readlink /dev/stderr", Out: "~/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2$"},
	{Row: "D3 bound dev is left alone", Setup: func(h *H, b *Bundle) { inBundle(h, b, "hostdev/null", "") },
		Edit: []string{`mounts=[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"none","source":"hostdev","options":["rbind"]}]`, `linux.maskedPaths=[]`},
		Sh:   "ls /dev", Out: "null", After: func(h *H, b *Bundle, _ Result) {
			es, _ := os.ReadDir(filepath.Join(b.Dir, "hostdev"))
			if len(es) != 1 || !es[0].Type().IsRegular() {
				h.Errorf("the source of the bind was changed: %v", es)
			}
		}},
	{Row: "D4 node with owner and mode", Edit: []string{device(`{"path":"/x/n","type":"c","major":1,"minor":3,"fileMode":384,"uid":7,"gid":8}`)}, Sh: "stat -c '%t:%T %a %u:%g' /x/n", Out: "1:3 600 7:8"},
	{Row: "D4 default mode", Edit: []string{device(`{"path":"/dev/n","type":"c","major":1,"minor":3}`)}, Sh: "stat -c '%a %u:%g' /dev/n", Out: "666 0:0"},
	{Row: "D4 fifo", Edit: []string{device(`{"path":"/dev/p","type":"p"}`)}, Sh: "test -p /dev/p && echo fifo", Out: "fifo"},
	{Row: "D4 block", Edit: []string{device(`{"path":"/dev/b","type":"b","major":7,"minor":0}`)}, Sh: "test -b /dev/b && echo block", Out: "block"},
	{Row: "D4 unknown type", Edit: []string{device(`{"path":"/dev/b","type":"x","major":7,"minor":0}`)}, Err: "type"},
	{Row: "D4 no type", Edit: []string{device(`{"path":"/dev/b","major":7,"minor":0}`)}, Err: "type"},
	{Row: "D4 no major", Edit: []string{device(`{"path":"/dev/b","type":"c","minor":0}`)}, Err: "major"},
	{Row: "D4 path does not leave the root", Edit: []string{device(`{"path":"/../../n","type":"c","major":1,"minor":3}`)}, Sh: "test -c /n && echo inside", Out: "inside"},
	{Row: "D4 relative path", Edit: []string{device(`{"path":"n","type":"c","major":1,"minor":3}`)}, Err: "path"},
	{Row: "D5 another file is there", Edit: []string{device(`{"path":"/dev2","type":"c","major":1,"minor":3}`)}, Setup: withFile("rootfs/dev2", "x"), Err: "dev2"},
	{Row: "D5 the same device is there", Edit: []string{device(`{"path":"/dev2","type":"c","major":1,"minor":3}`)}, Setup: func(h *H, b *Bundle) {
		if out, err := exec.Command("mknod", "-m", "666", b.Rootfs+"/dev2", "c", "1", "3").CombinedOutput(); err != nil {
			h.Fatalf("mknod: %s", out)
		}
	}, Sh: "test -c /dev2"},
	{Row: "D6 owner in a user namespace", Edit: []string{userns, idMaps(100000, 65536), device(`{"path":"/dev/n","type":"c","major":1,"minor":3,"uid":5,"gid":6,"fileMode":384}`)}, Setup: rootfsOf(100000),
		Sh: "stat -c '%u:%g %a' /dev/n", Out: "5:6 600"},
	{Row: "D6 devices that the host has not, in a user namespace", Edit: []string{userns, idMaps(100000, 65536), mnt("/b", "none", "/proc", "rbind", "ro"),
		device(`{"path":"/dev/sub/one","type":"c","major":1,"minor":5,"uid":1},{"path":"/two","type":"u","major":1,"minor":7},{"path":"/dev/p","type":"p","uid":3,"gid":4,"fileMode":416}`),
		`linux.sysctl={"kernel.shmmax":"99"}`}, Setup: rootfsOf(100000),
		Sh:  "stat -c '%t:%T %u:%g %a' /dev/sub/one /two /dev/p; head -c1 /dev/sub/one | wc -c; grep -c ' /proc ' /proc/mounts; grep -c ' / ' /proc/mounts; cat /proc/sys/kernel/shmmax",
		Out: "1:5 1:0 666\n1:7 0:0 666\n0:0 3:4 640\n1\n1\n1\n99"},
	{Row: "D6 an owner that is not mapped", Edit: []string{userns, idMaps(100000, 10), device(`{"path":"/dev/n","type":"c","major":1,"minor":3,"uid":10}`)}, Setup: rootfsOf(100000), Err: "uid 10"},
	{Row: "D1 ptmx among the listed devices", Edit: []string{device(`{"path":"/dev/ptmx","type":"c","major":5,"minor":2}`)}, Sh: "readlink /dev/ptmx", Out: "pts/ptmx"},
	{Row: "D1 ptmx among the listed devices, in a user namespace", Edit: []string{userns, idMaps(100000, 65536), device(`{"path":"/dev/ptmx","type":"c","major":5,"minor":2}`)}, Setup: rootfsOf(100000), Sh: "readlink /dev/ptmx", Out: "pts/ptmx"},
	{Row: "D7 a default device of other numbers", Edit: []string{device(`{"path":"/dev/zero","type":"c","major":1,"minor":3}`)}, Sh: "stat -c %t:%T /dev/zero", Out: "1:3"},
	{Row: "D8 the same twice", Edit: []string{device(`{"path":"/dev/n1","type":"c","major":1,"minor":3},{"path":"/dev/n2","type":"c","major":1,"minor":3}`)}},
	{Row: "D9 mknod is allowed, opening is not", Edit: []string{denyAll}, Sh: "mknod /s b 7 0 && head -c1 /s", Code: 1, Warn: "Operation not permitted"},
	{Row: "D9 default devices are allowed", Edit: []string{denyAll}, Sh: "head -c1 /dev/zero | wc -c; head -c1 /dev/urandom | wc -c; echo x >/dev/null && echo ok", Out: "1\n1\nok"},
	{Row: "D9 listed devices are not allowed by that", Edit: []string{denyAll, device(`{"path":"/dev/k","type":"c","major":1,"minor":11}`)}, Sh: "head -c1 </dev/k", Code: 1, Warn: "not permitted"},
	{Row: "C5 wildcard", Edit: []string{`linux.resources.devices=[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"access":"rw"}]`}, Sh: "mknod /k c 1 11 && exec 3>/k && echo opened", Out: "opened"},
	{Row: "C5 order", Edit: []string{`linux.resources.devices=[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"rw"}]`}, Sh: "mknod /k c 1 11 && exec 3>/k", Code: 1, Warn: "not permitted"},
	{Row: "C5 only allow rules are not a black list", Edit: []string{`linux.resources.devices=[{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]`}, Sh: "mknod /s b 7 0 && head -c1 /s", Code: 1, Warn: "not permitted"},
	{Row: "C5 only reading", Edit: []string{`linux.resources.devices=[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"w"}]`}, Sh: "mknod /k c 1 11; (exec 3>/k) && echo w; exec 3</k", Code: 1, Out: "", Warn: "not permitted"},
	{Row: "C5 access rwa denies reading and writing", Edit: []string{`linux.resources.devices=[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"rwa"}]`}, Sh: "mknod /k c 1 11; exec 3</k", Code: 1, Warn: "not permitted"},
	{Row: "C5 access rwa allows reading and writing", Edit: []string{`linux.resources.devices=[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"rwa"}]`}, Sh: "mknod /k c 1 11 && exec 3>/k && echo opened", Out: "opened"},
	{Row: "C5 unknown type", Edit: []string{`linux.resources.devices=[{"allow":false,"type":"x","access":"rwm"}]`}, Err: "*"},
	{Row: "C5 unknown access", Edit: []string{`linux.resources.devices=[{"allow":false,"access":"q"}]`}, Err: "access"},
}

func TestDevices(t *testing.T) { runCases(t, deviceCases) }
