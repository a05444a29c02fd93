package plan

import (
	"fmt"
	"strings"
)

// Attributes of mount_setattr(2) and flags of mount(2), as the kernel numbers them.
const (
	attrReadOnly    = 0x00000001
	attrNoSuid      = 0x00000002
	attrNoDev       = 0x00000004
	attrNoExec      = 0x00000008
	attrAtime       = 0x00000070 // the field that the next two are values of
	attrNoAtime     = 0x00000010
	attrStrictAtime = 0x00000020
	attrNoDirAtime  = 0x00000080
	attrNoSymFollow = 0x00200000

	msRec        = 0x4000
	msUnbindable = 1 << 17
	msPrivate    = 1 << 18
	msSlave      = 1 << 19
	msShared     = 1 << 20
)

// mountOption is the meaning of one mount option of config.json.
type mountOption struct {
	name        string
	set, clear  uint64 // attributes of the mount
	atimeIf     uint64 // see Attr.AtimeIf
	recursive   bool   // for all mounts below too
	propagation uint64 // MS_*
	flag        string // handed to the file system as a flag of fsconfig(2)
	bind        bool
	rbind       bool
	remount     bool
	copyUp      bool
	idmap       bool
	ridmap      bool
}

// mountOptions are all options that are not handed to the file system as they are, in the order of the specification's table.
// Without effect, but known: what the kernel has dropped (mand) or what every file system does by itself (iversion).
var mountOptions = []mountOption{
	{name: "defaults"}, {name: "rw", clear: attrReadOnly}, {name: "ro", set: attrReadOnly},
	{name: "suid", clear: attrNoSuid}, {name: "nosuid", set: attrNoSuid},
	{name: "dev", clear: attrNoDev}, {name: "nodev", set: attrNoDev},
	{name: "exec", clear: attrNoExec}, {name: "noexec", set: attrNoExec},
	{name: "sync", flag: "sync"}, {name: "async", flag: "async"},
	{name: "dirsync", flag: "dirsync"},
	{name: "remount", remount: true},
	{name: "mand"}, {name: "nomand"},
	{name: "atime", clear: attrAtime, atimeIf: attrNoAtime}, {name: "noatime", set: attrNoAtime, clear: attrAtime},
	{name: "diratime", clear: attrNoDirAtime}, {name: "nodiratime", set: attrNoDirAtime},
	{name: "relatime", clear: attrAtime},
	{name: "norelatime", set: attrStrictAtime, clear: attrAtime, atimeIf: attrAtime},
	{name: "strictatime", set: attrStrictAtime, clear: attrAtime},
	{name: "nostrictatime", clear: attrAtime, atimeIf: attrStrictAtime},
	{name: "iversion"}, {name: "noiversion"},
	{name: "lazytime", flag: "lazytime"}, {name: "nolazytime", flag: "nolazytime"},
	{name: "silent"}, {name: "loud"},
	{name: "symfollow", clear: attrNoSymFollow}, {name: "nosymfollow", set: attrNoSymFollow},
	{name: "bind", bind: true}, {name: "rbind", bind: true, rbind: true},
	{name: "shared", propagation: msShared}, {name: "rshared", propagation: msShared | msRec},
	{name: "slave", propagation: msSlave}, {name: "rslave", propagation: msSlave | msRec},
	{name: "private", propagation: msPrivate}, {name: "rprivate", propagation: msPrivate | msRec},
	{name: "unbindable", propagation: msUnbindable}, {name: "runbindable", propagation: msUnbindable | msRec},
	{name: "rrw", clear: attrReadOnly, recursive: true}, {name: "rro", set: attrReadOnly, recursive: true},
	{name: "rsuid", clear: attrNoSuid, recursive: true}, {name: "rnosuid", set: attrNoSuid, recursive: true},
	{name: "rdev", clear: attrNoDev, recursive: true}, {name: "rnodev", set: attrNoDev, recursive: true},
	{name: "rexec", clear: attrNoExec, recursive: true}, {name: "rnoexec", set: attrNoExec, recursive: true},
	{name: "ratime", clear: attrAtime, recursive: true},
	{name: "rnoatime", set: attrNoAtime, clear: attrAtime, recursive: true},
	{name: "rdiratime", clear: attrNoDirAtime, recursive: true}, {name: "rnodiratime", set: attrNoDirAtime, recursive: true},
	{name: "rrelatime", clear: attrAtime, recursive: true},
	{name: "rnorelatime", set: attrStrictAtime, clear: attrAtime, recursive: true},
	{name: "rstrictatime", set: attrStrictAtime, clear: attrAtime, recursive: true},
	{name: "rnostrictatime", clear: attrAtime, recursive: true},
	{name: "rsymfollow", clear: attrNoSymFollow, recursive: true}, {name: "rnosymfollow", set: attrNoSymFollow, recursive: true},
	{name: "tmpcopyup", copyUp: true}, {name: "idmap", idmap: true}, {name: "ridmap", idmap: true, ridmap: true},
}

