package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/jsonr"
)

const base = `{
	"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"cwd": "/", "args": ["sh"]},
	"linux": {"namespaces": [{"type": "uts"}, {"type": "ipc"}, {"type": "network"}, {"type": "mount"}, {"type": "time"}]}
}`

// merge applies a JSON merge patch (RFC 7386) to base, so that a row of a table shows only what matters.
func merge(t *testing.T, patch string) []byte {
	t.Helper()
	var doc, p any
	for text, dst := range map[string]*any{base: &doc, patch: &p} {
		dec := json.NewDecoder(strings.NewReader(text))
		dec.UseNumber()
		if err := dec.Decode(dst); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	out, err := json.Marshal(mergeValue(doc, p))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mergeValue(doc, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	d, ok := doc.(map[string]any)
	if !ok {
		d = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(d, k)
		} else {
			d[k] = mergeValue(d[k], v)
		}
	}
	return d
}

func linux(s string) string   { return `{"linux": {` + s + `}}` }
func process(s string) string { return `{"process": {` + s + `}}` }
func limits(s string) string  { return `{"linux": {"resources": {` + s + `}}}` }

func TestParseBad(t *testing.T) {
	for _, r := range []struct{ patch, want string }{
		{`{"ociVersion": null}`, `ociVersion: missing`},
		{`{"ociVersion": "banana"}`, `ociVersion: "banana" is not a semantic version`},
		{`{"ociVersion": "1.0"}`, `ociVersion: "1.0" is not a semantic version`},
		{`{"ociVersion": "1.00.0"}`, `ociVersion: "1.00.0" is not a semantic version`},
		{`{"ociVersion": "1.0.0-"}`, `ociVersion: "1.0.0-" is not a semantic version`},
		{`{"ociVersion": "2.0.0"}`, `ociVersion: "2.0.0" is not supported, want 1.0.0 to 1.3.0 or a later 1.x`},
		{`{"ociVersion": 1}`, `ociVersion: want a string, got 1`},
		{`{"annotations": {"": "x"}}`, `annotations: empty key`},
		{`{"annotations": {"a.b": 1}}`, `annotations["a.b"]: want a string, got 1`},
		{`{"root": null}`, `root: root must be specified`},
		{`{"root": {"path": null}}`, `root.path: missing`},
		{`{"root": "rootfs"}`, `root: want an object, got "rootfs"`},
		{`{"root": {"readonly": "yes"}}`, `root.readonly: want true or false, got "yes"`},
		{`{"root": {"path": "a\u0000b"}}`, `root.path: "a\x00b" contains a NUL byte`},
		{`{"hostname": "h", "linux": null}`, `hostname: unable to set hostname without a private UTS namespace: "h" would rename the host, add one to linux.namespaces`},
		{`{"domainname": "d", "linux": {"namespaces": []}}`, `domainname: unable to set domainname without a private UTS namespace: "d" would rename the host, add one to linux.namespaces`},
		{`{"hostname": "` + strings.Repeat("x", 65) + `"}`, `hostname: "` + strings.Repeat("x", 65) + `" is longer than 64 bytes`},
		{`{"mounts": [{"destination": "/.."}]}`, `mounts[0].destination: "/.." would cover the root filesystem`},
		{`{"mounts": [{"type": "tmpfs"}]}`, `mounts[0].destination: missing`},
		{`{"mounts": [{"destination": "/a", "options": "ro"}]}`, `mounts[0].options: want an array, got "ro"`},
		{`{"mounts": [{"destination": "/a", "options": ["ro", null]}]}`, `mounts[0].options[1]: want a string, got null`},
		{`{"mounts": [{"destination": "/a", "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}]}`,
			`mounts[0]: uidMappings and gidMappings must come together`},
		{`{"hooks": {"prestart": [{"path": "/a"}, {"path": "true"}]}}`, `hooks.prestart[1].path: "true" is not absolute`},
		{`{"hooks": {"createRuntime": [{}]}}`, `hooks.createRuntime[0].path: missing`},
		{`{"hooks": {"createContainer": [{"path": "/a", "timeout": 0}]}}`, `hooks.createContainer[0].timeout: want more than 0 seconds, got 0`},
		{`{"hooks": {"startContainer": [{"path": "/a", "timeout": -1}]}}`, `hooks.startContainer[0].timeout: want more than 0 seconds, got -1`},
		{`{"hooks": {"poststart": [{"path": "/a", "env": ["x"]}]}}`, `hooks.poststart[0].env[0]: invalid environment variable: missing '=': "x"`},
		{`{"hooks": {"poststop": [{"path": "x"}]}}`, `hooks.poststop[0].path: "x" is not absolute`},
		{`{"hooks": {"poststop": [{"path": "/x", "timeout": 1.5}]}}`, `hooks.poststop[0].timeout: want an integer, got 1.5`},

		{process(`"cwd": "tmp"`), `process.cwd: Cwd must be an absolute path: "tmp"`},
		{process(`"cwd": null`), `process.cwd: Cwd property must not be empty`},
		{process(`"args": []`), `process.args: args must not be empty`},
		{process(`"args": [""]`), `process.args[0]: exec: "": executable file not found in $PATH`},
		{process(`"args": "sh"`), `process.args: want an array, got "sh"`},
		{process(`"args": ["sh", 3]`), `process.args[1]: want a string, got 3`},
		{process(`"env": ["A=1", "=x"]`), `process.env[1]: invalid environment variable: name cannot be empty: "=x"`},
		{process(`"env": ["A"]`), `process.env[0]: invalid environment variable: missing '=': "A"`},
		{process(`"consoleSize": {"height": 1}`), `process.consoleSize.width: missing`},
		{process(`"consoleSize": {"height": -1, "width": 1}`), `process.consoleSize.height: want an integer from 0 to 18446744073709551615, got -1`},
		{process(`"user": {"uid": 4294967295}`), `process.user.uid: 4294967295 (-1) is not a user`},
		{process(`"user": {"uid": 4294967296}`), `process.user.uid: want an integer from 0 to 4294967295, got 4294967296`},
		{process(`"user": {"uid": "root"}`), `process.user.uid: want an integer of at least 0, got "root"`},
		{process(`"user": {"gid": 4294967295}`), `process.user.gid: 4294967295 (-1) is not a group`},
		{process(`"user": {"additionalGids": [1, 4294967295]}`), `process.user.additionalGids[1]: 4294967295 (-1) is not a group`},
		{process(`"user": {"umask": 512}`), `process.user.umask: want 0 to 511 (octal 777), got 512`},
		{process(`"rlimits": [{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}]`), `process.rlimits[0].type: wrong rlimit value: RLIMIT_FOO`},
		{process(`"rlimits": [{"type": "NOFILE", "soft": 1, "hard": 1}]`), `process.rlimits[0].type: wrong rlimit value: NOFILE`},
		{process(`"rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}, {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}]`),
			`process.rlimits[1].type: duplicate resource "RLIMIT_CORE"`},
		{process(`"rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]`), `process.rlimits[0].soft: 2 is more than the hard limit 1`},
		{process(`"rlimits": [{"type": "RLIMIT_CORE", "hard": 1}]`), `process.rlimits[0].soft: missing`},
		{process(`"oomScoreAdj": 1001`), `process.oomScoreAdj: want -1000 to 1000, got 1001`},
		{process(`"scheduler": {}`), `process.scheduler.policy: invalid scheduler policy: `},
		{process(`"scheduler": {"policy": "X"}`), `process.scheduler.policy: invalid scheduler policy: X`},
		{process(`"scheduler": {"policy": "SCHED_OTHER", "priority": 1}`), `process.scheduler.priority: want 0 with SCHED_OTHER, got 1`},
		{process(`"scheduler": {"policy": "SCHED_FIFO"}`), `process.scheduler.priority: want 1 to 99 with SCHED_FIFO, got 0`},
		{process(`"scheduler": {"policy": "SCHED_BATCH", "nice": 20}`), `process.scheduler.nice: want -20 to 19, got 20`},
		{process(`"scheduler": {"policy": "SCHED_BATCH", "flags": ["F"]}`), `process.scheduler.flags[0]: invalid scheduler flag: F`},
		{process(`"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 3, "deadline": 2}`),
			`process.scheduler.runtime: want 0 < runtime <= deadline <= period with SCHED_DEADLINE, got 3, 2, 0`},
		{process(`"ioPriority": {"class": "IOPRIO_CLASS_NONE"}`), `process.ioPriority.class: invalid ioPriority.Class: "IOPRIO_CLASS_NONE"`},
		{process(`"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}`), `process.ioPriority.priority: invalid ioPriority.Priority: 8: want 0 to 7`},
		{process(`"execCPUAffinity": {"initial": "1-"}`), `process.execCPUAffinity.initial: "1-" is not a list of numbers and ranges`},
		{process(`"execCPUAffinity": {"final": "3-1"}`), `process.execCPUAffinity.final: "3-1" is not a list of numbers and ranges`},

		{linux(`"namespaces": [{"type": "foo"}]`), `linux.namespaces[0].type: namespace {"foo" ""} does not exist`},
		{linux(`"namespaces": [{"type": "pid", "path": "proc/1/ns/pid"}]`), `linux.namespaces[0].path: "proc/1/ns/pid" is not absolute`},
		{linux(`"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "pid"}]`), `linux.namespaces[2].type: duplicated ns {"pid" ""}`},
		{linux(`"namespaces": [{"type": "user"}]`), `linux.uidMappings: missing, a new user namespace needs them`},
		{linux(`"namespaces": [{"type": "user"}], "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]`),
			`linux.gidMappings: missing, a new user namespace needs them`},
		{linux(`"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]`), `linux.uidMappings: has no effect without a user namespace in linux.namespaces`},
		{linux(`"gidMappings": [{"containerID": 0, "hostID": 0, "size": 0}]`), `linux.gidMappings[0].size: want at least 1`},
		{linux(`"gidMappings": [{"containerID": 1, "hostID": 0, "size": 4294967295}, {"containerID": 2, "hostID": 0, "size": 4294967295}]`),
			`linux.gidMappings[1]: reaches beyond the largest id`},
		{linux(`"gidMappings": [{"containerID": 0, "size": 1}]`), `linux.gidMappings[0].hostID: missing`},
		{linux(`"uidMappings": [` + strings.Repeat(`{"containerID": 0, "hostID": 0, "size": 1},`, 340) + `{"containerID": 0, "hostID": 0, "size": 1}]`),
			`linux.uidMappings: 341 lines, the kernel takes at most 340`},
		{`{"process": {"user": {"uid": 5}}, "linux": {"namespaces": [{"type": "user"}],
			"uidMappings": [{"containerID": 0, "hostID": 9, "size": 5}], "gidMappings": [{"containerID": 0, "hostID": 9, "size": 5}]}}`,
			`process.user.uid: 5 is not mapped in linux.uidMappings`},
		{`{"process": {"user": {"additionalGids": [4, 6]}}, "linux": {"namespaces": [{"type": "user"}],
			"uidMappings": [{"containerID": 0, "hostID": 9, "size": 5}], "gidMappings": [{"containerID": 0, "hostID": 9, "size": 5}]}}`,
			`process.user.additionalGids[1]: 6 is not mapped in linux.gidMappings`},
		{linux(`"timeOffsets": {"realtime": {"secs": 1}}`), `linux.timeOffsets: unknown clock "realtime"`},
		{linux(`"timeOffsets": {"boottime": {"nanosecs": 1000000000}}`), `linux.timeOffsets.boottime.nanosecs: want 0 to 999999999, got 1000000000`},
		{linux(`"namespaces": [], "timeOffsets": {"boottime": {"secs": 1}}`), `linux.timeOffsets: time namespace offsets specified, but time namespace isn't enabled in the config`},
		{linux(`"devices": [{"path": "/d", "type": "x", "major": 1, "minor": 1}]`), `linux.devices[0].type: invalid device type "x": want c, b, u or p`},
		{linux(`"devices": [{"path": "d", "type": "c", "major": 1, "minor": 1}]`), `linux.devices[0].path: "d" is not absolute`},
		{linux(`"devices": [{"path": "/d", "type": "c", "minor": 1}]`), `linux.devices[0].major: missing`},
		{linux(`"devices": [{"path": "/d", "type": "c", "major": 1}]`), `linux.devices[0].minor: missing`},
		{linux(`"devices": [{"path": "/d", "type": "c", "major": 4096, "minor": 1}]`), `linux.devices[0].major: 4096:1 is not a device number`},
		{linux(`"netDevices": {"eth0": {"name": "sixteen-letters1"}}`), `linux.netDevices["eth0"].name: "sixteen-letters1" is not an interface name`},
		{linux(`"netDevices": {"a/b": {}}`), `linux.netDevices: "a/b" is not an interface name`},
		{linux(`"netDevices": {"a": {"name": "x"}, "b": {"name": "x"}}`), `linux.netDevices["b"].name: "x" is the name of "a" too`},
		{linux(`"namespaces": [], "netDevices": {"a": {}}`), `linux.netDevices: needs a network namespace in linux.namespaces`},
		{linux(`"netDevices": {"eth0": {"name": 23}}`), `linux.netDevices.eth0.name: want a string, got 23`},
		{linux(`"sysctl": {"vm.swappiness": "1"}`), `linux.sysctl: sysctl "vm.swappiness" is not in a separate kernel namespace: it would change the host`},
		{linux(`"sysctl": {"net.../../kernel": "1"}`), `linux.sysctl: "net.../../kernel" is not the name of a kernel parameter`},
		{linux(`"sysctl": {"net/../kernel/panic": "1"}`), `linux.sysctl: "net/../kernel/panic" is not the name of a kernel parameter`},
		{linux(`"sysctl": {"kernel.hostname": "h"}`), `linux.sysctl: sysctl "kernel.hostname" is not allowed as it conflicts with the OCI "hostname" field`},
		{linux(`"sysctl": {"user.max_user_namespaces": "1"}`),
			`linux.sysctl: sysctl "user.max_user_namespaces" is not in a separate kernel namespace: it would change the host, add a namespace of type user`},
		{linux(`"namespaces": [], "sysctl": {"kernel.shmmax": "1"}`), `linux.sysctl: sysctl "kernel.shmmax" is not allowed in the hosts ipc namespace: it would change the host, add a namespace of type ipc`},
		{linux(`"sysctl": {"kernel.shmmax": 1}`), `linux.sysctl["kernel.shmmax"]: want a string, got 1`},
		{linux(`"rootfsPropagation": "foo"`), `linux.rootfsPropagation: rootfsPropagation=foo is not supported`},
		{linux(`"maskedPaths": ["/a", "b"]`), `linux.maskedPaths[1]: "b" is not absolute`},
		{linux(`"readonlyPaths": ["b"]`), `linux.readonlyPaths[0]: "b" is not absolute`},
		{linux(`"intelRdt": {"closID": "a/b"}`), `linux.intelRdt.closID: "a/b" is not a directory name`},
		{linux(`"intelRdt": {"closID": ".."}`), `linux.intelRdt.closID: ".." is not a directory name`},
		{linux(`"intelRdt": {"memBwSchema": "L3:0=f"}`), `linux.intelRdt.memBwSchema: "L3:0=f" does not start with MB:`},
		{linux(`"intelRdt": {"memBwSchema": "MB:0=1\nL3:0=f"}`), `linux.intelRdt.memBwSchema: "MB:0=1\nL3:0=f" is not one line`},
		{linux(`"intelRdt": {"schemata": ["a\nb"]}`), `linux.intelRdt.schemata[0]: "a\nb" is not one line`},
		{linux(`"memoryPolicy": {"mode": "MPOL_BIND"}`), `linux.memoryPolicy.nodes: missing, MPOL_BIND needs them`},
		{linux(`"memoryPolicy": {"mode": "MPOL_LOCAL", "nodes": "0"}`), `linux.memoryPolicy.nodes: want none with MPOL_LOCAL, got "0"`},
		{linux(`"memoryPolicy": {"mode": "X"}`), `linux.memoryPolicy.mode: invalid memory policy mode "X"`},
		{linux(`"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["F"]}`), `linux.memoryPolicy.flags[0]: invalid memory policy flag "F"`},
		{linux(`"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}`),
			`linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other`},
		{linux(`"personality": {"domain": "BSD"}`), `linux.personality.domain: invalid personality domain BSD`},
		{linux(`"personality": {"domain": "LINUX", "flags": ["F"]}`), `linux.personality.flags[0]: unknown flag "F"`},

		{limits(`"memory": {"limit": 2, "swap": 1}`), `linux.resources.memory.swap: 1 is less than the memory limit 2, which it includes`},
		{limits(`"memory": {"swap": 1}`), `linux.resources.memory.swap: 1 needs a memory limit`},
		{limits(`"memory": {"limit": -2}`), `linux.resources.memory.limit: want -1 (unlimited) or more, got -2`},
		{limits(`"memory": {"limit": "1g"}`), `linux.resources.memory.limit: want an integer, got "1g"`},
		{limits(`"memory": {"swappiness": 101}`), `linux.resources.memory.swappiness: want 0 to 100, got 101`},
		{limits(`"cpu": {"quota": 10, "burst": 11}`), `linux.resources.cpu.burst: 11 is more than the quota 10`},
		{limits(`"cpu": {"cpus": "0-x"}`), `linux.resources.cpu.cpus: "0-x" is not a list of numbers and ranges`},
		{limits(`"cpu": {"idle": 2}`), `linux.resources.cpu.idle: want 0 or 1, got 2`},
		{limits(`"pids": {"limit": 9223372036854775808}`), `linux.resources.pids.limit: 9223372036854775808 is out of range`},
		{limits(`"devices": [{"allow": true, "type": "x"}]`), `linux.resources.devices[0].type: unknown type "x", want a, b or c`},
		{limits(`"devices": [{"allow": true, "access": "q"}]`), `linux.resources.devices[0].access: "q" is not made of r, w and m`},
		{limits(`"devices": [{"access": "r"}]`), `linux.resources.devices[0].allow: missing`},
		{limits(`"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}`), `linux.resources.blockIO.weightDevice[0]: want weight, leafWeight or both`},
		{limits(`"blockIO": {"weight": 9}`), `linux.resources.blockIO.weight: want 10 to 1000, got 9`},
		{limits(`"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0}]}`), `linux.resources.blockIO.throttleReadBpsDevice[0].rate: missing`},
		{limits(`"hugepageLimits": [{"pageSize": "2mb", "limit": 1}]`), `linux.resources.hugepageLimits[0].pageSize: "2mb" is not a size like 64KB, 2MB or 1GB`},
		{limits(`"network": {"classID": "0x1"}`), `linux.resources.network.classID: want an integer of at least 0, got "0x1"`},
		{limits(`"network": {"priorities": [{"name": "", "priority": 1}]}`), `linux.resources.network.priorities[0].name: "" is not an interface name`},
		{limits(`"rdma": {"mlx5_1": {}}`), `linux.resources.rdma["mlx5_1"]: want hcaHandles, hcaObjects or both`},
		{limits(`"unified": {"a/b": "1"}`), `linux.resources.unified: "a/b" is not a file name`},
	} {
		_, _, err := Parse(merge(t, r.patch))
		if err == nil || err.Error() != r.want {
			t.Errorf("%s:\n got %v\nwant %s", r.patch, err, r.want)
		}
	}
}

func TestParseGood(t *testing.T) {
	for _, patch := range []string{
		`{}`,
		`{"ociVersion": "1.0.2-dev"}`, `{"ociVersion": "1.99.0"}`, `{"ociVersion": "1.0.0-rc5+b.01"}`,
		`{"process": null}`, `{"linux": null}`,
		`{"foo": 1, "linux": {"bar": {}}}`,
		`{"windows": "foo", "solaris": [1], "vm": 3, "freebsd": true, "zos": {"namespaces": 1}}`,
		`{"platform": {"os": "linux", "arch": "amd64"}}`,
		`{"annotations": {"a": "", "nul": "\u0000"}}`,
		`{"hostname": "h", "domainname": "d"}`,
		`{"linux": {"namespaces": [{"type": "uts", "path": "/run/ns/uts"}]}, "hostname": "h"}`,
		process(`"commandLine": 7, "user": {"username": 1}`),
		process(`"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 2, "nice": 19}`),
		process(`"scheduler": {"policy": "SCHED_RR", "priority": 99, "nice": -20}`),
		process(`"rlimits": [{"type": "RLIMIT_RTTIME", "soft": 18446744073709551615, "hard": 18446744073709551615}]`),
		linux(`"namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]`),
		linux(`"netDevices": {"eth0": {"name": "eth%d"}, "eth1": {"name": "eth%d"}, "eth2": {}, "eth3": {"name": "%d"}}`),
		linux(`"devices": [{"path": "/x/p", "type": "p"}]`),
		linux(`"intelRdt": {"closID": "/", "enableCMT": 3}`),
		linux(`"sysctl": {"net/core/somaxconn": "1", "net.ipv4.conf.eth0/1.forwarding": "1", "fs.mqueue.msg_max": "1", "kernel.domainname": "d"}`),
		limits(`"memory": {"limit": -1, "swap": 0}`), limits(`"memory": {"limit": 0, "swap": -1}`),
		limits(`"devices": [{"allow": true, "type": "c", "major": -1, "minor": -1, "access": ""}]`),
		limits(`"cpu": {"cpus": "0-1,3", "mems": "0", "quota": -1, "burst": 5}`),
		limits(`"blockIO": {"weight": 0, "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]}`),
	} {
		if _, warnings, err := Parse(merge(t, patch)); err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v %q", patch, err, warnings)
		}
	}
}

