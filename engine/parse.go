package engine

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// ParseSize reads a number of bytes as docker writes it: a number, perhaps with a fraction, and a unit b, k, m, g or t, in
// either case, which counts in 1024s; "kb" and "kib" mean k.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz")
	unit := strings.ToLower(s)[len(digits):]
	shift := 0
	switch strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i") {
	case "":
	case "k":
		shift = 10
	case "m":
		shift = 20
	case "g":
		shift = 30
	case "t":
		shift = 40
	default:
		return 0, fmt.Errorf("%q is no size: the unit is b, k, m, g or t", s)
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsNaN(n) || n < 0 {
		return 0, fmt.Errorf("%q is no size, such as 64m", s)
	}
	n *= float64(int64(1) << shift)
	if n >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is more than fits in 64 bits", s)
	}
	return int64(n), nil
}

// ParseCPUs reads a number of processors, such as 1.5, into a CFS quota in microseconds per 100 ms.
func ParseCPUs(s string) (quota int64, err error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(n) || n <= 0 || n > 1e6 {
		return 0, fmt.Errorf("%q is no number of processors, such as 1.5", s)
	}
	quota = int64(math.Round(n * cpuPeriod))
	if quota < 1000 { // kernel/sched/core.c: min_cfs_quota_period is 1 ms
		return 0, fmt.Errorf("%s of a processor is less than the kernel's smallest share, 0.01", s)
	}
	return quota, nil
}

// cpuPeriod is the CFS period in microseconds: the kernel's and docker's default.
const cpuPeriod = 100000

// A Volume is a directory or file that the container sees.
type Volume struct {
	Source      string   // absolute path on the host; empty: a fresh directory that lives as long as the container
	Destination string   // absolute path in the container
	Options     []string // mount options beside rbind
}

// ParseVolume reads SRC:DST[:OPTIONS] or DST. SRC is an absolute path or begins with a dot; what docker would take for the
// name of a volume is refused, since tare has no named volumes.
func ParseVolume(s string) (Volume, error) {
	parts := strings.Split(s, ":")
	if len(parts) > 3 {
		return Volume{}, fmt.Errorf("%q has more than SRC:DST:OPTIONS", s)
	}
	if len(parts) == 1 {
		dst, err := destination(parts[0])
		return Volume{Destination: dst}, err
	}
	src := parts[0]
	if !strings.HasPrefix(src, "/") && !strings.HasPrefix(src, ".") {
		return Volume{}, fmt.Errorf("%q is a volume's name: named volumes are not supported, give a path (/dir or ./dir)", src)
	}
	src, err := filepath.Abs(src)
	if err != nil {
		return Volume{}, err
	}
	dst, err := destination(parts[1])
	if err != nil {
		return Volume{}, err
	}
	v := Volume{Source: src, Destination: dst}
	if len(parts) == 3 {
		v.Options, err = volumeOptions(parts[2])
	}
	return v, err
}

func destination(s string) (string, error) {
	if !path.IsAbs(s) {
		return "", fmt.Errorf("%q is no absolute path in the container", s)
	}
	if s = path.Clean(s); s == "/" {
		return "", errors.New("the container's / cannot be a volume")
	}
	return s, nil
}

func volumeOptions(s string) ([]string, error) {
	var out []string
	propagation := "rprivate"
	for _, o := range strings.Split(s, ",") {
		switch o {
		case "ro", "nosuid", "nodev", "noexec":
			out = append(out, o)
		case "private", "rprivate", "slave", "rslave":
			propagation = o
		case "shared", "rshared":
			return nil, fmt.Errorf("option %s: mounts made in a container never reach the host", o)
		case "", "rw", "cached", "delegated", "consistent": // the last three mean something on macOS only
		case "z", "Z":
			if selinuxEnabled() {
				return nil, fmt.Errorf("option %s: SELinux labels are not supported yet", o)
			}
		default:
			return nil, fmt.Errorf("unknown option %q", o)
		}
	}
	return append(out, propagation), nil
}

func selinuxEnabled() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// ParseEnv turns K=V, or K for the caller's own value, into K=V; ok is false for a K that the caller does not have.
func ParseEnv(s string) (kv string, ok bool, err error) {
	name, _, given := strings.Cut(s, "=")
	if name == "" {
		return "", false, fmt.Errorf("%q has no name", s)
	}
	if strings.ContainsRune(s, 0) {
		return "", false, fmt.Errorf("variable %q contains a zero byte", name)
	}
	if given {
		return s, true, nil
	}
	value, ok := os.LookupEnv(name)
	return name + "=" + value, ok, nil
}

// ReadEnvFile reads a file of K=V or K lines as docker does: blank lines and those that begin with # are left out, values
// are taken as they are, with their quotes.
func ReadEnvFile(name string) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var env []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		if name, _, _ := strings.Cut(line, "="); strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("%s:%d: variable %q contains white space", f.Name(), n, name)
		}
		kv, ok, err := ParseEnv(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", f.Name(), n, err)
		}
		if ok {
			env = append(env, kv)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return env, nil
}

// checkName refuses what could not be a container's name, by docker's rule: [a-zA-Z0-9][a-zA-Z0-9_.-]*.
func checkName(name string) error {
	for i, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("_.-", c)) {
			return fmt.Errorf("name %q: letters, digits, and after the first of them _ . - are allowed", name)
		}
	}
	if name == "" || len(name) > 128 {
		return fmt.Errorf("name %q: 1 to 128 characters are allowed", name)
	}
	return nil
}

// checkHostname refuses what the kernel or a resolver would not take as a host's name.
func checkHostname(name string) error {
	if name == "" || len(name) > 64 || strings.ContainsAny(name, " \t\n\x00/") {
		return fmt.Errorf("hostname %q: 1 to 64 characters without blanks or slashes are allowed", name)
	}
	return nil
}
