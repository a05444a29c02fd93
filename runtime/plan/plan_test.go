package plan

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseOptions(t *testing.T) {
	const ro, nosuid, nodev, noexec = attrReadOnly, attrNoSuid, attrNoDev, attrNoExec
	for _, test := range []struct {
		options string
		want    parsedOptions
	}{
		{"", parsedOptions{}},
		{"defaults mand nomand iversion noiversion silent loud", parsedOptions{}},
		{"ro", parsedOptions{attr: Attr{Set: ro}}},
		{"ro rw", parsedOptions{attr: Attr{Clear: ro}}},
		{"rw ro", parsedOptions{attr: Attr{Set: ro}}},
		{"nosuid nodev noexec", parsedOptions{attr: Attr{Set: nosuid | nodev | noexec}}},
		{"nosuid suid nodev dev noexec exec", parsedOptions{attr: Attr{Clear: nosuid | nodev | noexec}}},
		{"noatime relatime", parsedOptions{attr: Attr{Clear: attrAtime}}},
		{"relatime noatime", parsedOptions{attr: Attr{Set: attrNoAtime, Clear: attrAtime}}},
		{"noatime strictatime", parsedOptions{attr: Attr{Set: attrStrictAtime, Clear: attrAtime}}},
		{"strictatime nostrictatime", parsedOptions{attr: Attr{Clear: attrAtime, AtimeIf: attrStrictAtime}}},
		{"norelatime atime", parsedOptions{attr: Attr{Clear: attrAtime, AtimeIf: attrNoAtime}}},
		{"norelatime", parsedOptions{attr: Attr{Set: attrStrictAtime, Clear: attrAtime, AtimeIf: attrAtime}}},
		{"norelatime noatime", parsedOptions{attr: Attr{Set: attrNoAtime, Clear: attrAtime}}},
		{"nodiratime", parsedOptions{attr: Attr{Set: attrNoDirAtime}}},
		{"nodiratime diratime", parsedOptions{attr: Attr{Clear: attrNoDirAtime}}},
		{"nosymfollow", parsedOptions{attr: Attr{Set: attrNoSymFollow}}},
		{"nosymfollow symfollow", parsedOptions{attr: Attr{Clear: attrNoSymFollow}}},
		{"rro rnosuid", parsedOptions{attr: Attr{RecSet: ro | nosuid}}},
		{"rro rrw rnosuid rsuid rnodev rdev rnoexec rexec", parsedOptions{attr: Attr{RecClear: ro | nosuid | nodev | noexec}}},
		{"rnoatime", parsedOptions{attr: Attr{RecSet: attrNoAtime, RecClear: attrAtime}}},
		{"rnoatime ratime rnodiratime rdiratime", parsedOptions{attr: Attr{RecClear: attrAtime | attrNoDirAtime}}},
		{"rstrictatime", parsedOptions{attr: Attr{RecSet: attrStrictAtime, RecClear: attrAtime}}},
		{"rnorelatime rrelatime rstrictatime rnostrictatime", parsedOptions{attr: Attr{RecClear: attrAtime}}},
		{"rnosymfollow rsymfollow", parsedOptions{attr: Attr{RecClear: attrNoSymFollow}}},
		{"ro rrw", parsedOptions{attr: Attr{Set: ro, RecClear: ro}}},
		{"sync dirsync lazytime", parsedOptions{flags: []string{"sync", "dirsync", "lazytime"}}},
		{"sync async lazytime nolazytime", parsedOptions{flags: []string{"sync", "async", "lazytime", "nolazytime"}}},
		{"bind", parsedOptions{bind: true}},
		{"rbind", parsedOptions{bind: true, rbind: true}},
		{"remount", parsedOptions{remount: true}},
		{"shared slave private unbindable", parsedOptions{attr: Attr{Propagation: []uint64{msShared, msSlave, msPrivate, msUnbindable}}}},
		{"rshared rslave rprivate runbindable", parsedOptions{attr: Attr{Propagation: []uint64{msShared | msRec, msSlave | msRec,
			msPrivate | msRec, msUnbindable | msRec}}}},
		{"tmpcopyup", parsedOptions{copyUp: true}},
		{"idmap", parsedOptions{idmap: true}},
		{"ridmap", parsedOptions{idmap: true, ridmap: true}},
		{"mode=755 size=1m,nr_inodes=2 unheard", parsedOptions{data: []string{"mode=755", "size=1m", "nr_inodes=2", "unheard"}}},
	} {
		if got := parseOptions(strings.Fields(test.options)); !reflect.DeepEqual(got, test.want) {
			t.Errorf("parseOptions(%s) = %+v, want %+v", test.options, got, test.want)
		}
	}
}

