package plan

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Place is what a destination is by its name. Where it leads is a different question, which only the launcher can answer: links
// belong to the image.
type Place int

// The places that are treated differently.
const (
	Elsewhere Place = iota // may not lead into the container's /proc or /sys
	OnProc                 // /proc: what is mounted here is the container's procfs
	InProc                 // one of procFiles
	OnSys                  // /sys: what is mounted here is the container's sysfs, or stands for it
	InSys
	OnDev // /dev
)

// procFiles are the places below /proc on which a mount is allowed: files that monitoring tools such as lxcfs replace. Anything
// else could forge what the kernel tells about the container, or take the place of a file that a runtime writes
// (CVE-2019-16884, CVE-2025-52881).
var procFiles = []string{"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
	"/proc/loadavg", "/proc/slabinfo", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled"}

// placeOf tells what a clean absolute path is.
func placeOf(dest string) Place {
	switch {
	case dest == "/proc":
		return OnProc
	case dest == "/sys":
		return OnSys
	case dest == "/dev":
		return OnDev
	case strings.HasPrefix(dest, "/proc/"):
		return InProc
	case strings.HasPrefix(dest, "/sys/"):
		return InSys
	}
	return Elsewhere
}

// checkPlace refuses what may not be mounted on or in /proc.
func checkPlace(m *specs.Mount, dest string, o parsedOptions) error {
	switch placeOf(dest) {
	case OnProc:
		if m.Type == "proc" || o.bind || o.remount {
			return nil // the launcher checks that what is bound is a procfs
		}
		return fmt.Errorf("mounts: /proc: %q cannot be mounted because it is not of type proc", m.Type)
	case InProc:
		for _, p := range procFiles {
			if dest == p {
				return nil
			}
		}
		return fmt.Errorf("mounts: %q cannot be mounted because it is inside /proc: it could forge what the kernel says", dest)
	}
	return nil
}

// ordinaryDirectory: the destination of a procfs or sysfs must not be reached through a link, which would move the masks of what
// is mounted (CVE-2019-19921, CVE-2023-28642).
func ordinaryDirectory(fsType string, at Place) bool {
	return at == OnProc || at == OnSys || fsType == "proc" || fsType == "sysfs"
}
