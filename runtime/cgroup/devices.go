package cgroup

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/bpf"
	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// Access to a device, as bits of struct bpf_cgroup_dev_ctx (linux/bpf.h, BPF_DEVCG_ACC_*).
const (
	accMknod = 1
	accRead  = 2
	accWrite = 4
	accAll   = accMknod | accRead | accWrite
)

// wild stands for every major or minor number.
const wild = -1

// devRule is one rule of the device list: the last one that matches a device decides each kind of access on its own.
// Before the first rule everything is denied, so a list of exceptions is never a black list (GHSA-g54h-m393-cpwq).
type devRule struct {
	allow        bool
	typ          byte // 'b' or 'c'
	major, minor int64
	access       uint8
}

// devList is a list in version 1's form: what holds for all devices, and rules after it.
type devList struct {
	allow bool
	rules []devRule
}

// defaultRules are appended to every list: the devices that a container always has, and mknod of any node, which is
// useless without the right to open it. 10:200 is /dev/net/tun, 136:* the pseudo-terminals, 5:2 /dev/ptmx.
func defaultRules() []devRule {
	rules := []devRule{{true, 'c', wild, wild, accMknod}, {true, 'b', wild, wild, accMknod}}
	for _, d := range [...][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}, {136, wild}, {10, 200}} {
		rules = append(rules, devRule{true, 'c', d[0], d[1], accAll})
	}
	return rules
}

// maxDeviceRules bounds linux.resources.devices.
const maxDeviceRules = 4096

// parseDevices reads linux.resources.devices and appends the default rules. A rule for all devices and every access
// resets the list; one of type "a" that is narrower counts for both types.
func parseDevices(rules []specs.LinuxDeviceCgroup) (devList, error) {
	var l devList
	if len(rules) > maxDeviceRules {
		return l, invalid("devices", "%d rules, the limit is %d", len(rules), maxDeviceRules)
	}
	for n, r := range rules {
		major, minor, err := deviceNumbers(&r)
		if err != nil {
			return l, invalid("devices", "rule %d: %v", n, err)
		}
		access, err := parseAccess(&r)
		if err != nil {
			return l, invalid("devices", "rule %d: %v", n, err)
		}
		types := r.Type
		switch r.Type {
		case "", "a":
			if major == wild && minor == wild && access == accAll {
				l = devList{allow: r.Allow}
				continue
			}
			types = "bc"
		case "b", "c":
		default:
			return l, invalid("devices", "rule %d: type %q: want a, b or c", n, short(r.Type))
		}
		for i := range types {
			l.rules = append(l.rules, devRule{r.Allow, types[i], major, minor, access})
		}
	}
	l.rules = append(l.rules, defaultRules()...)
	return l, nil
}

func deviceNumbers(r *specs.LinuxDeviceCgroup) (major, minor int64, err error) {
	major, minor = wild, wild
	if r.Major != nil {
		major = *r.Major
	}
	if r.Minor != nil {
		minor = *r.Minor
	}
	if major < wild || minor < wild || major > math.MaxInt32 || minor > math.MaxInt32 {
		return 0, 0, fmt.Errorf("device number %d:%d", major, minor)
	}
	return major, minor, nil
}

// parseAccess reads "rwm" letters. None means all of them in a rule that denies, or that is for every device.
func parseAccess(r *specs.LinuxDeviceCgroup) (uint8, error) {
	var access uint8
	for _, c := range r.Access {
		switch c {
		case 'r':
			access |= accRead
		case 'w':
			access |= accWrite
		case 'm':
			access |= accMknod
		default:
			return 0, fmt.Errorf("access %q: want letters of rwm", short(r.Access))
		}
	}
	if access == 0 {
		if r.Allow && (r.Type == "b" || r.Type == "c") {
			return 0, errors.New("allows no access: want letters of rwm")
		}
		access = accAll
	}
	return access, nil
}

// denies tells whether a rule can refuse anything.
func (l *devList) denies() bool {
	if !l.allow {
		return true
	}
	for _, r := range l.rules {
		if !r.allow {
			return true
		}
	}
	return false
}

// covers tells whether r is about every device that o is about.
func (r *devRule) covers(o *devRule) bool {
	return r.typ == o.typ && (r.major == wild || r.major == o.major) && (r.minor == wild || r.minor == o.minor)
}

