// Package procfs reads what the runtime needs to know of a process from /proc/PID.
package procfs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// Stat is part of one line of /proc/PID/stat (proc_pid_stat(5)).
type Stat struct {
	State     byte   // field 3: R S D Z T t X …
	StartTime uint64 // field 22: when the process started, in clock ticks after boot
	Forked    bool   // a flag of field 9, PF_FORKNOEXEC: it has executed no program since it was cloned
	Exiting   bool   // a flag of field 9, PF_EXITING: it gives up what it has, its cgroups for example
}

// Flags of the kernel's linux/sched.h.
const (
	exiting    = 0x4  // PF_EXITING
	forkNoExec = 0x40 // PF_FORKNOEXEC
)

// Dead tells whether the process has exited: it is a zombie, or being reaped.
func (s Stat) Dead() bool { return s.State == 'Z' || s.State == 'X' || s.State == 'x' }

// ReadStat reads /proc/PID/stat. ESRCH: there is no such process.
func ReadStat(pid int) (Stat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if os.IsNotExist(err) {
			err = syscall.ESRCH
		}
		return Stat{}, fmt.Errorf("read state of process %d: %w", pid, err)
	}
	s, err := parseStat(data)
	if err != nil {
		return Stat{}, fmt.Errorf("read state of process %d: %w", pid, err)
	}
	return s, nil
}

// parseStat looks for the last parenthesis, because a process names itself and may put anything into its name.
func parseStat(data []byte) (Stat, error) {
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return Stat{}, fmt.Errorf("no name in %q", data)
	}
	f := bytes.Fields(data[i+1:])
	if len(f) < 20 || len(f[0]) != 1 {
		return Stat{}, fmt.Errorf("too few fields in %q", data)
	}
	start, err := strconv.ParseUint(string(f[19]), 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("parse start time: %w", err)
	}
	flags, err := strconv.ParseUint(string(f[6]), 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("parse flags: %w", err)
	}
	return Stat{State: f[0][0], StartTime: start, Forked: flags&forkNoExec != 0, Exiting: flags&exiting != 0}, nil
}

// Running returns what the kernel says of the process that had number pid and started at tick start; false: it has
// ended.
func Running(pid int, start uint64) (Stat, bool) {
	if pid <= 0 {
		return Stat{}, false
	}
	s, err := ReadStat(pid)
	return s, err == nil && !s.Dead() && s.StartTime == start
}
