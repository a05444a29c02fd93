package cgroup

import "github.com/tare-oci/tare/internal/jsonr"

// DecodeGroup reads what [Group.AppendJSON] writes.
func DecodeGroup(data []byte) (*Group, error) {
	g := new(Group)
	d := jsonr.New(string(data), nil)
	d.Object(func(name string) {
		switch name {
		case "mode":
			jsonr.Str(d, &g.Mode)
		case "dirs":
			jsonr.List(d, &g.Dirs, decodeDir)
		case "unit":
			g.Unit = new(Unit)
			decodeUnit(d, g.Unit)
		default:
			d.Skip()
		}
	})
	return g, d.End()
}

func decodeDir(d *jsonr.Decoder, dir *Dir) {
	d.Object(func(name string) {
		switch name {
		case "controllers":
			jsonr.List(d, &dir.Controllers, jsonr.Str)
		case "name":
			jsonr.Str(d, &dir.Name)
		case "unified":
			jsonr.Boolean(d, &dir.Unified)
		case "mountPoint":
			jsonr.Str(d, &dir.MountPoint)
		case "ownPath":
			jsonr.Str(d, &dir.OwnPath)
		case "path":
			jsonr.Str(d, &dir.Path)
		case "made":
			jsonr.List(d, &dir.Made, jsonr.Str)
		default:
			d.Skip()
		}
	})
}

func decodeUnit(d *jsonr.Decoder, u *Unit) {
	d.Object(func(name string) {
		switch name {
		case "name":
			jsonr.Str(d, &u.Name)
		case "user":
			jsonr.Boolean(d, &u.User)
		case "id":
			jsonr.Unsigned(d, &u.ID)
		default:
			d.Skip()
		}
	})
}