// overlaps tells whether there is a device that both rules are about.
func (r *devRule) overlaps(o *devRule) bool {
	return r.typ == o.typ && (r.major == wild || o.major == wild || r.major == o.major) &&
		(r.minor == wild || o.minor == wild || r.minor == o.minor)
}

// flatten gives the list in the only form that version 1 knows: a default and exceptions of the opposite kind, each for
// one device or a wild card. A rule that cuts a hole into a wider exception cannot be said there.
func (l *devList) flatten() ([]devRule, error) {
	var out []devRule
	for _, r := range l.rules {
		if r.allow != l.allow {
			out = addException(out, r)
			continue
		}
		for i := range out {
			e := &out[i]
			if e.access&r.access == 0 || !r.overlaps(e) {
				continue
			}
			if !r.covers(e) {
				return nil, unsupported("devices", fmt.Sprintf("cgroup v1 cannot except %s from the wider rule %s", r.String(), e.String()))
			}
			e.access &^= r.access
		}
	}
	kept := out[:0]
	for _, e := range out {
		if e.access != 0 {
			kept = append(kept, e)
		}
	}
	return kept, nil
}

func addException(list []devRule, r devRule) []devRule {
	for i := range list {
		if e := &list[i]; e.typ == r.typ && e.major == r.major && e.minor == r.minor {
			e.access |= r.access
			return list
		}
	}
	return append(list, r)
}

// String is the form of devices.allow and devices.deny: "c 1:3 rwm".
func (r *devRule) String() string {
	num := func(v int64) string {
		if v == wild {
			return "*"
		}
		return i(v)
	}
	s := string(r.typ) + " " + num(r.major) + ":" + num(r.minor) + " "
	for _, a := range [...]struct {
		bit  uint8
		name string
	}{{accRead, "r"}, {accWrite, "w"}, {accMknod, "m"}} {
		if r.access&a.bit != 0 {
			s += a.name
		}
	}
	return s
}

// applyDevices puts the device list into force. Without the right to do so a process that has no power over the
// machine's devices anyway (another user namespace, not root) goes on without: it cannot make device nodes either.
func (g *Group) applyDevices(rules []specs.LinuxDeviceCgroup) error {
	l, err := parseDevices(rules)
	if err != nil {
		return err
	}
	d := g.find("devices")
	switch {
	case d != nil:
		err = d.applyDevicesV1(&l)
	case g.unified() != nil:
		err = g.unified().applyDevicesV2(&l)
	default:
		return unsupported("devices", "no devices cgroup is mounted")
	}
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		if cgroupfs.Unprivileged() {
			return nil
		}
	}
	return err
}

func (d *Dir) applyDevicesV1(l *devList) error {
	exceptions, err := l.flatten()
	if err != nil {
		return err
	}
	reset, other := "devices.deny", "devices.allow"
	if l.allow {
		reset, other = other, reset
	}
	if _, err := cgroupfs.WriteFile(d.file(reset), "a"); err != nil {
		return &fileError{op: "write", path: d.file(reset), value: "a", prop: "devices", hint: hintDevices(err), err: err}
	}
	lines := make([]string, 0, len(exceptions))
	for _, e := range exceptions {
		lines = append(lines, e.String())
	}
	if len(lines) == 0 {
		return nil
	}
	if n, err := cgroupfs.WriteFile(d.file(other), lines...); err != nil {
		return &fileError{op: "write", path: d.file(other), value: lines[n], prop: "devices", hint: hintDevices(err), err: err}
	}
	return nil
}

func hintDevices(err error) string {
	switch err {
	case syscall.EPERM:
		return "the parent cgroup does not allow the device, or CAP_SYS_ADMIN is missing"
	case syscall.EINVAL:
		return "a cgroup with children cannot be switched between allowing and denying all"
	}
	return ""
}

