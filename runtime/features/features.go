// Package features says what the runtime supports, as the specification's features document (runtime-spec, features.md). It
// is the same on every host: what the kernel lacks shows when a container asks for it.
package features

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/tare-oci/tare/runtime/hooks"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/seccomp"
	"github.com/tare-oci/tare/runtime/spec"
	"github.com/tare-oci/tare/runtime/systemd"
)

// Keys of the document's annotations.
const (
	versionKey = "org.tare-oci.runtime.version"
	commitKey  = "org.tare-oci.runtime.commit"
	// Callers ask for runc's key whether checkpoint and restore are there. Like runc's it is about the program: whether criu is
	// installed shows when it is used.
	checkpointKey = "org.opencontainers.runc.checkpoint.enabled"
)

// Document returns the features of the runtime that calls itself by this version and commit.
func Document(version, commit string) *features.Features {
	return &features.Features{
		OCIVersionMin: spec.VersionMin,
		OCIVersionMax: spec.VersionMax,
		Hooks:         hooks.Kinds(),
		MountOptions:  mountOptions(),
		Annotations:   map[string]string{versionKey: version, commitKey: commit, checkpointKey: "true"},
		// Annotations of config.json that change what is done on the host; one that ends in a dot stands for all that begin
		// so.
		PotentiallyUnsafeConfigAnnotations: []string{systemd.AnnotationPrefix},
		Linux: &features.Linux{
			Namespaces:   namespaces(),
			Capabilities: spec.CapabilityNames(),
			Cgroup:       &features.Cgroup{V1: yes(), V2: yes(), Systemd: yes(), SystemdUser: yes(), Rdma: yes()},
			Seccomp: &features.Seccomp{
				Enabled: yes(), Actions: seccomp.Actions(), Operators: seccomp.Operators(), Archs: seccomp.Archs(),
				KnownFlags: seccomp.Flags(), SupportedFlags: seccomp.Flags(),
			},
			Apparmor:        &features.Apparmor{Enabled: yes()},
			Selinux:         &features.Selinux{Enabled: yes()},
			IntelRdt:        &features.IntelRdt{Enabled: yes(), Schemata: yes(), Monitoring: yes()},
			MemoryPolicy:    memoryPolicy(),
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: yes()}},
			NetDevices:      &features.NetDevices{Enabled: yes()},
		},
	}
}

func yes() *bool { b := true; return &b }

func mountOptions() []string {
	options := plan.MountOptions()
	slices.Sort(options)
	return options
}

func namespaces() []string {
	kinds := []specs.LinuxNamespaceType{
		specs.CgroupNamespace, specs.IPCNamespace, specs.MountNamespace, specs.NetworkNamespace,
		specs.PIDNamespace, specs.TimeNamespace, specs.UserNamespace, specs.UTSNamespace,
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return names
}

func memoryPolicy() *features.MemoryPolicy {
	p := &features.MemoryPolicy{}
	for _, m := range []specs.MemoryPolicyModeType{
		specs.MpolDefault, specs.MpolBind, specs.MpolInterleave, specs.MpolWeightedInterleave,
		specs.MpolPreferred, specs.MpolPreferredMany, specs.MpolLocal,
	} {
		p.Modes = append(p.Modes, string(m))
	}
	for _, f := range []specs.MemoryPolicyFlagType{specs.MpolFNumaBalancing, specs.MpolFRelativeNodes, specs.MpolFStaticNodes} {
		p.Flags = append(p.Flags, string(f))
	}
	return p
}
