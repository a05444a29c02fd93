package cgroup

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// maxControlFile bounds what is read from one control file (a list of 8192 cpus is 40 kB, of all pids some MB).
const maxControlFile = 64 << 20

// Apply is ApplyDevices and ApplyLimits.
func (g *Group) Apply(res *specs.LinuxResources) error {
	if err := g.ApplyDevices(res); err != nil {
		return err
	}
	return g.ApplyLimits(res)
}

// ApplyDevices writes the device rules; the group must have been made. A process that makes device nodes must join after that:
// version 1 takes a list one rule at a time, after everything was denied.
func (g *Group) ApplyDevices(res *specs.LinuxResources) error {
	if res == nil {
		return g.applyDevices(nil)
	}
	return g.applyDevices(res.Devices)
}

// ApplyLimits writes the limits; the group must have been made. It works before and after a process has joined. What the kernel
// took is read back, so that a limit that it changed silently is an error.
func (g *Group) ApplyLimits(res *specs.LinuxResources) error {
	settings, err := g.compile(res)
	if err != nil {
		return err
	}
	w := &writer{g: g}
	return w.writeAll(settings)
}

// Update changes the limits of a running container: what res leaves unset keeps its value, device rules are not
// touched. All or nothing: when a value is refused, those written before get their old value back. With
// memory.checkBeforeUpdate a limit below the present usage is refused.
func (g *Group) Update(res *specs.LinuxResources) error { return g.UpdateWith(res, nil) }

// UpdateWith is Update, with something that is done in between: then is called with all values written, its error undoes them, and
// afterwards they are written again, since it may have changed them.
func (g *Group) UpdateWith(res *specs.LinuxResources, then func() error) error {
	settings, err := g.compile(res)
	if err != nil {
		return err
	}
	if err := g.checkUsage(res); err != nil {
		return err
	}
	w := &writer{g: g, journal: []undo{}}
	err = w.writeAll(slices.Clone(settings))
	if err == nil && then != nil {
		if err = then(); err == nil {
			err = w.writeAll(settings)
		}
	}
	if err != nil {
		if back := w.rollback(); back != nil {
			return fmt.Errorf("%w (and going back: %v)", err, back)
		}
		return err
	}
	return nil
}

// undo is a value from before an update.
type undo struct{ file, value string }

// writer writes settings in an order that the kernel takes. A nil journal keeps no old values.
type writer struct {
	g       *Group
	journal []undo
}

func (w *writer) writeAll(settings []setting) error {
	var memory, bandwidth []setting
	rest := settings[:0:0]
	for _, s := range settings {
		switch s.prop {
		case "memory.limit", "memory.swap":
			memory = append(memory, s)
		case "cpu.quota", "cpu.period", "cpu.burst", "cpu.realtimeRuntime", "cpu.realtimePeriod":
			bandwidth = append(bandwidth, s)
		default:
			rest = append(rest, s)
		}
	}
	if err := w.writeMemory(memory); err != nil {
		return err
	}
	if err := w.writeBandwidth(bandwidth); err != nil {
		return err
	}
	for _, s := range rest {
		if err := w.write(s); err != nil {
			return err
		}
	}
	return nil
}

// dirOf is the directory that a compiled setting goes to; compile made sure that there is one.
func (g *Group) dirOf(s *setting) *Dir {
	if s.controller == "" {
		return g.unified()
	}
	return g.find(s.controller)
}

// write puts one setting into its file, or its alternative, and reads it back.
func (w *writer) write(s setting) error {
	d := w.g.dirOf(&s)
	file := d.file(s.file)
	err := w.put(file, s.value)
	if err == syscall.ENOENT && s.alt != "" {
		if s.altValue != "" {
			s.value = s.altValue
		}
		file = d.file(s.alt)
		err = w.put(file, s.value)
	}
	if err == syscall.ENOENT && s.optional {
		return nil
	}
	if err != nil {
		return &fileError{op: "write", path: file, value: s.value, prop: s.prop, hint: hintWrite(&s, err), err: err}
	}
	return verify(file, &s)
}

// put writes a value, a line at a time as cgroupfs takes it, and remembers what was there.
func (w *writer) put(file, value string) error {
	var old undo
	if w.journal != nil {
		if b, err := cgroupfs.ReadFile(file, maxControlFile); err == nil {
			old = undo{file, oldValue(file, string(b), value)}
		}
	}
	lines := strings.Split(strings.TrimSuffix(value, "\n"), "\n")
	n, err := cgroupfs.WriteFile(file, lines...)
	if old.file != "" && (err == nil || n > 0) {
		w.journal = append(w.journal, old)
	}
	return err
}

// rollback writes the old values back, the last first.
func (w *writer) rollback() error {
	for _, u := range slices.Backward(w.journal) {
		if _, err := cgroupfs.WriteFile(u.file, u.value); err != nil {
			return &fileError{op: "write", path: u.file, value: u.value, err: err}
		}
	}
	return nil
}

