package spec

import "strings"

// propertyNames are the names of all properties that the decoder knows, of whatever object. A test keeps the list.
var propertyNames = [...]string{
	"access", "action", "additionalGids", "allow", "ambient", "annotations", "apparmorProfile", "architectures", "args",
	"blockIO", "bounding", "burst", "capabilities", "cgroupsPath", "checkBeforeUpdate", "class", "classID", "closID",
	"commandLine", "consoleSize", "containerID", "cpu", "cpus", "createContainer", "createRuntime", "cwd", "deadline",
	"defaultAction", "defaultErrnoRet", "destination", "devices", "disableOOMKiller", "domain", "domainname", "effective",
	"enableMonitoring", "env", "errnoRet", "execCPUAffinity", "fileMode", "final", "flags", "gid", "gidMappings", "hard",
	"hcaHandles", "hcaObjects", "height", "hooks", "hostID", "hostname", "hugepageLimits", "idle", "index", "inheritable",
	"initial", "intelRdt", "ioPriority", "kernel", "kernelTCP", "l3CacheSchema", "leafWeight", "limit", "linux",
	"listenerMetadata", "listenerPath", "major", "maskedPaths", "memBwSchema", "memory", "memoryPolicy", "mems", "minor", "mode",
	"mountLabel", "mounts", "name", "names", "namespaces", "nanosecs", "netDevices", "network", "nice", "noNewPrivileges",
	"nodes", "ociVersion", "oomScoreAdj", "op", "options", "pageSize", "path", "period", "permitted", "personality", "pids",
	"policy", "poststart", "poststop", "prestart", "priorities", "priority", "process", "quota", "rate", "rdma", "readonly",
	"readonlyPaths", "realtimePeriod", "realtimeRuntime", "reservation", "resources", "rlimits", "root", "rootfsPropagation",
	"runtime", "scheduler", "schemata", "seccomp", "secs", "selinuxLabel", "shares", "size", "soft", "source", "startContainer",
	"swap", "swappiness", "syscalls", "sysctl", "terminal", "throttleReadBpsDevice", "throttleReadIOPSDevice",
	"throttleWriteBpsDevice", "throttleWriteIOPSDevice", "timeOffsets", "timeout", "type", "uid", "uidMappings", "umask",
	"unified", "useHierarchy", "user", "value", "valueTwo", "weight", "weightDevice", "width",
}

// foldName returns the property that an unknown name means when case does not count, as for the JSON decoder of Go, which callers of
// runc write for without knowing; empty: none.
func foldName(name string) string {
	for _, known := range propertyNames {
		if strings.EqualFold(known, name) && known != name {
			return known
		}
	}
	return ""
}