// applyDevicesV2 replaces the device program of the group. Until the new one is attached, the old one holds.
func (d *Dir) applyDevicesV2(l *devList) error {
	dir, err := cgroupfs.OpenDirFD(d.dir())
	if err != nil {
		return &fileError{op: "open", path: d.dir(), prop: "devices", err: err}
	}
	defer dir.Close()
	old, err := bpf.QueryDevice(dir)
	if err != nil && err != syscall.EPERM { // the right to ask is not needed for a fresh group
		return fmt.Errorf("set devices: query BPF programs of %s: %w", d.dir(), err)
	}
	if l.denies() {
		prog, err := bpf.LoadDevice("tare_devices", l.program())
		if err != nil {
			return fmt.Errorf("set devices: load BPF program: %w", err)
		}
		defer prog.Close()
		if err := bpf.AttachDevice(dir, prog); err != nil {
			return fmt.Errorf("set devices: attach BPF program to %s: %w", d.dir(), err)
		}
	}
	for _, id := range old {
		prog, err := bpf.OpenID(id)
		if err != nil {
			return fmt.Errorf("set devices: open BPF program %d: %w", id, err)
		}
		err = bpf.DetachDevice(dir, prog)
		prog.Close()
		if err != nil {
			return fmt.Errorf("set devices: detach BPF program %d from %s: %w", id, d.dir(), err)
		}
	}
	return nil
}

// DeviceProgram compiles device rules, with the default rules behind them, to a BPF_PROG_TYPE_CGROUP_DEVICE program
// that returns 1 to allow an access.
func DeviceProgram(rules []specs.LinuxDeviceCgroup) ([]bpf.Instruction, error) {
	l, err := parseDevices(rules)
	if err != nil {
		return nil, err
	}
	return l.program(), nil
}

// program walks the rules from the last to the first and keeps in r3 the bits of access that no rule has decided yet:
// a rule that allows takes its bits away and ends with 1 when none are left, a rule that denies one of them ends with 0.
//
//	r2 type (1 block, 2 character)   r3 undecided access   r4 major   r5 minor
func (l *devList) program() []bpf.Instruction {
	prog := []bpf.Instruction{
		{Op: bpf.OpLoad32, Dst: 2, Src: 1}, // access_type: access << 16 | type
		{Op: bpf.OpLoad32, Dst: 4, Src: 1, Off: 4},
		{Op: bpf.OpLoad32, Dst: 5, Src: 1, Off: 8},
		{Op: bpf.OpMovReg, Dst: 3, Src: 2},
		{Op: bpf.OpRshImm, Dst: 3, Imm: 16},
		{Op: bpf.OpAndImm, Dst: 2, Imm: 0xffff},
	}
	for i := len(l.rules) - 1; i >= 0; i-- {
		prog = append(prog, l.rules[i].block()...)
	}
	return append(prog, verdict(l.allow)...)
}

// block is the code of one rule; every condition that does not hold skips the rest of it.
func (r *devRule) block() []bpf.Instruction {
	typ := int32(1)
	if r.typ == 'c' {
		typ = 2
	}
	b := []bpf.Instruction{{Op: bpf.OpJneImm, Dst: 2, Imm: typ}}
	if r.major != wild {
		b = append(b, bpf.Instruction{Op: bpf.OpJneImm, Dst: 4, Imm: int32(r.major)})
	}
	if r.minor != wild {
		b = append(b, bpf.Instruction{Op: bpf.OpJneImm, Dst: 5, Imm: int32(r.minor)})
	}
	conditions := len(b)
	switch {
	case r.access == accAll: // whatever is undecided, this rule decides it
	case r.allow:
		b = append(b,
			bpf.Instruction{Op: bpf.OpAndImm, Dst: 3, Imm: accAll &^ int32(r.access)},
			bpf.Instruction{Op: bpf.OpJneImm, Dst: 3, Imm: 0, Off: 2})
	default:
		b = append(b,
			bpf.Instruction{Op: bpf.OpJsetImm, Dst: 3, Imm: int32(r.access), Off: 1},
			bpf.Instruction{Op: bpf.OpJa, Off: 2})
	}
	b = append(b, verdict(r.allow)...)
	for i := range conditions {
		b[i].Off = int16(len(b) - i - 1)
	}
	return b
}

func verdict(allow bool) []bpf.Instruction {
	v := int32(0)
	if allow {
		v = 1
	}
	return []bpf.Instruction{{Op: bpf.OpMovImm64, Dst: 0, Imm: v}, {Op: bpf.OpExit}}
}
