package bundle

import (
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// harmless are the system calls that any container may make, the same that docker allows. What is missing here reaches other
// containers or the host (keyrings, io_uring, userfaultfd, mounting, modules, clocks), or is dead.
const harmless = `_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown
chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu
getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid
getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname
getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret
mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv
process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom
recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid
setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid
setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketpair
splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink
unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev`

// byCapability are the calls that a capability allows.
var byCapability = []struct{ capability, names string }{
	{"CAP_BPF", "bpf"},
	{"CAP_DAC_READ_SEARCH", "open_by_handle_at"},
	{"CAP_PERFMON", "perf_event_open"},
	{"CAP_SYSLOG", "syslog"},
	{"CAP_SYS_ADMIN", `bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
		open_tree perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare`},
	{"CAP_SYS_BOOT", "reboot"},
	{"CAP_SYS_CHROOT", "chroot"},
	{"CAP_SYS_MODULE", "delete_module finit_module init_module"},
	{"CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"},
	{"CAP_SYS_PACCT", "acct"},
	{"CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"},
	{"CAP_SYS_RAWIO", "ioperm iopl"},
	{"CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"},
	{"CAP_SYS_TTY_CONFIG", "vhangup"},
}

const eperm, enosys = 1, 38

// Seccomp is the default profile for a process with the given capabilities on the architecture that this program runs on: the
// calls that docker's default allows, other calls give EPERM. It is stricter in one place: AF_ALG and AF_VSOCK sockets cannot
// be had with garbage in the unused half of the argument or through socketcall either (CVE-2026-123876, CVE-2026-31431).
func Seccomp(caps []string) *specs.LinuxSeccomp {
	refuse := uint(eperm)
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &refuse, Architectures: architectures(runtime.GOARCH)}
	names := strings.Fields(harmless)
	for _, c := range byCapability {
		if slices.Contains(caps, c.capability) {
			names = append(names, strings.Fields(c.names)...)
		}
	}
	names = append(names, strings.Fields(byArchitecture(runtime.GOARCH))...)
	slices.Sort(names)
	allow(s, slices.Compact(names))
	for _, persona := range []uint64{0, 0x8, 0x20000, 0x20008, 0xffffffff} { // Linux, PER_LINUX32, UNAME26 with both, query
		allow(s, []string{"personality"}, specs.LinuxSeccompArg{Index: 0, Value: persona, Op: specs.OpEqualTo})
	}
	sockets(s)
	if !slices.Contains(caps, "CAP_SYS_ADMIN") {
		clones(s, runtime.GOARCH)
	}
	return s
}

func allow(s *specs.LinuxSeccomp, names []string, args ...specs.LinuxSeccompArg) {
	s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: names, Action: specs.ActAllow, Args: args})
}

// sockets allows all address families but AF_ALG (38) and AF_VSOCK (40). The kernel takes the low half of the register only,
// so the rules do too. What socketcall would open cannot be seen, so it opens nothing: programs call socket since Linux 4.3.
func sockets(s *specs.LinuxSeccomp) {
	const families, low = 46, 0xffffffff // AF_MAX
	for family := uint64(0); family < families; family++ {
		if family != 38 && family != 40 {
			allow(s, []string{"socket"}, specs.LinuxSeccompArg{Index: 0, Value: low, ValueTwo: family, Op: specs.OpMaskedEqual})
		}
	}
	const sysSocket = 1
	allow(s, []string{"socketcall"}, specs.LinuxSeccompArg{Index: 0, Value: sysSocket, Op: specs.OpNotEqual})
}

// clones allows new processes and threads but no new namespaces. clone3 passes its flags where a filter cannot read them, so it
// answers as on a kernel that lacks it, and callers turn to clone.
func clones(s *specs.LinuxSeccomp, arch string) {
	const namespaces = 0x7e020000 // CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET
	index := uint(0)
	if arch == "s390x" {
		index = 1 // the kernel's own order of clone's arguments there
	}
	allow(s, []string{"clone"}, specs.LinuxSeccompArg{Index: index, Value: namespaces, ValueTwo: 0, Op: specs.OpMaskedEqual})
	missing := uint(enosys)
	s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &missing})
}

func byArchitecture(arch string) string {
	switch arch {
	case "amd64":
		return "arch_prctl modify_ldt"
	case "386":
		return "modify_ldt"
	case "arm", "arm64":
		return "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"
	case "ppc64le":
		return "swapcontext sync_file_range2"
	case "riscv64":
		return "riscv_flush_icache riscv_hwprobe"
	case "s390x":
		return "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"
	}
	return ""
}

func architectures(arch string) []specs.Arch {
	switch arch {
	case "amd64":
		return []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	case "386":
		return []specs.Arch{specs.ArchX86}
	case "arm64":
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	case "arm":
		return []specs.Arch{specs.ArchARM}
	case "ppc64le":
		return []specs.Arch{specs.ArchPPC64LE}
	case "riscv64":
		return []specs.Arch{specs.ArchRISCV64}
	case "s390x":
		return []specs.Arch{specs.ArchS390X, specs.ArchS390}
	}
	return nil
}
