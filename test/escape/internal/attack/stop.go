package attack

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// stop sends SIGSTOP to each process that appears in the pid namespace, and prints its number, as long as it has
// another name than comm.
func stop(comm string) error {
	w := &watcher{said: map[string]bool{}}
	return newProcesses(func(pid int) bool {
		if syscall.Kill(pid, syscall.SIGSTOP) != nil {
			return false
		}
		w.release(pid, comm)
		return true
	})
}

// newProcesses calls take for the numbers that the next processes of the pid namespace may get, again and again: take
// reports whether there is a process. It runs on one thread, as ptrace(2) needs it, and ends only with an error.
func newProcesses(take func(pid int) bool) error {
	runtime.LockOSThread()
	last, err := lastPID()
	if err != nil {
		return err
	}
	fmt.Println("watching")
	for {
		for pid := last + 1; pid <= last+ahead; pid++ {
			if unix.Access("/proc/self/task/"+strconv.Itoa(pid), 0) == nil || take(pid) { // the first: a thread of this process
				last = pid
				break
			}
		}
	}
}

// release lets a process that was stopped go on when it has become comm: a stop that comes during execve(2) is the
// program's.
func (w *watcher) release(pid int, comm string) {
	status := "/proc/" + strconv.Itoa(pid) + "/status"
	for n := w.read(status); n > 0 && !bytes.Contains(w.buf[:n], []byte("\nState:\tZ")); n = w.read(status) {
		if bytes.Equal(field(w.buf[:n], "Name:\t"), []byte(comm)) {
			syscall.Kill(pid, syscall.SIGCONT)
			return
		}
		if bytes.Contains(w.buf[:n], []byte("\nState:\tT")) {
			w.say("stopped", pid, "")
		}
	}
}
