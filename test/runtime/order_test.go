package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// childCalls are system calls that a runtime's child makes, or might, on its way to the program.
var childCalls = strings.Fields("accept accept4 access arch_prctl brk capget capset chdir chmod chown clone clone3 close close_range connect " +
	"dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait exit eventfd2 faccessat faccessat2 fchdir fchmod fchmodat fchown fchownat fcntl " +
	"fstat fstatfs fsconfig fsmount fsopen fsync futex getcwd getdents64 getegid geteuid getgid getgroups getpgid getpid getppid getrandom " +
	"getrlimit getsockopt getuid gettid ioctl ioprio_set keyctl kill lseek lstat madvise membarrier mincore mkdirat mknodat mmap mount " +
	"mount_setattr move_mount mprotect munmap nanosleep newfstatat open open_tree openat openat2 personality pidfd_open pipe2 pivot_root poll " +
	"ppoll prctl pread64 prlimit64 pwrite64 readlink readlinkat readv recvfrom recvmsg rseq rt_sigaction rt_sigprocmask rt_sigreturn " +
	"sched_getaffinity sched_setaffinity sched_setattr sched_yield seccomp sendmsg sendto set_mempolicy set_robust_list set_tid_address " +
	"setdomainname setgid setgroups sethostname setns setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid " +
	"setsockopt setuid shutdown sigaltstack socket socketpair splice stat statfs statx symlinkat sysinfo tgkill umask umount2 uname unlinkat " +
	"unshare vfork wait4 waitid write writev")

// TestCallsAfterFilter denies each of these calls in turn. Whatever runc's child can do without, tare's can too, by run, by create
// and start, and by exec; runc is asked only where tare does not manage.
func TestCallsAfterFilter(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("runc is not installed: there is nothing to compare with")
	}
	user := `process.user={"uid":1000,"gid":1000,"additionalGids":[5],"umask":63}`
	all := `["CAP_KILL","CAP_CHOWN"]`
	caps := `process.capabilities={"bounding":` + all + `,"effective":` + all + `,"permitted":` + all + `,"inheritable":["CAP_KILL"],"ambient":["CAP_KILL"]}`
	for _, nnp := range []bool{false, true} {
		row(t, fmt.Sprintf("S calls after the filter, noNewPrivileges %v", nnp), func(h *H) {
			for _, name := range childCalls {
				b := h.Bundle().Edit(user, caps, `process.cwd="/tmp"`, fmt.Sprintf("process.noNewPrivileges=%v", nnp),
					`process.rlimits=[{"type":"RLIMIT_NOFILE","soft":20,"hard":20}]`, seccomp(allow, deny(name, errno, "")))
				b.Args("true")
				for how, do := range map[string]func(h *H, b *Bundle, path string) Result{"run": runOnce, "create and start": startOnce, "exec": execOnce} {
					r := do(h, b, "")
					if r.Code == 0 {
						continue
					}
					if peer := do(h, b, runc); peer.Code == 0 {
						h.Errorf("%s without %s: status %d, %q; runc manages", how, name, r.Code, r.Stderr)
					}
				}
			}
		})
	}
}

// TestCallsOfEarlyFilter allows nothing but what the plan takes for the calls after an early filter, and what the program itself
// needs: a call that the plan does not know of fails.
func TestCallsOfEarlyFilter(t *testing.T) {
	program := "arch_prctl brk set_tid_address set_robust_list rseq readlink readlinkat getrandom mprotect uname mmap munmap getuid setuid getgid " +
		"setgid newfstatat fstat getpid rt_sigprocmask"
	for _, calls := range []string{
		"capset write close_range madvise accept4 read close sendto execve exit_group",
		"capset clone write exit_group setsid ioctl read prlimit64 execve",
	} {
		row(t, "S after the filter: "+calls, func(h *H) {
			b := h.Bundle().Edit(`process.noNewPrivileges=false`, seccomp(errno, deny(calls+" "+program, allow, ""))).Args("true")
			for _, do := range []func(h *H, b *Bundle, path string) Result{runOnce, startOnce, execOnce} {
				h.Want(do(h, b, ""), "", 0)
			}
		})
	}
}

func runOnce(h *H, b *Bundle, path string) Result {
	h.Write(b)
	id := h.NewID()
	if path != "" { // what a peer leaves is not the subject
		defer h.Do(Cmd{Path: path, Args: []string{"delete", "-f", id}})
	}
	return h.Do(Cmd{Path: path, Args: []string{"run", "-b", b.Dir, id}})
}

