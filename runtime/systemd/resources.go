package systemd

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/internal/dbus"
)

// File is a control file of the scope's cgroup and what it holds.
type File struct{ Name, Content string }

// oldestIdle is the version of systemd from which a CPUWeight of 0 stands for cpu.idle.
const oldestIdle = 252

// Limits turns control files, as this runtime has written them, into the properties by which systemd writes the same: it writes them
// again when it likes, and `systemctl show` tells them. What systemd has no property for stays out. version gives systemd's, when it
// matters.
func Limits(files []File, version func() (int, error)) ([]Property, error) {
	content := map[string]string{}
	for _, f := range files {
		content[f.Name] = strings.TrimSpace(f.Content)
	}
	var out []Property
	for _, f := range files { // in their order
		v, ok := content[f.Name]
		if !ok {
			continue // done already
		}
		delete(content, f.Name)
		properties, err := property(f.Name, v, content, version)
		if err != nil {
			return nil, fmt.Errorf("tell systemd of %s: %w", f.Name, err)
		}
		out = append(out, properties...)
	}
	return out, nil
}

// property converts one file; rest are the other files, of which it takes away those that it has seen to.
func property(name, v string, rest map[string]string, version func() (int, error)) ([]Property, error) {
	switch name {
	case "memory.max":
		return number("MemoryMax", v)
	case "memory.high":
		return number("MemoryHigh", v)
	case "memory.low":
		return number("MemoryLow", v)
	case "memory.min":
		return number("MemoryMin", v)
	case "memory.swap.max":
		return number("MemorySwapMax", v)
	case "memory.limit_in_bytes":
		return number("MemoryLimit", v)
	case "cpu.shares":
		return number("CPUShares", v)
	case "blkio.weight", "blkio.bfq.weight":
		return number("BlockIOWeight", v)
	case "io.weight":
		return number("IOWeight", strings.TrimPrefix(v, "default "))
	case "pids.max":
		if v == "0" { // which systemd does not take; the file has the last word
			v = "1"
		}
		return number("TasksMax", v)
	case "cpu.weight", "cpu.idle":
		return weight(name, v, rest, version)
	case "cpu.max":
		quota, period, _ := strings.Cut(v, " ")
		return bandwidth(quota, period)
	case "cpu.cfs_quota_us", "cpu.cfs_period_us":
		quota, period := v, rest["cpu.cfs_period_us"]
		if name == "cpu.cfs_period_us" {
			quota, period = rest["cpu.cfs_quota_us"], v
		}
		delete(rest, "cpu.cfs_quota_us")
		delete(rest, "cpu.cfs_period_us")
		return bandwidth(quota, period)
	case "cpuset.cpus":
		return mask("AllowedCPUs", v)
	case "cpuset.mems":
		return mask("AllowedMemoryNodes", v)
	}
	return nil, nil
}

// number is a property of type t; "max", and version 1's largest number of bytes, are no limit.
func number(name, v string) ([]Property, error) {
	n := uint64(math.MaxUint64)
	if v != "max" {
		var err error
		if n, err = strconv.ParseUint(v, 10, 64); err != nil {
			return nil, fmt.Errorf("%q is not a number", clip(v))
		}
		if name == "MemoryLimit" && n >= math.MaxInt64-1<<17 {
			n = math.MaxUint64
		}
	}
	return []Property{{name, dbus.Uint64(n)}}, nil
}

// weight covers cpu.weight and cpu.idle, which exclude each other.
func weight(name, v string, rest map[string]string, version func() (int, error)) ([]Property, error) {
	idle, weight := rest["cpu.idle"], v
	if name == "cpu.idle" {
		idle, weight = v, rest["cpu.weight"]
	}
	delete(rest, "cpu.idle")
	delete(rest, "cpu.weight")
	if idle != "1" {
		if weight == "" {
			return nil, nil
		}
		return number("CPUWeight", weight)
	}
	n, err := version()
	if err != nil || n < oldestIdle {
		return nil, err
	}
	return []Property{{"CPUWeight", dbus.Uint64(0)}}, nil
}

// bandwidth is the share of processor time. systemd keeps it in whole percents, so it is rounded up: groups below may have what the
// file says.
func bandwidth(quota, period string) ([]Property, error) {
	const second, percent = 1000000, 10000
	p, err := strconv.ParseUint(period, 10, 32)
	if err != nil || p == 0 {
		return nil, fmt.Errorf("period %q", clip(period))
	}
	share := uint64(math.MaxUint64)
	if quota != "max" && quota != "-1" {
		q, err := strconv.ParseUint(quota, 10, 64)
		if err != nil || q > math.MaxUint64/second {
			return nil, fmt.Errorf("quota %q", clip(quota))
		}
		share = (q*second/p + percent - 1) / percent * percent
	}
	return []Property{{"CPUQuotaPeriodUSec", dbus.Uint64(p)}, {"CPUQuotaPerSecUSec", dbus.Uint64(share)}}, nil
}

// maxBit bounds the numbers of processors and memory nodes.
const maxBit = 1 << 16

// mask turns a list, "0-3,8", into bits, the lowest first. An empty list is no restriction.
func mask(name, v string) ([]Property, error) {
	var bits []byte
	for part := range strings.SplitSeq(v, ",") {
		if part == "" {
			continue
		}
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 32)
		to, err2 := strconv.ParseUint(last, 10, 32)
		if err1 != nil || err2 != nil || from > to || to >= maxBit {
			return nil, fmt.Errorf("%q is not a list of numbers", clip(v))
		}
		for n := from; n <= to; n++ {
			for uint64(len(bits)) <= n/8 {
				bits = append(bits, 0)
			}
			bits[n/8] |= 1 << (n % 8)
		}
	}
	return []Property{{name, dbus.Bytes(bits)}}, nil
}

// Device is a rule that allows access to devices; Major and Minor -1 are all.
type Device struct {
	Type         byte // 'b' or 'c'
	Major, Minor int64
	Access       string // letters of rwm
}

// Devices tells systemd the rules for devices. On cgroup2 it is told to have none: the program that this runtime attaches holds beside
// systemd's, which could only ever take more away. The device cgroup of version 1 has one list, which systemd writes as well, so it gets
// the same: what all rules together allow, or everything if the list allows by default. left are rules that systemd cannot say.
func Devices(v2, allow bool, rules []Device) (out []Property, left []Device) {
	allowed := dbus.Array("(ss)")
	if v2 || allow {
		return []Property{{"DevicePolicy", dbus.String("auto")}, {"DeviceAllow", allowed}}, nil
	}
	for _, r := range rules {
		kind := "char"
		if r.Type == 'b' {
			kind = "block"
		}
		node := fmt.Sprintf("/dev/%s/%d:%d", kind, r.Major, r.Minor)
		switch {
		case r.Major < 0 && r.Minor < 0:
			node = kind + "-*"
		case r.Minor < 0:
			node = fmt.Sprintf("%s-%d", kind, r.Major)
		case r.Major < 0:
			left = append(left, r)
			continue
		}
		allowed.Items = append(allowed.Items, dbus.Struct(dbus.String(node), dbus.String(r.Access)))
	}
	return []Property{{"DevicePolicy", dbus.String("strict")}, {"DeviceAllow", allowed}}, left
}
