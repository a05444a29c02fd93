package spec

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/jsonr"
)

// Validate checks everything in a configuration that can be judged without the host, and returns warnings about values
// that are to be ignored. The error is the first violation, with the JSON path of the property. Seccomp rules and mount
// options are checked by the packages that compile them. What only the text shows, for instance that a required number
// is missing, is checked by [Parse].
func Validate(s *specs.Spec) ([]string, error) {
	v := &validator{}
	v.version(s.Version)
	if _, ok := s.Annotations[""]; ok {
		v.bad("annotations: empty key")
	}
	if s.Root == nil {
		v.bad("root: root must be specified")
	} else if s.Root.Path == "" {
		v.bad("root.path: missing")
	}
	v.hostNames(s)
	v.mounts(s.Mounts)
	v.hooks(s.Hooks)
	if s.Process != nil {
		v.process("process.", s.Process)
	}
	if s.Linux != nil {
		v.linux(s)
	}
	return v.warnings, v.err
}

// ValidateProcess checks a process as [Validate] does; paths in messages are relative to it.
func ValidateProcess(p *specs.Process) ([]string, error) {
	v := &validator{}
	v.process("", p)
	return v.warnings, v.err
}

// validator collects warnings and keeps the first error.
type validator struct {
	warnings []string
	err      error
}

func (v *validator) bad(format string, args ...any) {
	if v.err == nil {
		v.err = fmt.Errorf(format, args...)
	}
}

func (v *validator) warn(format string, args ...any) {
	v.warnings = append(v.warnings, fmt.Sprintf(format, args...))
}

// version accepts Semantic Versioning 2.0.0 with the major number that the package implements.
func (v *validator) version(s string) {
	if s == "" {
		v.bad("ociVersion: missing")
		return
	}
	if !isSemVer(s) {
		v.bad("ociVersion: %s is not a semantic version", quote(s))
	} else if !strings.HasPrefix(s, "1.") {
		v.bad("ociVersion: %s is not supported, want %s to %s or a later 1.x", quote(s), VersionMin, VersionMax)
	}
}

func isSemVer(s string) bool {
	s, build, hasBuild := strings.Cut(s, "+")
	core, pre, hasPre := strings.Cut(s, "-")
	numbers := strings.Split(core, ".")
	if len(numbers) != 3 || hasBuild && !isDotted(build, false) || hasPre && !isDotted(pre, true) {
		return false
	}
	for _, n := range numbers {
		if !isNumber(n) || len(n) > 1 && n[0] == '0' {
			return false
		}
	}
	return true
}

