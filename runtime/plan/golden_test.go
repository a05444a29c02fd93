package plan

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/spec"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew; read the difference before it is committed")

// hybrid is a host with version 1 hierarchies, v2 one with cgroup2 only, rootless the latter seen by a user with one id.
func hybrid() *Host {
	h := &Host{Arch: "amd64", Bundle: "/bundle", ID: "box", LastCap: 40, Grantable: 1<<41 - 1, NoFile: [2]uint64{1024, 4096}}
	for _, name := range []string{"cpu,cpuacct", "memory", "pids"} {
		m := CgroupMount{Name: name, Dir: "/sys/fs/cgroup/" + name + "/box"}
		if name == "cpu,cpuacct" {
			m.Links = []string{"cpu", "cpuacct"}
		}
		h.Cgroups = append(h.Cgroups, name)
		h.CgroupMounts = append(h.CgroupMounts, m)
	}
	return h
}

func v2() *Host {
	h := hybrid()
	h.CgroupV2, h.Cgroups = true, nil
	h.CgroupMounts, h.CgroupUnified = nil, "/sys/fs/cgroup/box"
	return h
}

func rootless() *Host {
	h := v2()
	h.Rootless, h.UID, h.GID, h.Grantable, h.CgroupUnified, h.CgroupShared = true, 1000, 1000, 0, "/sys/fs/cgroup/user", true
	return h
}

func procByDescriptor(h *Host) *Host {
	h.ProcByDescriptor = true
	return h
}

// with is the default configuration without a terminal, changed.
func with(changes ...func(*specs.Spec)) *specs.Spec {
	s := spec.Default()
	s.Process.Terminal = false
	for _, change := range changes {
		change(s)
	}
	return s
}

func userns(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Source: "/srv/data", Options: []string{"rbind", "idmap", "ro"}})
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}}
}

func joined(s *specs.Spec) {
	for i := range s.Linux.Namespaces {
		n := &s.Linux.Namespaces[i]
		if n.Type == specs.NetworkNamespace || n.Type == specs.IPCNamespace || n.Type == specs.PIDNamespace {
			n.Path = "/run/ns/" + string(n.Type)
		}
	}
}

func timed(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 7}}
}

func docker(s *specs.Spec) {
	score, umask := -500, uint32(0o27)
	p := s.Process
	p.Args, p.Cwd, p.User, p.OOMScoreAdj = []string{"nginx", "-g", "daemon off;"}, "/srv", specs.User{UID: 101, GID: 101,
		AdditionalGids: []uint32{10}, Umask: &umask}, &score
	s.Root.Readonly = false
	s.Hostname, s.Domainname = "3f2a", "example"
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: "/var/hosts", Options: []string{"rbind", "rprivate"}},
		specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "tmpcopyup", "size=1m"}},
		specs.Mount{Destination: "/log", Source: "log", Options: []string{"bind", "ro", "rslave"}})
	l := s.Linux
	l.RootfsPropagation = "slave"
	l.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel/shmmax": "9"}
	l.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}}
	l.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"reboot"}, Action: specs.ActErrno}}}
}

func netDevices(s *specs.Spec) {
	s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth7": {}, "a0": {Name: "eth%d"}, "v0": {Name: "eth0"}}
}

func terminal(s *specs.Spec) {
	s.Process.Terminal = true
	s.Process.ConsoleSize = &specs.Box{Width: 80, Height: 25}
}

func TestGolden(t *testing.T) {
	create := Options{WaitStart: true}
	for _, test := range []struct {
		name string
		spec *specs.Spec
		host *Host
		opts Options
	}{
		{"default-hybrid", with(), hybrid(), create},
		{"default-v2", with(), v2(), create},
		{"run", with(), v2(), Options{}},
		{"hooks-nopivot", with(), v2(), Options{WaitStart: true, Hooks: true, NoPivot: true, NoNewKeyring: true, PassedFDs: 2}},
		{"terminal", with(terminal), v2(), create},
		{"userns", with(userns), hybrid(), create},
		{"rootless", with(func(s *specs.Spec) { spec.ToRootless(s, 1000, 1000) }), rootless(), create},
		{"joined", with(joined), hybrid(), create},
		{"joined-aside", with(joined, docker), procByDescriptor(hybrid()), create},
		{"time", with(timed), hybrid(), create},
		{"docker", with(docker), v2(), create},
		{"net-devices", with(netDevices, userns), v2(), create},
		{"no-process", with(func(s *specs.Spec) { s.Process = nil }), v2(), create},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := Compile(test.spec, test.host, test.opts)
			compare(t, test.name, p, err)
		})
	}
}

func TestGoldenExec(t *testing.T) {
	all := uint64(NewMount | NewPID | NewNet | NewIPC | NewUTS | NewCgroup)
	proc := func(s *specs.Spec) *specs.Process { return s.Process }
	for _, test := range []struct {
		name string
		in   ExecInput
		host *Host
	}{
		{"exec-root", ExecInput{Spec: with(), Namespaces: all}, hybrid()},
		{"exec-host-pid", ExecInput{Spec: with(), Namespaces: all &^ NewPID}, hybrid()},
		{"exec-userns", ExecInput{Spec: with(userns), Namespaces: all | NewUser}, v2()},
		{"exec-rootless", ExecInput{Spec: with(), Namespaces: all&^NewNet | NewUser}, rootless()},
		{"exec-tty", ExecInput{Spec: with(terminal), Namespaces: all}, v2()},
		{"exec-docker", ExecInput{Spec: with(docker), Namespaces: all, InitialCPUs: "0-1", FinalCPUs: "1"}, v2()},
		{"exec-hook", ExecInput{Spec: with(), Namespaces: all, Hook: true,
			Process: &specs.Process{Args: []string{"/bin/hook", "hook", "argument"}, Cwd: "/"}}, hybrid()},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.in.Process == nil {
				test.in.Process = proc(test.in.Spec)
			}
			p, err := CompileExec(test.in, test.host, Options{})
			compare(t, test.name, p, err)
		})
	}
}

func compare(t *testing.T, name string, p *Plan, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := p.WriteText(&got); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the plan has changed; see it with go test -update and git diff. It is now:\n%s", got.Bytes())
	}
}
