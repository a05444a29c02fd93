package features

import (
	"encoding/json"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/seccomp"
	"github.com/tare-oci/tare/runtime/spec"
)

// TestSeccomp compiles a profile with each value that is listed: the specification wants every one recognised.
func TestSeccomp(t *testing.T) {
	f := Document("v", "c").Linux.Seccomp
	if len(f.Actions) != 9 || len(f.Operators) != 7 || len(f.Archs) < 18 || len(f.KnownFlags) != 4 {
		t.Errorf("%d actions, %d operators, %d architectures, %d flags", len(f.Actions), len(f.Operators), len(f.Archs), len(f.KnownFlags))
	}
	compile := func(what string, s *specs.LinuxSeccomp) {
		s.DefaultAction, s.ListenerPath = specs.ActAllow, "/agent"
		if _, err := seccomp.Compile(s, runtime.GOARCH); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, a := range f.Actions {
		compile(a, &specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.LinuxSeccompAction(a)}}})
	}
	for _, o := range f.Operators {
		arg := specs.LinuxSeccompArg{Op: specs.LinuxSeccompOperator(o), Value: 1}
		compile(o, &specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{arg}},
		}})
	}
	for _, a := range f.Archs {
		compile(a, &specs.LinuxSeccomp{Architectures: []specs.Arch{specs.Arch(a)}})
	}
	for _, flag := range f.SupportedFlags {
		compile(flag, &specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlag(flag)}})
	}
}

// TestAccepted loads a configuration with each namespace, capability and version that is listed.
func TestAccepted(t *testing.T) {
	f := Document("v", "c")
	for _, version := range []string{f.OCIVersionMin, f.OCIVersionMax} {
		for _, ns := range f.Linux.Namespaces {
			s := spec.Default()
			s.Version = version
			s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.LinuxNamespaceType(ns), Path: "/proc/1/ns/x"}}
			s.Hostname = ""
			s.Process.Capabilities.Bounding = f.Linux.Capabilities
			data, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if _, warnings, err := spec.Parse(data); err != nil || len(warnings) != 0 {
				t.Errorf("version %s, namespace %s: %v, %q", version, ns, err, warnings)
			}
		}
	}
	if !slices.IsSorted(f.Linux.Namespaces) || len(f.Linux.Namespaces) != 8 {
		t.Errorf("namespaces %q", f.Linux.Namespaces)
	}
}

// TestMountOptions compiles a mount with each option that is listed, and finds it understood: an unknown one would become data
// of the file system.
func TestMountOptions(t *testing.T) {
	options := Document("v", "c").MountOptions
	parameters := []string{"async", "dirsync", "lazytime", "nolazytime", "ro", "sync"} // data by nature: fsconfig(2) has them as flags
	for _, o := range append(slices.Clone(options), "size=1m") {
		s := spec.Default()
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "tmpfs", Source: "tmpfs", Options: []string{o}})
		switch o {
		case "bind", "rbind", "idmap", "ridmap":
			s.Mounts[len(s.Mounts)-1].Source, s.Mounts[len(s.Mounts)-1].Options = "/", []string{"rbind", o}
		}
		if o == "idmap" || o == "ridmap" {
			m := []specs.LinuxIDMapping{{Size: 1}}
			s.Mounts[len(s.Mounts)-1].UIDMappings, s.Mounts[len(s.Mounts)-1].GIDMappings = m, m
		}
		p, err := plan.Compile(s, &plan.Host{Arch: runtime.GOARCH, Bundle: "/b", ID: "c", LastCap: 40, Grantable: 1<<41 - 1}, plan.Options{})
		if err != nil {
			t.Errorf("%s: %v", o, err)
			continue
		}
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if known := !strings.Contains(string(data), strconv.Quote(o)); known != (o != "size=1m" && !slices.Contains(parameters, o)) {
			t.Errorf("%s: understood is %v", o, known)
		}
	}
	for _, o := range []string{"rro", "idmap", "defaults", "tmpcopyup"} { // what callers look for
		if !slices.Contains(options, o) {
			t.Errorf("no option %s", o)
		}
	}
}

// TestUnsafeAnnotations: callers that take configurations from strangers drop these annotations.
func TestUnsafeAnnotations(t *testing.T) {
	if got := Document("v", "c").PotentiallyUnsafeConfigAnnotations; !slices.Equal(got, []string{"org.systemd.property."}) {
		t.Errorf("%q", got)
	}
}
