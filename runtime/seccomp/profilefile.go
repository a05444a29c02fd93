package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Conditions say for which container a profile of an engine is read; a profile of the runtime specification has none.
type Conditions struct {
	Arch   string // the machine, in Go's words
	Caps   []string
	Kernel string // "6.1"; "" is newer than any
}

// Profile is a profile as a file has it.
type Profile struct {
	Spec    *specs.LinuxSeccomp
	index   []int // of each rule of Spec, its number in the file
	skipped []skippedRule
}

// skippedRule is one that the conditions leave out.
type skippedRule struct {
	index int
	names []string
	why   string
}

// fileProfile is linux.seccomp of the runtime specification, with what Docker's and Podman's profiles have beside it.
type fileProfile struct {
	specs.LinuxSeccomp
	DefaultErrno string     `json:"defaultErrno"`
	ArchMap      []fileArch `json:"archMap"`
	Syscalls     []fileRule `json:"syscalls"`
}

type fileArch struct {
	Arch specs.Arch   `json:"architecture"`
	Sub  []specs.Arch `json:"subArchitectures"`
}

type fileRule struct {
	specs.LinuxSyscall
	Name     string   `json:"name"`
	Errno    string   `json:"errno"`
	Includes selector `json:"includes"`
	Excludes selector `json:"excludes"`
}

type selector struct {
	Arches    []string `json:"arches"`
	Caps      []string `json:"caps"`
	MinKernel string   `json:"minKernel"`
}

// ParseProfile reads a profile: the object linux.seccomp, a whole config.json with one, or the format of Docker's and Podman's
// default profiles, whose conditions are resolved as those engines do it.
func ParseProfile(data []byte, c Conditions) (*Profile, error) {
	var config struct {
		OCIVersion string `json:"ociVersion"`
		Linux      *struct {
			Seccomp *fileProfile `json:"seccomp"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("decode profile: %w", err)
	}
	f := &fileProfile{}
	switch {
	case config.Linux != nil && config.Linux.Seccomp != nil:
		f = config.Linux.Seccomp
	case config.Linux != nil || config.OCIVersion != "":
		return nil, errors.New("the configuration has no linux.seccomp: every call is allowed")
	default:
		if err := json.Unmarshal(data, f); err != nil {
			return nil, fmt.Errorf("decode profile: %w", err)
		}
	}
	return f.resolve(c)
}

func (f *fileProfile) resolve(c Conditions) (*Profile, error) {
	m, err := machineOf(c.Arch)
	if err != nil {
		return nil, err
	}
	p := &Profile{Spec: &f.LinuxSeccomp}
	if p.Spec.DefaultErrnoRet == nil && f.DefaultErrno != "" {
		if p.Spec.DefaultErrnoRet, err = errnoNumber(f.DefaultErrno); err != nil {
			return nil, fmt.Errorf("defaultErrno: %w", err)
		}
	}
	for _, a := range f.ArchMap {
		if a.Arch == m.native {
			p.Spec.Architectures = append(append(p.Spec.Architectures, a.Arch), a.Sub...)
		}
	}
	p.Spec.Syscalls = nil
	for i := range f.Syscalls {
		r := &f.Syscalls[i]
		if r.Name != "" {
			r.Names = append(r.Names, r.Name)
		}
		if r.ErrnoRet == nil && r.Errno != "" {
			if r.ErrnoRet, err = errnoNumber(r.Errno); err != nil {
				return nil, fmt.Errorf("rule %d: errno: %w", i, err)
			}
		}
		why, err := r.leftOut(c)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i, err)
		}
		if why != "" {
			p.skipped = append(p.skipped, skippedRule{i, r.Names, why})
			continue
		}
		p.Spec.Syscalls = append(p.Spec.Syscalls, r.LinuxSyscall)
		p.index = append(p.index, i)
	}
	return p, nil
}

// leftOut says why a rule does not hold under the conditions, "" if it does: all capabilities of includes must be there, one of
// excludes is enough.
func (r *fileRule) leftOut(c Conditions) (string, error) {
	in, ex := &r.Includes, &r.Excludes
	if len(in.Arches) > 0 && !slices.Contains(in.Arches, c.Arch) {
		return "for the architectures " + strings.Join(in.Arches, ", "), nil
	}
	if slices.Contains(ex.Arches, c.Arch) {
		return "not for the architecture " + c.Arch, nil
	}
	for _, name := range in.Caps {
		if !slices.Contains(c.Caps, name) {
			return "with " + name, nil
		}
	}
	for _, name := range ex.Caps {
		if slices.Contains(c.Caps, name) {
			return "without " + name, nil
		}
	}
	for _, k := range []struct {
		min  string
		want bool
		why  string
	}{{in.MinKernel, true, "from Linux "}, {ex.MinKernel, false, "before Linux "}} {
		if k.min == "" {
			continue
		}
		reached, err := kernelReached(c.Kernel, k.min)
		if err != nil {
			return "", err
		}
		if reached != k.want {
			return k.why + k.min + " on", nil
		}
	}
	return "", nil
}

// kernelReached compares the first two numbers of kernel versions.
func kernelReached(have, want string) (bool, error) {
	if have == "" {
		return true, nil
	}
	h, err := kernelVersion(have)
	if err != nil {
		return false, err
	}
	w, err := kernelVersion(want)
	return slices.Compare(h[:], w[:]) >= 0, err
}

func kernelVersion(s string) (v [2]int, err error) {
	major, rest, _ := strings.Cut(s, ".")
	minor, _, _ := strings.Cut(strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return '.'
		}
		return r
	}, rest), ".")
	if v[0], err = strconv.Atoi(major); err == nil {
		v[1], err = strconv.Atoi(minor)
	}
	if err != nil {
		return v, fmt.Errorf("kernel version %q is not of the form 6.1", s)
	}
	return v, nil
}