// oldValue gives what must be written to undo the writing of value, from the file's content before. Files with a line
// per device give the device's line, or the value that takes its entry away.
func oldValue(file, content, value string) string {
	content = strings.TrimSuffix(content, "\n")
	name := file[strings.LastIndexByte(file, '/')+1:]
	if name == "memory.oom_control" { // "oom_kill_disable 0", and more lines that only tell
		first, _, _ := strings.Cut(content, "\n")
		return strings.TrimPrefix(first, "oom_kill_disable ")
	}
	key, _, keyed := strings.Cut(value, " ")
	if keyed && name != "cpu.max" {
		for line := range strings.SplitSeq(content, "\n") {
			if strings.HasPrefix(line, key+" ") {
				return line
			}
		}
		switch {
		case name == "io.max":
			return key + " rbps=max wbps=max riops=max wiops=max"
		case strings.HasPrefix(name, "io."):
			return key + " default"
		case name == "rdma.max":
			return key + " hca_handle=max hca_object=max"
		}
		return key + " 0"
	}
	if content == "" {
		return "\n" // an empty cpuset list; a write of no bytes does not reach the kernel
	}
	first, _, _ := strings.Cut(content, "\n")
	return first
}

// writeMemory writes limit and swap in the order that is valid on the way.
func (w *writer) writeMemory(s []setting) error {
	if len(s) == 0 {
		return nil
	}
	if d := w.g.dirOf(&s[0]); d.Unified {
		return w.writeMemoryV2(d, s)
	} else if len(s) == 2 { // limit <= memsw holds at every moment: when the limit rises above memsw, memsw goes first
		memsw, err := d.readBytes("memory.memsw.limit_in_bytes")
		if err == nil && bytesOf(s[0].value) > memsw {
			s[0], s[1] = s[1], s[0]
		}
	}
	for _, one := range s {
		if err := w.write(one); err != nil {
			return err
		}
	}
	return nil
}

// writeMemoryV2 turns the sum of memory and swap into memory.swap.max, which counts swap alone. A new limit without a
// new sum keeps the sum, as version 1 does.
func (w *writer) writeMemoryV2(d *Dir, s []setting) error {
	limit, total, optional := int64(0), int64(0), false
	for i := range s {
		if s[i].prop == "memory.limit" {
			limit = bytesOf(s[i].value)
		} else {
			total, optional = bytesOf(s[i].value), s[i].optional
		}
	}
	oldLimit, err := d.readBytes("memory.max")
	if err != nil {
		return err
	}
	if limit == 0 {
		if limit = oldLimit; limit == math.MaxInt64 && total != math.MaxInt64 {
			return invalid("memory.swap", "memory and swap together need a memory limit")
		}
	}
	if total == 0 {
		oldSwap, err := d.readBytes("memory.swap.max")
		if err != nil || oldSwap == math.MaxInt64 || oldLimit == math.MaxInt64 {
			return w.write(s[0]) // swap is not limited: nothing to keep
		}
		total = oldLimit + oldSwap
	}
	if total < limit {
		return invalid("memory.swap", "%d is memory and swap together: memory+swap limit should be >= memory limit (%d)", total, limit)
	}
	swap := setting{prop: "memory.swap", controller: "memory", file: "memory.swap.max", value: "max", check: checkBytes}
	if total != math.MaxInt64 {
		swap.value = i(total - limit)
	}
	swap.optional = optional || swap.value == "max" || swap.value == "0" // a kernel without swap is as good
	if err := w.write(swap); err != nil {
		return err
	}
	for _, one := range s {
		if one.prop == "memory.limit" {
			return w.write(one)
		}
	}
	return nil
}

// writeBandwidth writes settings that bound each other (burst <= quota, quota/period <= the parent's), so the valid
// order depends on the present values: each refused one is tried again after another has been taken.
func (w *writer) writeBandwidth(pending []setting) error {
	for len(pending) > 0 {
		var refused []setting
		var first error
		for _, s := range pending {
			err := w.write(w.completeCPUMax(s))
			if err == nil {
				continue
			}
			refused = append(refused, s)
			if first == nil {
				first = err
			}
		}
		if len(refused) == len(pending) {
			return first
		}
		pending = refused
	}
	return nil
}