// TestEveryOption: what features lists is understood, and nothing of it goes to the file system as it is.
func TestEveryOption(t *testing.T) {
	names := MountOptions()
	for _, name := range names {
		if got := parseOptions([]string{name}); len(got.data) > 0 {
			t.Errorf("option %s goes to the file system", name)
		}
	}
	for _, name := range strings.Fields("async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev " +
		"nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev " +
		"rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro " +
		"rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime " +
		"suid symfollow sync tmpcopyup unbindable idmap ridmap") {
		if !slices.Contains(names, name) {
			t.Errorf("option %s of the specification is missing", name)
		}
	}
}

func TestDedupe(t *testing.T) {
	got := dedupe(strings.Fields("A=1 B=2 A=3 NAKED C= A=4 C=5"))
	if want := strings.Fields("A=4 B=2 NAKED C=5"); !slices.Equal(got, want) {
		t.Errorf("dedupe = %v, want %v", got, want)
	}
}

func TestParseList(t *testing.T) {
	for _, test := range []struct {
		list string
		want []byte
	}{
		{"0", []byte{1}}, {"0-3,7", []byte{0x8f}}, {" 1 , 8-9 ", []byte{2, 3}}, {"15", []byte{0, 0x80}},
		{"", nil}, {"a", nil}, {"3-1", nil}, {"-1", nil}, {"1-", nil}, {"8192", nil}, {"1,,2", nil}, {"99999", nil},
	} {
		got, err := parseList(test.list)
		if (err != nil) != (test.want == nil) || string(got) != string(test.want) && err == nil {
			t.Errorf("parseList(%q) = %v, %v; want %v", test.list, got, err, test.want)
		}
	}
	if mask, err := parseList("8191"); err != nil || len(mask) != 1024 {
		t.Errorf("parseList(8191) has %d bytes, %v", len(mask), err)
	}
}

func TestFindProgram(t *testing.T) {
	for _, test := range []struct{ arg, path, want string }{
		{"ls", "PATH=/bin:/usr/bin/", "/bin/ls /usr/bin/ls"},
		{"ls", "PATH=:/bin", "./ls /bin/ls"},
		{"./ls", "PATH=/bin", "./ls"},
		{"/x/ls", "", "/x/ls"},
		{"ls", "HOME=/", ""},
	} {
		got, err := findProgram([]string{test.arg}, []string{test.path})
		if err != nil || strings.Join(got.Paths, " ") != test.want {
			t.Errorf("findProgram(%s, %s) = %v, %v; want %s", test.arg, test.path, got.Paths, err, test.want)
		}
	}
}