func TestParseWarnings(t *testing.T) {
	for _, r := range []struct {
		patch string
		want  []string
	}{
		{process(`"capabilities": {"bounding": ["CAP_KILL", "KILL", "CAP_FOO"], "ambient": ["CAP_KILL"]}`), []string{
			`process.capabilities.ambient[0]: "CAP_KILL" is not both permitted and inheritable: ignored`}},
		{`{"mounts": [{"destination": "rel"}]}`, []string{`mounts[0].destination: "rel" is relative, taken as relative to /`}},
		{linux(`"devices": [{"path": "/a", "type": "c", "major": 1, "minor": 3}, {"path": "/b", "type": "c", "major": 1, "minor": 3}]`),
			[]string{`linux.devices[1]: same device as linux.devices[0]`}},
		{linux(`"namespaces": [{"type": "user", "path": "/proc/1/ns/user"}], "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]`),
			[]string{`linux.uidMappings: ignored, the user namespace "/proc/1/ns/user" has mappings of its own`}},
		{linux(`"intelRdt": {"l3CacheSchema": "0=f"}`), []string{`linux.intelRdt.l3CacheSchema: "0=f" does not start with L3:`}},
	} {
		_, got, err := Parse(merge(t, r.patch))
		if err != nil || !slices.Equal(got, r.want) {
			t.Errorf("%s: %v\n got %q\nwant %q", r.patch, err, got, r.want)
		}
	}
}

