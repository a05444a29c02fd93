package spec

import "strings"

// capabilityNames in the order of their numbers, without the prefix CAP_, from include/uapi/linux/capability.h.
const capabilityNames = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE " +
	"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE " +
	"SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL " +
	"SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"

// CapabilityNumber returns the number of a capability of capabilities(7) by its full name in upper case, CAP_CHOWN (0)
// to CAP_CHECKPOINT_RESTORE (40).
func CapabilityNumber(name string) (int, bool) {
	short, ok := strings.CutPrefix(name, "CAP_")
	if !ok {
		return 0, false
	}
	return wordIndex(capabilityNames, short)
}

// CapabilityNames returns the full names of all capabilities, in the order of their numbers. The caller owns the slice.
func CapabilityNames() []string {
	names := strings.Fields(capabilityNames)
	for i, n := range names {
		names[i] = "CAP_" + n
	}
	return names
}

// RlimitNumber returns the number of a resource of getrlimit(2) by its full name, such as RLIMIT_NOFILE, on the
// architecture that the program was built for.
func RlimitNumber(name string) (int, bool) {
	short, ok := strings.CutPrefix(name, "RLIMIT_")
	if !ok {
		return 0, false
	}
	return wordIndex(rlimitNames, short)
}

// RlimitNames returns the full names of all resources, in the order of their numbers. The caller owns the slice.
func RlimitNames() []string {
	names := strings.Fields(rlimitNames)
	for i, n := range names {
		names[i] = "RLIMIT_" + n
	}
	return names
}

// wordIndex returns the position of a word in a list separated by single spaces.
func wordIndex(list, word string) (int, bool) {
	i := 0
	for w := range strings.SplitSeq(list, " ") {
		if w == word {
			return i, true
		}
		i++
	}
	return 0, false
}