func TestCapabilityWarnings(t *testing.T) {
	s := with()
	c := s.Process.Capabilities
	c.Bounding = []string{"CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_CHECKPOINT_RESTORE", "CAP_UNHEARD_OF", "KILL"}
	c.Permitted = append(slices.Clone(c.Bounding), "CAP_KILL")
	c.Effective = []string{"CAP_CHOWN", "CAP_NET_RAW"}
	c.Inheritable, c.Ambient = []string{"CAP_CHOWN"}, []string{"CAP_CHOWN", "CAP_KILL"}
	host := v2()
	host.Grantable &^= 1 << 24
	host.LastCap = 39
	p, err := Compile(s, host, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ignoring unknown or unavailable capabilities: " +
		`[CAP_CHECKPOINT_RESTORE CAP_SYS_RESOURCE CAP_UNHEARD_OF KILL] ("KILL" needs the prefix CAP_)`}
	got := slices.Sorted(slices.Values(p.Warnings))
	if !slices.Equal(got, want) {
		t.Errorf("warnings:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, op := range p.Child {
		if o, ok := op.(Capabilities); ok && o != (Capabilities{Effective: 1, Permitted: 1 | 1<<5, Inheritable: 1, Ambient: 1}) {
			t.Errorf("capabilities are %+v", o)
		}
	}
}

func TestNoCapabilities(t *testing.T) {
	s := with()
	s.Process.Capabilities = nil
	p, err := Compile(s, v2(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "process.capabilities") {
		t.Errorf("warnings: %q", p.Warnings)
	}
	exec, err := CompileExec(ExecInput{Spec: s, Process: s.Process}, v2(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(exec.Warnings) != 0 {
		t.Errorf("exec repeats the warning: %q", exec.Warnings)
	}
	for _, ops := range [][]Op{p.Child, exec.Child} {
		if !slices.Contains(ops, Op(Capabilities{})) || !slices.Contains(ops, Op(BoundingSet{Last: v2().LastCap})) {
			t.Errorf("no operation drops all capabilities: %v", ops)
		}
	}
}

func TestRefusals(t *testing.T) {
	mount := func(m specs.Mount) func(*specs.Spec) { return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) } }
	host := v2()
	user := rootless()
	for _, test := range []struct {
		change func(*specs.Spec)
		host   *Host
		want   string
	}{
		{func(s *specs.Spec) {
			s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.UserNamespace}}
			s.Hostname = ""
		}, host, "linux.namespaces: a container with a user namespace needs a mount namespace of its own: the host's is not its to mount in"},
		{func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}}; userns(s) }, user,
			"linux.netDevices: only root can move network devices of the host, and the runtime is rootless"},
		{func(*specs.Spec) {}, user, "linux.namespaces: a user namespace is needed when the runtime is not run by root"},
		{func(s *specs.Spec) { s.Linux.MountLabel = "x" }, host, "linux.mountLabel: selinux label is specified in config, but selinux is disabled or not supported"},
		{func(s *specs.Spec) { s.Process.SelinuxLabel = "x" }, host, "process.selinuxLabel: selinux label is specified in config, but selinux is disabled or not supported"},
		{func(s *specs.Spec) { s.Process.ApparmorProfile = "x" }, host, "process.apparmorProfile: unable to apply apparmor profile: apparmor is not enabled on the host"},
		{mount(specs.Mount{Destination: "/proc", Type: "tmpfs"}), host,
			`mounts: /proc: "tmpfs" cannot be mounted because it is not of type proc`},
		{mount(specs.Mount{Destination: "/proc/sys/kernel", Type: "tmpfs"}), host,
			`mounts: "/proc/sys/kernel" cannot be mounted because it is inside /proc: it could forge what the kernel says`},
		{mount(specs.Mount{Destination: "/x/../proc/./self", Source: "/y", Options: []string{"bind"}}), host,
			`mounts: "/proc/self" cannot be mounted because it is inside /proc: it could forge what the kernel says`},
		{mount(specs.Mount{Destination: "/a/..", Type: "tmpfs"}), host, `mounts: destination "/a/.." would cover the root`},
		{mount(specs.Mount{Destination: "/a"}), host, "mounts: /a: type is missing and the options have neither bind nor rbind"},
		{mount(specs.Mount{Destination: "/a", Type: "bind", Source: "/b"}), host, `mounts: /a: type "bind" needs the option bind or rbind`},
		{mount(specs.Mount{Destination: "/a", Options: []string{"bind"}}), host, "mounts: bind on /a: source is missing"},
		{mount(specs.Mount{Destination: "/a", Source: "/b", Options: []string{"bind", "size=1"}}), host,
			`mounts: bind on /a: unknown option "size=1": bind mounts cannot have any filesystem-specific options applied`},
		{mount(specs.Mount{Destination: "/a", Type: "proc", Options: []string{"tmpcopyup"}}), host,
			"mounts: /a: tmpcopyup works on tmpfs only, not on proc"},
		{mount(specs.Mount{Destination: "/a", Source: "/b", Options: []string{"bind", "idmap"}}), host,
			"mounts: /a: idmap needs uidMappings and gidMappings, or a user namespace"},
		{func(s *specs.Spec) { s.Linux.RootfsPropagation = "ro" }, host, `linux.rootfsPropagation: rootfsPropagation=ro is not supported`},
		{func(s *specs.Spec) { s.Root = nil }, host, "root: root must be specified"},
		{func(s *specs.Spec) { s.Process.Args = nil }, host, "process.args: args must not be empty"},
		{func(s *specs.Spec) { s.Process.Cwd = "tmp" }, host, `process.cwd: "tmp" is not absolute`},
		{func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "dev/x", Type: "c"}} }, host,
			`linux.devices: path "dev/x" is not absolute`},
	} {
		_, err := Compile(with(test.change), test.host, Options{})
		if err == nil || err.Error() != test.want {
			t.Errorf("error %v, want %s", err, test.want)
		}
	}
}