func TestParseText(t *testing.T) {
	deep := strings.Repeat("[", 70)
	wide := `"annotations": {` + strings.Repeat(`"%d": "", `, 200) + `"7": ""}`
	nums := make([]any, 200)
	for i := range nums {
		nums[i] = i
	}
	for _, r := range []struct{ text, want string }{
		{``, `line 1, column 1: want a value, got the end of the text`},
		{`[]`, `want an object, got an array`},
		{"{]", `line 1, column 2: want a property name, got ']'`},
		{"{\n \"a\" 1}", `line 2, column 6: want ':', got '1'`},
		{`{"a": 1,}`, `line 1, column 9: want a property name, got '}'`},
		{`{"a": 1 "b"`, `line 1, column 9: want ',' or '}', got '"'`},
		{`{"a": 01}`, `line 1, column 8: want ',' or '}', got '1'`},
		{`{"a": -}`, `line 1, column 8: want a digit, got '}'`},
		{`{"a": nul}`, `line 1, column 7: want a value, got 'n'`},
		{`{"a": "\x"}`, `line 1, column 9: want an escape sequence, got 'x'`},
		{`{"a": "\ud800"}`, `line 1, column 14: want a pair of surrogates before, got '"'`},
		{"{\"a\": \"\xff\"}", `line 1, column 9: want UTF-8 in the string before, got '"'`},
		{"{\"a\": \"\n\"}", `line 1, column 8: want an escape sequence instead of a control character, got '\n'`},
		{`{"a": "b`, `line 1, column 9: want '"', got the end of the text`},
		{`{} {}`, `line 1, column 4: want the end of the text, got '{'`},
		{`{"ociVersion": "1.0.0", "ociVersion": "1.0.0"}`, `ociVersion: duplicate name`},
		{`{"ociVersion": "1.0.0", "oci\u0056ersion": "1.0.0"}`, `ociVersion: duplicate name`},
		{`{"ociVersion": "1.0.0", "OCIVersion": "1.0.0"}`, `OCIVersion: duplicate name`},
		{`{"OCIVersion": "1.0.0", "ociVersion": "1.0.0"}`, `ociVersion: duplicate name`},
		{`{"unknown": {"x": [{"y": 1, "y": null}]}}`, `unknown.x[0].y: duplicate name`},
		{fmt.Sprintf("{"+wide+"}", nums...), `annotations.7: duplicate name`},
		{`{"a": ` + deep + `}`, `a` + strings.Repeat("[0]", 63) + `: nested deeper than 64 levels`},
	} {
		_, _, err := Parse([]byte(r.text))
		if err == nil || err.Error() != r.want {
			t.Errorf("%.80s:\n got %v\nwant %s", r.text, err, r.want)
		}
	}
}

