package main

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/runtime/lifecycle"
	"github.com/tare-oci/tare/runtime/spec"
)

func updateCommand(s *flags.Set) action {
	var file string
	var res specs.LinuxResources
	s.String(&file, "resources,r", "FILE|-", "JSON of the specification's linux.resources; other limits on the line are ignored")
	limits := updateFlags(s, &res)
	var class specs.LinuxIntelRdt
	s.String(&class.L3CacheSchema, "l3-cache-schema", "SCHEMA", "cache of the container's class of service, such as L3:0=f;1=f0")
	s.String(&class.MemBwSchema, "mem-bw-schema", "SCHEMA", "memory bandwidth of the container's class of service, such as MB:0=20;1=70")
	var kernel string // the kernel has no such limits any more
	s.String(&kernel, "kernel-memory", "SIZE", "")
	s.String(&kernel, "kernel-memory-tcp", "SIZE", "")
	return func(e *env) (int, error) {
		if kernel != "" {
			e.runtime.Warn("kernel memory limits are ignored: Linux has none since 5.16")
		}
		if _, err := e.runtime.State(e.args[0]); err != nil { // a container that is not there is told before a wrong value
			return 0, err
		}
		limits, err := limits.resources(e, file)
		if err != nil {
			return 0, err
		}
		if class.L3CacheSchema == "" && class.MemBwSchema == "" {
			return 0, e.runtime.Update(e, e.args[0], limits, nil)
		}
		if file == "" && reflect.ValueOf(res).IsZero() {
			limits = nil // a container without a cgroup has a class of service all the same
		}
		return 0, e.runtime.Update(e, e.args[0], limits, &class)
	}
}

// limitFlag is a limit on the command line. It is read when the container is known to exist: what is wrong with it is
// told in one line.
type limitFlag struct {
	name, text string
	set        func(string) error
}

// limitFlags are those that change res.
type limitFlags struct {
	res  *specs.LinuxResources
	list []*limitFlag
}

// resources are the limits of a file, or else those of the flags.
func (l *limitFlags) resources(e *env, file string) (*specs.LinuxResources, error) {
	if file != "" {
		return readResources(e, file)
	}
	for _, f := range l.list {
		if f.text == "" {
			continue
		}
		if err := f.set(f.text); err != nil {
			return nil, fmt.Errorf("invalid value for %s: %w", f.name, err)
		}
	}
	return l.res, nil
}

// updateFlags defines a flag for each limit.
func updateFlags(s *flags.Set, res *specs.LinuxResources) *limitFlags {
	l := &limitFlags{res: res}
	define := func(set func(string) error, name, value, usage string) {
		f := &limitFlag{name: name, set: set}
		l.list = append(l.list, f)
		s.String(&f.text, name, value, usage)
	}
	memory := func() *specs.LinuxMemory { return get(&res.Memory) }
	cpu := func() *specs.LinuxCPU { return get(&res.CPU) }
	size := func(set func(int64)) func(string) error {
		return func(v string) error {
			n, err := lifecycle.ParseSize(v)
			if err == nil {
				set(n)
			}
			return err
		}
	}
	define(size(func(n int64) { memory().Limit = &n }), "memory", "SIZE", "memory; -1: no limit")
	define(size(func(n int64) { memory().Reservation = &n }), "memory-reservation", "SIZE", "memory that is kept when it runs short")
	define(size(func(n int64) { memory().Swap = &n }), "memory-swap", "SIZE", "memory and swap together; -1: no limit")
	define(unsigned(64, func(n uint64) { cpu().Shares = &n }), "cpu-share", "N", "weight against other containers")
	define(unsigned(64, func(n uint64) { cpu().Period = &n }), "cpu-period", "USEC", "period of the quota")
	define(signed(func(n int64) { cpu().Quota = &n }), "cpu-quota", "USEC", "processor time in a period; -1: no limit")
	define(unsigned(64, func(n uint64) { cpu().Burst = &n }), "cpu-burst", "USEC", "unused quota that may be saved")
	define(unsigned(64, func(n uint64) { cpu().RealtimePeriod = &n }), "cpu-rt-period", "USEC", "period of the realtime runtime")
	define(signed(func(n int64) { cpu().RealtimeRuntime = &n }), "cpu-rt-runtime", "USEC", "realtime processor time in a period")
	define(signed(func(n int64) { cpu().Idle = &n }), "cpu-idle", "0|1", "run only when nothing else wants to")
	define(func(v string) error { cpu().Cpus = v; return nil }, "cpuset-cpus", "LIST", "processors, such as 0-3,7")
	define(func(v string) error { cpu().Mems = v; return nil }, "cpuset-mems", "LIST", "memory nodes")
	define(unsigned(16, func(n uint64) { w := uint16(n); get(&res.BlockIO).Weight = &w }), "blkio-weight", "N", "weight of input and output, 10 to 1000")
	define(signed(func(n int64) { get(&res.Pids).Limit = &n }), "pids-limit", "N", "number of processes; -1: no limit")
	return l
}

// get returns what *p points to, a new zero value if it is nil.
func get[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

func unsigned(bits int, set func(uint64)) func(string) error {
	return func(v string) error {
		n, err := strconv.ParseUint(v, 10, bits)
		if err != nil {
			return err
		}
		set(n)
		return nil
	}
}

func signed(set func(int64)) func(string) error {
	return func(v string) error {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return err
		}
		set(n)
		return nil
	}
}

// maxResources is more than any resources document has bytes.
const maxResources = 1 << 20

func readResources(e *env, file string) (*specs.LinuxResources, error) {
	f := e.stdin
	if file != "-" {
		var err error
		if f, err = os.Open(file); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	data, err := io.ReadAll(io.LimitReader(f, maxResources+1))
	if err != nil {
		return nil, fmt.Errorf("read resources: %w", err)
	}
	if len(data) > maxResources {
		return nil, fmt.Errorf("read resources: larger than %d bytes", maxResources)
	}
	res, warnings, err := spec.ParseResources(data)
	for _, w := range warnings {
		e.runtime.Warn(w)
	}
	if err != nil {
		return nil, fmt.Errorf("read resources: %w", err)
	}
	return res, nil
}
