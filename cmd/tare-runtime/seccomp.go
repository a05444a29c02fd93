package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/runtime/seccomp"
)

// dockerCaps are the capabilities of a container that Docker starts without options, for profiles that ask for them.
const dockerCaps = "CAP_AUDIT_WRITE,CAP_CHOWN,CAP_DAC_OVERRIDE,CAP_FOWNER,CAP_FSETID,CAP_KILL,CAP_MKNOD,CAP_NET_BIND_SERVICE,CAP_NET_RAW," +
	"CAP_SETFCAP,CAP_SETGID,CAP_SETPCAP,CAP_SETUID,CAP_SYS_CHROOT"

func seccompCommand(s *flags.Set) action {
	caps, kernel := dockerCaps, ""
	define := func(s *flags.Set) {
		s.String(&caps, "caps", "CAP,...", "capabilities of the container, for a profile of an engine (default: Docker's)")
		s.String(&kernel, "kernel", "VERSION", "version of the kernel, for a profile of an engine (default: the running one)")
	}
	define(s)
	return func(e *env) (int, error) {
		if e.args[0] != "explain" {
			return 1, fmt.Errorf("unknown subcommand %q of seccomp: want explain", e.args[0])
		}
		behind := flags.Set{Stop: true} // the flags may also come after the word
		define(&behind)
		args, err := behind.Parse(e.args[1:])
		if err != nil {
			return 1, err
		}
		if len(args) < 2 {
			return 1, errors.New("seccomp explain needs a profile and a system call")
		}
		profile, err := readProfile(e, args[0])
		if err != nil {
			return 1, err
		}
		q, goarch := seccomp.Question{Call: args[1]}, runtime.GOARCH
		args = args[2:]
		if len(args) > 0 {
			if arch, ok := seccomp.FindArch(args[0]); ok {
				if goarch, err = seccomp.MachineOf(arch, goarch); err != nil {
					return 1, err
				}
				q.Arch, args = arch, args[1:]
			}
		}
		if q.Args, err = callArgs(args); err != nil {
			return 1, err
		}
		if kernel == "" {
			release, _ := os.ReadFile("/proc/sys/kernel/osrelease") // without it, newer than any
			kernel = strings.TrimSpace(string(release))
		}
		p, err := seccomp.ParseProfile(profile, seccomp.Conditions{Arch: goarch, Caps: strings.Split(caps, ","), Kernel: kernel})
		if err != nil {
			return 1, err
		}
		text, err := p.Explain(goarch, q)
		if err != nil {
			return 1, err
		}
		_, err = io.WriteString(e.stdout, text)
		return 0, err
	}
}

// readProfile reads a file, or what "-" stands for.
func readProfile(e *env, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(e.stdin)
	}
	return os.ReadFile(name)
}

// callArgs reads the arguments of a system call: numbers of 64 bits, also negative ones.
func callArgs(list []string) ([]uint64, error) {
	if len(list) > 6 {
		return nil, fmt.Errorf("%d arguments: a system call has at most 6", len(list))
	}
	args := make([]uint64, len(list))
	for i, s := range list {
		v, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			n, negative := strconv.ParseInt(s, 0, 64)
			if negative != nil {
				return nil, fmt.Errorf("%q is neither an architecture nor a number of 64 bits", s)
			}
			v = uint64(n)
		}
		args[i] = v
	}
	return args, nil
}