// TestDecodeEverything fills every field of the upstream types, so that a property that the decoder does not know, also
// one that a later version of the types brings, is noticed.
func TestDecodeEverything(t *testing.T) {
	s := new(specs.Spec)
	fill(reflect.ValueOf(s).Elem(), new(int))
	s.Windows, s.Solaris, s.VM, s.ZOS, s.FreeBSD = nil, nil, nil, nil, nil
	s.Process.CommandLine, s.Process.User.Username = "", ""
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	d, got := jsonr.New(string(data), foldName), new(specs.Spec)
	decodeSpec(d, got)
	if err := d.End(); err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(got); !reflect.DeepEqual(got, s) {
		t.Errorf("got  %s\nwant %s", again, data)
	}
}

func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		fill(e, n)
		v.SetMapIndex(reflect.ValueOf(fmt.Sprint("key ", *n)), e)
	case reflect.String:
		v.SetString(fmt.Sprintf("é\t%d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(-*n))
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	}
}

// TestUpstreamFixtures runs the examples that the specification tests its schema with.
func TestUpstreamFixtures(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/runtime-spec").Output()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "schema", "test", "config")
	for _, kind := range []string{"good", "bad"} {
		files, _ := filepath.Glob(filepath.Join(dir, kind, "*.json"))
		if len(files) < 5 {
			t.Fatalf("found only %d files in %s/%s", len(files), dir, kind)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			text := string(data)
			switch kind + "/" + filepath.Base(f) {
			case "bad/freebsd-vnet-disable.json", "good/freebsd-example.json", "good/zos-example.json":
				continue // valid or not because of another platform's section, which is none of our business
			case "good/linux-netdevice.json": // the schema cannot say that it needs a network namespace, the prose does
				text = strings.Replace(text, `"linux": {`, `"linux": {"namespaces": [{"type": "network"}],`, 1)
			case "good/spec-example.json": // its version was forgotten at 1.0
				text = strings.Replace(text, `"0.5.0-dev"`, `"1.0.0"`, 1)
			}
			if _, _, err := Parse([]byte(text)); (err == nil) != (kind == "good") {
				t.Errorf("%s/%s: %v", kind, filepath.Base(f), err)
			}
		}
	}
}

