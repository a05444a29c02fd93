//go:build amd64 || arm64

// Package killpoint runs a program, unmodified, under ptrace(2) and kills one of its processes at a chosen system call:
// fault injection for programs that do not know of it. A process that is killed as it enters a call has done all before
// the call and nothing of it, so the calls are all the points that the program's surroundings can tell apart. Calls
// that change nothing outside of the calling process are not counted: a kill before one of them is like a kill before
// the next.
package killpoint

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Victim says who is killed.
type Victim int

// Victims: the program itself, or a process that it has cloned, until that executes another program.
const (
	Program Victim = iota
	Clone
)

// Result is what happened.
type Result struct {
	Killed bool   // the victim has reached the call and was killed
	Call   string // which call that was
	Calls  int    // how many the victim has made that count
	Status syscall.WaitStatus
}

// options trace all that the program starts, and kill it with the tracer.
const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK |
	unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL

// thread is one that is traced.
type thread struct {
	process  int
	started  bool // its first stop was seen
	executed bool // another program
}

// trace is one traced run of a program.
type trace struct {
	victim  Victim
	n       int
	program int // pid
	threads map[int]*thread
	killed  bool
	result  Result
}

// At starts cmd, kills the victim when it enters its n-th call that counts (1 is the first), and lets all others go on.
// It returns when the program has ended, which it kills after limit; what the program has started runs on untraced. 0
// kills no process.
func At(cmd *exec.Cmd, victim Victim, n int, limit time.Duration) (Result, error) {
	runtime.LockOSThread() // the thread is the tracer
	defer runtime.UnlockOSThread()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return Result{}, err
	}
	t := &trace{victim: victim, n: n, program: cmd.Process.Pid, threads: map[int]*thread{}}
	cmd.Process.Release()
	var late atomic.Bool
	timer := time.AfterFunc(limit, func() {
		late.Store(true)
		unix.Kill(t.program, unix.SIGKILL)
	})
	defer timer.Stop()
	err := t.follow()
	t.releaseAll()
	if late.Load() {
		return t.result, fmt.Errorf("the program has not ended in %v", limit)
	}
	return t.result, err
}

// follow handles stops until the program has ended.
func (t *trace) follow() error {
	var ws unix.WaitStatus
	if _, err := wait(t.program, &ws); err != nil {
		return err
	}
	t.threads[t.program] = &thread{process: t.program, started: true}
	if err := unix.PtraceSetOptions(t.program, options); err != nil {
		return err
	}
	if err := unix.PtraceSyscall(t.program, 0); err != nil {
		return err
	}
	for {
		tid, err := wait(-1, &ws)
		if err != nil {
			return err
		}
		if !ws.Stopped() {
			delete(t.threads, tid)
			if tid == t.program {
				t.result.Status = syscall.WaitStatus(ws)
				return nil
			}
			continue
		}
		if err := t.stopped(tid, ws); err != nil && !errors.Is(err, unix.ESRCH) { // it may be killed meanwhile
			return err
		}
	}
}

// wait waits for a process of this thread's, which may be a thread of another.
func wait(pid int, ws *unix.WaitStatus) (int, error) {
	for {
		got, err := unix.Wait4(pid, ws, unix.WALL|unix.WNOTHREAD, nil)
		if err != unix.EINTR {
			return got, err
		}
	}
}

// stopped lets a thread go on, or kills its process.
func (t *trace) stopped(tid int, ws unix.WaitStatus) error {
	th := t.threads[tid]
	if th == nil { // its first stop may come before the event of who cloned it
		th = &thread{process: processOf(tid)}
		t.threads[tid] = th
	}
	sig := ws.StopSignal()
	switch {
	case sig == unix.SIGTRAP|0x80:
		if !t.killed && t.reached(th, tid) {
			t.killed = true
			return unix.Kill(th.process, unix.SIGKILL)
		}
		return t.resume(tid, 0)
	case ws.TrapCause() > 0:
		t.event(th, tid, ws.TrapCause())
		return t.resume(tid, 0)
	case sig == unix.SIGSTOP && !th.started:
		th.started = true
		return t.resume(tid, 0)
	}
	return t.resume(tid, int(sig))
}

// event keeps the table of threads.
func (t *trace) event(th *thread, tid, cause int) {
	switch cause {
	case unix.PTRACE_EVENT_CLONE, unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK:
		if child, err := unix.PtraceGetEventMsg(tid); err == nil && t.threads[int(child)] == nil {
			t.threads[int(child)] = &thread{process: processOf(int(child))}
		}
	case unix.PTRACE_EVENT_EXEC:
		th.executed = true
		for other, o := range t.threads { // the process's other threads are gone
			if other != tid && o.process == th.process {
				delete(t.threads, other)
			}
		}
	}
}