// isDotted checks the identifiers of a pre-release or of build metadata; numbers of the former have no leading zero.
func isDotted(s string, pre bool) bool {
	for id := range strings.SplitSeq(s, ".") {
		if !jsonr.IsIdentifier(id) || strings.Contains(id, "_") || pre && isNumber(id) && len(id) > 1 && id[0] == '0' {
			return false
		}
	}
	return true
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// hostNames refuses names that would rename the host: the container needs an uts namespace of its own.
func (v *validator) hostNames(s *specs.Spec) {
	for _, n := range [...]struct{ property, value string }{{"hostname", s.Hostname}, {"domainname", s.Domainname}} {
		if n.value == "" {
			continue
		}
		if len(n.value) > 64 {
			v.bad("%s: %s is longer than 64 bytes", n.property, quote(n.value))
		}
		if s.Linux == nil || namespace(s.Linux, specs.UTSNamespace) == nil {
			v.bad("%s: unable to set %s without a private UTS namespace: %s would rename the host, add one to linux.namespaces",
				n.property, n.property, quote(n.value))
		}
	}
}

func (v *validator) mounts(mounts []specs.Mount) {
	for i, m := range mounts {
		at := func(name string) string { return "mounts[" + strconv.Itoa(i) + "]." + name }
		switch {
		case m.Destination == "":
			v.bad("%s: missing", at("destination"))
		case path.Clean("/"+m.Destination) == "/":
			v.bad("%s: %s would cover the root filesystem", at("destination"), quote(m.Destination))
		case m.Destination[0] != '/':
			v.warn("%s: %s is relative, taken as relative to /", at("destination"), quote(m.Destination))
		}
		if (len(m.UIDMappings) == 0) != (len(m.GIDMappings) == 0) {
			v.bad("mounts[%d]: uidMappings and gidMappings must come together", i)
		}
		v.mappings(at("uidMappings"), m.UIDMappings)
		v.mappings(at("gidMappings"), m.GIDMappings)
	}
}

func (v *validator) hooks(h *specs.Hooks) {
	if h == nil {
		return
	}
	v.hook("prestart", h.Prestart)
	v.hook("createRuntime", h.CreateRuntime)
	v.hook("createContainer", h.CreateContainer)
	v.hook("startContainer", h.StartContainer)
	v.hook("poststart", h.Poststart)
	v.hook("poststop", h.Poststop)
}

func (v *validator) hook(name string, hooks []specs.Hook) {
	for i, h := range hooks {
		at := "hooks." + name + "[" + strconv.Itoa(i) + "]."
		v.absolute(at+"path", h.Path)
		v.environment(at+"env", h.Env)
		if h.Timeout != nil && *h.Timeout <= 0 {
			v.bad("%stimeout: want more than 0 seconds, got %d", at, *h.Timeout)
		}
	}
}

func (v *validator) absolute(at, name string) {
	switch {
	case name == "":
		v.bad("%s: missing", at)
	case name[0] != '/':
		v.bad("%s: %s is not absolute", at, quote(name))
	}
}

func (v *validator) absoluteAll(at string, names []string) {
	for i, n := range names {
		if n == "" || n[0] != '/' {
			v.bad("%s[%d]: %s is not absolute", at, i, quote(n))
		}
	}
}

// environment refuses entries that are not NAME=VALUE; see environ(7).
func (v *validator) environment(at string, env []string) {
	for i, e := range env {
		switch strings.IndexByte(e, '=') {
		case -1:
			v.bad("%s[%d]: invalid environment variable: missing '=': %s", at, i, quote(e))
		case 0:
			v.bad("%s[%d]: invalid environment variable: name cannot be empty: %s", at, i, quote(e))
		}
	}
}

// mappings checks the lines of a user namespace's map; the kernel takes at most 340 (user_namespaces(7)).
func (v *validator) mappings(at string, maps []specs.LinuxIDMapping) {
	if len(maps) > 340 {
		v.bad("%s: %d lines, the kernel takes at most 340", at, len(maps))
	}
	for i, m := range maps {
		if m.Size == 0 {
			v.bad("%s[%d].size: want at least 1", at, i)
		}
		if uint64(m.ContainerID)+uint64(m.Size) > 1<<32 || uint64(m.HostID)+uint64(m.Size) > 1<<32 {
			v.bad("%s[%d]: reaches beyond the largest id", at, i)
		}
	}
}

// namespace returns the entry of a type, nil if there is none.
func namespace(l *specs.Linux, t specs.LinuxNamespaceType) *specs.LinuxNamespace {
	for i := range l.Namespaces {
		if l.Namespaces[i].Type == t {
			return &l.Namespaces[i]
		}
	}
	return nil
}

// isList reports whether s is a list of numbers and ranges as in "0-3,7", the form of cpuset(7).
func isList(s string) bool {
	for part := range strings.SplitSeq(strings.Trim(s, " \n"), ",") {
		low, high, isRange := strings.Cut(part, "-")
		l, err := strconv.ParseUint(low, 10, 31)
		if err != nil {
			return false
		}
		if !isRange {
			continue
		}
		if h, err := strconv.ParseUint(high, 10, 31); err != nil || h < l {
			return false
		}
	}
	return true
}
