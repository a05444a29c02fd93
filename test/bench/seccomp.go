package main

import (
	"encoding/json"
	"fmt"
	"slices"
)

// condition restricts a rule of the profile format of Docker and Podman, which is richer than OCI's.
type condition struct {
	Arches []string `json:"arches"`
	Caps   []string `json:"caps"`
}

// convertProfile makes linux.seccomp of config.json from a profile in the format of Docker and Podman, for a Go architecture and a
// set of capabilities.
func convertProfile(data []byte, arch string, caps []string) (map[string]any, error) {
	var p struct {
		DefaultAction   string `json:"defaultAction"`
		DefaultErrnoRet *uint  `json:"defaultErrnoRet"`
		ArchMap         []struct {
			Architecture     string   `json:"architecture"`
			SubArchitectures []string `json:"subArchitectures"`
		} `json:"archMap"`
		Syscalls []struct {
			Names    []string         `json:"names"`
			Action   string           `json:"action"`
			ErrnoRet *uint            `json:"errnoRet"`
			Args     []map[string]any `json:"args"`
			Includes condition        `json:"includes"`
			Excludes condition        `json:"excludes"`
		} `json:"syscalls"`
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("read the seccomp profile: %w", err)
	}
	native := map[string]string{"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[arch]
	var arches []string
	for _, a := range p.ArchMap {
		if a.Architecture == native {
			arches = append([]string{native}, a.SubArchitectures...)
		}
	}
	has := func(c string) bool { return slices.Contains(caps, c) }
	var rules []any
	for _, s := range p.Syscalls {
		in, ex := s.Includes, s.Excludes
		if len(in.Arches) > 0 && !slices.Contains(in.Arches, arch) || slices.Contains(ex.Arches, arch) ||
			slices.ContainsFunc(in.Caps, func(c string) bool { return !has(c) }) || slices.ContainsFunc(ex.Caps, has) {
			continue
		}
		rule := map[string]any{"names": s.Names, "action": s.Action}
		if s.ErrnoRet != nil {
			rule["errnoRet"] = *s.ErrnoRet
		}
		if len(s.Args) > 0 {
			rule["args"] = s.Args
		}
		rules = append(rules, rule)
	}
	out := map[string]any{"defaultAction": p.DefaultAction, "architectures": arches, "syscalls": rules}
	if p.DefaultErrnoRet != nil {
		out["defaultErrnoRet"] = *p.DefaultErrnoRet
	}
	return out, nil
}
