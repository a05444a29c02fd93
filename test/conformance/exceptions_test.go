package conformance

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// exception is a validation program that fails with tare-runtime, how and why. With when it fails only where when is true.
type exception struct {
	fails []string // points that are not ok
	says  string   // or what the error contains
	why   string
	races bool // it passes now and then
	when  func() bool
}

// waits are the programs that wait for ten seconds and more whatever the runtime does; they run with TARE_LONG=1.
var waits = map[string]bool{"delete": true, "kill": true, "pidfile": true, "start": true, "linux_cgroups_cpus": true}

// exceptions are the programs that are expected to fail.
var exceptions = map[string]exception{
	// Broken for every runtime that keeps to the specification.
	"hooks": {says: "Hooks MUST be called in the listed order",
		why: "it compares the output with an order in which poststart hooks come before the process"},
	"poststart": {says: "The post-start hooks MUST be called after the user-specified process is executed", races: true,
		why: "it compares the output of the hook with that of the process, which run at the same time once the program is executed"},
	"misc_props": {fails: []string{"implementations that are reading/processing this configuration file MUST NOT generate an error if they encounter an unknown annotation key"},
		why: "it starts /runtimetest without having copied it to the root"},
	"pidfile": {fails: []string{"create with '--pid-file' option works"},
		why: "it kills the container and expects a second kill, of the stopped container, to succeed"},
	"delete_resources": {fails: []string{"pids limit is set correctly"},
		why: "it compares pointers instead of numbers"},
	"linux_cgroups_pids": {fails: []string{"pids limit is set correctly"},
		why: "it compares pointers instead of numbers"},
	"linux_cgroups_relative_pids": {fails: []string{"pids limit is set correctly"},
		why: "it compares pointers instead of numbers"},
	"process_rlimits": {fails: []string{"has expected soft RLIMIT_NOFILE"},
		why: "runtimetest is a Go program, and Go raises its own soft limit of open files before main"},

	// Written for older versions of the specification.
	"delete": {fails: []string{"attempting to `delete` a container that is not `stopped` MUST generate an error",
		"attempting to `delete` a container that is not `stopped` MUST have no effect on the container"},
		why: "delete of a created container removes it, as with runc: containerd and Podman depend on it"},
	"hooks_stdin": {fails: []string{`the state of the container MUST be passed to "prestart" hook over stdin`},
		why: "it wants status created in prestart hooks, which run before create has ended: creating"},
	"poststart_fail": {says: "if any poststart hook fails, the runtime MUST log a warning",
		why: "since version 1.3.0 a failing poststart hook is an error of start"},
	"prestart": {says: "Pre-start hooks MUST be called after the `start` operation is called",
		why: "since version 1.0.0-rc5 prestart hooks are called by create"},
	"process_capabilities_fail": {says: "Any value which cannot be mapped to a relevant kernel interface MUST cause an error",
		why: "since version 1.0.2 an unknown capability is a warning"},
	"start": {fails: []string{"`start` operation MUST generate an error if `process` was not set", "timeout in waiting for the container status"},
		why: "it expects start without a process to succeed, against the sentence that it prints"},

	// What this kernel or this host does not have.
	"linux_cgroups_blkio": {says: "blkio.leaf_weight", when: lacks("/sys/fs/cgroup/blkio/blkio.leaf_weight"),
		why: "the kernel has no leaf weights of block devices (removed with CFQ in Linux 5.0)"},
	"linux_cgroups_relative_blkio": {fails: []string{"exit status 1"}, when: lacks("/sys/fs/cgroup/blkio/blkio.leaf_weight"),
		why: "the kernel has no leaf weights of block devices (removed with CFQ in Linux 5.0)"},
	"linux_cgroups_hugetlb": {says: "the runtime MUST take the path to be relative to the cgroups mount point", when: lacks("/sys/fs/cgroup/hugetlb"),
		why: "the host has no hugetlb controller"},
	"linux_cgroups_relative_hugetlb": {fails: []string{"get hugetlb cgroup data"}, when: lacks("/sys/fs/cgroup/hugetlb"),
		why: "the host has no hugetlb controller"},
	"linux_cgroups_network": {says: "net_cls", when: lacks("/sys/fs/cgroup/net_cls"),
		why: "the host has no net_cls controller"},
	"linux_cgroups_relative_network": {fails: []string{"exit status 1"}, when: lacks("/sys/fs/cgroup/net_cls"),
		why: "the host has no net_cls controller"},
	"linux_cgroups_memory": {fails: []string{"memory kernel is set correctly"},
		why: "since Linux 5.4 the kernel takes a limit of kernel memory and ignores it"},
	"linux_cgroups_relative_memory": {fails: []string{"memory kernel is set correctly"},
		why: "since Linux 5.4 the kernel takes a limit of kernel memory and ignores it"},
	"linux_mount_label": {says: "selinux is disabled or not supported", when: lacks("/sys/fs/selinux/enforce"),
		why: "the host has no SELinux, and a label that cannot be set is an error"},
	"linux_process_apparmor_profile": {says: "apparmor is not enabled", when: lacks("/sys/kernel/security/apparmor"),
		why: "the host has no AppArmor, and a profile that cannot be set is an error"},
	"process_capabilities": {fails: []string{"expected bounding capability CAP_SYS_RESOURCE set", "expected effective capability CAP_SYS_RESOURCE set",
		"expected inheritable capability CAP_SYS_RESOURCE set", "expected permitted capability CAP_SYS_RESOURCE set",
		"expected ambient capability CAP_SYS_RESOURCE set"}, when: func() bool { return !hasCapability(24) },
		why: "root of this host does not have CAP_SYS_RESOURCE"},

	// Choices of tare.
	"mounts": {says: "bind mounts cannot have any filesystem-specific options",
		why: "it gives options of a file system to bind mounts; runc since 1.2 refuses these too"},
}

// elsewhere are programs that fail on machines where their entry in exceptions does not hold, or that have none.
var elsewhere = map[string]exception{
	"linux_cgroups_network": {says: "net_prio.ifpriomap",
		why: "the kernel looks for the devices of net_prio in the first network namespace, and these tests have one of their own"},
	"linux_ns_itype": {fails: []string{"cannot run validation tests: exit status 1"}, when: func() bool { return !ocitest.Kernel(6, 15) },
		why: "a container without a mount namespace of its own takes Linux 6.15"},
	"linux_process_apparmor_profile": {says: "acme_secure_profile", when: func() bool { return !profileLoaded },
		why: "the profile could not be loaded"},
}

// profileLoaded: the kernel has the AppArmor profile that a program asks for.
var profileLoaded bool

// exceptionOf returns what is expected of a program that fails on this machine.
func exceptionOf(name string) (exception, bool) {
	for _, table := range []map[string]exception{exceptions, elsewhere} {
		if e, ok := table[name]; ok && (e.when == nil || e.when()) {
			return e, true
		}
	}
	return exception{}, false
}

// lacks returns a condition: the host does not have the file.
func lacks(path string) func() bool {
	return func() bool {
		found, err := filepath.Glob(path)
		return err != nil || len(found) == 0
	}
}

// hasCapability reports whether this process may give the capability to a container.
func hasCapability(number uint) bool {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			var set uint64
			for _, c := range strings.TrimSpace(rest) {
				set = set<<4 | uint64(strings.IndexRune("0123456789abcdef", c))
			}
			return set>>number&1 == 1
		}
	}
	return false
}
