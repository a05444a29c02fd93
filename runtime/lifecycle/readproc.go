package lifecycle

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
)

// readProc reads a file of /proc/PID.
func readProc(pid int, file string) (string, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + file)
	return string(data), err
}

// readNamespaces reads the names of a process's namespaces. One that the kernel does not have is empty.
func readNamespaces(pid string) (map[string]string, error) {
	names := map[string]string{}
	for _, file := range namespaceFiles {
		name, err := os.Readlink("/proc/" + pid + "/ns/" + file)
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		names[file] = name
	}
	return names, nil
}

func readOOMScore(pid int) (int, error) {
	text, err := readProc(pid, "oom_score_adj")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(text))
}

// parentOf is the number of a process's parent, 0 when it is not known.
func parentOf(pid int) int {
	text, err := readProc(pid, "status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, "PPid:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(v))
			return n
		}
	}
	return 0
}

// sameCgroups compares two /proc/PID/cgroup: in every hierarchy got must be in the group of want, or below it.
func sameCgroups(got, want string) error {
	groups := map[string]string{}
	for line := range strings.Lines(want) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 {
			groups[f[0]+":"+f[1]] = f[2]
		}
	}
	n := 0
	for line := range strings.Lines(got) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			return fmt.Errorf("invalid line %q in its cgroups", line)
		}
		group, ok := groups[f[0]+":"+f[1]]
		if !ok || f[2] != group && !strings.HasPrefix(f[2], strings.TrimSuffix(group, "/")+"/") {
			return fmt.Errorf("cgroup is %q, not %q or below it", f[2], group)
		}
		n++
	}
	if n != len(groups) {
		return fmt.Errorf("it is in %d cgroups, not in %d", n, len(groups))
	}
	return nil
}

// status is what /proc/PID/task/TID/status says of a thread's credentials.
type status struct {
	uids, gids                                           []uint32 // real, effective, saved, of the file system
	groups                                               []uint32
	inheritable, permitted, effective, bounding, ambient uint64
	noNewPrivs                                           bool
	seccomp                                              int
}

// parseStatus reads a status file. All that is compared must be in it.
func parseStatus(text string) (*status, error) {
	s, found := &status{}, 0
	var bad error
	ids := func(v string) (list []uint32) {
		for _, f := range strings.Fields(v) {
			n, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				bad = err
			}
			list = append(list, uint32(n))
		}
		return list
	}
	set := func(v string) uint64 {
		n, err := strconv.ParseUint(v, 16, 64)
		if err != nil {
			bad = err
		}
		return n
	}
	for line := range strings.Lines(text) {
		key, v, _ := strings.Cut(line, ":")
		v = strings.TrimSpace(v)
		found++
		switch key {
		case "Uid":
			s.uids = ids(v)
		case "Gid":
			s.gids = ids(v)
		case "Groups":
			s.groups = ids(v)
		case "CapInh":
			s.inheritable = set(v)
		case "CapPrm":
			s.permitted = set(v)
		case "CapEff":
			s.effective = set(v)
		case "CapBnd":
			s.bounding = set(v)
		case "CapAmb":
			s.ambient = set(v)
		case "NoNewPrivs":
			s.noNewPrivs = v == "1"
		case "Seccomp":
			s.seccomp, bad = atoi(v, bad)
		default:
			found--
		}
	}
	if bad != nil {
		return nil, fmt.Errorf("decode status: %w", bad)
	}
	if found != 10 || len(s.uids) != 4 || len(s.gids) != 4 {
		return nil, fmt.Errorf("decode status: %d of 10 lines are there", found)
	}
	return s, nil
}

func atoi(v string, before error) (int, error) {
	n, err := strconv.Atoi(v)
	if before != nil {
		err = before
	}
	return n, err
}

// hardLimit finds a hard limit in the text of /proc/PID/limits.
func hardLimit(text, kind string) (uint64, bool) {
	name := limitName(kind)
	if name == "" {
		return 0, false
	}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if f := strings.Fields(rest); ok && len(f) >= 2 {
			if f[1] == "unlimited" {
				return math.MaxUint64, true
			}
			n, err := strconv.ParseUint(f[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// limitName is the name of a limit in /proc/PID/limits.
func limitName(kind string) string {
	switch kind {
	case "RLIMIT_CPU":
		return "Max cpu time "
	case "RLIMIT_FSIZE":
		return "Max file size "
	case "RLIMIT_DATA":
		return "Max data size "
	case "RLIMIT_STACK":
		return "Max stack size "
	case "RLIMIT_CORE":
		return "Max core file size "
	case "RLIMIT_RSS":
		return "Max resident set "
	case "RLIMIT_NPROC":
		return "Max processes "
	case "RLIMIT_NOFILE":
		return "Max open files "
	case "RLIMIT_MEMLOCK":
		return "Max locked memory "
	case "RLIMIT_AS":
		return "Max address space "
	case "RLIMIT_LOCKS":
		return "Max file locks "
	case "RLIMIT_SIGPENDING":
		return "Max pending signals "
	case "RLIMIT_MSGQUEUE":
		return "Max msgqueue size "
	case "RLIMIT_NICE":
		return "Max nice priority "
	case "RLIMIT_RTPRIO":
		return "Max realtime priority "
	case "RLIMIT_RTTIME":
		return "Max realtime timeout "
	}
	return ""
}