// TestProcFiles: what monitoring tools replace below /proc may be bound.
func TestProcFiles(t *testing.T) {
	for _, file := range procFiles {
		s := with(func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: file, Source: "/var/lib/lxcfs" + file, Options: []string{"bind"}})
		})
		if _, err := Compile(s, v2(), Options{}); err != nil {
			t.Error(err)
		}
	}
}

// TestJSON: every op can be written, with its kind.
func TestJSON(t *testing.T) {
	p, err := Compile(with(docker, terminal, userns), v2(), Options{Hooks: true})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Child []struct{ Op, What string } }
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Child) != len(p.Child) {
		t.Fatalf("%d ops, want %d", len(got.Child), len(p.Child))
	}
	for i, op := range p.Child {
		if got.Child[i].Op != Kind(op) || got.Child[i].What != op.What() || op.What() == "" {
			t.Errorf("op %d is %+v, want %s", i, got.Child[i], op.What())
		}
	}
}

// TestMountLabel: the label goes to file systems whose files the policy does not label.
func TestMountLabel(t *testing.T) {
	host := v2()
	host.SELinux = true
	p, err := Compile(with(func(s *specs.Spec) { s.Linux.MountLabel = "u:r:t:s0" }), host, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range p.Child {
		m, ok := op.(Mount)
		if !ok {
			continue
		}
		want := m.Type == "tmpfs" || m.Type == "devpts"
		if got := slices.Contains(m.Data, "context=u:r:t:s0"); got != want && m.Type != "cgroup2" {
			t.Errorf("%s: context %v, want %v", m.What(), got, want)
		}
	}
}

// TestFilterBeforeStart: create must fail without the agent of a filter with SCMP_ACT_NOTIFY, so such a filter is
// loaded before create reports that the container exists; so are other filters, unless they refuse what the waiting
// process still does.
func TestFilterBeforeStart(t *testing.T) {
	for _, test := range []struct {
		call   string
		action specs.LinuxSeccompAction
		before bool
	}{{"mkdir", specs.ActNotify, true}, {"accept4", specs.ActNotify, true}, {"mkdir", specs.ActErrno, true}, {"accept4", specs.ActErrno, false}} {
		p, err := Compile(with(func(s *specs.Spec) {
			s.Process.NoNewPrivileges = true
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/agent",
				Syscalls: []specs.LinuxSyscall{{Names: []string{test.call}, Action: test.action}}}
		}), v2(), Options{WaitStart: true})
		if err != nil {
			t.Fatal(err)
		}
		filter, wait := -1, -1
		for i, op := range p.Child {
			switch op.(type) {
			case Seccomp:
				filter = i
			case WaitStart:
				wait = i
			}
		}
		if filter < 0 || wait < 0 || (filter < wait) != test.before {
			t.Errorf("%s of %s: filter is step %d, the wait for start %d", test.action, test.call, filter, wait)
		}
	}
}
