package engine

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Limits of a container's resources. The zero value has none.
type Limits struct {
	Memory     int64 // bytes; 0: no limit
	MemorySwap int64 // bytes of memory and swap together; 0: twice Memory; -1: no limit
	CPUQuota   int64 // microseconds per 100 ms; 0: no limit
	Pids       int64 // processes and threads; 0 or -1: no limit
}

// apply puts the limits into the description that the runtime gets.
func (l Limits) apply(s *specs.Spec) error {
	r := s.Linux.Resources
	if r == nil {
		r = &specs.LinuxResources{}
		s.Linux.Resources = r
	}
	if l.Memory != 0 || l.MemorySwap != 0 {
		mem, err := l.memory()
		if err != nil {
			return err
		}
		r.Memory = mem
	}
	if l.CPUQuota != 0 {
		period := uint64(cpuPeriod)
		r.CPU = &specs.LinuxCPU{Quota: &l.CPUQuota, Period: &period}
	}
	if l.Pids > 0 {
		r.Pids = &specs.LinuxPids{Limit: &l.Pids}
	}
	return nil
}

func (l Limits) memory() (*specs.LinuxMemory, error) {
	switch {
	case l.Memory < 0 || l.MemorySwap < -1:
		return nil, errors.New("a memory limit is not negative (--memory-swap -1: no limit)")
	case l.Memory == 0 && l.MemorySwap > 0:
		return nil, errors.New("a limit of memory and swap together (--memory-swap) needs one of memory (--memory)")
	case l.MemorySwap > 0 && l.MemorySwap < l.Memory:
		return nil, fmt.Errorf("memory and swap together (%d) are less than memory (%d)", l.MemorySwap, l.Memory)
	case l.Memory == 0:
		return nil, nil //nolint:nilnil // nothing to limit
	}
	mem := &specs.LinuxMemory{Limit: &l.Memory}
	switch {
	case swapAccounted():
		swap := l.MemorySwap
		if swap == 0 {
			swap = 2 * l.Memory
		}
		mem.Swap = &swap
	case l.MemorySwap > 0:
		return nil, errors.New("limit memory and swap together: the kernel does not count swap (boot with swapaccount=1)")
	}
	return mem, nil
}

// swapAccounted reports whether the kernel limits swap per cgroup: always on v2 unless it is turned off, on v1 only if
// asked for.
func swapAccounted() bool {
	for _, pattern := range []string{"/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "/sys/fs/cgroup/memory.swap.max", "/sys/fs/cgroup/*/memory.swap.max"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}