func TestDefault(t *testing.T) {
	for _, rootless := range []bool{false, true} {
		s := Default()
		if rootless {
			ToRootless(s, 1000, 1001)
			if len(s.Mounts) != 7 || s.Mounts[2].Options[len(s.Mounts[2].Options)-1] != "mode=0620" || s.Mounts[5].Source != "/sys" ||
				s.Linux.Resources != nil || namespace(s.Linux, specs.NetworkNamespace) != nil || s.Linux.UIDMappings[0].HostID != 1000 {
				t.Errorf("not rootless: %+v", s)
			}
		}
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		got, warnings, err := Parse(data)
		if err != nil || len(warnings) > 0 {
			t.Fatalf("parse: %v %q", err, warnings)
		}
		if !reflect.DeepEqual(got, s) {
			t.Errorf("got %+v, want %+v", got, s)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, ConfigName)
	if _, _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), name) {
		t.Errorf("missing: %v", err)
	}
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(dir); err == nil || err.Error() != "open "+name+": not a regular file" {
		t.Errorf("fifo: %v", err)
	}
	os.Remove(name)
	real := filepath.Join(dir, "real.json")
	if err := os.WriteFile(real, []byte(base), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.json", name); err != nil {
		t.Fatal(err)
	}
	if s, _, err := Load(dir); err != nil || s.Root.Path != "rootfs" {
		t.Errorf("link: %v", err)
	}
	if err := os.WriteFile(real, []byte(`{"ociVersion": "1.0.0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(dir); err == nil || err.Error() != "config.json: root: root must be specified" {
		t.Errorf("bad: %v", err)
	}
	if err := os.Truncate(real, maxConfig+1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(dir); err == nil || err.Error() != "read "+name+": larger than 16 MiB" {
		t.Errorf("large: %v", err)
	}
}

func TestParseProcessAndResources(t *testing.T) {
	if p, _, err := ParseProcess([]byte(`{"cwd": "/", "args": ["true"], "user": {"uid": 7}}`)); err != nil || p.User.UID != 7 {
		t.Errorf("process: %v", err)
	}
	if _, _, err := ParseProcess([]byte(`{"cwd": "/", "args": []}`)); err == nil || err.Error() != "args: args must not be empty" {
		t.Errorf("process: %v", err)
	}
	if r, _, err := ParseResources([]byte(`{"memory": {"swap": 5}}`)); err != nil || *r.Memory.Swap != 5 {
		t.Errorf("resources: %v", err)
	}
	if _, _, err := ParseResources([]byte(`{"memory": {"swappiness": 101}}`)); err == nil || err.Error() != "memory.swappiness: want 0 to 100, got 101" {
		t.Errorf("resources: %v", err)
	}
}

func TestNames(t *testing.T) {
	if names := CapabilityNames(); len(names) != 41 || names[40] != "CAP_CHECKPOINT_RESTORE" || names[21] != "CAP_SYS_ADMIN" {
		t.Errorf("capabilities: %q", names)
	}
	for i, name := range CapabilityNames() {
		if n, ok := CapabilityNumber(name); !ok || n != i {
			t.Errorf("%s: %d %v, want %d", name, n, ok, i)
		}
	}
	for _, bad := range []string{"", "CAP_", "CAP_FOO", "KILL", "cap_kill", "CAP_KILL ", "CAP_KILL SETGID"} {
		if n, ok := CapabilityNumber(bad); ok {
			t.Errorf("%q: %d", bad, n)
		}
	}
	for name, want := range map[string]int{"RLIMIT_CPU": syscall.RLIMIT_CPU, "RLIMIT_NOFILE": syscall.RLIMIT_NOFILE,
		"RLIMIT_AS": syscall.RLIMIT_AS, "RLIMIT_CORE": syscall.RLIMIT_CORE, "RLIMIT_STACK": syscall.RLIMIT_STACK, "RLIMIT_RTTIME": 15} {
		if n, ok := RlimitNumber(name); !ok || n != want {
			t.Errorf("%s: %d %v, want %d", name, n, ok, want)
		}
	}
	if n := len(RlimitNames()); n != 16 {
		t.Errorf("%d resources", n)
	}
}

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "SIGTERM": syscall.SIGTERM, "15": 15, "sigkill": syscall.SIGKILL, "Hup": 1, "SIGSTKFLT": 16,
		"SIGCLD": syscall.SIGCHLD, "POLL": syscall.SIGIO, "winch": syscall.SIGWINCH, "SYS": syscall.SIGSYS,
		"RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX": 64, "sigrtmax-14": 50, "64": 64, "33": 33,
	} {
		if got, err := ParseSignal(s); err != nil || got != want {
			t.Errorf("%s: %d %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "65", "-1", "SIG", "FOO", "SIGSIGTERM", "RTMIN-1", "RTMIN3", "RTMIN+x", "RTMAX+1", "RTMIN+99999999999999999999"} {
		if got, err := ParseSignal(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func TestSysctlPath(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.ip_forward": "net/ipv4/ip_forward", "net/core/somaxconn": "net/core/somaxconn",
		"net.ipv4.conf.eth0/1.forwarding": "net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding": "net/ipv4/conf/eth0.1/forwarding",
	} {
		if got, err := SysctlPath(name); err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", name, got, err, want)
		}
	}
	for _, name := range []string{"", ".", "/", "..", "/net", "net..x", "net/../x", "net.//.x", "a/"} {
		if got, err := SysctlPath(name); err == nil {
			t.Errorf("%q: %s", name, got)
		}
	}
}

func TestNameCase(t *testing.T) {
	s, _, err := Parse([]byte(`{"OCIVERSION": "1.0.2", "Root": {"Path": "r", "READONLY": true}, "process": {"ARGS": ["a"], "cwd": "/", "noNewPrivileges": true,
		"User": {"UID": 7}}, "Linux": {"Namespaces": [{"Type": "pid"}], "resources": {"unified": {"Path": "1", "path": "2"}}}, "annotations": {"ARGS": "x", "args": "y"},
		"unknown": {"Args": 1, "args": 2, "path": 3}}`))
	if err != nil {
		t.Fatal(err)
	}
	if s.Version != "1.0.2" || s.Root.Path != "r" || !s.Root.Readonly || s.Process.Args[0] != "a" || s.Process.User.UID != 7 ||
		s.Linux.Namespaces[0].Type != "pid" || s.Linux.Resources.Unified["Path"] != "1" || s.Linux.Resources.Unified["path"] != "2" || s.Annotations["ARGS"] != "x" {
		t.Errorf("got %+v, %+v, %+v, %+v", s, s.Root, s.Process, s.Linux)
	}
}

func TestPropertyNames(t *testing.T) {
	files, err := filepath.Glob("decode*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	want := map[string]bool{}
	labels := regexp.MustCompile(`\tcase ("[A-Za-z0-9]+"(?:, "[A-Za-z0-9]+")*):`)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range labels.FindAllStringSubmatch(string(data), -1) {
			for _, name := range strings.Split(m[1], ", ") {
				want[strings.Trim(name, `"`)] = true
			}
		}
	}
	if got := slices.Sorted(maps.Keys(want)); !slices.Equal(got, propertyNames[:]) {
		t.Errorf("propertyNames is\n%q, decode*.go has\n%q", propertyNames, got)
	}
}
