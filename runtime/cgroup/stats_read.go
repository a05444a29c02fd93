package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/internal/sys/cgroupfs"
)

// Stats reads what the group has used. A group that is gone is an error, a controller that is missing is not.
func (g *Group) Stats() (*Stats, error) {
	d := g.primary()
	if d == nil {
		return nil, ErrNoCgroups
	}
	if !cgroupfs.IsDir(d.dir()) {
		return nil, &fileError{op: "read", path: d.dir(), err: syscall.ENOENT}
	}
	s := &Stats{Hugetlb: map[string]HugetlbStats{}}
	var r reader
	for _, part := range [...]struct {
		controller string
		read       func(*reader, *Dir, *Stats)
	}{
		{"cpu", readCPU}, {"cpuacct", readCPUAcct}, {"cpuset", readCPUSet}, {"memory", readMemory}, {"pids", readPids},
		{"blkio", readBlkio}, {"io", readIO}, {"hugetlb", readHugetlb}, {"misc", readMisc},
	} {
		if d := g.find(part.controller); d != nil {
			part.read(&r, d, s)
		}
	}
	return s, r.err
}

// reader reads control files and keeps the first error that is not a missing file.
type reader struct{ err error }

func (r *reader) text(d *Dir, name string) string {
	b, err := cgroupfs.ReadFile(d.file(name), maxControlFile)
	switch err {
	case nil, syscall.ENOENT, syscall.EOPNOTSUPP, syscall.ENODEV:
	default:
		if r.err == nil {
			r.err = &fileError{op: "read", path: d.file(name), err: err}
		}
	}
	return string(bytes.TrimSpace(b))
}

// number reads one number; "max" is the largest.
func (r *reader) number(d *Dir, name string) uint64 { return number(r.text(d, name)) }

func number(s string) uint64 {
	if s == "max" {
		return ^uint64(0)
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// keyed reads a file with lines of a name and a number.
func (r *reader) keyed(d *Dir, name string) map[string]uint64 {
	m := map[string]uint64{}
	for line := range strings.Lines(r.text(d, name)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			m[k] = number(v)
		}
	}
	return m
}

func readCPU(r *reader, d *Dir, s *Stats) {
	stat := r.keyed(d, "cpu.stat")
	s.CPU.Throttling = Throttling{stat["nr_periods"], stat["nr_throttled"], stat["throttled_time"] + 1000*stat["throttled_usec"]}
	if d.Unified {
		s.CPU.Usage.Total, s.CPU.Usage.Kernel, s.CPU.Usage.User = 1000*stat["usage_usec"], 1000*stat["system_usec"], 1000*stat["user_usec"]
		s.CPU.PSI = r.psi(d, "cpu.pressure")
	}
}

func readCPUAcct(r *reader, d *Dir, s *Stats) {
	s.CPU.Usage.Total = r.number(d, "cpuacct.usage")
	s.CPU.Usage.Kernel, s.CPU.Usage.User = r.number(d, "cpuacct.usage_sys"), r.number(d, "cpuacct.usage_user")
	for f := range strings.FieldsSeq(r.text(d, "cpuacct.usage_percpu")) { // what usage_all has is counted in whole ticks
		s.CPU.Usage.Percpu = append(s.CPU.Usage.Percpu, number(f))
	}
	for line := range strings.Lines(r.text(d, "cpuacct.usage_all")) { // cpu user system, below a heading
		if f := strings.Fields(line); len(f) == 3 && f[0] != "cpu" {
			user, kernel := number(f[1]), number(f[2])
			s.CPU.Usage.PercpuUser = append(s.CPU.Usage.PercpuUser, user)
			s.CPU.Usage.PercpuKernel = append(s.CPU.Usage.PercpuKernel, kernel)
		}
	}
}

func readCPUSet(r *reader, d *Dir, s *Stats) {
	s.CPUSet.CPUs = listOf(r.text(d, pick(d.Unified, "cpuset.cpus.effective", "cpuset.effective_cpus")))
	s.CPUSet.Mems = listOf(r.text(d, pick(d.Unified, "cpuset.mems.effective", "cpuset.effective_mems")))
}

// listOf expands "0-3,8".
func listOf(s string) []uint16 {
	var out []uint16
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, ranged := strings.Cut(part, "-")
		if !ranged {
			hi = lo
		}
		a, err := strconv.ParseUint(lo, 10, 16)
		b, err2 := strconv.ParseUint(hi, 10, 16)
		if err != nil || err2 != nil {
			continue
		}
		for ; a <= b; a++ {
			out = append(out, uint16(a))
		}
	}
	return out
}

