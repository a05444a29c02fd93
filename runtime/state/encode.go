package state

import (
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/jsonw"
)

// encode writes the state as encoding/json would, which costs a short command a noticeable part of its time.
func (s *State) encode() []byte {
	b := make([]byte, 0, 2048)
	b = append(b, '{')
	b = jsonw.Text(b, "ociVersion", s.Version)
	b = jsonw.Text(b, "id", s.ID)
	b = jsonw.Bool(b, "creating", s.Creating)
	b = s.Creator.encode(jsonw.Key(b, "creator"))
	b = s.Init.encode(jsonw.Key(b, "init"))
	b = jsonw.Text(b, "bundle", s.Bundle)
	b = jsonw.Text(b, "rootfs", s.Rootfs)
	b = jsonw.Text(b, "created", s.Created.Format(time.RFC3339Nano))
	b = jsonw.Uint(b, "owner", uint64(s.Owner))
	b = jsonw.Key(b, "annotations")
	if s.Annotations == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, '{')
		for k, v := range s.Annotations {
			b = jsonw.Text(b, k, v)
		}
		b = append(b, '}')
	}
	b = jsonw.Key(b, "hooks")
	if s.Hooks == nil {
		b = append(b, "null"...)
	} else {
		b = encodeHooks(b, s.Hooks)
	}
	b = jsonw.Key(b, "cgroup")
	if len(s.Cgroup) == 0 {
		b = append(b, "null"...)
	} else {
		b = append(b, s.Cgroup...)
	}
	b = jsonw.Key(b, "intelRdt")
	if len(s.IntelRdt) == 0 {
		b = append(b, "null"...)
	} else {
		b = append(b, s.IntelRdt...)
	}
	b = jsonw.Bool(b, "noPivot", s.NoPivot)
	b = jsonw.Bool(b, "ownPidNS", s.OwnPidNS)
	b = jsonw.Bool(b, "rootless", s.Rootless)
	b = jsonw.Bool(b, "noProcess", s.NoProcess)
	b = jsonw.Bool(b, "noNewKeyring", s.NoNewKeyring)
	b = jsonw.Strings(jsonw.Key(b, "streams"), s.Streams)
	b = append(jsonw.Key(b, "facts"), '{')
	b = jsonw.Bool(b, "idMapHelpers", s.Facts.IDMapHelpers)
	b = jsonw.Uint(b, "sameNamespaces", s.Facts.SameNamespaces)
	b = jsonw.Uint(b, "userNamespace", s.Facts.UserNamespace)
	b = jsonw.Uint(b, "mountOwner", s.Facts.MountOwner)
	return append(b, "}}"...)
}

func (p Process) encode(b []byte) []byte {
	b = jsonw.Uint(append(b, '{'), "pid", uint64(p.Pid))
	return append(jsonw.Uint(b, "startTime", p.StartTime), '}')
}

func encodeHooks(b []byte, h *specs.Hooks) []byte {
	b = append(b, '{')
	for _, kind := range [...]struct {
		name string
		list []specs.Hook
	}{
		{"prestart", h.Prestart}, //nolint:staticcheck // callers still use it
		{"createRuntime", h.CreateRuntime},
		{"createContainer", h.CreateContainer},
		{"startContainer", h.StartContainer},
		{"poststart", h.Poststart},
		{"poststop", h.Poststop},
	} {
		if len(kind.list) == 0 {
			continue
		}
		b = append(jsonw.Key(b, kind.name), '[')
		for i, hook := range kind.list {
			if i > 0 {
				b = append(b, ',')
			}
			b = encodeHook(b, hook)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

func encodeHook(b []byte, h specs.Hook) []byte {
	b = jsonw.Text(append(b, '{'), "path", h.Path)
	if len(h.Args) > 0 {
		b = jsonw.Strings(jsonw.Key(b, "args"), h.Args)
	}
	if len(h.Env) > 0 {
		b = jsonw.Strings(jsonw.Key(b, "env"), h.Env)
	}
	if h.Timeout != nil {
		b = strconv.AppendInt(jsonw.Key(b, "timeout"), int64(*h.Timeout), 10)
	}
	return append(b, '}')
}