func startOnce(h *H, b *Bundle, path string) Result {
	h.Write(b)
	id := h.NewID()
	defer h.Do(Cmd{Path: path, Args: []string{"delete", "-f", id}})
	if r := h.Do(Cmd{Path: path, Args: []string{"create", "-b", b.Dir, id}}); r.Code != 0 {
		return r
	}
	r := h.Do(Cmd{Path: path, Args: []string{"start", id}})
	if r.Code == 0 && r.Stderr != "" {
		r.Code = 1
	}
	return r
}

// execOnce runs the program in a container whose first process waits for start.
func execOnce(h *H, b *Bundle, path string) Result {
	h.Write(b)
	id := h.NewID()
	defer h.Do(Cmd{Path: path, Args: []string{"delete", "-f", id}})
	if r := h.Do(Cmd{Path: path, Args: []string{"create", "-b", b.Dir, id}}); r.Code != 0 {
		return r
	}
	return h.Do(Cmd{Path: path, Args: []string{"exec", id, "true"}})
}

// TestLowLimits: limits that would hinder the runtime's own steps hold from the program on.
func TestLowLimits(t *testing.T) {
	for _, limit := range []string{
		`{"type":"RLIMIT_NOFILE","soft":%[1]d,"hard":%[1]d}`,
		`{"type":"RLIMIT_MEMLOCK","soft":0,"hard":0},{"type":"RLIMIT_NOFILE","soft":%[1]d,"hard":%[1]d},{"type":"RLIMIT_NPROC","soft":1,"hard":1}`,
	} {
		for _, n := range []int{8, 20, 24} {
			row(t, fmt.Sprintf("P20 %d descriptors, %.20s", n, limit), func(h *H) {
				edits := []string{fmt.Sprintf("process.rlimits=["+limit+"]", n), `process.user={"uid":12345,"gid":0}`,
					userns, idMaps(100000, 65536)}
				b := h.Bundle().Edit(edits...)
				rootfsOf(100000)(h, b)
				for i := range 20 {
					b.Edit(mnt(fmt.Sprintf("/t/%d", i), "none", h.TempDir(), "bind"))
				}
				b.Args("cat", "/proc/self/limits")
				h.Want(h.Run(b), fmt.Sprintf("~Max open files +%[1]d +%[1]d", n), 0)
				b = h.Bundle().Edit(edits...).Args("sleep", "60")
				rootfsOf(100000)(h, b)
				h.Up(b)
				h.Want(h.RT("exec", b.ID, "cat", "/proc/self/limits"), fmt.Sprintf("~Max open files +%[1]d +%[1]d", n), 0)
			})
		}
	}
}

// TestJoiningProcess: a process that joins a container is never seen there with a right that is not its own.
func TestJoiningProcess(t *testing.T) {
	rules := deny("reboot", errno, "")
	for _, test := range []struct{ name, edit string }{
		{"without a filter", `process.noNewPrivileges=false`},
		{"with a filter", seccomp(allow, rules)},
		{"with a filter and no_new_privs", seccomp(allow, rules)},
	} {
		row(t, "P22 capabilities of an exec "+test.name, func(h *H) {
			set := `["CAP_SYS_PTRACE","CAP_KILL"]`
			b := h.Bundle().Edit(test.edit, `process.capabilities={"bounding":`+set+`,"effective":`+set+`,"permitted":`+set+`}`,
				fmt.Sprintf("process.noNewPrivileges=%v", strings.Contains(test.name, "no_new_privs")))
			b.Args("probe", "watch", "/tmp/seen")
			h.Up(b)
			file := filepath.Join(b.Rootfs, "tmp/seen")
			h.Await("the watcher", func() bool { _, err := os.Stat(file); return err == nil })
			for range 60 {
				h.Want(h.Do(Cmd{Args: []string{"exec", b.ID, "true"}, Env: append(os.Environ(), "HOSTSECRET=x")}), "", 0)
			}
			time.Sleep(50 * time.Millisecond)
			data, err := os.ReadFile(file)
			if err != nil {
				h.Fatalf("%v", err)
			}
			seen := strings.Fields(string(data))
			if test.name == "with a filter" { // one that refuses what an exec needs after it
				b := h.Bundle().Edit(seccomp(allow, deny("prlimit64", errno, "")), `process.noNewPrivileges=false`,
					`process.capabilities={"bounding":`+set+`,"effective":`+set+`,"permitted":`+set+`}`).Args("sleep", "60")
				h.Up(b)
				h.FailRT("CAP_SYS_PTRACE", "exec", b.ID, "true")
			}
			if len(seen) < 2 { // "watching", then what it saw
				h.Errorf("the watcher has seen no process: %q", data)
			}
			for _, line := range seen[1:] {
				if line != "0000000000080020" {
					h.Errorf("a process was seen with the permitted set, or: %s", line)
				}
			}
		})
	}
}