func readMemory(r *reader, d *Dir, s *Stats) {
	m := &s.Memory
	m.Raw = r.keyed(d, "memory.stat")
	if !d.Unified {
		use := func(prefix string) MemoryUse {
			return MemoryUse{
				Limit: r.number(d, prefix+"limit_in_bytes"), Usage: r.number(d, prefix+"usage_in_bytes"),
				Max: r.number(d, prefix+"max_usage_in_bytes"), Failcnt: r.number(d, prefix+"failcnt"),
			}
		}
		m.Cache = m.Raw["cache"]
		m.Usage, m.Swap, m.Kernel, m.KernelTCP = use("memory."), use("memory.memsw."), use("memory.kmem."), use("memory.kmem.tcp.")
		return
	}
	m.Cache = m.Raw["file"]
	m.Usage = MemoryUse{
		Limit: r.number(d, "memory.max"), Usage: r.number(d, "memory.current"), Max: r.number(d, "memory.peak"),
		Failcnt: r.keyed(d, "memory.events")["max"],
	}
	m.Swap = MemoryUse{Limit: r.number(d, "memory.swap.max"), Usage: r.number(d, "memory.swap.current"), Max: r.number(d, "memory.swap.peak")}
	m.Swap.Usage += m.Usage.Usage
	if m.Swap.Limit != ^uint64(0) { // version 1 counts both together, and so do the readers of this document
		m.Swap.Limit += min(m.Usage.Limit, ^uint64(0)-m.Swap.Limit)
	}
	m.PSI = r.psi(d, "memory.pressure")
}

func readPids(r *reader, d *Dir, s *Stats) {
	s.Pids.Current = r.number(d, "pids.current")
	if v := r.text(d, "pids.max"); v != "max" {
		s.Pids.Limit = number(v)
	}
}

func readBlkio(r *reader, d *Dir, s *Stats) {
	bfq := r.blkio(d, "blkio.bfq.io_serviced_recursive")
	if slices.ContainsFunc(bfq, func(e BlockIOEntry) bool { return e.Value > 0 }) {
		s.BlockIO.ServiceBytes, s.BlockIO.Serviced = r.blkio(d, "blkio.bfq.io_service_bytes_recursive"), bfq
		return
	}
	s.BlockIO.ServiceBytes = r.blkio(d, "blkio.throttle.io_service_bytes_recursive")
	s.BlockIO.Serviced = r.blkio(d, "blkio.throttle.io_serviced_recursive")
}

// blkio reads lines of "8:0 Read 4096"; the grand total has no device.
func (r *reader) blkio(d *Dir, name string) []BlockIOEntry {
	var out []BlockIOEntry
	for line := range strings.Lines(r.text(d, name)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		if major, minor, ok := deviceOf(f[0]); ok {
			out = append(out, BlockIOEntry{major, minor, f[1], number(f[2])})
		}
	}
	return out
}

func deviceOf(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	major, err := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	return major, minor, ok && err == nil && err2 == nil
}

// readIO reads io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func readIO(r *reader, d *Dir, s *Stats) {
	for line := range strings.Lines(r.text(d, "io.stat")) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		major, minor, ok := deviceOf(f[0])
		if !ok {
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			op, list := "", &s.BlockIO.ServiceBytes
			switch k {
			case "rbytes":
				op = "Read"
			case "wbytes":
				op = "Write"
			case "rios":
				op, list = "Read", &s.BlockIO.Serviced
			case "wios":
				op, list = "Write", &s.BlockIO.Serviced
			default:
				continue
			}
			*list = append(*list, BlockIOEntry{major, minor, op, number(v)})
		}
	}
	s.BlockIO.PSI = r.psi(d, "io.pressure")
}

func readHugetlb(r *reader, d *Dir, s *Stats) {
	entries, err := os.ReadDir(d.dir())
	if err != nil {
		return
	}
	suffix := pick(d.Unified, ".current", ".usage_in_bytes")
	for _, e := range entries {
		size, ok := strings.CutPrefix(strings.TrimSuffix(e.Name(), suffix), "hugetlb.")
		if !ok || !strings.HasSuffix(e.Name(), suffix) || strings.Contains(size, ".") {
			continue
		}
		h := HugetlbStats{Usage: r.number(d, e.Name())}
		if d.Unified {
			h.Failcnt = r.keyed(d, "hugetlb."+size+".events")["max"]
		} else {
			h.Max, h.Failcnt = r.number(d, "hugetlb."+size+".max_usage_in_bytes"), r.number(d, "hugetlb."+size+".failcnt")
		}
		s.Hugetlb[size] = h
	}
}

func readMisc(r *reader, d *Dir, s *Stats) {
	for name, v := range r.keyed(d, "misc.current") {
		if s.Misc == nil {
			s.Misc = map[string]MiscStats{}
		}
		s.Misc[name] = MiscStats{Usage: v, Events: r.keyed(d, "misc.events")[name+".max"]}
	}
}

// psi reads a pressure file; nil where the kernel does not keep it.
func (r *reader) psi(d *Dir, name string) *PSI {
	var out PSI
	found := false
	for line := range strings.Lines(r.text(d, name)) {
		var v PSIData
		var kind string
		if n, _ := fmt.Sscanf(line, "%s avg10=%f avg60=%f avg300=%f total=%d", &kind, &v.Avg10, &v.Avg60, &v.Avg300, &v.Total); n != 5 {
			continue
		}
		found = true
		if kind == "some" {
			out.Some = v
		} else {
			out.Full = v
		}
	}
	if !found {
		return nil
	}
	return &out
}
