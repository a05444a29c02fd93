package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

const (
	showCaps = "grep Cap /proc/self/status | tr -s '\\t\\n' '  '"
	capKill  = "0000000000000020"
	capNone  = "0000000000000000"
)

func capsLine(inh, prm, eff, bnd, amb string) string {
	return fmt.Sprintf("CapInh: %s CapPrm: %s CapEff: %s CapBnd: %s CapAmb: %s", inh, prm, eff, bnd, amb)
}

func countKeyring(_ *H, b *Bundle) { b.Sh("grep -c ' _ses." + b.ID + ":' /proc/keys") }

var processCases = []Case{
	{Row: "P5 relative cwd", Edit: []string{`process.cwd="tmp"`}, Err: "cwd"},
	{Row: "P5 no cwd", Edit: []string{`-process.cwd`}, Err: "cwd"},
	{Row: "P6 missing cwd is made", Edit: []string{`process.cwd="/nn/mm"`}, Sh: "pwd; stat -c %a:%u /nn", Out: "/nn/mm\n755:0"},
	{Row: "P6 cwd is a file", Edit: []string{`process.cwd="/bin/busybox"`}, Err: "*"},
	{Row: "P6 cwd that only the user may enter", Edit: []string{`process.cwd="/home"`, `process.user={"uid":1000,"gid":1000}`, capEdit("", "", "", "", "")},
		Setup: func(h *H, b *Bundle) {
			d := filepath.Join(b.Rootfs, "home")
			if os.Mkdir(d, 0o700) != nil || os.Chown(d, 1000, 1000) != nil {
				h.Fatalf("make %s", d)
			}
		}, Sh: "pwd", Out: "/home"},
	{Row: "P7 cwd by a descriptor of the runtime", Edit: []string{`process.cwd="/proc/self/fd/7"`}, Err: "*"},
	{Row: "P8 last duplicate wins", Edit: []string{`process.env=["PATH=/bin","A=1","A=2","B=x=y"]`}, Sh: "env | grep -E '^(A|B)=' | sort", Out: "A=2\nB=x=y"},
	{Row: "P8 only what is listed, and HOME", Edit: []string{`process.env=["PATH=/bin"]`}, Args: []string{"env"}, Out: "~^(PATH=/bin\nHOME=/|HOME=/\nPATH=/bin)$"},
	{Row: "P8 HOME of the user in passwd", Edit: []string{`process.user={"uid":1000,"gid":1000}`},
		Setup: withFile("rootfs/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nu:x:1000:1000:u:/home/u:/bin/sh\n"), Sh: "echo $HOME", Out: "/home/u"},
	{Row: "P8 HOME that is set stays", Edit: []string{`process.env+=["HOME=/h"]`}, Setup: withFile("rootfs/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"), Sh: "echo $HOME", Out: "/h"},
	{Row: "P8 empty name", Edit: []string{`process.env+=["=x"]`}, Err: "env"},
	{Row: "P9 no args", Edit: []string{`process.args=[]`}, Err: "args"},
	{Row: "P9 empty name", Edit: []string{`process.args=[""]`}, Err: "*"},
	{Row: "P9 not in PATH", Edit: []string{`process.args=["nosuch"]`}, Err: "executable file not found in $PATH"},
	{Row: "P9 no such file", Edit: []string{`process.args=["/no/such"]`}, Err: "no such file or directory"},
	{Row: "P9 no permission", Edit: []string{`process.args=["/etc/x"]`}, Setup: withFile("rootfs/etc/x", "x"), Err: "permission denied"},
	{Row: "P9 a directory", Edit: []string{`process.args=["/etc"]`}, Err: "*"},
	{Row: "P9 PATH of the container", Edit: []string{`process.env=["PATH=/opt"]`}, Setup: func(h *H, b *Bundle) {
		h.File(filepath.Join(b.Rootfs, "opt/prog"), "#!/bin/sh\necho mine\n", 0o755)
	}, Args: []string{"prog"}, Out: "mine"},
	{Row: "P9 not executable ones in PATH are passed over", Edit: []string{`process.env=["PATH=/opt:/opt2"]`}, Setup: func(h *H, b *Bundle) {
		h.File(filepath.Join(b.Rootfs, "opt/prog"), "x", 0o644)
		h.File(filepath.Join(b.Rootfs, "opt2/prog"), "#!/bin/sh\necho second\n", 0o755)
	}, Args: []string{"prog"}, Out: "second"},
	{Row: "P9 argv0 is kept", Args: []string{"sh", "-c", "echo $0"}, Out: "sh"},
	{Row: "P10 commandLine is ignored", Edit: []string{`process.commandLine="x y"`}},
	{Row: "P11 user", Edit: []string{`process.user={"uid":7,"gid":8}`}, Sh: "id -u; id -g; id -G", Out: "7\n8\n8"},
	{Row: "P12 umask", Edit: []string{`process.user={"uid":0,"gid":0,"umask":63}`}, Sh: "umask", Out: "0077"},
	{Row: "P12 unset umask is unchanged or 0022", Cmd: Cmd{Umask: "077"}, Sh: "umask", Out: "~^00(77|22)$"},
	{Row: "P13 additional groups", Edit: []string{`process.user={"uid":7,"gid":8,"additionalGids":[100,200]}`}, Sh: "grep Groups /proc/self/status | tr -s '\\t ' '  '", Out: "~^Groups: (8 )?100 200$"},
	{Row: "P14 user name is ignored", Edit: []string{`process.user={"uid":7,"gid":8,"username":"root"}`}, Sh: "id -u", Out: "7"},
	{Row: "P15 standard output is the user's", Edit: []string{`process.user={"uid":1000,"gid":1000}`}, Sh: "echo x >/dev/stdout && echo y >/dev/stderr", Out: "x", Warn: "y"},
	{Row: "P16 descriptors", Args: []string{"sh", "-c", "exec ls /proc/self/fd"}, Out: "0\n1\n2\n3"},
	{Row: "P20 limits", Edit: []string{`process.rlimits=[{"type":"RLIMIT_NOFILE","soft":100,"hard":200},{"type":"RLIMIT_CORE","soft":0,"hard":0},{"type":"RLIMIT_NPROC","soft":50,"hard":60}]`},
		Sh: "ulimit -Sn; ulimit -Hn; ulimit -c; grep processes /proc/self/limits | tr -s ' '", Out: "~^100\n200\n0\nMax processes 50 60"},
	{Row: "P20 every type", Edit: []string{`process.rlimits=[{"type":"RLIMIT_AS","soft":1099511627776,"hard":1099511627776},{"type":"RLIMIT_CPU","soft":1000,"hard":1000},
		{"type":"RLIMIT_DATA","soft":1099511627776,"hard":1099511627776},{"type":"RLIMIT_FSIZE","soft":1000000,"hard":1000000},{"type":"RLIMIT_LOCKS","soft":9,"hard":9},
		{"type":"RLIMIT_MEMLOCK","soft":4096,"hard":4096},{"type":"RLIMIT_MSGQUEUE","soft":1000,"hard":1000},{"type":"RLIMIT_NICE","soft":0,"hard":0},{"type":"RLIMIT_RSS","soft":1000000,"hard":1000000},
		{"type":"RLIMIT_RTPRIO","soft":0,"hard":0},{"type":"RLIMIT_RTTIME","soft":1000000,"hard":1000000},{"type":"RLIMIT_SIGPENDING","soft":11,"hard":11},{"type":"RLIMIT_STACK","soft":8388608,"hard":8388608}]`},
		Sh: "grep -E 'pending|stack size' /proc/self/limits | tr -s ' '", Out: "~^Max stack size 8388608 8388608 bytes ?\nMax pending signals 11 11 signals"},
	{Row: "P20 duplicate type", Edit: []string{`process.rlimits=[{"type":"RLIMIT_CORE","soft":0,"hard":0},{"type":"RLIMIT_CORE","soft":0,"hard":0}]`}, Err: "RLIMIT_CORE"},
	{Row: "P20 unknown type", Edit: []string{`process.rlimits=[{"type":"RLIMIT_FOO","soft":0,"hard":0}]`}, Err: "wrong rlimit value: RLIMIT_FOO"},
	{Row: "P20 soft above hard", Edit: []string{`process.rlimits=[{"type":"RLIMIT_CORE","soft":2,"hard":1}]`}, Err: "*"},
	{Row: "P23 no new privileges", Sh: "grep NoNewPrivs /proc/self/status", Out: "~1$"},
	{Row: "P23 new privileges", Edit: []string{`process.noNewPrivileges=false`}, Sh: "grep NoNewPrivs /proc/self/status", Out: "~0$"},
	{Row: "P24 out of memory score", Edit: []string{`process.oomScoreAdj=500`}, Sh: "cat /proc/self/oom_score_adj", Out: "500"},
	{Row: "P24 unset stays", Sh: "cat /proc/self/oom_score_adj", Out: "0"},
	{Row: "P24 out of range", Edit: []string{`process.oomScoreAdj=1001`}, Err: "*"},
	{Row: "P25 batch", Edit: []string{`process.scheduler={"policy":"SCHED_BATCH","nice":5}`}, Sh: "grep -E '^(policy|prio)' /proc/self/sched | tr -d ' '", Out: "policy:3\nprio:125"},
	{Row: "P25 idle", Edit: []string{`process.scheduler={"policy":"SCHED_IDLE"}`}, Sh: "grep policy /proc/self/sched | tr -d ' '", Out: "policy:5"},
	{Row: "P25 deadline", Edit: []string{`process.scheduler={"policy":"SCHED_DEADLINE","runtime":1000000,"deadline":100000000,"period":100000000}`}, Args: []string{"cat", "/proc/self/sched"}, Out: "~policy +: +6"},
	{Row: "P25 unknown policy", Edit: []string{`process.scheduler={"policy":"SCHED_X"}`}, Err: "SCHED_X"},
	{Row: "P25 unknown flag", Edit: []string{`process.scheduler={"policy":"SCHED_OTHER","flags":["SCHED_FLAG_X"]}`}, Err: "SCHED_FLAG_X"},
	{Row: "P25 priority without a policy that has one", Edit: []string{`process.scheduler={"policy":"SCHED_OTHER","priority":3}`}, Err: "*"},
	{Row: "P26 SELinux label without SELinux", Edit: []string{`process.selinuxLabel="system_u:system_r:container_t:s0"`}, Err: "selinux"},
	{Row: "P27 AppArmor profile without AppArmor", Edit: []string{`process.apparmorProfile="docker-default"`}, Err: "apparmor"},
	{Row: "P28 io priority", Edit: []string{`process.ioPriority={"class":"IOPRIO_CLASS_BE","priority":6}`}, Sh: "ionice -p 1", Out: "best-effort: prio 6"},
	{Row: "P28 idle", Edit: []string{`process.ioPriority={"class":"IOPRIO_CLASS_IDLE","priority":0}`}, Sh: "ionice -p 1", Out: "~^idle"},
	{Row: "P28 priority 8", Edit: []string{`process.ioPriority={"class":"IOPRIO_CLASS_BE","priority":8}`}, Err: "priority"},
	{Row: "P28 unknown class", Edit: []string{`process.ioPriority={"class":"IOPRIO_CLASS_X","priority":0}`}, Err: "IOPRIO_CLASS_X"},
	{Row: "P29 not of the first process", Edit: []string{`process.execCPUAffinity={"initial":"0","final":"0"}`}, Sh: showCPUs, Out: allCPUs},
	{Row: "P29 bad affinity", Edit: []string{`process.execCPUAffinity={"initial":"x"}`}, Err: "*"},
	{Row: "P30 session keyring", Edit: []string{`linux.maskedPaths=[]`}, Setup: countKeyring, Out: "1"},
	{Row: "P30 no new keyring", Edit: []string{`linux.maskedPaths=[]`}, Flags: []string{"--no-new-keyring"}, Setup: countKeyring, Code: 1, Out: "0"},
	{Row: "H1 hostname", Edit: []string{`hostname="h1"`}, Args: []string{"hostname"}, Out: "h1"},
	{Row: "H2 domain name", Edit: []string{`domainname="d.test"`}, Sh: "cat /proc/sys/kernel/domainname", Out: "d.test"},
	{Row: "H3 hostname without a uts namespace", Edit: []string{`linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"network"}]`}, Err: "unable to set hostname without a private UTS namespace"},
	{Row: "H3 domain name without a uts namespace", Edit: []string{`-hostname`, `domainname="x"`, `linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"network"}]`}, Err: "uts"},
	{Row: "PE1 personality", Edit: []string{`linux.personality={"domain":"LINUX32"}`}, Sh: "uname -m", Out: "~^(i686|armv8l)$"},
	{Row: "PE1 the usual one", Edit: []string{`linux.personality={"domain":"LINUX"}`}, Sh: "uname -m", Out: "~^(x86_64|aarch64)$"},
	{Row: "PE1 no domain", Edit: []string{`linux.personality={}`}, Err: "personality"},
	{Row: "PE1 unknown domain", Edit: []string{`linux.personality={"domain":"X"}`}, Err: "personality"},
	{Row: "PE1 flags", Edit: []string{`linux.personality={"domain":"LINUX","flags":["x"]}`}, Err: "flag"},
	{Row: "MP1 memory policy", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_BIND","nodes":"0"}`}, Sh: "head -1 /proc/self/numa_maps", Out: "~bind:0"},
	{Row: "MP1 static nodes", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES"]}`}, Sh: "head -1 /proc/self/numa_maps", Out: "~bind=static:0"},
	{Row: "MP1 relative nodes", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_RELATIVE_NODES"]}`}, Sh: "head -1 /proc/self/numa_maps", Out: "~bind=relative:0"},
	{Row: "MP1 balancing", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_NUMA_BALANCING"]}`}, Sh: "head -1 /proc/self/numa_maps", Out: "~bind(=balancing)?:0"},
	{Row: "MP1 default", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_DEFAULT"}`}, Sh: "head -1 /proc/self/numa_maps", Out: "~ default "},
	{Row: "MP1 local", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_LOCAL"}`}, Sh: "head -1 /proc/self/numa_maps", Out: "~ local "},
	{Row: "MP1 preferred", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_PREFERRED","nodes":"0"}`}, Sh: "head -1 /proc/self/numa_maps", Out: "~ prefer:0 "},
	{Row: "MP1 preferred without nodes", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_PREFERRED"}`}, Sh: "head -1 /proc/self/numa_maps", Out: "~ local "},
	{Row: "MP1 preferred many", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_PREFERRED_MANY","nodes":"0"}`}, Sh: "head -1 /proc/self/numa_maps", Out: "~ prefer \\(many\\):0 "},
	{Row: "MP1 interleave", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_INTERLEAVE","nodes":"0"}`}, Sh: "head -1 /proc/self/numa_maps", Out: "~ interleave:0 "},
	{Row: "MP1 local with nodes", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_LOCAL","nodes":"0"}`}, Err: "memoryPolicy"},
	{Row: "MP1 relative and static nodes", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_RELATIVE_NODES","MPOL_F_STATIC_NODES"]}`}, Err: "memoryPolicy"},
	{Row: "MP1 bad nodes", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_BIND","nodes":"0-"}`}, Err: "memoryPolicy"},
	{Row: "MP1 bind without nodes", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_BIND"}`}, Err: "*"},
	{Row: "MP1 default with nodes", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_DEFAULT","nodes":"0"}`}, Err: "*"},
	{Row: "MP1 unknown mode", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_X","nodes":"0"}`}, Err: "MPOL_X"},
	{Row: "MP1 unknown flag", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_X"]}`}, Err: "MPOL_F_X"},
	{Row: "MP1 node that is not there", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_BIND","nodes":"99"}`}, Err: "*"},
	{Row: "SY1 network", Edit: []string{`linux.sysctl={"net.ipv4.ip_forward":"1"}`}, Sh: "cat /proc/sys/net/ipv4/ip_forward", Out: "1"},
	{Row: "SY1 with slashes", Edit: []string{`linux.sysctl={"net/core/somaxconn":"77"}`}, Sh: "cat /proc/sys/net/core/somaxconn", Out: "77"},
	{Row: "SY1 ipc", Edit: []string{`linux.sysctl={"kernel.shm_rmid_forced":"1","fs.mqueue.msg_max":"99","kernel.msgmax":"7777"}`}, Sh: "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max /proc/sys/kernel/msgmax", Out: "1\n99\n7777"},
	{Row: "SY1 not of a namespace", Edit: []string{`linux.sysctl={"vm.swappiness":"10"}`}, Err: "not in a separate kernel namespace"},
	{Row: "SY1 not there", Edit: []string{`linux.sysctl={"net.ipv4.nope":"1"}`}, Err: "nope"},
	{Row: "SY1 dots", Edit: []string{`linux.sysctl={"net/../kernel/core_pattern":"x"}`}, Err: "*"},
	{Row: "SY1 bad value", Edit: []string{`linux.sysctl={"net.ipv4.ip_forward":"banana"}`}, Err: "ip_forward"},
	{Row: "SY1 host name", Edit: []string{`linux.sysctl={"kernel.hostname":"x"}`}, Err: "not allowed as it conflicts with the OCI"},
	{Row: "SY2 without the namespace", Edit: []string{`linux.sysctl={"kernel.shmmax":"100000"}`, `linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"uts"},{"type":"network"}]`}, Err: "not allowed in the hosts ipc namespace"},
	{Row: "SY2 network without the namespace", Edit: []string{`linux.sysctl={"net.ipv4.ip_forward":"1"}`, `linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"uts"},{"type":"ipc"}]`}, Err: "not allowed in host network namespace"},
	{Row: "IR1 resctrl is not there", Edit: []string{`linux.intelRdt={"closID":"a"}`}, Err: "*"},
	{Row: "exit status", Sh: "exit 42", Code: 42},
	{Row: "exit status 255", Sh: "exit 255", Code: 255},
	{Row: "exit by a signal", Sh: "kill -KILL $$", Code: 137, Edit: []string{`linux.namespaces=[{"type":"mount"},{"type":"uts"},{"type":"ipc"},{"type":"network"}]`}},
	{Row: "standard input", Args: []string{"cat"}, Cmd: Cmd{Stdin: "in\nout"}, Out: "in\nout"},
}

func TestProcess(t *testing.T) {
	runCases(t, processCases)
	weighted := Case{Row: "MP1 weighted interleave", Edit: []string{`linux.memoryPolicy={"mode":"MPOL_WEIGHTED_INTERLEAVE","nodes":"0"}`},
		Sh: "head -1 /proc/self/numa_maps", Out: "~ weighted interleave:0 "}
	if !ocitest.Kernel(6, 9) {
		weighted.Err = "memory policy: invalid argument (the kernel may not know the mode"
	}
	runCases(t, []Case{weighted})
}

var capCases = []Case{
	{Row: "P21 sets", Edit: []string{capEdit("CAP_KILL", "CAP_KILL", "CAP_KILL", "", "")}, Sh: showCaps, Out: capsLine(capNone, capKill, capKill, capKill, capNone)},
	{Row: "P21 none", Edit: []string{capEdit("", "", "", "", "")}, Sh: showCaps, Out: capsLine(capNone, capNone, capNone, capNone, capNone)},
	{Row: "P21 ambient of a user", Edit: []string{capEdit("CAP_KILL", "CAP_KILL", "CAP_KILL", "CAP_KILL", "CAP_KILL"), `process.user={"uid":1000,"gid":1000}`}, Sh: showCaps,
		Out: capsLine(capKill, capKill, capKill, capKill, capKill)},
	{Row: "P21 unknown name warns", Edit: []string{capEdit("CAP_KILL CAP_BANANA", "CAP_KILL", "CAP_KILL", "", "")}, Sh: showCaps, Warn: "CAP_BANANA",
		Out: capsLine(capNone, capKill, capKill, capKill, capNone)},
	{Row: "P21 ungrantable warns", Edit: []string{capEdit("CAP_KILL CAP_SYS_RESOURCE", "CAP_KILL", "CAP_KILL", "", "")}, Sh: showCaps, Out: "~CapPrm: " + capKill},
	{Row: "P22 a user's capabilities end at execve", Edit: []string{capEdit("CAP_KILL", "CAP_KILL", "CAP_KILL", "", ""), `process.user={"uid":1000,"gid":1000}`}, Sh: showCaps,
		Out: capsLine(capNone, capNone, capNone, capKill, capNone)},
	{Row: "P31 seccomp without capset and setuid", Edit: []string{`process.user={"uid":1000,"gid":1000}`,
		`linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["capset","setuid","setresuid","setgroups","mount","unshare"],"action":"SCMP_ACT_ERRNO"}]}`}, Sh: "id -u", Out: "1000"},
}

func TestCapabilities(t *testing.T) { runCases(t, capCases) }