func (t *trace) resume(tid, sig int) error {
	if t.killed {
		return unix.PtraceCont(tid, sig)
	}
	return unix.PtraceSyscall(tid, sig)
}

// reached tells whether a thread enters the call at which its process is killed.
func (t *trace) reached(th *thread, tid int) bool {
	if (th.process == t.program) != (t.victim == Program) || t.victim == Clone && th.executed {
		return false
	}
	nr, entering := enteredCall(tid)
	if !entering || private[nr] {
		return false
	}
	t.result.Calls++
	if t.result.Calls != t.n {
		return false
	}
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", tid))
	t.result.Killed, t.result.Call = true, fmt.Sprintf("call %d (number %d) of %s", t.n, nr, strings.TrimSpace(string(comm)))
	return true
}

// releaseAll detaches what is left, which runs or waits in a stop.
func (t *trace) releaseAll() {
	for tid, th := range t.threads {
		if th.started { // else its first stop is on its way
			if unix.Tgkill(th.process, tid, unix.SIGSTOP) != nil {
				continue
			}
		}
		for end := time.Now().Add(time.Second); ; time.Sleep(100 * time.Microsecond) {
			if released, _ := release(tid); released || time.Now().After(end) {
				break
			}
		}
	}
	// One that was cloned when its parent was killed is not known.
	for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		if _, err := release(-1); err == unix.ECHILD {
			return
		}
	}
}

// release detaches a thread that is in the stop that it was given, and lets it go on from any other; true: it is not
// traced any more. A thread of a process that is being killed may never stop.
func release(tid int) (released bool, err error) {
	var ws unix.WaitStatus
	got, err := unix.Wait4(tid, &ws, unix.WALL|unix.WNOTHREAD|unix.WNOHANG, nil)
	switch {
	case err == unix.EINTR || got == 0 && err == nil:
		return false, nil
	case err != nil || !ws.Stopped():
		return true, err
	case ws.StopSignal() == unix.SIGSTOP && ws.TrapCause() <= 0:
		unix.PtraceDetach(got)
		return true, nil
	}
	return unix.PtraceCont(got, 0) != nil, nil
}

// processOf is the process of a thread.
func processOf(tid int) int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	_, rest, _ := strings.Cut(string(data), "\nTgid:")
	pid := tid
	fmt.Sscan(rest, &pid)
	return pid
}

// private are the calls that change nothing outside of the calling process and tell it nothing of others.
var private = map[uint64]bool{
	unix.SYS_FUTEX: true, unix.SYS_MMAP: true, unix.SYS_MUNMAP: true, unix.SYS_MPROTECT: true, unix.SYS_MADVISE: true, unix.SYS_BRK: true,
	unix.SYS_RT_SIGACTION: true, unix.SYS_RT_SIGPROCMASK: true, unix.SYS_RT_SIGRETURN: true, unix.SYS_SIGALTSTACK: true,
	unix.SYS_NANOSLEEP: true, unix.SYS_CLOCK_NANOSLEEP: true, unix.SYS_CLOCK_GETTIME: true, unix.SYS_SCHED_YIELD: true,
	unix.SYS_SCHED_GETAFFINITY: true, unix.SYS_SCHED_SETAFFINITY: true, unix.SYS_GETTID: true, unix.SYS_GETPID: true, unix.SYS_GETPPID: true,
	unix.SYS_GETUID: true, unix.SYS_GETEUID: true, unix.SYS_GETGID: true, unix.SYS_GETEGID: true, unix.SYS_FSTAT: true, unix.SYS_STATX: true,
	unix.SYS_FSTATFS: true, unix.SYS_STATFS: true, unix.SYS_READLINKAT: true, unix.SYS_FCNTL: true, unix.SYS_LSEEK: true, unix.SYS_GETDENTS64: true,
	unix.SYS_EPOLL_CREATE1: true, unix.SYS_EPOLL_CTL: true, unix.SYS_EVENTFD2: true, unix.SYS_PRCTL: true, unix.SYS_CAPGET: true, unix.SYS_CAPSET: true,
	unix.SYS_UMASK: true, unix.SYS_GETRANDOM: true, unix.SYS_SET_ROBUST_LIST: true, unix.SYS_RSEQ: true, unix.SYS_UNAME: true, unix.SYS_GETCWD: true,
	unix.SYS_DUP3: true, unix.SYS_FCHDIR: true, unix.SYS_CHDIR: true, unix.SYS_MINCORE: true, unix.SYS_EXIT: true,
}
