package state

import (
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/jsonr"
	"github.com/tare-oci/tare/runtime/spec"
)

// decode reads what encode writes. Members that it does not know are of a later version, those that are missing of an
// earlier one.
func (s *State) decode(data []byte) error {
	d := jsonr.New(string(data), nil)
	d.Object(func(name string) {
		switch name {
		case "ociVersion":
			jsonr.Text(d, &s.Version)
		case "id":
			jsonr.Text(d, &s.ID)
		case "creating":
			jsonr.Boolean(d, &s.Creating)
		case "creator":
			decodeProcess(d, &s.Creator)
		case "init":
			decodeProcess(d, &s.Init)
		case "bundle":
			jsonr.Text(d, &s.Bundle)
		case "rootfs":
			jsonr.Text(d, &s.Rootfs)
		case "created":
			decodeTime(d, &s.Created)
		case "owner":
			jsonr.Unsigned(d, &s.Owner)
		case "annotations":
			jsonr.Dict(d, &s.Annotations, jsonr.Text)
		case "hooks":
			s.Hooks = new(specs.Hooks)
			spec.DecodeHooks(d, s.Hooks)
		default:
			s.decodeHeld(d, name)
		}
	})
	return d.End()
}

// decodeHeld reads a member about what the container holds and how it was made.
func (s *State) decodeHeld(d *jsonr.Decoder, name string) {
	switch name {
	case "cgroup":
		jsonr.Raw(d, &s.Cgroup)
	case "intelRdt":
		jsonr.Raw(d, &s.IntelRdt)
	case "noPivot":
		jsonr.Boolean(d, &s.NoPivot)
	case "ownPidNS":
		jsonr.Boolean(d, &s.OwnPidNS)
	case "rootless":
		jsonr.Boolean(d, &s.Rootless)
	case "noProcess":
		jsonr.Boolean(d, &s.NoProcess)
	case "noNewKeyring":
		jsonr.Boolean(d, &s.NoNewKeyring)
	case "streams":
		jsonr.List(d, &s.Streams, jsonr.Text)
	case "facts":
		decodeFacts(d, &s.Facts)
	default:
		d.Skip()
	}
}

func decodeProcess(d *jsonr.Decoder, p *Process) {
	d.Object(func(name string) {
		switch name {
		case "pid":
			jsonr.Signed(d, &p.Pid)
		case "startTime":
			jsonr.Unsigned(d, &p.StartTime)
		default:
			d.Skip()
		}
	})
}

func decodeFacts(d *jsonr.Decoder, f *Facts) {
	d.Object(func(name string) {
		switch name {
		case "idMapHelpers":
			jsonr.Boolean(d, &f.IDMapHelpers)
		case "sameNamespaces":
			jsonr.Unsigned(d, &f.SameNamespaces)
		case "userNamespace":
			jsonr.Unsigned(d, &f.UserNamespace)
		case "mountOwner":
			jsonr.Unsigned(d, &f.MountOwner)
		default:
			d.Skip()
		}
	})
}

func decodeTime(d *jsonr.Decoder, t *time.Time) {
	var text string
	jsonr.Text(d, &text)
	var err error
	if *t, err = time.Parse(time.RFC3339Nano, text); err != nil && d.Err() == nil {
		d.Fail("want a time of RFC 3339, got %s", jsonr.Quote(text))
	}
}