// completeCPUMax fills the half of cpu.max that is not to change.
func (w *writer) completeCPUMax(s setting) setting {
	if s.file != "cpu.max" {
		return s
	}
	quota, period, _ := strings.Cut(s.value, " ")
	b, err := cgroupfs.ReadFile(w.g.dirOf(&s).file("cpu.max"), 256)
	if f := strings.Fields(string(b)); err == nil && len(f) == 2 {
		quota, period = or(quota, f[0]), or(period, f[1])
	}
	s.value = or(quota, "max") + " " + or(period, "100000")
	return s
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// readBytes reads a size; "max" and version 1's largest count of pages are math.MaxInt64.
func (d *Dir) readBytes(name string) (int64, error) {
	b, err := cgroupfs.ReadFile(d.file(name), 256)
	if err != nil {
		return 0, &fileError{op: "read", path: d.file(name), err: err}
	}
	return bytesOf(strings.TrimSpace(string(b))), nil
}

func bytesOf(s string) int64 {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < 0 || v >= math.MaxInt64-1<<17 { // PAGE_COUNTER_MAX is LONG_MAX rounded down to pages
		return math.MaxInt64
	}
	return v
}

// verify compares a file with the value that was written.
func verify(file string, s *setting) error {
	if s.check == checkNone {
		return nil
	}
	b, err := cgroupfs.ReadFile(file, 4096)
	if err != nil {
		return &fileError{op: "read", path: file, prop: s.prop, err: err}
	}
	got := strings.TrimSpace(string(b))
	same := got == s.value
	if s.check == checkBytes {
		g, w := bytesOf(got), bytesOf(s.value)
		same = g == w || g < w && w-g < 64<<10 || g == math.MaxInt64 && w > math.MaxInt64-1<<20
	}
	if name, v, ok := strings.Cut(got, " "); ok && name == "default" { // io.weight
		same = same || v == s.value
	}
	if !same {
		return fmt.Errorf("set %s: wrote %q to %s, the kernel made it %q: %w", s.prop, short(s.value), file, short(got), syscall.ERANGE)
	}
	return nil
}

// checkUsage honours memory.checkBeforeUpdate.
func (g *Group) checkUsage(res *specs.LinuxResources) error {
	if res == nil || res.Memory == nil || res.Memory.CheckBeforeUpdate == nil || !*res.Memory.CheckBeforeUpdate {
		return nil
	}
	d := g.find("memory")
	if d == nil {
		return unsupported("memory.checkBeforeUpdate", "cgroup controller memory is not mounted or not in the kernel")
	}
	m := res.Memory
	usage, err := d.readBytes(pick(d.Unified, "memory.current", "memory.usage_in_bytes"))
	if err != nil {
		return err
	}
	if m.Limit != nil && *m.Limit > 0 && usage > *m.Limit {
		return fmt.Errorf("set memory.limit: %d bytes are in use, above the new limit %d: %w", usage, *m.Limit, syscall.EBUSY)
	}
	if m.Swap == nil || *m.Swap <= 0 {
		return nil
	}
	total, err := d.readBytes(pick(d.Unified, "memory.swap.current", "memory.memsw.usage_in_bytes"))
	if err != nil {
		total = 0 // no swap accounting
	}
	if d.Unified || err != nil {
		total += usage
	}
	if total > *m.Swap {
		return fmt.Errorf("set memory.swap: %d bytes of memory and swap are in use, above the new limit %d: %w", total, *m.Swap, syscall.EBUSY)
	}
	return nil
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

// hintWrite gives the usual cause of an error for a setting.
func hintWrite(s *setting, err error) string {
	switch err {
	case syscall.ENOENT:
		switch {
		case strings.HasPrefix(s.prop, "hugepageLimits."):
			return "the kernel has no huge pages of this size"
		case strings.HasPrefix(s.prop, "blockIO.weight"):
			return "weights need the BFQ scheduler (module bfq), or on cgroup v2 iocost"
		case strings.HasPrefix(s.prop, "unified."):
			c, _, _ := strings.Cut(s.file, ".")
			return "controller " + c + " is not enabled in this cgroup, or this kernel has no such file"
		}
		return "this kernel has no such file, or controller " + s.controller + " is not enabled in the parent"
	case syscall.EBUSY:
		switch s.prop {
		case "memory.limit", "memory.swap":
			return "more is in use and could not be reclaimed"
		case "cpu.cpus", "cpu.mems":
			return "a child cgroup or a process still needs what would be taken away"
		}
	case syscall.EINVAL:
		return hintInvalid(s)
	case syscall.ENOSPC:
		return "a cgroup with processes needs at least one cpu and one memory node"
	case syscall.EACCES, syscall.EPERM:
		if s.prop == "cpu.cpus" || s.prop == "cpu.mems" {
			return "the parent cgroup does not have them all, or the file is not writable for this user"
		}
		return "the cgroup is not delegated to this user"
	case syscall.ENODEV:
		return "there is no such device"
	case syscall.ERANGE:
		return "the number is outside of what the kernel takes"
	}
	return ""
}

func hintInvalid(s *setting) string {
	switch s.prop {
	case "memory.limit":
		return "memory.swap, which counts memory and swap together, must be raised as well"
	case "memory.swap":
		return "memory and swap together must be at least the memory limit"
	case "memory.useHierarchy":
		return "this kernel always accounts hierarchically"
	case "cpu.quota", "cpu.period", "cpu.burst":
		return "period is 1000 to 1000000, quota at least 1000, burst at most the quota, and the share at most the parent's"
	case "cpu.realtimeRuntime", "cpu.realtimePeriod":
		return "the parent cgroup has no real-time budget left"
	case "cpu.shares":
		return "a cgroup with cpu.idle=1 takes no shares"
	case "cpu.cpus", "cpu.mems":
		return "no such cpu or memory node"
	}
	return ""
}
