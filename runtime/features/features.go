// Package features says what the runtime supports, as the specification's features document (runtime-spec, features.md). It
// is the same on every host: what the kernel lacks shows when a container asks for it.
package features

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/tare-oci/tare/runtime/hooks"
	"github.com/tare-oci/tare/runtime/spec"
)

// Keys of the document's annotations.
const (
	versionKey = "org.tare-oci.runtime.version"
	commitKey  = "org.tare-oci.runtime.commit"
)

// Document returns the features of the runtime that calls itself by this version and commit.
func Document(version, commit string) *features.Features {
	return &features.Features{
		OCIVersionMin: spec.VersionMin,
		OCIVersionMax: spec.VersionMax,
		Hooks:         hooks.Kinds(),
		Annotations:   map[string]string{versionKey: version, commitKey: commit},
		Linux: &features.Linux{
			Namespaces:   namespaces(),
			Capabilities: capabilities(),
			Cgroup:       &features.Cgroup{V1: yes(), V2: yes(), Systemd: no(), SystemdUser: no(), Rdma: yes()},
			Seccomp:      &features.Seccomp{Enabled: no()},
			Apparmor:     &features.Apparmor{Enabled: no()},
			Selinux:      &features.Selinux{Enabled: no()},
			IntelRdt:     &features.IntelRdt{Enabled: no(), Schemata: no(), Monitoring: no()},
		},
	}
}

func yes() *bool { b := true; return &b }
func no() *bool  { return new(bool) }

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

func capabilities() []string { return slices.Clone(spec.CapabilityNames()) }