// MountOptions lists the mount options that are understood here, for `features`.
func MountOptions() []string {
	names := make([]string, len(mountOptions))
	for i := range mountOptions {
		names[i] = mountOptions[i].name
	}
	return names
}

// parsedOptions is a mount's options, sorted out.
type parsedOptions struct {
	attr    Attr
	flags   []string // for fsconfig(2)
	data    []string // not known here: for the file system
	bind    bool
	rbind   bool
	remount bool
	copyUp  bool
	idmap   bool
	ridmap  bool
}

// parseOptions sorts a mount's options; a later option wins over an earlier one that says the opposite.
func parseOptions(options []string) parsedOptions {
	var p parsedOptions
	for _, o := range options {
		known := findOption(o)
		if known == nil {
			for _, part := range strings.Split(o, ",") {
				if part != "" {
					p.data = append(p.data, part)
				}
			}
			continue
		}
		if known.recursive {
			merge(&p.attr.RecSet, &p.attr.RecClear, known)
		} else {
			merge(&p.attr.Set, &p.attr.Clear, known)
			if known.clear&attrAtime != 0 {
				p.attr.AtimeIf = known.atimeIf
			}
		}
		if known.propagation != 0 {
			p.attr.Propagation = append(p.attr.Propagation, known.propagation)
		}
		if known.flag != "" {
			p.flags = append(p.flags, known.flag)
		}
		p.bind = p.bind || known.bind
		p.rbind = p.rbind || known.rbind
		p.remount = p.remount || known.remount
		p.copyUp = p.copyUp || known.copyUp
		p.idmap = p.idmap || known.idmap
		p.ridmap = p.ridmap || known.ridmap
	}
	return p
}

func findOption(name string) *mountOption {
	for i := range mountOptions {
		if mountOptions[i].name == name {
			return &mountOptions[i]
		}
	}
	return nil
}

// merge adds an option to the attributes to set and to clear. The access time bits are one field: a new value replaces the old.
func merge(set, clear *uint64, o *mountOption) {
	*set &^= o.clear
	*clear &^= o.set &^ attrAtime
	*set |= o.set
	*clear |= o.clear
}

// propagationFlags reads linux.rootfsPropagation; "" is 0.
func propagationFlags(name string) (uint64, error) {
	if name == "" {
		return 0, nil
	}
	o := findOption(name)
	if o == nil || o.propagation == 0 {
		return 0, fmt.Errorf("linux.rootfsPropagation: rootfsPropagation=%s is not supported", name)
	}
	return o.propagation, nil
}

// propagationName is the option for MS_* propagation flags.
func propagationName(flags uint64) string {
	for i := range mountOptions {
		if mountOptions[i].propagation == flags {
			return mountOptions[i].name
		}
	}
	return fmt.Sprintf("propagation %#x", flags)
}
